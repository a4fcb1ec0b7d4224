"""The cross-entropy of a linear layer in pieces is that of all at once."""

from __future__ import annotations

import math
import tracemalloc
from typing import Any

import numpy as np
import pytest
from sampler import host

import tensorgrad as tg
from tensorgrad import Tensor, nn
from tensorgrad.errors import ShapeError
from tensorgrad.nn import functional as F  # noqa: N812

N, FEATURES, CLASSES = 7, 3, 5
LABELS = np.array([1, 4, 0, 2, 2, 3, 1])
OPTIONS: list[dict[str, Any]] = [
    {}, {"bias": True}, {"weight": True, "bias": True}, {"label_smoothing": 0.2},
    {"ignore_index": 2}, {"ignore_index": 2, "weight": True, "label_smoothing": 0.3},
    {"probabilities": True, "weight": True}, {"further": (2,), "bias": True},
    {"further": (2,), "ignore_index": 2, "weight": True},
    {"further": (2,), "probabilities": True},
]  # fmt: skip


def drawn(options: dict[str, Any], rng: np.random.Generator) -> tuple[list[Any], Any, Any]:
    """Input, weight and bias of the layer; targets; and the options of ``cross_entropy``."""
    further = options.get("further", ())
    x = rng.normal(size=(N, FEATURES))
    w = rng.normal(size=(CLASSES, *further, FEATURES))
    b = rng.normal(size=(CLASSES, *further)) if "bias" in options else None
    target: Any = np.broadcast_to(LABELS.reshape(-1, *(1,) * len(further)), (N, *further)).copy()
    if "probabilities" in options:
        p = rng.random((N, CLASSES, *further))
        target = p / p.sum(1, keepdims=True)
    kept = {k: v for k, v in options.items() if k in ("ignore_index", "label_smoothing")}
    if "weight" in options:
        kept["weight"] = rng.uniform(0.5, 2.0, CLASSES)
    return [x, w, b], target, kept


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("number", range(len(OPTIONS)))
def test_pieces_give_what_the_whole_gives(
    number: int, reduction: str, rng: np.random.Generator
) -> None:
    """Values, first and second gradients, against PyTorch."""
    torch: Any = pytest.importorskip("torch")
    given, target, options = drawn(OPTIONS[number], rng)
    mine = [None if a is None else Tensor(a, requires_grad=True) for a in given]
    other = [None if a is None else torch.tensor(a, requires_grad=True) for a in given]
    theirs = {k: torch.tensor(v) if k == "weight" else v for k, v in options.items()}
    ours: dict[str, Any] = {k: Tensor(v) if k == "weight" else v for k, v in options.items()}
    x, w, b = other
    logits = torch.einsum("ni,c...i->nc...", x, w) + (0 if b is None else b)
    z = torch.nn.functional.cross_entropy(
        logits, torch.tensor(target), reduction=reduction, **theirs
    )
    leaves, peers = [t for t in mine if t is not None], [t for t in other if t is not None]
    wanted = torch.autograd.grad((z * z).sum(), peers, create_graph=True)
    right = torch.autograd.grad(sum((g**2).sum() for g in wanted), peers)
    for rows in (None, 3, 1, N):
        y = F.linear_cross_entropy(
            mine[0], mine[1], Tensor(target), linear_bias=mine[2], reduction=reduction,
            rows=rows, **ours,
        )  # fmt: skip
        np.testing.assert_allclose(host(y), z.detach().numpy(), rtol=1e-10, atol=1e-14)
        first: Any = tg.autograd.grad((y * y).sum(), leaves, create_graph=True)
        for a, g in zip(first, wanted, strict=True):
            np.testing.assert_allclose(host(a), g.detach().numpy(), rtol=1e-8, atol=1e-10)
        total: Any = sum((g**2).sum() for g in first)
        for a, g in zip(tg.autograd.grad(total, leaves), right, strict=True):
            np.testing.assert_allclose(host(a), g.numpy(), rtol=1e-6, atol=1e-8)


def test_one_example_and_none_that_counts() -> None:
    x, w = Tensor([1.0, 2.0]), Tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    assert F.linear_cross_entropy(x, w, Tensor(2)).item() == pytest.approx(
        math.log(math.exp(1) + math.exp(2) + math.exp(3)) - 3
    )
    many = tg.ones((4, 2), requires_grad=True)
    loss = F.linear_cross_entropy(many, w, tg.zeros(4, dtype="int64"), ignore_index=0, rows=2)
    assert math.isnan(loss.item())
    loss.backward()
    assert many.grad is not None
    assert not host(many.grad).any()


