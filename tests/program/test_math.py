"""The float32 functions of generated programs: errors over all exponents, special values."""

from __future__ import annotations

import ctypes
import re
from typing import Any

import numpy as np
import pytest
from program.captured import Captured
from program.executors import EXECUTORS
from program.vector_widths import WIDTHS, built

import tensorgrad as tg
from tensorgrad import Tensor
from tensorgrad.ops import special
from tensorgrad.program.compiler import build

pytestmark = pytest.mark.skipif("native" not in EXECUTORS, reason="there is no C compiler")

Array = np.ndarray[Any, Any]

# name -> the function in float64, and the error in units in the last place that the header states
FUNCTIONS: dict[str, tuple[Any, float]] = {
    "exp": (np.exp, 1.0),
    "expm1": (np.expm1, 2.0),
    "log": (np.log, 1.0),
    "log1p": (np.log1p, 3.0),
    "tanh": (np.tanh, 2.0),
    "sigmoid": (lambda x: 1 / (1 + np.exp(-x)), 4.0),
    "erf": (lambda x: special.erf(np, x), 1.0),
    "erf_beside_exp": (lambda x: special.erf(np, x), 1.1),
    **{f"pow_{k}": (lambda x, k=k: np.power(x, k / 2), 0.51) for k in (1, 3)},
    **{f"pow_minus_{k}": (lambda x, k=k: np.power(x, -k / 2), 0.51) for k in (1, 3)},
}
# the same for vectors, of c/vectors.h; the second takes what is not above zero
VECTORS: dict[str, tuple[Any, float]] = {
    "vexp": (np.exp, 1.0),
    "vexp_negative": (lambda x: np.exp(-np.abs(x)), 1.0),
    "vsigmoid": (lambda x: 1 / (1 + np.exp(-x)), 4.0),
    "vtanh": (np.tanh, 3.0),
}


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    lines = ['#include "support.h"']
    for name in FUNCTIONS:
        called = f"{name}(x[i])" if name.endswith("_exp") else f"{name}_f(x[i])"
        if name.startswith("pow"):  # a power of so many halves
            called = f"pow_f(x[i], {'-' if 'minus' in name else ''}{name[-1]} * 0.5f)"
        lines.append(
            f"void run_{name}(const float *x, float *y, long n) {{\n#pragma omp simd\n"
            f"    for (long i = 0; i < n; i++) y[i] = tg_{called};\n}}"
        )
    lines.append(
        "void run_words(int64_t key, int64_t start, uint32_t *y, long n) {\n"
        "    for (long i = 0; i < n; i++) y[i] = tg_word(key, start + i);\n}"
    )
    return build("\n".join(lines) + "\n")


@pytest.fixture(scope="module", params=WIDTHS, ids=lambda width: f"width {width}")
def vectors(request: pytest.FixtureRequest, tmp_path_factory: Any) -> ctypes.CDLL:
    """The functions of vectors, for a processor that has vectors of so many numbers."""
    lines = []
    for name in VECTORS:
        given = "x"
        if name == "vexp_negative":
            given = "(tg_vec)((tg_ivec)x | TG_SIGN_BITS)"
        lines.append(
            f"void run_{name}(const float *from, float *y, long n) {{\n"
            "    for (long i = 0; i < n; i += TG_L) {\n        long left = n - i;\n"
            "        tg_vec x = tg_load_some(from + i, left < TG_L ? left : TG_L);\n"
            f"        x = tg_{name}({given});\n"
            "        tg_store_some(y + i, x, left < TG_L ? left : TG_L);\n    }\n}"
        )
    return built("\n".join(lines) + "\n", request.param, tmp_path_factory.mktemp("vectors"))


def computed(library: ctypes.CDLL, name: str, x: Array) -> Array:
    y = np.empty_like(x)
    function = getattr(library, f"run_{name}")
    function.restype = None
    function(ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(y.ctypes.data), ctypes.c_long(x.size))
    return y


def everywhere() -> Array:
    """Numbers of every exponent and both signs, many for each, and the edges between them."""
    rng = np.random.default_rng(0)
    bits = np.arange(255, dtype=np.uint32)[:, None] << np.uint32(23)
    mantissas = rng.integers(0, 1 << 23, (255, 2000), dtype=np.uint32)
    mantissas[:, :4] = [0, 1, (1 << 23) - 1, 1 << 22]
    positive = (bits | mantissas).reshape(-1).view(np.float32)
    dense = np.linspace(-110, 110, 400_001, dtype=np.float32)
    return np.concatenate([positive, -positive, dense, dense / 100])


