"""Embedding, EmbeddingBag and their functions: all options against PyTorch."""

from __future__ import annotations

import itertools
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from sampler import host

import tensorgrad as tg
from tensorgrad import Tensor, nn
from tensorgrad.errors import DtypeError, ShapeError

F = nn.functional
OFFSETS = [0, 0, 2, 5, 5, 9, 12]


def both(weight: Any) -> tuple[Tensor, Any]:
    torch: Any = pytest.importorskip("torch")
    return Tensor(weight, requires_grad=True), torch.tensor(weight, requires_grad=True)


def compare(ours: Tensor, theirs: Any, weights: list[tuple[Tensor, Any]], rng: Any) -> None:
    """Values and gradients, those of PyTorch made dense."""
    torch: Any = pytest.importorskip("torch")
    np.testing.assert_allclose(host(ours), theirs.detach().numpy(), rtol=1e-12, atol=1e-14)
    g = rng.standard_normal(ours.shape)
    ours.backward(Tensor(g))
    theirs.backward(torch.tensor(g))
    for a, b in weights:
        assert a.grad is not None
        right = b.grad.to_dense() if b.grad.is_sparse else b.grad
        np.testing.assert_allclose(host(a.grad), right.numpy(), rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(host(a), b.detach().numpy(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    "options",
    [
        {"padding_idx": 3},
        {"padding_idx": -2, "scale_grad_by_freq": True},
        {"max_norm": 1.5},
        {"max_norm": 2.0, "norm_type": 1.0, "padding_idx": 0},
        {"max_norm": 0.7, "norm_type": float("inf")},
        {"sparse": True},
        {"sparse": True, "padding_idx": 5, "max_norm": 1.0},
    ],
    ids=str,
)
def test_embedding_like_torch(options: dict[str, Any], rng: np.random.Generator) -> None:
    torch: Any = pytest.importorskip("torch")
    shapes: list[tuple[int, ...]] = [(40,), (3, 4), (0,), ()]
    if len(options) == 3:
        shapes.pop()  # there PyTorch fails
    for shape in shapes:
        x, y = both(rng.standard_normal((7, 20)))
        indices = rng.integers(0, 7, shape)
        ours = F.embedding(Tensor(indices), x, **options)
        with torch.no_grad():
            copy = y.clone()
        theirs = torch.nn.functional.embedding(torch.tensor(indices), y, **options)
        compare(ours, theirs, [(x, y)], rng)
        assert ("max_norm" in options and indices.size > 0) == (not torch.equal(copy, y))


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_like_torch(mode: str, rng: np.random.Generator) -> None:
    torch: Any = pytest.importorskip("torch")
    for padding, last, weighted, sparse in itertools.product(
        (None, 2, -7), (False, True), (False, True), (False, True)
    ):
        if (weighted and mode != "sum") or (sparse and mode == "max"):
            continue
        options: dict[str, Any] = {"mode": mode, "padding_idx": padding, "sparse": sparse}
        options["include_last_offset"] = last
        for offsets in (OFFSETS, None, OFFSETS[:1] + OFFSETS[-1:]):
            x, y = both(np.round(rng.standard_normal((7, 3)), 1))
            indices = rng.integers(0, 7, (12,) if offsets else (4, 3))
            pairs = [(x, y)]
            mine, other = dict(options), dict(options)
            if offsets is None:
                mine["include_last_offset"] = other["include_last_offset"] = False
            else:
                mine["offsets"] = Tensor(offsets)
                other["offsets"] = torch.tensor(offsets)
            if weighted:
                pairs.append(both(rng.standard_normal(indices.shape)))
                mine["per_sample_weights"], other["per_sample_weights"] = pairs[1]
            ours = F.embedding_bag(Tensor(indices), x, **mine)
            theirs = torch.nn.functional.embedding_bag(torch.tensor(indices), y, **other)
            compare(ours, theirs, pairs if ours.size else [], rng)


def test_scaled_bags(rng: np.random.Generator) -> None:
    """As the sum of what is looked up one by one. (PyTorch 2.13 gives others.)"""
    found = []
    indices, table = Tensor(rng.integers(0, 7, (4, 6))), rng.standard_normal((7, 3))
    g = Tensor(rng.standard_normal((4, 3)))
    for bags in (True, False):
        x = Tensor(table, requires_grad=True)
        if bags:
            y = F.embedding_bag(indices, x, scale_grad_by_freq=True, mode="sum", max_norm=1.0)
        else:
            y = F.embedding(indices, x, scale_grad_by_freq=True, max_norm=1.0).sum(axis=1)
        y.backward(g)
        assert x.grad is not None
        found.append((host(y), host(x.grad)))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


def test_largest_of_equals_and_of_nan() -> None:
    """The first has the gradient; NaN is the largest; a bag of padding gives zeros."""
    table = np.array([[1.0, np.nan], [1.0, 5.0], [0.0, np.nan]])
    for indices, offsets in (
        (Tensor([[0, 1], [1, 0], [2, 2]]), None),
        (Tensor([0, 1, 1, 0, 2, 2]), Tensor([0, 2, 4])),
    ):
        x = Tensor(table, requires_grad=True)
        y = F.embedding_bag(indices, x, offsets, mode="max", padding_idx=2)
        np.testing.assert_array_equal(host(y), [[1, np.nan], [1, np.nan], [0, 0]])
        y.backward(Tensor([[1.0, 10.0], [100.0, 1000.0], [1e4, 1e5]]))
        assert x.grad is not None
        np.testing.assert_array_equal(host(x.grad), [[1, 1010], [100, 0], [0, 0]])


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32])
def test_duplicates_of_16_bits_are_added_in_float32(dtype: Any) -> None:
    """2,000 times 0.125 would stay at 256 in float16 and at 32 in bfloat16."""
    x = Tensor(np.zeros((3, 40)), dtype=dtype, requires_grad=True)
    y = F.embedding(Tensor([1] * 4000), x, padding_idx=0)
    y.backward(tg.full(y.shape, 0.125, dtype=dtype))
    assert x.grad is not None
    assert x.grad.dtype == dtype
    np.testing.assert_array_equal(host(x.grad)[1].astype(np.float64), 500.0)


