"""What C and CUDA call the functions that a map can name, and what they cost.

A map names one function of single numbers: as NumPy does, or one of those that a value function
finds in the engine's own namespace (``backend/namespace.py``). This table is all that the two
printers know about them. Both languages have the same names, in ``c/support.h`` and in
``kernels/program.cuh``, so one table serves both.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from tensorgrad.dtypes import HALVES, bfloat16, float16

BOOL = np.dtype(np.bool_)
#: The element types of loops, in C. 16-bit floats are numbers of float32 outside of memory: loops
#: round to them, choose among them and move them, and do all else in float32.
C_TYPES: dict[np.dtype[Any], str] = {
    np.dtype(np.float32): "float",
    np.dtype(np.float64): "double",
    np.dtype(np.int64): "int64_t",
    np.dtype(np.int32): "int32_t",
    np.dtype(np.int16): "int16_t",
    np.dtype(np.int8): "int8_t",
    np.dtype(np.uint64): "uint64_t",
    np.dtype(np.uint32): "uint32_t",
    np.dtype(np.uint16): "uint16_t",
    np.dtype(np.uint8): "uint8_t",
    BOOL: "uint8_t",
    float16: "tg_half",
    bfloat16: "tg_bfloat",
}


class Function(NamedTuple):
    """How a function is written, and for which numbers.

    text: with {0}, {1}, ... for the operands, {f} for the ending of a function of their type
        (tg_exp_f or tg_exp_d), {type} for that type in C, {index} for the row-major index of the
        point.
    cost: about how many additions it takes as long as; it decides what is computed twice.
    kinds: the kinds of dtypes of operands for which it holds; for others it is left to NumPy.
    whole: the text for integers, where that is another one.
    """

    text: str
    cost: int = 1
    kinds: str = "f"
    whole: str = ""


#: What loops do with 16-bit floats.
_OF_HALVES = ("copy", "cast", "where")
_NUMBERS = "fiu"
_ALL = "fiub"
_BITS = "iub"
_TESTS = "fb"  # of floats

# A quotient of integers by 0 is 0, and so is what remains; the smallest number by -1 stays.
_FLOORED = (
    "{1} == 0 ? 0 : ({type})-1 < 0 && {1} == ({type})-1 ? -{0} : "
    "{0} / {1} - ({0} % {1} != 0 && ({0} < 0) != ({1} < 0))"
)
_REMAINDER = (
    "{1} == 0 || ({type})-1 < 0 && {1} == ({type})-1 ? 0 : "
    "{0} % {1} + ({0} % {1} != 0 && ({0} < 0) != ({1} < 0) ? {1} : 0)"
)
# As many places as there are, or more, leave nothing of a number but its sign.
_IN_RANGE = "(uint64_t){1} < 8 * sizeof({type})"

FUNCTIONS: dict[str, Function] = {
    "copy": Function("{0}", 1, _ALL),
    "cast": Function("", 1, _ALL),  # see ``printed``
    "index": Function("{0}", 1, _NUMBERS),
    "where": Function("{0} ? {1} : {2}", 1, _ALL),
    "word": Function("tg_word({0}, {1} + {index} * {2})", 50, "iu"),
    "add": Function("{0} + {1}", 1, _NUMBERS),
    "subtract": Function("{0} - {1}", 1, _NUMBERS),
    "multiply": Function("{0} * {1}", 1, _NUMBERS),
    "divide": Function("{0} / {1}", 4),
    "negative": Function("-{0}", 1, _NUMBERS),
    "positive": Function("{0}", 1, _NUMBERS),
    "square": Function("{0} * {0}", 1, _NUMBERS),
    "reciprocal": Function("1 / {0}", 4),
    "absolute": Function("tg_abs{f}({0})", 1, _NUMBERS, "{0} < 0 ? -{0} : {0}"),
    "fabs": Function("tg_abs{f}({0})"),
    "sign": Function("tg_sign{f}({0})", 2, _NUMBERS, "({0} > 0) - ({0} < 0)"),
    "exp": Function("tg_exp{f}({0})", 12),
    "expm1": Function("tg_expm1{f}({0})", 20),
    "exp2": Function("tg_exp2{f}({0})", 12),
    "log": Function("tg_log{f}({0})", 14),
    "log1p": Function("tg_log1p{f}({0})", 20),
    "log2": Function("tg_log2{f}({0})", 20),
    "log10": Function("tg_log10{f}({0})", 20),
    "sqrt": Function("tg_sqrt{f}({0})", 6),
    "power": Function("tg_pow{f}({0}, {1})", 40),
    "hypot": Function("tg_hypot{f}({0}, {1})", 30),
    "sin": Function("tg_sin{f}({0})", 30),
    "cos": Function("tg_cos{f}({0})", 30),
    "tan": Function("tg_tan{f}({0})", 30),
    "arcsin": Function("tg_asin{f}({0})", 30),
    "arccos": Function("tg_acos{f}({0})", 30),
    "arctan": Function("tg_atan{f}({0})", 30),
    "arctan2": Function("tg_atan2{f}({0}, {1})", 40),
    "sinh": Function("tg_sinh{f}({0})", 30),
    "cosh": Function("tg_cosh{f}({0})", 30),
    "tanh": Function("tg_tanh{f}({0})", 20),
    "arcsinh": Function("tg_asinh{f}({0})", 40),
    "arccosh": Function("tg_acosh{f}({0})", 40),
    "arctanh": Function("tg_atanh{f}({0})", 40),
    "erf": Function("tg_erf{f}({0})", 25),
    "sigmoid": Function("tg_sigmoid{f}({0})", 16),
    "floor": Function("tg_floor{f}({0})"),
    "ceil": Function("tg_ceil{f}({0})"),
    "trunc": Function("tg_trunc{f}({0})"),
    "rint": Function("tg_rint{f}({0})"),
    "maximum": Function("tg_max{f}({0}, {1})", 1, _ALL, "{0} > {1} ? {0} : {1}"),
    "minimum": Function("tg_min{f}({0}, {1})", 1, _ALL, "{0} < {1} ? {0} : {1}"),
    "floor_divide": Function("tg_floor_divide{f}({0}, {1})", 30, _NUMBERS, _FLOORED),
    "remainder": Function("tg_remainder{f}({0}, {1})", 30, _NUMBERS, _REMAINDER),
    "logaddexp": Function("tg_logaddexp{f}({0}, {1})", 40),
    "equal": Function("{0} == {1}", 1, _ALL),
    "not_equal": Function("{0} != {1}", 1, _ALL),
    "less": Function("{0} < {1}", 1, _ALL),
    "less_equal": Function("{0} <= {1}", 1, _ALL),
    "greater": Function("{0} > {1}", 1, _ALL),
    "greater_equal": Function("{0} >= {1}", 1, _ALL),
    "logical_and": Function("({0} != 0) & ({1} != 0)", 1, _ALL),
    "logical_or": Function("({0} != 0) | ({1} != 0)", 1, _ALL),
    "logical_xor": Function("({0} != 0) ^ ({1} != 0)", 1, _ALL),
    "logical_not": Function("{0} == 0", 1, _ALL),
    "isnan": Function("{0} != {0}", 1, _TESTS),
    "isinf": Function("tg_abs{f}({0}) == INFINITY", 1, _TESTS),
    "isfinite": Function("tg_finite{f}({0})", 1, _TESTS),
    "bitwise_and": Function("{0} & {1}", 1, _BITS),
    "bitwise_or": Function("{0} | {1}", 1, _BITS),
    "bitwise_xor": Function("{0} ^ {1}", 1, _BITS),
    "invert": Function("~{0}", 1, "iu"),
    "left_shift": Function(_IN_RANGE + " ? ({type})((uint64_t){0} << {1}) : 0", 2, "iu"),
    "right_shift": Function(_IN_RANGE + " ? {0} >> {1} : {0} < 0 ? -1 : 0", 2, "iu"),
}

# With a number that is not NaN: as one comparison, which is a single instruction.
_LIMITED = {"maximum": "{0} <= {1} ? {1} : {0}", "minimum": "{0} >= {1} ? {1} : {0}"}


def number_type(dtype: np.dtype[Any]) -> str:
    """The C type of a number that was read from memory, or is to be written there."""
    return "float" if dtype in HALVES else C_TYPES[dtype]


@lru_cache(maxsize=4096)
def reason_against(name: str, dtypes: tuple[np.dtype[Any], ...], into: np.dtype[Any]) -> str:
    """Why loops cannot apply the function ``name`` to numbers of these types; "" if they can.

    into: the type of the result.
    """
    function = FUNCTIONS.get(name)
    if function is None:
        return f"{name} has no loop form"
    if into not in C_TYPES:
        return f"{into} is left to NumPy"
    if into in HALVES and name == "cast" and dtypes[0] == np.float64:
        return f"to round float64 to {into} is left to NumPy"  # by float32 it would be done twice
    for dtype in (*dtypes, into):
        if dtype in HALVES and name not in _OF_HALVES:
            return f"{name} of {dtype} is left to NumPy"
    for dtype in dtypes:
        known = dtype in HALVES or dtype.kind in function.kinds
        if dtype not in C_TYPES or not known:
            return f"{name} of {dtype} is left to NumPy"
    if {"i", "u"} <= {dtype.kind for dtype in dtypes}:
        return f"{name} of numbers with and without a sign is left to NumPy"
    return ""


def printed(
    name: str, kind: np.dtype[Any], into: np.dtype[Any], operands: Sequence[str], index: str,
    limit: bool,
) -> str:  # fmt: skip
    """The expression of a function, in C and in CUDA.

    kind: the dtype of its operands; into: that of the result. limit: whether the second operand is
    a number that is not NaN. What is cast to 16 bits is given as it lies in memory.
    """
    if name == "cast":
        if into == BOOL:
            return f"{operands[0]} != 0"
        if into in HALVES:
            return f"{C_TYPES[into]}_of({operands[0]})"
        if kind == BOOL:  # a choice of two numbers needs no truth value of 8 bits
            return f"{operands[0]} ? 1 : 0"
        return f"({number_type(into)}){operands[0]}"
    function = FUNCTIONS[name]
    text = function.text if kind.kind == "f" else function.whole or function.text
    if limit and kind.kind == "f":
        text = _LIMITED.get(name, text)
    ending = "_f" if kind == np.float32 else "_d"
    return text.format(*operands, f=ending, index=index, type=C_TYPES[kind])
