"""A stand-in for CuPy in the host's memory: the engine's CUDA path runs on machines without a GPU.

It computes with NumPy and refuses what CuPy 14.2 refuses, as far as its sources say so: arrays of
NumPy among its operands, functions and keyword arguments it does not have (surface.txt), element
types for which a ufunc has no loop, arrays on another device than the current one. Where CuPy
leaves something open it is as nasty as it may be: new memory holds garbage, and of several values
written to one place the first one stays.

What it cannot show: anything of a real device. Rounding is NumPy's, sums are in NumPy's order, all
work is done at once, so that a missing wait goes unseen, and there is no limit of memory, of a
launch or of an alignment. Kernels of our own are not run here.
"""

from __future__ import annotations

import ctypes
import math
import os
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from itertools import count
from types import ModuleType, SimpleNamespace
from typing import Any, NoReturn

import ml_dtypes
import numpy as np
from emulator import emulator

from standin import record

Host = np.ndarray[Any, Any]

SURFACE = record.read()
DEVICES = 2


# --- what is counted ------------------------------------------------------------------------------


class Log:
    """Counts what costs time on a GPU, since the last ``clear()``.

    launches: kernels, and copies within a device; names: what they are called, in order, the
    kernels of ours by their own names. graphs: launches of a graph; in_graphs: what these launched
    in their turn. allocations: arrays with memory of the pool. uploads: copies from the host,
    which do not make it wait. syncs: what makes the host wait for the device, by kind ("item",
    "get", "bool", ...). streams: launches by the address of the stream. waits: pairs of the streams
    that wait and those that they wait for.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.launches = 0
        self.names: list[str] = []
        self.graphs = 0
        self.in_graphs = 0
        self.allocations = 0
        self.uploads = 0
        self.syncs: Counter[str] = Counter()
        self.streams: Counter[int] = Counter()
        self.waits: list[tuple[int, int]] = []

    def launched(self, name: str) -> None:
        """A kernel is queued on the current stream."""
        if current_stream().graph is None:
            _not_captured(f"{name} on another stream")
        self.launches += 1
        self.names.append(name)
        self.streams[current_stream().ptr] += 1


log = Log()


# --- devices and memory ---------------------------------------------------------------------------


class CUDARuntimeError(RuntimeError):
    """What the driver reports."""


class _Current:
    """The number of the device that new arrays go to and kernels run on."""

    number = 0


class Device:
    """A device by number; the current one if there is none."""

    def __init__(self, device: int | None = None) -> None:
        self.id = _Current.number if device is None else int(device)
        self._before: list[int] = []

    compute_capability = "90"

    def use(self) -> Device:
        if not 0 <= self.id < DEVICES:
            raise CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
        _Current.number = self.id
        return self

    def __enter__(self) -> Device:
        before = _Current.number
        self.use()
        self._before.append(before)
        return self

    def __exit__(self, *_: object) -> None:
        _Current.number = self._before.pop()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<CUDA Device {self.id}>"

    def synchronize(self) -> None:
        _waits("synchronize")


class Memory:
    """A piece of a device's memory. There are no weak references to it, nor to CuPy's."""

    __slots__ = ("device_id", "ptr", "root", "size")

    def __init__(self, root: Host) -> None:
        self.root = root
        self.ptr = root.ctypes.data
        self.size = root.nbytes
        self.device_id = _Current.number


#: Bytes before and behind each piece of memory of the pool, and what they hold.
_MARGIN, _MARK = 512, 0xCD


class Margins:
    """What lies around the pieces of memory of the pool that were made since ``watch()``.

    It is looked at in the end, not when a piece is given back: a function of Python's that is
    called then would be taken for a part of the step that is compiled.
    """

    def __init__(self) -> None:
        self._around: list[tuple[int, Host, Host]] | None = None

    def watch(self) -> None:
        """Begin, with no piece."""
        self._around = []

    def overrun(self) -> list[int]:
        """The sizes of the pieces beside which something was written; and no more is watched."""
        around, self._around = self._around or [], None
        return [size for size, *parts in around if any((part != _MARK).any() for part in parts)]

    def piece(self, size: int) -> Host:
        """Memory of a size, aligned to 512 bytes."""
        whole = np.empty(size + 2 * _MARGIN + 512, np.uint8)
        begin = _MARGIN + -(whole.ctypes.data + _MARGIN) % 512
        if self._around is not None:
            before, behind = whole[:begin], whole[begin + size :]
            before.fill(_MARK)
            behind.fill(_MARK)
            self._around.append((size, before, behind))
        return whole[begin : begin + size]


MARGINS = Margins()


class UnownedMemory(Memory):
    """Memory at an address, which is there as long as its owner is."""

    __slots__ = ("owner",)

    def __init__(self, ptr: int, size: int, owner: object, device_id: int = -1) -> None:
        assert device_id >= 0, "not in the stand-in"
        self.ptr = ptr
        self.size = size
        self.owner = owner
        self.device_id = device_id


class MemoryPointer:
    """A place in a piece of memory. A new one is made whenever an array is asked for its own."""

    __slots__ = ("mem", "ptr")

    def __init__(self, mem: Memory, offset: int) -> None:
        self.mem = mem
        self.ptr = mem.ptr + offset

    @property
    def device_id(self) -> int:
        return self.mem.device_id

    @property
    def device(self) -> Device:
        return Device(self.mem.device_id)


class Graph:
    """What was queued while a stream was captured."""

    def __init__(self) -> None:
        self._work: list[Callable[[], Any]] = []
        self._launches = 0

    def launch(self, stream: Stream | None = None) -> None:
        log.graphs += 1
        log.in_graphs += self._launches
        for call in self._work:
            call()


class Stream:
    """A queue of work. On the default stream everything is done at once; on another, copies are
    done as late as can be: when somebody waits for them. Of what is captured, kernels alone."""

    def __init__(self, null: bool = False, non_blocking: bool = False) -> None:
        #: its address, which no other one gets
        self.ptr = 0 if null else next(_ADDRESSES)
        #: what it is captured into, while it is
        self.graph: Graph | None = None
        self._queue: list[Callable[[], None]] = []
        self._begun = 0

    def __enter__(self) -> Stream:
        _entered().append(self)
        return self

    def __exit__(self, *_: object) -> None:
        assert _entered().pop() is self

    def use(self) -> Stream:
        _entered()[:] = [self]
        return self

    def begin_capture(self, mode: int | None = None) -> None:
        if self is DEFAULT_STREAM:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        assert self.graph is None
        self.graph = Graph()
        _captured().append(self)

    def end_capture(self) -> Graph:
        graph, self.graph = self.graph, None
        assert graph is not None
        _captured().remove(self)
        return graph

    def record(self, event: Event | None = None) -> Event:
        _not_captured("events")
        event = Event() if event is None else event
        event._at = self, self._begun + len(self._queue)
        return event

    def wait_event(self, event: Event) -> None:
        _not_captured("events")
        if event._at is not None:
            log.waits.append((self.ptr, event._at[0].ptr))
        if event._at is not None and event._at[0] is not self:
            event._finish()

    def synchronize(self) -> None:
        _waits("synchronize")
        self._run(self._begun + len(self._queue))

    def _run(self, until: int) -> None:
        while self._begun < until:
            self._begun += 1
            self._queue.pop(0)()


class Event:
    """A place in a stream."""

    def __init__(self) -> None:
        self._at: tuple[Stream, int] | None = None

    @property
    def done(self) -> bool:
        return self._at is None or self._at[0]._begun >= self._at[1]

    def synchronize(self) -> None:
        _waits("event")
        self._finish()

    def _finish(self) -> None:
        if self._at is not None:
            self._at[0]._run(self._at[1])


_ADDRESSES = count(0x5000, 0x100)
DEFAULT_STREAM = Stream(null=True)
_THREAD = threading.local()


def _entered() -> list[Stream]:
    """The streams that this thread has entered and not left."""
    found: list[Stream] = _THREAD.__dict__.setdefault("entered", [])
    return found


def current_stream() -> Stream:
    """The stream that this thread queues its work on."""
    entered = _entered()
    return entered[-1] if entered else DEFAULT_STREAM


# --- what a capture forbids -----------------------------------------------------------------------


def _captured() -> list[Stream]:
    """The streams that this thread is capturing."""
    found: list[Stream] = _THREAD.__dict__.setdefault("captured", [])
    return found


def _not_captured(what: str) -> None:
    """Refuse what must not happen while a stream is captured.

    The driver itself refuses to wait and to copy from the host. The pool would give memory, which
    it gives to others, too, once the graph is there; and what goes to another stream is no part of
    the graph.
    """
    if _captured():
        raise CUDARuntimeError(
            f"cudaErrorStreamCaptureUnsupported: {what}: operation not permitted when stream is "
            "capturing"
        )


def _waits(kind: str) -> None:
    """The host waits for the device."""
    _not_captured(kind)
    log.syncs[kind] += 1


def _uploads() -> None:
    """The host's memory is copied to the device."""
    _not_captured("copies from the host")
    log.uploads += 1


