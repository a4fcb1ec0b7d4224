"""Calls of primitives with kernels of their own, as parts of a program's graphs.

A launcher of backend/launch/ asks CuPy for memory and queues kernels and products. The first time
it may have memory of the pool, and it is noted how much it asks for, how long each piece is in use
and which are its results. From then on it is given memory that the program has: results where the
program wants them, other pieces in a room that all calls share. So nothing is allocated, and what
was queued while a stream was captured can be queued again.

What stays between graphs says why: launchers that need the host (see ``launch.BETWEEN``), options
that are other numbers in every replay, arrays that a kernel does not take.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from tensorgrad.backend import is_array, launch
from tensorgrad.program.arena import arena_plan
from tensorgrad.program.loop_ir import Call, View

_ALIGNMENT = 256
_UNFIT = "its kernel does not take such arrays"


class NotCapturedError(Exception):
    """A call cannot be a part of a graph; it says itself why."""


@dataclass(slots=True)
class _Piece:
    """Memory that a launcher asked for.

    address: where it was at first. last: the last piece that was asked for while this one was in
    use, -1 as long as it is. output: the number of the output that it became, or -1.
    """

    size: int
    address: int
    last: int = -1
    output: int = -1


class _Measured:
    """An allocator of CuPy's that gives memory of another one and notes it."""

    def __init__(self, xp: Any) -> None:
        self._xp = xp
        self._allocate = xp.cuda.get_allocator()
        self.pieces: list[_Piece] = []

    def __call__(self, size: int) -> Any:
        pointer = self._allocate(size)
        piece = _Piece(size, pointer.ptr)
        self.pieces.append(piece)
        watched = _watched(self._xp.cuda.UnownedMemory)
        memory = watched(pointer.ptr, size, pointer, pointer.device_id)
        memory.freed = lambda: self._freed(piece)
        return self._xp.cuda.MemoryPointer(memory, 0)

    def _freed(self, piece: _Piece) -> None:
        piece.last = len(self.pieces) - 1


@cache
def _watched(kind: Any) -> Any:
    """CuPy's class of memory that somebody else owns, with a function to be told of its end."""

    class Watched(kind):  # type: ignore[misc]
        freed: Callable[[], None]

        def __del__(self) -> None:
            self.freed()

    return Watched


class _Placed:
    """An allocator that gives the same pieces as before, where they are to lie."""

    def __init__(self, xp: Any, pieces: Sequence[_Piece], places: Sequence[Any]) -> None:
        self._xp = xp
        self._pieces = iter(zip(pieces, places, strict=True))

    def __call__(self, size: int) -> Any:
        piece, place = next(self._pieces, (_Piece(-1, 0), None))
        if place is None or piece.size != size:
            raise NotCapturedError("it asks for other memory than before")
        cuda, data = self._xp.cuda, place.data
        return cuda.MemoryPointer(cuda.UnownedMemory(data.ptr, size, place, data.device_id), 0)

    def check_all_given(self) -> None:
        """Raise NotCapturedError unless each piece was asked for."""
        if next(self._pieces, None) is not None:
            raise NotCapturedError("it asks for less memory than before")


