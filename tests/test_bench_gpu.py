"""The campaign for a GPU, rehearsed on the stand-in: its stages run, and say what is broken.

Nothing here ran on a GPU.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from emulator import emulator
from standin import cupy_standin

from bench.gpu import checks, launched, rehearsal, stage_bandwidth, suite, table
from bench.gpu.__main__ import main
from bench.gpu.common import Settings
from bench.gpu.results import Results, load
from bench.gpu.stages import STAGES, USUAL
from bench.machine import ROOT
from tensorgrad.backend import cuda_is_available, kernels
from tensorgrad.backend.launch import bias_activation, common, rows
from tensorgrad.program.executors import cuda_source

N = 1 << 12

pytestmark = pytest.mark.skipif(
    emulator.available() is not None, reason=emulator.available() or "there is an emulator"
)


# --- bandwidth ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def counted() -> Iterator[None]:
    before = kernels.get
    with rehearsal.installed():
        launched.note()
        yield
    kernels.get = before


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize("name", stage_bandwidth.NAMES)
def test_every_case_is_one_pass(name: str) -> None:
    """A case launches its kernel, and no more than small second stages besides."""
    case = stage_bandwidth.case(name, N, parameters=20)
    case.run()
    cupy_standin.log.clear()
    case.run()
    # a sort by our own kernels takes three launches for each eight bits of row numbers
    most = {"take rows int32 backward": 7, "take rows int64 backward": 7, "clip_grad_norm_": 3}
    most |= dict.fromkeys(set(stage_bandwidth.UPDATES) - {"clip_grad_norm_"}, 1)
    most |= {"lstm forward": 8, "gru forward": 8, "lstm backward": 16, "gru backward": 16}
    assert 1 <= cupy_standin.log.launches <= most.get(name, 4)
    assert not cupy_standin.log.syncs


@pytest.mark.usefixtures("counted")
def test_every_kernel_has_a_case(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[str] = set()
    launched.taken()
    for large in (False, True):
        if large:  # the kernels for more rows
            monkeypatch.setattr(rows, "_ENOUGH_ROWS", 2)
            monkeypatch.setattr(bias_activation, "FEW_ROWS", 1)
            common.forget_plans()
        for name in stage_bandwidth.NAMES:
            if not large or name.startswith(("softmax", "log_softmax", "linear", "cross")):
                n = 8 * N if large and "cross_entropy 128" in name else N
                stage_bandwidth.case(name, n, parameters=3).run()
        seen.update(label.partition(" ")[0] for label in launched.taken())
    common.forget_plans()
    names = {f"{f}/{name}" for f in kernels.families() for name in kernels.kernel_names(f)}
    assert seen == names


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_cases_in_16_bits(dtype: str) -> None:
    for name in stage_bandwidth.NAMES:
        launched.taken()
        stage_bandwidth.case(name, N, dtype, parameters=3).run()
        assert launched.taken(), name


# --- the command ----------------------------------------------------------------------------------

TESTS = " or ".join(
    ["(test_activation and float32 and gelu and not extremes)", "test_A3", "test_work_goes_to",
     "(test_cuda_rows and hypot)"]
)  # fmt: skip


def command(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "bench.gpu", *arguments],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def campaign(out: Path, *arguments: str) -> tuple[int, str, dict[str, dict[str, Any]]]:
    """Exit status, what was printed, and the results: stage -> case -> result."""
    process = command("--rehearse", "--workers", "1", "--out", str(out), *arguments)
    text, _ = process.communicate(timeout=280)
    found = {name: results(out, name) for name in STAGES}
    return process.returncode, text, {name: cases for name, cases in found.items() if cases}


def results(out: Path, stage: str) -> dict[str, Any]:
    folder = max(out.glob("gpu-stand-in-*"), default=out)
    return dict(load(folder / f"{stage}.json").get("cases", {}))


def chosen(*cases: str) -> list[str]:
    return [word for case in cases for word in ("--case", case)]


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("rehearsed")
    some = chosen(
        "card", "software", "clocks", "launch", "dense", "test_gpu.py", "kernels", "lectures",
        "bias + gelu forward", "512-10 momentum", "TF32", "784-128", "3 x 3 bfloat16",
        "causal attention float16",
    )  # fmt: skip
    code, text, found = campaign(out, "--tests", TESTS, "--rounds", "1", *some)
    assert code == 0, text
    assert tuple(found) == USUAL, text
    for stage, cases in found.items():
        for name, result in cases.items():
            skips = ("clocks",) if stage == "facts" else ()
            assert result["outcome"] in ("passed", *("skipped" for n in skips if n == name)), text
    return out, text


def test_every_stage_is_rehearsed(rehearsed: tuple[Path, str]) -> None:
    out, text = rehearsed
    assert "one graph" in text  # the report of a compiled step
    assert results(out, "compiled")["dense"]["report"]
    counts = results(out, "tests")["written kernels"]["counts"]
    assert counts["passed"] == 2  # gelu, and its approximation
    assert "gelu_forward" in str(results(out, "tests")["written kernels"]["kernels"]["passed"])
    assert results(out, "tests")["lectures"]["counts"] == {"passed": 2}
    assert results(out, "host")["784-128-10 momentum"]["operations"] > 5
    written = (out / "gpu.md").read_text()
    assert "| activation: gelu_forward | no | float32 [1] | no |" in written
    assert "| compiled: dense | yes [1] | no |" in written


def test_what_passed_is_not_run_again(rehearsed: tuple[Path, str]) -> None:
    out, _ = rehearsed
    (out / "gpu-stand-in-2026-01-01").mkdir()  # an older one
    before = results(out, "facts")
    code, text, found = campaign(out, "--skip-done", "--stage", "facts", *chosen("card", "launch"))
    assert code == 0
    assert "== facts" not in text
    assert found["facts"] == before


def test_planted_faults_are_reported(tmp_path: Path, rehearsed: tuple[Path, str]) -> None:
    """One in each stage; the cases after it and the other stages go on."""
    plants = {
        "facts": "crash", "compiled": "capture", "tests": "kernel", "bandwidth": "symbol",
        "steps": "capture", "products": "crash", "host": "crash", "sanitizer": "symbol",
    }  # fmt: skip
    some = chosen(
        "card", "software", "dense", "written", "memcheck kernels", "lectures", "gelu forward",
        "tanh forward", "512-10 momentum", "product", "784-128", "updates",
    )  # fmt: skip
    words = [w for stage, fault in plants.items() for w in ("--plant", f"{stage}={fault}")]
    code, text, found = campaign(tmp_path, "--tests", TESTS, *words, *some)
    assert code == 1
    assert tuple(found) == tuple(stage for stage in USUAL if stage != "cudnn"), text

    def came(stage: str, case: str) -> tuple[str, str]:
        result = found[stage][case]
        return result["outcome"], result.get("reason", "")

    assert came("facts", "card") == ("died", "the process ended by signal 11")
    assert came("facts", "software")[0] == "passed"
    for stage, case in (("compiled", "dense"), ("steps", "784-512-512-10 momentum")):
        outcome, reason = came(stage, case)
        assert outcome == "failed"
        assert "cudaErrorStreamCaptureUnsupported: planted" in reason
    outcome, reason = came("tests", "written kernels")
    assert outcome == "failed"
    assert "test_activation.py" in reason
    assert "elements are off" in str(found["tests"]["written kernels"]["failures"])
    assert (
        "activation/gelu_forward float32" in found["tests"]["written kernels"]["kernels"]["failed"]
    )
    assert came("tests", "lectures")[0] == "passed"
    outcome, reason = came("bandwidth", "gelu forward float32")
    assert outcome == "failed"
    assert "CUDA_ERROR_NOT_FOUND" in reason
    assert came("bandwidth", "tanh forward float32")[0] == "passed"
    assert came("products", "product float32")[0] == "died"
    assert came("products", "product TF32")[0] == "passed"
    assert came("host", "784-128-10 momentum")[0] == "died"
    assert came("sanitizer", "memcheck kernels")[0] == "failed"
    assert "CUDA_ERROR_NOT_FOUND" in str(found["sanitizer"]["memcheck kernels"]["output"])
    assert came("sanitizer", "memcheck updates")[0] == "passed"
    written = (tmp_path / "gpu.md").read_text()
    assert "- products: product float32: **died**: the process ended by signal 11" in written
    assert "| activation: gelu_forward | no | **failed**: float32 [1]" in written


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("kernel", "losses, eager: GPU and CPU"),
        ("capture", "cudaErrorStreamCaptureUnsupported: planted"),
        ("symbol", "CUDA_ERROR_NOT_FOUND"),
    ],
)
def test_checks_of_compiled_steps_see(fault: str, said: str) -> None:
    with rehearsal.installed([fault]), pytest.raises((AssertionError, RuntimeError), match=said):
        checks.run("layer norm + GELU", tiny=True)


def test_checks_of_compiled_steps_see_wrong_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first replay is compared with the step: the fallback is what is reported."""
    right = cuda_source.KernelWriter.kernel

    def wrong(self: Any) -> Any:
        made = right(self)
        made.text = made.text.replace("tg_tanh_", "tg_sin_")
        return made

    monkeypatch.setattr(cuda_source.KernelWriter, "kernel", wrong)
    with rehearsal.installed(), pytest.raises(AssertionError, match="did something else"):
        checks.run("dense", tiny=True)


