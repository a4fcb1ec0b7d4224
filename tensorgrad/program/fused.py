"""``tensorgrad.fuse``: a plain function of tensors as one primitive, forward and backward."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tensorgrad.autograd.functional import grad
from tensorgrad.autograd.modes import enable_grad, no_grad
from tensorgrad.dtypes import FLOATS
from tensorgrad.errors import CompileError
from tensorgrad.program.compiled import Compiled
from tensorgrad.program.cuda_source import source_of
from tensorgrad.tape import Primitive, apply, current_mode, wrap
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
        given = [
            t if isinstance(t, Tensor) else Tensor(t, dtype=first.dtype, device=first.device)
            for t in tensors
        ]
        if not mode.grad or all(t.node is None for t in given):
            return self._value(given, constants)
        return apply(self._primitive(len(given)), given, {"constants": constants})

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
                    f"lambda g, r, {given}, constants: rule({k}, g, r, ({given},), constants)",
                    {"rule": self._rule},
                )
                for k, name in enumerate(names)
            }
            found = self._primitives[count] = Primitive(
                self.__name__, self._computed, rules, residual=_no_memo
            )
        return found

    def _computed(self, xp: Any, *arrays: Any, constants: Mapping[str, Any]) -> Any:
        with no_grad():
            out = self._value([wrap(a, None) for a in arrays], constants)
        return out.data, _Memo()

    def _rule(self, k: int, g: Any, memo: Any, xs: Sequence[Any], constants: Any) -> Any:
        if isinstance(g, Tensor):  # the rule itself is recorded: through the function's own tape
            with enable_grad():
                (found,) = grad(self.function(*xs, **constants), xs[k], g, create_graph=True)
            return found
        if memo.g is not g:
            memo.gradients = self._backward(
                wrap(g, None), *[wrap(x, None) for x in xs], **constants
            )
            memo.g = g
        return memo.gradients[k].data

    def _gradients(self, g: Tensor, *xs: Tensor, **constants: Any) -> list[Tensor]:
        with enable_grad():
            leaves = [x.detach().requires_grad_() if x.dtype in FLOATS else x for x in xs]
            real = [x for x in leaves if x.dtype in FLOATS]
            found = iter(grad(self.function(*leaves, **constants), real, g))
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
                if executor.name != "native":
                    raise CompileError(f"the {name} program runs in NumPy: {executor.reason}")
                parts.append(f"/* {name} */\n{executor.source.text}")
        if not parts:
            raise CompileError("nothing was compiled yet; call the function first")
        return "\n".join(parts)


class _Memo:
    """All gradients of one call, computed together when the first of them is asked for."""

    __slots__ = ("g", "gradients")

    def __init__(self) -> None:
        self.g: Any = None
        self.gradients: list[Tensor] = []


def _no_memo() -> None:
    """Where rules are recorded, nothing is remembered."""


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
