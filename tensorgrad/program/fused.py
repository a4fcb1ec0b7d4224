"""``tensorgrad.fuse``: a plain function of tensors as one primitive, forward and backward."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from tensorgrad import dtypes
from tensorgrad.autograd.functional import grad
from tensorgrad.autograd.modes import enable_grad, no_grad
from tensorgrad.dtypes import FLOATS
from tensorgrad.errors import CompileError
from tensorgrad.observers import current_mode
from tensorgrad.ops import zeros_like
from tensorgrad.ops.precision import autocast, autocast_dtype
from tensorgrad.ops.shaping import broadcast_to
from tensorgrad.program.compiled import CapturedProgram, Compiled
from tensorgrad.program.executors.cuda_source import source_of
from tensorgrad.tape import Primitive, apply, wrap
from tensorgrad.tensor import Tensor


class Fused:
    """What ``tensorgrad.fuse`` makes of a function: one entry on the tape, two programs."""

    __name__: str

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function, updated=())
        self.function = function
        self._forward = Compiled(no_grad()(function), "auto", 0, 8)
        self._backward = Compiled(self._gradients, "auto", 0, 8)
        self._primitives: dict[int, Primitive] = {}
        self._differentiable: CapturedProgram | None = (
            None  # the program of the forward that was looked at
        )

    def __get__(self, instance: Any, owner: type) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __call__(self, *tensors: Any, **constants: Any) -> Tensor:
        """``function(*tensors, **constants)``; numbers among the tensors become tensors."""
        mode = current_mode()
        if any(o.records for o in mode.observers):
            return self.function(*tensors, **constants)  # part of a larger program
        first = next((t for t in tensors if isinstance(t, Tensor)), None)
        if first is None:
            raise TypeError(f"{self.__name__}: at least one positional argument must be a tensor")
        like = next((t for t in tensors if isinstance(t, Tensor) and t.dtype in FLOATS), first)
        given = [t if isinstance(t, Tensor) else _as_tensor(t, like) for t in tensors]
        if not mode.grad or all(t.node is None for t in given):
            return self._value(given, constants)
        options = {"constants": constants, "ambient": _Ambient.here()}
        return apply(self._primitive(len(given)), given, options)

    def _value(self, tensors: Sequence[Tensor], constants: Mapping[str, Any]) -> Tensor:
        out = self._forward(*tensors, **constants)
        if not isinstance(out, Tensor):
            raise CompileError(
                f"{self.__name__}: a fused function must return one tensor, not "
                f"{type(out).__name__}; fuse a function for each result"
            )
        return out

    def _primitive(self, count: int) -> Primitive:
        """The primitive for so many tensors."""
        found = self._primitives.get(count)
        if found is None:
            names = [f"x{k}" for k in range(count)]
            given = ", ".join(names)
            rules = {
                name: eval(
                    f"lambda g, {given}, constants, ambient: "
                    f"rule({k}, g, ({given},), constants, ambient)",
                    {"rule": self._rule},
                )
                for k, name in enumerate(names)
            }
            found = self._primitives[count] = Primitive(
                self.__name__, self._computed, rules, together=self._together
            )
        return found

    def _computed(
        self, xp: Any, *arrays: Any, constants: Mapping[str, Any], ambient: _Ambient
    ) -> Any:
        with no_grad():
            value = self._value([wrap(a, None) for a in arrays], constants).data
        entry = self._forward._last_used
        if entry is not None and entry is not self._differentiable:
            self._look_at(entry)
            self._differentiable = entry
        return value

    def _look_at(self, entry: CapturedProgram) -> None:
        """Raise CompileError for a function whose gradient its inputs do not give."""
        if entry.words:
            raise CompileError(
                f"{self.__name__}: a fused function that is differentiated draws no random "
                "numbers, since its gradient computes it again and would draw others. Remedy: "
                "draw them outside, and pass the tensor as an argument"
            )
        if entry.guards.uses_history():
            raise CompileError(
                f"{self.__name__}: a fused function uses a tensor from outside that requires a "
                "gradient, which would not get one. Remedy: pass it as an argument by position, "
                "or use its detach()"
            )

    def _together(self, g: Any, needed: Sequence[bool], saved: Mapping[str, Any]) -> Sequence[Any]:
        """The gradients of all inputs, by one program."""
        xs = [wrap(saved[f"x{k}"], None) for k in range(len(needed))]
        with saved["ambient"].restored():
            found = self._backward(wrap(g, None), *xs, **saved["constants"])
        return [t.data for t in found]

    def _rule(self, k: int, g: Tensor, xs: Sequence[Any], constants: Any, ambient: Any) -> Any:
        """One gradient through the function's own tape: the rule itself is being recorded."""
        further = current_mode().grad
        with enable_grad(), ambient.restored():
            # Entries of their own: a tensor that was given twice has a gradient for each place.
            own = [broadcast_to(x, x.shape) if x.node is not None else _leaf(x) for x in xs]
            out = self.function(*own, **constants)
            if not out.requires_grad:
                return zeros_like(xs[k])
            (found,) = grad(out, own[k], g, create_graph=further)
        return found

    def _gradients(self, g: Tensor, *xs: Tensor, **constants: Any) -> list[Tensor]:
        with enable_grad():
            leaves = [_leaf(x) for x in xs]
            real = [x for x in leaves if x.dtype in FLOATS]
            out = self.function(*leaves, **constants)
            found = iter(grad(out, real, g) if out.requires_grad else map(zeros_like, real))
        return [next(found) if x.dtype in FLOATS else x for x in leaves]

    def source(self, language: str = "c") -> str:
        """The code of the programs that were used last, forward and backward.

        language: "c", or "cuda", which can be had without a GPU too.

        Raises ValueError for another language, CompileError if nothing was compiled yet, or for "c"
        if the function does not run as C.
        """
        if language not in ("c", "cuda"):
            raise ValueError(f'source: the language must be "c" or "cuda", got {language!r}')
        parts = []
        for name, compiled in (("forward", self._forward), ("backward", self._backward)):
            if compiled.captures:
                executor = compiled._last().executor
                if language == "cuda":
                    parts.append(f"/* {name} */\n{source_of(compiled.program())}")
                    continue
                if executor.language != language:
                    raise CompileError(f"the {name} program runs in NumPy: {executor.reason}")
                parts.append(f"/* {name} */\n{executor.text}")
        if not parts:
            raise CompileError("nothing was compiled yet; call the function first")
        return "\n".join(parts)


