"""Writes references.npz: values and slopes of the operations at special points, in float64.

``python tests/ops/make_references.py``, with mpmath installed. Each function is written out here
once more, with its derivative, and evaluated in 120 digits; at an infinity its limit is
taken. Where none is defined, it is said here what is wanted, or that anything will do (ANY).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
from mpmath import mp, mpf

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from ops.special_points import (  # noqa: E402
    ALONG,
    ANY,
    BINARY,
    DTYPES,
    KEEPS_SIGN,
    REFERENCES,
    UNARY,
    WEIGHTS,
    Array,
    pairs,
    points,
    rows,
)

mp.dps = 120
#: What stands for infinity where a limit is taken.
FAR = mpf(2) ** 5000
NAN, INF = math.nan, math.inf
Function = Callable[[Any], Any]


def rounded(y: Any) -> float:
    """A number of mpmath as a float; NaN if it is not real."""
    if isinstance(y, mpmath.mpc):
        if y.imag != 0:
            return NAN
        y = y.real
    y = mpf(y)
    if not mpmath.isnan(y) and abs(y) > mpf(2) ** 1024:
        return math.copysign(INF, 1 if y > 0 else -1)
    return float(y)


def at(f: Function, x: float) -> float:
    """``f(x)``, or its limit; NaN where it has none."""
    if math.isnan(x):
        return NAN
    try:
        if math.isfinite(x):
            return rounded(f(mpf(x)))
        far, farther = (f(mp.sign(x) * place) for place in (FAR, FAR**2))
        if isinstance(far, mpmath.mpc):
            return NAN
        grows = abs(farther) > 1.5 * abs(far) > 1000
        return math.copysign(INF, farther) if grows else rounded(farther)
    except (ValueError, ZeroDivisionError):
        return NAN


# --- functions of one number ----------------------------------------------------------------------


def sigmoid(x: Any) -> Any:
    return 1 / (1 + mp.exp(-x))


def density(x: Any) -> Any:
    return mp.exp(-x * x / 2) / mp.sqrt(2 * mp.pi)


def normal(x: Any) -> Any:
    if abs(x) > 1000:
        return mpf(int(x > 0))
    return mp.erfc(-x / mp.sqrt(2)) / 2


def tanh_slope(x: Any) -> Any:
    return 4 / (mp.exp(x) + mp.exp(-x)) ** 2


def softplus(x: Any) -> Any:
    return mp.log1p(mp.exp(x)) if x < 0 else x + mp.log1p(mp.exp(-x))


def _gelu_inner(x: Any) -> Any:
    return mp.sqrt(2 / mp.pi) * (x + mpf(0.044715) * x**3)


def _gelu_tanh_slope(x: Any) -> Any:
    u = _gelu_inner(x)
    inner = mp.sqrt(2 / mp.pi) * (1 + 3 * mpf(0.044715) * x * x)
    return sigmoid(2 * u) + x / 2 * tanh_slope(u) * inner


def _mish_slope(x: Any) -> Any:
    s = softplus(x)
    return mp.tanh(s) + x * tanh_slope(s) * sigmoid(x)


ALPHA, SCALE = mpf("1.6732632423543772848170429916717"), mpf("1.0507009873554804934193349852946")

#: Value and slope.
FUNCTIONS: dict[str, tuple[Function, Function]] = {
    "negative": (lambda x: -x, lambda x: -1),
    "positive": (lambda x: x, lambda x: 1),
    "dropout": (lambda x: x, lambda x: 1),
    "square": (lambda x: x * x, lambda x: 2 * x),
    "reciprocal": (lambda x: 1 / x, lambda x: -1 / x**2),
    "abs": (abs, mp.sign),
    "sign": (mp.sign, lambda x: 0),
    "exp": (mp.exp, mp.exp),
    "expm1": (mp.expm1, mp.exp),
    "exp2": (lambda x: mpf(2) ** x, lambda x: mpf(2) ** x * mp.log(2)),
    "log": (mp.log, lambda x: 1 / x),
    "log1p": (mp.log1p, lambda x: 1 / (1 + x)),
    "log2": (lambda x: mp.log(x) / mp.log(2), lambda x: 1 / (x * mp.log(2))),
    "log10": (mp.log10, lambda x: 1 / (x * mp.log(10))),
    "sqrt": (mp.sqrt, lambda x: 1 / (2 * mp.sqrt(x))),
    "rsqrt": (lambda x: 1 / mp.sqrt(x), lambda x: -1 / (2 * x * mp.sqrt(x))),
    "sin": (mp.sin, mp.cos),
    "cos": (mp.cos, lambda x: -mp.sin(x)),
    "tan": (mp.tan, lambda x: 1 + mp.tan(x) ** 2),
    "asin": (mp.asin, lambda x: 1 / mp.sqrt(1 - x * x)),
    "acos": (mp.acos, lambda x: -1 / mp.sqrt(1 - x * x)),
    "atan": (mp.atan, lambda x: 1 / (1 + x * x)),
    "sinh": (mp.sinh, mp.cosh),
    "cosh": (mp.cosh, mp.sinh),
    "tanh": (mp.tanh, tanh_slope),
    "asinh": (mp.asinh, lambda x: 1 / mp.sqrt(1 + x * x)),
    "acosh": (mp.acosh, lambda x: 1 / mp.sqrt(x * x - 1)),
    "atanh": (mp.atanh, lambda x: 1 / (1 - x * x)),
    "erf": (mp.erf, lambda x: 2 / mp.sqrt(mp.pi) * mp.exp(-x * x)),
    "floor": (mp.floor, lambda x: 0),
    "ceil": (mp.ceil, lambda x: 0),
    "trunc": (lambda x: mp.sign(x) * mp.floor(abs(x)), lambda x: 0),
    "round": (mp.nint, lambda x: 0),
    "sigmoid": (sigmoid, lambda x: sigmoid(x) * sigmoid(-x)),
    "softplus": (softplus, sigmoid),
    "relu": (lambda x: max(x, mpf(0)), lambda x: int(x > 0)),
    "leaky_relu": (lambda x: x if x > 0 else x * mpf(0.01), lambda x: 1 if x > 0 else mpf(0.01)),
    "elu": (lambda x: x if x > 0 else mp.expm1(x), lambda x: 1 if x > 0 else mp.exp(x)),
    "selu": (
        lambda x: SCALE * (x if x > 0 else ALPHA * mp.expm1(x)),
        lambda x: SCALE * (1 if x > 0 else ALPHA * mp.exp(x)),
    ),
    "silu": (lambda x: x * sigmoid(x), lambda x: sigmoid(x) * (1 + x * sigmoid(-x))),
    "gelu": (lambda x: x * normal(x), lambda x: normal(x) + x * density(x)),
    "gelu of tanh": (lambda x: x * sigmoid(2 * _gelu_inner(x)), _gelu_tanh_slope),
    "mish": (lambda x: x * mp.tanh(softplus(x)), _mish_slope),
    "softplus 2": (
        lambda x: x if 2 * x > 10 else softplus(2 * x) / 2,
        lambda x: 1 if 2 * x > 10 else sigmoid(2 * x),
    ),
    "celu": (lambda x: x if x > 0 else mp.expm1(x), lambda x: 1 if x > 0 else mp.exp(x)),
    "celu 0.5": (
        lambda x: x if x > 0 else mp.expm1(2 * x) / 2,
        lambda x: 1 if x > 0 else mp.exp(2 * x),
    ),
    "rrelu": (
        lambda x: x if x > 0 else x * mpf((1 / 8 + 1 / 3) / 2),
        lambda x: 1 if x > 0 else mpf((1 / 8 + 1 / 3) / 2),
    ),
    "threshold": (lambda x: x if x > 0.75 else mpf(-2), lambda x: int(x > 0.75)),
    "relu6": (lambda x: min(max(x, mpf(0)), mpf(6)), lambda x: int(0 < x < 6)),
    "hardshrink": (lambda x: x if abs(x) > 0.5 else 0, lambda x: int(abs(x) > 0.5)),
    "softshrink": (
        lambda x: mp.sign(x) * max(abs(x) - 0.5, mpf(0)),
        lambda x: int(abs(x) > 0.5),
    ),
    "tanhshrink": (lambda x: x - mp.tanh(x), lambda x: mp.tanh(x) ** 2),
    "softsign": (lambda x: x / (1 + abs(x)), lambda x: 1 / (1 + abs(x)) ** 2),
    "logsigmoid": (lambda x: -softplus(-x), lambda x: sigmoid(-x)),
    "hardsigmoid": (
        lambda x: min(max(x + 3, mpf(0)), mpf(6)) / 6,
        lambda x: mpf(int(-3 < x < 3)) / 6,
    ),
    "hardswish": (
        lambda x: x * min(max(x + 3, mpf(0)), mpf(6)) / 6,
        lambda x: 0 if x <= -3 else x / 3 + 0.5 if x < 3 else 1,
    ),
    "hardtanh": (lambda x: min(max(x, mpf(-1)), mpf(1)), lambda x: int(-1 < x < 1)),
    "clip": (lambda x: min(max(x, mpf(-1)), mpf(2)), lambda x: int(-1 <= x <= 2)),
    "power 2": (lambda x: x * x, lambda x: 2 * x),
    "power 3": (lambda x: x**3, lambda x: 3 * x * x),
    "power -1": (lambda x: 1 / x, lambda x: -1 / x**2),
    "power 0.5": (mp.sqrt, lambda x: 1 / (2 * mp.sqrt(x))),
    "power 0": (lambda x: mpf(1), lambda x: 0),
    "power 1": (lambda x: x, lambda x: 1),
}
#: Without a limit at infinity.
PERIODIC = {"sin", "cos", "tan"}
#: (value, slope) where the formulas have none.
SINGULAR: dict[str, dict[float, tuple[float, float]]] = {
    "reciprocal": {0.0: (INF, -INF)},
    "power -1": {0.0: (INF, -INF)},
    "log": {0.0: (-INF, INF)},
    "log2": {0.0: (-INF, INF)},
    "log10": {0.0: (-INF, INF)},
    "log1p": {-1.0: (-INF, INF)},
    "sqrt": {0.0: (0.0, INF)},
    "power 0.5": {0.0: (0.0, INF)},
    "rsqrt": {0.0: (INF, -INF)},
    "asin": {1.0: (math.pi / 2, INF), -1.0: (-math.pi / 2, INF)},
    "acos": {1.0: (0.0, -INF), -1.0: (math.pi, -INF)},
    "acosh": {1.0: (0.0, INF)},
    "atanh": {1.0: (INF, INF), -1.0: (-INF, INF)},
}


def unary(name: str, x: float) -> tuple[float, float]:
    """Value and slope at a point."""
    value, slope = FUNCTIONS[name]
    if math.isnan(x) and name == "power 0":
        return 1.0, 0.0
    if math.isinf(x) and name in PERIODIC:
        return NAN, ANY
    if math.isinf(x) and name in ("floor", "ceil", "trunc", "round"):
        return x, 0.0
    if x == 0 and math.copysign(1, x) < 0 and name in SINGULAR and 0.0 in SINGULAR[name]:
        return x if name in ("sqrt", "power 0.5") else -INF, ANY
    if x in SINGULAR.get(name, {}):
        return SINGULAR[name][x]
    found = at(value, x)
    if x == 0 and name in KEEPS_SIGN:
        found = x
    if x == 0 and name == "negative":
        found = -x
    return found, ANY if math.isnan(found) else at(slope, x)


# --- functions of two -----------------------------------------------------------------------------


def _exact(f: Callable[[float, float], float], a: float, b: float) -> float:
    """What Python's own arithmetic says, with infinities."""
    with np.errstate(all="ignore"):
        return float(f(np.float64(a), np.float64(b)))


