"""The engine's CUDA path, run on a stand-in for CuPy: standin/cupy_standin.py.

None of this ran on a GPU. It shows that the engine asks of CuPy only what CuPy 14.2 offers, keeps
arrays of the host out of its functions, stays on the right device, reads no memory that was not
written, and gets the CPU's results from the CUDA branches of the operations. It cannot show what
the device itself does: its rounding and order of sums, the speed, what happens at once there, how
much memory is needed, and whether CuPy's kernels compile and are right.
"""

from __future__ import annotations

import copy
import inspect
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from emulator import emulator
from sampler import Array, draw, host, outputs
from standin import cublas, cupy_standin, record
from standin.cupy_standin import Standin, log

import tensorgrad as tg
from tensorgrad import Tensor, backend, data, dtypes, nn, optim
from tensorgrad.cli.main import main
from tensorgrad.errors import DeviceError, GradientError, ShapeError
from tensorgrad.ops.table import OPERATIONS, Operation
from tensorgrad.sparse import SparseGradient
from tensorgrad.training import Checkpointing, GradientNorms, NanStop, Trainer
from tensorgrad.training.checkpoint import load_checkpoint, save_checkpoint

ROWS = list(OPERATIONS.values())
EVERY_CASE = pytest.mark.parametrize(
    ("row", "number"),
    [pytest.param(row, i, id=f"{row.name}-{i}") for row in ROWS for i in range(len(row.cases))],
)


@pytest.fixture(scope="module", autouse=True, params=["kernels", "CuPy alone"])
def installed(request: pytest.FixtureRequest) -> Iterator[Standin]:
    """With the hand-written kernels, run by the emulator, and with CuPy's functions alone."""
    kernels = request.param == "kernels"
    reason = emulator.available()
    if kernels and reason is not None:
        pytest.skip(reason)
    with cupy_standin.installed(kernels) as module:
        yield module


@pytest.fixture(autouse=True)
def _fresh_log(installed: Standin) -> None:
    log.clear()


# --- the stand-in itself --------------------------------------------------------------------------


def test_record_is_of_the_installed_cupy() -> None:
    """The record of what CuPy accepts is that of CuPy, where it is installed."""
    import subprocess
    import sys

    code = "import cupy; from standin import record; print(record.written(cupy), end='')"
    tests = Path(__file__).parent
    found = subprocess.run([sys.executable, "-c", code], cwd=tests, capture_output=True, text=True)
    if found.returncode:
        assert "No module named 'cupy'" in found.stderr
        pytest.skip("CuPy is not installed")
    theirs, ours = found.stdout, record.RECORD.read_text()
    if theirs.split("\n")[0] != ours.split("\n")[0]:
        pytest.skip(f"the record is of {ours.split(chr(10))[0]}")
    assert theirs == ours


def test_refuses_what_cupy_refuses(installed: Standin) -> None:
    xp: Any = installed
    a = xp.arange(4, dtype=xp.float32)
    one = np.ones(4, np.float32)
    zero_d = np.array(1.0, np.float32)
    refused: list[Callable[[], Any]] = [
        lambda: np.asarray(a),
        lambda: a + one,
        lambda: one + a,
        lambda: a + zero_d,
        lambda: zero_d * a,
        lambda: xp.maximum(a, zero_d),
        lambda: xp.less(a, zero_d),
        lambda: xp.concatenate([a, one]),
        lambda: xp.sum(one),
        lambda: xp.exp(a, where=a > 0),
        lambda: xp.sum(a, where=a > 0),
        lambda: a.sum(initial=1.0),
        lambda: xp.add(a, None),
        lambda: xp.logical_and(a, [1]),
        lambda: xp.bitwise_and(a, a),
        lambda: xp.add(a, a, out=xp.zeros(4, xp.int64)),
        lambda: xp.zeros(3, dtype=xp.int8).__index__(),
        lambda: xp.add.at(xp.zeros(3, xp.int16), xp.zeros(2, xp.int64), 1),
        lambda: weakref.ref(a.data.mem),
    ]
    for call in refused:
        with pytest.raises((TypeError, AttributeError)):
            call()
    with pytest.raises(NotImplementedError):
        xp.maximum.reduce(a)
    with pytest.raises(NotImplementedError):
        xp.negative.at(a, 0)
    for name in ("errstate", "vectorize", "nditer", "emath"):
        with pytest.raises(AttributeError):
            getattr(xp, name)
    with pytest.raises(ValueError, match="stable"):
        xp.argsort(a, kind="quicksort")
    with pytest.raises(ValueError, match="non-scalar"):
        a[1:] = one[1:]


def test_is_as_nasty_as_cupy_may_be(installed: Standin) -> None:
    xp: Any = installed
    assert np.isnan(xp.empty(3, xp.float32).get()).all()
    assert np.isnan(xp.empty_like(xp.ones((2, 2))).get()).all()
    a = xp.zeros(3)
    a[xp.array([1, 1, 4])] = xp.array([5.0, 6.0, 7.0])
    np.testing.assert_array_equal(a.get(), [0, 5, 0])
    assert type(a.sum()) is type(a[0]) is xp.ndarray
    assert xp.where(a > 0, a.astype(dtypes.bfloat16), 0).dtype == xp.float32