def _queued(work: Callable[[], Any], launches: int = 1) -> bool:
    """Whether ``work`` was put into the graph that the current stream is captured into."""
    graph = current_stream().graph
    if graph is None:
        return False
    graph._work.append(work)
    graph._launches += launches
    return True


_Allocator = Callable[[int], MemoryPointer]


def _pool(size: int) -> MemoryPointer:
    """Memory of the pool, which is aligned to 512 bytes."""
    _not_captured("memory of the pool")
    log.allocations += 1
    return MemoryPointer(Memory(MARGINS.piece(size)), 0)


def _allocator() -> _Allocator:
    found: _Allocator = _THREAD.__dict__.get("allocator") or _pool
    return found


@contextmanager
def _using_allocator(allocator: _Allocator) -> Iterator[None]:
    """cupy.cuda.using_allocator."""
    before = _THREAD.__dict__.get("allocator")
    _THREAD.__dict__["allocator"] = allocator
    try:
        yield
    finally:
        _THREAD.__dict__["allocator"] = before


class Capsule:
    """What DLPack hands from one library to another."""

    def __init__(self, array: ndarray) -> None:
        self.array = array


class Flags:
    """The three flags that CuPy has; an array is never read-only there."""

    def __init__(self, array: ndarray) -> None:
        flags = array._a.flags
        self.c_contiguous: bool = flags.c_contiguous
        self.f_contiguous: bool = flags.f_contiguous
        self.owndata: bool = array.base is None


# --- arrays ---------------------------------------------------------------------------------------