def _power(a: float, b: float) -> float:
    if not (math.isfinite(a) and math.isfinite(b)) or a == 0 or b == 0:
        if a == 0 and b < 0:
            return math.copysign(INF, a) if b % 2 == 1 else INF
        return math.pow(a, b)
    return rounded(mpf(a) ** mpf(b))


def _power_slopes(a: float, b: float) -> tuple[float, float]:
    if not (math.isfinite(a) and math.isfinite(b)):
        return ANY, ANY
    if a == 0:
        first = 0.0 if b == 0 or b > 1 else 1.0 if b == 1 else ANY
        return first, 0.0 if b >= 0 else ANY
    first = 0.0 if b == 0 else rounded(mpf(b) * mpf(a) ** (mpf(b) - 1))
    if a < 0 and abs(b) > 1 << 20:  # b - 1 is not a number of the dtype, so it is even too
        first = ANY
    if b and abs(mpf(a)) ** (mpf(b) - 1) > mpf(3.4e38):  # beyond the range on the way
        first = ANY
    return first, rounded(mpf(a) ** mpf(b) * mp.log(mpf(a))) if a > 0 else NAN


def _larger(a: float, b: float) -> tuple[float, float]:
    share = 0.5 if a == b else float(a > b)
    return share, 1 - share


def _logaddexp(a: float, b: float) -> float:
    if math.isinf(a) or math.isinf(b):
        return _exact(np.logaddexp, a, b)
    return rounded(max(mpf(a), mpf(b)) + mp.log1p(mp.exp(-abs(mpf(a) - mpf(b)))))