def test_promotes_as_numpy_2(installed: Standin) -> None:
    xp: Any = installed
    kinds = ["bool", "int8", "uint8", "int32", "int64", "uint64", "float16", "float32", "float64"]
    for one in kinds:
        a = np.ones(2, one)
        for other in [np.ones(2, kind) for kind in kinds] + [True, 2, 2.0, np.float32(2)]:
            b = xp.array(other) if isinstance(other, np.ndarray) else other
            for name in ("add", "multiply", "true_divide", "maximum", "arctan2"):
                wanted = getattr(np, name)(a, other).dtype
                assert getattr(xp, name)(xp.array(a), b).dtype == wanted, (name, one, other)


def test_counts_and_shares_memory(installed: Standin) -> None:
    xp: Any = installed
    a = xp.zeros((3, 4))
    log.clear()
    view = a.T[1:].reshape(-1, 1)[::2]
    assert view.data.mem is not a.data.mem  # that reshape had to copy
    assert a[1:, 2].T.data.mem is a.data.mem
    assert a[1:].T.base is a
    assert (log.launches, sum(log.syncs.values())) == (1, 0)
    float((a + 1).sum())
    bool(a[0, 0])
    a.get()
    assert dict(log.syncs) == {"float": 1, "bool": 1, "get": 1}
    assert log.launches == 3


def test_everything_is_put_back() -> None:
    import sys

    with cupy_standin.installed():
        assert backend.cuda_is_available()
    assert sys.modules["cupy"] is cupy_standin.MODULE  # that of the module's fixture
    assert backend.cuda_is_available()


# --- the table of operations ----------------------------------------------------------------------


def placed(row: Operation, number: int, device: str, dtype: Any) -> tuple[Any, list[Tensor]]:
    """The result of a case on ``device``, and the leaves it was computed from."""
    call, leaves = draw(row, number).tensors(device, dtype, requires_grad=row.gradient)
    kwargs = dict(call.kwargs)
    parameters = inspect.signature(row.function).parameters
    if "device" in parameters:
        kwargs["device"] = device
    if "dtype" in parameters and not call.args and leaves:
        kwargs["dtype"] = dtype
    return row.function(*call.args, **kwargs), leaves


def gradients(result: Any, leaves: Sequence[Tensor]) -> list[Array]:
    """The gradients of the results, each weighted by numbers that depend on its place alone."""
    total: Any = None
    for y in outputs(result):
        if y.requires_grad:
            weights = np.cos(np.arange(y.size) * 1.7).reshape(y.shape)
            part = tg.sum(y * Tensor(weights, dtype=y.dtype, device=y.device))
            total = part if total is None else total + part
    if total is not None:
        total.backward()
    for x in leaves:
        if x.grad is not None:
            assert (x.grad.dtype, x.grad.device) == (x.dtype, x.device)
    return [np.zeros(x.shape) if x.grad is None else host(x.grad) for x in leaves]


def assert_agree(found: Any, wanted: Any, tolerance: float) -> None:
    for a, b in zip(outputs(found), outputs(wanted), strict=True):
        a, b = host(a), host(b)
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        a, b = a.astype(np.float64), b.astype(np.float64)
        scale = max(1.0, float(np.abs(b).max(initial=0.0, where=np.isfinite(b))))
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * scale)


TOLERANCES = {"float64": 1e-13, "float32": 4e-6, "float16": 4e-3, "bfloat16": 3e-2}


def compare(row: Operation, number: int, dtype: Any) -> None:
    tolerance = TOLERANCES[str(dtype)]
    on_cpu, cpu_leaves = placed(row, number, "cpu", dtype)
    on_gpu, gpu_leaves = placed(row, number, "cuda", dtype)
    for y in outputs(on_gpu):
        assert y.device == "cuda:0", f"a result is on {y.device}"
    assert_agree(on_gpu, on_cpu, tolerance)
    if row.gradient:
        wanted = gradients(on_cpu, cpu_leaves)
        assert_agree(gradients(on_gpu, gpu_leaves), wanted, 4 * tolerance)


@EVERY_CASE
def test_operation(row: Operation, number: int) -> None:
    """In float32, where a float64 that slips in shows; the first case in float64 too."""
    compare(row, number, dtypes.float32)
    if number == 0:
        compare(row, number, dtypes.float64)


@pytest.mark.parametrize("dtype", [dtypes.float16, dtypes.bfloat16], ids=str)
@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.name)
def test_operation_in_16_bits(row: Operation, dtype: Any) -> None:
    compare(row, 0, dtype)


