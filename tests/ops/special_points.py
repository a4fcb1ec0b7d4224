"""Where operations are compared with stored references: zeros, infinities, extremes, cancellation.

``make_references.py`` computes the references, in many digits; ``test_references.py`` compares.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

Array = np.ndarray[Any, Any]

#: A reference that any number fulfils: a NaN that no computation gives. NaN itself has to be met.
ANY = float(np.int64(0x7FF8_0000_0000_0A17).view(np.float64))

REFERENCES = Path(__file__).with_name("references.npz")
#: float64 is given the numbers of float32: what overflows there, need not here.
DTYPES = ("float32", "float16", "bfloat16", "float64")

# Numbers that all three dtypes have.
_COMMON = [
    0.0, -0.0, np.inf, -np.inf, np.nan, 0.5, -0.5, 0.75, -0.75, 1.0, -1.0, 1.5, -1.5, 2.0, -2.0,
    2.5, -2.5, 3.0, -3.0, 10.0, -10.0, 20.0, -20.0, 88.0, -88.0, 104.0, -104.0, 240.0, -240.0,
]  # fmt: skip
_FOR_PAIRS = [
    0.0, -0.0, np.inf, -np.inf, np.nan, 0.5, -0.5, 1.0, -1.0, 2.0, -2.0, 2.5, -3.0, 10.0,
]  # fmt: skip


def is_any(references: Array) -> Array:
    """Where any number will do."""
    found: Array = np.ascontiguousarray(references).view(np.int64) == np.float64(ANY).view(np.int64)
    return found


def dtype_of(name: str) -> np.dtype[Any]:
    """The NumPy dtype of a name."""
    return np.dtype(ml_dtypes.bfloat16) if name == "bfloat16" else np.dtype(name)


def finfo(name: str) -> Any:
    """The extremes and the spacing of a dtype, as ``np.finfo`` gives them."""
    return ml_dtypes.finfo(dtype_of(name))  # type: ignore[no-untyped-call]


def _own(name: str) -> list[float]:
    """Numbers at the edges of a dtype."""
    if name == "float64":
        return _own("float32")
    info = finfo(name)
    eps = float(info.eps)
    edges = [
        float(info.max), -float(info.max), float(info.smallest_subnormal),
        -float(info.smallest_subnormal), float(info.tiny), 1 + eps, 1 - eps / 2, -1 + eps / 2,
    ]  # fmt: skip
    if name != "float16":
        edges += [float(dtype_of(name).type(x)) for x in (1e25, -1e25, 1e-30, -1e-30)]
    if name == "float32":
        edges += [8388607.5, -8388606.5]  # the largest halves
    return edges


def points(name: str) -> Array:
    """The arguments of functions of one number, float64 [n]; all are numbers of the dtype."""
    return np.array([*_COMMON, *_own(name)])


def pairs(name: str) -> tuple[Array, Array]:
    """The arguments of functions of two numbers, each float64 [n]."""
    one = np.array([*_FOR_PAIRS, *_own(name)[:3], *_own(name)[8:11]])
    a, b = np.meshgrid(one, one, indexing="ij")
    return a.ravel(), b.ravel()


def rows(name: str) -> Array:
    """The arguments of functions of rows, float64 [rows, 5]."""
    if name == "float64":
        return rows("float32")
    info = finfo(name)
    big, small, inf, nan = float(info.max), float(info.smallest_subnormal), np.inf, np.nan
    found = [
        [0.5, -1.5, 2.0, 3.0, -0.25],
        [0.0, 0.0, 0.0, 0.0, 0.0],
        [0.0, 2.0, 0.0, 3.0, 0.5],
        [2.0, 2.0, 2.0, 2.0, 2.0],
        [-inf, -inf, -inf, -inf, -inf],
        [-inf, 0.5, -inf, 1.0, -inf],
        [inf, 1.0, 2.0, 3.0, 0.5],
        [nan, 1.0, 2.0, 3.0, 0.5],
        [1.0, nan, 5.0, nan, 0.5],
        [small, 0.0, small, -small, small],
        [big, 0.5, -1.0, 2.0, 0.25],
        [-big, -big, 1.0, 2.0, 0.0],
        [104.0, -104.0, 88.0, 240.0, 0.5],
        # far from 0 and close together, where E[x**2] - E[x]**2 cancels
        *([[1024.0, 1025.0, 1026.0, 1024.0, 1027.0]] if name != "bfloat16" else []),
        [128.0, 129.0, 128.0, 130.0, 131.0],
        [7.0, 7.0, 1.0, 7.0, 3.0],
    ]
    if name != "float16":
        low, high = (float(dtype_of(name).type(x)) for x in (1e-30, 1e25))
        found += [[low, -low, 2 * low, low, low], [high, 0.5, 2 * high, high, -high]]
    return np.array(found)


#: The weights of the elements of a row when its gradient is taken.
WEIGHTS = np.array([1.0, 2.0, -1.0, 0.5, 4.0])

#: Rows of the table that take one number: the calls that are compared, by name.
UNARY: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {
    **{
        name: (name, (), {})
        for name in (
            "negative", "positive", "square", "reciprocal", "abs", "sign", "exp", "expm1", "exp2",
            "log", "log1p", "log2", "log10", "sqrt", "rsqrt", "sin", "cos", "tan", "asin", "acos",
            "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "erf", "floor", "ceil",
            "trunc", "round", "sigmoid", "softplus", "relu", "leaky_relu", "elu", "silu",
            "hardtanh", "selu", "gelu", "mish", "dropout", "hardsigmoid", "hardswish", "softsign",
            "logsigmoid", "tanhshrink", "relu6", "hardshrink", "softshrink", "celu", "rrelu",
        )
    },
    "dropout": ("dropout", (0.5, False), {}),
    "gelu of tanh": ("gelu", ("tanh",), {}),
    "softplus 2": ("softplus", (2.0, 10.0), {}),
    "celu 0.5": ("celu", (0.5,), {}),
    "threshold": ("threshold", (0.75, -2.0), {}),
    "power 2": ("pow", (2,), {}),
    "power 3": ("pow", (3.0,), {}),
    "power -1": ("pow", (-1.0,), {}),
    "power 0.5": ("pow", (0.5,), {}),
    "power 0": ("pow", (0,), {}),
    "power 1": ("pow", (1,), {}),
    "clip": ("clip", (-1.0, 2.0), {}),
}  # fmt: skip

#: Those that give -0.0 for -0.0.
KEEPS_SIGN = {
    "positive", "dropout", "expm1", "log1p", "sqrt", "sin", "tan", "asin", "atan", "sinh", "tanh",
    "asinh", "atanh", "erf", "floor", "ceil", "trunc", "round", "silu", "gelu", "gelu of tanh",
    "mish", "leaky_relu", "hardtanh", "clip", "power 3", "power 1", "power 0.5", "hardswish",
    "softsign", "rrelu",
}  # fmt: skip

#: Those that take two.
BINARY = (
    "add", "subtract", "multiply", "divide", "remainder", "floor_divide", "pow", "logaddexp",
    "hypot", "atan2", "maximum", "minimum",
)  # fmt: skip

#: Those that take a row, along the last axis.
ALONG: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {
    **{
        name: (name, (), {"axis": -1})
        for name in (
            "sum", "mean", "max", "min", "prod", "logsumexp", "softmax", "log_softmax",
            "cumulative_sum", "cumulative_prod",
        )
    },
    "var": ("var", (), {"axis": -1}),
    "var of a sample": ("var", (), {"axis": -1, "correction": 1}),
    "std": ("std", (), {"axis": -1}),
    "norm": ("norm", (), {"axis": -1}),
    "norm 1": ("norm", (1,), {"axis": -1}),
    "norm 3": ("norm", (3,), {"axis": -1}),
    "norm inf": ("norm", (np.inf,), {"axis": -1}),
    "layer_norm": ("layer_norm", ((5,),), {}),
    "rms_norm": ("rms_norm", ((5,),), {"eps": 1e-6}),
}  # fmt: skip