def _logaddexp_slopes(a: float, b: float) -> tuple[float, float]:
    d = a - b if math.isinf(a) or math.isinf(b) else mpf(a) - mpf(b)
    if isinstance(d, float):
        if math.isnan(d):  # of equal infinities; nothing is left where both are minus infinity
            return (0.5, 0.5) if a > 0 else (0.0, 0.0)
        return float(d > 0), float(d < 0)
    return rounded(sigmoid(d)), rounded(sigmoid(-d))


def _hypot_slopes(a: float, b: float) -> tuple[float, float]:
    if a == 0 == b:
        return 0.0, 0.0
    if math.isinf(a) and math.isinf(b):
        return ANY, ANY
    if math.isinf(a) or math.isinf(b):
        return math.copysign(math.isinf(a), a), math.copysign(math.isinf(b), b)
    r = mp.hypot(mpf(a), mpf(b))
    return rounded(mpf(a) / r), rounded(mpf(b) / r)


def _atan2_slopes(a: float, b: float) -> tuple[float, float]:
    if a == 0 == b or math.isinf(a) or math.isinf(b):
        return 0.0, 0.0
    r = mpf(a) ** 2 + mpf(b) ** 2
    return rounded(mpf(b) / r), rounded(-mpf(a) / r)


def _divide_slopes(a: float, b: float) -> tuple[float, float]:
    if b == 0 or math.isinf(b) or math.isinf(a):
        return (0.0 if math.isinf(b) else math.copysign(INF, b) if b == 0 else 1 / b), ANY
    return rounded(1 / mpf(b)), rounded(-mpf(a) / mpf(b) ** 2)


