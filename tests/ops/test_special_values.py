"""How far the special functions are off, in float64: against mpmath, in units in the last place.

The bounds are those that the functions' modules promise. Narrower floats are computed in float64
and rounded once, which test_table.py tries.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from sampler import Array

from tensorgrad import Tensor, special
from tensorgrad.autograd import grad
from tensorgrad.errors import GradientError
from tensorgrad.ops.table import OPERATIONS

mpmath = pytest.importorskip("mpmath", reason="mpmath is not installed")
mp = mpmath.mp


class Bound(NamedTuple):
    """On ``places`` the error is below ``ulps`` units in the last place of the value.

    Near a zero it may be ``ulps`` units of 1 / 4 instead, where ``near_zeros`` says so.
    """

    name: str
    exact: Callable[..., Any]
    places: Sequence[Array | tuple[Array, ...]]
    ulps: float
    near_zeros: bool = False


def between(low: float, high: float, count: int = 16) -> Array:
    """Numbers between two limits, none of which is a simple one."""
    return low + (high - low) * (np.arange(count) + 0.382) / count


def powers(low: float, high: float, count: int = 16) -> Array:
    """Numbers whose logarithms to base 10 lie between two limits."""
    return 10.0 ** between(low, high, count)


def _normal(x: Any) -> Any:
    return mp.erfc(-x / mp.sqrt(2)) / 2


def _erfcx(x: Any) -> Any:
    if x > 50:
        return mp.hyp2f0(1, 0.5, -1 / (x * x)) / (x * mp.sqrt(mp.pi))
    return mp.exp(x * x) * mp.erfc(x)


def _inverse(function: Callable[[Any], Any], y: Any, guess: Any) -> Any:
    """x with ``function(x) == y``; close to ``guess``."""
    return mp.findroot(lambda x: mp.log(function(x)) - mp.log(y), float(guess))


def _ndtri(y: Any) -> Any:
    return _inverse(_normal, y, special.ndtri(np.array(float(y))))


def _erfcinv(y: Any) -> Any:
    return _inverse(mp.erfc, y, special.erfcinv(np.array(float(y))))


def _gammaln(x: Any) -> Any:
    return mp.log(abs(mp.gamma(x)))


def _betaln(a: Any, b: Any) -> Any:
    return mp.log(mp.beta(a, b))


def _multigammaln(x: Any) -> Any:
    """In three dimensions."""
    return mp.fsum(_gammaln(x - j / 2) for j in range(3)) + 1.5 * mp.log(mp.pi)


def _logit(x: Any) -> Any:
    return mp.log(x) - mp.log1p(-x)


ERRORS = [
    Bound("erfc", mp.erfc, [between(-6, 1), between(1, 27)], 4),
    Bound("erfcx", _erfcx, [between(-26, 0), between(0, 30), powers(-300, 300)], 4),
    Bound("erfinv", mp.erfinv, [between(-1, 1), 1 - powers(-15, -1), powers(-300, -1)], 8),
    Bound("erfcinv", _erfcinv, [between(0, 2), powers(-300, -1)], 8),
    Bound("ndtr", _normal, [between(-37, -1), between(-1, 8)], 5),
    Bound("ndtri", _ndtri, [between(0, 1), powers(-300, -1)], 6),
    Bound("log_ndtr", lambda x: mp.log(_normal(x)), [between(-60, 0), between(0, 9)], 5),
    Bound("logit", _logit, [between(0, 1), powers(-300, -1), 0.5 + powers(-15, -1)], 4),
    Bound("entr", lambda x: -x * mp.log(x), [between(0, 3), powers(-300, 100)], 2),
    Bound("xlogy", lambda x, y: x * mp.log(y), [(between(-3, 3), powers(-300, 100))], 2),
    Bound("xlog1py", lambda x, y: x * mp.log1p(y), [(between(-3, 3), powers(-300, 100))], 2),
    Bound("sinc", mp.sincpi, [between(-9, 9), between(1e5, 1e5 + 9)], 3),
    Bound("spherical_bessel_j0", mp.sinc, [between(-9, 9), between(1e5, 1e5 + 9)], 3),
]
GAMMAS = [
    Bound("gammaln", _gammaln, [between(0, 4), between(3, 40), powers(-300, 300)], 5),
    Bound("gammaln", _gammaln, [1 + powers(-15, -1), 1 - powers(-15, -1), 2 - powers(-15, -1)], 5),
    Bound("gammaln", _gammaln, [between(-12, 0)], 60, True),
    Bound("gamma", mp.gamma, [between(0, 12), between(12, 171), between(-9, 0)], 6),
    Bound("gamma", mp.gamma, [between(-170, -9), powers(-300, -1)], 6),
    Bound("digamma", mp.digamma, [between(0, 12), powers(-300, 300)], 5),
    Bound("digamma", mp.digamma, [between(-12, 0)], 20, True),
    *[
        Bound(f"polygamma {n}", lambda x, n=n: mp.polygamma(n, x), [between(0, 30)], 8)
        for n in (1, 2, 3, 7)
    ],
    *[
        Bound(f"polygamma {n}", lambda x, n=n: mp.polygamma(n, x), [between(-9, 0)], 40)
        for n in (1, 2, 3, 7)
    ],
    Bound("zeta", mp.zeta, [(between(1, 8), powers(-2, 2)), (between(8, 200), powers(-1, 1))], 8),
    Bound("beta", mp.beta, [(powers(-2, 1), powers(-1, 0.8))], 10),
    Bound("beta", mp.beta, [(powers(0.5, 2.2), powers(2.2, 0.4))], 300),
    Bound("beta", mp.beta, [(powers(-2, 1), powers(6, 1))], 300),
    Bound("betaln", _betaln, [(powers(0.5, 5), powers(6, 1))], 6),
    Bound("betaln", _betaln, [(powers(-2, 1), powers(0, 8))], 20, True),
    Bound("multigammaln 3", _multigammaln, [between(1, 30)], 6, True),
]


def _scaled(function: Callable[..., Any], k: int, by: float) -> Callable[[Any], Any]:
    return lambda x: function(k, x) * mp.exp(by * abs(x))


BESSEL = [
    *[
        bound
        for k in (0, 1)
        for bound in (
            Bound(f"i{k}", _scaled(mp.besseli, k, 0), [between(-12, 12), between(8, 700)], 5),
            Bound(f"i{k}e", _scaled(mp.besseli, k, -1), [between(-12, 12), powers(1, 3)], 5),
            Bound(f"k{k}", _scaled(mp.besselk, k, 0), [between(0, 12), between(8, 700)], 7),
            Bound(f"k{k}e", _scaled(mp.besselk, k, 1), [powers(-300, 3), between(0, 4)], 5),
            Bound(f"j{k}", _scaled(mp.besselj, k, 0), [between(-6, 6)], 8),
            Bound(f"j{k}", _scaled(mp.besselj, k, 0), [between(6, 50), powers(2, 5)], 3, True),
            Bound(f"y{k}", _scaled(mp.bessely, k, 0), [between(0, 6)], 16, True),
            Bound(f"y{k}", _scaled(mp.bessely, k, 0), [between(6, 50), powers(2, 5)], 3, True),
        )
    ],
    Bound("airy_ai", mp.airyai, [between(-8, 2)], 16, True),
    Bound("airy_ai", mp.airyai, [between(-1, 2)], 30),
    Bound("airy_ai", mp.airyai, [between(2, 30)], 300),
]


def _lower(a: Any, x: Any) -> Any:
    return mp.gammainc(a, 0, x, regularized=True)


def _upper(a: Any, x: Any) -> Any:
    return mp.gammainc(a, x, mp.inf, regularized=True)


_BOTH = (("gammainc", _lower), ("gammaincc", _upper))
_LARGE = 50 + between(0, 150)
INCOMPLETE = [
    bound
    for name, exact in _BOTH
    for bound in (
        Bound(name, exact, [(powers(-3, 0.5), powers(1, -3))], 40),
        Bound(name, exact, [(powers(-3, 1.3), powers(-2, 1))], 40),
        Bound(name, exact, [(_LARGE, _LARGE * between(0.65, 1.35))], 80),
        Bound(name, exact, [(_LARGE, _LARGE * between(1.35, 0.65))], 80),
        Bound(name, exact, [(between(1, 30), between(0.1, 60))], 500),
        Bound(name, exact, [(between(1, 90), between(200, 5))], 500),
    )
]
EVERY_BOUND = [*ERRORS, *GAMMAS, *BESSEL, *INCOMPLETE]


def called(name: str, *places: Array) -> Array:
    """The values of a function, whose name may end with an order."""
    function, _, order = name.partition(" ")
    of = getattr(special, function)
    if function == "polygamma":
        return np.asarray(of(int(order), *places))
    return np.asarray(of(*places, *([int(order)] if order else [])))


@pytest.mark.parametrize("bound", EVERY_BOUND, ids=lambda bound: bound.name)
def test_errors(bound: Bound) -> None:
    with mp.workdps(40):
        for places in bound.places:
            given = places if isinstance(places, tuple) else (places,)
            found = called(bound.name, *given)
            for y, *x in zip(found.tolist(), *(p.tolist() for p in given), strict=True):
                exact = bound.exact(*(mp.mpf(number) for number in x))
                unit = math.ulp(max(float(abs(exact)), 0.25 if bound.near_zeros else 0.0))
                error = float(abs(mp.mpf(y) - exact) / unit)
                assert error <= bound.ulps, f"{bound.name}{tuple(x)} is {y}, off by {error} ulp"


@pytest.mark.parametrize(
    ("a", "x"),
    [(0.3, 0.7), (2.5, 9.0), (30.0, 20.0), (60.0, 45.0), (70.0, 82.0), (20.0, 55.0), (1e3, 1.02e3)],
)
def test_slopes_of_the_incomplete_gamma_function_in_its_first_argument(a: float, x: float) -> None:
    """First and second ones, relative to the smaller of both functions."""
    at = Tensor(a, dtype="float64", requires_grad=True)
    (first,) = grad(special.gammainc(at, x), at, create_graph=True)
    (second,) = grad(first, at)
    with mp.workdps(50):
        for found, order in ((first, 1), (second, 2)):
            exact = mp.diff(lambda t: _lower(t, x) if x < a else -_upper(t, x), mp.mpf(a), order)
            np.testing.assert_allclose(found.item(), float(exact), rtol=2e-10)


@pytest.mark.parametrize("name", ["gammainc", "gammaincc"])
@pytest.mark.parametrize("a", [45.0, 70.0, 90.0, 100.0, 200.0, 1e3, 1e5, 1e6])
def test_slopes_of_the_incomplete_gamma_functions_where_both_arguments_are_close(
    name: str, a: float
) -> None:
    """The second one has a zero there, so its error is relative to 1 / a."""
    sign = 1.0 if name == "gammainc" else -1.0
    for x in a + np.array([-1.0, -0.1, 0.0, 0.1, 0.5, 2.0]):
        at = Tensor(a, dtype="float64", requires_grad=True)
        (first,) = grad(getattr(special, name)(at, x), at, create_graph=True)
        (second,) = grad(first, at)
        with mp.workdps(50):
            step = mp.sqrt(a) * mp.mpf(10) ** -10
            behind, here, ahead = (_lower(a + k * step, mp.mpf(float(x))) for k in (-1, 0, 1))
            exact = float((ahead - behind) / (2 * step))
            bend = float((ahead - 2 * here + behind) / step**2)
        np.testing.assert_allclose(sign * first.item(), exact, rtol=1e-10)
        np.testing.assert_allclose(sign * second.item(), bend, rtol=0, atol=1e-10 / a)
        narrow = Tensor(a, dtype="float32", requires_grad=True)
        (found,) = grad(getattr(special, name)(narrow, Tensor(x, dtype="float64").float()), narrow)
        np.testing.assert_allclose(sign * found.item(), exact, rtol=1e-6)


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 2e-7), ("float64", 1e-14)])
@pytest.mark.parametrize("name", ["i0e", "i1e", "k0e", "k1e"])
def test_slopes_of_scaled_bessel_functions_are_right_for_large_numbers(
    name: str, dtype: str, bound: float
) -> None:
    of = mp.besseli if name[0] == "i" else mp.besselk
    scale = (lambda x: mp.exp(-abs(x))) if name[0] == "i" else mp.exp
    for x in (-1e6, -30.0, -0.5, 0.5, 0.99, 1.01, 3.3, 7.6, 7.75, 12.0, 1e2, 1e4, 1e6, 1e9):
        if name[0] == "k" and x < 0:
            continue
        at = Tensor(x, dtype=dtype, requires_grad=True)
        (found,) = grad(getattr(special, name)(at), at)
        with mp.workdps(50):
            near = mp.mpf(at.item())
            step = abs(near) * mp.mpf(10) ** -12
            ahead, behind = (scale(p) * of(int(name[1]), p) for p in (near + step, near - step))
            exact = float((ahead - behind) / (2 * step))
        np.testing.assert_allclose(found.item(), exact, rtol=bound)


@pytest.mark.parametrize("order", [0, 1])
def test_second_slopes_of_scaled_bessel_functions_are_right_for_large_numbers(order: int) -> None:
    for x in (-1e6, -30.0, -0.5, 1e-3, 0.5, 3.3, 7.6, 7.75, 12.0, 1e2, 1e4, 1e6, 1e9):
        at = Tensor(x, dtype="float64", requires_grad=True)
        (first,) = grad(getattr(special, f"i{order}e")(at), at, create_graph=True)
        (second,) = grad(first, at, create_graph=True)
        (third,) = grad(second, at)
        with mp.workdps(50):
            near, sign = mp.mpf(x), mp.sign(x)
            y, one, two, three = (mp.besseli(order, near, derivative=k) for k in range(4))
            bend = two - 2 * sign * one + y
            further = three - 3 * sign * two + 3 * one - sign * y
            exact = [float(mp.re(mp.exp(-abs(near)) * d)) for d in (bend, further)]
        np.testing.assert_allclose(second.item(), exact[0], rtol=1e-12)
        np.testing.assert_allclose(third.item(), exact[1], rtol=1e-11 + 1e-15 * abs(x))


def test_where_there_is_no_gradient_an_error_says_so() -> None:
    x, q = (Tensor(v, dtype="float64", requires_grad=True) for v in (2.5, 1.5))
    y = special.zeta(x, q)
    with pytest.raises(GradientError, match="no gradient in x, the exponent"):
        y.backward()
    with pytest.raises(GradientError, match="n is a plain number"):
        special.polygamma(x, q)  # type: ignore[arg-type]
    (first,) = grad(special.gammainc(x, q), x, create_graph=True)
    (second,) = grad(first, x, create_graph=True)
    with pytest.raises(GradientError, match="no third derivative in a"):
        grad(second, x)


@pytest.mark.parametrize("n", [-1, 1.5, 170])
def test_polygamma_refuses_orders_that_there_are_not(n: float) -> None:
    with pytest.raises(ValueError, match="whole number from 0 to 169"):
        special.polygamma(n, Tensor(1.0))  # type: ignore[arg-type]


def test_multigammaln_refuses_a_dimension_that_there_is_not() -> None:
    with pytest.raises(ValueError, match="whole number from 1 on"):
        special.multigammaln(Tensor(3.0), 0)


def test_names_of_pytorch_are_the_same_functions() -> None:
    for name, alias in (
        ("gammaln", "lgamma"), ("digamma", "psi"), ("multigammaln", "mvlgamma"),
        ("gammainc", "igamma"), ("gammaincc", "igammac"), ("i0", "modified_bessel_i0"),
        ("k1e", "scaled_modified_bessel_k1"), ("j0", "bessel_j0"),
    ):  # fmt: skip
        assert getattr(special, name) is getattr(special, alias)
        assert alias in OPERATIONS[name].aliases


@pytest.mark.parametrize("name", ["i0", "sinc"])
def test_functions_of_numpy(name: str) -> None:
    x = Tensor([0.5, 1.5], dtype="float64", requires_grad=True)
    y = getattr(np, name)(x)
    np.testing.assert_allclose(y.detach().numpy(), getattr(np, name)(x.detach().numpy()))
    assert y.requires_grad


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_narrow_floats_are_rounded_once(dtype: str) -> None:
    x = Tensor(between(0.1, 5), dtype=dtype)
    for name in ("gammaln", "erfcx", "k0", "j1"):
        found = getattr(special, name)(x).double().numpy()
        exact = Tensor(getattr(special, name)(x.double()).numpy()).to(dtype).double().numpy()
        step = np.abs(
            np.abs(exact) * 2.0 ** {"float16": -10, "bfloat16": -7, "float32": -23}[dtype]
        )
        assert (np.abs(found - exact) <= step).all()  # equal, but for a tie after two roundings
        assert (found == exact).mean() > 0.9
