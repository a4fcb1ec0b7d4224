"""The benchmark's machinery runs. Nothing here depends on how long anything takes."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from bench import memory, peak, units
from bench.__main__ import SECTIONS, main
from bench.contest import Contest, Settings
from bench.measure import (
    CLOCK_VARIABLE,
    Pace,
    Summary,
    calibrate,
    interleave,
    ratios,
    repeated,
    summary,
)
from bench.report import Report
from bench.training import layered
from bench.workers import ContestantError, Job, LocalWorker, variables
from tensorgrad.program.compiler import compiler


def test_a_section_runs_and_writes_its_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "results.json"
    arguments = ["--only", "tape", "--quick", "--together", "--contestants", "tensorgrad,naive"]
    assert main([*arguments, "--json", str(file)]) == 0
    results = json.loads(file.read_text())
    assert results["machine"].keys() >= {"cpu", "cores", "memory_gib"}
    assert results.keys() >= {"os", "python", "threads", "date", "command", "frameworks"}
    assert results["frameworks"]["tensorgrad"]["blas"]
    (section,) = results["sections"]
    assert section["name"] == "tape"
    assert not section["wrong"]
    assert not section["skipped"]
    assert {row["contestant"] for row in section["rows"]} == {"tensorgrad", "naive"}
    assert all(row["time"] > 0 for row in section["rows"])
    assert {bar["passed"] for bar in section["bars"]} <= {True, False}
    assert len(section["bars"]) == 2
    printed = capsys.readouterr().out
    assert "## tape" in printed
    assert "chain 100" in printed


def test_sections_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in SECTIONS)


def test_unknown_contestants_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--contestants", "tensorgrad,nobody"])
    assert "nobody" in capsys.readouterr().err


class _Clock:
    """Pretends that a repetition takes ``each`` seconds, longer every time if it ``drifts``."""

    def __init__(self, each: float, drift: float = 1.0) -> None:
        self.each, self.drift = each, drift

    def seconds(self, repetitions: int) -> float:
        taken = repetitions * self.each
        self.each *= self.drift
        return taken


def test_a_slot_is_filled() -> None:
    assert calibrate(_Clock(0.001), slot=0.02) == 20
    assert calibrate(_Clock(1.0), slot=0.02) == 1


def test_rare_slow_steps_make_no_shorter_slots() -> None:
    class Checked(_Clock):
        """Takes a hundred times as long at calls 2, 4, 8 and so on."""

        calls = 0

        def seconds(self, repetitions: int) -> float:
            before, self.calls = self.calls, self.calls + repetitions
            checks = self.calls.bit_length() - before.bit_length()
            return (repetitions + 100 * checks) * self.each

    assert 60 <= calibrate(Checked(0.001), slot=0.1) <= 100


def test_ratios_are_taken_within_a_round() -> None:
    entries = {"a": _Clock(2.0, drift=1.5), "b": _Clock(1.0, drift=1.5)}
    times = interleave(entries, Pace(rounds=5, slot=0.01, rest=0.0))
    found = ratios(times["a"], times["b"])
    assert (found.low, found.middle, found.high) == pytest.approx((2.0, 2.0, 2.0))
    assert summary([3.0]).middle == 3.0


def test_time_of_the_processor_leaves_out_sleep(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(CLOCK_VARIABLE, "processor")
    assert repeated(lambda: time.sleep(0.02))(3) < 0.03
    monkeypatch.setenv(CLOCK_VARIABLE, "")
    assert repeated(lambda: time.sleep(0.02))(3) >= 0.06
    with pytest.raises(SystemExit):
        main(["--processor-time", "--threads", "2"])
    assert "--threads 1" in capsys.readouterr().err


def test_repetitions_are_counted() -> None:
    calls: list[int] = []
    assert repeated(lambda: calls.append(1))(7) > 0
    assert len(calls) == 7


def test_a_contestant_that_fails_says_why() -> None:
    with pytest.raises(ContestantError, match="no_such_network"):
        LocalWorker().prepare(Job("bench.steps", "numpy", ("no_such_network", "Adam")))


def test_bars_say_pass_or_fail() -> None:
    report = Report("name", "title", "unit")
    report.judge("met", 1.0, 0.5)
    report.judge("missed", 1.0, 1.5)
    report.judge("not measured", 1.0, None)
    text = report.as_text("torch")
    assert "PASS  met" in text
    assert "FAIL  missed" in text
    assert "not measured" not in text


def test_variables_of_a_worker_are_set_while_it_is_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MALLOC_TOP_PAD_", "1")
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    with variables({"MALLOC_TOP_PAD_": "4096", "MALLOC_TRIM_THRESHOLD_": "8192"}):
        assert os.environ["MALLOC_TOP_PAD_"] == "4096"
        assert os.environ["MALLOC_TRIM_THRESHOLD_"] == "8192"
    assert os.environ["MALLOC_TOP_PAD_"] == "1"
    assert "MALLOC_TRIM_THRESHOLD_" not in os.environ


@pytest.mark.parametrize("name", [layered.CONVNET, layered.BLOCK, layered.SPARSE])
def test_networks_of_layers_are_trained(name: str) -> None:
    step = layered.training_step("tensorgrad", name)
    first, *_, last = (step().item() for _ in range(3))
    assert last < first


def test_a_network_is_evaluated_without_being_changed() -> None:
    step = layered.training_step("tensorgrad", layered.INFERENCE)
    assert step().item() == step().item()


def test_the_best_peer_is_the_one_with_the_least_median() -> None:
    contest = Contest(Settings(), Report("name", "title", "unit"))
    times = {"tensorgrad compiled": [1.0, 1.0], "torch": [9.0, 9.0], "jax": [4.0, 4.0]}
    units._judge(contest, layered.LSTM, {(layered.LSTM, k): v for k, v in times.items()})
    (bar,) = contest.report.bars
    assert bar.value == 0.25
    assert bar.passed
    assert "jax" in bar.what


def test_convolutions_are_timed(capsys: pytest.CaptureFixture[str]) -> None:
    if compiler() is None:
        pytest.skip("no C compiler was found")
    chosen = ["--case", "1-16, 64 x 28²", "--contestants", "tensorgrad compiled"]
    assert main(["--only", "convolutions", "--quick", "--together", *chosen]) == 0
    assert "28², weights, 1 thread" in capsys.readouterr().out


def test_an_unsteady_ratio_comes_with_that_of_the_least_times() -> None:
    report = Report("name", "title", "unit")
    report.judge("steady", 1.0, 0.5, Summary(0.5, 0.4, 0.55), 0.42)
    report.judge("unsteady", 1.0, 0.5, Summary(0.5, 0.1, 0.9), 0.43)
    text = report.as_text("torch")
    assert "0.43 by the least times" in text
    assert "0.42" not in text


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux counts memory")
def test_memory_is_counted_in_a_process_of_its_own() -> None:
    found = memory.measured("tensorgrad", "784-128-10")
    assert 20 < found["following"] <= found["first"] + 1 < 1000
    assert abs(found["growth"]) < 10


@pytest.mark.skipif(compiler() is None, reason="needs a C compiler")
def test_no_product_is_quicker_than_the_peak() -> None:
    rate = peak.peak(os.cpu_count() or 1)
    a = np.ones((512, 512), np.float32)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start)
    assert 2 * 512**3 / best < 1.15 * rate
