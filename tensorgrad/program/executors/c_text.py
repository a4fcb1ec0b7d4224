"""Small parts of C text that nests, products and whole programs share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tensorgrad.program.functions import C_TYPES
from tensorgrad.program.loop_ir import Storage, View

# Work, in additions, of a piece of a nest that is shared out among threads. It takes about 10 us,
# of which waking a thread is a tenth.
PIECE = 1 << 17
# What a function that does a part of the work is given.
BY_ROWS = "void **P, long begin, long end"
#: The bytes of an element of each C type.
BYTES = {ctype: dtype.itemsize for dtype, ctype in C_TYPES.items()}

#: What a function is given the address of: an element of a storage.
Operand = tuple[Storage, int]


def literal(x: Any, ctype: str) -> str:
    """A number in C."""
    if "int" in ctype and isinstance(x, int):
        if x < -(2**63) + 1:  # which has no literal: C reads the sign on its own
            return f"({x + 1} - 1)"
        unsigned = "u" if ctype in ("uint32_t", "uint64_t") else ""
        return f"({x})" if x < 0 else f"{int(x)}{unsigned}"
    x = float(x) if not isinstance(x, bool) else int(x)
    if ctype == "float" and math.isfinite(x):
        with np.errstate(over="ignore"):
            x = float(np.float32(x))
    if x != x:
        return "NAN"
    if math.isinf(x):
        return "INFINITY" if x > 0 else "(-INFINITY)"
    if "int" in ctype:
        text = str(int(x))
    else:
        text = repr(float(x)) + ("f" if ctype == "float" else "")
    return f"({text})" if text.startswith("-") else text


def type_of(x: Any) -> str:
    """The C type of what has a dtype."""
    return C_TYPES[x.dtype]


def has_axes(view: View) -> bool:
    """Whether it has more than one element along some axis."""
    return any(n != 1 for n in view.shape)


def unit_text(calls: Sequence[str], given: str = "void **P") -> str:
    """The function by which a unit is called."""
    return f"TG_UNIT void @_unit({given}) {{ {' '.join(calls)} }}\n"


def part_text(call: str) -> str:
    """The function of a part of a unit's work."""
    return f"static TG_FLATTEN void @_part({BY_ROWS}) {{ {call} }}\n"