class ndarray:
    """An array on a device. Its own class, that nothing of NumPy's takes for an array."""

    __slots__ = ("__weakref__", "_a", "_memory", "base")
    __array_priority__ = 100
    __hash__ = None  # type: ignore[assignment]

    _a: Host
    _memory: Memory
    base: ndarray | None  #: the array that a view was made of in the first place

    def __init__(self, shape: Any, dtype: Any = float, *, order: str = "C") -> None:
        self._allocate(np.empty(shape, dtype, _order(order)))

    def _allocate(self, like: Host) -> None:
        """Have memory of its own for an array that lies as ``like`` does."""
        pointer = _allocator()(like.nbytes)
        self.base, self._memory = None, pointer.mem
        self._a = _at(pointer, like)

    def _hold(self, a: Host, of: ndarray | None = None) -> None:
        self._a = a
        self.base = None if of is None else of.base if of.base is not None else of
        self._memory = Memory(a) if of is None else of._memory

    # --- what it is ---

    @property
    def shape(self) -> tuple[int, ...]:
        return self._a.shape

    @property
    def strides(self) -> tuple[int, ...]:
        return self._a.strides

    @property
    def ndim(self) -> int:
        return self._a.ndim

    @property
    def size(self) -> int:
        return self._a.size

    @property
    def itemsize(self) -> int:
        return self._a.itemsize

    @property
    def nbytes(self) -> int:
        return self._a.nbytes

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._a.dtype

    @property
    def flags(self) -> Flags:
        return Flags(self)

    @property
    def data(self) -> MemoryPointer:
        return MemoryPointer(self._memory, self._a.ctypes.data - self._memory.ptr)

    @property
    def device(self) -> Device:
        return Device(self._memory.device_id)

    @property
    def T(self) -> ndarray:
        return self if self.ndim < 2 else _view(self, self._a.T)

    @property
    def mT(self) -> ndarray:
        return _view(self, self._a.mT)

    @property
    def real(self) -> ndarray:
        return _view(self, self._a.real) if self.dtype.kind == "c" else self

    @real.setter
    def real(self, value: Any) -> None:
        self.real[...] = value

    @property
    def imag(self) -> ndarray:
        if self.dtype.kind == "c":
            return _view(self, self._a.imag)
        found: ndarray = MODULE.zeros_like(self)
        return found

    @imag.setter
    def imag(self, value: Any) -> None:
        if self.dtype.kind != "c":
            raise TypeError("cupy.ndarray does not have imaginary part to set")
        self.imag[...] = value

    def __len__(self) -> int:
        return len(self._a)

    def __iter__(self) -> Iterator[ndarray]:
        if not self.ndim:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self)))

    # --- to the host: everything here makes the host wait ---

    def _fetched(self, kind: str) -> Host:
        _waits(kind)
        return self._a.copy()

    def get(
        self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True
    ) -> Host:
        assert (stream, out, blocking) == (None, None, True), "not in the stand-in"
        return np.array(self._fetched("get"), order=_order(order))

    def set(self, arr: Host, stream: Stream | None = None) -> None:
        if not isinstance(arr, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if arr.dtype != self.dtype or arr.shape != self.shape:
            raise TypeError(f"{arr.dtype} array cannot be set to {self.dtype} array")
        _check_device((self,))
        if stream is None:
            _uploads()
            self._a[...] = arr
        else:  # as late as it may be, from what the source holds then
            stream._queue.append(partial(self.set, arr))

    def item(self) -> Any:
        if self.size != 1:
            raise ValueError("can only convert an array of size 1 to a Python scalar")
        return self._fetched("item").item()

    def tolist(self) -> Any:
        return self._fetched("tolist").tolist()

    def __bool__(self) -> bool:
        if self.size > 1:
            raise ValueError("The truth value of an array with more than one element is ambiguous")
        if not self.size:
            text = "The truth value of an empty array is ambiguous"
            warnings.warn(text, DeprecationWarning, stacklevel=2)
            return False
        return bool(self._fetched("bool").item())

    def __int__(self) -> int:
        return int(self._fetched("int"))

    def __float__(self) -> float:
        return float(self._fetched("float"))

    def __repr__(self) -> str:
        return repr(self._fetched("repr"))

    def __array__(self, dtype: Any = None) -> NoReturn:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
        )

    # --- to other libraries ---

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "descr": self.dtype.descr,
            "version": 3,
            "strides": None if self._a.flags.c_contiguous else self.strides,
            "data": (self.data.ptr if self.size else 0, False),
            "stream": 1,
        }

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: Any = None,
        dl_device: Any = None,
        copy: Any = None,
    ) -> Capsule:
        if copy is True:
            raise BufferError("copy=True only supported for copy to CPU.")
        return Capsule(self)

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self._memory.device_id

    # --- elements ---

    def __getitem__(self, index: Any) -> ndarray:
        parts, advanced = _parts(self, index)
        found = self._a[parts]
        if not advanced:
            return _view(self, found)
        _not_captured("an index that is an array")
        if not self.size and found.size:
            raise IndexError("cannot do a non-empty take from an empty axes.")
        return _launched("take", (self,), found)

    def __setitem__(self, index: Any, value: Any) -> None:
        parts, advanced = _parts(self, index)
        if not isinstance(value, ndarray) and not advanced:
            value = np.asarray(value, self.dtype)
            if value.ndim:
                raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        _check_device([x for x in (self, value) if isinstance(x, ndarray)])
        log.launched("fill" if not isinstance(value, ndarray) else "assign")
        values = value._a if isinstance(value, ndarray) else np.asarray(value, self.dtype)
        if not advanced:
            into = self._a[(*parts, ...) if ... not in parts else parts]

            def assign() -> None:
                with np.errstate(all="ignore"):
                    into[...] = values

            if not _queued(assign):
                assign()
            return
        _not_captured("an index that is an array")
        places = np.arange(self.size).reshape(self.shape)[parts]
        with np.errstate(all="ignore"):
            values = np.broadcast_to(values.astype(self.dtype), places.shape)
        # Which of several values for one place stays is undefined in CuPy: here the first.
        order = np.unravel_index(places.reshape(-1)[::-1], self.shape) if self.ndim else ...
        self._a[order] = values.reshape(-1)[::-1]

    def fill(self, value: Any) -> None:
        self[...] = value

    # --- copies ---

    def astype(
        self,
        dtype: Any,
        order: str = "K",
        casting: Any = None,
        subok: Any = None,
        copy: Any = True,
    ) -> ndarray:
        if casting is not None or subok is not None:
            raise TypeError("casting is not supported yet")
        wanted = np.dtype(dtype)
        if not copy and wanted == self.dtype and order in ("K", "A"):
            return self
        return _launched(
            "astype", (self,), lambda: np.array(self._a.astype(wanted), order=_order(order))
        )

    def copy(self, order: str = "C") -> ndarray:
        """A copy on the current device, wherever the array is: the one way between devices."""
        return _launched("copy", (), lambda: np.array(self._a, order=_order(order)))

    __copy__ = copy

    def view(self, dtype: Any = None, type: Any = None) -> ndarray:
        return _view(self, self._a.view() if dtype is None else self._a.view(dtype))

    def argsort(self, axis: int | None = -1, kind: str | None = None) -> ndarray:
        if kind not in (None, "stable"):
            raise ValueError("kind can only be None or 'stable'")
        _not_captured("argsort")  # Thrust waits for the stream
        return _launched("argsort", (self,), np.argsort(self._a, axis=axis, kind="stable"))

    def nonzero(self) -> tuple[ndarray, ...]:
        if not self.ndim:
            raise ValueError("Calling nonzero on 0d arrays is not allowed.")
        _waits("nonzero")  # the number of them has to be known
        places = _launched("nonzero", (self,), np.argwhere(self._a))
        return tuple(places[:, i] for i in range(self.ndim))

    # --- operators ---

    def __pow__(self, other: Any) -> Any:
        if type(other) in (int, float) and other == 2 and self.dtype.kind in "if":
            return _ufunc("square")(self)
        if type(other) is float and other == 0.5:
            return _ufunc("sqrt")(self)
        return _operated(np.power, self, other)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        out = options.get("out", ())
        if out:
            (options["out"],) = out
        name = ufunc.__name__
        if name not in SURFACE.ufuncs and name != "matmul":
            return NotImplemented
        for x in (*inputs, *out):
            if not (isinstance(x, ndarray | np.ndarray) or _is_scalar(x)):
                return NotImplemented
        if name in _COMPARISONS:  # which CuPy lets pass with a 0-d array
            inputs = tuple(
                x.item() if isinstance(x, np.ndarray) and not x.ndim else x for x in inputs
            )
        function = getattr(MODULE, name)
        return (function if method == "__call__" else getattr(function, method))(*inputs, **options)

    def __array_function__(
        self, function: Callable[..., Any], types: Iterable[type], args: Any, kwargs: Any
    ) -> Any:
        if not all(issubclass(t, ndarray | np.ndarray) for t in types):
            return NotImplemented
        try:
            own = getattr(MODULE, function.__name__)
        except AttributeError:
            return NotImplemented
        return own(*args, **kwargs)


