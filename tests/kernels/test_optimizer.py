"""kernels/optimizer.cu and gradient_norm.cu: many parameters in one launch, as on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kernel_devices import EPSILON, Cuda, as_float64, assert_close

import tensorgrad as tg
from tensorgrad import nn, optim

Make = Callable[[Any], optim.Optimizer]
RULES: dict[str, Make] = {
    "SGD": lambda p: optim.SGD(p, lr=0.1),
    "decay": lambda p: optim.SGD(p, lr=0.1, weight_decay=0.2),
    "maximize": lambda p: optim.SGD(p, lr=0.1, momentum=0.5, maximize=True),
    "momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "dampening": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.25),
    "nesterov": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "Adam": lambda p: optim.Adam(p, lr=0.05),
    "Adam, decay": lambda p: optim.Adam(p, lr=0.05, weight_decay=0.1, betas=(0.7, 0.95)),
    "Adam, amsgrad": lambda p: optim.Adam(p, lr=0.05, amsgrad=True, eps=1e-3),
    "Adam, maximize": lambda p: optim.Adam(p, lr=0.05, maximize=True),
    "AdamW": lambda p: optim.AdamW(p, lr=0.05, weight_decay=0.3),
}
SIZES = [3, 0, 1, 31, 1000, 4096, 4097, 8200]
SEEN: dict[str, bytes] = {}


def trained(
    make: Make, start: list[Any], grads: list[list[Any]], device: str, dtype: str
) -> tuple[list[Any], optim.Optimizer]:
    """The parameters after one step for each of ``grads``, with the rate halved on the way."""
    kind = getattr(tg, dtype)
    params = [nn.Parameter(tg.tensor(a, dtype=kind, device=device)) for a in start]
    optimizer = make(params)
    for i, step in enumerate(grads):
        for p, g in zip(params, step):
            p.grad = tg.tensor(g, dtype=kind, device=device)  # in memory of its own every time
        optimizer.step()
        if i == 1:
            optimizer.param_groups[0]["lr"] /= 2
    return params, optimizer


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("name", RULES)
def test_as_on_the_cpu(cuda: Cuda, name: str, dtype: str, rng: np.random.Generator) -> None:
    start = [rng.normal(size=n) for n in SIZES]
    grads = [[rng.normal(size=n) for n in SIZES] for _ in range(4)]
    ours, optimizer = trained(RULES[name], start, grads, "cuda", dtype)
    kernel = "adam" if name.startswith("Adam") else "sgd"
    assert cuda.launched == {kernel: 4}
    theirs, reference = trained(RULES[name], start, grads, "cpu", dtype)
    for p, q in zip(ours, theirs):
        # a step of rounding may differ where the parameter is rounded; the states are wider
        np.testing.assert_allclose(
            as_float64(p), as_float64(q), rtol=16 * EPSILON[dtype], atol=16 * EPSILON[dtype]
        )
        assert set(optimizer.state[p]) == set(reference.state[q])
        for key, state in optimizer.state[p].items():
            expected = as_float64(reference.state[q][key])
            wide = EPSILON["float64" if dtype == "float64" else "float32"]
            np.testing.assert_allclose(as_float64(state), expected, rtol=64 * wide, atol=64 * wide)


def test_adam_by_the_formula(cuda: Cuda, rng: np.random.Generator) -> None:
    """Kingma and Ba (2015), algorithm 1, written out."""
    start, grads = rng.normal(size=50), [rng.normal(size=50) for _ in range(5)]
    (p,), _ = trained(lambda p: optim.Adam(p, lr=0.1), [start], [[g] for g in grads], "cuda",
                      "float64")  # fmt: skip
    x, m, v, lr = start, 0 * start, 0 * start, 0.1
    for t, g in enumerate(grads, 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        x = x - lr * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        lr = 0.05 if t >= 2 else lr
    np.testing.assert_allclose(as_float64(p), x, rtol=1e-12)


@pytest.mark.parametrize("make", [RULES["momentum"], RULES["Adam"]])
def test_200_parameters_in_one_launch(cuda: Cuda, make: Make, rng: np.random.Generator) -> None:
    start = [rng.normal(size=int(n)) for n in rng.integers(0, 60, 200)]
    grads = [[rng.normal(size=a.size) for a in start]]
    ours, _ = trained(make, start, grads, "cuda", "float32")
    assert cuda.launched.total() == 1
    theirs, _ = trained(make, start, grads, "cpu", "float32")
    for p, q in zip(ours, theirs):
        assert_close(p, as_float64(q), "float32", scale=1.0)


def test_unaligned_parameters(cuda: Cuda, rng: np.random.Generator) -> None:
    """A parameter, or its gradient, may begin anywhere; a state begins at 16 bytes all the same."""
    for p_offset, g_offset in ((1, 0), (0, 1), (2, 3)):
        p = cuda.tensor(rng.normal(size=5001), offset=p_offset)
        g = cuda.tensor(rng.normal(size=5001), offset=g_offset)
        expected = as_float64(p) - 0.1 * as_float64(g)
        p.requires_grad = True
        p.grad = g
        optim.SGD([p], lr=0.1, momentum=0.9).step()
        assert_close(p, expected, "float32", scale=1.0)
    assert cuda.launched["sgd"] == 3


def test_layouts(cuda: Cuda, rng: np.random.Generator) -> None:
    """A transposed gradient is copied; a transposed parameter goes without the kernel."""
    values, slopes = rng.normal(size=(6, 7)), rng.normal(size=(6, 7))
    for p, g in (
        (cuda.tensor(values), cuda.tensor(slopes.T).T),
        (cuda.tensor(values.T).T, cuda.tensor(slopes)),
    ):
        p = tg.Tensor(p.data, copy=False)
        p.requires_grad = True
        p.grad = g
        optim.SGD([p], lr=0.5).step()
        assert_close(p, values - 0.5 * slopes, "float32", scale=1.0)
    assert cuda.launched == {"sgd": 1}


@pytest.mark.parametrize("make", [RULES["momentum"], RULES["Adam"]])
def test_copies_of_gradients_are_there_until_they_are_read(
    cuda: Cuda, make: Make, rng: np.random.Generator
) -> None:
    """Transposed gradients are copied: memory that is let go of before the launch is another's."""
    values = [rng.normal(size=(6, 7)) for _ in range(30)]
    slopes = [rng.normal(size=(6, 7)) for _ in values]
    found = []
    for device in ("cuda", "cpu"):
        params = [nn.Parameter(tg.tensor(a, dtype=tg.float32, device=device)) for a in values]
        for p, g in zip(params, slopes):
            p.grad = tg.tensor(np.ascontiguousarray(g.T), dtype=tg.float32, device=device).T
        make(params).step()
        found.append(params)
    for p, q in zip(*found):
        assert_close(p, as_float64(q), "float32", scale=1.0)


