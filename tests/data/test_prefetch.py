"""Batches sent ahead to a GPU, on the stand-in for CuPy.

There a copy on a stream of its own is done as late as it may be: only when somebody waits for it,
and from what the source holds then. A missing wait leaves NaN in the batch, and pinned memory that
is filled again too early changes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from standin import cupy_standin
from standin.cupy_standin import log

import tensorgrad as tg
from tensorgrad.data import DataLoader, TensorDataset
from tensorgrad.data.datasets import DatasetError


@pytest.fixture(scope="module", autouse=True)
def installed() -> Iterator[Any]:
    with cupy_standin.installed() as module:
        yield module


def numbers(n: int) -> TensorDataset:
    x = np.arange(3 * n, dtype=np.float32).reshape(n, 3)
    return TensorDataset(x, np.arange(n))


@pytest.mark.parametrize("prefetch", [0, 1, 2, 5, 100])
@pytest.mark.parametrize("n", [1, 4, 9, 40])
def test_same_batches(n: int, prefetch: int) -> None:
    """The batches of the CPU, each in memory of its own, whatever is under way."""
    loader = DataLoader(numbers(n), 4, True, seed=1, device="cuda", prefetch=prefetch)
    reference = DataLoader(numbers(n), 4, True, seed=1, device="cpu")
    for _ in range(2):
        found = list(loader)
        for (x, t), (x0, t0) in zip(found, reference, strict=True):
            assert x.device == t.device == "cuda:0"
            np.testing.assert_array_equal(x.cpu().numpy(), x0.numpy())
            np.testing.assert_array_equal(t.cpu().numpy(), t0.numpy())


def test_read_one_by_one() -> None:
    """A batch is complete when it is handed out."""
    for x, t in DataLoader(numbers(40), 4, device="cuda", prefetch=2):
        assert x.cpu().numpy()[:, 0].tolist() == [3.0 * i for i in t.cpu().numpy()]


def test_no_waiting() -> None:
    """The host is not held up by copies that are done."""
    loader = DataLoader(numbers(40), 4, device="cuda", prefetch=1)
    log.clear()
    batches = iter(loader)
    assert len(list(batches)) == len(loader)
    assert not log.syncs


def test_breaking_off_waits_for_the_copies() -> None:
    """Pinned memory is not let go of while something is copied from it."""
    batches = iter(DataLoader(numbers(40), 4, device="cuda", prefetch=3))
    next(batches)
    log.clear()
    del batches
    assert log.syncs == {"event": 3}


def test_resumes() -> None:
    """What was sent ahead, and not handed out, counts as not done."""
    loader = DataLoader(numbers(20), 2, True, seed=3, device="cuda", prefetch=3)
    batches = iter(loader)
    next(batches)
    state = loader.state_dict()
    assert state["position"] == 1
    other = DataLoader(numbers(20), 2, True, seed=8, device="cuda")
    other.load_state_dict(state)
    rest = [t.cpu().numpy().tolist() for _, t in batches]
    assert [t.cpu().numpy().tolist() for _, t in other] == rest


def test_arrays_on_the_gpu_stay() -> None:
    """Only what lies on the host travels."""
    x = tg.arange(12, dtype=tg.float32, device="cuda").reshape(6, 2)
    log.clear()
    found = [b.cpu().numpy() for b, _ in DataLoader(TensorDataset(x, np.arange(6)), 2, prefetch=2,
                                                    device="cuda")]  # fmt: skip
    np.testing.assert_array_equal(np.concatenate(found), np.arange(12).reshape(6, 2))


def test_refuses_a_negative_number() -> None:
    with pytest.raises(DatasetError, match="prefetch must be a whole number from 0"):
        DataLoader(numbers(4), prefetch=-1)
