"""Runs: each is a session with a thread of its own, which trains and paints for whoever reads."""

from __future__ import annotations

import json
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeVar

import numpy as np

from tensorgrad.playground.curve import Curve, Row
from tensorgrad.playground.errors import PlaygroundError, shown
from tensorgrad.playground.session import Session

R = TypeVar("R")

SHARED = "shared"
_APART = 0.04  # seconds from one frame to the next
_SHARE = 1  # and as much again as a frame took, for wide networks to learn too
_CHUNK = 0.005  # seconds of training after which requests are looked at
_PING = 1.0  # seconds after which a silent stream says that it is there
_MOST_RUNS = 16  # own ones at a time
_PATIENCE = 300.0  # seconds an own run is kept without a reader
_ENDED = "the run has ended; load the page anew"
_ANSWER = 120.0  # seconds within which a request is answered; a compiler may run meanwhile


class _Published(NamedTuple):
    """What readers are told, made by the run's thread; the curve's first ``length`` rows count."""

    number: int
    settings: tuple[int, bytes]
    data: tuple[int, bytes]
    frame: bytes
    curve: Curve
    version: int
    rows: list[Row]
    length: int


def message(value: Any) -> bytes:
    """A server-sent event that holds ``value`` as JSON."""
    return b"data: " + dumped(value) + b"\n\n"