def _order(order: str) -> Any:
    """The name of a memory layout, of a type that NumPy's annotations accept."""
    return order


def _at(pointer: MemoryPointer, like: Host) -> Host:
    """A new array at a place that lies as ``like`` does, without gaps, and holds what may be found
    in new memory: NaN, -1 and True."""
    if not like.nbytes:
        return np.empty_like(like)
    if not isinstance(pointer.mem, UnownedMemory):
        begin = pointer.ptr - pointer.mem.ptr
        flat = pointer.mem.root[begin : begin + like.nbytes]
    else:
        buffer = (ctypes.c_uint8 * like.nbytes).from_address(pointer.ptr)
        flat = np.ctypeslib.as_array(buffer)
    garbage = 1 if like.dtype == np.bool_ else 0xFF
    if not _queued(lambda: flat.fill(garbage), 0):
        flat.fill(garbage)
    return np.ndarray(like.shape, like.dtype, flat, 0, _packed_strides(like))


def _packed_strides(like: Host) -> tuple[int, ...]:
    """The strides of an array whose axes are in the order of those of ``like``, without gaps."""
    by_step = sorted(range(like.ndim), key=lambda k: (-abs(like.strides[k]), k))
    strides, step = [0] * like.ndim, like.itemsize
    for k in reversed(by_step):
        strides[k] = step
        step *= like.shape[k]
    return tuple(strides)


def _made(a: Host) -> ndarray:
    """A new array on the current device with the elements of ``a``."""
    x = object.__new__(ndarray)
    x._allocate(a)
    with np.errstate(all="ignore"):
        x._a[...] = a
    return x


def _described(a: Host) -> ndarray:
    """An array of memory that is there."""
    x = object.__new__(ndarray)
    x._hold(a)
    return x


def _view(of: ndarray, a: Host) -> ndarray:
    x = object.__new__(ndarray)
    x._hold(a, of)
    return x


def _as_strided(x: ndarray, shape: Any = None, strides: Any = None) -> ndarray:
    """An array of the same memory whose base is None, as CuPy makes it from a pointer alone."""
    made = _view(x, np.lib.stride_tricks.as_strided(x._a, shape, strides))
    made.base = None
    return made


def _launched(name: str, inputs: Iterable[ndarray], found: Any) -> ndarray:
    """``found`` as the result of a kernel that read ``inputs``.

    found: what NumPy makes of them, or a function that computes it, again in each replay.
    """
    _check_device(inputs)
    log.launched(name)

    def computed() -> Host:
        with np.errstate(all="ignore"):
            return np.asarray(found() if callable(found) else found)

    first = computed()
    if current_stream().graph is None:
        return _made(first)
    if not callable(found):
        _not_captured(name)
    x = object.__new__(ndarray)
    x._allocate(first)
    _queued(lambda: np.copyto(x._a, computed()))
    return x


def _check_device(arrays: Iterable[ndarray]) -> None:
    for x in arrays:
        if x._memory.device_id != _Current.number:
            raise ValueError(
                f"The device where the array resides ({x._memory.device_id}) is different from the "
                f"current device ({_Current.number}). Peer access is unavailable between these "
                "devices."
            )


def _parts(x: ndarray, index: Any) -> tuple[tuple[Any, ...], bool]:
    """``index`` for NumPy, and whether there are arrays in it. Integers in arrays wrap around."""
    given = list(index) if isinstance(index, tuple) else [index]
    for i, part in enumerate(given):
        if isinstance(part, ndarray):
            _check_device([part])
            given[i] = part._a
        elif isinstance(part, list | tuple | np.ndarray | bool | np.bool_):
            host = np.asarray(part)
            _uploads()
            given[i] = host.astype(np.int32) if isinstance(part, list) and not host.size else host
    taken = sum(_axes(part) for part in given)
    if not any(part is Ellipsis for part in given):
        given.append(Ellipsis)  # a single element is an array of no axes, not a number
    if taken > x.ndim:
        raise IndexError(
            f"too many indices for array: array is {x.ndim}-dimensional, but {taken} were indexed"
        )
    axis = 0
    for i, part in enumerate(given):
        if isinstance(part, np.ndarray):
            if part.dtype.kind == "b":
                _waits("mask")  # the number of true elements has to be known
            elif part.dtype.kind in "iu":
                given[i] = part % x.shape[axis] if x.shape[axis] else part
            else:
                raise IndexError("arrays used as indices must be of integer or boolean type.")
        axis += x.ndim - taken if part is Ellipsis else _axes(part)
    return tuple(given), any(isinstance(part, np.ndarray) for part in given)


def _axes(part: Any) -> int:
    """How many axes a part of an index uses up."""
    if part is None or part is Ellipsis:
        return 0
    return part.ndim if isinstance(part, np.ndarray) and part.dtype.kind == "b" else 1


# --- ufuncs ---------------------------------------------------------------------------------------

_COMPARISONS = {"greater", "greater_equal", "less", "less_equal", "equal", "not_equal"}

# What a method that scatters is written for: _scatter_op_single in cupy/_core.
_SCATTERS = {
    "add": {"int32", "int64", "float16", "float32", "float64", "uint32", "uint64"},
    "maximum": {"int32", "int64", "float32", "float64", "uint32", "uint64"},
    "minimum": {"int32", "int64", "float32", "float64", "uint32", "uint64"},
}


def _is_scalar(x: Any) -> bool:
    return type(x) in (bool, int, float, complex) or isinstance(x, np.generic)


def _dtype_of(char: str) -> np.dtype[Any]:
    return np.dtype(ml_dtypes.bfloat16) if char == "E" else np.dtype(char)


def _kind(dtype: np.dtype[Any]) -> int:
    """The rank by which a Python number gives way to an array: _get_kind_score."""
    return {"b": 0, "i": 1, "u": 1, "f": 2, "c": 2}.get(dtype.kind, 3)


