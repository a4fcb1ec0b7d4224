"""Whether a replay does what the function did, and how that is found out in little memory.

The function has run, and what it overwrote is exchanged for what was there before, of which there
is one copy. Then the program rehearses: it runs, what it leaves is compared with what the function
left, and is put back at once. Executors that can show what they overwrite do so piece by piece;
of what others overwrite there is another copy meanwhile. So in the end both states are there, that
before the step and the function's, whatever was found. A replay does the same again for good.

Two programs that compute the same in another order differ in the last bits: see ``rounding.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from tensorgrad import backend, dtypes
from tensorgrad.backend.memory import give_back
from tensorgrad.program.aliases import relations
from tensorgrad.program.capture import Recorder
from tensorgrad.program.executors.base import Executor
from tensorgrad.program.ir import Program, Value, is_writeable
from tensorgrad.sparse import LazyGradient, in_rows
from tensorgrad.tensor import Tensor
from tensorgrad.versions import increment_versions

#: Elements that are compared, or exchanged, at a time.
PIECE = 1 << 15
# Bytes that are overwritten from which on memory is given back: it takes about a millisecond.
_MUCH = 1 << 24
# Places of a large array that are looked at one by one: so many that differ most, and about so many
# at equal distances. Of an array with no more elements than the former all are.
_LOOKED_AT, _SPREAD = 1 << 15, 1 << 13
# Whole numbers of as many bytes.
_BITS = {4: np.int32, 8: np.int64}


class Snapshot(dict[str, Any]):
    """Copies of what a program can change, by the names of ``State``.

    tensors: the very tensors that were the gradients; ``None`` if nobody needs them.
    numbers: what was in them, where their memory may have changed since.
    """

    tensors: Sequence[Tensor | None] | None = None
    numbers: Sequence[Any] = ()

    def gradient(self, k: int) -> Any:
        """The array of gradient ``k``, or ``None`` where there is none."""
        tensor = None if self.tensors is None else self.tensors[k]
        if tensor is None:
            return None
        return _numbers(tensor) if self.numbers[k] is None else self.numbers[k]


class State:
    """Everything a program can change outside itself, by name.

    leaves: those whose gradients it changes. words: the generators that it draws from, and how
        many words of each it uses up. tensors: its arguments.
    """

    def __init__(
        self,
        program: Program,
        leaves: Sequence[Any],
        words: Sequence[tuple[Any, int]],
        tensors: Sequence[Tensor],
    ) -> None:
        self.program = program
        self.leaves = leaves
        self.words = words
        self.tensors = tensors
        self.values = {
            f"the {v.role} {v.label} {v!r} of shape {v.shape}": v for v in program.touched
        }
        all_values = program.values()
        #: whether it adds to gradients from before, or reads them
        self.reads_gradients = any(v.label == "gradient" for v in all_values)
        overwritten = sum(v.nbytes for v in self.values.values())
        #: whether it is worth some time to save memory: much is overwritten, or was recorded
        self.is_large = overwritten >= _MUCH or sum(v.nbytes for v in all_values) >= _MUCH

    def fetch(self, v: Value) -> Any:
        """The array of a value from outside."""
        return v.fetch() if v.fetch is not None else self.tensors[int(v.label)].data

    def arrays(self) -> dict[str, Any]:
        """The arrays as they are now."""
        return {name: self.fetch(v) for name, v in self.values.items()}

    def copy(self, gradients: bool = True) -> Snapshot:
        """A copy of all of it. gradients: whether what the gradients were is wanted, too."""
        found = Snapshot((name, backend.copied(a)) for name, a in self.arrays().items())
        self._note_generators(found)
        if gradients:
            found.tensors = [leaf.grad for leaf in self.leaves]
            found.numbers = [
                None if t is None or in_rows(t) else backend.copied(t.data) for t in found.tensors
            ]
        return found

    def exchange(self, saved: Snapshot) -> None:
        """Put ``saved`` back, and let it hold what is here now."""
        arrays = self.arrays()
        self._exchange_gradients(saved)
        if relations(list(arrays.values())):  # some are views of others: they change together
            now = {name: backend.copied(a) for name, a in arrays.items()}
            for name, a in arrays.items():
                put_back(a, saved[name])
            saved.update(now)
        else:
            for name, a in arrays.items():
                exchange(a, saved[name])
        increment_versions(arrays.values())
        states = [generator.state() for generator, _ in self.words]
        for k, (generator, _) in enumerate(self.words):
            generator.set_state(saved[f"the state of generator {k}"])
            saved[f"the state of generator {k}"] = states[k]

    def _exchange_gradients(self, saved: Snapshot) -> None:
        now = [leaf.grad for leaf in self.leaves]
        before = saved.tensors or [None] * len(now)
        changing = _owners(
            t.data for t, a in zip(before, saved.numbers) if t is not None and a is not None
        )
        numbers = [_apart_from(changing, t) for t in now]
        for k, (leaf, tensor) in enumerate(zip(self.leaves, before, strict=True)):
            leaf.grad = tensor
            if tensor is not None and saved.numbers[k] is not None:
                put_back(tensor.data, saved.numbers[k])
        saved.tensors, saved.numbers = now, numbers

    def give_back(self) -> None:
        """Give memory of which nobody has need any more back to the system, if it is much."""
        if self.is_large:
            give_back()

    def _note_generators(self, found: Snapshot) -> None:
        for k, (generator, _) in enumerate(self.words):
            found[f"the state of generator {k}"] = generator.state()

    def rolled_back(self, recorder: Recorder) -> Snapshot:
        """Roll a captured call back; a snapshot of what it had made of the state."""
        saved = recorder.saved()
        arrays = self.arrays()
        copies = {id(array): copy for array, copy in saved}
        overwritten = [array for array, _ in saved]
        known = [a for a in arrays.values() if id(a) in copies]
        one_name_each = len(set(map(id, known))) == len(arrays)
        if relations(overwritten) or not one_name_each:
            found = self.copy()
            recorder.roll_back()
            return found
        found = Snapshot((name, copies[id(a)]) for name, a in arrays.items())
        self._note_generators(found)
        found.tensors = [leaf.grad for leaf in self.leaves]
        found.numbers = [_apart_from(_owners(overwritten), t) for t in found.tensors]
        for name, a in arrays.items():
            exchange(a, found[name])
        recorder.roll_back(exchanged=list(arrays.values()))
        return found


def exchange(a: Any, b: Any) -> None:
    """Let two arrays of one shape exchange their numbers; ``b`` is in memory of its own."""
    if not is_writeable(a):  # it shows memory that is written through another one
        return
    if type(a) is not np.ndarray or not (a.flags.c_contiguous and b.flags.c_contiguous):
        now = backend.copied(a)
        put_back(a, b)
        put_back(b, now)
        return
    x, y = a.reshape(-1), b.reshape(-1)
    for at in range(0, x.size, PIECE):
        piece = slice(at, at + PIECE)
        now = x[piece].copy()
        x[piece] = y[piece]
        y[piece] = now


def put_back(array: Any, saved: Any) -> None:
    """Write what was saved to the array, unless it shows memory that is written through another."""
    if is_writeable(array):
        place = backend.of(array)
        with place.at(place.device_of(array)):
            array[...] = saved


def _owners(arrays: Iterable[Any]) -> set[int]:
    """The identities of what owns their memory."""
    return {id(backend.of(a).memory_owner(a)) for a in arrays}


def _numbers(gradient: Tensor) -> Any:
    """The array of a gradient; of one that is kept as rows a whole one is made."""
    return gradient.copied(share=True).data if in_rows(gradient) else gradient.data


def _apart_from(owners: set[int], tensor: Tensor | None) -> Any:
    """A copy of what is in a gradient, if it lies in the memory of one of these."""
    if tensor is None or in_rows(tensor) or _owners([tensor.data]).isdisjoint(owners):
        return None
    return backend.copied(tensor.data)


# --- the rehearsal --------------------------------------------------------------------------------


class RehearsalError(Exception):
    """The program failed with ``cause``; what it had overwritten is put back."""

    def __init__(self, cause: Exception) -> None:
        self.cause = cause


def rehearse(
    executor: Executor, state: State, results: Sequence[Any], after: Snapshot
) -> dict[str, Difference]:
    """Run a program, compare with what the function did, and put back what it overwrites.

    results, after: the results of the function, and the state that it left.

    Returns what differs, by the names of ``State``; results are called ``"result 0"`` and so on.
    Raises RehearsalError.
    """
    arrays = state.arrays()
    found = {name: Difference(after[name]) for name in state.values}
    names = {v: name for name, v in state.values.items()}
    errors: list[BaseException] = []

    def piece(run: Callable[[], None], parts: Sequence[tuple[Value, int, int]]) -> None:
        """Compare one piece of work, which overwrites these elements of these values."""
        if errors:
            return
        views = [arrays[names[v]].reshape(-1)[begin:end] for v, begin, end in parts]
        try:  # it is called from C, past which no exception comes
            before = [view.copy() for view in views]
            try:
                run()
                for (v, begin, _), view in zip(parts, views):
                    found[names[v]].take_in(view, begin)
            finally:
                for view, numbers in zip(views, before):
                    view[...] = numbers
        except BaseException as error:
            errors.append(error)

    alike = {
        v: a
        for name, v in state.values.items()
        if _is_in_order(a := arrays[name]) and _is_in_order(after[name])
    }
    in_pieces = executor.show(alike, piece)
    saved: list[tuple[Any, Any]] = []
    try:
        for name, v in state.values.items():
            parts = _parts(arrays[name], in_pieces.get(v, ()))
            saved += [(part, backend.copied(part)) for part in parts]
        try:
            made, gradients = executor.run([t.data for t in state.tensors])
        except Exception as error:
            raise RehearsalError(error) from error
        if errors:
            raise errors[0]
        for name, v in state.values.items():
            a, done = arrays[name], in_pieces.get(v, ())
            if not done:
                found[name].compare(a)
            for begin, end in _between(done, a.size) if done else ():
                found[name].take_in(a.reshape(-1)[begin:end], begin)
    finally:
        executor.show_no_more()
        for part, numbers in saved:
            put_back(part, numbers)
        increment_versions(arrays.values())
    compared = {f"result {k}": _compared(a, b) for k, (a, b) in enumerate(zip(made, results))}
    compared |= found
    for k in range(len(state.leaves)):
        g = state.program.gradient(k, gradients)
        compared[f"gradient {k}"] = _of_rows(g, after, k) or _compared(
            _numbers(g) if isinstance(g, Tensor) else g, after.gradient(k)
        )
    for k, (generator, count) in enumerate(state.words):
        key, position = generator.state()
        name = f"the state of generator {k}"
        compared[name] = _compared((key, position + count), after[name])
    return {name: difference for name, difference in compared.items() if difference.text()}


def _compared(a: Any, b: Any) -> Difference:
    difference = Difference(b)
    difference.compare(a)
    return difference


def _of_rows(gradient: Any, after: Snapshot, k: int) -> Difference | None:
    """How a gradient that the program left as rows differs from the function's; ``None`` unless
    that consists of the same rows: others may be zero there, or missing."""
    wanted = None if after.tensors is None or after.numbers[k] is not None else after.tensors[k]
    if not (isinstance(gradient, LazyGradient) and wanted is not None and in_rows(wanted)):
        return None
    (numbers, rows), (others, there) = (
        g.copied(share=True).coalesced() for g in (gradient, wanted)
    )
    if type(numbers) is not np.ndarray or not np.array_equal(numbers, others):
        return None
    found = _compared(rows, there)
    found.by_rows = True
    return found


def _is_in_order(array: Any) -> bool:
    return type(array) is np.ndarray and array.flags.c_contiguous and array.flags.writeable


def _between(done: Sequence[tuple[int, int]], size: int) -> Iterator[tuple[int, int]]:
    """The ranges of [0, size) that are left by those that are done, which do not meet."""
    at = 0
    for begin, end in sorted(done):
        if at < begin:
            yield at, begin
        at = end
    if at < size:
        yield at, size


def _parts(array: Any, done: Sequence[tuple[int, int]]) -> list[Any]:
    """The array, or the parts of it that are not shown in pieces."""
    if not done:
        return [array]
    flat = array.reshape(-1)
    return [flat[begin:end] for begin, end in _between(done, flat.size)]


class Difference:
    """How an array that a program makes differs from that of the function, taken in by pieces.

    wanted: what the function made; also ``None``, or a tuple, which is compared by ``==``.
    by_rows: whether these are the sums of a gradient that is rows, in the order of their numbers.
    """

    __slots__ = (
        "_at", "_bound", "_flat", "_most", "_odd", "_off", "_scale", "_text", "_worst", "by_rows",
        "wanted",
    )  # fmt: skip

    def __init__(self, wanted: Any) -> None:
        self.wanted = wanted
        self.by_rows = False
        self._text = ""
        self._scale, self._bound = 0.0, (0.0, 0.0)
        self._most, self._odd = 0.0, 0
        #: the places that differ beyond what rounding usually does, and how much
        self._worst: list[tuple[Any, Any]] = []
        #: places at equal distances, and how far apart the two are there
        self._at: Any = None
        self._off: Any = None
        #: its elements in row-major order; of complex ones their parts, each beside the other
        self._flat: Any = None
        if backend.is_array(wanted):
            flat = self._flat = _parts_of_complex(wanted.reshape(-1))
            if flat.dtype not in dtypes.FLOATS:
                return
            self._scale = max(map(_magnitude, _pieces(flat)), default=0.0)
            wide = 1e-9 if flat.dtype == np.float64 else 1e-4
            wide = 3e-2 if flat.dtype in dtypes.HALVES else wide
            self._bound = wide * max(self._scale, 1e-6), wide * 10
            self._at = np.arange(0, flat.size, max(1, flat.size // _SPREAD))
            self._off = np.zeros(self._at.size)

    def compare(self, a: Any) -> None:
        """Take in all of what the program made."""
        b = self.wanted
        if a is None or b is None or isinstance(b, tuple):
            same = (a is None) == (b is None) and (a is None or a == b)
            self._text = "" if same else f"is {a}, not {b}"
        elif a.shape != b.shape or a.dtype != b.dtype:
            self._text = f"has shape {a.shape} and dtype {a.dtype}, not {b.shape} and {b.dtype}"
        else:
            self.take_in(a.reshape(-1), 0)
            if self._worst and a.size <= _LOOKED_AT and self.is_rounding:
                self._at = np.arange(a.size)
                self._off = np.concatenate([_apart(x, y) for x, y in zip(_pieces(a), _pieces(b))])

    def take_in(self, a: Any, begin: int) -> None:
        """Take in elements of what the program made, in row-major order, from this one on."""
        a = _parts_of_complex(a)
        begin *= self._flat.size // max(self.wanted.size, 1)
        b = self._flat[begin : begin + a.size]
        for at, x, y in zip(range(begin, begin + a.size, PIECE), _pieces(a), _pieces(b)):
            if self._at is None:
                self._text = self._text or ("" if np.array_equal(x, y) else "differs")
            else:
                self._note(at, x, y)

    def _note(self, begin: int, x: Any, y: Any) -> None:
        absolute, relative = self._bound
        first, last = np.searchsorted(self._at, [begin, begin + x.size])
        if _same_bits(x, y):
            return
        spread = self._at[first:last] - begin
        self._off[first:last] = _apart(x[spread], y[spread])
        with np.errstate(invalid="ignore", over="ignore"):
            off = np.subtract(x, y, dtype=x.dtype)
            if max(off.max(), -off.min()) < absolute * 0.99:
                return
            off = _apart(x, y)
            allowed = absolute + relative * np.abs(y.astype(np.float64))
        worst = np.flatnonzero(~((off == 0) | ((off <= allowed) & np.isfinite(y))))
        if not worst.size:
            return
        self._odd += int((np.isfinite(x) != np.isfinite(y)).sum())
        off = off[worst]
        self._most = max(self._most, float(np.max(off[np.isfinite(off)], initial=0.0)))
        self._worst.append((worst + begin, off))
        if sum(at.size for at, _ in self._worst) > 2 * _LOOKED_AT:
            self._worst = [self._largest()]

    def _largest(self) -> tuple[Any, Any]:
        """The places that differ most; first those where one of the two is not finite."""
        at, off = (np.concatenate(part) for part in zip(*self._worst))
        if at.size > _LOOKED_AT:
            key = np.where(np.isfinite(off), off, np.inf)
            chosen = np.argpartition(-key, _LOOKED_AT)[:_LOOKED_AT]
            at, off = at[chosen], off[chosen]
        return at, off

    def places(self) -> tuple[Any, Any]:
        """Places in row-major order, and how far apart the two are there: where they differ most,
        and others at equal distances. Of a small array these are all."""
        at, off = self._largest()
        at, off = np.concatenate([at, self._at]), np.concatenate([off, self._off])
        order = np.argsort(at, kind="stable")
        first = order[_begins(at[order])]
        return at[first], off[first]

    @property
    def is_rounding(self) -> bool:
        """Whether it may be: both are arrays of floats of one shape. Complex ones, whose steps are
        calls of the same functions, are not excused."""
        return bool(self._worst) and not self._text and self._flat.dtype == self.wanted.dtype

    def text(self) -> str:
        """How they differ beyond what rounding usually does; empty if they do not."""
        if not self._worst:
            return self._text
        more = f", and in whether {self._odd} numbers are finite" if self._odd else ""
        return (
            f"differs by up to {self._most:.3g}, its largest magnitude being {self._scale:.3g}"
            f"{more}"
        )


def _parts_of_complex(flat: Any) -> Any:
    """The real and imaginary parts of a vector's elements; of real ones itself."""
    if flat.dtype not in dtypes.COMPLEX:
        return flat
    return backend.of(flat).xp.ascontiguousarray(flat).view(dtypes.real_of(flat.dtype))


