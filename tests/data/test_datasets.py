"""Data sets: arrays side by side, splits without overlap, the digits, folders of IDX files."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tensorgrad.data
from tensorgrad.data import (
    DatasetError,
    IdxError,
    Subset,
    TensorDataset,
    digits,
    idx_folder,
    random_split,
    write_idx,
)
from tensorgrad.errors import ShapeError, TensorgradError
from tensorgrad.ops.random import Generator
from tensorgrad.tensor import Tensor


def test_tensor_dataset_rows() -> None:
    """Example i is row i of each array, as tensors."""
    x, y = np.arange(12.0).reshape(4, 3), np.array([3, 1, 0, 2])
    dataset = TensorDataset(x, Tensor(y))
    assert len(dataset) == 4
    row, label = dataset[2]
    assert isinstance(row, Tensor)
    assert row.tolist() == [6, 7, 8]
    assert label.item() == 0
    assert dataset[1:3][0].shape == (2, 3)
    assert [part.tolist() for part in dataset[[3, 0]]] == [[[9, 10, 11], [0, 1, 2]], [2, 3]]
    assert np.shares_memory(dataset.arrays[0], x)  # kept, not copied


def test_tensor_dataset_takes_lists() -> None:
    """Nested sequences get the dtypes that tensors made of them have."""
    dataset = TensorDataset([[1.0, 2.0], [3.0, 4.0]], [0, 1])
    assert [array.dtype for array in dataset.arrays] == [np.float32, np.int64]


@pytest.mark.parametrize(
    "arrays",
    [(), (np.zeros(3), np.zeros(4)), (np.zeros(3), np.float32(1))],
    ids=["no", "3-4", "0-d"],
)
def test_tensor_dataset_refuses(arrays: Any) -> None:
    """Lengths must agree; the message names the shapes."""
    with pytest.raises(ShapeError, match="TensorDataset"):
        TensorDataset(*arrays)


def test_subset() -> None:
    """Positions of positions."""
    dataset = TensorDataset(np.arange(10))
    inner = Subset(Subset(dataset, [9, 7, 5, 3]), [1, 3])
    assert len(inner) == 2
    assert inner[1][0].item() == 3
    assert inner.take(np.array([1, 0]))[0].tolist() == [3, 7]
    with pytest.raises(IndexError, match="below 10"):
        Subset(dataset, [10])
    with pytest.raises(ShapeError):
        Subset(dataset, [[1, 2]])


@given(
    n=st.integers(1, 200),
    weights=st.lists(st.integers(0, 10), min_size=1, max_size=5),
    seed=st.integers(0, 2**64 - 1),
)
def test_random_split_is_a_partition(n: int, weights: list[int], seed: int) -> None:
    """Every example is in exactly one part, and the parts are as long as they should be."""
    total = sum(weights) or 1
    fractions = [w / total for w in weights] if sum(weights) else [1.0]
    parts = random_split(TensorDataset(np.zeros(n)), fractions, seed)
    assert sorted(np.concatenate([part.indices for part in parts])) == list(range(n))
    assert all(abs(len(p) - f * n) < 1 + 1e-9 for p, f in zip(parts, fractions, strict=True))


def test_random_split_follows_the_seed() -> None:
    """The same seed or generator state gives the same parts, another one others."""
    dataset = TensorDataset(np.zeros(100))
    first, again, other = (
        [part.indices.tolist() for part in random_split(dataset, (60, 20, 20), seed)]
        for seed in (5, Generator(5), 6)
    )
    assert first == again != other


def test_random_split_stratified() -> None:
    """Every part holds the classes in proportion, up to one example."""
    labels = np.repeat([0, 1, 2], [100, 50, 10])
    parts = random_split(TensorDataset(labels), (0.7, 0.2, 0.1), 3, stratify=labels)
    for part, share in zip(parts, (0.7, 0.2, 0.1), strict=True):
        counts = np.bincount(labels[part.indices], minlength=3)
        assert np.abs(counts - share * np.array([100, 50, 10])).max() <= 1.5
    assert sorted(np.concatenate([part.indices for part in parts])) == list(range(160))


@pytest.mark.parametrize("lengths", [(), (0.5, 0.4), (1.5, -0.5), (3, 4), (11,), (float("nan"),)])
def test_random_split_refuses(lengths: Any) -> None:
    """Lengths must sum to the whole."""
    with pytest.raises(DatasetError, match="sum to"):
        random_split(TensorDataset(np.zeros(10)), lengths)
    with pytest.raises(DatasetError, match="one label per example"):
        random_split(TensorDataset(np.zeros(10)), (1.0,), stratify=[1, 2])


def test_digits() -> None:
    """1,797 images of 0 to 16, all ten classes, in less than 100 kB, with their attribution."""
    images, labels = digits()
    assert images.shape == (1797, 8, 8)
    assert images.dtype == np.uint8
    assert images.max() == 16
    assert labels.shape == (1797,)
    assert labels.dtype == np.int64
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert labels[:10].tolist() == list(range(10))
    assert images[0, 0].tolist() == [0, 0, 5, 13, 9, 1, 0, 0]
    folder = Path(tensorgrad.data.__file__).parent / "uci_digits"
    assert sum(file.stat().st_size for file in folder.iterdir()) < 100_000
    text = (folder / "ATTRIBUTION.txt").read_text()
    for word in ("Alpaydin", "Kaynak", "10.24432/C50P49", "CC BY 4.0", "changed"):
        assert word in text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small data set in four files, two of them compressed, in both styles of name."""
    images = np.arange(5 * 6, dtype=np.uint8).reshape(5, 2, 3)
    write_idx(tmp_path / "train-images-idx3-ubyte.gz", images)
    write_idx(tmp_path / "train-labels.idx1-ubyte", np.arange(5, dtype=np.uint8))
    write_idx(tmp_path / "t10k-images.idx3-ubyte.gz", images[:2])
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", np.arange(2, dtype=np.uint8))
    return tmp_path


def test_idx_folder(folder: Path) -> None:
    """All four arrays, whatever the style of the names."""
    found = idx_folder(folder)
    assert found.train_images.shape == (5, 2, 3)
    assert found.train_images.dtype == np.uint8
    assert found.test_labels.tolist() == [0, 1]
    assert found.test_labels.dtype == np.int64


def test_idx_folder_lists_all_that_is_missing(folder: Path) -> None:
    """One message, not one after the other."""
    (folder / "train-images-idx3-ubyte.gz").unlink()
    (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DatasetError) as caught:
        idx_folder(folder)
    for name in ("train-images-idx3-ubyte[.gz]", "t10k-labels-idx1-ubyte[.gz]"):
        assert name in str(caught.value)
    assert "missing train-images" in str(caught.value)
    with pytest.raises(DatasetError, match="no such folder"):
        idx_folder(folder / "nowhere")
    with pytest.raises(DatasetError, match="not a folder"):
        idx_folder(folder / "train-labels.idx1-ubyte")


def test_idx_folder_checks_the_parts_against_each_other(folder: Path) -> None:
    """Counts that differ, and images in place of labels."""
    write_idx(folder / "train-labels.idx1-ubyte", np.arange(4, dtype=np.uint8))
    with pytest.raises(DatasetError, match=r"5 images .* 4 labels"):
        idx_folder(folder)
    shutil.copy(folder / "t10k-images.idx3-ubyte.gz", folder / "train-labels.idx1-ubyte")
    with pytest.raises(IdxError, match="mixed up"):
        idx_folder(folder)
    assert issubclass(IdxError, TensorgradError)
    assert issubclass(DatasetError, TensorgradError)
