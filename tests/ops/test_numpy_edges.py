"""Functions with NumPy's names at the edges of what they are for: NumPy's values, or an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import Tensor
from tensorgrad.errors import DtypeError

pytestmark = pytest.mark.filterwarnings("ignore")


def tensor(x: Any, requires_grad: bool = False) -> Tensor:
    return tg.tensor(np.array(x), requires_grad=requires_grad)


# --- polynomials ----------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [[0.1, 0.2], [0.0, 0.0, 0.1, 0.2], [1e-30, 0.1, 0.2]])
def test_a_polynomial_forms_no_power_that_it_does_not_need(p: list[float]) -> None:
    x = tensor(np.array([1e20, 1.0], np.float32), True)
    np.polyval(p, x).sum().backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), np.polyval(np.polyder(p), x.detach().numpy()), 1e-6)


@pytest.mark.parametrize("p", [[], [3.0], [0.0], [0.0, 0.0], [1.0, 2.0], [0.0, 1.0, 2.0]])
def test_short_polynomials_and_infinite_points(p: list[float]) -> None:
    x = np.array([1.5, np.inf, np.nan])
    leaf = tensor(x, True)
    y: Any = np.polyval(p, leaf)
    np.testing.assert_array_equal(y.detach().numpy(), np.polyval(p, x))
    y[0].backward()
    assert leaf.grad is not None
    assert leaf.grad.numpy()[0] == np.polyval(np.polyder(p), 1.5)


# --- powers of 2 ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_ldexp_is_exact_from_the_least_number_to_the_largest(dtype: Any) -> None:
    limits = np.finfo(dtype)
    x = np.array(
        [0, -0.0, 1, -1.3, 0.77, limits.max, limits.tiny, limits.smallest_subnormal, np.inf], dtype
    )
    n = np.unique(np.r_[-2200:2200:7, -1080:-1015, -155:-120, -30:30, 120:130, 1015:1030])
    got: Any = np.ldexp(tensor(x)[:, None], tensor(n))
    assert got.dtype == dtype
    np.testing.assert_array_equal(got.numpy(), np.ldexp(x[:, None], n))


def test_the_gradient_of_ldexp_is_the_power() -> None:
    x = tensor([0.0, 1e-300, 3.0], True)
    y: Any = np.ldexp(x, np.array([1000, 1500, -3]))
    assert y.tolist() == [0.0, np.ldexp(1e-300, 1500), 0.375]
    y.backward(tg.tensor([1.0, 1e-200, 1.0], dtype=tg.float64))
    assert x.grad is not None
    assert x.grad.tolist() == [2.0**1000, np.ldexp(1e-200, 1500), 0.125]


def test_a_real_exponent_of_ldexp_gets_the_gradient_of_the_power() -> None:
    n = tensor([0.5, -3.0, 1200.0], True)
    y = tg.ldexp(tensor([3.0, 2.0, 1e-200]), n)
    y.sum().backward()
    assert n.grad is not None
    np.testing.assert_allclose(n.grad.numpy(), y.detach().numpy() * np.log(2.0), 1e-14)


# --- numbers between two ends ---------------------------------------------------------------------


@pytest.mark.parametrize("endpoint", [True, False])
@pytest.mark.parametrize("num", [0, 1, 2, 3, 6])
@pytest.mark.parametrize(
    ("start", "stop"),
    [(1 + 0j, 1j), (-1.0, 100.0), (-1.0, -100.0), (2 - 1j, -3 + 0.5j), (1.0, 8j), ([1.0, -2.0], 3)],
)
def test_geomspace(start: Any, stop: Any, num: int, endpoint: bool) -> None:
    got: Any = np.geomspace(tensor(start), stop, num, endpoint)
    np.testing.assert_allclose(got.numpy(), np.geomspace(start, stop, num, endpoint), 1e-12)


def test_geomspace_through_the_complex_plane() -> None:
    got: Any = np.geomspace(tensor(-1.0), 100.0, 5, dtype=complex)
    np.testing.assert_allclose(got.numpy(), np.geomspace(-1.0, 100.0, 5, dtype=complex), 1e-12)


@pytest.mark.parametrize("ends", [(0.0, 100.0), (1.0, [2.0, 0.0]), (0j, 1.0)])
def test_geomspace_refuses_an_end_of_0(ends: tuple[Any, Any]) -> None:
    with pytest.raises(ValueError, match=r"geomspace: st.* must not be 0"):
        np.geomspace(tensor(ends[0]), ends[1], 3)


def test_gradients_of_a_complex_geomspace() -> None:
    a, b = tensor(2 - 1j, True), tensor(-3 + 0.5j, True)
    assert tg.autograd.gradcheck(lambda a, b: np.geomspace(a, b, 4), (a, b))  # type: ignore


# --- bins -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("bins", [[3, 2, 1], [1, 2, 3], [3, 2, 2, 1], [2, 2], [5]])
def test_digitize_at_the_edges(bins: list[int], right: bool) -> None:
    x = np.array([0, 1, 1.5, 2, 2.5, 3, 4, 5, np.nan])
    got: Any = np.digitize(tensor(x), np.array(bins), right)
    np.testing.assert_array_equal(got.numpy(), np.digitize(x, bins, right))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_bins_of_one_width_need_finite_ends(bad: float) -> None:
    x: Any = tensor([1.0, bad, 2.0])
    for call in (np.histogram, np.histogram_bin_edges, lambda x: np.histogram2d(x, x)):
        with pytest.raises(ValueError, match="finite"):
            call(x)
    with pytest.raises(ValueError, match="finite"):
        np.histogram(x, range=(0.0, bad))
    got, want = np.histogram(x, 3, (0.0, 3.0)), np.histogram(x.numpy(), 3, (0.0, 3.0))
    np.testing.assert_array_equal(np.asarray(got[0]), want[0])


# --- refusals -------------------------------------------------------------------------------------

COMPLEX: list[tuple[str, Callable[[Any], Any]]] = [
    ("fmod", lambda x: np.fmod(x, 2.0)),
    ("fmod", lambda x: np.fmod(tensor([2.0]), x)),
    ("heaviside", lambda x: np.heaviside(x, 2.0)),
    ("heaviside", lambda x: np.heaviside(tensor([2.0]), x)),
    ("deg2rad", np.deg2rad),
    ("rad2deg", np.rad2deg),
    ("radians", np.radians),
    ("degrees", np.degrees),
    ("isposinf", np.isposinf),
    ("isneginf", np.isneginf),
    ("ldexp", lambda x: np.ldexp(x, 2)),
]


@pytest.mark.parametrize(("name", "call"), COMPLEX)
def test_what_is_not_for_complex_numbers_says_so(name: str, call: Callable[[Any], Any]) -> None:
    with pytest.raises(DtypeError, match=f"^{name} is not for complex numbers"):
        call(tensor([1j]))


def _store(x: Tensor, value: Any) -> None:
    x[0] = value


def test_what_must_hold_is_in_the_message() -> None:
    with pytest.raises(ValueError, match="integers to negative integer powers are not integers"):
        tg.tensor([2]) ** tg.tensor([-1])
    for nan in (float("nan"), np.float32("nan")):
        with pytest.raises(ValueError, match=r"a int64 tensor holds integers alone; got nan; conv"):
            _store(tensor([1, 2]), nan)
    for number in (1j, np.complex64(1j)):
        with pytest.raises(DtypeError, match=r"holds no complex numbers; got .*1j.*; convert it"):
            _store(tensor([1.0, 2.0]), number)
    calls: list[Any] = [np.fft.fft, np.fft.irfft]
    for call in calls:
        with pytest.raises(TypeError, match="the length of a transform must be an integer; got 2"):
            call(tensor([1.0, 2.0]), 2.5)
    with pytest.raises(TypeError, match=r"fft2: the lengths must be an integer; got 2.5"):
        tg.fft.fft2(tensor([[1.0, 2.0]]), 2.5)