SECOND: list[Callable[[Tensor], Tensor]] = [
    lambda x: tg.tanh(x) * x,
    lambda x: tg.softmax(x, axis=1) * x,
    lambda x: x[[0, 2, 0]] ** 3,
    lambda x: tg.matmul(x, x.T).exp(),
    lambda x: tg.where(x > 0, x * x, tg.sin(x)),
    lambda x: nn.functional.cross_entropy(x * x, Tensor([1, 0, 2], device=x.device)),
    lambda x: tg.cumulative_prod(x, axis=1),
    lambda x: tg.sort(x * x, axis=0),
    lambda x: tg.logsumexp(x, axis=0).pow(2.5),
]


@pytest.mark.parametrize("function", SECOND)
def test_second_order(function: Callable[[Tensor], Tensor], rng: np.random.Generator) -> None:
    values = rng.uniform(0.2, 1.5, (3, 4))
    found = []
    for device in ("cpu", "cuda"):
        x = Tensor(values, device=device, requires_grad=True)
        (g,) = tg.autograd.grad(tg.sum(function(x)), x, create_graph=True)
        (h,) = tg.autograd.grad(tg.sum(g * g), x)
        found.append(h)
    assert found[1].device == "cuda:0"
    assert_agree(found[1], found[0], 1e-12)


def test_derivatives_of_functions(rng: np.random.Generator) -> None:
    values = rng.uniform(0.5, 1.5, 3)

    def function(x: Tensor) -> Tensor:
        return tg.stack([x[0] * x[1], x[2] ** 2])

    for device in ("cpu", "cuda", "cuda:1"):
        x = Tensor(values, device=device)
        a, b, c = values
        np.testing.assert_allclose(
            host(tg.autograd.jacobian(function, x)), [[b, a, 0], [0, 0, 2 * c]]
        )
        hessian = tg.autograd.hessian(lambda t: tg.sum(function(t)), x)
        np.testing.assert_allclose(host(hessian), [[0, 1, 0], [1, 0, 0], [0, 0, 2]])


# --- random numbers -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_random_numbers_are_those_of_the_cpu(dtype: str) -> None:
    drawn: list[list[Tensor]] = []
    for device in ("cpu", "cuda", "cuda:1"):
        generator = tg.random.Generator(7)
        draws = [
            generator.uniform((3, 5), -1.0, 2.0, dtype=dtype, device=device),
            generator.normal((7,), 1.0, 2.0, dtype=dtype, device=device),
            generator.randint(3, 900, (4, 2), device=device),
            generator.permutation(11, device=device),
            generator.bernoulli(0.3, (9,), dtype=dtype, device=device),
            tg.dropout(tg.ones((6, 6), dtype=dtype, device=device), 0.4, generator=generator),
        ]
        assert all(x.device.startswith(device) for x in draws)
        drawn.append(draws)
    for number, (x, *others) in enumerate(zip(*drawn, strict=True)):
        for other in others:
            if number == 1 and dtype == "float32":  # of the same words, by functions in float32
                np.testing.assert_array_max_ulp(host(other), host(x), 2)
            else:
                np.testing.assert_array_equal(host(other), host(x))


# --- between host and devices ---------------------------------------------------------------------


def test_transfers_carry_gradients() -> None:
    x = Tensor([1.0, 2.0, 3.0], requires_grad=True)
    there = (x * 2).cuda()
    assert (there.device, there.dtype) == ("cuda:0", x.dtype)
    other = (there * there).cuda(1)
    assert other.device == "cuda:1"
    back = tg.exp(other * 0.01).cpu()
    loss = tg.sum(back) + tg.sum(there.to("cpu", dtype=tg.float64))
    loss.backward()
    assert x.grad is not None
    assert x.grad.device == "cpu"
    values = np.array([1.0, 2.0, 3.0])
    wanted = np.exp(0.04 * values**2) * 0.08 * values + 2
    np.testing.assert_allclose(x.grad.numpy(), wanted, rtol=1e-6)
    assert there.cuda() is there
    assert there.to("cuda:0").to("cuda") is there