def test_groups_idle_parameters_and_checkpoints(cuda: Cuda, rng: np.random.Generator) -> None:
    """States travel between devices by state_dict, and count on from where they were."""
    start = [rng.normal(size=n) for n in (5, 17)]
    grads = [[rng.normal(size=n) for n in (5, 17)] for _ in range(3)]
    params, optimizer = trained(RULES["Adam"], start, grads, "cuda", "float32")
    saved = optimizer.state_dict()
    for device in ("cpu", "cuda"):
        twins = [nn.Parameter(p.detach().to(device).clone()) for p in params]
        other = RULES["Adam"](twins)
        other.load_state_dict(saved)
        for twin, g in zip(twins, grads[0]):
            twin.grad = tg.tensor(g, dtype=tg.float32, device=device)
        other.step()
        found = [as_float64(t) for t in twins]
        if device == "cpu":
            expected = found
        assert int(other.state[twins[0]]["step"]) == 4
    for a, b in zip(found, expected):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    params[0].grad = None  # this one rests, the other goes on alone
    before = as_float64(params[0])
    optimizer.step()
    np.testing.assert_array_equal(as_float64(params[0]), before)
    assert int(optimizer.state[params[1]]["step"]) == 4


def test_same_bits_every_time(cuda: Cuda) -> None:
    rng = np.random.default_rng(1)
    start = [rng.normal(size=n) for n in (9000, 33)]
    params, _ = trained(RULES["Adam"], start, [start] * 3, "cuda", "float32")
    for p in params:
        p.grad = p.detach()
    norm = optim.clip_grad_norm_(params, 1.0)
    found = b"".join(t.detach().cpu().numpy().tobytes() for t in (*params, norm))
    if not cuda.real:
        assert SEEN.setdefault("adam", found) == found


# --- norms ------------------------------------------------------------------------------------


