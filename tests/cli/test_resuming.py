"""Resuming elsewhere: other data is refused, moved data is found, other arithmetic is said."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tensorgrad.cli import main
from tensorgrad.training import load_checkpoint, save_checkpoint

pytestmark = pytest.mark.usefixtures("empty_folder")

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 255, (90, 4, 4)).astype(np.uint8)
IMAGES[0, 0, 0] = 255  # the scale stays the same
LABELS = np.arange(90) % 3


def arrays(path: str, x: Any = IMAGES, y: Any = LABELS, **others: Any) -> None:
    np.savez(path, x=x, y=y, **others)


def table(path: str, swap: bool = False) -> None:
    rows = [[0.1 * i, -0.2 * i, "pq"[i % 2]] for i in range(60)]
    if swap:  # the same columns, each with the same mean and deviation
        rows[3][2], rows[4][2] = rows[4][2], rows[3][2]
    Path(path).write_text("a,b,t\n" + "".join(f"{a:.2f},{b:.2f},{t}\n" for a, b, t in rows))


def trained(*options: str, out: str = "run") -> None:
    assert main(["train", "--epochs", "1", "--hidden", "4", "--out", out, *options]) == 0


def exchanged(values: Any, i: int, j: int) -> Any:
    """With two of them in each other's place."""
    order = np.arange(len(values))
    order[[i, j]] = j, i
    return values[order]


ALTERED: dict[str, dict[str, Any]] = {
    "other images": {"x": IMAGES[:, ::-1]},
    "other labels": {"y": LABELS[::-1]},
    "two labels exchanged": {"y": exchanged(LABELS, 4, 5)},
    "one pixel": {"x": np.where(np.arange(16).reshape(4, 4) == 7, IMAGES ^ 1, IMAGES)},
    "another order": {"x": exchanged(IMAGES, 7, 8), "y": exchanged(LABELS, 7, 8)},
}


