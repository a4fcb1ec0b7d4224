"""E1: hand-written digits from the original IDX files, where they are there."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tensorgrad import nn, optim
from tensorgrad.cli import main
from tensorgrad.data import DataLoader, IdxFolder, TensorDataset, idx_folder
from tensorgrad.nn import functional
from tensorgrad.ops.random import default_generator
from tensorgrad.training import Trainer


def folder() -> Path:
    """Where MNIST may be: in $TENSORGRAD_TEST_DATA, or in a folder beside the repository."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    return Path(os.environ.get("TENSORGRAD_TEST_DATA", beside)) / "mnist"


pytestmark = pytest.mark.skipif(
    not folder().is_dir(),
    reason="no MNIST: put its four files into a folder mnist in $TENSORGRAD_TEST_DATA",
)


@cache
def mnist() -> IdxFolder:
    """The images and labels, read once."""
    return idx_folder(folder())


def parts(examples: int) -> tuple[TensorDataset, TensorDataset]:
    """So many training examples, and all test examples, with pixels in [0, 1]."""
    data = mnist()

    def part(images: np.ndarray, labels: np.ndarray) -> TensorDataset:
        return TensorDataset(images.reshape(len(images), -1) / np.float32(255), labels)

    return (
        part(data.train_images[:examples], data.train_labels[:examples]),
        part(data.test_images, data.test_labels),
    )


def sigmoid_network() -> tuple[nn.Module, optim.Optimizer]:
    """784-30-10, trained by gradient descent with momentum."""
    default_generator.seed(1)
    model = nn.Sequential(nn.Linear(784, 30), nn.Sigmoid(), nn.Linear(30, 10))
    return model, optim.SGD(model.parameters(), lr=0.5, momentum=0.5)


def relu_network(hidden: int, dropout: float) -> tuple[nn.Module, optim.Optimizer]:
    """784-hidden-10, trained by Adam."""
    default_generator.seed(1)
    model = nn.Sequential(
        nn.Linear(784, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, 10)
    )
    return model, optim.Adam(model.parameters(), lr=1e-3)


def accuracy_after(
    network: tuple[nn.Module, optim.Optimizer], examples: int, epochs: int, batch_size: int
) -> float:
    """The share of the 10,000 test images that are classified correctly."""
    train, test = parts(examples)
    trainer = Trainer(*network, functional.cross_entropy)
    trainer.fit(DataLoader(train, batch_size, shuffle=True, seed=2), epochs=epochs)
    return trainer.evaluate(DataLoader(test, 1000))["accuracy"]


def test_files_are_mnist() -> None:
    """Counts, shapes and classes of the original."""
    data = mnist()
    assert data.train_images.shape == (60_000, 28, 28)
    assert data.train_images.dtype == np.uint8
    assert data.test_images.shape == (10_000, 28, 28)
    assert data.train_labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert np.bincount(data.test_labels)[[0, 9]].tolist() == [980, 1009]


def test_reduced_sigmoid() -> None:
    """A sixth of the images, two epochs. Batches so small that BLAS starts no threads for them."""
    assert accuracy_after(sigmoid_network(), 10_000, 2, 10) >= 0.89


def test_reduced_relu() -> None:
    """A sixth of the images, two epochs."""
    assert accuracy_after(relu_network(32, dropout=0.0), 10_000, 2, 10) >= 0.89


@pytest.mark.slow
def test_e1_sigmoid() -> None:
    """784-30-10 sigmoid: at least 95 %."""
    assert accuracy_after(sigmoid_network(), 60_000, 10, 32) >= 0.95


@pytest.mark.slow
def test_e1_relu() -> None:
    """A ReLU network: at least 98 %."""
    assert accuracy_after(relu_network(400, dropout=0.25), 60_000, 15, 64) >= 0.98


@pytest.mark.slow
def test_the_command_line_reaches_99_percent(tmp_path: Path) -> None:
    """By its defaults: a small convolutional network."""
    assert main(["train", "--data", str(folder()), "--out", str(tmp_path / "run")]) == 0
    assert json.loads((tmp_path / "run/result.json").read_text())["test_accuracy"] >= 0.99
