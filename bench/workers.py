"""Where contestants run: each framework in a process of its own, or all in this one.

This module is imported by every worker before its framework, so it imports none.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Protocol

from bench.measure import Timed

#: Read by OpenBLAS, MKL, OpenMP and Accelerate when they are loaded.
THREAD_VARIABLES = (
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
#: With these OpenBLAS is told to take the processor for another one than it is.
DISGUISES = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "OPENBLAS_L1_SIZE")


def drop_disguises() -> dict[str, str]:
    """Take them out of the environment of workers to come; what they were."""
    return {name: os.environ.pop(name) for name in DISGUISES if name in os.environ}


class ContestantError(Exception):
    """A contestant cannot take part in a case; the message says why."""


@dataclass(frozen=True)
class Job:
    """``build(contestant, *arguments)`` of a module, which returns the ``Timed`` work."""

    module: str
    contestant: str
    arguments: tuple[Any, ...] = ()

    def build(self) -> Timed:
        """Import the module and build the work, in the process where this is called."""
        build = importlib.import_module(self.module).build
        built: Timed = build(self.contestant, *self.arguments)
        return built


class Prepared(Protocol):
    """A job that has been built and can be timed."""

    check: Sequence[float]

    def seconds(self, repetitions: int) -> float:
        """The time that many repetitions take."""


class Worker(Protocol):
    """A place where jobs are built and timed."""

    def prepare(self, job: Job) -> Prepared:
        """Build the work. Raises ContestantError if that fails."""

    def describe(self, framework: str) -> dict[str, Any]:
        """Version, BLAS and number of threads of a framework."""

    def forget(self) -> None:
        """Let go of all prepared work."""

    def close(self) -> None:
        """End the worker."""


class _LocalWork:
    """Work built in this process."""

    def __init__(self, timed: Timed) -> None:
        self._run = timed.run
        self.check = timed.check

    def seconds(self, repetitions: int) -> float:
        return self._run(repetitions)


class LocalWorker:
    """Runs the jobs in this process."""

    def prepare(self, job: Job) -> Prepared:
        """Build the work here."""
        try:
            return _LocalWork(job.build())
        except Exception as error:
            raise ContestantError(_reason(error)) from error

    def describe(self, framework: str) -> dict[str, Any]:
        """Version, BLAS and number of threads of a framework."""
        from bench.machine import describe

        return describe(framework)

    def forget(self) -> None:
        """Nothing to do: the work dies with the entries."""

    def close(self) -> None:
        """Nothing to do."""


class _RemoteWork:
    """Work built in another process, known there by a number."""

    def __init__(self, worker: ProcessWorker, number: int, check: Sequence[float]) -> None:
        self._worker = worker
        self._number = number
        self.check = check

    def seconds(self, repetitions: int) -> float:
        taken: float = self._worker.ask("seconds", self._number, repetitions)
        return taken


class ProcessWorker:
    """Runs the jobs in a fresh process, which waits on a pipe while others have their turn.

    environment: variables that are set from its very beginning, when the C library reads them.
    """

    def __init__(self, threads: int, environment: Mapping[str, str] | None = None) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, threads), daemon=True)
        with variables(environment or {}):
            self._process.start()
        theirs.close()

    def ask(self, request: str, *arguments: Any) -> Any:
        """Send a request and wait for the answer. Raises ContestantError."""
        try:
            self._pipe.send((request, *arguments))
            answered, answer = self._pipe.recv()
        except (EOFError, OSError) as error:
            self._process.join(5)
            raise ContestantError(
                f"its process ended with status {self._process.exitcode}"
            ) from error
        if not answered:
            raise ContestantError(answer)
        return answer

    def prepare(self, job: Job) -> Prepared:
        """Build the work in the process."""
        number, check = self.ask("prepare", job)
        return _RemoteWork(self, number, check)

    def describe(self, framework: str) -> dict[str, Any]:
        """Version, BLAS and number of threads of a framework."""
        described: dict[str, Any] = self.ask("describe", framework)
        return described

    def forget(self) -> None:
        """Let go of all prepared work."""
        self.ask("forget")

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(5)
        if self._process.is_alive():
            self._process.terminate()


@contextlib.contextmanager
def variables(values: Mapping[str, str]) -> Iterator[None]:
    """Within, the environment has these variables; afterwards it is as it was."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def limit_threads(threads: int) -> None:
    """Hold the libraries loaded from here on to ``threads`` threads.

    XLA has no variable for it, but counts the processors it may run on.
    """
    for name in THREAD_VARIABLES:
        os.environ[name] = str(threads)
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        if threads < len(allowed):
            os.sched_setaffinity(0, allowed[:threads])


def _reason(error: Exception) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({os.path.basename(where.filename)}:{where.lineno})"


def _serve(pipe: Connection, threads: int) -> None:
    """The life of a worker process: answer until the other end of the pipe is closed."""
    limit_threads(threads)
    work: list[Timed] = []
    while True:
        try:
            request, *arguments = pipe.recv()
        except EOFError:
            return
        try:
            answer: Any = None
            if request == "seconds":
                number, repetitions = arguments
                answer = work[number].run(repetitions)
            elif request == "prepare":
                work.append(arguments[0].build())
                answer = (len(work) - 1, list(work[-1].check))
            elif request == "forget":
                work.clear()
            elif request == "describe":
                answer = importlib.import_module("bench.machine").describe(*arguments)
            pipe.send((True, answer))
        except Exception as error:
            pipe.send((False, _reason(error)))