class Ufunc:
    """A universal function, with the loops of CuPy's and computed by NumPy."""

    def __init__(self, name: str, compute: Callable[..., Any]) -> None:
        entry = SURFACE.ufuncs[name]
        self.__name__ = name
        self.methods = entry.methods
        self.compute = compute
        self.loops: list[tuple[list[np.dtype[Any]], list[np.dtype[Any]]]] = []
        for text in entry.types:
            inputs, _, outputs = text.partition("->")
            self.loops.append(([_dtype_of(c) for c in inputs], [_dtype_of(c) for c in outputs]))
        self.nin, self.nout = len(self.loops[0][0]), len(self.loops[0][1])
        self._chosen: dict[Any, Any] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> ndarray:
        unknown = set(kwargs) - record.UFUNC_KEYWORDS
        if unknown:
            raise TypeError(f"Wrong arguments {unknown}")
        if not self.nin <= len(args) <= self.nin + self.nout:
            raise TypeError(f"Wrong number of arguments for {self.__name__!r}.")
        assert (self.nout, kwargs.get("_where")) == (1, None), "not in the stand-in"
        inputs = args[: self.nin]
        out = kwargs.get("out", args[self.nin] if len(args) > self.nin else None)
        for x in inputs:
            if not isinstance(x, ndarray) and not _is_scalar(x):
                raise TypeError(f"Unsupported type {type(x)}")
        if out is not None and not isinstance(out, ndarray):
            raise TypeError("Output arguments type must be cupy.ndarray")
        arrays = [x for x in (*inputs, out) if isinstance(x, ndarray)]
        _check_device(arrays)
        shape = np.broadcast_shapes(*(x.shape for x in arrays))
        wanted, (gives,) = self._loop(inputs, kwargs.get("dtype"))
        if out is not None:
            if out.shape != shape:
                raise ValueError("Out shape is mismatched")
            if not np.can_cast(gives, out.dtype, kwargs.get("casting", "same_kind")):
                raise TypeError(f"Cannot cast output operand from {gives!r} to {out.dtype!r}")

        def computed() -> Host:
            operands = [
                x._a.astype(t, copy=False) if isinstance(x, ndarray) else np.asarray(x, t)
                for x, t in zip(inputs, wanted, strict=True)
            ]
            with np.errstate(all="ignore"):
                return np.array(self.compute(*operands)).astype(gives, copy=False)

        if out is None:
            return _launched(self.__name__, (), computed)
        log.launched(self.__name__)

        def put() -> None:
            with np.errstate(all="ignore"):
                out._a[...] = computed()

        if not _queued(put):
            put()
        return out

    def _loop(self, inputs: Any, dtype: Any) -> tuple[list[np.dtype[Any]], list[np.dtype[Any]]]:
        """The loop for these operands: guess_routine in cupy/_core/_kernel.pyx."""
        if dtype is not None:
            for loop in self.loops:
                if all(t == np.dtype(dtype) for t in loop[1]):
                    return loop
            raise TypeError(f"Wrong type ({dtype}) of arguments for {self.__name__}")
        found = [_operand(x) for x in inputs]
        key = tuple(found)
        if key not in self._chosen:
            strong = [_kind(t) for t, weak in found if not weak]
            numbers = [_kind(np.dtype(weak)) for _, weak in found if weak]
            if not (strong and numbers and max(strong) >= max(numbers)):
                found = [(t, None) for t, _ in found]
            fitting = (loop for loop in self.loops if _takes(loop[0], found))
            self._chosen[key] = next(fitting, None)
        if self._chosen[key] is None:
            kinds = [t for t, _ in found]
            raise TypeError(f"Wrong type ({kinds}) of arguments for {self.__name__}")
        return self._chosen[key]

    # --- methods ---

    def _check(self, method: str) -> None:
        if method not in self.methods:
            raise NotImplementedError(f"`cupy_{self.__name__}.{method}` is not supported yet")

    def reduce(
        self,
        array: ndarray,
        axis: Any = 0,
        dtype: Any = None,
        out: Any = None,
        keepdims: bool = False,
    ) -> Any:
        self._check("reduce")
        method = {"add": "sum", "multiply": "prod"}[self.__name__]
        return getattr(array, method)(axis, dtype, out, keepdims)

    def at(self, a: ndarray, indices: Any, b: Any = None) -> None:
        self._check("at")
        parts, advanced = _parts(a, indices)
        if advanced and str(a.dtype) not in _SCATTERS[self.__name__]:
            raise TypeError(f"cupy.{self.__name__}.at does not support {a.dtype} as data type")
        _check_device([x for x in (a, b) if isinstance(x, ndarray)])
        log.launched(f"{self.__name__}.at")
        values = (b._a if isinstance(b, ndarray) else np.asarray(b)).astype(a.dtype)
        getattr(np, self.__name__).at(a._a, parts, values)


def _operand(x: Any) -> tuple[np.dtype[Any], type | None]:
    """The dtype of an operand; and its type, if it is a Python number that may give way."""
    if isinstance(x, ndarray | np.generic):
        return x.dtype, None
    return np.asarray(x).dtype, None if type(x) is bool else type(x)


def _takes(wanted: list[np.dtype[Any]], found: list[tuple[np.dtype[Any], type | None]]) -> bool:
    """Whether a loop for the dtypes ``wanted`` takes operands such as those ``found``."""
    for to, (t, weak) in zip(wanted, found, strict=True):
        if np.can_cast(t, to):
            continue
        try:
            if weak is None or np.result_type(weak(0), to) != to:
                return False
        except TypeError:
            return False
    return True


@cache
def _ufunc(name: str) -> Ufunc:
    computes: dict[str, Callable[..., Any]] = {
        "inner.where": np.where,
        "inner.clip": lambda x, low, high: np.minimum(np.maximum(x, low), high),
        "special.erf": np.vectorize(math.erf, otypes=[np.float64]),
    }
    return Ufunc(name, computes.get(name) or getattr(np, name))


def _operated(ufunc: np.ufunc, x: Any, y: Any) -> Any:
    """``x`` operator ``y``, by the detour over NumPy that CuPy takes too."""
    other = y if isinstance(x, ndarray) else x
    if isinstance(other, ndarray) or _is_scalar(other):
        return getattr(MODULE, ufunc.__name__)(x, y)
    if getattr(other, "__array_ufunc__", ...) is None:
        return NotImplemented
    return ufunc(x, y)


