"""Writes tensorgrad/ops/special_coefficients.py: the coefficients of the special functions.

``python tests/ops/make_special_coefficients.py``, with mpmath installed. Each line below is a
polynomial, or a quotient of two, that meets its function in Chebyshev points of an interval, solved
for in 50 digits and rounded to float64. Degrees are the smallest whose relative error, before the
rounding, is below 2**-57; the variable is chosen such that terms do not cancel.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mpmath import mp, mpf

mp.dps = 50
Function = Callable[[Any], Any]
TINY = mpf("1e-30")
MOST = 7e-18  # 2**-57
TO = Path(__file__).parents[2] / "tensorgrad" / "ops" / "special_coefficients.py"


def fitted(f: Function, lo: Any, hi: Any, m: int, n: int, centre: Any) -> tuple[list[Any], Any]:
    """Numerator of degree m and denominator of degree n, lowest power of x - centre first."""
    count = m + n + 1
    matrix, right = mp.matrix(count, count), mp.matrix(count, 1)
    for i in range(count):
        x = (lo + hi) / 2 + (hi - lo) / 2 * mp.cos(mp.pi * (2 * i + 1) / (2 * count))
        y = right[i] = f(x)
        for j in range(m + 1):
            matrix[i, j] = (x - centre) ** j
        for j in range(1, n + 1):
            matrix[i, m + j] = -y * (x - centre) ** j
    c = mp.lu_solve(matrix, right)
    return [c[j] for j in range(m + 1)], [mpf(1), *(c[m + j] for j in range(1, n + 1))]


def value(coefficients: Sequence[Any], x: Any) -> Any:
    """A polynomial, lowest power first."""
    return mp.polyval(list(reversed(coefficients)), x)


def error(f: Function, lo: Any, hi: Any, p: Any, q: Any, centre: Any) -> float:
    """The largest relative error at 60 places."""
    places = [lo + (hi - lo) * (2 * k + 1) / 120 for k in range(60)]
    return float(max(abs(value(p, x - centre) / value(q, x - centre) / f(x) - 1) for x in places))


def best(f: Function, lo: Any, hi: Any, centre: Any = 0, rational: bool = False) -> Any:
    """The polynomial, or the quotient, of least degree that is good enough."""
    lo, hi, centre = mpf(lo), mpf(hi), mpf(centre)
    for degree in range(4, 40):
        m, n = (degree // 2, degree - degree // 2) if rational else (degree, 0)
        p, q = fitted(f, lo, hi, m, n, centre)
        if error(f, lo, hi, p, q, centre) < MOST:
            return p, q
    raise ValueError(f"no degree will do between {lo} and {hi}")


# --- the functions --------------------------------------------------------------------------------


def scaled_erfc(t: Any) -> Any:
    """``(1 + 2 x) exp(x**2) erfc(x)`` at x = 4 (1 + t) / (1 - t)."""
    x = 4 * (1 + t) / (1 - t)
    far = mp.hyp2f0(1, 0.5, -1 / (x * x)) / (x * mp.sqrt(mp.pi)) if x > 40 else None
    return (mp.exp(x * x) * mp.erfc(x) if far is None else far) * (1 + 2 * x)


def scaled_erfc_slope(t: Any) -> Any:
    """``-(1 + x)**2`` times the slope of ``exp(x**2) erfc(x)``; see ``scaled_erfc``."""
    x = 4 * (1 + t) / (1 - t)
    if x > 40:
        terms = ((-1) ** n * mp.fac2(2 * n + 1) / (2 * x * x) ** n for n in range(40))
        slope = mp.fsum(terms) / (x * x * mp.sqrt(mp.pi))
    else:
        slope = 2 / mp.sqrt(mp.pi) - 2 * x * mp.exp(x * x) * mp.erfc(x)
    return slope * (1 + x) ** 2


def inverse_erfc(w: Any) -> Any:
    """x with ``erfc(x) = exp(-w**2)``."""
    start = mp.sqrt(w * w - mp.log(2 * w + 0.1)) if w > 1.5 else mpf("0.8")
    return mp.findroot(lambda x: mp.log(mp.erfc(x)) + w * w, start)


def over_root(f: Function, power: int = 1) -> Function:
    """Of s the function of sqrt(s), divided by it ``power`` times."""
    return lambda s: f(mp.sqrt(s)) / mp.sqrt(s) ** power


def near_bessel_i(k: int) -> Function:
    """``I_k(2 sqrt(s)) / sqrt(s)**k``."""
    return lambda s: mp.besseli(k, 2 * mp.sqrt(s)) / mp.sqrt(s) ** k


def far_bessel_i(k: int) -> Function:
    """``exp(-x) I_k(x) sqrt(x)`` at x = 1 / s."""
    return lambda s: mp.besseli(k, 1 / s) * mp.exp(-1 / s) / mp.sqrt(s)


def far_bessel_k(k: int) -> Function:
    """``exp(x) K_k(x) sqrt(x)`` at x = 1 / s."""
    return lambda s: mp.besselk(k, 1 / s) * mp.exp(1 / s) / mp.sqrt(s)


def near_bessel_k(k: int) -> Function:
    """What K_k(x) has beside logarithm and pole, over x**k, of s = x**2."""

    def f(s: Any) -> Any:
        x = mp.sqrt(s)
        rest = mp.besselk(k, x) + (-1) ** k * mp.log(x) * mp.besseli(k, x)
        return (rest - (1 / x if k else 0)) / x**k

    return f


def modulus(k: int, odd: bool) -> Function:
    """P (or Q x) of ``sqrt(2 / (pi x)) (P cos c - Q sin c)``, which J_k is; of s = 1 / x**2."""

    def f(s: Any) -> Any:
        x = 1 / mp.sqrt(s)
        c = x - mp.pi / 4 - k * mp.pi / 2
        j, y, scale = mp.besselj(k, x), mp.bessely(k, x), mp.sqrt(mp.pi * x / 2)
        if odd:
            return x * scale * (y * mp.cos(c) - j * mp.sin(c))
        return scale * (j * mp.cos(c) + y * mp.sin(c))

    return f


def near_bessel_j(k: int) -> Function:
    """J_k(x) over x**k and over its zeros below 6, of s = x**2."""
    zeros = [z for z in (mp.besseljzero(k, i) for i in (1, 2)) if z < 6]
    return lambda s: mp.besselj(k, mp.sqrt(s)) / mp.sqrt(s) ** k / mp.fprod(
        s - z * z for z in zeros
    )  # fmt: skip


def near_bessel_y(k: int) -> Function:
    """What Y_k(x) has beside logarithm and pole, over x**k, of s = x**2."""

    def f(s: Any) -> Any:
        x = mp.sqrt(s)
        rest = mp.bessely(k, x) - 2 / mp.pi * mp.log(x) * mp.besselj(k, x)
        return (rest + (2 / (mp.pi * x) if k else 0)) / x**k

    return f


AIRY_ZEROS = {slope: [mp.airyaizero(k, derivative=slope) for k in (1, 2)] for slope in (0, 1)}


def near_airy(slope: int) -> Function:
    """Ai, or its slope, over its zeros above -4.5."""
    return lambda x: mp.airyai(x, derivative=slope) / mp.fprod(x - z for z in AIRY_ZEROS[slope])


def far_airy(slope: int) -> Function:
    """``2 sqrt(pi) exp(z) Ai(x) x**(1/4)``, or that of its slope, of 1 / z, z = 2/3 x**(3/2)."""

    def f(s: Any) -> Any:
        x = (3 / (2 * s)) ** (mpf(2) / 3)
        y = mp.airyai(x, derivative=slope) * mp.exp(1 / s) * 2 * mp.sqrt(mp.pi)
        return -y / x ** mpf("0.25") if slope else y * x ** mpf("0.25")

    return f


def airy_modulus(slope: int, odd: bool) -> Function:
    """P (or Q z) of ``Ai(-x) = (P cos c + Q sin c) / (sqrt(pi) x**(1/4))``, of 1 / z**2.

    z is that of ``far_airy``, and c = z - pi / 4.
    Of the slope: ``(P sin c + Q cos c) x**(1/4) / sqrt(pi)``.
    """

    def f(s: Any) -> Any:
        z = 1 / mp.sqrt(s)
        x, c = (3 * z / 2) ** (mpf(2) / 3), z - mp.pi / 4
        a, b = mp.airyai(-x, derivative=slope), mp.airybi(-x, derivative=slope)
        scale = mp.sqrt(mp.pi) * x ** mpf("-0.25" if slope else "0.25")
        if slope:
            a, b = b, -a
        if odd:
            return z * scale * (a * mp.sin(c) + b * mp.cos(c)) * (-1 if slope else 1)
        return scale * (a * mp.cos(c) - b * mp.sin(c))

    return f


def spherical_j1(x: Any) -> Any:
    return mp.sin(x) / (x * x) - mp.cos(x) / x


DIGAMMA_ROOT = mp.findroot(mp.digamma, 1.46)


def fits() -> dict[str, Any]:
    """All of them by name."""
    far, eighth = mpf("1e-4"), 1 / mpf(36)
    gamma_part = lambda x: mp.loggamma(x) / ((x - 1) * (x - 2))  # noqa: E731
    return {
        "ERF_NEAR": best(over_root(mp.erf), TINY, "0.25"),
        "ERFCX": best(scaled_erfc, -1, 1),
        "ERFCX_SLOPE": best(scaled_erfc_slope, -1, 1),
        "ERFINV_NEAR": best(over_root(mp.erfinv), TINY, "0.5625"),
        "ERFCINV_1": best(inverse_erfc, "1.15", 3, 0, True),
        "ERFCINV_2": best(inverse_erfc, 3, "6.1", 0, True),
        "ERFCINV_3": best(inverse_erfc, "6.1", 28, 0, True),
        "GAMMALN_1": best(gamma_part, 1, 2, 1, True),
        "GAMMALN_2": best(gamma_part, 2, 3, 2, True),
        "GAMMA": best(mp.gamma, 2, 3, 2, True),
        "DIGAMMA": best(lambda x: mp.digamma(x) / (x - DIGAMMA_ROOT), 1, 2, 1, True),
        **{f"I{k}_NEAR": best(near_bessel_i(k), TINY, 15) for k in range(3)},
        **{f"I{k}_FAR": best(far_bessel_i(k), far, "0.13", "0.02") for k in range(3)},
        **{f"K{k}_NEAR": best(near_bessel_k(k), TINY, 1) for k in range(2)},
        **{f"K{k}_FAR": best(far_bessel_k(k), far, 1, 0, True) for k in range(2)},
        **{f"J{k}_NEAR": best(near_bessel_j(k), TINY, 36, 18) for k in range(3)},
        **{f"Y{k}_NEAR": best(near_bessel_y(k), TINY, 36, 18) for k in range(2)},
        **{f"P{k}": best(modulus(k, False), mpf("1e-8"), eighth, 0, True) for k in range(2)},
        **{f"Q{k}": best(modulus(k, True), mpf("1e-8"), eighth, 0, True) for k in range(2)},
        **{f"AIRY{k}_NEAR": best(near_airy(k), "-4.5", 1, -1) for k in range(2)},
        **{f"AIRY{k}_FAR": best(far_airy(k), far, "1.5", 0, True) for k in range(2)},
        **{
            f"AIRY{k}_{name}": best(airy_modulus(k, odd), mpf("1e-8"), 1 / mpf(40), 0, True)
            for k in range(2)
            for name, odd in (("P", False), ("Q", True))
        },
        "SPHERICAL_J1": best(over_root(spherical_j1), mpf("1e-20"), 4),
    }


def written(name: str, coefficients: Sequence[Any]) -> str:
    """The lines of one tuple of numbers."""
    numbers = ", ".join(repr(float(c)) for c in coefficients)
    lines = textwrap.wrap(numbers, 96, break_on_hyphens=False)
    return "\n".join([f"{name} = (", *(f"    {line}" for line in lines), ")  # fmt: skip\n"])


def main() -> None:
    """Write the module."""
    parts = [
        '"""Coefficients of the special functions, lowest power first.\n\n'
        "Written by tests/ops/make_special_coefficients.py, which says what each one approximates\n"
        'and where; ``_OVER`` are those of denominators.\n"""\n\n'
    ]
    for name, (p, q) in fits().items():
        print(name, len(p) - 1, len(q) - 1, flush=True)
        parts.append(written(name, p))
        if len(q) > 1:
            parts.append(written(f"{name}_OVER", q))
    root = float(DIGAMMA_ROOT)
    rest = float(DIGAMMA_ROOT - mpf(root))
    parts.append(written("DIGAMMA_ROOT", (root, rest)))
    for k, i in ((0, 1), (0, 2), (1, 1), (2, 1)):
        zero = mp.besseljzero(k, i)
        pair = float(zero), float(zero - mpf(float(zero)))
        parts.append(written(f"J{k}_ZERO_{i}", pair))
    for k, zeros in AIRY_ZEROS.items():
        for i, zero in enumerate(zeros, 1):
            pair = float(zero), float(zero - mpf(float(zero)))
            parts.append(written(f"AIRY{k}_ZERO_{i}", pair))
    TO.write_text("".join(parts))


if __name__ == "__main__":
    main()
