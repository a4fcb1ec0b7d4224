"""kernels/bias_activation.cu and sums.cu: one pass forward, one for both gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from activation_cases import CASES
from kernel_devices import FLOATS, Cuda, as_float64, assert_close

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.backend.launch import bias_activation, common

SHAPES = [(1, 1), (5, 31), (3, 32), (67, 33), (40, 1000), (1000, 10), (2, 65_537), (300, 128)]
SEEN: dict[str, bytes] = {}


def check(
    cuda: Cuda, name: str, dtype: str, rows: int, columns: int, offset: int, rng: Any
) -> tuple[Any, Any, Any]:
    _, options, value, slope = CASES[name]
    options = {k: v for k, v in options.items() if k != "approximate"}
    z = cuda.tensor(rng.uniform(-3, 3, (rows, columns)), dtype, offset, requires_grad=True)
    bias = cuda.tensor(rng.uniform(-2, 2, columns), dtype, offset, requires_grad=True)
    g = cuda.tensor(rng.uniform(-1, 1, (rows, columns)), dtype)
    y = tg.bias_activation(z, bias, name, **options)
    y.backward(g)
    assert z.grad is not None
    assert bias.grad is not None
    exact = as_float64(z) + as_float64(bias)
    dz = as_float64(g) * slope(exact)
    assert_close(y, value(exact), dtype, rounding=6, scale=1.0)
    assert_close(z.grad, dz, dtype, rounding=20, scale=1.0)
    # the rounding of the sum itself, and in 16 bits of the saved result in every term
    assert_close(bias.grad, dz.sum(0), dtype, rounding=8, scale=float(rows**0.5) * 3)
    return y, z.grad, bias.grad


@pytest.mark.parametrize(("rows", "columns"), SHAPES)
@pytest.mark.parametrize("dtype", FLOATS)
def test_relu(cuda: Cuda, dtype: str, rows: int, columns: int, rng: np.random.Generator) -> None:
    if columns == 65_537 and dtype != "float32":
        pytest.skip("long rows in one dtype are enough")
    check(cuda, "relu", dtype, rows, columns, 0, rng)
    assert cuda.launched == {"bias_relu_forward": 1, "bias_relu_backward": 1, "sum_strips": 1}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", CASES)
def test_every_activation(cuda: Cuda, name: str, dtype: str, rng: np.random.Generator) -> None:
    """Rows that begin at multiples of 16 bytes and rows that do not."""
    for columns, offset in ((32, 0), (32, 1), (21, 0)):
        cuda.launched.clear()
        check(cuda, name, dtype, 19, columns, offset, rng)
        assert cuda.launched[f"bias_{name}_forward"] == 1
        assert cuda.launched[f"bias_{name}_backward"] == 1


@pytest.mark.parametrize("blocks", [1, 3])
@pytest.mark.parametrize("columns", [7, 64, 1500])
def test_steps_through_the_grid(
    cuda: Cuda, columns: int, blocks: int, monkeypatch: pytest.MonkeyPatch, rng: Any
) -> None:
    """More rows and columns than the grid has threads."""
    monkeypatch.setattr(common, "MOST_BLOCKS", blocks)
    check(cuda, "gelu", "float32", 130, columns, 0, rng)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (40, 65), (1100, 40)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_linear_alone(cuda: Cuda, dtype: str, rows: int, columns: int, rng: Any) -> None:
    """The product is added to rows of the bias, and the sum of g is one launch or two."""
    for offset in (0, 1):
        cuda.launched.clear()
        x = cuda.tensor(np.zeros((rows, 2)), dtype)
        w = cuda.tensor(np.zeros((columns, 2)), dtype)
        bias = cuda.tensor(rng.uniform(-2, 2, columns), dtype, offset, requires_grad=True)
        g = cuda.tensor(rng.uniform(-1, 1, (rows, columns)), dtype, offset)
        y = nn.functional.linear(x, w, bias)
        y.backward(g)
        assert bias.grad is not None
        np.testing.assert_array_equal(as_float64(y), np.tile(as_float64(bias), (rows, 1)))
        summed = as_float64(g).sum(0)
        assert_close(bias.grad, summed, dtype, rounding=8, scale=float(rows**0.5) * 3)
        assert cuda.launched["bias_identity_forward"] == 1
        few = rows <= bias_activation.FEW_ROWS
        stages = {"sum_rows": 1} if few else {"bias_identity_backward": 1, "sum_strips": 1}
        assert cuda.launched == {"bias_identity_forward": 1, **stages}


def test_same_bits_every_time(cuda: Cuda) -> None:
    """Under every schedule of the threads."""
    rng = np.random.default_rng(3)
    parts = check(cuda, "sigmoid", "float32", 3000, 37, 0, rng)
    if not cuda.real:
        found = b"".join(p.detach().cpu().numpy().tobytes() for p in parts)
        assert SEEN.setdefault("sigmoid", found) == found


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0)])
def test_empty(cuda: Cuda, shape: tuple[int, int]) -> None:
    z = cuda.tensor(np.ones(shape), requires_grad=True)
    bias = cuda.tensor(np.ones(shape[1]), requires_grad=True)
    tg.bias_activation(z, bias, "relu").sum().backward()
    assert z.grad is not None
    assert bias.grad is not None
    assert z.grad.shape == shape
    assert as_float64(bias.grad).tolist() == [0.0] * shape[1]


def test_only_what_is_needed(cuda: Cuda, rng: np.random.Generator) -> None:
    z = cuda.tensor(rng.normal(size=(8, 16)), requires_grad=True)
    bias = cuda.tensor(rng.normal(size=16))
    tg.bias_activation(z, bias, "relu").sum().backward()
    assert "sum_strips" not in cuda.launched
    fixed, free = cuda.tensor(rng.normal(size=(8, 16))), cuda.tensor(np.zeros(16))
    free.requires_grad = True
    tg.bias_activation(fixed, free, "relu").sum().backward()
    assert free.grad is not None
    assert_close(free.grad, (as_float64(fixed) > 0).sum(0), "float32")


def test_bias_of_another_shape(cuda: Cuda, rng: np.random.Generator) -> None:
    """It broadcasts as ever, without the kernel."""
    z = cuda.tensor(rng.normal(size=(4, 6)), requires_grad=True)
    bias = cuda.tensor(rng.normal(size=(4, 1)), requires_grad=True)
    tg.bias_activation(z, bias, "tanh").sum().backward()
    assert bias.grad is not None
    exact = 1 - np.tanh(as_float64(z) + as_float64(bias)) ** 2
    np.testing.assert_allclose(as_float64(bias.grad), exact.sum(1, keepdims=True), rtol=1e-5)


def test_sequential_runs_them_fused(cuda: Cuda, rng: np.random.Generator) -> None:
    """Linear and the activation after it, with the gradients of the CPU."""

    def network() -> nn.Sequential:
        return nn.Sequential(
            nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 8), nn.LeakyReLU(0.2), nn.Linear(8, 8),
            nn.ELU(0.5), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8), nn.GELU("tanh"),
            nn.Linear(8, 4, bias=False), nn.Tanh(), nn.Linear(4, 3),
        )  # fmt: skip

    tg.manual_seed(5)
    model, twin = network(), network()
    twin.load_state_dict(model.state_dict())
    twin.to("cuda")
    x = rng.normal(size=(9, 12)).astype(np.float32)
    model(tg.tensor(x)).square().sum().backward()
    twin(tg.tensor(x, device="cuda")).square().sum().backward()
    for name in ("relu", "leaky_relu", "elu", "gelu", "gelu_tanh"):
        assert cuda.launched[f"bias_{name}_forward"] == 1
        assert cuda.launched[f"bias_{name}_backward"] == 1
    assert cuda.launched["tanh_forward"] == 1  # there is no bias to take along
    for ours, theirs in zip(twin.parameters(), model.parameters()):
        assert ours.grad is not None
        assert theirs.grad is not None
        np.testing.assert_allclose(as_float64(ours.grad), as_float64(theirs.grad), 2e-4, 1e-5)


def test_sequential_leaves_alone_what_is_watched(cuda: Cuda) -> None:
    """A summary sees every module; a class of the user's own is called."""

    class Mine(nn.ReLU):  # type: ignore[misc, valid-type]
        pass

    x = cuda.tensor(np.ones((2, 4)))
    model = nn.Sequential(nn.Linear(4, 4), Mine()).to("cuda")
    model(x)
    assert "bias_relu_forward" not in cuda.launched
    text = str(nn.Sequential(nn.Linear(4, 4), nn.ReLU()).to("cuda").summary((2, 4)))
    assert "ReLU" in text
    assert "bias_relu_forward" not in cuda.launched


def test_shape_errors_name_the_layer(cuda: Cuda) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(5, 2), nn.ReLU()).to("cuda")
    with pytest.raises(tg.errors.ShapeError, match="2"):
        model(cuda.tensor(np.ones((2, 4))))


def test_a_number_for_either(cuda: Cuda) -> None:
    """A number broadcasts, without the kernel."""
    x = cuda.tensor([-1.0, 2.0])
    assert as_float64(tg.bias_activation(x, 0.5, "relu")).tolist() == [0, 2.5]
    assert as_float64(tg.bias_activation(0.5, x, "relu")).tolist() == [0, 2.5]
    assert not cuda.launched