def test_the_logits_of_the_batch_are_never_held(rng: np.random.Generator) -> None:
    """2,048 examples of 4,096 classes: 32 MiB of float32, and twice that with their gradients."""
    x = Tensor(rng.normal(size=(2048, 8)).astype(np.float32), requires_grad=True)
    w = Tensor(rng.normal(size=(4096, 8)).astype(np.float32), requires_grad=True)
    labels = Tensor(rng.integers(0, 4096, 2048))
    tracemalloc.start()
    try:
        F.linear_cross_entropy(x, w, labels, rows=128).backward()
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 16 << 20


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sums_of_16_bits_are_rounded_once(dtype: str, rng: np.random.Generator) -> None:
    x, w = (Tensor(rng.integers(-4, 5, s) / 4, dtype=dtype) for s in ((300, 4), (6, 4)))
    labels = Tensor(rng.integers(0, 6, 300))
    found = F.linear_cross_entropy(x, w, labels, reduction="sum", rows=7)
    assert str(found.dtype) == dtype
    exact = F.linear_cross_entropy(x.float(), w.float(), labels, reduction="sum")
    eps = 2.0**-10 if dtype == "float16" else 2.0**-7
    assert float(found.item()) == pytest.approx(float(exact.item()), rel=2 * eps)


def test_in_a_compiled_step(rng: np.random.Generator) -> None:
    x = Tensor(rng.normal(size=(6, 3)).astype(np.float32), requires_grad=True)
    w = Tensor(rng.normal(size=(4, 3)).astype(np.float32), requires_grad=True)
    labels = Tensor(rng.integers(0, 4, 6))

    def step(labels: Tensor) -> Tensor:
        x.grad = w.grad = None
        loss = F.linear_cross_entropy(x, w, labels, rows=2)
        loss.backward()
        return loss.detach()

    compiled = tg.compile(step)
    for _ in range(3):
        found = [host(compiled(labels)), host(x.grad), host(w.grad)]
        wanted = [host(step(labels)), host(x.grad), host(w.grad)]
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("further", [(), (2,)])
def test_the_module_has_pytorchs_parameters(
    further: tuple[int, ...], rng: np.random.Generator
) -> None:
    torch: Any = pytest.importorskip("torch")
    options: dict[str, Any] = {"out_features": further, "bias": True, "ignore_index": 2}
    ours = nn.LinearCrossEntropyLoss(FEATURES, CLASSES, **options, rows=2).double()
    theirs = torch.nn.LinearCrossEntropyLoss(FEATURES, CLASSES, **options).double()
    theirs.load_state_dict({k: torch.tensor(host(v)) for k, v in ours.state_dict().items()})
    x = rng.normal(size=(N, FEATURES))
    target = np.broadcast_to(LABELS.reshape(-1, *(1,) * len(further)), (N, *further)).copy()
    y, z = ours(Tensor(x), Tensor(target)), theirs(torch.tensor(x), torch.tensor(target))
    np.testing.assert_allclose(host(y), z.detach().numpy(), rtol=1e-10, atol=1e-14)
    y.backward()
    z.backward()
    for name, p in ours.named_parameters():
        wanted = dict(theirs.named_parameters())[name].grad.numpy()
        np.testing.assert_allclose(host(p.grad), wanted, rtol=1e-8, atol=1e-12)
    with pytest.raises(ValueError, match="num_classes must be a positive integer"):
        nn.LinearCrossEntropyLoss(3, 0)


def test_errors() -> None:
    with pytest.raises(ShapeError, match=r"got \(2, 3\) and \(4, 5\)"):
        F.linear_cross_entropy(tg.ones((2, 3)), tg.ones((4, 5)), Tensor([0, 1]))
    with pytest.raises(ShapeError, match=r"linear_bias must have shape \(4,\); got \(3,\)"):
        F.linear_cross_entropy(
            tg.ones((2, 3)), tg.ones((4, 3)), Tensor([0, 1]), linear_bias=tg.ones(3)
        )
    with pytest.raises(ShapeError, match="needs input with a batch"):
        F.linear_cross_entropy(tg.ones(3), tg.ones((4, 2, 3)), Tensor([0, 1]))
    with pytest.raises(ValueError, match="rows must be at least 1; got 0"):
        F.linear_cross_entropy(tg.ones((2, 3)), tg.ones((4, 3)), Tensor([0, 1]), rows=0)
    with pytest.raises(ValueError, match='"mean", "sum" or "none"'):
        F.linear_cross_entropy(tg.ones((2, 3)), tg.ones((4, 3)), Tensor([0, 1]), reduction="max")
