"""Products with epilogues by cublasLt, on a stand-in that checks what the library checks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from emulator import emulator
from sampler import host
from standin import cublaslt, cupy_standin
from standin.cupy_standin import log

import tensorgrad as tg
from bench import host as host_costs
from tensorgrad import nn
from tensorgrad.backend.launch import epilogues

DTYPES = pytest.mark.parametrize("dtype", [tg.float32, tg.float16, tg.bfloat16], ids=str)
TOLERANCES = {"float32": 2e-6, "float16": 3e-3, "bfloat16": 2e-2}


@pytest.fixture(scope="module", autouse=True)
def installed() -> Iterator[Any]:
    with cupy_standin.installed(cublaslt=True) as module:
        yield module


def wide(x: Any) -> Any:
    return host(x).astype(np.float64)


def close(found: Any, wanted: Any, dtype: Any) -> None:
    scale = max(1.0, float(np.abs(wanted).max()))
    np.testing.assert_allclose(wide(found), wanted, rtol=0, atol=TOLERANCES[str(dtype)] * scale)


@DTYPES
@pytest.mark.parametrize("shape", [(6, 4), (2, 3, 4), (4,)])
def test_linear_is_one_launch_and_two(shape: tuple[int, ...], dtype: Any) -> None:
    """The bias is part of the product, the sums of its gradient part of the weight's."""
    draw = np.random.default_rng(0)
    x, w, b = (
        tg.Tensor(draw.normal(size=size), dtype=dtype, device="cuda", requires_grad=True)
        for size in (shape, (5, 4), (5,))
    )
    log.clear()
    y = nn.functional.linear(x, w, b)
    assert log.names == ["matmul_BIAS"]
    close(y, wide(x) @ wide(w).T + wide(b), dtype)
    g = tg.Tensor(draw.normal(size=y.shape), dtype=dtype, device="cuda")
    log.clear()
    y.backward(g)
    assert sorted(name for name in log.names if name != "copy") == ["gemm", "matmul_BGRADB"]
    close(x.grad, wide(g) @ wide(w), dtype)
    rows, given = wide(g).reshape(-1, 5), wide(x).reshape(-1, 4)
    close(w.grad, rows.T @ given, dtype)
    close(b.grad, rows.sum(0), dtype)


def test_descriptors_are_kept_for_each_shape_and_alignment() -> None:
    layer = nn.Linear(4, 8, device="cuda")
    x = tg.ones((6, 4), device="cuda")
    layer(x)
    cublaslt.asked.clear()
    for _ in range(3):
        layer(x)
    assert not cublaslt.asked
    layer(tg.ones((7, 4), device="cuda"))
    shifted = tg.ones((25,), device="cuda")[1:].reshape(6, 4)
    close(layer(shifted), wide(layer(x)), tg.float32)
    assert cublaslt.asked == ["BIAS", "BIAS"]


def test_what_the_library_does_not_know_is_done_otherwise() -> None:
    layer = nn.Linear(4, 8, device="cuda")
    x = tg.Tensor(np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32), device="cuda")
    cublaslt.MISSING.update(["BIAS", "BGRADB"])
    epilogues._MADE.clear()
    try:
        y = layer(x)
        y.sum().backward()
    finally:
        cublaslt.MISSING.clear()
        epilogues._MADE.clear()
    assert layer.bias is not None
    close(y, wide(x) @ wide(layer.weight).T + wide(layer.bias), tg.float32)
    close(layer.bias.grad, np.full(8, 5.0), tg.float32)


def test_precision_is_that_of_all_products() -> None:
    """Factors are rounded to TF32 where that is allowed."""
    x = tg.Tensor(np.full((2, 4), 1 + 2.0**-12, np.float32), device="cuda")
    layer = nn.Linear(4, 3, device="cuda")
    try:
        tg.set_float32_matmul_precision("high")
        rounded = host(layer(x))
        tg.set_float32_matmul_precision("highest")
        assert not np.array_equal(rounded, host(layer(x)))
    finally:
        tg.set_float32_matmul_precision("highest")


def test_streams_have_workspaces_of_their_own() -> None:
    layer = nn.Linear(4, 3, device="cuda")
    x = tg.ones((2, 4), device="cuda")
    wanted = host(layer(x))
    for stream in [cupy_standin.Stream(non_blocking=True) for _ in range(6)]:
        with stream:
            np.testing.assert_array_equal(host(layer(x)), wanted)
    made = epilogues._MADE[cupy_standin.MODULE, 0]
    assert made is not None
    assert len(made._workspaces) == 4


