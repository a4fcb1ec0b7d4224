"""Tests as a case: counted one by one, gone on with after one that hangs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.gpu.common import Say, Settings
from bench.machine import ROOT

#: seconds until the first test begins, and after the last one
_START = 240.0
#: in place of an exit status
_NEVER = -1000
#: failures whose text is kept; of the others, the names
_TEXTS = 20


class _Tally:
    """What is known of the tests so far."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.failures: dict[str, str] = {}
        self.skipped: Counter[str] = Counter()
        self.running: dict[str, None] = {}
        self.done: dict[str, None] = {}
        self.good: set[str] = set()
        self.bad: set[str] = set()

    def add(self, line: dict[str, Any]) -> None:
        """Take in a line of the plugin's."""
        if "begin" in line:
            self.running[line["begin"]] = None
        elif "end" in line:
            self.running.pop(line["end"], None)
            self.done[line["end"]] = None
        else:
            self.counts[line["outcome"]] += 1
            if line["outcome"] == "failed":
                name = line["test"] + ("" if line["when"] == "call" else f" ({line['when']})")
                self.failures[name] = line["why"]
                self.bad.update(line["kernels"])
                print(f"FAILED {name}\n{line['why'][-1500:]}", flush=True)
            elif line["outcome"] == "skipped":
                self.skipped[line["why"]] += 1
            else:
                self.good.update(line["kernels"])

    def hang(self, seconds: float) -> None:
        """The tests that run now do not end."""
        for name in self.running:
            self.failures[name] = f"ran when nothing had ended for {seconds:g} s"
            self.counts["hung"] += 1
            self.done[name] = None
            print(f"HUNG {name}", flush=True)
        self.running.clear()

    def result(self) -> dict[str, Any]:
        """For the campaign."""
        names = list(self.failures)
        found: dict[str, Any] = {
            "counts": dict(self.counts),
            "failures": {n: self.failures[n] if i < _TEXTS else "" for i, n in enumerate(names)},
            "skipped": dict(self.skipped.most_common(_TEXTS)),
            "running": list(self.running),
            "kernels": {"passed": sorted(self.good - self.bad), "failed": sorted(self.bad)},
            "figure": ", ".join(f"{n} {what}" for what, n in sorted(self.counts.items())),
        }
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            found["reason"] = f"{', '.join(names[:3])}{more}"
        return found


def run(
    paths: Sequence[str],
    settings: Settings,
    say: Say,
    *,
    marker: str = "",
    device: str = "",
    parallel: bool = True,
    only: str = "",
) -> dict[str, Any]:
    """Run the tests in ``paths``, and again without those that were done if some hang.

    only: as pytest's -k, besides that of the settings.
    """
    tally = _Tally()
    with tempfile.TemporaryDirectory() as scratch:
        log, done = Path(scratch, "log"), Path(scratch, "done")
        log.touch()
        expression = " and ".join(f"({text})" for text in (settings.tests, only) if text)
        command = [
            sys.executable, "-m", "pytest", *paths, "-q", "--tb=short", "-W", "default",
            "-p", "bench.gpu.plugin", "-p", "no:cacheprovider", "--campaign-log", str(log),
            "-o", f"faulthandler_timeout={0.9 * settings.silence}", "--no-header", "-r", "",
        ]  # fmt: skip
        command += ["-m", marker] if marker else []
        command += ["-k", expression] if expression else []
        command += ["--campaign-device", device] if device else []
        command += ["--campaign-rehearse"] if settings.rehearse else []
        for fault in settings.plants:
            command += ["--campaign-plant", fault]
        if parallel and settings.workers > 1 and find_spec("xdist"):
            command += ["-n", str(settings.workers)]
        print("pytest", *command[3:], flush=True)
        with log.open(encoding="utf-8") as lines:
            while True:
                done.write_text("\n".join(tally.done))
                again = ["--campaign-done", str(done)] if tally.done else []
                code = _followed([*command, *again], lines, tally, settings, say)
                if code is not None:
                    break
    found = tally.result()
    if code == _NEVER:
        found["reason"] = f"nothing happened for {_START:g} s while no test ran"
    elif "reason" not in found and (code not in (0, 5) or not tally.counts):
        found["reason"] = f"pytest ended with {code} after {sum(tally.counts.values())} tests"
    return found


def _followed(
    command: list[str], lines: Any, tally: _Tally, settings: Settings, say: Say
) -> int | None:
    """pytest's exit status; None if some tests hung and were given up."""
    process = subprocess.Popen(command, cwd=ROOT)
    heard = said = time.monotonic()
    try:
        while True:
            ended = process.poll() is not None
            for line in lines:
                tally.add(json.loads(line))
                heard = time.monotonic()
            now = time.monotonic()
            if ended or now - said > 1:
                say(tally.result())
                said = now
            if ended:
                tally.hang(0) if tally.running else None
                return int(process.returncode)
            if now - heard > (settings.silence if tally.running else _START):
                running = bool(tally.running)
                tally.hang(settings.silence)
                return None if running else _NEVER
            time.sleep(0.1)
    finally:
        if process.poll() is None:
            for number in _with_children(process.pid):
                os.kill(number, signal.SIGKILL)
            process.wait()


def _with_children(number: int) -> list[int]:
    """A process and all that came of it; without /proc, only itself."""
    found, parents = [number], dict[int, int]()
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = file.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        parents[int(file.parent.name)] = int(fields[1])
    for parent in found:
        found += [child for child, its in parents.items() if its == parent]
    return found
