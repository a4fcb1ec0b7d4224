"""Gradients of tables of which few rows were looked up: SparseGradient, and what is lazy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeGuard

import numpy as np

from tensorgrad import backend, dtypes
from tensorgrad.backend.base import Array
from tensorgrad.backend.templates import ARRAY
from tensorgrad.observers import current_mode, is_captured
from tensorgrad.ops import parts
from tensorgrad.ops.indexing import index_added
from tensorgrad.ops.shaping import concat
from tensorgrad.tape import wrap
from tensorgrad.tensor import Tensor

__all__ = ["LazyGradient", "SparseGradient"]


class LazyGradient(parts.Rows, Tensor):
    """A gradient that is kept as rows and their numbers, as long as nobody reads it as a whole.

    It is a tensor like others: whatever computes with it, shows it or overwrites it makes its
    zeros too, and they are kept. ``backward()`` leaves one where few rows of a large leaf were
    looked up, since updates that leave the others as they are need not see them.

    While a program is captured the rows are values of the recording, and so is the whole, which is
    made by an operation. How many rows differ is not known there: equal ones stay side by side.
    """

    __slots__ = (
        "_captured",
        "_coalesced",
        "_dense",
        "_gaps",
        "_keys",
        "_lent",
        "_rows",
        "_shape",
        "_used",
    )

    def __init__(
        self,
        shape: tuple[int, ...],
        keys: Array,
        rows: Array,
        recorded: bool = False,
        lent: bool = False,
    ) -> None:
        """rows: (m, length), of the numbers ``keys``, which may repeat and count from the front.

        recorded: whether both are values of a program that is being captured.
        lent: whether both are memory that a program overwrites in its next replay, unless somebody
            else refers to the rows.
        """
        self._lent = lent
        #: whether some numbers may be below 0, which name no row: those of programs are left in
        self._gaps = recorded or lent
        #: of rows that are lent, references to them once this is no longer what it was made as
        self._used: tuple[Array, ...] = ()
        self.node = None
        self._captured = recorded
        self._shape = shape
        self._keys, self._rows = [keys], [rows]
        self._coalesced = False
        #: the whole, once somebody has asked for it: from then on it alone counts
        self._dense: Array | None = None

    # --- as a tensor ------------------------------------------------------------------------------

    @property
    def data(self) -> Array:
        """The whole as an array."""
        if self._dense is None:
            self._note_use()
        if self.is_recorded:
            keys, rows = self.as_one()
            self._dense = index_added(rows, [keys], (ARRAY, ...), self._shape).data
            self._rows = [rows.data[:0]]
        elif self._dense is None:
            keys, rows = self.coalesced()
            of = backend.of(rows)
            with of.at(of.device_of(rows)):
                self._dense = of.xp.zeros(self._shape, rows.dtype)
                parts.put_rows(self._dense, keys, rows)
            self._rows = [rows[:0]]
        return self._dense

    @data.setter
    def data(self, array: Array) -> None:
        self._note_use()
        self._dense = array

    @property
    def _any(self) -> Array:
        return self._rows[0] if self._dense is None else self._dense

    @property
    def in_program(self) -> bool:
        """Whether it is rows that are values of a program."""
        return self._captured and self._dense is None

    @property
    def is_recorded(self) -> bool:
        """Whether it is rows that are values of a program that is being captured."""
        return self.in_program and is_captured()

    def as_one(self) -> tuple[Tensor, Tensor]:
        """The numbers and the rows as tensors, by operations that a program records."""
        keys, rows = ([wrap(a, None) for a in arrays] for arrays in (self._keys, self._rows))
        return (keys[0], rows[0]) if len(keys) == 1 else (concat(keys), concat(rows))

    def for_update(self) -> tuple[Array, Array]:
        """The numbers of the rows, and the rows, for an update: see ``coalesced``.

        In a program that is being captured numbers may repeat, and rows are not added up.
        """
        if not self.is_recorded:
            return self.coalesced()
        keys, rows = self.as_one()
        return keys.data, rows.data

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the table."""
        return self._shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The element type."""
        return self._any.dtype

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self._shape)

    @property
    def size(self) -> int:
        """The number of elements of the whole."""
        return self._shape[0] * self._shape[1]

    @property
    def nbytes(self) -> int:
        """The bytes that the elements take: of the rows, or of the whole where that was made."""
        arrays = self._rows if self._dense is None else [self._dense]
        return sum(int(a.nbytes) for a in arrays)

    @property
    def device(self) -> str:
        """The device that holds the elements."""
        return backend.of(self._any).device_of(self._any)

    def __reduce__(self) -> Any:
        return type(self), (self._shape, *self.coalesced())

    def __deepcopy__(self, memo: dict[int, Any]) -> LazyGradient:
        return self.copied()

    # --- as rows ----------------------------------------------------------------------------------

    def coalesced(self) -> tuple[Array, Array]:
        """The numbers of the rows, sorted, and their sums, as arrays."""
        if self.is_recorded:
            for observer in current_mode().observers:
                observer.read(self, "which rows of a gradient there are")
        first = self._keys[0]
        if type(first) is np.ndarray:
            return self._sums(np)
        of = backend.of(first)
        with of.at(of.device_of(first)):
            return self._sums(of.xp)

    def _sums(self, xp: Any) -> tuple[Array, Array]:
        keys = self._keys[0]
        if self._dense is not None:
            there = (self._dense != 0).any(axis=1)
            there[keys[keys >= 0] if self._gaps else keys] = True
            keys = xp.flatnonzero(there)
            return keys, self._dense[keys]
        if not self._coalesced:
            self._note_use()
            rows = self._rows[0]
            if len(self._keys) > 1:
                keys, rows = xp.concatenate(self._keys), xp.concatenate(self._rows)
            if self._gaps:
                keep = keys >= 0
                keys, rows = keys[keep], rows[keep]
            keys, rows = sums_of_equals(xp, keys, rows)
            self._keys, self._rows, self._coalesced = [keys], [rows], True
        return self._keys[0], self._rows[0]

    def joined(self, other: LazyGradient) -> LazyGradient:
        """The sum of both, which stay as they are: not lazy any longer if one of the two is not."""
        found = self.copied(share=True)
        if isinstance(other, SparseGradient) and not isinstance(self, SparseGradient):
            found = SparseGradient(self._shape, self._keys[0], self._rows[0], self._captured)
            found._keys, found._rows, found._gaps = self._keys, self._rows, self._gaps
        found.append(other)
        return found

    def append(self, other: LazyGradient) -> None:
        """Add another, after what there is; none of it is dense yet."""
        if not other.is_recorded:
            other.coalesced()
        self._note_use()
        self._keys, self._rows = [*self._keys, *other._keys], [*self._rows, *other._rows]
        self._coalesced, self._gaps = False, self._gaps or other._gaps
        if not self.is_recorded and self.count > self._shape[0] + 2 * len(self._keys[0]):
            self.coalesced()

    @property
    def count(self) -> int:
        """How many rows are kept."""
        return sum(map(len, self._keys))

    def copied(self, share: bool = False) -> LazyGradient:
        """The same in memory of its own, unless the rows are to be shared."""
        found = type(self)(self._shape, self._keys[0], self._rows[0], self._captured)
        found._keys, found._rows = self._keys, self._rows
        found._coalesced, found._gaps = self._coalesced, self._gaps
        if not share:
            found._keys = [keys.copy() for keys in self._keys]
            found._rows = [rows.copy() for rows in self._rows]
            found._dense = None if self._dense is None else self._dense.copy()
        return found

    def make_dense(self) -> None:
        """Ask for the whole."""
        assert self.data is self._dense

    def _note_use(self) -> None:
        """See to it that a program does not take this for what it has made: it would go on to show
        what was in the rows."""
        if self._lent and not self._used:
            self._used = (self._rows[0], self._rows[0])

    @property
    def lent_rows(self) -> Array:
        """The rows that a program has lent."""
        return self._used[0] if self._used else self._rows[0]

    def shows(self, keys: Array, rows: Array) -> bool:
        """Whether it is what it was made as, of these arrays."""
        return not self._used and self._rows[0] is rows and self._keys[0] is keys

    @property
    def is_dense(self) -> bool:
        """Whether somebody has asked for the whole."""
        return self._dense is not None


class SparseGradient(LazyGradient):
    """The gradient that ``nn.Embedding(..., sparse=True)`` leaves in ``weight.grad``.

    ``indices`` and ``values`` are the numbers of the rows that were looked up, sorted, and the sums
    of their gradients. As a tensor, of the shape of the table, it is dense when it is read.
    """

    __slots__ = ()

    @property
    def indices(self) -> Tensor:
        """The numbers of the rows that were looked up, or are not zero: sorted, each once."""
        return wrap(self.coalesced()[0], None)

    @property
    def values(self) -> Tensor:
        """The rows of ``indices``, (m, length)."""
        return wrap(self.coalesced()[1], None)

    @staticmethod
    def of(gradient: Tensor) -> SparseGradient:
        """A dense ``gradient`` as the rows that are not zero; it shares its memory."""
        xp = backend.of(gradient.data).xp
        found = SparseGradient(gradient.shape, xp.zeros(0, np.int64), gradient.data[:0])
        found.data = gradient.data
        return found

    def __repr__(self) -> str:
        return f"SparseGradient(shape={self.shape}, indices={self.indices}, values={self.values})"


def sums_of_equals(xp: Any, keys: Array, rows: Array) -> tuple[Array, Array]:
    """The different numbers, sorted, and the sums of their rows."""
    if xp is np:
        if rows.dtype in dtypes.HALVES:
            keys, sums = parts.sums_by_sorted_key(keys, rows.astype(np.float32))
            return keys, sums.astype(rows.dtype)
        return parts.sums_by_sorted_key(keys, rows)
    found, places = xp.unique(keys, return_inverse=True)
    shape = (len(found), rows.shape[1])
    return found, index_added(rows, [places.reshape(-1)], (ARRAY, ...), shape)


def in_rows(gradient: Tensor) -> TypeGuard[LazyGradient]:
    """Whether a gradient is kept as rows, and nobody has asked for it as a whole."""
    return isinstance(gradient, LazyGradient) and not gradient.is_dense


def in_memory(gradients: Iterable[Tensor]) -> list[Tensor]:
    """The gradients, and of those that are rows the rows: what is written to them counts.

    For what multiplies or limits gradients element by element, or adds up what is not zero.
    """
    if is_captured():
        return list(gradients)
    return [wrap(g.coalesced()[1], None) if in_rows(g) else g for g in gradients]


parts.LazyGradient, parts.SparseGradient = LazyGradient, SparseGradient