def grown(seed: int, device: str) -> list[Array]:
    """The gradients of a graph whose values are used more than once, by operations with kernels
    and without; some of its values are kept, hooked, on another device, or differentiated twice."""
    rng = np.random.default_rng(seed)
    leaves = [
        Tensor(rng.standard_normal((4, 4)), dtype="float32", device=device, requires_grad=True)
        for _ in range(3)
    ]
    bias = Tensor(rng.standard_normal(4), dtype="float32", device=device, requires_grad=True)
    pool: list[Tensor] = list(leaves)
    steps: list[Callable[[Tensor, Tensor], Tensor]] = [
        lambda a, b: tg.relu(a) + b,
        lambda a, b: tg.softmax(a, axis=1) * b,
        lambda a, b: a @ b * 0.3,
        lambda a, b: tg.bias_activation(a, bias, "tanh") - b,
        lambda a, b: nn.functional.linear(a, b, bias) * 0.3,
        lambda a, b: nn.functional.layer_norm(a, (4,), bias, bias) * b,
        lambda a, b: a[1:3].sum() * b + a[:, [0, 2, 0, 1]],
        lambda a, b: tg.gelu(a.T) + tg.gelu(a),
    ]
    kept = []
    for k in range(9):
        a, b = (pool[int(rng.integers(max(0, len(pool) - 5), len(pool)))] for _ in range(2))
        y = steps[int(rng.integers(len(steps)))](a, b)
        if k == 3:
            y.register_hook(lambda g: g * 0.5)
        if k == 5:
            y = tg.tanh(y).retain_grad()
            kept.append(y)
        if k == 6 and device != "cpu":
            y = y.to("cuda:1" if y.device == "cuda:0" else "cuda:0").to(y.device)
        pool.append(y)
    labels = Tensor(rng.integers(0, 4, 4), device=device)
    loss = nn.functional.cross_entropy(sum(pool[3:], pool[0]), labels)
    loss.backward(retain_graph=True)
    if seed % 2:
        loss.backward()  # added to the first
    found = [host(x.grad).copy() for x in (*leaves, bias, *kept) if x.grad is not None]
    found += [host(g) for g in tg.autograd.grad(tg.relu(pool[0] * leaves[0]).sum(), pool[0])]
    return found


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_graphs_agree(seed: int, device: str) -> None:
    on_gpu, on_cpu = grown(seed, device), grown(seed, "cpu")
    for a, b in zip(on_gpu, on_cpu, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5 * max(1.0, float(np.abs(b).max())))
    assert Tensor(0.0, device="cuda").device == "cuda:0"  # the current device is as it was


def test_gradients_meet_on_the_device_of_the_tensor() -> None:
    """A tensor used on two devices: its gradients are added where it is."""
    x = Tensor([1.0, 2.0], device="cuda:1", requires_grad=True)
    y = x * 3.0
    total = tg.sum(y.to("cuda:0") * 2.0) + tg.sum(y.to("cuda:0")) + tg.sum(y * y).to("cuda:0")
    total.backward()
    assert x.grad is not None
    assert x.grad.device == "cuda:1"
    np.testing.assert_allclose(host(x.grad), 9 + 18 * np.array([1.0, 2.0]))


def test_work_stays_on_the_second_device(rng: np.random.Generator) -> None:
    """Also where the current device is the first: operations, gradients, sums, optimizer."""
    x = Tensor(rng.normal(size=(4, 3)), device="cuda:1", requires_grad=True)
    loss = tg.mean(tg.softmax(x, axis=1) ** 2 + x) + tg.sum(x[[0, 0, 1]])
    loss.backward(retain_graph=True)
    loss.backward()
    assert x.grad is not None
    assert {loss.device, x.grad.device, x.clone().device, tg.zeros_like(x).device} == {"cuda:1"}
    for make in (optim.SGD, optim.Adam):
        step = make([x], lr=0.1)
        step.step()
        assert {t.device for t in step.state[x].values()} <= {"cuda:1"}
        step.load_state_dict(step.state_dict())
        step.step()
    assert x.device == "cuda:1"
    x.grad = None
    x.backward(tg.ones_like(x))
    assert x.grad is not None
    assert x.grad.device == "cuda:1"
    assert 1.0 not in x.grad * 2.0
    copied = copy.deepcopy(nn.Linear(2, 2).to("cuda:1"))
    assert {p.device for p in copied.parameters()} == {"cuda:1"}


MIXES: list[Callable[[Tensor, Tensor], Any]] = [
    lambda a, b: a + b,
    lambda a, b: tg.concat([a, b]),
    lambda a, b: tg.where(a > 0, a, b),
    lambda a, b: tg.matmul(a, b),
    lambda a, b: (a.requires_grad_() * 1.0).backward(b),
]


def test_mixing_devices_is_refused() -> None:
    cpu, gpu = Tensor([1.0]), Tensor([1.0], device="cuda")
    second = Tensor([1.0], device="cuda:1")
    for one, other in [(cpu, gpu), (gpu, cpu), (gpu, second), (second, gpu), (second, cpu)]:
        for mix in MIXES:
            with pytest.raises(DeviceError) as caught:
                mix(one.detach(), other)
            assert one.device in str(caught.value)
            assert other.device in str(caught.value)
    with pytest.raises(DeviceError, match=r"cpu.*cuda:0|cuda:0.*cpu"):
        gpu + np.ones(1, np.float32)
    with pytest.raises(DeviceError, match=r'"cuda:2" does not exist: there are 2 GPUs'):
        Tensor(1.0, device="cuda:2")
    with pytest.raises(DeviceError, match="cuda:0"):
        np.asarray(gpu)


BESIDE: list[Callable[[Any, Any], Tensor]] = [
    tg.add, tg.subtract, tg.multiply, tg.divide, tg.pow, tg.atan2, tg.hypot, tg.maximum, tg.minimum,
    tg.remainder, tg.logaddexp, lambda a, b: tg.where(a >= b, a, b),
]  # fmt: skip


