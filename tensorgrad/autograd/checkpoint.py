"""Recomputing instead of storing: memory for time in the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from tensorgrad.autograd.modes import enable_grad, no_grad
from tensorgrad.errors import GradientError
from tensorgrad.observers import RECOMPUTING, current_mode
from tensorgrad.ops.precision import autocast, autocast_dtype
from tensorgrad.ops.random import DRAWN, Generator
from tensorgrad.tape import LEAF, Deferred, Node, wrap
from tensorgrad.tensor import Tensor
from tensorgrad.versions import changed_since


class _Segment:
    """A part of the computation, and what is needed to do it again."""

    def __init__(self, function: Callable[..., Any], args: Any, kwargs: Any) -> None:
        self.function = function
        self.args = [_Held(a) if isinstance(a, Tensor) else a for a in args]
        self.kwargs = {k: _Held(a) if isinstance(a, Tensor) else a for k, a in kwargs.items()}
        self.drawn: dict[Generator, tuple[int, int]] = {}
        self.precision = autocast_dtype()
        self.outputs: list[Tensor | None] = []

    def take(self, number: int, position: int) -> Tensor:
        """Output ``number`` of a recorded run; each run serves every output once."""
        if not self.outputs or self.outputs[number] is None:
            self._run(position)
        out = self.outputs[number]
        assert out is not None
        self.outputs[number] = None
        return out

    def _run(self, position: int) -> None:
        now = {generator: generator.state() for generator in self.drawn}
        for generator, state in self.drawn.items():
            generator.set_state(state)
        token = RECOMPUTING.set(True)
        lowered = self.precision is not None
        try:
            with enable_grad(), autocast(self.precision if lowered else "bfloat16", lowered):
                out = self.function(
                    *[_revive(a, position) for a in self.args],
                    **{k: _revive(a, position) for k, a in self.kwargs.items()},
                )
        finally:
            RECOMPUTING.reset(token)
            for generator, state in now.items():
                generator.set_state(state)
        self.outputs = list(out) if isinstance(out, tuple | list) else [out]


class _Held:
    """An input tensor: its array and its place on the tape."""

    __slots__ = ("array", "node")

    def __init__(self, x: Tensor) -> None:
        self.array, self.node = x.data, x.node


def _revive(a: Any, position: int) -> Any:
    if not isinstance(a, _Held):
        return a
    if changed_since(a.array, position):
        raise GradientError(
            f"checkpoint: an input of shape {a.array.shape} was overwritten in place after the "
            "segment was computed, so it cannot be computed again; .clone() it first"
        )
    return wrap(a.array, a.node)


class _Checkpoint(Deferred):
    """Stands for one output of a segment until a backward pass arrives there."""

    __slots__ = ("number", "segment")

    def __init__(self, segment: _Segment, number: int, shape: tuple[int, ...]) -> None:
        super().__init__(LEAF, (), shape)
        self.segment = segment
        self.number = number

    def expand(self, gradient: Any, retain: bool) -> Iterable[tuple[Node, Any]]:
        """The recomputed output takes this node's place on the tape."""
        inner = self.segment.take(self.number, self.position)
        if not retain:
            self.edges = None
        return [] if inner.node is None else [(inner.node, gradient)]


def checkpoint(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """``function(*args, **kwargs)`` without storing what happens inside it.

    Only the tensors among the arguments are kept. The backward pass calls the function again,
    with the same random numbers and in the same precision, and then goes through it; gradients are
    the same, to any order. Running statistics of batch normalization are not updated by the second
    call; a module of one's own that keeps something asks ``is_recomputing()``.
    Tensors that the function uses without being given them (parameters of a module) get their
    gradients too, but must not be overwritten between the two calls.

    The function must return a tensor or a tuple or list of tensors.
    """
    if not current_mode().grad:
        return function(*args, **kwargs)
    segment = _Segment(function, args, kwargs)
    token = DRAWN.set(segment.drawn)
    try:
        with no_grad():
            out = function(*args, **kwargs)
    finally:
        DRAWN.reset(token)
    several = isinstance(out, tuple | list)
    tensors = list(out) if several else [out]
    found = []
    for number, tensor in enumerate(tensors):
        if not isinstance(tensor, Tensor):
            raise TypeError(
                f"checkpoint: the function must return tensors, but returned {type(tensor)}"
            )
        found.append(wrap(tensor.data, _Checkpoint(segment, number, tensor.shape)))
    return type(out)(found) if several else found[0]
