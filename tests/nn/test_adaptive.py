"""The adaptive softmax: against PyTorch, with its weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import Tensor, nn
from tensorgrad.errors import CompileError, DtypeError, ShapeError

RNG = np.random.Generator


def pair(head_bias: bool, cutoffs: list[int]) -> tuple[Any, Any]:
    """A module of ours with the weights of one of PyTorch's."""
    torch: Any = pytest.importorskip("torch")
    torch.manual_seed(0)
    theirs = torch.nn.AdaptiveLogSoftmaxWithLoss(
        12, 20, cutoffs, div_value=2.0, head_bias=head_bias, dtype=torch.float64
    )
    ours = nn.AdaptiveLogSoftmaxWithLoss(
        12, 20, cutoffs, div_value=2.0, head_bias=head_bias, dtype="float64"
    )
    ours.load_state_dict({k: Tensor(v.numpy()) for k, v in theirs.state_dict().items()})
    return ours, theirs


@pytest.mark.parametrize(("head_bias", "cutoffs"), [(False, [4, 10]), (True, [1, 2, 19])])
def test_like_pytorch(head_bias: bool, cutoffs: list[int], rng: RNG) -> None:
    torch: Any = pytest.importorskip("torch")
    ours, theirs = pair(head_bias, cutoffs)
    values = rng.standard_normal((9, 12))
    for labels in (rng.integers(0, 20, 9), np.zeros(9, np.int64)):  # some clusters are not used
        x, z = Tensor(values, requires_grad=True), torch.tensor(values, requires_grad=True)
        ours.zero_grad()
        theirs.zero_grad()
        found, wanted = ours(x, Tensor(labels)), theirs(z, torch.tensor(labels))
        np.testing.assert_allclose(found.output.detach().numpy(), wanted.output.detach().numpy())
        assert found.loss.item() == pytest.approx(wanted.loss.item())
        found.loss.backward()
        wanted.loss.backward()
        assert x.grad is not None
        np.testing.assert_allclose(x.grad.numpy(), z.grad.numpy(), rtol=1e-10, atol=1e-14)
        there = dict(theirs.named_parameters())
        for name, p in ours.named_parameters():
            g = there[name].grad
            assert (p.grad is None) == (g is None), name
            if g is not None:
                np.testing.assert_allclose(p.grad.numpy(), g.numpy(), rtol=1e-10, atol=1e-14)
    x, z = Tensor(values), torch.tensor(values)
    np.testing.assert_allclose(ours.log_prob(x).detach().numpy(), theirs.log_prob(z).detach())
    np.testing.assert_allclose(np.exp(ours.log_prob(x).detach().numpy()).sum(1), 1)
    assert ours.predict(x).tolist() == theirs.predict(z).tolist()
    one = ours(x[0], Tensor(7))
    assert one.output.shape == ()
    assert one.loss.item() == pytest.approx(-float(ours.log_prob(x[0])[7].item()))


def test_initial_values_are_those_of_the_generator() -> None:
    first, second = (
        nn.AdaptiveLogSoftmaxWithLoss(8, 10, [2, 5], 2.0, True, generator=tg.random.Generator(k))
        for k in (1, 2)
    )
    second.reset_parameters(tg.random.Generator(1))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert a.tolist() == b.tolist()


def test_what_is_refused() -> None:
    wrong: list[Any] = [[], [0, 3], [3, 3], [5, 3], [3, 10], [2.5]]
    for cutoffs in wrong:
        with pytest.raises(ValueError, match="cutoffs must be integers that rise"):
            nn.AdaptiveLogSoftmaxWithLoss(8, 10, cutoffs)
    with pytest.raises(ValueError, match="cluster 2 would have inputs of size 0"):
        nn.AdaptiveLogSoftmaxWithLoss(8, 10, [2, 5])
    with pytest.raises(ValueError, match="div_value must be above 0"):
        nn.AdaptiveLogSoftmaxWithLoss(8, 10, [2], div_value=0.0)
    module = nn.AdaptiveLogSoftmaxWithLoss(8, 10, [2])
    x = tg.zeros((3, 8))
    with pytest.raises(ShapeError, match=r"got \(3, 8\) and \(2,\)"):
        module(x, Tensor([0, 1]))
    with pytest.raises(DtypeError, match="labels are integers"):
        module(x, tg.zeros(3))
    with pytest.raises(IndexError, match="between 0 and 9"):
        module(x, Tensor([0, 1, 10]))
    with pytest.raises(CompileError):
        tg.compile(lambda x, t: module(x, t).loss)(x, Tensor([0, 1, 2]))
    assert "n_classes=10, cutoffs=[2], div_value=4.0" in repr(module)