def _mod(a: float, b: float) -> float:
    if not (math.isfinite(a) and math.isfinite(b)) or b == 0:
        return _exact(np.remainder, a, b)
    return rounded(mpf(a) - mpf(b) * mp.floor(mpf(a) / mpf(b)))


def _floor_divide(a: float, b: float) -> float:
    if math.isinf(a) != math.isinf(b) and b != 0:  # the standard's; NumPy has others
        return a / b
    if not (math.isfinite(a) and math.isfinite(b)) or b == 0:
        return _exact(np.floor_divide, a, b)
    return rounded(mp.floor(mpf(a) / mpf(b)))


def _mod_slopes(a: float, b: float) -> tuple[float, float]:
    if not (math.isfinite(a) and math.isfinite(b)):
        return ANY, ANY
    return 1.0, -_floor_divide(a, b)


def _exactly(f: Any) -> Callable[[float, float], float]:
    """A function that float64 computes without an error that would count here."""
    return lambda a, b: _exact(f, a, b)


TWO: dict[str, tuple[Callable[[float, float], float], Any]] = {
    "add": (_exactly(np.add), lambda a, b: (1.0, 1.0)),
    "subtract": (_exactly(np.subtract), lambda a, b: (1.0, -1.0)),
    "multiply": (_exactly(np.multiply), lambda a, b: (b, a)),
    "divide": (_exactly(np.divide), _divide_slopes),
    "remainder": (_mod, _mod_slopes),
    "floor_divide": (_floor_divide, lambda a, b: (ANY, ANY)),
    "pow": (_power, _power_slopes),
    "logaddexp": (_logaddexp, _logaddexp_slopes),
    "hypot": (_exactly(np.hypot), _hypot_slopes),
    "atan2": (_exactly(np.arctan2), _atan2_slopes),
    "maximum": (_exactly(np.maximum), _larger),
    "minimum": (_exactly(np.minimum), lambda a, b: _larger(b, a)),
}


