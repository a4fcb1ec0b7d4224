"""The mistakes that mutate_engine.py plants can all be planted, and are of many kinds."""

from __future__ import annotations

import shlex
from itertools import pairwise
from pathlib import Path

import pytest
from engine_mutants import MUTANTS, SELECTIONS
from kernels.mutants import MUTANTS as KERNELS
from library_mutants import MUTANTS as LIBRARY
from mutate_engine import ROOT, part
from mutation import Mutant, first_failure, judged, planted, too_many_explained

_ENGINE = (
    "tensorgrad/program/", "tensorgrad/tape.py", "tensorgrad/backward.py", "tensorgrad/versions.py",
    "tensorgrad/ops/fast_paths.py",
)  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: f"{m.file}: {m.kind}")
def test_there_is_one_place_for_it(mutant: Mutant) -> None:
    text = planted(mutant, ROOT)
    assert text != (ROOT / mutant.file).read_text()
    if mutant.file.endswith(".py"):  # an error in the syntax would be found by any test
        compile(text, mutant.file, "exec")


def test_enough_of_them_in_the_compiler_and_the_backward_pass() -> None:
    engine = [m for m in MUTANTS if m.file.startswith(_ENGINE)]
    assert len(engine) >= 50
    assert len({(m.file, m.old, m.new) for m in MUTANTS}) == len(MUTANTS)


def test_few_have_an_explanation() -> None:
    missed = Mutant("missed", "file", "c", "d")
    explained = missed._replace(survives="it changes nothing")
    assert not too_many_explained([*[missed] * 39, *[explained] * 2])
    assert too_many_explained([*[missed] * 39, *[explained] * 3])
    assert not too_many_explained(MUTANTS)
    assert not too_many_explained(KERNELS)


@pytest.mark.parametrize(
    "folder", ["autograd", "backend", "cli", "data", "nn", "ops", "optim", "program", "training"]
)
def test_mistakes_in_every_folder(folder: str) -> None:
    """At least two, in more than one file where there are several."""
    files = [m.file for m in MUTANTS if m.file.startswith(f"tensorgrad/{folder}/")]
    assert len(files) >= 2
    assert len(set(files)) >= (1 if folder == "backend" else 2)
    assert len(LIBRARY) >= 120


def test_every_selection_serves_a_mutant_and_names_files_that_exist() -> None:
    assert {m.tests for m in MUTANTS} == set(SELECTIONS)
    for selection in SELECTIONS.values():
        words = shlex.split(selection.arguments)
        files = [word for word in words if word.startswith("tests/")]
        assert files
        assert all((ROOT / word).exists() for word in files)


def test_parts_are_in_order_of_time() -> None:
    parts = [part(MUTANTS, k) for k in range(1, 41)]
    assert sorted(m for some in parts for m in some) == sorted(MUTANTS)
    times = [[SELECTIONS[m.tests].seconds for m in some] for some in parts]
    assert all(max(one) <= min(other) for one, other in pairwise(times))


# --- the harness ----------------------------------------------------------------------------------


def test_what_failed_is_told_from_what_did_not_run(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import os, signal, subprocess, sys\nimport pytest\n"
        "def test_right(): pass\n"
        "@pytest.mark.parametrize('x', [0], ids=['kinds: of - wrong'])\n"
        "def test_wrong(x): assert x\n"
        "def test_crash(): os.kill(os.getpid(), signal.SIGSEGV)\n"
        "def test_hang(): subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
    )

    def failure(name: str, limit: float = 60.0) -> str:
        return first_failure(["test_it.py", "-k", name], {}, tmp_path, limit)

    assert failure("right") == ""
    assert failure("wrong").startswith("test_wrong[kinds: of")
    assert failure("crash") == "exit code -11"
    assert failure("hang", 2.0) == "no end within 2 s"
    with pytest.raises(ValueError, match="runs no test"):
        failure("nothing_of_that_name")
    with pytest.raises(ValueError, match="runs no test"):
        first_failure(["no_such_file.py"], {}, tmp_path, 60.0)


def test_survivors_need_an_explanation(capsys: pytest.CaptureFixture[str]) -> None:
    found = [Mutant("found", "file", "a", "b")] * 39
    missed = Mutant("missed", "file", "c", "d")

    def trial(mutant: Mutant) -> str:
        return "" if mutant.kind == "missed" else "test_it"

    assert judged(found, trial, 2, "{m.kind}") == 0
    assert judged([*found, missed], trial, 2, "{m.kind}") == 1
    assert "no test finds: file: 'c' -> 'd'" in capsys.readouterr().out
    explained = missed._replace(survives="it changes nothing")
    assert judged([*found, explained], trial, 2, "{m.kind}") == 0
    assert judged([*found[:12], explained], trial, 2, "{m.kind}") == 0  # one in a small part
    assert "12 of 13 killed, 1 survived as explained" in capsys.readouterr().out
    several = [*found, *[missed] * 3]  # 93 %
    assert judged(several, trial, 2, "{m.kind}", 0.9, explained=False) == 0
    assert judged(several, trial, 2, "{m.kind}", 0.95, explained=False) == 1
    assert judged([], trial, 2, "{m.kind}") == 1


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [("x", "y", "occurs 2 times"), ("z", "y", "occurs 0 times"), ("a", "a", "by itself")],
)
def test_a_mistake_has_one_place(tmp_path: Path, old: str, new: str, match: str) -> None:
    (tmp_path / "file").write_text("x x a")
    with pytest.raises(ValueError, match=match):
        planted(Mutant("kind", "file", old, new), tmp_path)
