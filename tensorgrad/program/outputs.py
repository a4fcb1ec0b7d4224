"""What a step hands out, and in whose memory: new, an argument's, or that of a tensor outside.

In eager mode a function may return an argument, a view of one, a parameter, or two views of the
same memory. A replay returns the same: only what the step computed is a result of the program.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tensorgrad.errors import CompileError
from tensorgrad.program.aliases import extent
from tensorgrad.tape import Leaf, wrap
from tensorgrad.tensor import Tensor


class Fresh(NamedTuple):
    """Result ``number`` of the program."""

    number: int


class Given(NamedTuple):
    """Argument ``number`` itself."""

    number: int


class Kept(NamedTuple):
    """A tensor from outside, found by calling ``find``."""

    find: Callable[[], Tensor]


class Left(NamedTuple):
    """The gradient that a replay leaves in a leaf of the tape."""

    leaf: Leaf


class View(NamedTuple):
    """Elements of another output's memory; ``strides`` of that array are what the place holds for.

    offset: in bytes from the first element of that array.
    """

    of: Any
    offset: int
    shape: tuple[int, ...]
    own_strides: tuple[int, ...]
    strides: tuple[int, ...]


class _Window:
    """Memory of another array, for ``np.asarray``."""

    def __init__(self, base: np.ndarray[Any, Any], interface: dict[str, Any]) -> None:
        self.base = base
        self.__array_interface__ = interface


def _window(a: np.ndarray[Any, Any], view: View, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    start, read_only = a.__array_interface__["data"]
    interface = {
        "version": 3, "data": (start + view.offset, read_only), "shape": view.shape,
        "typestr": f"|V{dtype.itemsize}", "strides": view.own_strides,
    }  # fmt: skip
    found: np.ndarray[Any, Any] = np.asarray(_Window(a, interface)).view(dtype)
    return found


class Outputs:
    """How to make the tensors that a replay hands out.

    fresh: the tensors of the captured call that are results of the program.
    """

    def __init__(
        self,
        found: Sequence[Tensor],
        arguments: Sequence[Tensor],
        outside: Sequence[tuple[Tensor, Callable[[], Tensor]]],
        gradients: Sequence[tuple[Tensor, Leaf]],
    ) -> None:
        """found: what the step hands out, each tensor once.

        outside: tensors from outside, and how to find what is there in a replay. gradients: what
        the step leaves in ``.grad`` of leaves, and these.

        Raises CompileError if two outputs share memory in a way that cannot be repeated.
        """
        self.fresh: list[Tensor] = []
        self._makers: list[tuple[int, Any]] = []
        self._dtypes = [t.data.dtype for t in found]
        known: list[tuple[Tensor, Any]] = [(t, Given(k)) for k, t in enumerate(arguments)]
        known += [(t, Kept(find)) for t, find in outside]
        known += [(t, Left(leaf)) for t, leaf in gradients]
        #: results of the program that others are views of, and how they lay in memory
        self._layouts: dict[int, tuple[int, ...]] = {}
        #: the same of gradients
        self._laid: dict[Leaf, tuple[int, ...]] = {}
        # Of two that span the same memory the one that fills it comes first.
        order = sorted(range(len(found)), key=lambda k: (-_span(found[k].data), -found[k].size))
        for t in order:
            maker = self._maker(found[t], known)
            known.append((found[t], maker))
            self._makers.append((t, maker))
        self._number_in_order()

    def _number_in_order(self) -> None:
        """Number the results of the program as they are handed out, whatever their size."""
        self._makers.sort(key=lambda item: item[0])
        old = [m.number for _, m in self._makers if type(m) is Fresh]
        new = {number: k for k, number in enumerate(old)}

        def renumbered(maker: Any) -> Any:
            if type(maker) is View:
                return maker._replace(of=renumbered(maker.of))
            return Fresh(new[maker.number]) if type(maker) is Fresh else maker

        self._makers = [(k, renumbered(m)) for k, m in self._makers]
        self.fresh = [self.fresh[number] for number in old]
        self._layouts = {new[number]: strides for number, strides in self._layouts.items()}

    def _maker(self, t: Tensor, known: Sequence[tuple[Tensor, Any]]) -> Any:
        for other, how in known:
            if other is t:
                return how
        a = t.data
        for other, how in known:
            b = other.data
            if type(a) is not np.ndarray or type(b) is not np.ndarray or not a.size:
                continue
            if b is a or np.may_share_memory(a, b):
                low, high = extent(a)
                first, last = extent(b)
                # What the program gives is filled by its elements, without the memory between them.
                computed = type(how) in (Fresh, Left)
                filled = not computed or b.nbytes == last - first
                if filled and first <= low and high <= last:
                    offset = _start(a) - _start(b)
                    if type(how) is Fresh:
                        self._layouts[how.number] = b.strides
                    if type(how) is Left:
                        self._laid[how.leaf] = b.strides
                    return View(how, offset, a.shape, a.strides, b.strides)
                if not np.shares_memory(a, b):
                    continue  # its elements lie between those of the other
                raise CompileError(
                    "this cannot be compiled: what it returns shares memory with other tensors, "
                    "none of "
                    "which covers the rest. Remedy: return copies, as in x.clone()"
                )
        self.fresh.append(t)
        return Fresh(len(self.fresh) - 1)

    @property
    def numbers(self) -> list[int]:
        """Which of the outputs are results of the program, in the order of these."""
        own = [(m.number, k) for k, m in self._makers if type(m) is Fresh]
        return [k for _, k in sorted(own)]

    @property
    def plain(self) -> bool:
        """Whether everything that is handed out is a result of the program, each once, in order."""
        return all(type(m) is Fresh and m.number == k for k, m in self._makers)

    def hold(self, arguments: Sequence[Tensor]) -> bool:
        """Whether views can be made of arguments and of tensors outside: these lie in memory as
        they did at capture."""
        return all(
            self._tensor(m.of, (), arguments).data.strides == m.strides
            for _, m in self._makers
            if type(m) is View and type(m.of) in (Given, Kept)
        )

    @property
    def lays_gradients(self) -> bool:
        """Whether views of gradients are handed out, which ``laid`` is for."""
        return bool(self._laid)

    def laid(self, leaf: Leaf, gradient: Any) -> Any:
        """The array of a gradient, as views of it that are handed out need it to lie in memory."""
        strides = self._laid.get(leaf)
        return gradient if gradient is None else _relaid(gradient, strides)

    def make(self, results: Sequence[Any], arguments: Sequence[Tensor]) -> list[Tensor]:
        """The tensors, from the arrays that the program gave."""
        found: list[Any] = [None] * len(self._makers)
        if self._layouts:
            results = [_relaid(a, self._layouts.get(k)) for k, a in enumerate(results)]
        for k, maker in self._makers:
            if type(maker) is View:
                base = self._tensor(maker.of, results, arguments).data
                found[k] = wrap(_window(base, maker, self._dtypes[k]), None)
            else:
                found[k] = self._tensor(maker, results, arguments)
        return found

    def _tensor(self, maker: Any, results: Sequence[Any], arguments: Sequence[Tensor]) -> Tensor:
        if type(maker) is Given:
            return arguments[maker.number]
        if type(maker) is Kept:
            return maker.find()
        if type(maker) is Left:
            gradient: Tensor | None = maker.leaf.grad
            assert gradient is not None  # the program computes it
            return gradient
        if type(maker) is View:
            base = self._tensor(maker.of, results, arguments).data
            return wrap(_window(base, maker, base.dtype), None)
        array = results[maker.number]
        return array if isinstance(array, Tensor) else wrap(array, None)


def _relaid(array: Any, strides: tuple[int, ...] | None) -> Any:
    """The array with these strides, which fill its memory: copied if it lies otherwise."""
    if strides is None or array.strides == strides:
        return array
    order = sorted(range(array.ndim), key=lambda k: -abs(strides[k]))
    memory = np.empty([array.shape[k] for k in order], array.dtype)
    back = memory.transpose(np.argsort(order))
    made = back[tuple(slice(None, None, -1 if s < 0 else 1) for s in strides)]
    made[...] = array
    return made


def _span(array: Any) -> int:
    if type(array) is not np.ndarray:
        return 0
    low, high = extent(array)
    return high - low


def _start(array: Any) -> int:
    return int(array.__array_interface__["data"][0])
