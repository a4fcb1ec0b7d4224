"""What an executor is. Those that there are stand in ``executors/__init__.py``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from tensorgrad.errors import CompileError
from tensorgrad.program.ir import Piece, Program, Range, Value


class UnavailableError(CompileError):
    """An executor cannot work on this machine, whatever the program."""


@dataclass(slots=True)
class FastRun:
    """How C runs a program without Python: see fast_call.py.

    scalars: numbers to look up, each with its name among what is looked up, and where it goes.
    copied: arguments, by number, and where they are copied to.
    placed: arguments, by number, and addresses of places that get theirs, with what is added.
    results: arrays that hold the results afterwards. overwritten: what lies outside and changes.
    segments: the functions to call with ``table``, by their addresses. threads: a BLAS's functions
        that set and get the number of its threads, or zeros. long: whether other threads of Python
        are to go on meanwhile.
    """

    scalars: list[tuple[Callable[[], Mapping[str, Any]], str, np.ndarray[Any, Any]]]
    copied: dict[int, np.ndarray[Any, Any]]
    placed: dict[int, list[tuple[int, int]]]
    results: list[np.ndarray[Any, Any]]
    overwritten: Sequence[Any]
    segments: list[int]
    table: int
    threads: tuple[int, int]
    long: bool


class Executor(Protocol):
    """Runs one program, as often as it is asked to.

    name: by which it is known. reason: why it is not the best one, or does less than it could;
        empty if there is nothing to say.
    language, text: what the program was written in, and what was written.
    references: how many references to a gradient's array there are while nobody else keeps it.
    failures: what it may raise, when it is made or tried, for another executor to be taken.
    """

    name: str
    language: str
    references: int
    failures: tuple[type[Exception], ...]
    reason: str

    def __init__(self, program: Program) -> None: ...

    @staticmethod
    def fits(on_host: bool) -> bool:
        """Whether it runs programs on the CPU, or those on a GPU."""

    @property
    def text(self) -> str:
        """The program in its language."""

    def run(self, arguments: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """The results, which are the caller's, and the gradients.

        Whoever keeps a gradient calls ``renew`` before the next replay. Where it fails on the CPU,
        nothing outside has changed.
        """

    def show(self, arrays: Mapping[Value, Any], piece: Piece) -> dict[Value, list[Range]]:
        """Let ``piece`` do what overwrites these arrays from outside, as far as that can be.

        Returns the elements of each that are overwritten by pieces only, each by one, and neither
        overwritten otherwise nor looked at afterwards. It ends with ``show_no_more``.
        """

    def show_no_more(self) -> None:
        """Overwrite as usual again."""

    def rest(self) -> None:
        """Let go of memory for what it computes, until the next run, where it can.

        Whoever keeps a gradient keeps its memory.
        """

    def renew(self, *numbers: int) -> None:
        """Give these gradients other memory: somebody holds on to the one they have."""

    def fast_run(self) -> FastRun | None:
        """How C runs the program without Python; ``None`` where it does not."""

    def lines(self) -> list[str]:
        """What ran where, for the report."""