def binary(name: str, a: float, b: float) -> tuple[float, float, float]:
    """Value and both slopes at a point."""
    value, slopes = TWO[name]
    y = value(a, b)
    if math.isnan(y) or math.isnan(a) or math.isnan(b):
        return y, ANY, ANY
    return y, *slopes(a, b)


# --- functions of rows ----------------------------------------------------------------------------

Row = Sequence[Any]


def _moments(x: Row) -> tuple[Any, Any]:
    m = mp.fsum(x) / len(x)
    return m, mp.fsum([(v - m) ** 2 for v in x])


def _var(correction: int) -> Callable[[Row], tuple[Any, Any]]:
    def both(x: Row) -> tuple[Any, Any]:
        m, s = _moments(x)
        n = len(x) - correction
        return s / n, [2 * (v - m) / n for v in x]

    return both


def _std(x: Row) -> tuple[Any, Any]:
    m, s = _moments(x)
    y = mp.sqrt(s / len(x))
    return y, [(v - m) / (len(x) * y) if y else 0 for v in x]


def _softmax(x: Row) -> list[Any]:
    top = max(x)
    e = [mp.exp(v - top) for v in x]
    return [v / mp.fsum(e) for v in e]


def _weighted_softmax(x: Row) -> tuple[Any, Any]:
    s = _softmax(x)
    mean = mp.fsum([a * w for a, w in zip(s, WEIGHTS)])
    return s, [a * (w - mean) for a, w in zip(s, WEIGHTS)]


def _log_softmax(x: Row) -> tuple[Any, Any]:
    s = _softmax(x)
    top = max(x)
    norm = mp.log(mp.fsum([mp.exp(v - top) for v in x]))
    return [v - top - norm for v in x], [w - a * mpf(WEIGHTS.sum()) for a, w in zip(s, WEIGHTS)]


def _logsumexp(x: Row) -> tuple[Any, Any]:
    top = max(x)
    return top + mp.log(mp.fsum([mp.exp(v - top) for v in x])), _softmax(x)


def _norm(p: float) -> Callable[[Row], tuple[Any, Any]]:
    def both(x: Row) -> tuple[Any, Any]:
        if p == INF:
            y = max(abs(v) for v in x)
            ties = sum(abs(v) == y for v in x)
            return y, [mp.sign(v) / ties if abs(v) == y else 0 for v in x]
        y = mp.fsum([abs(v) ** p for v in x]) ** (mpf(1) / p)
        return y, [mp.sign(v) * (abs(v) / y) ** (p - 1) if y else 0 for v in x]

    return both


