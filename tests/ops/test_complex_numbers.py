"""Complex numbers: dtypes, making, printing, files, exchange with others, random ones."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import Tensor, dtypes, nn, optim
from tensorgrad.errors import DtypeError
from tensorgrad.nn import functional as F  # noqa: N812
from tensorgrad.training import load_checkpoint, save_checkpoint

Z = np.array([[1 + 2j, -0.5j], [3.0, -2 + 0.25j]])


def test_promotion() -> None:
    """As NumPy has it for numbers of one precision; integers and Python's numbers widen nothing."""
    for a, b, wanted in (
        (tg.complex64, tg.float32, tg.complex64), (tg.complex64, tg.float64, tg.complex128),
        (tg.float64, tg.complex64, tg.complex128), (tg.complex64, tg.complex128, tg.complex128),
        (tg.complex64, tg.float16, tg.complex64), (tg.bfloat16, tg.complex128, tg.complex128),
        (tg.complex64, tg.int64, tg.complex64), (tg.bool, tg.complex64, tg.complex64),
    ):  # fmt: skip
        assert tg.result_type(a, b) == tg.result_type(b, a) == wanted
        x, y = tg.ones(2, dtype=a), tg.ones(2, dtype=b)
        assert (x + y).dtype == (y * x).dtype == wanted
        assert tg.can_cast(a, wanted)
    for dtype in (tg.float32, tg.float16, tg.complex64, tg.int8, tg.bool):
        x = tg.ones(2, dtype=dtype)
        for y in (x * 1j, 1j + x, x - np.complex128(1j), x ** (1 + 1j), (2j) ** x):
            assert y.dtype == tg.complex64
    assert (tg.ones(2, dtype=tg.float64) * 1j).dtype == tg.complex128
    assert (tg.ones(2, dtype=tg.complex64) * 2.0).dtype == tg.complex64
    assert (tg.ones(2, dtype=tg.complex64) / 3).dtype == tg.complex64
    assert tg.result_type(tg.int8, 1j) == tg.complex64
    assert not tg.can_cast(tg.complex64, tg.float64)


def test_making_and_reading() -> None:
    assert tg.tensor(Z).dtype == tg.complex128
    assert tg.tensor(Z.tolist()).dtype == tg.complex64
    assert tg.tensor([1, 2j, True]).tolist() == [1, 2j, 1]
    assert tg.asarray([tg.tensor(1.0), 2j]).dtype == tg.complex64
    assert tg.tensor(1j).item() == complex(tg.tensor(1j)) == 1j
    assert tg.full((2,), 1j).tolist() == [1j, 1j]
    assert tg.full_like(tg.tensor(Z), 2 + 1j)[0, 0].item() == 2 + 1j
    assert tg.zeros(2, dtype=tg.complex64).dtype == tg.complex64
    np.testing.assert_allclose(tg.linspace(0, 1j, 3).numpy(), np.linspace(0, 1j, 3))
    assert tg.eye(2, dtype=tg.complex128).tolist() == [[1, 0], [0, 1]]
    assert tg.arange(3, dtype=tg.complex64).tolist() == [0, 1, 2]
    tg.set_default_dtype(tg.float64)
    try:
        assert tg.tensor(1j).dtype == tg.full((1,), 1j).dtype == tg.complex128
    finally:
        tg.set_default_dtype(tg.float32)
    x = tg.tensor(Z)
    assert x[0, 0] == 1 + 2j
    assert bool((x != tg.tensor(Z + 1)).all())
    assert (x == tg.tensor(Z)).all()
    assert 3.0 in x
    assert bool(x[0, 0])
    x[0, 0] = 7j
    assert x[0, 0].item() == 7j
    assert x.conj().dtype == x.dtype
    assert x.real.tolist() == x.data.real.tolist()


def test_complex_numbers_do_not_become_real_by_themselves() -> None:
    x = tg.tensor(Z)
    for call in (
        lambda: x.astype(tg.float64), lambda: tg.tensor(Z, dtype=tg.float32), x.float,
        lambda: tg.tensor([1j], dtype=tg.int64), lambda: tg.full((1,), 1j, dtype=tg.float32),
        lambda: tg.ones(2).copy_(tg.tensor([1j, 2j])), lambda: tg.sum(x, dtype=tg.float32),
        lambda: tg.linspace(0, 1j, 3, dtype=tg.float32), lambda: F.mse_loss(x, x),
        lambda: optim.SGD([tg.tensor(Z, requires_grad=True)], lr=0.1), lambda: x < 2,
    ):  # fmt: skip
        with pytest.raises(DtypeError, match=r"complex|real"):
            call()
    with pytest.raises(TypeError, match="real"):
        float(tg.tensor(1j))


