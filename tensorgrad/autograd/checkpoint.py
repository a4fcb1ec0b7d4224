"""Recomputing instead of storing: memory for time in the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import count
from typing import Any

from tensorgrad.autograd.modes import enable_grad, no_grad
from tensorgrad.dtypes import INEXACT
from tensorgrad.errors import GradientError
from tensorgrad.observers import RECOMPUTING, current_mode
from tensorgrad.ops.precision import autocast, autocast_dtype
from tensorgrad.ops.random import DRAWN, Generator
from tensorgrad.tape import LEAF, Deferred, Node, wrap
from tensorgrad.tensor import Tensor
from tensorgrad.versions import changed_since


def _mapped(change: Callable[[Any], Any], tree: Any) -> Any:
    """Tuples (named ones too), lists and dicts made anew, with what is in them changed."""
    kind = type(tree)
    if kind is dict:
        return {key: _mapped(change, part) for key, part in tree.items()}
    if kind in (tuple, list):
        return kind(_mapped(change, part) for part in tree)
    if isinstance(tree, tuple) and hasattr(kind, "_fields"):
        return kind(*(_mapped(change, part) for part in tree))
    return change(tree)


def _tensors(tree: Any) -> list[Tensor]:
    """The tensors in a tree, in its order."""
    found: list[Tensor] = []
    _mapped(lambda a: found.append(a) if isinstance(a, Tensor) else None, tree)
    return found


class _Segment(Deferred):
    """A part of the computation, and what is needed to do it again.

    As a node it lies before its outputs: it is visited when the gradients of all of them are there,
    so that what they have in common is computed once and gone through once.
    """

    __slots__ = ("drawn", "function", "inputs", "precision")

    def __init__(self, function: Callable[..., Any], args: Any, kwargs: Any) -> None:
        super().__init__(LEAF, (), ())
        self.function = function
        self.inputs = _mapped(lambda a: _Held(a) if isinstance(a, Tensor) else a, (args, kwargs))
        self.drawn: dict[Generator, tuple[int, int]] = {}
        self.precision = autocast_dtype()

    def expand(
        self, gradient: Any, retain: bool, kept: dict[Node, Any]
    ) -> Iterable[tuple[Node, Any]]:
        """The recomputed outputs take their places on the tape."""
        gradients = kept.pop(self)
        outputs = self._outputs()
        inner = ((outputs[number].node, g) for number, g in gradients.items())
        return [(node, g) for node, g in inner if node is not None]

    def _outputs(self) -> list[Tensor]:
        now = {generator: generator.state() for generator in self.drawn}
        for generator, state in self.drawn.items():
            generator.set_state(state)
        token = RECOMPUTING.set(True)
        lowered = self.precision is not None
        try:
            with enable_grad(), autocast(self.precision if lowered else "bfloat16", lowered):
                args, kwargs = _mapped(lambda a: _revive(a, self.position), self.inputs)
                return _tensors(self.function(*args, **kwargs))
        finally:
            RECOMPUTING.reset(token)
            for generator, state in now.items():
                generator.set_state(state)


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

    def expand(
        self, gradient: Any, retain: bool, kept: dict[Node, Any]
    ) -> Iterable[tuple[Node, Any]]:
        """The gradient waits for those of the other outputs."""
        if not retain:
            self.edges = None
        gradients = kept.setdefault(self.segment, {})
        gradients[self.number] = gradient
        return [(self.segment, gradient)] if len(gradients) == 1 else []


def checkpoint(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """``function(*args, **kwargs)`` without storing what happens inside it.

    Only the tensors among the arguments are kept. The backward pass calls the function again,
    with the same random numbers and in the same precision, and then goes through it; gradients are
    the same, to any order. Running statistics of batch normalization are not updated by the second
    call; a module of one's own that keeps something asks ``is_recomputing()``.
    Tensors that the function uses without being given them (parameters of a module) get their
    gradients too, but must not be overwritten between the two calls.

    Arguments and results may be tuples, lists and dicts, in one another too. Results in them must
    be tensors or ``None``, else a TypeError is raised.
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
    numbers = count()

    def recorded(tensor: Any) -> Any:
        if tensor is None:
            return None
        if not isinstance(tensor, Tensor):
            raise TypeError(
                f"checkpoint: the function must return tensors, but returned {type(tensor)}"
            )
        number = next(numbers)
        if tensor.dtype not in INEXACT:
            return tensor
        return wrap(tensor.data, _Checkpoint(segment, number, tensor.shape))

    return _mapped(recorded, out)