@pytest.mark.parametrize(
    "number", [2, -1.5, 0, True, False, np.float64(2), np.bool_(True)], ids=repr
)
@pytest.mark.parametrize("function", BESIDE)
def test_plain_numbers_beside_arrays(function: Callable[[Any, Any], Tensor], number: Any) -> None:
    """A number has no device: forward and backward, on either side, as on the CPU."""
    for first in (True, False):
        found = []
        for device in ("cpu", "cuda"):
            x = Tensor([1.0, 2.0, 0.5, -1.0], device=device, requires_grad=True)
            with np.errstate(all="ignore"):
                y = function(x, number) if first else function(number, x)
                tg.sum(y).backward()
            assert y.device.startswith(device)
            assert y.dtype == x.dtype
            found.append([host(y), np.zeros(4) if x.grad is None else host(x.grad)])
        for one, other in zip(*found, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5)


@pytest.mark.parametrize("shape", [(3,), (3, 3), (2, 3, 3)])
@pytest.mark.parametrize("number", [2, 1.5, True])
def test_a_number_is_no_matrix(number: Any, shape: tuple[int, ...]) -> None:
    x = tg.ones(shape, device="cuda")
    for a, b in ((x, number), (number, x)):
        with pytest.raises(ShapeError, match=r"write a \* b"):
            tg.matmul(a, b)


