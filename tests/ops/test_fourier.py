"""Discrete Fourier transforms against NumPy; gradients against differences and PyTorch."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import Tensor, fft
from tensorgrad.autograd import gradcheck, gradgradcheck
from tensorgrad.errors import DtypeError, ShapeError

ONE = ["fft", "ifft", "rfft", "irfft", "hfft", "ihfft"]
SEVERAL = ["fft2", "fftn", "ifft2", "ifftn", "irfft2", "irfftn", "rfft2", "rfftn"]
OF_REAL = ["ihfft", "ihfft2", "rfft", "rfft2", "rfftn"]
NORMS = [None, "backward", "ortho", "forward"]
R = np.random.default_rng(1).standard_normal((4, 5, 6))
C = R + 1j * np.random.default_rng(2).standard_normal(R.shape)


def inputs(name: str) -> list[np.ndarray[Any, Any]]:
    return [R] if name in OF_REAL else [C, R]


def assert_same(found: Any, wanted: Any, tolerance: float = 1e-12) -> None:
    assert isinstance(found, Tensor)
    assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
    np.testing.assert_allclose(found.detach().numpy(), wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ONE)
def test_along_one_axis(name: str, norm: str | None) -> None:
    """All lengths, odd ones too, shorter and longer than the input's, and of the smaller dtypes."""
    for x in inputs(name):
        for n, axis in itertools.product((None, 1, 2, 3, 5, 8), (-1, 1, 0)):
            wanted = getattr(np.fft, name)(x, n, axis, norm)
            assert_same(getattr(fft, name)(tg.tensor(x), n=n, axis=axis, norm=norm), wanted)
        small: Any = x.astype({"f": np.float32, "c": np.complex64}[x.dtype.kind])
        wanted = getattr(np.fft, name)(small, 7, 1, norm)
        assert_same(getattr(fft, name)(tg.tensor(small), 7, 1, norm), wanted, 1e-5)


SHAPES = [
    (None, None), (None, (0,)), (None, (0, -1)), ((3, 4), (0, 1)), ((7, 2), (2, 1)), (None, (1, 1)),
    ((3, 5), (1, 1)), ((3, -1), (0, 1)), ((2, 3, 4), (0, 1, 0)),
]  # fmt: skip


@pytest.mark.parametrize("name", SEVERAL)
def test_along_several_axes(name: str) -> None:
    """Axes in any order, and one more than once."""
    for x, (s, axes), norm in itertools.product(inputs(name), SHAPES, (None, "ortho")):
        options: dict[str, Any] = {} if axes is None else {"s": s, "axes": axes}
        wanted = getattr(np.fft, name)(x, norm=norm, **options)
        assert_same(getattr(fft, name)(tg.tensor(x), norm=norm, **options), wanted)


@pytest.mark.parametrize("name", ["hfft2", "hfftn", "ihfft2", "ihfftn"])
def test_those_of_scipy(name: str) -> None:
    theirs = pytest.importorskip("scipy.fft")
    x = R if name[0] == "i" else C
    shapes: list[Any] = [None, (3, 4)]
    for s, norm in itertools.product(shapes, NORMS):
        for axes in ((-2, -1), (0, 1), (2, 0)):
            wanted = getattr(theirs, name)(x, s, axes, norm)
            assert_same(getattr(fft, name)(tg.tensor(x), s, axes, norm), wanted)
    assert_same(getattr(fft, name)(tg.tensor(x)), getattr(theirs, name)(x))