def each_once(places: Any) -> Any:
    """Places in order, each once. ``np.unique`` imports masked arrays, which take 2 MB."""
    places = np.sort(places)
    return places[_begins(places)]


def _begins(places: Any) -> Any:
    """Where each of these places, which are in order, comes first."""
    return np.flatnonzero(np.diff(places, prepend=-1))


def _pieces(a: Any) -> Iterator[Any]:
    """The elements in row-major order, on the host, so many at a time."""
    flat = a.reshape(-1)
    for at in range(0, flat.size, PIECE):
        piece = flat[at : at + PIECE]
        piece = backend.of(piece).to_host(piece)
        yield piece.astype(np.float32) if piece.dtype in dtypes.HALVES else piece


def _same_bits(x: Any, y: Any) -> bool:
    """Whether two arrays of one type in memory are equal to the bit, NaN included."""
    bits = _BITS[x.itemsize]
    return bool((x.view(bits) == y.view(bits)).all())


def _magnitude(x: Any) -> float:
    """The largest finite magnitude."""
    if not x.size:
        return 0.0
    with np.errstate(invalid="ignore"):
        most = max(float(x.max()), -float(x.min()))
    return most if np.isfinite(most) else float(np.max(np.abs(x[np.isfinite(x)]), initial=0.0))


def _apart(x: Any, y: Any) -> Any:
    """How far apart two arrays are, in float64."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        return np.where((x == y) | ((x != x) & (y != y)), 0.0, np.abs(x - y))
