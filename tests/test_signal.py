"""Short-time Fourier transforms against PyTorch's, windows against SciPy's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import signal
from tensorgrad.autograd import gradcheck, gradgradcheck
from tensorgrad.errors import ShapeError

WINDOWS: list[tuple[str, dict[str, Any]]] = [
    ("bartlett", {}),
    ("blackman", {}),
    ("cosine", {}),
    ("exponential", {"tau": 2.5}),
    ("gaussian", {"std": 1.7}),
    ("general_cosine", {"a": [0.5, 0.3, 0.2]}),
    ("general_hamming", {"alpha": 0.6}),
    ("hamming", {}),
    ("hann", {}),
    ("kaiser", {"beta": 8.0}),
    ("nuttall", {}),
]


@pytest.mark.parametrize("sym", [True, False])
@pytest.mark.parametrize(("name", "options"), WINDOWS)
def test_windows_are_those_of_scipy(name: str, options: dict[str, Any], sym: bool) -> None:
    scipy = pytest.importorskip("scipy.signal.windows")
    for points in (0, 1, 2, 7, 16):
        found = getattr(signal.windows, name)(points, sym=sym, dtype=tg.float64, **options)
        wanted = getattr(scipy, name)(points, sym=sym, **options)
        np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-12, atol=1e-14)
        assert getattr(signal.windows, name)(points, sym=sym, **options).dtype == tg.float32


def test_windows_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="0 or more; got -1"):
        signal.windows.hann(-1)
    with pytest.raises(ValueError, match="sym=False"):
        signal.windows.exponential(5, center=1.0)
    with pytest.raises(ValueError, match="std must be above 0"):
        signal.windows.gaussian(5, 0.0)


OPTIONS: list[dict[str, Any]] = [
    {},
    {"hop_length": 3, "win_length": 6},
    {"center": False, "normalized": True},
    {"onesided": False, "pad_mode": "constant"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("shape", [(41,), (2, 33)])
def test_stft_and_its_gradient_are_those_of_pytorch(
    shape: tuple[int, ...], options: dict[str, Any], rng: np.random.Generator
) -> None:
    torch = pytest.importorskip("torch")
    a, w = rng.standard_normal(shape), rng.random(options.get("win_length", 8)) + 0.1
    x, window = tg.Tensor(a, requires_grad=True), tg.Tensor(w, requires_grad=True)
    y = signal.stft(x, 8, window=window, **options)
    weights = np.cos(np.arange(y.size)).reshape(y.shape)
    (tg.real(y * weights) + 0.5 * tg.imag(y)).sum().backward()
    s, v = (torch.tensor(t, requires_grad=True) for t in (a, w))
    z = torch.stft(s, 8, window=v, return_complex=True, **options)
    ((z * torch.tensor(weights)).real + 0.5 * z.imag).sum().backward()
    np.testing.assert_allclose(y.detach().numpy(), z.detach().numpy(), rtol=1e-10, atol=1e-12)
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), s.grad.numpy(), rtol=1e-9, atol=1e-12)
    assert window.grad is not None
    np.testing.assert_allclose(window.grad.numpy(), v.grad.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.filterwarnings("ignore:The length of signal is shorter")
@pytest.mark.parametrize("length", [None, 30, 50])
@pytest.mark.parametrize("onesided", [True, False])
def test_istft_is_that_of_pytorch(
    onesided: bool, length: int | None, rng: np.random.Generator
) -> None:
    torch = pytest.importorskip("torch")
    rows = 5 if onesided else 8
    a = rng.standard_normal((2, rows, 20)) + 1j * rng.standard_normal((2, rows, 20))
    w = rng.random(8) + 0.5
    x = tg.Tensor(a, requires_grad=True)
    y = signal.istft(x, 8, window=tg.Tensor(w), onesided=onesided, length=length)
    s = torch.tensor(a, requires_grad=True)
    z = torch.istft(s, 8, window=torch.tensor(w), onesided=onesided, length=length)
    weights = np.cos(np.arange(y.size)).reshape(y.shape)
    (y * weights).sum().backward()
    (z * torch.tensor(weights)).sum().backward()
    np.testing.assert_allclose(y.detach().numpy(), z.detach().numpy(), rtol=1e-10, atol=1e-12)
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), s.grad.numpy(), rtol=1e-9, atol=1e-12)


def test_there_and_back(rng: np.random.Generator) -> None:
    x = tg.Tensor(rng.standard_normal(64))
    window = signal.windows.hann(16, sym=False, dtype=tg.float64)
    y = signal.istft(signal.stft(x, 16, window=window), 16, window=window, length=64)
    np.testing.assert_allclose(y.numpy(), x.numpy(), rtol=1e-12, atol=1e-14)
    both = tg.Tensor(rng.standard_normal(64) + 1j * rng.standard_normal(64))
    spectra = signal.stft(both, 16, window=window)
    back = signal.istft(spectra, 16, window=window, length=64, return_complex=True)
    np.testing.assert_allclose(back.numpy(), both.numpy(), rtol=1e-12, atol=1e-14)


def test_second_gradients(rng: np.random.Generator) -> None:
    x = tg.Tensor(rng.standard_normal(11), requires_grad=True)
    window = tg.Tensor(rng.random(4) + 0.5, requires_grad=True)

    def power(x: Any, window: Any) -> Any:
        y = signal.stft(x, 4, window=window)
        return tg.real(y) ** 2 + tg.imag(y) ** 2

    assert gradcheck(power, [x, window])
    assert gradgradcheck(power, [x, window])


def test_what_cannot_be_transformed_is_refused() -> None:
    x = tg.Tensor(np.zeros(10))
    with pytest.raises(ShapeError, match="at least n_fft = 16 long; got 10"):
        signal.stft(x, 16, center=False)
    with pytest.raises(ShapeError, match=r"window must have shape \(4,\)"):
        signal.stft(x, 4, window=tg.Tensor(np.ones(3)))
    with pytest.raises(ValueError, match="between 1 and n_fft"):
        signal.stft(x, 4, win_length=5)
    with pytest.raises(ShapeError, match="must have 3 frequencies; got 4"):
        signal.istft(tg.Tensor(np.zeros((4, 5), complex)), 4, onesided=True)
    window = tg.Tensor(np.zeros(4))
    with pytest.raises(ValueError, match="no window covers"):
        signal.istft(tg.Tensor(np.ones((3, 5), complex)), 4, window=window)