CASES: list[tuple[str, dict[str, Any]]] = [
    ("fft", {}), ("fft", {"n": 3, "norm": "forward"}), ("ifft", {"n": 7, "norm": "ortho"}),
    ("rfft", {}), ("rfft", {"n": 7, "norm": "ortho"}), ("rfft", {"n": 4, "norm": "forward"}),
    ("rfft", {"n": 1}), ("rfft", {"n": 2, "axis": 0}), ("irfft", {}), ("irfft", {"n": 7}),
    ("irfft", {"n": 9, "norm": "ortho"}), ("irfft", {"n": 4, "norm": "forward"}), ("hfft", {}),
    ("irfft", {"n": 1}), ("hfft", {"n": 5, "norm": "ortho"}), ("ihfft", {}), ("fftn", {}),
    ("rfftn", {"s": (3, 4), "axes": (0, 1)}), ("irfftn", {"s": (3, 7), "axes": (0, 2)}),
    ("fft2", {}), ("rfft2", {"norm": "ortho"}), ("irfft2", {}), ("ifftn", {"axes": (1, 1)}),
    ("rfftn", {"axes": (1, 1)}), ("irfftn", {"axes": (1, 1)}), ("hfft2", {}), ("ihfft2", {}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_gradients(name: str, options: dict[str, Any]) -> None:
    """To the second order, and where PyTorch takes the arguments those of PyTorch."""
    a = inputs(name)[0][:3, :3, :5]
    x = Tensor(a, requires_grad=True)
    function = getattr(fft, name)
    assert gradcheck(lambda z: function(z, **options), x)
    assert gradgradcheck(lambda z: tg.abs(function(z, **options)), x)
    torch: Any = pytest.importorskip("torch", reason="compares with PyTorch")
    if len(set(options.get("axes", (0, 1)))) == 1:
        return
    renamed = {{"axis": "dim", "axes": "dim"}.get(k, k): v for k, v in options.items()}
    t = torch.tensor(a, requires_grad=True)
    y = getattr(torch.fft, name)(t, **renamed)
    weights = np.linspace(-1, 1, y.numel()).reshape(y.shape) * (1 - 0.5j)
    torch.real(y * torch.tensor(weights)).sum().backward()
    tg.sum(tg.real(function(x, **options) * tg.tensor(weights))).backward()
    assert x.grad is not None
    np.testing.assert_allclose(
        x.grad.numpy(), t.grad.resolve_conj().numpy(), rtol=1e-10, atol=1e-12
    )


def test_frequencies_and_shifts() -> None:
    for n in (1, 2, 5, 8):
        for name in ("fftfreq", "rfftfreq"):
            found = getattr(fft, name)(n, 0.5, dtype=tg.float64)
            np.testing.assert_array_equal(found.numpy(), getattr(np.fft, name)(n, 0.5))
            assert getattr(fft, name)(n).dtype == tg.float32
    x = tg.tensor(R, requires_grad=True)
    for axes in (None, 1, (0, -1)):
        for name in ("fftshift", "ifftshift"):
            assert_same(getattr(fft, name)(x, axes=axes), getattr(np.fft, name)(R, axes))
    assert_same(fft.ifftshift(fft.fftshift(x)), R)
    assert gradcheck(lambda z: fft.fftshift(z, axes=1), x)


def test_dtypes() -> None:
    for dtype in ("float16", "bfloat16", "int64", "float64"):
        wanted = tg.complex128 if dtype == "float64" else tg.complex64
        x = tg.ones(4, dtype=dtype)
        assert fft.fft(x).dtype == fft.rfft(x).dtype == wanted
    assert fft.irfft(tg.ones(3, dtype=tg.complex64)).dtype == tg.float32
    x = tg.ones(4, dtype=tg.float32, requires_grad=True)
    tg.sum(tg.abs(fft.fft(x))).backward()
    assert x.grad is not None
    assert x.grad.dtype == tg.float32


def test_refusals() -> None:
    x = tg.tensor(C)
    with pytest.raises(DtypeError, match="complex"):
        fft.rfft(x)
    with pytest.raises(ValueError, match="norm must be one of"):
        fft.fft(x, norm="other")
    with pytest.raises(ValueError, match="at least one point"):
        fft.fft(x, 0)
    with pytest.raises(ValueError, match="at least one point"):
        fft.irfft(x[..., :1])
    with pytest.raises(ValueError, match="a length for each axis"):
        fft.fftn(x, (2, 3), (0,))
    for call in (fft.fft, fft.fftn, fft.rfftn):
        with pytest.raises(ShapeError, match="axis"):
            call(tg.tensor(1.0))


def test_numpy_functions() -> None:
    x = tg.tensor(R, requires_grad=True)
    for name in (*ONE, *SEVERAL, "fftshift"):
        found = getattr(np.fft, name)(x)
        assert_same(found, getattr(np.fft, name)(R))
        assert found.requires_grad
    assert np.fft.fft(x, 3, norm="ortho").shape == (4, 5, 3)


def test_programs() -> None:
    def step(x: Tensor) -> Tensor:
        return tg.abs(fft.rfft(x * 2)) + tg.real(fft.fft(x))[..., :4]

    compiled = tg.compile(step, executor="native")
    for k in range(4):
        x = tg.tensor(R * k)
        np.testing.assert_allclose(compiled(x).numpy(), step(x).numpy(), rtol=1e-12, atol=1e-12)
    assert "something else" not in compiled.report()
