"""Observers and modes: who is told of a computation, and whether it is recorded.

Every thread and every asyncio task has a mode of its own. Dispatch (``tape.apply``) and the
backward pass tell the observers in it what they do; anomaly detection, the profiler and the
recorder of programs are observers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from tensorgrad.backend.base import Array
    from tensorgrad.nn.module import Module
    from tensorgrad.ops.random import Generator
    from tensorgrad.optim.optimizer import Optimizer
    from tensorgrad.tape import Leaf, Node, Primitive, Rule
    from tensorgrad.tensor import Tensor


class Observer:
    """Sees every computation that is dispatched: the anomaly check, a recorder, a profiler."""

    #: whether gradient rules must be dispatched too, operation by operation
    records = False

    def computed(
        self, op: Primitive, inputs: Sequence[Any], attrs: Mapping[str, Any], out: Tensor
    ) -> None:
        """Called after ``op`` gave ``out`` from ``inputs`` (tensors and scalars)."""

    def computing(self, op: Primitive) -> None:
        """Called before ``op`` computes."""

    def differentiating(self, node: Node) -> None:
        """Called in the backward pass before a rule of ``node`` computes."""

    def differentiated(
        self, node: Node, rule: Rule, saved: Sequence[Any], g: Any, gradient: Any
    ) -> None:
        """Called in the backward pass after ``rule`` of ``node`` gave ``gradient`` from ``g``."""

    def overwriting(self, arrays: Sequence[Array]) -> None:
        """Called before an operation overwrites ``arrays``."""

    def created(self, tensor: Tensor, source: Any) -> None:
        """Called after ``tensor`` was made from ``source``; ``None`` where it was filled."""

    def read(self, tensor: Tensor, how: str) -> None:
        """Called before Python gets to see the numbers in ``tensor``."""

    def drew(self, generator: Generator, words: int) -> None:
        """Called before ``words`` random words are drawn from ``generator``."""

    def seeded(self, generator: Generator) -> None:
        """Called before ``generator`` starts again from a seed."""

    def clearing(self, optimizer: Optimizer) -> None:
        """Called before an optimizer forgets the gradients of all its parameters."""

    def updating(self, optimizer: Optimizer, number: int, bundle: int) -> None:
        """Called before an optimizer updates a bundle of its group ``number``."""

    def entered(self, module: Module) -> None:
        """Called before a module is called, while somebody is in ``RECORDING``."""

    def left(self, module: Module) -> None:
        """Called after a module was called, however it ended; see ``entered``."""

    def changed_gradient(self, leaf: Leaf, cleared: bool) -> None:
        """Called before the ``.grad`` of ``leaf`` is replaced (``cleared``) or added to."""

    def looked_at_gradient(self, leaf: Leaf) -> None:
        """Called when somebody asks for the ``.grad`` of ``leaf``, while a program is captured."""


class Mode(NamedTuple):
    """What dispatch does besides computing. Each thread and each asyncio task has its own."""

    grad: bool = True
    observers: tuple[Observer, ...] = ()


# The recorders at work, of any thread: empty, it says at little cost that nobody is to be told.
RECORDING: list[Observer] = []


def is_captured() -> bool:
    """Whether what this thread does is being captured for a program."""
    return any(observer in RECORDING for observer in current_mode().observers)


# The dtype of ``autocast`` (ops/precision.py); and all that are open, in whatever thread: if there
# is none, which costs little to see, nobody has to ask for the dtype.
AUTOCAST_DTYPE: ContextVar[np.dtype[Any] | None] = ContextVar("autocast", default=None)
AUTOCASTS: list[Any] = []

# Whether ``checkpoint`` is computing a part again: what is counted or averaged over calls stays.
RECOMPUTING: ContextVar[bool] = ContextVar("recomputing", default=False)

MODE: ContextVar[Mode] = ContextVar("tensorgrad mode", default=Mode())  # noqa: B039 (immutable)
current_mode = MODE.get
