"""What can be trained on: arrays side by side, parts of data sets, and several in a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy import ndarray

from tensorgrad import backend
from tensorgrad.backend import is_array
from tensorgrad.data.batches import are_texts, like
from tensorgrad.errors import ShapeError, TensorgradError
from tensorgrad.tape import wrap
from tensorgrad.tensor import Tensor

Arrays = tuple[Any, ...]  # NumPy or CuPy arrays


class DatasetError(TensorgradError, ValueError):
    """A data set is missing a part, or its parts do not fit each other."""


class Dataset(Protocol):
    """What a DataLoader needs: a length, and the example at a position.

    An example is a tensor, an array, a number or a text, or a tuple, a named tuple or a dict of
    such, nested at will; what is an array has the same shape and dtype in every example. A batch
    has the structure of an example (a tuple of one part, if that is no tuple or dict), with arrays
    [n, ...] in it, and lists of n texts. A list of numbers is an array.

    A data set that also has ``take(indices)``, which gives the batch of the examples at integer
    positions [n], of arrays in memory of their own, is read a batch at a time, and not example by
    example.
    """

    def __len__(self) -> int:
        """The number of examples."""

    def __getitem__(self, index: int, /) -> Any:
        """Example number ``index``."""


class TensorDataset:
    """Arrays of equal length side by side: example i is row i of each.

    arrays: tensors, NumPy or CuPy arrays, or nested sequences, each [n, ...]. They are kept where
        they are and not copied; a tensor's history is left behind.

    ``dataset[i]`` is the tuple of tensors of example i; ``dataset[2:9]`` and
    ``dataset[[3, 1, 4]]`` are tuples of tensors [n, ...], which share memory where NumPy does.

    Raises ShapeError if there is no array, one of them is a single number, or lengths differ.
    """

    def __init__(self, *arrays: Any) -> None:
        if not arrays:
            raise ShapeError("TensorDataset needs at least one array, as in TensorDataset(x, y)")
        self.arrays: Arrays = tuple(bare(array) for array in arrays)
        shapes = [array.shape for array in self.arrays]
        if not all(shapes) or len({shape[0] for shape in shapes}) > 1:
            raise ShapeError(
                "TensorDataset: all arrays must have the same length along their first axis, one "
                f"row for each example; got shapes {', '.join(map(str, shapes))}"
            )

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        return tuple([wrap(array[index], None) for array in self.arrays])

    def take(self, indices: Any) -> Arrays:
        """The rows at ``indices`` (integers [n]) of each array, copied."""
        # Of NumPy's two ways the first is quicker; CuPy's wants indices on the GPU.
        return tuple(
            [a.take(indices, 0) if type(a) is ndarray else a[indices] for a in self.arrays]
        )


class Subset:
    """The examples of ``dataset`` at ``indices`` (integers [n]), in that order.

    Raises IndexError if an index is not a position in the data set.
    """

    def __init__(self, dataset: Dataset, indices: Any) -> None:
        self.dataset = dataset
        self.indices: ndarray[Any, Any] = np.array(indices, np.int64)
        n = len(dataset)
        if self.indices.ndim != 1:
            raise ShapeError(f"Subset: indices must have shape (n,); got {self.indices.shape}")
        if self.indices.size and not (-n <= self.indices.min() and self.indices.max() < n):
            raise IndexError(
                f"Subset: indices must lie below {n}, the length of the data set; got "
                f"{self.indices.min()} to {self.indices.max()}"
            )

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[int(self.indices[index])]

    def take(self, indices: Any) -> Any:
        """The examples at ``indices`` (integers [n]) of the subset, as a batch."""
        return take(self.dataset, self.indices[indices])


class ConcatDataset:
    """Several data sets, one after the other: the examples of the first come first.

    datasets: at least one; their examples must agree in structure, shapes and dtypes, which is
        noticed where a batch contains examples of two that do not.

    Raises DatasetError if there is none.
    """

    def __init__(self, *datasets: Dataset) -> None:
        if not datasets:
            raise DatasetError(
                "ConcatDataset needs at least one data set, as in ConcatDataset(a, b)"
            )
        self.datasets = datasets
        self._ends: ndarray[Any, Any] = np.cumsum([len(dataset) for dataset in datasets])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Any:
        n = len(self)
        if not -n <= index < n:
            raise IndexError(f"example {index} of a data set of {n}")
        index %= n
        which = int(np.searchsorted(self._ends, index, side="right"))
        return self.datasets[which][index - self._start(which)]

    def take(self, indices: Any) -> Any:
        """The examples at ``indices`` (integers [n]), as a batch."""
        n = len(self)
        positions = np.asarray(indices, np.int64)
        if not positions.size:
            return take(self.datasets[0], positions)
        if not (-n <= positions.min() and positions.max() < n):
            raise IndexError(
                f"ConcatDataset: indices must lie below {n}, the number of examples; got "
                f"{positions.min()} to {positions.max()}"
            )
        positions = positions % n
        which = np.searchsorted(self._ends, positions, side="right")
        order = np.argsort(which, kind="stable")
        there, starts = np.unique(which[order], return_index=True)
        groups = np.split(order, starts[1:])
        found = [
            take(self.datasets[i], positions[group] - self._start(i))
            for i, group in zip(there.tolist(), groups)
        ]
        if len(found) == 1:
            return found[0]
        return _joined(found, np.argsort(order))

    def _start(self, which: int) -> int:
        return int(self._ends[which - 1]) if which else 0


def _joined(parts: list[Any], order: ndarray[Any, Any]) -> Any:
    """Batches of several data sets in one, put into ``order``. Raises ShapeError unless alike."""
    first = parts[0]
    if isinstance(first, tuple | dict):
        inside = [_inside(part) for part in parts]
        if any(type(part) is not type(first) for part in parts) or len(set(inside)) > 1:
            raise ShapeError(
                "ConcatDataset: examples must consist of the same parts; got "
                + " and ".join(sorted({f"{type(p).__name__} of {_inside(p)}" for p in parts}))
            )
        joined = [_joined([part[at] for part in parts], order) for at in inside[0]]
        if isinstance(first, tuple):
            return like(first, joined)
        return dict(zip(first, joined, strict=True))
    if any(are_texts(part) for part in parts):
        texts = [text for part in parts for text in part]
        return [texts[i] for i in order]
    kinds = {(part.shape[1:], part.dtype) for part in parts}
    if len(kinds) > 1:
        raise ShapeError(
            "ConcatDataset: examples must agree in shape and dtype; got "
            + " and ".join(f"{shape} {dtype}" for shape, dtype in sorted(kinds, key=str))
        )
    return backend.of(first).xp.concatenate(parts)[order]


def _inside(part: Any) -> tuple[Any, ...]:
    """The keys of a dict, or the positions in a tuple."""
    return tuple(part) if isinstance(part, dict) else tuple(range(len(part)))


def take(dataset: Dataset, indices: ndarray[Any, Any]) -> Any:
    """The examples of any data set at ``indices`` (integers [n]), as a batch.

    Raises DatasetError for what cannot be an example, or if examples differ in structure;
    ShapeError if they do in shape or dtype.
    """
    at_once = getattr(dataset, "take", None)
    if at_once is not None:
        found = at_once(indices)
        if isinstance(found, tuple | dict):
            return found
        if isinstance(found, list):
            return tuple(found)
        raise DatasetError(
            f"{type(dataset).__name__}.take() must return the parts of a batch, as a tuple of "
            f"arrays or a dict; got {_named(found)}"
        )
    rows = [dataset[int(i)] for i in indices]
    if not all(isinstance(row, tuple | list | Mapping) for row in rows):
        if any(isinstance(row, tuple | list | Mapping) for row in rows):
            _refuse_unlike(rows, indices, "")
        rows = [(row,) for row in rows]
    return _stacked(rows, indices, "")


_WHAT = (
    "An example is a tensor, an array, a number or a text, or a tuple or dict of such. Change what "
    "the data set returns, or leave the example out with Subset(data, positions)"
)


def _stacked(rows: Sequence[Any], indices: ndarray[Any, Any], where: str) -> Any:
    """One part of a batch, of that part of the examples. ``where`` it is, for messages."""
    first = rows[0]
    if isinstance(first, str | bytes):
        if not all(isinstance(row, str | bytes) for row in rows):
            _refuse_unlike(rows, indices, where)
        return list(rows)
    if isinstance(first, Mapping):
        if any(not isinstance(row, Mapping) or row.keys() != first.keys() for row in rows):
            _refuse_unlike(rows, indices, where)
        return {
            key: _stacked([row[key] for row in rows], indices, f"{where}[{key!r}]") for key in first
        }
    if isinstance(first, tuple | list) and not (where and _is_numbers(first)):
        if any(not isinstance(row, tuple | list) or len(row) != len(first) for row in rows):
            _refuse_unlike(rows, indices, where)
        parts = [
            _stacked(part, indices, f"{where}[{i}]")
            for i, part in enumerate(zip(*rows, strict=True))
        ]
        return like(first, parts) if isinstance(first, tuple) else tuple(parts)
    arrays = [_example_array(row, i, where) for row, i in zip(rows, indices)]
    kinds = {(array.shape, array.dtype) for array in arrays}
    if len(kinds) > 1:
        raise ShapeError(
            "examples of a batch must agree in shape and dtype; got "
            + " and ".join(f"{shape} {dtype}" for shape, dtype in sorted(kinds, key=str))
            + (f" in part {where}" if where else "")
        )
    return backend.of(arrays[0]).xp.stack(arrays)


def _is_numbers(value: Any) -> bool:
    """Whether a list or tuple within an example is an array that is written out."""
    if isinstance(value, tuple | list):
        return not hasattr(value, "_fields") and all(map(_is_numbers, value))
    return isinstance(value, bool | int | float | np.number | np.bool_)


def _example_array(value: Any, number: Any, where: str) -> Any:
    if value is None:
        raise DatasetError(f"example {number}{_at(where)} is None. {_WHAT}")
    try:
        return bare(value)
    except (TypeError, ValueError) as error:
        raise DatasetError(
            f"example {number}{_at(where)} is {_named(value)}, which is no array: {error}. {_WHAT}"
        ) from error


def _refuse_unlike(rows: Sequence[Any], indices: ndarray[Any, Any], where: str) -> None:
    """Raise DatasetError for examples that differ in structure."""
    first = _described(rows[0])
    other, number = next(
        ((row, i) for row, i in zip(rows, indices) if _described(row) != first),
        (rows[-1], indices[-1]),
    )
    raise DatasetError(
        f"examples of a batch must consist of the same parts; example {indices[0]}{_at(where)} is "
        f"{first} and example {number} {_described(other)}. {_WHAT}"
    )


def _at(where: str) -> str:
    return f" at {where}" if where else ""


def _described(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"a {type(value).__name__} of {', '.join(map(repr, value))}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return _named(value)


def _named(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def bare(data: Any) -> Any:
    """``data`` as a NumPy or CuPy array of a dtype tensors have, copied only if it must be."""
    if isinstance(data, Tensor):
        return data.data
    return Tensor(data, device=None if is_array(data) else "cpu", copy=None).data