def test_second_gradients_pass_the_padding(rng: np.random.Generator) -> None:
    """The gradient is linear in what comes in, without the row of the padding."""
    x = Tensor(rng.standard_normal((4, 2)), requires_grad=True)
    y = F.embedding(Tensor([0, 1, 1, 3]), x, padding_idx=1, sparse=True)
    (g,) = tg.autograd.grad(y.square().sum(), x, create_graph=True)
    (second,) = tg.autograd.grad(g.square().sum(), x)
    wanted = 8.0 * host(x)
    wanted[[1, 2]] = 0.0
    np.testing.assert_allclose(host(second), wanted, rtol=1e-12, atol=1e-14)


# --- the modules ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Embedding", "EmbeddingBag"])
def test_modules_like_torch(name: str, rng: np.random.Generator) -> None:
    torch: Any = pytest.importorskip("torch")
    table = rng.standard_normal((6, 3)).astype(np.float32)
    options: dict[str, Any] = {"padding_idx": 2, "max_norm": 1.0}
    if name == "EmbeddingBag":
        options |= {"mode": "sum"}
    ours, theirs = getattr(nn, name)(6, 3, **options), getattr(torch.nn, name)(6, 3, **options)
    assert not host(ours.weight)[2].any()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    loaded = [
        getattr(nn, name).from_pretrained(Tensor(table), freeze=False, **options),
        getattr(torch.nn, name).from_pretrained(torch.tensor(table), freeze=False, **options),
    ]
    indices = rng.integers(0, 6, (4, 3))
    a, b = loaded[0](Tensor(indices)), loaded[1](torch.tensor(indices))
    np.testing.assert_allclose(host(a), b.detach().numpy(), rtol=1e-6)
    assert loaded[0].weight.requires_grad
    assert loaded[0].num_embeddings == 6