def _operator(name: str) -> Callable[[Any, Any], Any]:
    ufunc: np.ufunc = getattr(np, name)
    return lambda self, other: _operated(ufunc, self, other)


def _reflected(name: str) -> Callable[[Any, Any], Any]:
    ufunc: np.ufunc = getattr(np, name)
    return lambda self, other: _operated(ufunc, other, self)


def _in_place(name: str) -> Callable[[Any, Any], Any]:
    return lambda self, other: _ufunc(name)(self, other, self)


for _name, _special in {
    "add": "add", "subtract": "sub", "multiply": "mul", "true_divide": "truediv",
    "floor_divide": "floordiv", "remainder": "mod", "power": "pow", "matmul": "matmul",
    "left_shift": "lshift", "right_shift": "rshift", "bitwise_and": "and", "bitwise_or": "or",
    "bitwise_xor": "xor",
}.items():  # fmt: skip
    if _special != "pow":
        setattr(ndarray, f"__{_special}__", _operator(_name))
    setattr(ndarray, f"__r{_special}__", _reflected(_name))
    if _special != "matmul":
        setattr(ndarray, f"__i{_special}__", _in_place(_name))
for _name, _special in {
    "less": "lt", "less_equal": "le", "equal": "eq", "not_equal": "ne", "greater": "gt",
    "greater_equal": "ge",
}.items():  # fmt: skip
    setattr(ndarray, f"__{_special}__", _operator(_name))
for _name, _special in {
    "negative": "neg", "positive": "pos", "absolute": "abs", "invert": "invert"
}.items():  # fmt: skip
    setattr(ndarray, f"__{_special}__", lambda self, name=_name: _ufunc(name)(self))


# --- functions and methods ------------------------------------------------------------------------

# They share memory where they can, and launch nothing then.
_VIEWS = {
    "atleast_1d", "atleast_2d", "broadcast_to", "expand_dims", "flip", "moveaxis", "ravel",
    "reshape", "split", "squeeze", "swapaxes", "transpose", "diagonal",
}  # fmt: skip

# They take no array in the first place.
_CREATION = {
    "arange", "array", "asarray", "empty", "eye", "full", "linspace", "ones", "tri", "zeros",
}  # fmt: skip

_SYNCHRONIZING = {"argwhere", "flatnonzero", "unique"}


def _bound(signature: Any, name: str, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """The arguments, checked against the signature that CuPy's function has."""
    try:
        given = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"cupy.{name}: {error}") from None
    return given.args, given.kwargs


def _unwrapped(value: Any, found: list[ndarray]) -> Any:
    """``value`` for NumPy; the arrays in it are noted in ``found``."""
    if isinstance(value, ndarray):
        found.append(value)
        return value._a
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}")
    if type(value) in (list, tuple):
        return type(value)(_unwrapped(v, found) for v in value)
    return value


def _wrapped(value: Any, inputs: list[ndarray]) -> Any:
    """A result of NumPy's as this module's: a view if it lies in the memory of an input."""
    if isinstance(value, np.generic):
        return _made(np.asarray(value))
    if isinstance(value, list | tuple):
        return type(value)(_wrapped(v, inputs) for v in value)
    if not isinstance(value, np.ndarray):
        return value
    for x in inputs:
        if value is x._a:
            return x
        if np.may_share_memory(value, x._a):
            return _view(x, value)
    return _made(value)