def test_printing() -> None:
    assert repr(tg.tensor([1 + 2j])) == "Tensor([1.+2.j])"
    assert repr(tg.tensor(Z[0])) == "Tensor([ 1.+2.j , -0.-0.5j], dtype=complex128)"
    assert f"{tg.tensor(1 + 2j):.1f}" == "1.0+2.0j"


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_exchange_with_others(dtype: Any) -> None:
    x = tg.tensor(Z.astype(dtype))
    assert np.asarray(x).dtype == dtype
    assert np.shares_memory(np.from_dlpack(x), x.data)
    assert tg.from_dlpack(x.data).dtype == dtype
    for y in (copy.copy(x), copy.deepcopy(x), pickle.loads(pickle.dumps(x)), x.clone()):
        np.testing.assert_array_equal(y.numpy(), x.numpy())
        assert y.dtype == dtype
    torch = pytest.importorskip("torch")
    assert tg.from_dlpack(torch.from_dlpack(x)).numpy().tolist() == x.tolist()


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_checkpoints_hold_complex_numbers(tmp_path: Path, dtype: Any) -> None:
    state = {"x": tg.tensor(Z.astype(dtype)), "a": Z.T.astype(dtype), "e": np.zeros((0, 2), dtype)}
    save_checkpoint(tmp_path / "c", state)
    found = load_checkpoint(tmp_path / "c").state
    assert isinstance(found["x"], Tensor)
    for name, value in state.items():
        assert found[name].dtype == dtype
        np.testing.assert_array_equal(np.asarray(found[name]), np.asarray(value))


def test_weights_go_to_safetensors_as_complex64(tmp_path: Path) -> None:
    class Layer(nn.Module):
        w: Tensor

        def __init__(self, dtype: Any) -> None:
            super().__init__()
            self.register_buffer("w", tg.tensor(Z, dtype=dtype))

    nn.save_safetensors(Layer(tg.complex64), tmp_path / "w")
    model = Layer(tg.complex64)
    model.w.copy_(0.0)
    nn.load_safetensors(model, tmp_path / "w")
    np.testing.assert_array_equal(model.w.numpy(), Z.astype(np.complex64))
    with pytest.raises(DtypeError, match="complex64 alone"):
        nn.save_safetensors(Layer(tg.complex128), tmp_path / "x")


def test_numpy_functions() -> None:
    x = tg.tensor(Z, requires_grad=True)
    for function in (np.real, np.imag, np.conj, np.angle, np.abs, np.exp, np.sum, np.linalg.norm):
        found = function(x)
        assert isinstance(found, Tensor)
        assert found.requires_grad
        np.testing.assert_allclose(found.detach().numpy(), function(Z), rtol=1e-12)
    np.testing.assert_allclose(np.vecdot(x, x).detach().numpy(), np.vecdot(Z, Z))


def test_special_values_are_those_of_numpy() -> None:
    inf, nan = np.inf, np.nan
    parts = [0.0, -0.0, 1.0, inf, -inf, nan]
    z = np.array([complex(a, b) for a in parts for b in parts])
    names = ["exp", "log", "sqrt", "sin", "cosh", "abs", "conj", "angle", "isnan", "isinf"]
    with np.errstate(all="ignore"):
        for name in [*names, "isfinite", "log1p", "asin", "acosh", "atanh"]:
            wanted, found = getattr(np, name)(z), getattr(tg, name)(tg.tensor(z)).numpy()
            np.testing.assert_array_equal(found, wanted)


def test_random_numbers() -> None:
    tg.manual_seed(3)
    z = tg.random.normal((20000,), 1 - 2j, 2.0, dtype=tg.complex64)
    assert z.dtype == tg.complex64
    assert abs(z.mean().item() - (1 - 2j)) < 0.05
    assert abs(z.std().item() - 2.0) < 0.03
    assert abs(z.real.std().item() - z.imag.std().item()) < 0.05
    u = tg.random.uniform((5000,), -1.0, 3.0, dtype="complex128", requires_grad=True)
    assert u.requires_grad
    for part in (u.real, u.imag):
        assert -1 <= part.min().item() < -0.9
        assert 2.9 < part.max().item() <= 3
        assert abs(part.mean().item() - 1) < 0.1
    assert tg.random.normal((), dtype=tg.complex64).shape == ()


def test_anomalies_are_found_in_complex_numbers() -> None:
    anomaly = pytest.raises(
        tg.errors.AnomalyError, match=r"log gave .*absolute values, from 0 to 1"
    )
    with tg.autograd.detect_anomaly(), np.errstate(all="ignore"), anomaly:
        tg.log(tg.tensor([0j, 1j]))


def test_kinds_of_dtypes() -> None:
    assert tg.isdtype(tg.complex64, "complex floating")
    assert tg.finfo(tg.complex128) == tg.finfo(tg.float64)
    assert dtypes.real_of(tg.complex64) == tg.float32
    assert dtypes.complex_of(tg.int8) == tg.complex64