def test_precision_of_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """TF32 is off unless asked for, and refused where there is none."""
    assert tg.get_float32_matmul_precision() == "highest"
    tg.set_float32_matmul_precision("high")
    assert tg.get_float32_matmul_precision() == "high"
    tg.set_float32_matmul_precision("highest")
    assert tg.get_float32_matmul_precision() == "highest"
    with pytest.raises(ValueError, match="highest"):
        tg.set_float32_matmul_precision("medium")
    monkeypatch.setattr(cupy_standin.Device, "compute_capability", "75")
    with pytest.raises(DeviceError, match=r"8\.0"):
        tg.set_float32_matmul_precision("high")


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What cuBLAS is asked for: types of the factors and the result, compute type, and matrices."""
    found: list[tuple[Any, ...]] = []
    right = cublas.gemm

    def watched(*given: Any) -> int:
        found.append((given[7], given[16], given[-2], given[-3]))
        return right(*given)

    monkeypatch.setattr(cublas, "gemm", watched)
    return found


@pytest.mark.parametrize(
    ("one", "two"), [((2, 3, 4), (2, 4, 5)), ((2, 1, 3, 4), (5, 4, 2)), ((3, 4), (4, 5))]
)
def test_precision_of_every_product(
    one: tuple[int, ...], two: tuple[int, ...], products: list[tuple[Any, ...]]
) -> None:
    draw = np.random.default_rng(0)
    try:
        for precision, compute in [("highest", 68), ("high", 77), ("highest", 68)]:
            tg.set_float32_matmul_precision(precision)
            for dtype in (tg.float32, tg.float64):
                a, b = (
                    Tensor(draw.normal(size=shape), dtype=dtype, device="cuda", requires_grad=True)
                    for shape in (one, two)
                )
                products.clear()
                (a @ b).sum().backward()
                wanted = (0, 0, compute) if dtype == tg.float32 else (1, 1, 70)
                assert {given[:3] for given in products} == {wanted}
    finally:
        tg.set_float32_matmul_precision("highest")


def test_shares_memory_with_whatever_speaks_the_interface(installed: Standin) -> None:
    """An array that is not CuPy's, such as PyTorch's, and one that comes before any other."""

    class Foreign:
        def __init__(self, array: Any) -> None:
            self.__cuda_array_interface__ = array.__cuda_array_interface__

    array = installed.arange(4, dtype=np.float32)
    x = Tensor(Foreign(array), copy=None)
    array += 1
    assert x.device == "cuda:0"
    assert x.tolist() == [1, 2, 3, 4]
    backend.BACKENDS.pop(installed.ndarray)
    assert tg.exp(array).device == "cuda:0"


def test_making_tensors_from_arrays(installed: Standin) -> None:
    xp: Any = installed
    array = xp.arange(3, dtype=xp.float32)
    shared = Tensor(array, copy=None)
    assert shared.data is array
    assert shared.device == "cuda:0"
    assert Tensor(array).data.data.mem is not array.data.mem
    assert Tensor(array, device="cuda:1").device == "cuda:1"
    assert Tensor(array, device="cpu").tolist() == [0, 1, 2]
    assert Tensor(array, dtype="bfloat16").dtype == dtypes.bfloat16
    with pytest.raises(ValueError, match="copy"):
        Tensor(np.ones(2), device="cuda", copy=False)
    with pytest.raises(ValueError, match="copy"):
        Tensor(array, dtype=tg.float64, copy=False)
    assert tg.arange(3, device="cuda").device == "cuda:0"
    assert str(Tensor([1.5], device="cuda")) == "Tensor([1.5], device='cuda:0')"
    assert Tensor(array, copy=None).__cuda_array_interface__["shape"] == (3,)
    assert tg.from_dlpack(array).data.data.mem is array.data.mem
    assert tg.from_dlpack(Tensor(array, copy=None)).device == "cuda:0"


def test_default_device(defaults: None) -> None:
    backend.set_default_device("cuda:1")
    assert Tensor([1.0]).device == "cuda:1"
    assert tg.random.normal((2,)).device == "cuda:1"
    backend.set_default_device("auto")
    assert tg.zeros(2).device == "cuda:0"


def test_info_names_the_devices(capsys: pytest.CaptureFixture[str]) -> None:
    assert not main(["info"])
    shown = capsys.readouterr().out
    assert "cuda:0 stand-in for a GPU, cuda:1 stand-in for a GPU" in shown


# --- values overwritten ---------------------------------------------------------------------------


def test_overwriting() -> None:
    x = Tensor(np.arange(12.0).reshape(3, 4), device="cuda")
    x[1] = 5.0
    x[:, 0] = Tensor([7.0, 8.0, 9.0], device="cuda")
    x[[2, 2], [3, 3]] = Tensor([-1.0, -2.0], device="cuda")
    x[x == 5.0] = 0.5
    x[0, 1:3] = np.array([1.25, 2.25]).tolist()
    wanted = [[7, 1.25, 2.25, 3], [8, 0.5, 0.5, 0.5], [9, 9, 10, -2]]
    np.testing.assert_array_equal(host(x), wanted)
    memory = x.data
    x += 1.0
    x *= Tensor([2.0], device="cuda")
    assert x.data is memory
    x.copy_(np.ones(4))
    np.testing.assert_array_equal(host(x), np.ones((3, 4)))
    y = Tensor([1.0, 2.0, 3.0], device="cuda", requires_grad=True)
    z = y * 2
    z[[1, 1]] = tg.stack([y[0], y[2]])
    z.backward(Tensor([1.0, 10.0, 100.0], device="cuda"))
    assert y.grad is not None
    np.testing.assert_array_equal(host(y.grad), [2, 0, 210])


SPOILERS: list[Callable[[Tensor], Any]] = [
    lambda t: t.copy_(0.0),
    lambda t: t.detach().reshape(2, 1)[1:].copy_(5.0),
    lambda t: t.__setitem__(0, 3.0),
    lambda t: t.__iadd__(1.0),
]


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_overwritten_values_are_noticed(device: str) -> None:
    x = Tensor([1.0, 2.0], device=device, requires_grad=True)
    for spoil in SPOILERS:
        w = Tensor([3.0, 4.0], device=device)
        y = tg.sum(x * w)
        spoil(w)
        with pytest.raises(GradientError, match="multiply needs its input 'x2'"):
            y.backward()
    tg.sum(x * w).backward()


def test_memory_is_recognised_by_its_array() -> None:
    """CuPy's memory objects cannot be referred to weakly, its arrays can: on CuPy itself."""
    import subprocess
    import sys

    code = """
import weakref
import cupy
from cupy.cuda import memory
held = memory.UnownedMemory(4096, 64, None, 0)  # never read: there need not be a device
x = cupy.ndarray((2, 8), "float32", memory.MemoryPointer(held, 0))
views = x[1:], x.T, x.reshape(-1)[2:], x[0, 0], cupy.broadcast_to(x[0], (3, 8)), x.view("int32")
assert x.base is None and all(v.base is x for v in views)
assert weakref.ref(x)() is x
try:
    weakref.ref(x.data.mem)
except TypeError:
    print("as expected")
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if "No module named 'cupy'" in found.stderr:
        pytest.skip("CuPy is not installed")
    assert found.stdout == "as expected\n", found.stderr


# --- training -------------------------------------------------------------------------------------


def network() -> nn.Module:
    tg.manual_seed(3)
    return nn.Sequential(
        nn.Linear(5, 8), nn.Tanh(), nn.Dropout(0.25), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)
    )


def batches(device: str) -> data.DataLoader:
    rng = np.random.default_rng(5)
    examples = rng.normal(size=(12, 5)).astype(np.float32), rng.integers(0, 3, 12)
    return data.DataLoader(
        data.TensorDataset(*examples), batch_size=4, shuffle=True, seed=1, device=device
    )


OPTIMIZERS: list[Callable[[Any], optim.Optimizer]] = [
    lambda params: optim.SGD(params, lr=0.1),
    lambda params: optim.SGD(params, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    lambda params: optim.Adam(params, lr=0.01, amsgrad=True, weight_decay=0.01),
    lambda params: optim.AdamW(params, lr=0.01),
    lambda params: optim.RMSprop(params, lr=0.01),
    lambda params: optim.Adagrad(params, lr=0.1),
    lambda params: optim.LAMB(params, lr=0.01, weight_decay=0.01),
    lambda params: optim.Adafactor(params, lr=0.05, weight_decay=0.01),
]


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
@pytest.mark.parametrize("make", OPTIMIZERS)
def test_training_agrees(make: Callable[[Any], optim.Optimizer], device: str) -> None:
    losses, ends = [], []
    for place in ("cpu", device):
        model = network().to(place)
        optimizer = make(model.parameters())
        seen = []
        for x, t in batches(place):
            assert x.device.startswith(place)
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), t)
            loss.backward()
            optim.clip_grad_norm_(model.parameters(), 1.0)
            optim.clip_grad_value_(model.parameters(), 0.4)
            optimizer.step()
            seen.append(loss.item())
        losses.append(seen)
        ends.append([host(p) for p in model.parameters()])
    np.testing.assert_allclose(losses[1], losses[0], rtol=2e-6)
    for a, b in zip(*ends, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


OF_ROWS: list[Callable[[Any], optim.Optimizer]] = [
    lambda params: optim.SGD(params, lr=0.1),
    lambda params: optim.Adagrad(params, lr=0.1),
    lambda params: optim.SparseAdam(params, lr=0.1),
    lambda params: optim.Adam(params, lr=0.1),
]


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
@pytest.mark.parametrize("make", OF_ROWS)
def test_gradients_of_rows_and_of_slices_agree(
    make: Callable[[Any], optim.Optimizer], device: str
) -> None:
    ends = []
    start = np.random.default_rng(0).standard_normal((9, 4)).astype(np.float32)
    for place in ("cpu", device):
        draw = np.random.default_rng(1)
        table = nn.Embedding.from_pretrained(
            Tensor(start, device=place), freeze=False, padding_idx=2, sparse=True
        )
        optimizer = make(table.parameters())
        for _ in range(3):
            optimizer.zero_grad()
            for _ in range(2):
                x = table(Tensor(draw.integers(-9, 9, (5, 3)), device=place)) * 1.5
                y = sum((x[t, :2].square().sum() for t in range(5)), x[:, -1].sum())
                y.backward()
            assert isinstance(table.weight.grad, SparseGradient)
            assert table.weight.grad.device.startswith(place)
            optim.clip_grad_norm_(table.parameters(), 2.0)
            optimizer.step()
        found: Any = table.weight.grad
        ends.append([host(table.weight.detach()), host(found.indices), host(found.values)])
        ends[-1].append(host(found))
    for a, b in zip(*ends, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


def synchronized(make: Callable[[Any], optim.Optimizer]) -> dict[str, int]:
    """What made the host wait in the second step of a training, and nobody had asked for."""
    model = network().cuda()
    optimizer = make(model.parameters())
    for i, (x, t) in enumerate(batches("cuda")):
        if i == 2:
            break
        log.clear()
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), t).backward()
        optim.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return dict(log.syncs)


def test_a_step_does_not_wait_for_the_device() -> None:
    assert synchronized(lambda params: optim.SGD(params, lr=0.1, momentum=0.9)) == {}
    assert synchronized(lambda params: optim.RMSprop(params, lr=0.1)) == {}


def test_adam_waits_only_without_its_kernel() -> None:
    """Its count lies on the device; without the kernel it is read once for each group."""
    waits = {} if backend.cuda_backend().kernels else {"int": 1}  # type: ignore[attr-defined]
    assert synchronized(lambda params: optim.Adam(params, lr=0.1)) == waits


def test_states_travel(tmp_path: Path) -> None:
    model = network().cuda()
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    for x, t in batches("cuda"):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), t).backward()
        optimizer.step()
    assert {v.device for v in model.state_dict().values()} == {"cuda:0"}
    for place in ("cpu", "cuda", "cuda:1"):
        other = network().to(place)
        other.load_state_dict(model.state_dict())
        continued = optim.Adam(other.parameters(), lr=0.5)
        continued.load_state_dict(optimizer.state_dict())
        assert continued.param_groups[0]["lr"] == 0.01
        for p, q in zip(other.parameters(), model.parameters(), strict=True):
            assert p.device.startswith(place)
            np.testing.assert_array_equal(host(p), host(q))
            found = host(continued.state[p]["exp_avg"])
            np.testing.assert_array_equal(found, host(optimizer.state[q]["exp_avg"]))
    save_checkpoint(tmp_path / "model", {"model": model.state_dict()})
    read = load_checkpoint(tmp_path / "model").state["model"]
    for name, value in model.state_dict().items():
        assert read[name].device == "cpu"
        np.testing.assert_array_equal(host(read[name]), host(value))


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_trainer(device: str) -> None:
    ends = []
    for place in ("cpu", device):
        model = network().to(place)
        trainer = Trainer(
            model,
            optim.SGD(model.parameters(), lr=0.1),
            nn.functional.cross_entropy,
            metrics=["accuracy"],
        )
        log.clear()
        record = trainer.fit(batches(place), epochs=2)[-1]
        ends.append((record["train_loss"], record["train_accuracy"]))
    np.testing.assert_allclose(ends[1], ends[0], rtol=1e-5)
    # The figures of an epoch are read when it ends, not after each batch. When a step has become a
    # program, its constants are read, and its replay is compared with the captured one; so it is at
    # the calls 2, 4, 8, ...: twice the number of epochs means as many comparisons more each time.
    found = [dict(log.syncs)]
    for epochs in (4, 8):
        model = network().to(device)
        trainer = Trainer(
            model, optim.SGD(model.parameters(), lr=0.1), nn.functional.cross_entropy,
            metrics=["accuracy"],
        )  # fmt: skip
        log.clear()
        trainer.fit(batches(device), epochs=epochs)
        found.append(dict(log.syncs))
    assert [syncs.pop("float") for syncs in found] == [2 * 3 * 2, 2 * 3 * 4, 2 * 3 * 8]
    reads = [syncs.pop("get") for syncs in found]
    assert reads[2] - reads[1] == reads[1] - reads[0]
    assert all(syncs == found[0] and syncs.keys() <= {"item"} for syncs in found)


TRAINERS: dict[str, dict[str, Any]] = {
    "whole metrics": {"metrics": ["accuracy", "top_5", "f1", "precision", "recall", "roc_auc"]},
    "numbers": {"metrics": ["r2", "mae", "mse"]},
    "average": {"average": 0.9},
    "float16": {"precision": "float16"},
    "bfloat16": {"precision": "bfloat16"},
    "accumulation": {"accumulate": 2, "clip_norm": 0.5},
    "callbacks": {"callbacks": True},
}


@pytest.mark.filterwarnings("ignore:the training step runs without")
@pytest.mark.parametrize("case", TRAINERS)
def test_trainer_options_agree(case: str, tmp_path: Path) -> None:
    """What else a Trainer can do gives the CPU's figures."""
    ends = []
    for place in ("cpu", "cuda"):
        options = dict(TRAINERS[case])
        model = network().to(place)
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0  # its masks follow the shapes, which accumulation changes
        if "average" in options:
            options["average"] = optim.ExponentialMovingAverage(model, options["average"])
        norms = GradientNorms(1)
        if "callbacks" in options:
            options["callbacks"] = [norms, NanStop(2), Checkpointing(tmp_path / place, steps=2)]
        numbers = "r2" in options.get("metrics", ())
        loss = nn.functional.mse_loss if numbers else nn.functional.cross_entropy
        loader = batches(place)
        if numbers:
            rng = np.random.default_rng(5)
            examples = (rng.normal(size=(12, n)).astype(np.float32) for n in (5, 3))
            loader = data.DataLoader(data.TensorDataset(*examples), 4, True, seed=1, device=place)
        trainer = Trainer(model, optim.Adam(model.parameters(), lr=0.01), loss, **options)
        record = trainer.fit(loader, loader, epochs=3)[-1]
        record.pop("seconds")
        ends.append([*record.values(), *[v for row in norms.rows for v in row.values()]])
    tolerance = 3e-2 if "float16" in case else 1e-4
    np.testing.assert_allclose(ends[1], ends[0], rtol=tolerance, atol=tolerance)