@pytest.mark.parametrize("changes", ALTERED.values(), ids=ALTERED)
def test_other_data_of_the_same_shape_is_refused(
    changes: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """By resume and evaluate, whatever was altered; put back, it is taken."""
    arrays("d.npz")
    trained("--data", "d.npz")
    before = Path("run/checkpoint.safetensors").read_bytes()
    arrays("d.npz", **changes)
    capsys.readouterr()
    for words in (["resume", "run", "--epochs", "2"], ["evaluate", "run"]):
        assert main(words) == 2
        assert "the data at d.npz is not what run was trained on" in capsys.readouterr().err
    assert Path("run/checkpoint.safetensors").read_bytes() == before
    arrays("d.npz")
    assert main(["resume", "run", "--epochs", "2"]) == 0
    assert main(["evaluate", "run"]) == 0


def test_other_tables_and_other_data_to_test_with_are_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Labels of a table; and the part given with --test."""
    table("d.csv")
    table("t.csv")
    trained("--data", "d.csv", "--test", "t.csv")
    for name in ("d.csv", "t.csv"):
        table(name, swap=True)
        assert main(["resume", "run", "--epochs", "2"]) == 2
        assert "is not what run was trained on" in capsys.readouterr().err
        table(name)
    assert main(["resume", "run", "--epochs", "2"]) == 0


def test_a_digest_is_of_values_and_not_of_files() -> None:
    """The same arrays in another file are the same data."""
    arrays("d.npz")
    trained("--data", "d.npz")
    np.savez_compressed("d.npz", y=LABELS, x=np.asfortranarray(IMAGES))
    assert main(["resume", "run", "--epochs", "2"]) == 0


def test_runs_of_before_there_was_a_digest(capsys: pytest.CaptureFixture[str]) -> None:
    """Go on, with a line that says what was not checked."""
    arrays("d.npz")
    trained("--data", "d.npz")
    found = load_checkpoint("run/checkpoint.safetensors")
    config = {k: v for k, v in found.config.items() if k not in ("digest", "base")}
    save_checkpoint("run/checkpoint.safetensors", found.state, config)
    capsys.readouterr()
    assert main(["resume", "run", "--epochs", "2"]) == 0
    assert "whether it is still the same was not checked" in capsys.readouterr().err


def test_from_another_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the settings say is looked up where the run was begun, not where one stands."""
    home = Path.cwd()
    table("d.csv")
    trained("--data", "d.csv")
    (home / "elsewhere").mkdir()
    monkeypatch.chdir(home / "elsewhere")
    table("d.csv", swap=True)  # another of that name
    for epochs, run in (("2", "../run"), ("3", str(home / "run"))):
        assert main(["resume", run, "--epochs", epochs]) == 0
        assert main(["evaluate", run]) == 0
    monkeypatch.chdir(home)
    assert main(["resume", "run", "--epochs", "4"]) == 0
    assert main(["evaluate", "run"]) == 0
    assert load_checkpoint("run/checkpoint.safetensors").config["data"] in (
        "d.csv", str(home / "d.csv"),
    )  # fmt: skip


@pytest.mark.parametrize("absolute", [False, True])
def test_run_and_data_moved_together(
    absolute: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The data is found beside the run, also where its path was absolute."""
    home = Path.cwd()
    (home / "old/data").mkdir(parents=True)
    monkeypatch.chdir(home / "old")
    table("data/d.csv")
    table("data/t.csv")
    place = str(home / "old/data") if absolute else "data"
    trained("--data", f"{place}/d.csv", "--test", f"{place}/t.csv", out="runs/one")
    monkeypatch.chdir(home)
    shutil.move("old", "new")
    for epochs, run in (("2", "new/runs/one"), ("3", str(home / "new/runs/one"))):
        assert main(["resume", run, "--epochs", epochs]) == 0
        assert main(["evaluate", run]) == 0
    assert main(["report", "new/runs/one"]) == 0
    assert "no longer there" not in (home / "new/runs/one/report.html").read_text()


def test_data_moved_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """It is named by an option, which also takes another name, but no other content."""
    table("d.csv")
    table("t.csv")
    trained("--data", "d.csv", "--test", "t.csv")
    Path("d.csv").rename("renamed.csv")
    capsys.readouterr()
    assert main(["resume", "run", "--epochs", "2"]) == 2
    err = capsys.readouterr().err
    assert "d.csv: there is no such file or folder" in err
    assert "say where it is now with --data" in err
    assert err.count("\n") == 1
    table("other.csv", swap=True)
    assert main(["resume", "run", "--epochs", "2", "--data", "other.csv"]) == 2
    assert "the data at other.csv is not what run was trained on" in capsys.readouterr().err
    assert main(["resume", "run", "--epochs", "2", "--data", "renamed.csv"]) == 0
    assert main(["resume", "run", "--epochs", "3"]) == 0  # it is known now
    Path("t.csv").rename("t2.csv")
    assert main(["train", "--resume", "run", "--epochs", "4"]) == 2
    assert "with --test" in capsys.readouterr().err
    assert main(["train", "--resume", "run", "--epochs", "4", "--test", "t2.csv"]) == 0


def test_options_without_a_meaning_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Data for a run of the digits, a test part for one without, other settings."""
    trained()
    table("d.csv")
    for option, value, text in (
        ("--data", "d.csv", "--data cannot be given: run was trained without it"),
        ("--test", "d.csv", "--test cannot be given: run was trained without it"),
        ("--image-root", ".", "--image-root cannot be given: run was trained without it"),
    ):
        assert main(["resume", "run", option, value]) == 2
        assert text in capsys.readouterr().err
    assert main(["train", "--resume", "run", "--seed", "1"]) == 2
    assert "only --epochs, --device, and where the data is now" in capsys.readouterr().err


@pytest.mark.filterwarnings("default")
def test_other_arithmetic_is_said_in_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    """An executor that is not there, another number of threads: what differs, and what follows."""
    trained()
    path = "run/checkpoint.safetensors"
    found = load_checkpoint(path)
    own = found.state["arithmetic"]
    found.state["arithmetic"] = {**own, "threads": own["threads"] + 3}
    found.state["compiled"] = {**found.state["compiled"], "executor": "cuda"}
    save_checkpoint(path, found.state, found.config)
    capsys.readouterr()
    assert main(["resume", "run", "--epochs", "2"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(
        f"the run that is resumed computed with products on {own['threads'] + 3} threads, now "
        f"{own['threads']}: from here on the last bits may not be"
    )
    assert lines[1].startswith("the run that is resumed computed its steps as a compiled program")
    assert "epoch 2/2" in lines[2]
    assert main(["resume", "run", "--epochs", "3"]) == 0
    assert "resumed" not in capsys.readouterr().err


def test_older_checkpoints_are_enough(capsys: pytest.CaptureFixture[str]) -> None:
    """Where a killed process left only some of the names."""
    trained("--keep", "3", "--checkpoint-steps", "10")
    for name in ("checkpoint.safetensors", "checkpoint.1.safetensors"):
        Path("run", name).unlink()
    assert main(["resume", "run", "--epochs", "2"]) == 0
    assert "going on from the one before" in capsys.readouterr().err.lower()