class KernelCall:
    """A call that is a part of a graph, unless it turns out that it cannot be.

    between: why not; empty as long as it can. otherwise: does what it does by other means. room:
    bytes that it needs besides its results, known after its first run.
    """

    def __init__(
        self, op: Call, launcher: Callable[..., Any], xp: Any, array: Callable[[View], Any],
        otherwise: Callable[[], Any],
    ) -> None:  # fmt: skip
        self.op = op
        self.between = ""
        self.room = 0
        self._launcher = launcher
        self._xp = xp
        self._array = array
        self.otherwise = otherwise
        self._pieces: list[_Piece] | None = None
        self._offsets: dict[int, int] = {}

    def run(self, room: Any, captured: bool) -> None:
        """Queue it on the current stream.

        room: an array of bytes, of ``room`` at least. captured: whether the stream is; then it
        raises NotCapturedError where that cannot be, and says in ``between`` why. Otherwise it
        does what it does by other means.
        """
        if self.between:
            self.otherwise()
        elif self._pieces is None:
            self._measure()
        else:
            try:
                self._place(self._pieces, room)
            except Exception as error:
                known = isinstance(error, NotCapturedError)
                self.between = str(error) if known else f"{type(error).__name__}: {error}"
                if captured:
                    raise NotCapturedError(self.between) from error
                self.otherwise()

    def _made(self) -> list[Any] | None:
        """What the launcher makes, an array for each output that is not overwritten in place;
        ``None`` if it does not take the arrays."""
        i = self.op.instruction
        arrays = [self._array(x) if isinstance(x, View) else x for x in self.op.inputs]
        made: Any = self._launcher(self._xp, *arrays, **i.attrs)
        if made is NotImplemented:
            return None
        if i.residual:
            y, r = made
            return [y, *[a for a in (r if isinstance(r, tuple) else (r,)) if is_array(a)]]
        return [made[0]] if i.op.residual is not None else [made]

    def _measure(self) -> None:
        allocator = _Measured(self._xp)
        with self._xp.cuda.using_allocator(allocator):
            made = self._made()
            if made is None:
                self.between = _UNFIT
                self.otherwise()
                return
            pieces = list(allocator.pieces)
            for k, array in enumerate(made):
                self._note(pieces, k, array)
                self._array(self.op.outputs[k])[...] = array
            made.clear()
            array = None
        if any(piece.last < 0 for piece in pieces):
            self.between = "its kernel keeps memory from call to call"
            return
        spans = {
            k: (piece.size, k, piece.last) for k, piece in enumerate(pieces) if piece.output < 0
        }
        self._offsets, self.room = arena_plan(spans, _ALIGNMENT)
        self._pieces = pieces

    def _note(self, pieces: list[_Piece], number: int, array: Any) -> None:
        """Note which piece an output is, if it is one as a whole and lies as it is wanted."""
        wanted = self._array(self.op.outputs[number])
        address = array.data.ptr
        if array.strides != wanted.strides or array.dtype != wanted.dtype or not array.nbytes:
            return
        for piece in pieces:
            in_use = piece.last < 0 and piece.output < 0
            if in_use and (piece.address, piece.size) == (address, array.nbytes):
                piece.output = number

    def _place(self, pieces: list[_Piece], room: Any) -> None:
        places = [
            room[self._offsets[k] :] if piece.output < 0 else
            self._array(self.op.outputs[piece.output])
            for k, piece in enumerate(pieces)
        ]  # fmt: skip
        allocator = _Placed(self._xp, pieces, places)
        with self._xp.cuda.using_allocator(allocator):
            made = self._made()
            if made is None:
                raise NotCapturedError(_UNFIT)
            direct = {piece.output for piece in pieces}
            for k, array in enumerate(made):
                if k not in direct:
                    self._array(self.op.outputs[k])[...] = array
        allocator.check_all_given()


def kernel_call(
    op: Call, backend: Any, array: Callable[[View], Any], otherwise: Callable[[], Any]
) -> Call | KernelCall:
    """A call with a kernel as a part of a graph; another one as it is, with the reason.

    backend: that of the program's device. array: shows what a view has in memory. otherwise: does
    what the call does by what the backend finds best.
    """
    i = op.instruction
    launcher = launch.FORWARD.get(i.op.kernel or "") if backend.kernels else None
    if launcher is None:
        return op
    op.reason = launch.BETWEEN.get(i.op.kernel or "", "")
    if i.live is not None:
        op.reason = "one of its options is another number in every replay"
    elif i.written:
        op.reason = op.reason or "it overwrites what it is given"
    return op if op.reason else KernelCall(op, launcher, backend.xp, array, otherwise)


def stays_between(step: Any) -> bool:
    """Whether a step of a program is not a part of a graph."""
    return type(step) is Call or (type(step) is KernelCall and bool(step.between))


def call_of(step: Call | KernelCall) -> Call:
    """The operation of a step that is a call."""
    return step if type(step) is Call else step.op  # type: ignore[union-attr]


def reason_of(step: Call | KernelCall) -> str:
    """Why it stays between graphs."""
    return step.between if type(step) is KernelCall else step.reason  # type: ignore[union-attr]


def stretches(steps: Sequence[Any]) -> list[list[Any]]:
    """Steps that can be in one graph, and those that stay between, each alone."""
    found: list[list[Any]] = []
    for step in steps:
        if not found or stays_between(step) or stays_between(found[-1][-1]):
            found.append([])
        found[-1].append(step)
    return found
