"""Connectionist temporal classification: against PyTorch, by the definition, in every form."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import Tensor, nn
from tensorgrad.autograd import grad, gradcheck, gradgradcheck
from tensorgrad.errors import DtypeError, ShapeError
from tensorgrad.nn import functional as F  # noqa: N812

RNG = np.random.Generator


class Drawn:
    """Logits and labels; the labels padded with rubbish, and one after another."""

    def __init__(self, rng: RNG, blank: int) -> None:
        self.steps, self.n = int(rng.integers(1, 9)), int(rng.integers(1, 5))
        self.classes, width = int(rng.integers(blank + 2, blank + 4)), int(rng.integers(0, 5))
        self.logits = rng.standard_normal((self.steps, self.n, self.classes)) * 2
        self.input_lengths = rng.integers(0, self.steps + 1, self.n)
        self.target_lengths = rng.integers(0, width + 1, self.n)
        labels = [c for c in range(self.classes) if c != blank]
        self.targets = rng.choice(labels, (self.n, width))
        rows = [row[:k] for row, k in zip(self.targets, self.target_lengths, strict=True)]
        self.joined = np.concatenate(rows).astype(np.int64)
        for row, k in zip(self.targets, self.target_lengths, strict=True):
            row[k:] = labels[0]


@pytest.mark.parametrize("blank", [0, 2])
@pytest.mark.parametrize("part", range(3))
def test_random_ones_like_pytorch(part: int, blank: int, rng: RNG) -> None:
    torch: Any = pytest.importorskip("torch")
    infinite = 0
    for k in range(20):
        d = Drawn(rng, blank)
        joined = bool(rng.integers(2)) and d.joined.size > 0
        targets = d.joined if joined else d.targets
        reduction, zero = ["mean", "sum", "none"][k % 3], bool(rng.integers(2))
        options: dict[str, Any] = {"blank": blank, "reduction": reduction, "zero_infinity": zero}
        x, z = Tensor(d.logits, requires_grad=True), torch.tensor(d.logits, requires_grad=True)
        y = F.ctc_loss(
            tg.log_softmax(x, axis=2), targets, d.input_lengths, d.target_lengths, **options
        )
        wanted = torch.nn.functional.ctc_loss(
            z.log_softmax(2), torch.tensor(targets), torch.tensor(d.input_lengths),
            torch.tensor(d.target_lengths), **options,
        )  # fmt: skip
        assert y.shape == tuple(wanted.shape)
        np.testing.assert_allclose(
            y.detach().numpy(), wanted.detach().numpy(), rtol=1e-11, atol=1e-14
        )
        infinite += int(np.isinf(y.detach().numpy()).any())
        y.sum().backward()
        wanted.sum().backward()
        assert x.grad is not None
        np.testing.assert_allclose(x.grad.numpy(), z.grad.numpy(), rtol=1e-9, atol=1e-12)
    assert infinite


def test_derivatives_to_the_second_order_in_every_form(rng: RNG) -> None:
    """Of logarithms that belong to no softmax, too."""
    for k in range(6):
        d = Drawn(rng, 1)
        d.target_lengths = np.minimum(d.target_lengths, d.input_lengths // 2)
        targets = d.targets
        if k % 2:
            rows = [row[:k] for row, k in zip(d.targets, d.target_lengths, strict=True)]
            targets = np.concatenate(rows).astype(np.int64)
        x = Tensor(d.logits, requires_grad=True)

        def f(x: Tensor, d: Drawn = d, targets: Any = targets) -> Tensor:
            return F.ctc_loss(x, targets, d.input_lengths, d.target_lengths, 1, "none")

        assert gradcheck(f, x)
        assert gradgradcheck(f, x)


def test_the_gradient_recorded_is_the_gradient(rng: RNG) -> None:
    """Infinite losses give NaN in both, or 0."""
    for _ in range(10):
        d = Drawn(rng, 0)
        for zero in (False, True):
            x = Tensor(d.logits, requires_grad=True)
            y = F.ctc_loss(
                x, d.targets, d.input_lengths, d.target_lengths, zero_infinity=zero, reduction="sum"
            )
            (plain,) = grad(y, x, retain_graph=True)
            (recorded,) = grad(y, x, create_graph=True)
            assert recorded.requires_grad
            np.testing.assert_allclose(
                plain.numpy(), recorded.detach().numpy(), rtol=1e-9, atol=1e-12
            )


def test_one_sequence_has_no_axis_of_examples(rng: RNG) -> None:
    x = Tensor(rng.standard_normal((6, 4)))
    rows = x.reshape(6, 1, 4)
    for reduction in ("mean", "sum", "none"):
        one = F.ctc_loss(x, [1, 2, 2], 6, 3, reduction=reduction)
        many = F.ctc_loss(rows, [[1, 2, 2]], [6], [3], reduction=reduction)
        assert one.shape == ()
        assert one.item() == many.sum().item()


def test_no_example_and_no_step() -> None:
    none = Tensor(np.zeros((3, 0, 4)))
    assert F.ctc_loss(none, np.zeros((0, 2), np.int64), [], [], reduction="none").shape == (0,)
    x = Tensor(np.zeros((0, 2, 3)), requires_grad=True)
    y = F.ctc_loss(x, [[1], [1]], [0, 0], [0, 1], reduction="none")
    assert y.tolist() == [0, math.inf]
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.shape == (0, 2, 3)


def test_long_sequences_keep_their_digits(rng: RNG) -> None:
    """In float32: the sum over 600 steps is made in float64."""
    x = rng.standard_normal((600, 2, 5)).astype(np.float32)
    targets = rng.integers(1, 5, (2, 40))
    found = []
    for dtype in ("float32", "float64"):
        a = Tensor(x, dtype=dtype, requires_grad=True)
        y = F.ctc_loss(a, targets, (600, 500), (40, 31), reduction="sum")
        y.backward()
        assert str(y.dtype) == dtype
        assert a.grad is not None
        found.append((y.item(), a.grad.numpy()))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("joined", [False, True])
def test_in_compiled_steps(joined: bool, rng: RNG) -> None:
    """Labels and lengths may be others in each call."""
    x = Tensor(rng.standard_normal((6, 2, 4)).astype(np.float32), requires_grad=True)

    def step(targets: Tensor, steps: Tensor, lengths: Tensor) -> Tensor:
        x.grad = None
        y = F.ctc_loss(tg.log_softmax(x, axis=2), targets, steps, lengths)
        y.backward()
        return y.detach()

    call = tg.compile(step)
    for targets, lengths in (([[1, 2], [3, 3]], [2, 2]), ([[3, 1], [2, 1]], [1, 2])):
        labels: Any = targets
        if joined:
            labels = [c for row, k in zip(targets, lengths) for c in row[:k]]
            labels += [1] * (4 - len(labels))
        given = Tensor(labels), Tensor([6, 5]), Tensor(lengths)
        wanted = step(*given).item()
        assert x.grad is not None
        gradient = x.grad.numpy().copy()
        for _ in range(2):
            assert call(*given).item() == pytest.approx(wanted, rel=1e-6)
            np.testing.assert_allclose(x.grad.numpy(), gradient, rtol=1e-5, atol=1e-7)
    assert call.captures == 1


def test_module(rng: RNG) -> None:
    x = Tensor(rng.standard_normal((5, 2, 3)))
    given: tuple[Any, Any, Any] = ([[1, 1], [2, 0]], [5, 1], [2, 2])
    for reduction in ("mean", "sum", "none"):
        loss = nn.CTCLoss(2, reduction, zero_infinity=True)
        wanted = F.ctc_loss(x, *given, blank=2, reduction=reduction, zero_infinity=True)
        assert loss(x, *given).tolist() == wanted.tolist()
    assert repr(loss) == "CTCLoss(reduction='none', blank=2, zero_infinity=True)"
    assert nn.CTCLoss()(x, *given).item() == F.ctc_loss(x, *given).item()


def test_errors() -> None:
    x = tg.zeros((3, 2, 4))
    with pytest.raises(ShapeError, match=r"\(T, N, C\) or \(T, C\); got \(3,\)"):
        F.ctc_loss(x[:, 0, 0], [1], 3, 1)
    with pytest.raises(ShapeError, match=r"targets must have shape \(2, S\) .* got \(3, 1\)"):
        F.ctc_loss(x, [[1], [1], [1]], [3, 3], [1, 1])
    with pytest.raises(ShapeError, match=r"target_lengths must have shape \(2,\); got \(1,\)"):
        F.ctc_loss(x, [[1], [1]], [3, 3], [1])
    with pytest.raises(DtypeError, match="input_lengths must be integers; got float32"):
        F.ctc_loss(x, [[1], [1]], [3.0, 3.0], [1, 1])
    with pytest.raises(IndexError, match="input_lengths must lie between 0 and 3"):
        F.ctc_loss(x, [[1], [1]], [3, 4], [1, 1])
    with pytest.raises(IndexError, match="ask for 2 labels; targets"):
        F.ctc_loss(x, [[1], [1]], [3, 3], [1, 2])
    with pytest.raises(IndexError, match="ask for 3 labels in all; targets"):
        F.ctc_loss(x, [1, 1], [3, 3], [1, 2])
    with pytest.raises(IndexError, match="must not be negative"):
        F.ctc_loss(x, [[1], [1]], [3, 3], [1, -1])
    with pytest.raises(IndexError, match=r"between 0 and 3, .* one is 4"):
        F.ctc_loss(x, [[1], [4]], [3, 3], [1, 1])
    with pytest.raises(ValueError, match="blank must lie between 0 and 3; got 4"):
        F.ctc_loss(x, [[1], [1]], [3, 3], [1, 1], blank=4)
    with pytest.raises(ValueError, match="reduction"):
        F.ctc_loss(x, [[1], [1]], [3, 3], [1, 1], reduction="avg")
    F.ctc_loss(x, [[1, 9], [1, -7]], [3, 3], [1, 1])  # what is behind the end is not looked at