def test_a_library_that_is_not_found_is_done_without() -> None:
    cublaslt.absent.append("libcublasLt.so is not there")
    try:
        with cupy_standin.installed(cublaslt=True):
            assert not tg.backend.cuda_backend().epilogues
            layer = nn.Sequential(nn.Linear(4, 3, device="cuda"), nn.ReLU())
            log.clear()
            layer(tg.ones((2, 4), device="cuda"))
            assert "gemm" in log.names
            assert not any(name.startswith("matmul_") for name in log.names)
    finally:
        cublaslt.absent.clear()


def test_without_the_binding_there_is_none() -> None:
    with cupy_standin.installed():
        assert not epilogues.available(cupy_standin.MODULE)
        layer = nn.Linear(4, 3, device="cuda")
        log.clear()
        layer(tg.ones((2, 4), device="cuda"))
        assert "gemm" in log.names


# --- with activations -----------------------------------------------------------------------------


def networks(dtype: Any, sizes: tuple[int, ...], activation: Any) -> list[nn.Sequential]:
    """The same network on the CPU and on the device."""
    found = []
    for device in ("cpu", "cuda"):
        tg.manual_seed(3)
        layers: list[Any] = []
        for n, m in itertools.pairwise(sizes):
            layers += [nn.Linear(n, m, dtype=dtype), activation()]
        found.append(nn.Sequential(*layers[:-1]).to(device))
    return found


def same_gradients(one: nn.Sequential, other: nn.Sequential, dtype: Any) -> None:
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert (a.grad.dtype, a.grad.shape) == (b.grad.dtype, b.grad.shape)
        scale = max(1.0, float(np.abs(wide(b.grad)).max()))
        tolerance = 20 * TOLERANCES[str(dtype)] * scale
        np.testing.assert_allclose(wide(a.grad), wide(b.grad), rtol=0, atol=tolerance)


@DTYPES
@pytest.mark.parametrize("shape", [(6, 5), (2, 3, 5)])
@pytest.mark.parametrize("activation", [nn.ReLU, lambda: nn.GELU("tanh")], ids=["relu", "gelu"])
def test_layers_are_a_launch_forward_and_two_backward(
    activation: Any, shape: tuple[int, ...], dtype: Any
) -> None:
    """The gradient of an activation is part of the product before it."""
    cpu, gpu = networks(dtype, (5, 16, 24, 3), activation)
    x = np.random.default_rng(1).normal(size=shape)
    cpu(tg.tensor(x, dtype=dtype)).square().sum().backward()
    given = tg.tensor(x, dtype=dtype, device="cuda")
    log.clear()
    y = gpu(given)
    name = "RELU" if activation is nn.ReLU else "GELU"
    assert log.names == [f"matmul_{name}_AUX_BIAS"] * 2 + ["matmul_BIAS"]
    g = tg.ones(y.shape, dtype=dtype, device="cuda")
    y.backward(g, retain_graph=True)
    gpu.zero_grad()
    loss = y.square().sum()
    log.clear()
    loss.backward()
    ours = [n for n in log.names if n.startswith(("matmul", "gemm", "bias", "sum_"))]
    assert ours == ["matmul_BGRADB", *[f"matmul_D{name}_BGRAD", "gemm"] * 2]
    same_gradients(gpu, cpu, dtype)


@pytest.mark.parametrize(
    "missing", ["RELU_AUX_BIAS", "DRELU_BGRAD", "GELU_AUX_BIAS", "DGELU_BGRAD"]
)
def test_activations_that_the_library_does_not_know(missing: str) -> None:
    cublaslt.MISSING.add(missing)
    epilogues._MADE.clear()
    try:
        activation: Any = nn.ReLU if "RELU" in missing else lambda: nn.GELU("tanh")
        cpu, gpu = networks(tg.float32, (5, 16, 21, 3), activation)
        x = np.random.default_rng(1).normal(size=(6, 5)).astype(np.float32)
        cpu(tg.tensor(x)).square().sum().backward()
        gpu(tg.tensor(x, device="cuda")).square().sum().backward()
    finally:
        cublaslt.MISSING.clear()
        epilogues._MADE.clear()
    same_gradients(gpu, cpu, tg.float32)