def test_a_hang_costs_its_case_alone(tmp_path: Path) -> None:
    code, text, found = campaign(
        tmp_path, "--stage", "products", "--plant", "products=hang", "--limit", "3"
    )
    assert code == 1
    cases = {name: case for name, case in found["products"].items() if name.startswith("product")}
    assert {name: case["outcome"] for name, case in cases.items()} == {
        "product float32": "timed out", "product TF32": "passed", "product bfloat16": "passed"
    }, text  # fmt: skip
    assert "within its limit of 3 s" in cases["product float32"]["reason"]
    assert any("in disturb" in line for line in cases["product float32"]["output"])  # where it hung


@pytest.mark.parametrize("kind", ["SIGTERM", "SIGKILL"])
def test_killed_it_keeps_what_was_measured(kind: str, tmp_path: Path) -> None:
    process = command(
        "--rehearse", "--stage", "products", "--stage", "host", "--plant", "host=hang",
        "--out", str(tmp_path),
    )  # fmt: skip
    until = time.monotonic() + 120
    while not results(tmp_path, "host") and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(getattr(signal, kind))
    process.communicate(timeout=20)  # its output ends when all that it started has ended
    assert results(tmp_path, "products")["product bfloat16"]["outcome"] == "passed"
    assert results(tmp_path, "host")["784-128-10 momentum"]["outcome"] == "running"
    written = table.write(tmp_path).read_text()
    assert "| products: product bfloat16 | yes [1] | no |" in written
    assert "**interrupted**: it was killed while it ran" in written


