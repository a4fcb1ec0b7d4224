"""The campaign's side of a stage: child processes, and a time limit for each case.

A case that hangs or takes the process with it costs itself alone: the cases after it run in
another process.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import IO, Any

from bench.gpu.common import Settings
from bench.machine import ROOT

#: seconds until a process must have begun its first case: imports, and a first launch
START = 90.0
#: lines of what a case printed that are kept if it does not pass
KEPT = 60

#: Called with a case and what is known of it, as it begins, in between and as it ends.
Report = Callable[[str, dict[str, Any]], None]


class Unusable(Exception):  # noqa: N818, it is no error of this program
    """No GPU can be used; its text says why."""


class _Child:
    """A process that runs cases, and what it says, line by line."""

    def __init__(self, stage: str, settings: Settings, limit: float, cases: Sequence[str]) -> None:
        command = [sys.executable, "-W", "default", "-m", "bench.gpu.child"]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        if settings.rehearse:  # what is tiny does not gain by threads
            environment["OPENBLAS_NUM_THREADS"] = "1"
        self.process = subprocess.Popen(
            [*command, stage, settings.dumps(), str(limit), *cases],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True, env=environment,
        )  # fmt: skip
        self.said: queue.Queue[tuple[str, str]] = queue.Queue()
        self.printed: deque[str] = deque(maxlen=KEPT)
        self._readers = [
            threading.Thread(target=self._read, args=source, daemon=True)
            for source in (("message", self.process.stdout), ("print", self.process.stderr))
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, kind: str, pipe: IO[bytes]) -> None:
        for line in pipe:
            text = line.decode(errors="replace").rstrip("\n")
            if kind == "print":
                self.printed.append(text)
                print(f"    {text}", flush=True)
            else:
                self.said.put((kind, text))
        if kind == "message":
            self.said.put(("closed", ""))

    def kill(self) -> None:
        """End it and all that it started."""
        if hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()

    def output(self) -> list[str]:
        """What it printed since this was asked last."""
        for reader in self._readers:
            reader.join(0.2)
        found = list(self.printed)
        self.printed.clear()
        return found

    def ended(self) -> str:
        """How it ended, for people."""
        try:
            code = self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()
            return "closed its output and went on"
        return f"ended by signal {-code}" if code < 0 else f"ended with exit status {code}"


def run(
    stage: str,
    cases: Sequence[str],
    settings: Settings,
    limit: float,
    report: Report,
    deadline: float = float("inf"),
) -> None:
    """Run the cases one after another; ``report`` gets each as it ends.

    limit: seconds for each case. deadline: by time.monotonic(); what has not begun by then is left
    for another time. Raises Unusable if the process says that there is no GPU.
    """
    left = list(cases)
    while left and time.monotonic() < deadline:
        child = _Child(stage, settings, limit, left)
        try:
            _follow(child, left, limit, report, deadline)
        finally:
            child.kill()


def _follow(child: _Child, left: list[str], limit: float, report: Report, deadline: float) -> None:
    """Take the ended cases of one process off ``left``; returns when another one is needed."""
    current, until = "", time.monotonic() + START
    begun, found, ends = time.monotonic(), dict[str, Any](), 0
    while True:
        try:
            kind, text = child.said.get(timeout=max(0.0, min(until, deadline) - time.monotonic()))
        except queue.Empty:
            child.kill()
            over = time.monotonic() >= deadline
            if current:
                why = f"no end within its limit of {limit:g} s"
                if over:
                    why = f"the time is over; it had {time.monotonic() - begun:.0f} s"
                _ended(left, current, report, {**found, "reason": why}, "timed out", child, begun)
            elif not over:
                why = f"no case was begun within {START:g} s"
                for case in list(left):
                    _ended(left, case, report, {"reason": why}, "died", child, begun)
            return
        if kind == "closed":
            if current:
                why = f"the process {child.ended()}"
                _ended(left, current, report, {**found, "reason": why}, "died", child, begun)
            elif not ends:
                why = f"the process {child.ended()} before a case was begun"
                for case in list(left):
                    _ended(left, case, report, {"reason": why}, "died", child, begun)
            return
        message = json.loads(text)
        if "unusable" in message:
            raise Unusable(message["unusable"])
        if "begin" in message:
            current, found = message["begin"], {}
            begun = time.monotonic()
            until = begun + limit
            child.printed.clear()  # at once: what comes from here on is this case's own
            report(current, {"outcome": "running"})
        elif "part" in message:
            found |= message["part"]
            report(current, {"outcome": "running", **found})
        else:
            result = {**found, **message["result"]}
            _ended(left, current, report, result, result["outcome"], child, begun)
            if time.monotonic() >= deadline:
                return
            current, until, ends = "", time.monotonic() + START, ends + 1


def _ended(
    left: list[str],
    case: str,
    report: Report,
    result: dict[str, Any],
    outcome: str,
    child: _Child,
    begun: float,
) -> None:
    left.remove(case)
    result = {"seconds": round(time.monotonic() - begun, 3), **result, "outcome": outcome}
    if outcome not in ("passed", "skipped"):
        result["output"] = child.output()
    report(case, result)