class _Ambient(NamedTuple):
    """What the function was called in, and what its gradients are computed in too."""

    precision: Any
    default: Any

    @staticmethod
    def here() -> _Ambient:
        """That of this moment."""
        return _Ambient(autocast_dtype(), dtypes.get_default_dtype())

    @contextmanager
    def restored(self) -> Iterator[None]:
        """A context in which it holds again."""
        now = _Ambient.here()
        if now == self:
            yield
            return
        inside = self.precision is not None
        dtypes.set_default_dtype(self.default)
        try:
            with autocast(self.precision if inside else "bfloat16", enabled=inside):
                yield
        finally:
            dtypes.set_default_dtype(now.default)


def _as_tensor(number: Any, like: Tensor) -> Tensor:
    """A number as a tensor of the dtype that it has in a computation with ``like``."""
    kinds = "biuf"
    own = "b" if isinstance(number, bool) else "i" if isinstance(number, int) else "f"
    kind = "f" if like.dtype in FLOATS else like.dtype.kind
    fits = kind in kinds and kinds.index(kind) >= kinds.index(own)
    return Tensor(number, dtype=like.dtype if fits else None, device=like.device)


def _leaf(x: Tensor) -> Tensor:
    return x.detach().requires_grad_() if x.dtype in FLOATS else x


def fuse(function: Callable[..., Any]) -> Fused:
    """Make ``function``, a plain function of tensors, one primitive.

    Its value is one program, and so are all its gradients, which are derived from the tape of the
    function. Where the function is elementwise, each of them is a single loop over the data in C
    (see ``tensorgrad.compile``), which reads the inputs and keeps nothing besides them: what the
    gradient needs is computed again. It can be differentiated to any order. On a GPU it is a kernel
    forward and one backward (emulated; not yet run on a GPU). Inside a compiled function the plain
    function is part of the larger program.

    function: takes tensors by position and hashable constants by keyword, and returns one tensor.

    Example::

        @tg.fuse
        def swish(x, beta):
            return x * tg.sigmoid(beta * x)

    The call raises TypeError if no positional argument is a tensor, CompileError if the function
    cannot be captured.
    """
    return Fused(function)