def _computed(name: str, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Run NumPy's ``function`` on arrays of this module."""
    inputs: list[ndarray] = []
    plain = _unwrapped(tuple(args), inputs)
    options = {k: _unwrapped(v, inputs) for k, v in kwargs.items()}
    if name not in _VIEWS:
        _check_device(inputs)
    if current_stream().graph is not None:
        return _in_graph(name, partial(function, *plain, **options), inputs)
    with np.errstate(all="ignore"):
        found = _wrapped(function(*plain, **options), inputs)
    new = isinstance(found, ndarray) and found.base is None
    copied = new and all(found is not x for x in inputs)
    if copied and name in _VIEWS:
        _check_device(inputs)
    if copied or name not in _VIEWS:
        log.launched(name)
    if name in _SYNCHRONIZING:
        _waits(name)
    return found


def _in_graph(name: str, computed: Callable[[], Any], inputs: list[ndarray]) -> Any:
    """The same as a part of a graph: of views and of what has new memory to itself, written by one
    kernel; what CuPy does elsewhere depends on the case."""
    found = computed()
    if name in _VIEWS and any(np.may_share_memory(found, x._a) for x in inputs):
        return _wrapped(found, inputs)
    if name not in _VIEWS | _CREATION - {"array", "asarray"}:
        _not_captured(name)
    return _launched(name, inputs, computed)


def _method(name: str) -> Callable[..., Any]:
    def method(self: ndarray, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = _bound(SURFACE.methods[name], f"ndarray.{name}", args, kwargs)
        return _computed(name, getattr(np.ndarray, name), (self, *args), kwargs)

    method.__name__ = name
    return method


def _function(name: str) -> Callable[..., Any]:
    def function(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = _bound(SURFACE.functions[name], name, args, kwargs)
        if name in _OWN:
            return _OWN[name](*args, **kwargs)
        if name not in _CREATION:
            first = args[0] if type(args[0]) in (list, tuple) else [args[0]]
            for x in first:
                if not isinstance(x, ndarray):
                    raise TypeError(f"cupy.{name}: Unsupported type {type(x)}")
        return _computed(name, getattr(np, name), args, kwargs)

    function.__name__ = name
    return function


for _name in SURFACE.methods:
    if not hasattr(ndarray, _name) and hasattr(np.ndarray, _name):
        setattr(ndarray, _name, _method(_name))


def _array(
    obj: Any,
    dtype: Any = None,
    copy: Any = True,
    order: str = "K",
    subok: bool = False,
    ndmin: int = 0,
    *,
    blocking: bool = False,
) -> ndarray:
    assert (subok, ndmin) == (False, 0), "not in the stand-in"
    if not isinstance(obj, ndarray):
        _uploads()
        return _made(np.array(obj, dtype, copy=True, order=_order(order)))
    if obj._memory.device_id != _Current.number:
        obj = obj.copy(order)
        copy = copy or None
    wanted = obj.dtype if dtype is None else np.dtype(dtype)
    if copy is False and wanted != obj.dtype:
        raise ValueError("Unable to avoid copy while creating an array as requested.")
    return obj.astype(wanted, order, copy=bool(copy))


def _asarray(
    a: Any, dtype: Any = None, order: Any = None, *, copy: Any = None, blocking: bool = False
) -> ndarray:
    if not isinstance(a, ndarray) and hasattr(a, "__cuda_array_interface__"):
        a = _of_interface(a.__cuda_array_interface__)
    return _array(a, dtype, copy, order or "K")


def _of_interface(interface: dict[str, Any]) -> ndarray:
    """The array that another library describes, sharing its memory."""

    class Described:
        __array_interface__ = {k: interface[k] for k in ("shape", "typestr", "strides", "data")} | {
            "version": 3
        }

    return _described(np.asarray(Described()))


def _where(condition: Any, x: Any = None, y: Any = None) -> Any:
    if x is None and y is None:
        return condition.nonzero()
    if not isinstance(condition, ndarray | np.generic):
        raise AttributeError(f"{type(condition).__name__!r} object has no attribute 'astype'")
    return _ufunc("inner.where")(condition.astype("?", copy=False), x, y)


def _tril(m: Any, k: int = 0) -> ndarray:
    mask = _launched("tri", (m,), np.tri(m.shape[-2], m.shape[-1], k, np.bool_))
    return _where(mask, m, m.dtype.type(0))


def _triu(m: Any, k: int = 0) -> ndarray:
    mask = _launched("tri", (m,), np.tri(m.shape[-2], m.shape[-1], k - 1, np.bool_))
    return _where(mask, m.dtype.type(0), m)


def _from_dlpack(array: Any, *, device: Any = None, copy: Any = None) -> ndarray:
    kind, _ = array.__dlpack_device__()
    if kind != 2:
        raise BufferError("only memory of a device is exchanged in the stand-in")
    capsule: Capsule = array.__dlpack__(stream=1, max_version=(1, 0))
    return _view(capsule.array, capsule.array._a)


def _empty_like(
    prototype: ndarray, dtype: Any = None, order: str = "K", subok: Any = None, shape: Any = None
) -> ndarray:
    x = object.__new__(ndarray)
    x._allocate(np.empty_like(prototype._a, dtype, _order(order), shape=shape))
    return x


# What NumPy does otherwise, or what needs no launch.
_OWN: dict[str, Callable[..., Any]] = {
    "array": _array,
    "asarray": _asarray,
    "empty": lambda shape, dtype=float, order="C": ndarray(shape, dtype, order=order),
    "empty_like": _empty_like,
    "where": _where,
    "clip": lambda a, a_min, a_max, out=None: _ufunc("inner.clip")(a, a_min, a_max, out=out),
    "argsort": lambda a, axis=-1, kind=None: a.argsort(axis, kind),
    "nonzero": lambda a: a.nonzero(),
    "tril": _tril,
    "triu": _triu,
    "from_dlpack": _from_dlpack,
    "ascontiguousarray": lambda a, dtype=None: (
        a if a.flags.c_contiguous and dtype in (None, a.dtype) else a.astype(dtype or a.dtype, "C")
    ),
}


# --- kernels --------------------------------------------------------------------------------------


class RawModule:
    """CUDA source, compiled for the CPU by the emulator on first use."""

    def __init__(self, *, code: str, options: tuple[str, ...] = (), backend: str = "nvrtc") -> None:
        assert isinstance(options, tuple), "CuPy wants a tuple"
        assert backend == "nvrtc", "not in the stand-in"
        self.code = code
        self.options = options

    def get_function(self, name: str) -> RawFunction:
        return RawFunction(emulator.load(self.code, self.options).get_function(name))


class RawFunction:
    """A kernel of a module. Arrays of the host and of other devices are refused."""

    def __init__(self, kernel: emulator.Kernel) -> None:
        self._kernel = kernel

    def __call__(
        self,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: tuple[Any, ...],
        *,
        shared_mem: int = 0,
    ) -> None:
        passed = []
        for a in args:
            if isinstance(a, np.ndarray):
                raise TypeError(f"Unsupported type {type(a)}")
            if isinstance(a, ndarray):
                _check_device((a,))
                a = a._a
            passed.append(a)
        log.launched(self._kernel.name)
        work = partial(self._kernel, grid, block, passed, shared_mem)
        if not _queued(work):
            work()


def RawKernel(
    code: str, name: str, options: tuple[str, ...] = (), backend: str = "nvrtc"
) -> RawFunction:
    """A module of one kernel."""
    return RawModule(code=code, options=options, backend=backend).get_function(name)


# --- the modules ----------------------------------------------------------------------------------


#: the transforms of cupy.fft that are used, with their arguments there
_TRANSFORMS = {
    "fft": "a n= axis= norm=",
    "fftn": "a s= axes= norm=",
    "ifft": "a n= axis= norm=",
    "ifftn": "a s= axes= norm=",
    "irfft": "a n= axis= norm=",
    "rfft": "a n= axis= norm=",
}


def _transform(name: str) -> Callable[..., Any]:
    """cuFFT's: of float32, float64 and their complex numbers alone; rfft refuses complex ones."""
    known = [token.rstrip("=") for token in _TRANSFORMS[name].split()]

    def function(a: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(a, ndarray):
            raise TypeError(f"cupy.fft.{name}: Unsupported type {type(a)}")
        unknown = set(kwargs) - set(known)
        if unknown or len(args) >= len(known):
            raise TypeError(f"cupy.fft.{name}() got an unexpected argument {unknown or args}")
        kinds = "fd" if name == "rfft" else "fdFD"
        if a.dtype.char not in kinds:
            raise TypeError(f"cupy.fft.{name}: {a.dtype}")
        return _computed(f"fft.{name}", getattr(np.fft, name), (a, *args), kwargs)

    return function


class Standin(ModuleType):
    """The module ``cupy``: what CuPy has, and an AttributeError for what it has not."""

    def __init__(self) -> None:
        super().__init__("cupy", __doc__)
        self.__version__ = f"{SURFACE.version.removeprefix('CuPy ')}+standin"
        self.__path__: list[str] = []
        self.ndarray = ndarray
        self.RawModule = RawModule
        self.RawKernel = RawKernel
        self.get_default_memory_pool = lambda: SimpleNamespace(
            used_bytes=lambda: 1 << 30, total_bytes=lambda: 2 << 30, get_limit=lambda: 0
        )
        self.fft = SimpleNamespace(**{name: _transform(name) for name in _TRANSFORMS})
        self.lib = SimpleNamespace(stride_tricks=SimpleNamespace(as_strided=_as_strided))
        self.cuda = ModuleType("cupy.cuda")
        self.cuda.__dict__.update(
            Device=Device,
            MemoryPointer=MemoryPointer,
            UnownedMemory=UnownedMemory,
            get_allocator=_allocator,
            using_allocator=_using_allocator,
            is_available=lambda: True,
            Stream=Stream,
            Event=Event,
            get_current_stream=current_stream,
            runtime=SimpleNamespace(
                getDevice=lambda: _Current.number,
                setDevice=lambda number: Device(number).use() and None,
                getDeviceCount=lambda: DEVICES,
                runtimeGetVersion=lambda: 0,  # of no library that is installed
                getDeviceProperties=lambda number: {"name": b"stand-in for a GPU"},
                memGetInfo=lambda: (3 << 30, 4 << 30),
                CUDARuntimeError=CUDARuntimeError,
            ),
        )

    def __getattr__(self, name: str) -> Any:
        if name in SURFACE.ufuncs:
            return _ufunc(name)
        if name in SURFACE.functions:
            function = self.__dict__[name] = _function(name)
            return function
        found: Any = getattr(np, name, None)
        if isinstance(found, type) and issubclass(found, np.generic):
            return found
        raise AttributeError(f"module 'cupy' has no attribute {name!r}")

    def get_array_module(self, *args: Any) -> ModuleType:
        return self if any(isinstance(x, ndarray) for x in args) else np


MODULE = Standin()


def _empty_pinned(shape: Any, dtype: Any = float, order: str = "C") -> Host:
    a: Host = np.empty(shape, dtype, _order(order))
    a.reshape(-1, order="A").view(np.uint8).fill(0xFF)
    return a


def _modules(cublaslt: bool, cudnn: bool) -> dict[str, Any]:
    special = ModuleType("cupyx.scipy.special")
    special.__dict__["erf"] = _ufunc("special.erf")
    products = ModuleType("cupy._core._routines_linalg")
    compute_type = {"f": 1}
    products.__dict__.update(
        COMPUTE_TYPE_DEFAULT=1,
        COMPUTE_TYPE_TF32=7,
        get_compute_type=lambda dtype: compute_type[dtype.char],
        set_compute_type=lambda dtype, kind: compute_type.update({np.dtype(dtype).char: kind}),
    )
    from standin import cublas, cusolver
    from standin import cublaslt as lt
    from standin import cudnn as dnn

    device = ModuleType("cupy.cuda.device")
    device.__dict__["get_cublas_handle"] = lambda: cublas.HANDLE  # one for all threads
    cupyx = ModuleType("cupyx")
    cupyx.__dict__["empty_pinned"] = _empty_pinned
    cupyx.__dict__["errstate"] = cusolver.errstate
    MODULE.__dict__["linalg"] = cusolver.linalg(sys.modules[__name__])
    found: dict[str, Any] = {
        "cupy": MODULE,
        "cupy.cuda": MODULE.cuda,
        "cupy.cuda.device": device,
        "cupy_backends": ModuleType("cupy_backends"),
        "cupy_backends.cuda": ModuleType("cupy_backends.cuda"),
        "cupy_backends.cuda.libs": ModuleType("cupy_backends.cuda.libs"),
        "cupy_backends.cuda.libs.cublas": cublas.binding(),
        "cupy._core": ModuleType("cupy._core"),
        "cupy._core._routines_linalg": products,
        "cupyx": cupyx,
        "cupyx.scipy": ModuleType("cupyx.scipy"),
        "cupyx.scipy.special": special,
    }
    # ``None`` makes an import fail.
    for name in ("nvmath", "nvmath.bindings"):
        found[name] = ModuleType(name) if cublaslt else None
    found["nvmath.bindings.cublasLt"] = lt.binding() if cublaslt else None
    found["cudnn"] = dnn.package() if cudnn else None
    return found


@contextmanager
def installed(
    kernels: bool = True, cublaslt: bool = False, cudnn: bool = False
) -> Iterator[Standin]:
    """Make the stand-in what ``import cupy`` gives; afterwards everything is as it was before.

    cublaslt: whether nvmath-python is there, with its binding of cublasLt. cudnn: whether cuDNN and
    its frontend are.

    kernels: run the hand-written kernels, through the emulator. Where that lacks a compiler, and
    without this, CuPy's functions compute everything.
    """
    from tensorgrad import backend
    from tensorgrad.program import engine

    modules = _modules(cublaslt, cudnn)
    skipped = engine._SKIPPED
    asked = os.environ.get("TENSORGRAD_KERNELS")
    absent = object()
    before: dict[str, Any] = {name: sys.modules.get(name, absent) for name in modules}
    backends = dict(backend.BACKENDS)
    _forget()
    sys.modules.update(modules)
    log.clear()
    try:
        # Through the environment, so that a backend made anew has it too.
        used = kernels and emulator.available() is None
        os.environ["TENSORGRAD_KERNELS"] = "1" if used else "0"
        backend.cuda_backend()
        # Its code is followed as little as CuPy's own, where a step is captured.
        _skip(skipped | {__name__.partition(".")[0]})
        yield MODULE
    finally:
        _skip(skipped)
        os.environ.pop("TENSORGRAD_KERNELS")
        if asked is not None:
            os.environ["TENSORGRAD_KERNELS"] = asked
        _Current.number = 0
        for name, module in before.items():
            if module is absent:
                del sys.modules[name]
            else:
                sys.modules[name] = module
        _forget()
        backend.BACKENDS.clear()
        backend.BACKENDS.update(backends)


def _skip(packages: frozenset[str]) -> None:
    """Say whose code is not followed."""
    from tensorgrad.program import engine

    engine._SKIPPED = packages
    engine.is_engine.cache_clear()


def _forget() -> None:
    """Empty everything in which the engine keeps what belongs to one CuPy."""
    import gc

    from tensorgrad import tape
    from tensorgrad.backend import cuda, cudnn
    from tensorgrad.backend.launch import epilogues, products
    from tensorgrad.ops import random

    cuda.problem.cache_clear()
    cuda.load.cache_clear()
    products._library.cache_clear()
    epilogues.forget()
    cudnn.forget()
    random._place.cache_clear()
    for found in gc.get_objects():
        if type(found) is tape.Primitive:
            found.cuda = None
