"""What can be trained on: arrays side by side, parts of them, and the digits that come along."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy import ndarray

from tensorgrad import backend
from tensorgrad.backend import is_array
from tensorgrad.data.idx import IdxError, read_idx
from tensorgrad.errors import ShapeError, TensorgradError
from tensorgrad.ops.random import Generator
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
        self.arrays: Arrays = tuple(_bare(array) for array in arrays)
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
        return tuple([array[indices] for array in self.arrays])


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
    columns = [[_bare(value) for value in column] for column in zip(*rows, strict=True)]
    for column in columns:
        kinds = {(value.shape, value.dtype) for value in column}
        if len(kinds) > 1:
            raise ShapeError(
                "examples of a batch must agree in shape and dtype; got "
                + " and ".join(f"{shape} {dtype}" for shape, dtype in sorted(kinds, key=str))
            )
    return tuple([backend.of(column[0]).xp.stack(column) for column in columns])


def _bare(data: Any) -> Any:
    """``data`` as a NumPy or CuPy array of a dtype tensors have, copied only if it must be."""
    if isinstance(data, Tensor):
        return data.data
    return Tensor(data, device=None if is_array(data) else "cpu", copy=None).data


def random_split(
    dataset: Dataset,
    lengths: Sequence[float],
    seed: int | Generator = 0,
    *,
    stratify: Any = None,
) -> list[Subset]:
    """Parts of a data set without common examples, chosen at random: train, validation, test.

    lengths: how many examples go into each part, which must sum to ``len(dataset)``; or fractions
        that sum to 1, as in ``(0.8, 0.1, 0.1)``, where each cut is rounded to an example.
    seed: the same seed gives the same parts; or a Generator to draw from.
    stratify: labels, one for each example; every part then holds the classes in about the
        proportion in which the whole does.

    Raises DatasetError if lengths or labels do not fit the data set.
    """
    n = len(dataset)
    bounds = _bounds(lengths, n)
    generator = seed if isinstance(seed, Generator) else Generator(seed)
    order: ndarray[Any, Any] = generator.permutation(n, device="cpu").data
    if stratify is not None:
        labels = np.asarray(_bare(stratify))
        if labels.shape != (n,):
            raise DatasetError(
                f"random_split: stratify must hold one label per example, shape ({n},); got "
                f"{labels.shape}"
            )
        order = order[_interleaved(labels[order])]
    return [Subset(dataset, order[a:b]) for a, b in itertools.pairwise(bounds)]


def _bounds(lengths: Sequence[float], n: int) -> list[int]:
    """The positions at which the parts begin, and n."""
    sums = list(itertools.accumulate(lengths, initial=0))
    if len(lengths) and all(x >= 0 for x in lengths):
        if sums[-1] == n and all(isinstance(x, int | np.integer) for x in lengths):
            return [int(x) for x in sums]
        if abs(sums[-1] - 1) < 1e-6:
            return [round(x * n) for x in sums]
    raise DatasetError(
        f"random_split: lengths must be numbers of examples that sum to {n}, or fractions that "
        f"sum to 1, as (0.8, 0.1, 0.1); got {tuple(lengths)}"
    )


def _interleaved(labels: ndarray[Any, Any]) -> ndarray[Any, Any]:
    """An order in which every run of examples holds the classes in proportion.

    Member k of a class of m is placed at (k + 1/2) / m of the way.
    """
    _, which, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    grouped = np.argsort(which, kind="stable")
    starts = np.cumsum(sizes) - sizes
    place = np.empty(len(labels))
    place[grouped] = (np.arange(len(labels)) - np.repeat(starts, sizes) + 0.5) / np.repeat(
        sizes, sizes
    )
    return np.argsort(place, kind="stable")


def digits() -> tuple[ndarray[Any, Any], ndarray[Any, Any]]:
    """The embedded handwritten digits: images uint8 [1797, 8, 8] of 0 to 16, labels int64 [1797].

    They are the test part of "Optical Recognition of Handwritten Digits" by E. Alpaydin and
    C. Kaynak (1998), UCI Machine Learning Repository, https://doi.org/10.24432/C50P49, licensed
    CC BY 4.0. Split into images and labels and stored as IDX files; nothing else was changed.
    """
    folder = Path(__file__).parent / "uci_digits"
    images = read_idx(folder / "digits-images-idx3-ubyte.gz")
    labels = read_idx(folder / "digits-labels-idx1-ubyte.gz")
    return images, labels.astype(np.int64)


class ImageFolder(NamedTuple):
    """The four arrays of a folder of IDX files: images [n, ...] and labels int64 [n]."""

    train_images: ndarray[Any, Any]
    train_labels: ndarray[Any, Any]
    test_images: ndarray[Any, Any]
    test_labels: ndarray[Any, Any]


def idx_folder(path: str | os.PathLike[str]) -> ImageFolder:
    """The images and labels of MNIST, or of any data set that comes in its four files.

    path: a folder with ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``,
        ``t10k-images-idx3-ubyte`` and ``t10k-labels-idx1-ubyte``, each also with a dot in place
        of the last-but-one hyphen (``train-images.idx3-ubyte``) and with ``.gz`` behind it.

    Images keep the type in the file (uint8 for MNIST, 0 to 255); labels become int64.

    Raises DatasetError naming all files that are missing, or counts that do not fit each other;
    IdxError for a damaged file.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise DatasetError(
            f"{folder}: {'not a folder' if folder.exists() else 'there is no such folder'}; give "
            "the folder that holds the four IDX files, as train-images-idx3-ubyte.gz"
        )
    stems = [f"{part}-{kind}" for part in ("train", "t10k") for kind in ("images", "labels")]
    found = [_find(folder, stem) for stem in stems]
    files = [file for file in found if file is not None]
    if len(files) < len(stems):
        missing = [f"{s}-{_suffix(s)}[.gz]" for s, f in zip(stems, found, strict=True) if not f]
        there = sorted(entry.name for entry in folder.iterdir())[:8]
        raise DatasetError(
            f"{folder}: missing {', '.join(missing)}; put them there. The folder holds "
            f"{', '.join(there) or 'nothing'}"
        )
    arrays: list[ndarray[Any, Any]] = []
    for images, labels in zip(files[::2], files[1::2], strict=True):
        arrays += _pair(images, labels)
    return ImageFolder(*arrays)


def _suffix(stem: str) -> str:
    return "idx3-ubyte" if stem.endswith("images") else "idx1-ubyte"


def _find(folder: Path, stem: str) -> Path | None:
    """The file of this name, in one of the forms in which it is distributed."""
    for separator in "-.":
        for ending in ("", ".gz"):
            path = folder / f"{stem}{separator}{_suffix(stem)}{ending}"
            if path.is_file():
                return path
    return None


def _pair(image_file: Path, label_file: Path) -> tuple[ndarray[Any, Any], ndarray[Any, Any]]:
    """The images and labels in two files, checked against each other."""
    images, labels = read_idx(image_file), read_idx(label_file)
    if images.ndim < 2:
        raise IdxError(
            image_file,
            f"images must have an axis for the examples and at least one more; got {images.shape}",
            "check that images and labels are not mixed up",
        )
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise IdxError(
            label_file,
            f"labels must be integers of shape (n,); got {labels.dtype} of shape {labels.shape}",
            "check that images and labels are not mixed up",
        )
    if len(images) != len(labels):
        raise DatasetError(
            f"{image_file} holds {len(images):,} images but {label_file} {len(labels):,} labels; "
            "take both from the same data set"
        )
    return images, labels.astype(np.int64)