def test_trainer_goes_on_where_its_model_has_moved() -> None:
    """With its loss scaler."""
    model = network()
    trainer = Trainer(
        model, optim.SGD(model.parameters(), lr=0.1), nn.functional.cross_entropy,
        precision="float16", compile=False,
    )  # fmt: skip
    for place in ("cpu", "cuda", "cuda:1", "cpu"):
        model.to(place)
        trainer.fit(batches(place), epochs=trainer.epoch + 1)
    assert len(trainer.history) == 4


def test_transforms_on_the_device() -> None:
    """Where a data set lies on a GPU its batches are changed there."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(12, 3, 4)).astype(np.float32)
    labels = rng.integers(0, 3, 12)
    change = data.transforms.Compose(
        data.transforms.RandomFlip(0.5),
        data.transforms.RandomShift(1),
        data.transforms.Normalize(0.5, 2.0),
        data.transforms.GaussianNoise(0.1),
        data.transforms.TargetRange(3),
    )
    found = []
    for place in ("cpu", "cuda"):
        examples = data.TensorDataset(Tensor(images, device=place), Tensor(labels, device=place))
        loader = data.DataLoader(examples, 5, transform=change, seed=3, device=place)
        found.append([host(part) for batch in loader for part in batch])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


def test_profile_waits_for_the_device() -> None:
    """Times are those of the computation, and memory is followed."""
    model = network().cuda()
    x = Tensor(np.ones((4, 5), np.float32), device="cuda")
    with tg.profile(model) as found:
        model(x).sum().backward()
    assert found.peak_bytes > 0
    assert "linear backward" in found.totals("operation")


def test_moving_a_model_after_a_step() -> None:
    """The optimizer goes on with its state on the other device."""
    ends = []
    for first, second in (("cpu", "cpu"), ("cuda", "cuda:1"), ("cpu", "cuda"), ("cuda:1", "cpu")):
        model = network().to(first).eval()
        optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for place in (first, second):
            model.to(place)
            for x, t in batches(place):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x), t).backward()
                optimizer.step()
        ends.append(np.concatenate([host(p).reshape(-1) for p in model.parameters()]))
    for end in ends[1:]:
        np.testing.assert_allclose(end, ends[0], rtol=2e-5, atol=2e-6)