def _extreme(choose: Any) -> Callable[[Row], tuple[Any, Any]]:
    def both(x: Row) -> tuple[Any, Any]:
        y = choose(x)
        ties = sum(v == y for v in x)
        return y, [mpf(int(v == y)) / ties for v in x]

    return both


def _cumulative(product: bool) -> Callable[[Row], tuple[Any, Any]]:
    def both(x: Row) -> tuple[Any, Any]:
        n = len(x)
        if not product:
            return [mp.fsum(x[: i + 1]) for i in range(n)], [
                mp.fsum([mpf(w) for w in WEIGHTS[i:]]) for i in range(n)
            ]
        y = [mp.fprod(x[: i + 1]) for i in range(n)]
        slopes = [
            mp.fsum(
                [
                    WEIGHTS[k] * mp.fprod([v for j, v in enumerate(x[: k + 1]) if j != i])
                    for k in range(i, n)
                ]
            )
            for i in range(n)
        ]
        return y, slopes

    return both


def _normalized(centered: bool, eps: float) -> Callable[[Row], tuple[Any, Any]]:
    def both(x: Row) -> tuple[Any, Any]:
        n = len(x)
        m = mp.fsum(x) / n if centered else mpf(0)
        scale = 1 / mp.sqrt(mp.fsum([(v - m) ** 2 for v in x]) / n + mpf(eps))
        z = [(v - m) * scale for v in x]
        w = [mpf(v) for v in WEIGHTS]
        mean = mp.fsum(w) / n if centered else mpf(0)
        along = mp.fsum([a * b for a, b in zip(w, z)]) / n
        return z, [scale * (a - mean - b * along) for a, b in zip(w, z)]

    return both


def _sum(x: Row) -> tuple[Any, Any]:
    return mp.fsum(x), [1] * len(x)


def _mean(x: Row) -> tuple[Any, Any]:
    return mp.fsum(x) / len(x), [mpf(1) / len(x)] * len(x)


def _prod(x: Row) -> tuple[Any, Any]:
    return mp.fprod(x), [mp.fprod([v for j, v in enumerate(x) if j != i]) for i in range(len(x))]


OF_ROWS: dict[str, Callable[[Row], tuple[Any, Any]]] = {
    "sum": _sum,
    "mean": _mean,
    "max": _extreme(max),
    "min": _extreme(min),
    "prod": _prod,
    "logsumexp": _logsumexp,
    "softmax": _weighted_softmax,
    "log_softmax": _log_softmax,
    "cumulative_sum": _cumulative(False),
    "cumulative_prod": _cumulative(True),
    "var": _var(0),
    "var of a sample": _var(1),
    "std": _std,
    "norm": _norm(2),
    "norm 1": _norm(1),
    "norm 3": _norm(3),
    "norm inf": _norm(INF),
    "layer_norm": _normalized(True, 1e-5),
    "rms_norm": _normalized(False, 1e-6),
}
#: Their results have the size of the row.
LONG = {
    "softmax", "log_softmax", "cumulative_sum", "cumulative_prod", "layer_norm", "rms_norm",
}  # fmt: skip
#: They take squares or more on the way.
ROOTS = ("var", "var of a sample", "std", "norm", "norm 3", "layer_norm", "rms_norm")
NEED_ROOM = (
    "std",
    "var",
    "var of a sample",
    "layer_norm",
    "rms_norm",
    "sum",
    "mean",
    "prod",
    "cumulative_sum",
    "cumulative_prod",
)


def _fits(name: str, x: Array) -> bool:
    """Whether what is computed on the way is in the range of float32 too."""
    sizes = np.abs(x[np.isfinite(x) & (x != 0)])
    if name in ("sum", "mean", "cumulative_sum"):
        return bool(sizes.sum() < 3.4e38)
    if name in ("prod", "cumulative_prod"):
        return bool(np.abs(np.log2(sizes)).sum() < 120)
    power = 3 if name == "norm 3" else 2 if name in ROOTS else 1
    return bool((sizes**power * len(x) < 3.4e38).all() and (sizes**power > 1e-37).all())