def dumped(value: Any) -> bytes:
    """``value`` as JSON."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


class Run:
    """A session that a thread of its own works for: whoever wants something of it asks.

    It trains while it is told to and somebody reads; of its frames readers get the newest. It ends
    with ``close``, or after ``patience`` seconds without a reader or a request.
    """

    def __init__(self, make: Callable[[], Session], patience: float | None = None) -> None:
        self._make = make
        self._patience = patience
        self._requests: queue.SimpleQueue[tuple[Callable[[Session], Any], Future[Any]] | None]
        self._requests = queue.SimpleQueue()
        self._news = threading.Condition()
        self._published: _Published | None = None
        self._readers = 0
        self._used = time.monotonic()
        self._ended = False
        self._next = 0.0  # when the next frame may be painted
        self._marks: deque[tuple[float, int]] = deque(maxlen=20)  # time and steps done then
        self._thread = threading.Thread(target=self._work, daemon=True, name="playground run")
        self._thread.start()

    # --- for other threads ------------------------------------------------------------------------

    @property
    def ended(self) -> bool:
        """Whether nothing can be asked of it any more."""
        return self._ended

    def ask(self, question: Callable[[Session], R]) -> R:
        """What ``question`` gives for the session, between two steps; raises what it raises."""
        answer: Future[R] = Future()
        self._requests.put((question, answer))
        if self._ended:
            self._refuse()
        try:
            return answer.result(_ANSWER)
        except TimeoutError as error:
            if answer.done():
                raise
            raise PlaygroundError(f"the run has not answered for {_ANSWER:g} s") from error

    def close(self) -> None:
        """End it."""
        self._ended = True
        self._requests.put(None)
        with self._news:
            self._news.notify_all()

    def events(self) -> Generator[bytes, None, None]:
        """Server-sent events, until the reader is gone: settings, data and frames as they come.

        Whoever is slow misses frames and nothing else: curves are continued where the reader is.
        """
        with self._news:
            self._readers += 1
        self._requests.put(None)  # something to be told
        try:
            yield from self._told()
        finally:
            with self._news:
                self._readers -= 1
                self._used = time.monotonic()

    def _told(self) -> Iterator[bytes]:
        number = settings = data = place = 0
        seen: tuple[Curve, int] | None = None
        while not self._ended:
            with self._news:
                self._news.wait_for(lambda n=number: self._has_news(n), _PING)  # type: ignore[misc]
                found = self._published
            if found is None or found.number == number:
                yield b": still here\n\n"
                continue
            number = found.number
            if found.settings[0] != settings:
                settings = found.settings[0]
                yield found.settings[1]
            if found.data[0] != data:
                data = found.data[0]
                yield found.data[1]
            anew = seen is None or seen[0] is not found.curve or seen[1] != found.version
            rows = found.rows[0 if anew else place : found.length]
            seen, place = (found.curve, found.version), found.length
            end = dumped({"curve": rows, "curve_reset": anew})
            yield b"data: " + found.frame[:-1] + b"," + end[1:] + b"\n\n"

    def _has_news(self, number: int) -> bool:
        found = self._published
        return self._ended or (found is not None and found.number != number)

    # --- the run's own thread ---------------------------------------------------------------------

    def _work(self) -> None:
        try:
            with np.errstate(all="ignore"):  # what is not finite shows on the page
                self._go_on(self._make())
        except Exception as error:  # whoever asks is told; pages that read come again
            print(f"tensorgrad: a run ended: {type(error).__name__}: {error}", file=sys.stderr)
        finally:
            self.close()
            self._refuse()

    def _refuse(self) -> None:
        """Let nobody wait for an answer that never comes."""
        while not self._requests.empty():
            request = self._requests.get()
            if request is not None and not request[1].done():
                request[1].set_exception(PlaygroundError(_ENDED))

    def _go_on(self, session: Session) -> None:
        due = True  # something is to be painted
        began, budget = time.monotonic(), 0.0
        while not self._ended:
            busy = session.running and self._readers > 0
            due = self._answer(session, self._pause(busy, due)) or due
            now = time.monotonic()
            if session.running and self._readers > 0:
                budget = min(budget + (now - began) * session.settings.speed, 0.1 * 10**6)
                count = self._count(session, budget)
                if due and not session.learner.steps:
                    self._paint(session)  # before the first step is compiled
                done = session.step(count) if count else 0
                budget = max(budget - done, 0.0)
                due = due or done > 0 or not session.running
            began = now
            if due and self._readers > 0 and time.monotonic() >= self._next:
                self._paint(session)
                due = False
            if self._is_forgotten():
                self.close()

    def _pause(self, busy: bool, due: bool) -> float:
        """How long to wait for a request."""
        if busy:
            return 0.0
        if due and self._readers > 0:
            return max(0.0, self._next - time.monotonic())
        return 1.0

    def _answer(self, session: Session, wait: float) -> bool:
        """Answer the requests that have come; whether there were any."""
        found = False
        while True:
            try:
                request = self._requests.get(block=wait > 0, timeout=wait or None)
            except queue.Empty:
                return found
            found, wait = True, 0.0
            self._used = time.monotonic()
            if request is not None:
                question, answer = request
                try:
                    answer.set_result(question(session))
                except BaseException as error:
                    answer.set_exception(error)

    def _count(self, session: Session, budget: float) -> int:
        """How many steps take so long as to look at requests again."""
        each = session.microseconds
        count = 1 if each is None else int(min(max(_CHUNK * 1e6 / each, 1), 2000))
        if not session.settings.speed:
            return count
        if budget < 1:
            time.sleep(0.002)
            return 0
        return min(count, int(budget))

    def _paint(self, session: Session) -> None:
        """Put out a frame; who has not taken the one before never sees it."""
        now = time.monotonic()
        steps = session.learner.steps
        if self._marks and (steps < self._marks[-1][1] or not session.running):
            self._marks.clear()
        self._marks.append((now, steps))
        (first, before), (last, after) = self._marks[0], self._marks[-1]
        speed = (after - before) / (last - first) if last > first else 0.0
        old, learner = self._published, session.learner
        settings, data = session.settings_version + 1, session.data_version + 1
        new = _Published(
            1 if old is None else old.number + 1,
            old.settings if old is not None and old.settings[0] == settings
            else (settings, message(session.settings_message())),
            old.data if old is not None and old.data[0] == data
            else (data, message(session.data_message())),
            dumped({**session.frame(), "steps_per_second": round(speed, 1)}),
            learner.curve,
            learner.curve.version,
            learner.curve.rows,
            len(learner.curve.rows),
        )  # fmt: skip
        self._next = now + max(_APART, (1 + _SHARE) * (time.monotonic() - now))
        with self._news:
            self._published = new
            self._news.notify_all()

    def _is_forgotten(self) -> bool:
        if self._patience is None or self._readers > 0:
            return False
        return time.monotonic() - self._used > self._patience


class Runs:
    """The runs by name: "shared", which all pages may see, and pages' own, made when asked for.

    make: gives a new session.
    """

    def __init__(self, make: Callable[[], Session], patience: float = _PATIENCE) -> None:
        self._make = make
        self._patience = patience
        self._lock = threading.Lock()
        self._runs: dict[str, Run] = {}

    def __getitem__(self, name: str) -> Run:
        """The run of that name. Raises PlaygroundError for a name that cannot be, or too many."""
        if not (name.isascii() and name.isalnum() and name == name.lower() and len(name) <= 16):
            raise PlaygroundError(
                f"run must be {SHARED} or 1 to 16 of a-z and 0-9; got {shown(name)}"
            )
        with self._lock:
            self._runs = {k: run for k, run in self._runs.items() if not run.ended}
            if name not in self._runs:
                if name != SHARED and len(self._runs) > _MOST_RUNS:
                    raise PlaygroundError(
                        f"there may be {_MOST_RUNS} runs at a time; close other pages, or take "
                        f"the one that is {SHARED}"
                    )
                patience = None if name == SHARED else self._patience
                self._runs[name] = Run(self._make, patience)
            return self._runs[name]

    def close(self) -> None:
        """End all."""
        with self._lock:
            for run in self._runs.values():
                run.close()