def test_pretrained_vectors_are_shared_and_draw_nothing() -> None:
    table = tg.ones((4, 2))
    tg.manual_seed(3)
    wanted = tg.random.normal((2,)).tolist()
    tg.manual_seed(3)
    layer = nn.Embedding.from_pretrained(table, padding_idx=-1, sparse=True)
    assert layer.weight.data is table.data
    assert not layer.weight.requires_grad
    assert layer.padding_idx == 3
    assert layer.sparse
    assert repr(layer) == "Embedding(num_embeddings=4, embedding_dim=2, padding_idx=3, sparse=True)"
    assert tg.random.normal((2,)).tolist() == wanted
    with pytest.raises(ShapeError, match="a row for each number"):
        nn.Embedding.from_pretrained(tg.ones(3))


def test_check_and_summary() -> None:
    model = nn.Sequential(nn.EmbeddingBag(9, 4), nn.Linear(4, 2))
    assert model.check(tg.zeros((5, 7), dtype=tg.int64)) == (5, 2)
    assert model.summary((2, 7), dtype="int64").parameters == 36 + 10
    with pytest.raises(ShapeError, match="must hold integers"):
        model.check((5, 7))
    with pytest.raises(ShapeError, match="a bag in each row"):
        model.check(tg.zeros(5, dtype=tg.int64))


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda t: F.embedding(t.float(), tg.ones((3, 2))), DtypeError, "must be a tensor of int"),
        (lambda t: F.embedding(t, tg.ones(3)), ShapeError, "must have two axes"),
        (lambda t: F.embedding(t, tg.ones((3, 2)), 3), ValueError, "padding_idx must be one of 3"),
        (lambda t: F.embedding(t + 3, tg.ones((3, 2))), IndexError, "out of bounds"),
        (
            lambda t: F.embedding(t, tg.ones((3, 2)), scale_grad_by_freq=True, sparse=True),
            ValueError,
            "needs dense gradients",
        ),
        (lambda t: F.embedding(t, tg.ones((3, 2)), max_norm=-1), ValueError, "max_norm must be"),
        (lambda t: F.embedding_bag(t, tg.ones((3, 2))), ShapeError, "with offsets"),
        (
            lambda t: F.embedding_bag(t, tg.ones((3, 2)), Tensor([1])),
            ValueError,
            "begin with 0, never fall",
        ),
        (
            lambda t: F.embedding_bag(t, tg.ones((3, 2)), Tensor([0, 9])),
            ValueError,
            "end at 2 or before",
        ),
        (
            lambda t: F.embedding_bag(t, tg.ones((3, 2)), [0], mode="mean", per_sample_weights=t),
            ValueError,
            'are for mode "sum"',
        ),
        (
            lambda t: F.embedding_bag(
                t, tg.ones((3, 2)), [0], mode="sum", per_sample_weights=tg.ones(3)
            ),
            ShapeError,
            "the shape of the input",
        ),
        (lambda t: F.embedding_bag(t, tg.ones((3, 2)), mode="min"), ValueError, '"sum", "mean"'),
        (
            lambda t: nn.EmbeddingBag(3, 2, mode="max", sparse=True),
            ValueError,
            "has no sparse gradients",
        ),
        (lambda t: nn.Embedding(3, 2, norm_type=0), ValueError, "norm_type must be positive"),
    ],
)
def test_what_is_refused(call: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        call(Tensor([0, 1]))


def test_in_programs(rng: np.random.Generator) -> None:
    """Tables, padding and bags in a compiled step, trained as eagerly."""
    indices = [Tensor(rng.integers(0, 9, (6, 3))) for _ in range(4)]
    start = rng.standard_normal((9, 4)).astype(np.float32)

    def train(compiled: bool) -> Any:
        table, bag = nn.Embedding(9, 4, padding_idx=1), nn.EmbeddingBag(9, 4, mode="mean")
        for layer in (table, bag):
            layer.weight.detach().copy_(Tensor(start))
        optimizer = tg.optim.Adam([table.weight, bag.weight], lr=0.1)

        def step(i: Tensor) -> Tensor:
            optimizer.zero_grad()
            loss = (tg.tanh(table(i)).sum(axis=1) * bag(i)).sum()
            loss.backward()
            optimizer.step()
            return loss.detach()

        run = tg.compile(step) if compiled else step
        return [run(i).item() for i in indices]

    np.testing.assert_allclose(train(True), train(False), rtol=1e-5)


def test_classes_are_counted() -> None:
    for count in (None, -1):
        assert F.one_hot(Tensor([0, 2, 1]), count).shape == (3, 3)
