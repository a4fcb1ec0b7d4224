"""Calls of NumPy's functions, which give the same of tensors, with gradients where these exist.

The names in them are those of ``arguments``. ``DIFFERENTIABLE`` gives values with a gradient, all
others counts, places, truth values or constants.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def arguments() -> dict[str, Array]:
    """The same in every run: numbers of which no two are close, some NaN, integers, masks."""
    rng = np.random.default_rng(3)

    def distinct(*shape: int) -> Array:
        n = int(np.prod(shape))
        return np.asarray((rng.permutation(n) - 0.45 * n).reshape(shape) * 0.3)

    x, n = distinct(3, 4), distinct(3, 4)
    n[0, 1] = n[2, 1] = n[2, 2] = np.nan
    return {
        "x": x,  # a matrix
        "n": n,  # one with NaN in it
        "v": distinct(5),
        "w": (distinct(5) * 1.1 + 0.07)[::-1],
        "m": distinct(3, 3) + np.eye(3),
        "c": distinct(2, 3, 4),
        "z": distinct(2, 3).T,
        "p": np.abs(distinct(5)) + 0.3,
        "s": np.array(1.3),
        "e": np.zeros((0, 3)),
        "i": np.array([3, 0, 2, 0, 4]),
        "k": np.array([[2, 1, 0], [0, 2, 2]]),
        "t": np.array([True, False, True, True, False]),
        "u": np.array([[True, False, True, False], [False] * 4, [True] * 4]),
    }


#: The ways to place a quantile that NumPy has.
_METHODS = [
    "linear", "hazen", "weibull", "median_unbiased", "normal_unbiased",
    "interpolated_inverted_cdf", "inverted_cdf", "averaged_inverted_cdf", "closest_observation",
    "lower", "higher", "midpoint", "nearest",
]  # fmt: skip

STATISTICS = [
    "np.median(x)",
    "np.median(x, 1)",
    "np.median(c, axis=(0, 2), keepdims=True)",
    "np.median(n, axis=0)",
    "np.median(s)",
    "np.median(e, axis=0)",
    "np.quantile(x, 0.3)",
    "np.quantile(x, [0.1, 0.9], axis=1)",
    "np.quantile(c, [0.1, 0.9], axis=(0, 2), keepdims=True)",
    *[f"np.quantile(v, [0.0, 0.2, 0.33, 0.5, 1.0], method={m!r})" for m in _METHODS],
    "np.quantile(v, 0.4, weights=p, method='inverted_cdf')",
    "np.quantile(x, [0.2, 0.6], axis=0, weights=[1.0, 2.0, 0.0], method='inverted_cdf')",
    "np.percentile(x, 30, axis=0)",
    "np.percentile(v, [25, 75], method='hazen')",
    "np.average(x)",
    "np.average(x, 0)",
    "np.average(x, axis=1, weights=p[:4])",
    "np.average(v, weights=p, returned=True)",
    "np.average(x, returned=True, axis=0, keepdims=True)",
    "np.average(c, axis=(1, 0), weights=z)",
    "np.ptp(x)",
    "np.ptp(x, axis=0, keepdims=True)",
    "np.cov(x)",
    "np.cov(v)",
    "np.cov(v, w)",
    "np.cov(x, rowvar=False, bias=True)",
    "np.cov(x, ddof=0, fweights=i[:4])",
    "np.cov(x, aweights=p[:4])",
    "np.cov(x, aweights=p[:4], fweights=i[:4], ddof=2)",
    "np.corrcoef(x)",
    "np.corrcoef(v, w)",
]

NAN_REDUCTIONS = [
    "np.nansum(n)",
    "np.nansum(n, axis=1, keepdims=True)",
    "np.nansum(n, 0, initial=2.0, where=u)",
    "np.nanprod(n, axis=0)",
    "np.nancumsum(n)",
    "np.nancumsum(n, axis=1)",
    "np.nancumprod(n, axis=0)",
    "np.nanmean(n)",
    "np.nanmean(n, axis=0, keepdims=True)",
    "np.nanmean(n, where=u)",
    "np.nanvar(n, axis=1)",
    "np.nanvar(n, ddof=1)",
    "np.nanstd(n, axis=0, ddof=0.5, keepdims=True)",
    "np.nanstd(n, 1, where=~u)",
    "np.nanmax(n)",
    "np.nanmax(n, axis=1, initial=0.2)",
    "np.nanmin(n, axis=0)",
    "np.nanmin(n, 1, initial=3.0, where=u, keepdims=True)",
    "np.nanmedian(n)",
    "np.nanmedian(n, axis=1)",
    "np.nanquantile(n, [0.2, 0.7], axis=1)",
    "np.nanquantile(n, 0.4, keepdims=True, method='weibull')",
    "np.nanpercentile(n, 60, axis=0)",
    "np.nanquantile(n, [0.2, 0.6], axis=1, weights=np.abs(x), method='inverted_cdf')",
    "np.nanmean(e, axis=0)",
    "np.nanmedian(e, axis=0)",
]

JOINING = [
    "np.hstack([x, m])",
    "np.hstack((v, w, s))",
    "np.vstack([x, p[:4]])",
    "np.vstack([v, w])",
    "np.dstack([x, x * 2])",
    "np.dstack([v, w])",
    "np.column_stack([v, w])",
    "np.column_stack([m, x])",
    "np.atleast_3d(s)",
    "np.atleast_3d(v, x, c)",
    "np.block([[x, m], [m, x]])",
    "np.block([v, 2.0 * w])",
    "np.block([[s, s], [s, s]])",
    "np.array_split(v, 3)",
    "np.array_split(x, [1, 2], axis=1)",
    "np.hsplit(x, 2)",
    "np.hsplit(v, [1, 3])",
    "np.vsplit(x, 3)",
    "np.dsplit(c, [1])",
    "np.fliplr(x)",
    "np.flipud(x)",
    "np.rot90(x)",
    "np.rot90(c, 2, (1, 2))",
    "np.rot90(c, -1, axes=(2, 0))",
    "np.rollaxis(c, 2)",
    "np.rollaxis(c, 0, 3)",
    "np.ravel(x)",
    "np.ravel(c, 'F')",
]

ELEMENTWISE = [
    "np.cbrt(x)",
    "np.deg2rad(x)",
    "np.radians(v)",
    "np.rad2deg(x)",
    "np.degrees(s)",
    "np.fabs(x)",
    "np.true_divide(x, p[:4])",
    "np.mod(x, p[:4])",
    "np.logaddexp2(x, p[:4])",
    "np.float_power(p, v)",
    "np.fmod(x, p[:4])",
    "np.fmod(v, p * 0.37)",
    "np.divmod(v, 0.35)",
    "np.heaviside(v, w)",
    "np.heaviside(np.round(v), w)",
    "np.fmax(n, x[::-1] + 0.1)",
    "np.fmax(v, w)",
    "np.fmin(x[::-1] + 0.1, n)",
    "np.ldexp(v, i)",
    "np.frexp(v)",
    "np.modf(x)",
    "np.fix(x)",
    "np.nan_to_num(n)",
    "np.nan_to_num(n, nan=2.0, posinf=1.0)",
    "np.round(x, 1) * x",
    "np.around(x, -1) * x",
    "np.rint(x) + x",
    "np.exp2(v)",
    "np.trunc(v) * v",
]

UFUNCS = [
    "np.add.outer(v, x)",
    "np.hypot.outer(v, p)",
    "np.power.outer(p, v)",
    "np.add.reduce(x)",
    "np.add.reduce(x, axis=None, keepdims=True, initial=2.0)",
    "np.add.reduce(c, axis=(0, 2), where=c > 0)",
    "np.multiply.reduce(x, 1)",
    "np.maximum.reduce(x, axis=1, initial=0.0, where=x < 1)",
    "np.minimum.reduce(x)",
    "np.subtract.reduce(x, axis=1)",
    "np.true_divide.reduce(p)",
    "np.logaddexp.reduce(x, axis=None)",
    "np.hypot.reduce(x, axis=(0, 1), keepdims=True)",
    "np.fmax.reduce(n, axis=1)",
    "np.add.accumulate(x)",
    "np.multiply.accumulate(x, axis=1)",
    "np.maximum.accumulate(x, axis=1)",
    "np.subtract.accumulate(v)",
    "np.add.reduceat(v, [0, 3, 1, 2])",
    "np.multiply.reduceat(x, [0, 2], axis=1)",
    "np.add(x, 1, dtype=float, casting='same_kind')",
    "np.log(x, where=x > 0, out=np.zeros_like(x))",
    "np.sqrt(x, out=np.ones_like(x), where=x > 0)",
    "np.multiply(v, w, out=np.zeros_like(v))",
    "np.divmod(v, p, out=(np.zeros_like(v), np.zeros_like(v)))",
    "np.exp(x, out=np.zeros_like(x), where=[True, False, True, True])",
]

REDUCTIONS = [
    "np.sum(x, where=x > 0, initial=1.5)",
    "np.sum(x, 0, None, None, True)",
    "np.prod(x, axis=1, initial=0.5, where=u)",
    "np.max(x, axis=0, initial=0.4)",
    "np.max(e, axis=1, initial=s) + s",
    "np.amin(x, 1, where=~u, initial=9.0)",
    "np.mean(x, axis=1, where=~u)",
    "np.var(x, ddof=1, axis=0)",
    "np.var(x, mean=np.mean(x, axis=0, keepdims=True), axis=0)",
    "np.std(x, where=x > -1, keepdims=True)",
    "np.std(x, 1, correction=1)",
    "np.sum(x, axis=0, out=np.zeros_like(x[0]))",
    "np.cumsum(x, axis=1, out=np.zeros_like(x))",
    "np.median(x, axis=0, out=np.zeros_like(x[0]))",
]

DIFFERENTIABLE = [*STATISTICS, *NAN_REDUCTIONS, *JOINING, *ELEMENTWISE, *UFUNCS, *REDUCTIONS]

_PLAIN = [
    "np.nanargmax(n, axis=1)",
    "np.nanargmin(n)",
    "np.nansum(i)",
    "np.nanmax(k, axis=1)",
    "np.isclose(x, x + 1e-9)",
    "np.isclose(n, n, equal_nan=True)",
    "np.isclose(n, x, rtol=3.0, atol=0.1)",
    "np.allclose(x, x + 1e-9)",
    "np.allclose(n, n)",
    "np.array_equal(x, x)",
    "np.array_equal(n, n, equal_nan=True)",
    "np.array_equal(x, v)",
    "np.array_equiv(x, x[:1])",
    "np.array_equiv(v, np.stack([v, v]))",
    "np.array_equiv(v, x)",
    "np.bitwise_count(i)",
    "np.bitwise_not(i)",
    "np.invert(t)",
    "np.left_shift(i, 2)",
    "np.right_shift(i, 1)",
    "np.gcd(i, 6)",
    "np.lcm(i, 6)",
    "np.spacing(x)",
    "np.isneginf(x / 0.0)",
    "np.isposinf(x / 0.0)",
    "np.round(i, -1)",
]

#: These forms are those of NumPy's functions alone.
NUMPY_ALONE = {
    *UFUNCS,
    *REDUCTIONS,
    "np.logical_xor.reduce(t)",
    "np.logaddexp.reduce(e, axis=0)",
    "np.logical_and.reduce(u, axis=1)",
    "np.bitwise_or.reduce(i)",
    "np.bitwise_xor.accumulate(i)",
    "np.greater.outer(v, x)",
    "np.add.reduce(i, dtype=float)",
    "np.all(u, axis=1, where=[True, False, True, False])",
    "np.any(u, axis=0, where=np.array([True, False, False])[:, None])",
}
PLAIN = [*_PLAIN, *sorted(NUMPY_ALONE - {*DIFFERENTIABLE})]
