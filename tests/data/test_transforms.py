"""Transforms of batches: what each does, and that variations follow from seed, epoch and batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tensorgrad.data import DataLoader, TensorDataset
from tensorgrad.data.transforms import (
    Compose,
    GaussianNoise,
    Normalize,
    OneHot,
    RandomFlip,
    RandomShift,
    TargetRange,
    Transform,
)
from tensorgrad.errors import ShapeError, TensorgradError

IMAGES = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)


def random() -> np.random.Generator:
    return np.random.default_rng(0)


def test_normalize() -> None:
    """Mean 0 and variance 1 over the data it was made of; features that do not vary stay."""
    x = np.random.default_rng(0).normal(3, 2, (50, 4)).astype(np.float32)
    x[:, 2] = 7
    found = Normalize.of(x).apply(x, random())
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(found.std(0), [1, 1, 0, 1], atol=1e-5)
    pixels = np.array([[0, 255]], np.uint8)
    np.testing.assert_allclose(Normalize(0, 255).apply(pixels, random()), [[0, 1]])
    with pytest.raises(TensorgradError, match="above 0"):
        Normalize([0, 1], [1, 0])


def test_flip() -> None:
    """Some examples are mirrored, all of them with p = 1, along the axis asked for."""
    np.testing.assert_array_equal(RandomFlip(1).apply(IMAGES, random()), IMAGES[:, :, ::-1])
    np.testing.assert_array_equal(RandomFlip(1, axis=0).apply(IMAGES, random()), IMAGES[:, ::-1])
    np.testing.assert_array_equal(RandomFlip(0).apply(IMAGES, random()), IMAGES)
    many = np.tile(IMAGES[:1], (1000, 1, 1))
    flipped = (RandomFlip().apply(many, random()) != many).any(axis=(1, 2)).mean()
    assert 0.45 < flipped < 0.55
    with pytest.raises(ShapeError, match="no axis"):
        RandomFlip(1, axis=-3).apply(IMAGES, random())


@pytest.mark.parametrize("shape", [(40, 3, 4), (40, 2, 3, 4)])
def test_shift(shape: tuple[int, ...]) -> None:
    """Each image is somewhere within the bounds; all channels move together."""
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    found = RandomShift(1, fill=9).apply(x, random())
    assert found.shape == shape
    padded = np.pad(x, [(0, 0)] * (len(shape) - 2) + [(1, 1)] * 2, constant_values=9)
    places = set()
    for i in range(len(x)):
        there = [
            (r, c)
            for r in range(3)
            for c in range(3)
            if (padded[i][..., r : r + 3, c : c + 4] == found[i]).all()
        ]
        assert len(there) == 1
        places.add(there[0])
    assert len(places) == 9
    np.testing.assert_array_equal(RandomShift(0).apply(x, random()), x)
    with pytest.raises(ShapeError, match="height, width"):
        RandomShift(1).apply(x.reshape(40, -1), random())


def test_noise() -> None:
    """Of the standard deviation asked for; the dtype stays."""
    x = np.ones((100, 100), np.float32)
    found = GaussianNoise(0.5).apply(x, random())
    assert found.dtype == np.float32
    assert abs(found.mean() - 1) < 0.02
    assert abs(found.std() - 0.5) < 0.02


def test_targets() -> None:
    """0 and 1, or the .1 and .9 of the lectures (E2)."""
    labels = np.array([2, 0])
    assert OneHot(3).apply(labels, random()).tolist() == [[0, 0, 1], [1, 0, 0]]
    np.testing.assert_allclose(TargetRange(2).apply(np.array([1]), random()), [[0.1, 0.9]])
    with pytest.raises(ShapeError, match="from 0 to 1; got 0 to 2"):
        OneHot(2).apply(labels, random())
    with pytest.raises(ShapeError, match="integers"):
        OneHot(2).apply(np.array([0.5]), random())


def test_compose_and_plain_functions() -> None:
    """One after the other; a function of the parts may stand among them."""

    def doubled(x: Any, t: Any) -> tuple[Any, Any]:
        return x * 2, t

    both = Compose(doubled, Normalize(1, 2), OneHot(2))
    x, t = both((np.ones((1, 2), np.float32), np.array([1])), random())
    assert x.tolist() == [[0.5, 0.5]]
    assert t.tolist() == [[0, 1]]


class Drawn(Transform):
    """Replaces the input by a random number for each example."""

    def apply(self, x: Any, random: np.random.Generator) -> Any:
        return random.random((len(x), 1))


def test_variations_follow_from_the_seed() -> None:
    """Other batches and epochs, other variations; a resumed loader and workers see the same."""
    data = TensorDataset(np.zeros((10, 1)), np.arange(10))

    def epochs(loader: DataLoader, n: int = 2) -> list[list[float]]:
        return [[v for x, _ in loader for v in x.numpy().ravel().tolist()] for _ in range(n)]

    def loader(**options: Any) -> DataLoader:
        return DataLoader(data, 3, True, seed=5, transform=Drawn(), **options)

    expected = epochs(loader())
    assert len({*expected[0], *expected[1]}) == 20
    assert epochs(loader()) == expected
    assert epochs(loader(workers=3)) == expected
    broken_off = loader()
    batches = iter(broken_off)
    next(batches)
    resumed = DataLoader(data, 3, True, seed=9, transform=Drawn(), workers=1)
    resumed.load_state_dict(broken_off.state_dict())
    assert epochs(resumed, 1)[0] == expected[0][3:]


def test_a_transform_without_apply() -> None:
    """A transform that defines nothing says so."""
    with pytest.raises(NotImplementedError, match="does not define apply"):
        Transform().apply(IMAGES, random())