def along(name: str, x: Array) -> tuple[list[float], list[float]]:
    """Value and slopes of a row."""
    n = len(x)
    long = name in LONG
    unknown = [ANY] * n
    if name in NEED_ROOM and not _fits("mean" if name == "std" else name, x):
        return [ANY] * (n if long else 1), unknown
    if np.isfinite(x).all():
        value, slopes = OF_ROWS[name]([mpf(v) for v in x])
        return [rounded(v) for v in (value if long else [value])], [rounded(d) for d in slopes]
    if name in ("sum", "mean", "cumulative_sum"):  # linear: the slopes are those of any row
        _, slopes = OF_ROWS[name]([mpf(1)] * n)
        by_name: dict[str, Any] = {"sum": np.sum, "mean": np.mean, "cumulative_sum": np.cumsum}
        found = by_name[name](x)
        return np.atleast_1d(found).tolist(), [rounded(d) for d in slopes]
    if np.isnan(x).any():
        if name in ("max", "min"):  # the gradient goes to what makes the result NaN
            taken = np.isnan(x)
            return [NAN], (taken / taken.sum()).tolist()
        if name == "cumulative_prod":
            return np.cumprod(x).tolist(), unknown
        return [NAN] * (n if long else 1), unknown
    if name in ("max", "min"):
        y = getattr(np, name)(x)
        return [float(y)], ((x == y) / (x == y).sum()).tolist()
    if name in ("norm", "norm 1", "norm 3", "norm inf"):
        ties = np.isinf(x)
        slopes = np.sign(x) * (ties / ties.sum()) if name == "norm inf" else unknown
        return [INF], np.sign(x).tolist() if name == "norm 1" else list(slopes)
    if name == "prod":
        with np.errstate(invalid="ignore"):
            others = [float(np.prod(np.delete(x, i))) for i in range(n)]
            return [float(np.prod(x))], others
    if name == "cumulative_prod":
        return np.cumprod(x).tolist(), unknown
    if name == "logsumexp":
        if (x == INF).any():
            return [INF], ((x == INF) / (x == INF).sum()).tolist()
        if (x == -INF).all():
            return [-INF], [0.0] * n
    if name in ("logsumexp", "softmax", "log_softmax") and not (x == INF).any():
        if (x == -INF).all():
            return [NAN] * n, unknown
        low = [-FAR if v == -INF else mpf(v) for v in x]
        value, slopes = OF_ROWS[name](low)
        return [rounded(v) for v in (value if long else [value])], [rounded(d) for d in slopes]
    return [ANY] * (n if long else 1), unknown


def main() -> None:
    """Compute all, and write the file."""
    found: dict[str, Array] = {}
    one = np.unique(np.concatenate([points(d) for d in DTYPES]).view(np.int64))
    found["points"] = one.view(np.float64)
    both = np.stack([np.concatenate(side) for side in zip(*[pairs(d) for d in DTYPES])], axis=1)
    two = np.unique(np.ascontiguousarray(both).view(np.int64), axis=0)
    found["pairs"] = np.ascontiguousarray(two).view(np.float64)
    for name in UNARY:
        found[f"unary/{name}"] = np.array([unary(name, x) for x in found["points"].tolist()])
    for name in BINARY:
        found[f"binary/{name}"] = np.array([binary(name, a, b) for a, b in found["pairs"].tolist()])
    for name in ALONG:
        for dtype in DTYPES:
            parts = [np.concatenate(along(name, x)) for x in rows(dtype)]
            found[f"along/{name}/{dtype}"] = np.stack(parts)
    np.savez_compressed(REFERENCES, **found)  # type: ignore[arg-type]
    print(f"{REFERENCES}: {len(found)} arrays, {REFERENCES.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