def test_what_there_is_no_time_for_is_named(tmp_path: Path) -> None:
    code, text, found = campaign(tmp_path, "--stage", "products", "--minutes", "0.001")
    assert code == 0
    assert not found
    assert "no time is left for products: 7 cases" in text


def test_lists_stages_and_cases(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    listed = capsys.readouterr().out
    assert all(f"{name}: " in listed for name in STAGES)
    assert "    softmax 1024 backward bfloat16\n" in listed


@pytest.mark.parametrize(
    "given", [["--plant", "products=hang"], ["--rehearse", "--plant", "products=fire"], ["--stage"]]
)
def test_refuses_what_it_does_not_know(
    given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(given)
    assert ended.value.code == 2
    assert "error: " in capsys.readouterr().err


@pytest.mark.skipif(cuda_is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    process = command("--out", str(tmp_path))
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert text.startswith("no GPU can be used: ")
    assert text.count("\n") == 1
    assert not list(tmp_path.iterdir())


# --- tests as a case ------------------------------------------------------------------------------

SUITE = """
import time
import pytest

def test_right(): pass
def test_wrong(): assert 1 == 2, "as planted"
def test_hangs(): time.sleep(1000)
def test_after(): pass
@pytest.mark.skip(reason="because")
def test_left_out(): pass
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_test_that_hangs_is_named_and_the_others_run(workers: int, tmp_path: Path) -> None:
    file = tmp_path / "test_planted.py"
    file.write_text(SUITE)
    said: list[Any] = []
    settings = Settings(workers=workers, silence=5.0)
    found = suite.run([str(file)], settings, said.append)
    assert found["counts"] == {"passed": 2, "failed": 1, "hung": 1, "skipped": 1}
    names = {name.rpartition("::")[2] for name in found["failures"]}
    assert names == {"test_wrong", "test_hangs"}
    assert "as planted" in str(found["failures"])
    assert found["skipped"] == {"Skipped: because": 1}
    assert "test_hangs" in found["reason"]
    assert said


def test_a_file_that_cannot_be_read_is_a_failure(tmp_path: Path) -> None:
    file = tmp_path / "test_planted.py"
    file.write_text("import a_package_that_is_not_there\n")
    found = suite.run([str(file)], Settings(workers=1), lambda part: None)
    assert "a_package_that_is_not_there" in str(found["failures"])
    assert suite.run([str(tmp_path / "none.py")], Settings(workers=1), lambda part: None)["reason"]


def test_tests_that_never_begin_are_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suite, "_START", 3.0)
    file = tmp_path / "test_planted.py"
    file.write_text("import time\ntime.sleep(1000)\n")
    found = suite.run([str(file)], Settings(workers=1), lambda part: None)
    assert found["reason"] == "nothing happened for 3 s while no test ran"


# --- results --------------------------------------------------------------------------------------


def test_the_table_tells_cards_from_rehearsals(tmp_path: Path) -> None:
    about = {"python": "CPython 3.12.1", "date": "2027-01-02T03:04:05", "commit": "abc",
             "command": ["python", "-m", "bench.gpu"]}  # fmt: skip
    h200 = {**about, "card": {"name": "NVIDIA H200", "driver": 13000, "cupy": "14.2.0"}}
    t4 = {**about, "card": {"name": "T4", "driver": 12040, "cupy": "14.2.0"}}
    made = Results(tmp_path / "gpu-nvidia-h200-2027-01-02", h200)
    launched_in = {"passed": ["softmax/softmax_forward_row float32"],
                   "failed": ["optimizer/adam bfloat16"]}  # fmt: skip
    made.put("tests", "kernels", {"outcome": "failed", "reason": "a|b", "kernels": launched_in})
    made.put("bandwidth", "tanh forward float32", {"outcome": "passed", "figure": "9 GB/s"})
    Results(tmp_path / "gpu-t4-2027-01-01", t4).put(
        "bandwidth", "tanh forward float32", {"outcome": "passed", "figure": "1 GB/s"}
    )
    text = table.write(tmp_path).read_text()
    assert "| softmax: softmax_forward_row | no | no | float32 [2] |" in text
    assert "| optimizer: adam | no | no | **failed**: bfloat16 [2] |" in text
    assert "| tests: kernels | no | **failed**: a\\|b [2] |" in text
    assert "| bandwidth: tanh forward float32 | 9 GB/s [2] |" in text  # the newer one
    assert "2. NVIDIA H200, driver for CUDA 13000, CuPy 14.2.0, CPython 3.12.1" in text
    content = json.loads((tmp_path / "gpu-t4-2027-01-01" / "bandwidth.json").read_text())
    assert content["runs"][0]["card"]["name"] == "T4"
