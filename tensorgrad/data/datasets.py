"""What can be trained on: arrays side by side, parts of data sets, and several in a row."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy import ndarray

from tensorgrad import backend
from tensorgrad.backend import is_array
from tensorgrad.errors import ShapeError, TensorgradError
from tensorgrad.tape import wrap
from tensorgrad.tensor import Tensor

Arrays = tuple[Any, ...]  # NumPy or CuPy arrays


class DatasetError(TensorgradError, ValueError):
    """A data set is missing a part, or its parts do not fit each other."""


class Dataset(Protocol):
    """What a DataLoader needs: a length, and the example at a position.

    An example is a tuple of tensors, arrays or numbers (or one of them), of which each has the
    same shape and dtype in every example. A data set that also has ``take(indices)``, which gives
    the examples at integer positions [n] as a tuple of arrays [n, ...] in memory of their own, is
    read a batch at a time, and not example by example.
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

    def take(self, indices: Any) -> Arrays:
        """The examples at ``indices`` (integers [n]) of the subset, as arrays [n, ...]."""
        return take(self.dataset, self.indices[indices])


class ConcatDataset:
    """Several data sets, one after the other: the examples of the first come first.

    datasets: at least one; their examples must agree in number of parts, shapes and dtypes, which
        is noticed where a batch contains examples of two that do not.

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

    def take(self, indices: Any) -> Arrays:
        """The examples at ``indices`` (integers [n]), as arrays [n, ...]."""
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
        back = np.argsort(order)
        return tuple([_joined(parts)[back] for parts in zip(*found, strict=True)])

    def _start(self, which: int) -> int:
        return int(self._ends[which - 1]) if which else 0


def _joined(parts: Any) -> Any:
    """Arrays of several data sets in one. Raises ShapeError unless they agree."""
    kinds = {(part.shape[1:], part.dtype) for part in parts}
    if len(kinds) > 1:
        raise ShapeError(
            "ConcatDataset: examples must agree in shape and dtype; got "
            + " and ".join(f"{shape} {dtype}" for shape, dtype in sorted(kinds, key=str))
        )
    return backend.of(parts[0]).xp.concatenate(parts)


def take(dataset: Dataset, indices: ndarray[Any, Any]) -> Arrays:
    """The examples of any data set at ``indices`` (integers [n]), as a tuple of arrays [n, ...].

    Raises ShapeError if the examples cannot be stacked.
    """
    at_once = getattr(dataset, "take", None)
    if at_once is not None:
        found: Arrays = at_once(indices)
        return found
    rows = [dataset[int(i)] for i in indices]
    rows = [tuple(row) if isinstance(row, tuple | list) else (row,) for row in rows]
    columns = [[bare(value) for value in column] for column in zip(*rows, strict=True)]
    for column in columns:
        kinds = {(value.shape, value.dtype) for value in column}
        if len(kinds) > 1:
            raise ShapeError(
                "examples of a batch must agree in shape and dtype; got "
                + " and ".join(f"{shape} {dtype}" for shape, dtype in sorted(kinds, key=str))
            )
    return tuple([backend.of(column[0]).xp.stack(column) for column in columns])


def bare(data: Any) -> Any:
    """``data`` as a NumPy or CuPy array of a dtype tensors have, copied only if it must be."""
    if isinstance(data, Tensor):
        return data.data
    return Tensor(data, device=None if is_array(data) else "cpu", copy=None).data