def test_gradients_that_others_add_to_are_made_first() -> None:
    """The result of an activation is used twice, is looked at, or is where the pass ends."""
    w = np.random.default_rng(2).normal(size=(3, 8, 8)).astype(np.float32)

    def run(device: str) -> list[Any]:
        ws = [tg.tensor(x, device=device, requires_grad=True) for x in w]
        b = tg.zeros(8, device=device, requires_grad=True)
        x = tg.ones((4, 8), device=device)
        h = tg.linear_activation(x, ws[0], b, "relu")
        seen: list[Any] = []
        k = tg.linear_activation(h, ws[1], b, "relu")
        k.register_hook(lambda g: seen.append(host(g)))
        y = nn.functional.linear(k, ws[2], b) + h[:, ::1] * 2.0 + h
        loss = y.square().sum()
        (dh,) = tg.autograd.grad(loss, h, retain_graph=True)
        loss.backward()
        return [host(dh), *seen[-1:], *[host(t.grad) for t in (*ws, b)]]

    for a, c in zip(run("cuda"), run("cpu"), strict=True):
        np.testing.assert_allclose(a, c, rtol=2e-4, atol=1e-3)


@pytest.mark.parametrize("order", ["before", "after", "both"])
def test_branches_are_added_to_a_product_to_come(order: str) -> None:
    """Gradients that arrive before that of the layer, after it, and on both sides of it."""
    w = np.random.default_rng(5).normal(size=(3, 8, 8)).astype(np.float32)
    ends = []
    for device in ("cpu", "cuda"):
        ws = [tg.tensor(x, device=device, requires_grad=True) for x in w]
        b = tg.ones(8, device=device, requires_grad=True)
        h = tg.linear_activation(tg.ones((4, 8), device=device), ws[0], b, "relu")
        early = tg.tanh(h)  # its gradient comes after the layer's
        k = tg.linear_activation(h, ws[1], b, "relu")
        y = nn.functional.linear(k, ws[2], b)
        if order != "before":
            y = y + early
        if order != "after":
            y = y + tg.sin(h)
        y.square().sum().backward()
        ends.append([host(t.grad) for t in (*ws, b)])
    for one, other in zip(*ends, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=1e-3)


def test_second_gradients_go_by_the_rules() -> None:
    draw = np.random.default_rng(4)
    arrays = [draw.normal(size=s) for s in ((3, 4), (8, 4), (8,))]
    for name in ("relu", "gelu_tanh"):
        ends = []
        for device in ("cpu", "cuda"):
            x, w, b = (
                tg.Tensor(a, dtype=tg.float32, device=device, requires_grad=True) for a in arrays
            )
            y = tg.linear_activation(x, w, b, name)
            grads = tg.autograd.grad(y.square().sum(), (x, w, b), create_graph=True)
            total = sum((g.square().sum() for g in grads[1:]), grads[0].square().sum())
            ends.append([host(g) for g in tg.autograd.grad(total, (x, w, b))])
        for one, other in zip(*ends, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("frozen", ["weight", "bias", "both"])
@pytest.mark.parametrize("activation", [nn.ReLU, lambda: nn.GELU("tanh")], ids=["relu", "gelu"])
def test_layers_of_which_parts_are_frozen(activation: Any, frozen: str) -> None:
    cpu, gpu = networks(tg.float32, (5, 16, 16, 3), activation)
    x = np.random.default_rng(1).normal(size=(6, 5)).astype(np.float32)
    ends = []
    for model, device in ((cpu, "cpu"), (gpu, "cuda")):
        middle: Any = model[2]
        middle.weight.requires_grad = frozen == "bias"
        middle.bias.requires_grad = frozen == "weight"
        model(tg.tensor(x, device=device)).square().sum().backward()
        ends.append([p.grad for p in model.parameters()])
    for one, other in zip(*ends, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_allclose(host(one), host(other), rtol=1e-4, atol=1e-5)


def test_autocast_keeps_16_bits_from_layer_to_layer() -> None:
    _, gpu = networks(tg.float32, (5, 16, 16, 3), nn.ReLU)
    x = tg.ones((4, 5), device="cuda")
    log.clear()
    with tg.autocast("bfloat16"):
        y = gpu(x)
    assert y.dtype == tg.bfloat16
    assert log.names.count("astype") == 7  # x, and a weight and a bias for each layer
    y.float().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == tg.float32 for p in gpu.parameters())


@pytest.mark.skipif(emulator.available() is not None, reason="the emulator is missing")
@pytest.mark.parametrize("optimizer", ["momentum", "Adam"])
def test_a_step_is_twelve_launches(optimizer: str) -> None:
    """784-512-512-10: three layers forward and five products backward, loss, and update."""
    with cupy_standin.installed(cublaslt=True):
        counter = host_costs.counted(optimizer, half=False, compiled=False)
    names = [name for part in counter.phases.values() for name in part.names]
    assert len(names) <= host_costs.LAUNCHES, names
