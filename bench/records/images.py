"""MNIST and Fashion-MNIST: images of 28 x 28 in ten classes, until enough of the test set is right.

Every network is trained by Adam for a number of epochs given before, whose rate rises over the
first quarter and falls to zero over the rest; in the last quarter it is tested after each quarter
of an epoch, until the goal is reached.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.records.clock import Clock
from bench.records.contestants import Array, Maker, Training

PIXELS, CLASSES = 28 * 28, 10
TESTED = 125  # images of the test set at once: about as many as are trained on


class Recipe(NamedTuple):
    """What is trained, and how.

    folder: of the data. network: "dense" or "convolutional". goal: the share of the test set.
    """

    folder: str
    network: str
    goal: float
    batch: int
    rate: float
    epochs: int


def _read(file: Path, offset: int) -> Array:
    return np.frombuffer(gzip.decompress(file.read_bytes()), np.uint8, offset=offset)


def data(folder: Path) -> tuple[Array, Array, Array, Array]:
    """Images uint8 (N, 784) and labels int64 (N,), of training and of test."""
    found = []
    for part in ("train", "t10k"):
        found.append(_read(folder / f"{part}-images-idx3-ubyte.gz", 16).reshape(-1, PIXELS))
        labels = _read(folder / f"{part}-labels-idx1-ubyte.gz", 8)
        found.append(labels.astype(np.int64))
    return found[0], found[1], found[2], found[3]


def _drawn(draw: np.random.Generator, shapes: dict[str, tuple[int, ...]]) -> dict[str, Array]:
    """Weights of He and others (2015); biases are zero."""
    return {
        name: (
            np.zeros(shape) if len(shape) == 1
            else draw.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        ).astype(np.float32)
        for name, shape in shapes.items()
    }  # fmt: skip


DENSE = {"w1": (256, PIXELS), "b1": (256,), "w2": (CLASSES, 256), "b2": (CLASSES,)}
CONVOLUTIONAL = {
    "k1": (16, 1, 3, 3), "c1": (16,), "k2": (32, 16, 3, 3), "c2": (32,),
    "w1": (128, 32 * 49), "b1": (128,), "w2": (CLASSES, 128), "b2": (CLASSES,),
}  # fmt: skip
SHAPES: dict[str, dict[str, tuple[int, ...]]] = {"dense": DENSE, "convolutional": CONVOLUTIONAL}


def _layers(ops: Any, p: Any, x: Any) -> Any:
    return ops.linear(ops.relu(ops.linear(x, p["w1"], p["b1"])), p["w2"], p["b2"])


def dense(ops: Any, p: Any, x: Any) -> Any:
    """(N, 784) uint8 -> (N, 10)."""
    return _layers(ops, p, ops.floats(x) * (1 / 128) - 0.25)


def convolutional(ops: Any, p: Any, x: Any) -> Any:
    """(N, 784) uint8 -> (N, 10), by two convolutions that are pooled and two dense layers."""
    x = ops.images((ops.floats(x) * (1 / 128) - 0.25).reshape(-1, 1, 28, 28))
    for k in "12":
        x = ops.conv2d(x, p["k" + k], p["c" + k], padding=1)
        x = ops.max_pool2d(ops.relu(x), 2)
    return _layers(ops, p, ops.flatten(x))


NETWORKS: dict[str, Callable[..., Any]] = {"dense": dense, "convolutional": convolutional}


def rate(recipe: Recipe, done: float) -> float:
    """The rate after this share of all steps."""
    return recipe.rate * min(4 * done, (1 - done) * 4 / 3)


def _orders(n: int, batch: int, seed: int) -> Iterator[Array]:
    """The numbers of the examples of each step; the last few of an epoch are left out."""
    draw = np.random.default_rng(seed)
    while True:
        order = draw.permutation(n)
        for first in range(0, n - batch + 1, batch):
            yield order[first : first + batch]


def training_of(make: Maker, network: str, seed: int) -> Training:
    """One of the networks, at its beginning."""
    output = NETWORKS[network]

    def loss(ops: Any, p: Any, x: Any, t: Any) -> Any:
        return ops.cross_entropy(output(ops, p, x), t)

    return make(_drawn(np.random.default_rng(seed), SHAPES[network]), loss, output)


def run(make: Maker, folder: Path, seed: int, clock: Clock, recipe: Recipe) -> dict[str, Any]:
    """Train until the goal is reached, or to the end."""
    images, labels, test_images, test_labels = data(folder / recipe.folder)
    training = training_of(make, recipe.network, seed)

    def score() -> float:
        right = 0
        for first in range(0, len(test_images), TESTED):
            part = slice(first, first + TESTED)
            found = training.outputs(test_images[part]).argmax(1)
            right += int((found == test_labels[part]).sum())
        return right / len(test_images)

    each = len(images) // recipe.batch
    steps, orders = recipe.epochs * each, _orders(len(images), recipe.batch, seed)
    first_loss, reached = 0.0, 0.0
    for k in range(steps):
        chosen = next(orders)
        value = training.step(rate(recipe, k / steps), images[chosen], labels[chosen])
        if not k:
            first_loss = float(value)
        if k + 1 == steps or (k + 1 > steps * 3 // 4 and (k + 1) % max(1, each // 4) == 0):
            reached = score()
            if reached >= recipe.goal:
                break
    return {
        "reached": clock.read() if reached >= recipe.goal else None,
        "score": reached,
        "first_loss": first_loss,
        "steps": k + 1,
        "parts": {},
    }
