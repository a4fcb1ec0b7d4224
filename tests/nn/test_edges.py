"""Networks at their edges: frozen parts, states that do not fit, distributions of first values."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from tensorgrad import Tensor, nn
from tensorgrad.errors import ShapeError
from tensorgrad.nn import functional
from tensorgrad.ops.random import Generator


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_a_conversion_freezes_and_thaws_nothing(dtype: str) -> None:
    """And a gradient is converted along."""
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    model[0].requires_grad_(False)
    model(Tensor(np.ones((4, 2), np.float32))).sum().backward()
    before = {name: p.requires_grad for name, p in model.named_parameters()}
    gradients = {
        name: None if p.grad is None else p.grad.numpy().copy()
        for name, p in model.named_parameters()
    }
    model.to(dtype)
    for name, p in model.named_parameters():
        assert str(p.dtype) == dtype
        assert p.requires_grad is before[name]
        kept = gradients[name]
        assert (p.grad is None) is (kept is None)
        if p.grad is not None and kept is not None:
            assert p.grad.dtype == p.dtype
            np.testing.assert_allclose(p.grad.float().numpy(), kept, rtol=1e-2, atol=1e-6)
    for buffer in model.buffers():
        assert not buffer.requires_grad
    assert [p.requires_grad for p in copy.deepcopy(model).parameters()] == list(before.values())


@pytest.mark.parametrize("strict", [True, False])
def test_a_state_that_does_not_fit_changes_nothing(strict: bool) -> None:
    """Not even the parameters that would fit."""
    model, other = nn.Linear(2, 3), nn.Linear(2, 3)
    before = {k: v.numpy().copy() for k, v in model.state_dict().items()}
    state: dict[str, Any] = {"bias": other.bias, "weight": np.zeros((3, 5), np.float32)}
    with pytest.raises(ShapeError, match="weight: the model has shape"):
        model.load_state_dict(state, strict=strict)
    for k, v in model.state_dict().items():
        np.testing.assert_array_equal(v.numpy(), before[k])


def test_parts_of_a_sequence_are_numbered_anew() -> None:
    """Names stay; numbers begin at 0 again, so that the part is saved like one made of its own."""
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 4), nn.Linear(4, 1))
    assert list(model[2:].state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert list(model[::3].state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    named = nn.Sequential({"first": nn.Linear(2, 3), "last": nn.Linear(3, 1)})
    assert list(named[1:].state_dict()) == ["last.weight", "last.bias"]


def test_a_hook_that_is_removed_leaves_the_others() -> None:
    """Of the same kind too; they are called in the order in which they came."""
    layer = nn.ReLU()
    seen: list[Any] = []

    def noting(what: Any) -> Any:
        return lambda *_: seen.append(what)

    handles = [layer.register_forward_hook(noting(k)) for k in range(3)]
    before = layer.register_forward_pre_hook(noting("before"))
    handles[1].remove()
    layer(Tensor([1.0]))
    assert seen == ["before", 0, 2]
    before.remove()
    handles[1].remove()
    layer(Tensor([1.0]))
    assert seen[3:] == [0, 2]


# --- first values ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (2, 5), (5, 2)])
def test_orthogonal_matrices_are_all_as_likely(shape: tuple[int, int]) -> None:
    """Every element has mean 0 and mean square 1 over the longer side (Haar's measure)."""
    generator = Generator(3)
    drawn = [
        nn.init.orthogonal_(Tensor(np.zeros(shape)), generator=generator).numpy()
        for _ in range(600)
    ]
    values = np.stack(drawn)
    np.testing.assert_allclose(values.mean(0), 0, atol=0.16)
    np.testing.assert_allclose((values**2).mean(0), 1 / max(shape), atol=0.08)


@pytest.mark.parametrize("name", ["kaiming", "xavier", "lecun"])
def test_even_and_normal_numbers_have_one_variance(name: str) -> None:
    """2 / fan_in, 2 / (fan_in + fan_out), 1 / fan_in, of a weight that is not square."""
    fan_in, fan_out = 30, 300
    wanted = {"kaiming": 2 / fan_in, "xavier": 2 / (fan_in + fan_out), "lecun": 1 / fan_in}[name]
    for kind in ("uniform_", "normal_"):
        weight = Tensor(np.zeros((fan_out, fan_in)))
        getattr(nn.init, f"{name}_{kind}")(weight, generator=Generator(1))
        assert float(weight.numpy().var()) == pytest.approx(wanted, rel=0.06)


def test_cut_normal_numbers_are_not_piled_up_on_the_limits() -> None:
    """Their variance is that of the cut distribution: 0.7737 for two standard deviations."""
    drawn = nn.init.trunc_normal_(Tensor(np.zeros(20_000)), generator=Generator(1)).numpy()
    assert np.abs(drawn).max() < 2
    assert float(drawn.var()) == pytest.approx(0.7737, rel=0.03)
    one_sided = nn.init.trunc_normal_(
        Tensor(np.zeros(20_000)), a=0.0, b=9.0, generator=Generator(1)
    ).numpy()
    assert float(one_sided.mean()) == pytest.approx(np.sqrt(2 / np.pi), rel=0.03)


# --- layers and losses, written out ---------------------------------------------------------------


def test_statistics_of_batches_written_out() -> None:
    """The running variance is that of a sample; momentum None gives a plain average."""
    rng = np.random.default_rng(0)
    batches = [rng.standard_normal((5, 3)) * 3 + 1 for _ in range(4)]
    for momentum in (0.3, None):
        layer = nn.BatchNorm1d(3, momentum=momentum, dtype="float64")
        mean, var = np.zeros(3), np.ones(3)
        for n, batch in enumerate(batches, 1):
            layer(Tensor(batch))
            part = 1 / n if momentum is None else momentum
            mean += part * (batch.mean(0) - mean)
            var += part * (batch.var(0, ddof=1) - var)
        np.testing.assert_allclose(layer.running_mean.numpy(), mean, rtol=1e-12)
        np.testing.assert_allclose(layer.running_var.numpy(), var, rtol=1e-12)
        assert int(layer.num_batches_tracked.item()) == 4
        x = rng.standard_normal((2, 3))
        wanted = (x - mean) / np.sqrt(var + 1e-5)
        np.testing.assert_allclose(layer.eval()(Tensor(x)).detach().numpy(), wanted, rtol=1e-10)
        assert int(layer.num_batches_tracked.item()) == 4


def test_each_centre_has_its_own_width() -> None:
    layer = nn.RBF(2, 3, dtype="float64")
    layer.beta.detach().copy_(Tensor([0.5, 1.0, 2.0], dtype="float64"))
    x = np.array([[0.2, -0.4], [1.0, 0.3]])
    apart = ((x[:, None] - layer.centers.detach().numpy()) ** 2).sum(-1)
    wanted = np.exp(-np.array([0.5, 1.0, 2.0]) * apart)
    np.testing.assert_allclose(layer(Tensor(x)).detach().numpy(), wanted, rtol=1e-12)


def test_a_padding_row_gets_no_gradient() -> None:
    layer = nn.Embedding(4, 2, padding_idx=1)
    layer(Tensor(np.array([[0, 1], [1, 3]]))).sum().backward()
    assert layer.weight.grad is not None
    np.testing.assert_array_equal(layer.weight.grad.numpy(), [[1, 1], [0, 0], [0, 0], [1, 1]])


def log_softmax(x: Any) -> Any:
    z = x - x.max(1, keepdims=True)
    return z - np.log(np.exp(z).sum(1, keepdims=True))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ignored", [None, 1])
def test_cross_entropy_written_out(
    reduction: str, smoothing: float, weighted: bool, ignored: int | None
) -> None:
    """The mean is over the labels that count, by their weight."""
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((6, 4)), np.array([0, 1, 2, 3, 1, 0])
    w = np.array([1.0, 2.0, 0.5, 3.0]) if weighted else np.ones(4)
    wanted = (1 - smoothing) * np.eye(4)[t] + smoothing / 4
    each = -(log_softmax(x) * wanted * w).sum(1)
    counts = w[t] * 1.0
    if ignored is not None:
        each[t == ignored] = 0
        counts[t == ignored] = 0
    result = {"mean": each.sum() / counts.sum(), "sum": each.sum(), "none": each}[reduction]
    found = functional.cross_entropy(
        Tensor(x), Tensor(t), reduction, weight=Tensor(w) if weighted else None,
        ignore_index=ignored, label_smoothing=smoothing,
    )  # fmt: skip
    np.testing.assert_allclose(found.numpy(), result, rtol=1e-12)


def test_the_slope_of_logits_does_not_cancel() -> None:
    """Where the output is right its gradient is exp(-|x|), not the spacing of 1."""
    x = Tensor(np.array([40.0, -40.0, 20.0], np.float32), requires_grad=True)
    t = Tensor(np.array([1.0, 0.0, 1.0], np.float32))
    functional.binary_cross_entropy_with_logits(x, t, "sum").backward()
    assert x.grad is not None
    wanted = np.array([-1, 1, -1]) * np.exp(-np.abs(x.detach().numpy().astype(np.float64)))
    np.testing.assert_allclose(x.grad.numpy(), wanted, rtol=1e-5)


def test_distances_written_out() -> None:
    """Divergence over the batch; triplets with the nearer of two distances to the negative."""
    rng = np.random.default_rng(1)
    p, q = (rng.random((3, 4)) + 0.1 for _ in range(2))
    found = functional.kl_div(Tensor(np.log(q)), Tensor(p), "batchmean")
    assert float(found.item()) == pytest.approx((p * (np.log(p) - np.log(q))).sum() / 3)
    a, b, c = rng.standard_normal((3, 5, 2))

    def apart(x: Any, y: Any) -> Any:
        return np.sqrt(((x - y + 1e-6) ** 2).sum(-1))

    for swap in (False, True):
        far = np.minimum(apart(a, c), apart(b, c)) if swap else apart(a, c)
        wanted = np.maximum(apart(a, b) - far + 1.0, 0).mean()
        loss = functional.triplet_margin_loss(Tensor(a), Tensor(b), Tensor(c), swap=swap)
        assert float(loss.item()) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("reduction", "factor"),
    [
        ("sum", 1),
        ("mean", 1 / 12),
        ("half_sum", 1 / 2),
        ("half_mean", 1 / 6),
        ("half_mean_all", 1 / 24),
    ],
)
def test_squared_errors_written_out(reduction: str, factor: float) -> None:
    rng = np.random.default_rng(2)
    x, t = rng.standard_normal((2, 3, 4))
    found = functional.mse_loss(Tensor(x), Tensor(t), reduction)
    assert float(found.item()) == pytest.approx(((x - t) ** 2).sum() * factor)


def test_penalties_leave_biases_alone() -> None:
    model = nn.Linear(2, 3)
    assert model.bias is not None
    model.bias.detach().copy_(Tensor(np.full(3, 7.0, np.float32)))
    weight = model.weight.detach().numpy().astype(np.float64)
    penalty = functional.l2_penalty(model.parameters(), 0.5)
    assert float(penalty.item()) == pytest.approx(0.5 * (weight**2).sum(), rel=1e-5)
    with_biases = functional.l1_penalty(model.parameters(), 1.0, biases=True)
    assert float(with_biases.item()) == pytest.approx(np.abs(weight).sum() + 21, rel=1e-5)
