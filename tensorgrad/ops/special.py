"""Special functions that NumPy lacks: the error function.

On the CPU these are rational approximations evaluated with whole-array arithmetic; on CUDA the
function that comes with CuPy is called.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from tensorgrad.backend.namespace import Namespace

__all__ = ["erf"]


def _table(*coefficients: float) -> tuple[Any, ...]:
    """The coefficients as 0-d arrays.

    NumPy turns a Python float into an array on every call, which costs more than the arithmetic
    on a small array.
    """
    return tuple(np.array(c, dtype=np.float64) for c in coefficients)


# All coefficients lie lowest power first. They were fitted for this module by a Remez exchange in
# 60-digit arithmetic, rational where a denominator is given (levelled error of each reference by
# an eigenvalue problem, the pole-free solution taken), and rounded to float64. The ulp figures
# are measured on this code, roundings included; tests/test_special.py bounds them.

# float32: erf(x) = x * P(x**2) / Q(x**2), degrees 6 and 5, relative error at most 2**-28.88 for
# x**2 in [0, 16]; float32 erf is 1 from x = 3.92 on. Evaluated in float64 and rounded once,
# which leaves at most 0.54 ulp; a float32 evaluation would add the roundings of every step.
_SINGLE_LIMIT = 4.0
_SINGLE_P = _table(
    1.128379169378379,
    0.18520309414173608,
    0.05431691559778851,
    0.003849608753114666,
    0.0003796096144624759,
    4.684802195264565e-06,
    -1.3202355612352765e-08,
)
_SINGLE_Q = _table(
    1.0,
    0.49746538257616524,
    0.11395838208457491,
    0.0154620873500427,
    0.001307570251008126,
    6.311080557005392e-05,
)

# float64, |x| < 1: erf(x) = x + x * P(x**2), degree 11, absolute error of P at most 2**-56.97.
# The form adds a small correction to x, so the roundings of P hardly count: at most 1.42 ulp,
# reached just below 1, and 0.9 ulp up to 0.6.
_INNER_LIMIT = 1.0
_INNER_P = _table(
    0.12837916709551256,
    -0.3761263890318355,
    0.11283791670945253,
    -0.02686617064327622,
    0.005223977607423468,
    -0.0008548325989696758,
    0.00012055295320494294,
    -1.4924744663335489e-05,
    1.6447517677871873e-06,
    -1.6209175911748696e-07,
    1.3722976265924504e-08,
    -7.801188874097751e-10,
)

# float64, |x| >= 1: erf(|x|) = 1 - exp(-x**2) * P(|x|) / Q(|x|), degrees 5 and 6, absolute error
# of the subtrahend at most 2**-59.49 for |x| in [1, 6]; float64 erf is 1 from x = 5.93 on. All
# coefficients are positive, so P and Q lose nothing to cancellation: at most 1.32 ulp, just
# above 1, and 0.6 ulp from 2 on.
_OUTER_LIMIT = 6.0
_OUTER_P = _table(
    0.9999998869881495,
    1.390590141394527,
    0.9495361946462808,
    0.3736082722321844,
    0.08435168285931102,
    0.008930719292841309,
)
_OUTER_Q = _table(
    1.0,
    2.5189681179326087,
    2.7918933224676055,
    1.7571880477359463,
    0.6701775812517459,
    0.14950555994122502,
    0.015829410261595747,
)

# Elements per pass, so that the four or five float64 scratch arrays of a pass stay in cache.
_CHUNK = 16384


def erf(xp: Any, x: Any) -> Any:
    """Error function 2 / sqrt(pi) * integral of exp(-t**2) for t from 0 to x, elementwise.

    On NumPy the error is at most 0.6 ulp in float32 and 1.5 ulp in float64, erf(-x) == -erf(x)
    exactly, signed zeros are kept, NaN gives NaN, and no floating-point warning is raised for any
    input. On CuPy this is ``cupyx.scipy.special.erf``.

    xp: the array module of ``x``, numpy or cupy.
    x: a float32 or float64 array of any shape, 0-d and empty included, contiguous or not.

    Returns a new array with the shape and dtype of ``x``. Raises ValueError for another dtype.

    Source: Abramowitz and Stegun, "Handbook of Mathematical Functions", 7.1.1 for the
    definition; the coefficients are this module's own.
    """
    x = xp.asarray(x)
    if x.dtype != np.float32 and x.dtype != np.float64:
        raise ValueError(f"erf needs a float32 or float64 array, got {x.dtype}")
    if isinstance(xp, Namespace):
        return xp.erf(x)
    if xp is not np:
        return importlib.import_module("cupyx.scipy.special").erf(x)
    evaluate = _erf_single if x.dtype == np.float32 else _erf_double
    out = np.empty(x.shape, dtype=x.dtype)
    flat_x, flat_out = x.reshape(-1), out.reshape(-1)
    # Squares of tiny numbers underflow harmlessly and signalling NaN raises the invalid flag;
    # neither may reach a caller who turned such flags into errors.
    with np.errstate(all="ignore"):
        for start in range(0, flat_x.size, _CHUNK):
            stop = start + _CHUNK
            evaluate(flat_x[start:stop], flat_out[start:stop])
    return out


def _erf_single(x: Any, out: Any) -> None:
    """Write erf of x, float32 [n], to out, float32 [n]."""
    wide = x.astype(np.float64)
    np.minimum(wide, _SINGLE_LIMIT, out=wide)
    np.maximum(wide, -_SINGLE_LIMIT, out=wide)
    square = wide * wide
    wide *= _horner(_SINGLE_P, square)
    np.divide(wide, _horner(_SINGLE_Q, square), out=out, casting="same_kind")


def _erf_double(x: Any, out: Any) -> None:
    """Write erf of x, float64 [n], to out, float64 [n]."""
    magnitude = np.abs(x)
    outer = np.flatnonzero(magnitude >= _INNER_LIMIT)
    if outer.size < x.size:
        # The minimum keeps the lanes that the outer formula overwrites from overflowing.
        np.minimum(magnitude, _INNER_LIMIT, out=magnitude)
        magnitude *= magnitude
        correction = _horner(_INNER_P, magnitude)
        correction *= x
        np.add(x, correction, out=out)
    if outer.size:
        far = x[outer]
        out[outer] = np.copysign(1.0 - _erfc_outer(np.minimum(np.abs(far), _OUTER_LIMIT)), far)


def _erfc_outer(x: Any) -> Any:
    """1 - erf(x) for x in [1, 6], float64 [n], accurate in absolute terms only."""
    result = x * x
    np.negative(result, out=result)
    np.exp(result, out=result)
    result *= _horner(_OUTER_P, x)
    result /= _horner(_OUTER_Q, x)
    return result


def _horner(coefficients: tuple[Any, ...], x: Any) -> Any:
    """Polynomial with the given coefficients, lowest power first, at x, in a new array."""
    result = np.multiply(x, coefficients[-1])
    for coefficient in coefficients[-2:0:-1]:
        np.add(result, coefficient, result)
        np.multiply(result, x, result)
    np.add(result, coefficients[0], result)
    return result
