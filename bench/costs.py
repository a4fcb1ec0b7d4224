"""What programs cost besides their work: compiling, calling, and other processes' load."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

from bench.contest import Contest
from bench.machine import ROOT, processors
from bench.measure import Timed, repeated, summary
from bench.report import Row
from bench.workers import Job

NAME = "costs"
TITLE = "what a program costs besides its steps"
UNIT = "microseconds"
WHO = ("tensorgrad compiled",)
#: Seconds of the first call of a step, with nothing on disk and with what an earlier run left.
COLD, CACHED = 1.0, 0.05
EMPTY = 1.0  # microseconds
LOADED = 3.0  # the median of a step under load, as a multiple of its best time
NETWORK, OPTIMIZER = "64-32-10", "Adam"

#: Seconds of the first call of long steps: with nothing on disk, and with what a run left.
LONG: dict[str, tuple[float | None, float | None]] = {
    "100 Runge-Kutta stages": (None, 1.0),
    "400 Runge-Kutta stages": (None, 4.0),
    "5,000 operations in a row": (None, 1.0),
    "20,000 operations in a row": (None, 4.0),
    "LSTM cell over 50 steps": (2.0, 1.0),
}

_FIRST_CALL = """
import json, time
from bench.training.networks import NETWORKS
from bench.training.with_tensorgrad import training_step
step = training_step(NETWORKS[{network!r}], {optimizer!r}, compiled="auto")
start = time.perf_counter()
step()
print(json.dumps(time.perf_counter() - start))
"""

_STEPS = """
import json, time
from bench.training.networks import NETWORKS
from bench.training.with_tensorgrad import training_step
step = training_step(NETWORKS[{network!r}], {optimizer!r}, compiled="auto")
for _ in range(50):
    step()
found = []
end = time.perf_counter() + {seconds}
while time.perf_counter() < end:
    start = time.perf_counter()
    step()
    found.append(time.perf_counter() - start)
print(json.dumps(found))
"""


def printed(program: str, cache: str | None = None) -> Any:
    """What a fresh interpreter prints, read as JSON."""
    environment = dict(os.environ)
    if cache is not None:
        environment["TENSORGRAD_CACHE"] = cache
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True,
        text=True, check=True, timeout=300,
    )  # fmt: skip
    return json.loads(done.stdout)


def build(contestant: str, case: str) -> Timed:
    """A compiled function that does nothing with its argument."""
    assert contestant == "tensorgrad compiled"
    import tensorgrad as tg

    x = tg.ones(4)
    nothing: Any = tg.compile(lambda x: None)
    return Timed(repeated(lambda: nothing(x)))


def _compiling(contest: Contest) -> None:
    rounds = 1 if contest.settings.quick else 3
    program = _FIRST_CALL.format(network=NETWORK, optimizer=OPTIMIZER)
    cold, cached = [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            cold.append(printed(program, folder))
            cached.append(printed(program, folder))
    for name, seconds, limit in (("cold", cold, COLD), ("cached", cached, CACHED)):
        case = f"first call of {NETWORK} {OPTIMIZER}, {name}"
        found = summary(seconds)
        contest.report.rows.append(
            Row(case, "tensorgrad compiled", found.middle * 1e6, min(seconds) * 1e6)
        )
        contest.report.judge(f"{case}, seconds", limit, found.middle, found)


def _long_steps(contest: Contest) -> None:
    """First calls of steps with thousands of operations."""
    for case, limits in LONG.items():
        if contest.settings.quick and "20,000" in case:
            continue
        program = "import json\nfrom bench.unrolled import first_call\n"
        program += f"print(json.dumps(first_call({case!r})))"
        with tempfile.TemporaryDirectory() as folder:
            cold, cached = printed(program, folder), printed(program, folder)
        about = "{instructions:,} instructions, {characters:,} characters of C".format(**cached)
        print(f"{case}: {about}, replay {cached['replay'] * 1e3:.3f} ms", flush=True)
        for name, found, limit in zip(("cold", "cached"), (cold, cached), limits):
            row = f"first call of {case}, {name}"
            taken = found["first"]
            contest.report.rows.append(Row(row, WHO[0], taken * 1e6, taken * 1e6))
            if limit is not None:
                contest.report.judge(f"{row}, seconds", limit, taken)


def _under_load(contest: Contest) -> None:
    """Steps while as many other processes as there are cores keep them busy, and before."""
    seconds = 1.0 if contest.settings.quick else 4.0
    for network in ("64-32-10", "784-128-10"):
        program = _STEPS.format(network=network, optimizer=OPTIMIZER, seconds=seconds)
        alone = printed(program)
        busy = [
            subprocess.Popen([sys.executable, "-c", "while True: pass"])
            for _ in range(processors())
        ]
        try:
            time.sleep(0.2)
            times = printed(program)
        finally:
            for process in busy:
                process.kill()
                process.wait()
        found, best = summary(times), min(alone + times)
        case = f"{network} {OPTIMIZER} under load"
        contest.report.rows.append(Row(case, "tensorgrad compiled", found.middle * 1e6, best * 1e6))
        contest.report.judge(f"{case}, median to best", LOADED, found.middle / best)


def run(contest: Contest) -> None:
    """An empty program, compiling, long steps, and steps under load."""
    who = contest.taking_part(*WHO)
    if "tensorgrad compiled" not in who:
        return
    times = contest.compare(
        {("empty program", who[0]): Job(__name__, who[0], ("empty",))}, pace=contest.pace()
    )
    for seconds in times.values():
        found = summary(seconds)
        contest.report.judge("empty program, microseconds", EMPTY, found.middle * 1e6, found)
    _compiling(contest)
    _long_steps(contest)
    _under_load(contest)
