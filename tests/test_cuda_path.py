"""The engine's CUDA path, run on a stand-in for CuPy in the host's memory (standin/cupy_standin.py).

None of this ran on a GPU. It shows that the engine asks of CuPy only what CuPy 14.2 offers, keeps
arrays of the host out of its functions, stays on the right device, reads no memory that was not
written, and gets the CPU's results from the CUDA branches of the operations. It cannot show what
the device itself does: its rounding and order of sums, the speed, what happens at once there, how
much memory is needed, and whether CuPy's kernels compile and are right.
"""

from __future__ import annotations

import inspect
import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sampler import Array, draw, host, outputs
from standin import cupy_standin, record
from standin.cupy_standin import Standin, log

import tensorgrad as tg
from tensorgrad import Tensor, backend, data, dtypes, nn, optim
from tensorgrad.cli.main import main
from tensorgrad.errors import DeviceError, GradientError
from tensorgrad.ops.table import OPERATIONS, Operation

ROWS = list(OPERATIONS.values())
EVERY_CASE = pytest.mark.parametrize(
    ("row", "number"),
    [pytest.param(row, i, id=f"{row.name}-{i}") for row in ROWS for i in range(len(row.cases))],
)


@pytest.fixture(scope="module", autouse=True)
def installed() -> Iterator[Standin]:
    with cupy_standin.installed() as module:
        yield module


@pytest.fixture(autouse=True)
def _fresh_log(installed: Standin) -> None:
    log.clear()


# --- the stand-in itself ----------------------------------------------------------------------------


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
        lambda: weakref.ref(a.data.mem),  # type: ignore[call-overload]
    ]
    for call in refused:
        with pytest.raises((TypeError, AttributeError)):
            call()
    for missing in (lambda: xp.maximum.reduce(a), lambda: xp.negative.at(a, 0)):
        with pytest.raises(NotImplementedError):
            missing()
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


@pytest.mark.parametrize("dtype", [dtypes.float32, dtypes.float64], ids=str)
@EVERY_CASE
def test_operation(row: Operation, number: int, dtype: Any) -> None:
    compare(row, number, dtype)


@pytest.mark.parametrize("dtype", [dtypes.float16, dtypes.bfloat16], ids=str)
@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.name)
def test_operation_in_16_bits(row: Operation, dtype: Any) -> None:
    compare(row, 0, dtype)