def check_errors(library: ctypes.CDLL, name: str) -> None:
    """Whether a function is as exact as its header says, NaN being NaN."""
    function, limit = {**FUNCTIONS, **VECTORS}[name]
    x = everywhere()
    with np.errstate(all="ignore"):
        wanted = function(x.astype(np.float64))
        rounded = wanted.astype(np.float32)
    found = computed(library, name, x)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(rounded))
    finite = np.isfinite(rounded) & np.isfinite(found)
    # at the very edge of overflow one may round to infinity where the other does not
    at_edge = np.isinf(found) != np.isinf(rounded)
    assert np.all(np.abs(wanted[at_edge]) > 3.4e38)
    step = np.spacing(np.maximum(np.abs(rounded[finite]), np.finfo(np.float32).tiny))
    errors = np.abs(found[finite].astype(np.float64) - wanted[finite]) / step
    worst = int(np.argmax(errors))
    assert errors[worst] <= limit, f"{errors[worst]:.2f} ulp at {x[finite][worst]!r}"


def check_special_values(library: ctypes.CDLL, name: str) -> None:
    """Whether NaN, infinities, zeros and subnormal numbers are taken as IEEE 754 wants them."""
    function, _ = {**FUNCTIONS, **VECTORS}[name]
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-45, -1.0], np.float32)
    with np.errstate(all="ignore"):
        wanted = function(x.astype(np.float64)).astype(np.float32)
    found = computed(library, name, x)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    zero = wanted == 0
    np.testing.assert_array_equal(np.signbit(found[zero]), np.signbit(wanted[zero]))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_errors(library: ctypes.CDLL, name: str) -> None:
    check_errors(library, name)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_special_values(library: ctypes.CDLL, name: str) -> None:
    check_special_values(library, name)


@pytest.mark.parametrize("name", VECTORS)
def test_errors_of_vectors(vectors: ctypes.CDLL, name: str) -> None:
    check_errors(vectors, name)


@pytest.mark.parametrize("name", VECTORS)
def test_special_values_of_vectors(vectors: ctypes.CDLL, name: str) -> None:
    check_special_values(vectors, name)


@pytest.mark.parametrize("key", [0, 7, 2**63 + 5, 2**64 - 1])
def test_random_words_are_those_of_the_library(library: ctypes.CDLL, key: int) -> None:
    from tensorgrad.backend import philox

    found = np.empty(1000, np.uint32)
    library.run_words.restype = None
    library.run_words(
        ctypes.c_uint64(key), ctypes.c_int64(12), ctypes.c_void_p(found.ctypes.data), 1000
    )
    np.testing.assert_array_equal(found, philox.bits(np, key, 12, 1000))


def test_gelu_and_its_gradient_share_an_exponential() -> None:
    """Of the same x; of another one the exponential is not that of erf."""
    x = np.concatenate([np.linspace(-9, 9, 4001), [np.nan, np.inf, -np.inf, 0, -0.0, 1e-40]])
    given = [x.astype(np.float32), np.ones_like(x, np.float32)]

    def step(x: Tensor, g: Tensor) -> list[Tensor]:
        y = tg.gelu(x)
        h = g * 0.5
        apart = tg.erf(x * 0.3) * tg.exp(-(h * h)) + tg.exp(-(h * g))
        return [y.detach(), *tg.autograd.grad(y, [x], [g]), apart.detach()]

    singles = [Tensor(a, requires_grad=n < 1) for n, a in enumerate(given)]
    doubles = [Tensor(a.astype(np.float64), requires_grad=n < 1) for n, a in enumerate(given)]
    with np.errstate(all="ignore"):
        captured = Captured(step, singles)
        for found, exact in zip(captured(*singles), step(*doubles), strict=True):
            np.testing.assert_allclose(found, exact.numpy(), rtol=3e-6, atol=3e-7)
    text = captured.executor.source.text
    for name, times in (("erf_beside_exp", 1), ("erf_f", 1), ("exp_negative", 2), ("exp_f", 1)):
        assert len(re.findall(rf"= tg_{name}\(", text)) == times, text
