"""The DataLoader: one path for every batch size, orders that can be repeated (D2, D3)."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorgrad.data import DataLoader, DatasetError, Subset, TensorDataset
from tensorgrad.errors import DeviceError, ShapeError
from tensorgrad.ops.random import Generator, default_generator
from tensorgrad.tensor import Tensor


def numbers(n: int) -> TensorDataset:
    """The numbers from 0 to n - 1, and their squares."""
    return TensorDataset(np.arange(n), np.arange(n, dtype=np.float32) ** 2)


def epoch(loader: DataLoader) -> list[list[int]]:
    """The numbers of one pass, batch by batch."""
    return [x.tolist() for x, _ in loader]


@given(n=st.integers(1, 40), size=st.integers(1, 45), shuffle=st.booleans(), drop=st.booleans())
def test_every_example_once(n: int, size: int, shuffle: bool, drop: bool) -> None:
    """Each pass goes through all examples (or all whole batches) once."""
    if drop and size > n:
        with pytest.raises(DatasetError, match="smaller batch_size"):
            DataLoader(numbers(n), size, shuffle, drop)
        return
    loader = DataLoader(numbers(n), size, shuffle, drop, seed=1)
    batches = epoch(loader)
    assert len(batches) == len(loader) == (n // size if drop else -(-n // size))
    seen = [x for batch in batches for x in batch]
    assert len(set(seen)) == len(seen) == (n // size * size if drop else n)
    assert all(len(batch) == size for batch in batches[:-1])
    if not shuffle:
        assert seen == list(range(len(seen)))


@pytest.mark.parametrize("size", ["full", None])
def test_full_batch(size: Any) -> None:
    """One batch with everything."""
    loader = DataLoader(numbers(7), size, shuffle=True, seed=3)
    assert len(loader) == 1
    assert [len(batch) for batch in epoch(loader)] == [7]


def test_parts_stay_together() -> None:
    """The arrays of a data set are put into the same order."""
    for x, y in DataLoader(numbers(50), 8, shuffle=True, seed=0):
        assert isinstance(x, Tensor)
        assert y.dtype == np.float32
        np.testing.assert_array_equal(y.numpy(), x.numpy().astype(np.float32) ** 2)


def test_orders_follow_the_seed() -> None:
    """The same seed, the same orders; each epoch another one, and nothing else has a say."""
    one, two = (DataLoader(numbers(100), 10, shuffle=True, seed=9) for _ in range(2))
    first = [epoch(one), epoch(one)]
    default_generator.normal((5,))
    assert [epoch(two), epoch(two)] == first
    assert first[0] != first[1]
    assert epoch(DataLoader(numbers(100), 10, shuffle=True, seed=10)) != first[0]


def test_seed_may_be_a_generator_or_left_out() -> None:
    """One number is drawn from it when the loader is made."""
    one, two = (epoch(DataLoader(numbers(30), 30, True, seed=Generator(4))) for _ in range(2))
    assert one == two
    before = default_generator.state()
    try:
        default_generator.seed(11)
        first = epoch(DataLoader(numbers(30), 30, True))
        second = epoch(DataLoader(numbers(30), 30, True))
        default_generator.seed(11)
        assert epoch(DataLoader(numbers(30), 30, True)) == first != second
    finally:
        default_generator.set_state(before)


@given(n=st.integers(1, 30), size=st.integers(1, 9), done=st.integers(0, 40))
def test_resumes_anywhere(n: int, size: int, done: int) -> None:
    """A state saved after any number of batches goes on with the next one, over the epochs."""

    def stream(loader: DataLoader) -> Any:
        while True:
            for x, _ in loader:
                yield x.tolist()

    loader = DataLoader(numbers(n), size, shuffle=True, seed=2)
    running = stream(loader)
    list(islice(running, done))
    state = loader.state_dict()
    other = DataLoader(numbers(n), size, shuffle=True, seed=77)
    other.load_state_dict(state)
    assert list(islice(stream(other), 12)) == list(islice(running, 12))


def test_breaking_off_ends_the_epoch() -> None:
    """A new loop is a new epoch with another order, unless a state was loaded."""
    loader = DataLoader(numbers(40), 4, shuffle=True, seed=5)
    orders = [epoch(loader) for _ in range(2)]
    loader = DataLoader(numbers(40), 4, shuffle=True, seed=5)
    next(iter(loader))
    assert loader.epoch == 0
    assert loader.state_dict()["position"] == 1
    assert epoch(loader) == orders[1]
    assert loader.epoch == 2


@pytest.mark.parametrize(
    "other",
    [
        DataLoader(numbers(9), 3, True, seed=0),
        DataLoader(numbers(8), 4, True, seed=0),
        DataLoader(numbers(8), 3, False),
        DataLoader(numbers(8), 3, True, drop_last=True, seed=0),
    ],
)
def test_refuses_a_state_of_another_loader(other: DataLoader) -> None:
    """And keeps its own."""
    before = other.state_dict()
    with pytest.raises(DatasetError, match="make the loader as the one that was saved"):
        other.load_state_dict(DataLoader(numbers(8), 3, True, seed=0).state_dict())
    assert other.state_dict() == before


def test_batches_are_in_memory_of_their_own() -> None:
    """What a user does to a batch does not reach the data set."""
    x = np.arange(6.0)
    for shuffle in (False, True):
        for (batch,) in DataLoader(TensorDataset(x), 6, shuffle, seed=0):
            batch *= 0.0
    assert x.tolist() == [0, 1, 2, 3, 4, 5]


def test_any_sequence_of_examples_is_a_data_set() -> None:
    """Examples are stacked; a number counts as an example of one part."""
    pairs = [(np.full(2, i, np.float32), i) for i in range(5)]
    (x, y), *_ = DataLoader(pairs, 3)
    assert x.shape == (3, 2)
    assert x.dtype == np.float32
    assert y.tolist() == [0, 1, 2]
    assert [b.tolist() for (b,) in DataLoader(Subset(range(10, 15), [4, 0, 2]), 2)] == [
        [14, 10],
        [12],
    ]
    with pytest.raises(ShapeError, match="agree in shape"):
        list(DataLoader([(np.zeros(2),), (np.zeros(3),)], 2))


def test_mini_batch_gradient_is_the_mean() -> None:
    """Weighted by their sizes, the batches' mean gradients sum to that of the whole set (D2)."""
    rng = np.random.default_rng(0)
    x, t = rng.normal(size=(23, 3)), rng.normal(size=23)
    w = Tensor(rng.normal(size=3), requires_grad=True)

    def gradients(size: Any) -> tuple[Any, int]:
        total: Any = 0.0
        count = 0
        for a, b in DataLoader(TensorDataset(x, t), size, shuffle=True, seed=1):
            w.grad = None
            (((a * w).sum(axis=1) - b) ** 2).mean().backward()
            assert w.grad is not None
            total = total + w.grad.numpy() * len(b)
            count += 1
        return total / 23, count

    whole, one = gradients("full")
    for size, count in ((1, 23), (5, 5), (23, 1)):
        found, batches = gradients(size)
        assert batches == count
        np.testing.assert_allclose(found, whole, rtol=1e-12)
    assert one == 1


@pytest.mark.parametrize("size", [0, -1, 2.5, "all"])
def test_refuses_batch_sizes(size: Any) -> None:
    """Whole numbers from 1."""
    with pytest.raises(DatasetError, match="batch_size"):
        DataLoader(numbers(3), size)


def test_refuses_an_empty_set_and_an_unknown_device() -> None:
    """Both when the loader is made, not when it is used."""
    with pytest.raises(DatasetError, match="no examples"):
        DataLoader(TensorDataset(np.zeros((0, 2))))
    with pytest.raises(DeviceError):
        DataLoader(numbers(3), device="gpu")


def test_batches_are_on_the_device(device: str) -> None:
    """Wherever the data set is; arrays on a GPU stay there unless told otherwise."""
    on = DataLoader(numbers(9), 4, shuffle=True, seed=0, device=device)
    kept = TensorDataset(Tensor(np.arange(9), device=device))
    stay = DataLoader(kept, 4, shuffle=True, seed=0)
    host = DataLoader(numbers(9), 4, shuffle=True, seed=0)
    for (a, _), (b,), (c, _) in zip(on, stay, host, strict=True):
        assert a.device.partition(":")[0] == b.device.partition(":")[0] == device
        assert a.tolist() == b.tolist() == c.tolist()
