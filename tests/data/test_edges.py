"""Data at its edges: rare classes, distributions of samplers, keys, several data sets in a row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tensorgrad.data import (
    ConcatDataset,
    DataLoader,
    StratifiedSampler,
    TensorDataset,
    WeightedSampler,
    k_fold,
    random_split,
    read_csv,
    read_npz,
    table_examples,
    transforms,
)
from tensorgrad.ops.random import Generator

# --- parts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", [(0.2, 0.8), (0.1, 0.9), (0.05, 0.95), (0.25, 0.75)])
def test_rare_classes_are_not_all_in_a_small_first_part(lengths: tuple[float, float]) -> None:
    """Twenty classes of one example each beside a frequent one: none has more than its share."""
    labels = np.array([0] * 180 + list(range(1, 21)))
    first, _ = random_split(TensorDataset(labels), lengths, 1, stratify=labels)
    rare = int((labels[first.indices] > 0).sum())
    assert rare <= 20 * lengths[0] + 1


@pytest.mark.parametrize("stratified", [True, False])
def test_parts_are_drawn_at_random(stratified: bool) -> None:
    """Within a class too: another seed gives other examples, and each example goes anywhere."""
    labels = np.repeat([0, 1], 20)
    data = TensorDataset(labels)
    often = np.zeros(40)
    for seed in range(200):
        first, _ = random_split(data, (0.5, 0.5), seed, stratify=labels if stratified else None)
        often[first.indices] += 1
    assert 60 < often.min() < often.max() < 140
    folds = {
        tuple(k_fold(data, 4, seed, stratify=labels if stratified else None)[0][1].indices.tolist())
        for seed in range(20)
    }
    assert len(folds) == 20


@pytest.mark.parametrize("stratified", [True, False])
@pytest.mark.parametrize(("n", "k"), [(10, 3), (11, 5), (4, 4), (9, 2)])
def test_folds_train_on_all_the_rest(n: int, k: int, stratified: bool) -> None:
    labels = np.arange(n) % 2
    seen: list[int] = []
    for train, validation in k_fold(
        TensorDataset(labels), k, 3, stratify=labels if stratified else None
    ):
        assert sorted([*train.indices, *validation.indices]) == list(range(n))
        assert len(validation) in (n // k, -(-n // k))
        seen += validation.indices.tolist()
    assert sorted(seen) == list(range(n))


@pytest.mark.parametrize("sizes", [(2, 3, 4), (1, 1, 1, 5), (3, 1, 2, 1)])
def test_each_example_of_several_data_sets(sizes: tuple[int, ...]) -> None:
    """One at a time, from either end, and all at once."""
    n = sum(sizes)
    parts = np.split(np.arange(n), np.cumsum(sizes)[:-1])
    data = ConcatDataset(*(TensorDataset(part) for part in parts))
    for i in range(-n, n):
        (example,) = data[i]
        assert int(example.item()) == i % n
    np.testing.assert_array_equal(data.take(np.arange(n)[::-1])[0], np.arange(n)[::-1])


# --- samplers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("replacement", [True, False])
def test_first_draws_are_in_proportion_to_the_weights(replacement: bool) -> None:
    weights = np.array([1.0, 0.0, 2.0, 7.0])
    sampler = WeightedSampler(weights, 1, replacement)
    generator = Generator(5)
    drawn = np.array([sampler.order(generator)[0] for _ in range(6000)])
    np.testing.assert_allclose(np.bincount(drawn, minlength=4) / 6000, weights / 10, atol=0.015)


def test_second_draws_without_replacement() -> None:
    """After the first is gone, in proportion to what is left."""
    sampler = WeightedSampler([1.0, 2.0, 7.0], 2, replacement=False)
    generator = Generator(6)
    orders = np.array([sampler.order(generator) for _ in range(6000)])
    wanted = np.zeros((3, 3))
    for i, a in enumerate((0.1, 0.2, 0.7)):
        for j, b in enumerate((0.1, 0.2, 0.7)):
            wanted[i, j] = 0 if i == j else a * b / (1 - a)
    found = np.zeros((3, 3))
    np.add.at(found, (orders[:, 0], orders[:, 1]), 1 / 6000)
    np.testing.assert_allclose(found, wanted, atol=0.02)


def test_classes_balanced_and_batches_stratified() -> None:
    """As many of each class; and other examples first in each epoch."""
    labels = np.array([0] * 90 + [1] * 9 + [2])
    drawn = WeightedSampler.balanced(labels, 6000).order(Generator(1))
    np.testing.assert_allclose(np.bincount(labels[drawn]) / 6000, 1 / 3, atol=0.03)
    even = np.repeat([0, 1], 50)
    sampler, generator = StratifiedSampler(even), Generator(2)
    firsts = [sampler.order(generator)[:10] for _ in range(30)]
    assert all(even[first].sum() == 5 for first in firsts)
    assert len(np.unique(np.concatenate(firsts))) > 80


# --- the loader -----------------------------------------------------------------------------------


def noisy(seed: int, workers: int, processes: bool) -> DataLoader:
    data = TensorDataset(np.zeros((8, 3), np.float32))
    return DataLoader(
        data, 4, seed=seed, transform=transforms.GaussianNoise(1.0), workers=workers,
        processes=processes,
    )  # fmt: skip


def epoch(loader: DataLoader) -> list[Any]:
    return [x.numpy() for (x,) in loader]


@pytest.mark.parametrize(("workers", "processes"), [(0, False), (2, False), (2, True)])
def test_a_used_loader_takes_the_key_of_a_state(workers: int, processes: bool) -> None:
    """Its workers are running already, with the key that it had."""
    one, other = noisy(1, workers, processes), noisy(2, workers, processes)
    first, before = epoch(one), epoch(other)
    assert not np.array_equal(first, before)
    other.load_state_dict(one.state_dict())
    np.testing.assert_array_equal(epoch(other), epoch(one))


def test_variations_and_orders_differ_from_epoch_to_epoch() -> None:
    loader = noisy(1, 0, False)
    one, two = epoch(loader), epoch(loader)
    assert not np.array_equal(one, two)
    assert not np.array_equal(one[0], one[1])
    shuffled = DataLoader(TensorDataset(np.arange(20)), 20, shuffle=True, seed=1)
    orders = {tuple(epoch(shuffled)[0].tolist()) for _ in range(10)}
    assert len(orders) == 10


def test_shifts_go_everywhere_and_differ_within_a_batch() -> None:
    """Each of the 5 x 5 places is as likely."""
    image = np.zeros((600, 5, 5), np.float32)
    image[:, 2, 2] = 1
    moved = transforms.RandomShift(2).apply(image, np.random.default_rng(0))
    assert moved.sum() == 600
    counts = moved.sum(0)
    assert counts.min() > 8
    assert counts.max() < 50


def test_features_are_normalized_each_by_itself() -> None:
    x = np.random.default_rng(0).standard_normal((50, 3)) * [1.0, 10.0, 0.0] + [5.0, -3.0, 2.0]
    scaled = transforms.Normalize.of(x).apply(x.astype(np.float32), np.random.default_rng(0))
    np.testing.assert_allclose(scaled.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(scaled.std(0), [1, 1, 0], atol=1e-5)


# --- files ----------------------------------------------------------------------------------------


def test_arrays_of_either_order_of_memory(tmp_path: Path) -> None:
    x = np.arange(24.0).reshape(2, 3, 4)
    path = tmp_path / "x.npz"
    np.savez(path, c=x, f=np.asfortranarray(x), big=x.astype(">f4"))
    found = read_npz(path)
    for name in ("c", "f", "big"):
        np.testing.assert_array_equal(found[name], x)


def test_numbered_classes_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    """2 comes before 10."""
    labels = np.tile(np.arange(12), 10)
    path = tmp_path / "t.csv"
    path.write_text("x,class\n" + "".join(f"{i / 7},{label}\n" for i, label in enumerate(labels)))
    examples = table_examples(read_csv(path))
    assert examples.classes == tuple(str(i) for i in range(12))
    np.testing.assert_array_equal(examples.targets, labels)