def with_gradients(
    cuda: Cuda, sizes: list[int], dtype: str, offset: int, rng: Any, scale: float = 1.0
) -> list[Any]:
    params = []
    for n in sizes:
        p = nn.Parameter(cuda.tensor(np.zeros(n), dtype))
        p.grad = cuda.tensor(rng.normal(size=n) * scale, dtype, offset)
        params.append(p)
    return params


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_norm_and_scaling(cuda: Cuda, dtype: str, offset: int, rng: np.random.Generator) -> None:
    params = with_gradients(cuda, SIZES, dtype, offset, rng)
    before = [as_float64(p.grad) for p in params]
    exact = float(np.sqrt(sum((g**2).sum() for g in before)))
    cuda.launched.clear()
    norm = optim.clip_grad_norm_(params, exact / 3)
    wide = "float64" if dtype == "float64" else "float32"
    assert_close(norm, exact, wide, rounding=16)
    for p, g in zip(params, before):
        assert_close(p.grad, g / 3 * (1 - 1e-6 / exact), dtype, rounding=4)
    assert cuda.launched == {"sum_squares": 1, "root_of_sum": 1, "scale_gradients": 1}
    held = [as_float64(p.grad) for p in params]
    optim.clip_grad_norm_(params, 10 * exact)  # short enough: nothing changes
    for p, g in zip(params, held):
        np.testing.assert_array_equal(as_float64(p.grad), g)


def test_norm_of_numbers_whose_squares_overflow_in_16_bits(
    cuda: Cuda, rng: np.random.Generator
) -> None:
    params = with_gradients(cuda, [500], "float16", 0, rng, scale=300.0)
    exact = float(np.sqrt((as_float64(params[0].grad) ** 2).sum()))
    assert_close(optim.clip_grad_norm_(params, 1.0), exact, "float32", rounding=16)


def test_other_norms_and_nan(cuda: Cuda, rng: np.random.Generator) -> None:
    for kind in (1.0, 3.0, float("inf")):
        params = with_gradients(cuda, [40, 3], "float32", 0, rng)
        all_of_it = np.concatenate([as_float64(p.grad) for p in params])
        norm = optim.clip_grad_norm_(params, 1e9, norm_type=kind)
        np.testing.assert_allclose(as_float64(norm), np.linalg.norm(all_of_it, kind), rtol=1e-5)
    params[0].grad = cuda.tensor(np.full(40, np.nan))
    assert np.isnan(as_float64(optim.clip_grad_norm_(params, 1.0)))
    assert np.isnan(as_float64(params[1].grad)).all()


@pytest.mark.parametrize("offset", [0, 1])
def test_limiting(cuda: Cuda, offset: int, rng: np.random.Generator) -> None:
    params = with_gradients(cuda, SIZES, "float32", offset, rng)
    params[0].grad = cuda.tensor([np.nan, np.inf, -np.inf])
    before = [as_float64(p.grad) for p in params]
    optim.clip_grad_value_(params, 0.25)
    for p, g in zip(params, before):
        np.testing.assert_array_equal(as_float64(p.grad), np.clip(g, -0.25, 0.25))
    assert cuda.launched == {"limit_gradients": 1}


def test_training_agrees_with_the_cpu(cuda: Cuda, tmp_path: Path) -> None:
    """Forward, loss, backward, clipping and Adam: every kernel at work in one small network."""
    losses: dict[str, list[float]] = {}
    draw = np.random.default_rng(0)
    x = draw.normal(size=(40, 6)).astype(np.float32)
    t = draw.integers(0, 3, 40)
    for device in ("cpu", "cuda"):
        tg.manual_seed(1)
        model = nn.Sequential(
            nn.Linear(6, 16), nn.GELU(), nn.LayerNorm(16), nn.Dropout(0.2), nn.Linear(16, 3)
        ).to(device)
        update = optim.AdamW(model.parameters(), lr=0.02)
        found = losses.setdefault(device, [])
        for _ in range(8):
            update.zero_grad()
            inputs, labels = tg.tensor(x, device=device), tg.tensor(t, device=device)
            loss = nn.functional.cross_entropy(model(inputs), labels)
            loss.backward()
            optim.clip_grad_norm_(model.parameters(), 0.5)
            update.step()
            found.append(float(loss.item()))
    np.testing.assert_allclose(losses["cuda"], losses["cpu"], rtol=1e-4)
    for kernel in (
        "bias_gelu_forward",
        "layer_norm_backward_short",
        "dropout",
        "adam",
        "sum_squares",
    ):
        assert cuda.launched[kernel]
