"""Products of two vectors and a matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad.errors import ShapeError
from tensorgrad.ops.contractions import einsum
from tensorgrad.ops.shaping import shape_of
from tensorgrad.ops.table import operation
from tensorgrad.tape import autocast_to

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = ["bilinear"]


def _reference(x1: Any, x2: Any, weight: Any, bias: Any = None) -> Any:
    y = np.einsum("...i,oij,...j->...o", x1, weight, x2)
    return y if bias is None else y + bias


@operation(
    cases=[
        lambda s: s(s.real(3, 2), s.real(3, 4), s.real(5, 2, 4), s.real(5)),
        lambda s: s(s.real(2, 3, 2), s.real(2, 3, 2), s.real(1, 2, 2)),
    ],
    reference=_reference,
    torch="nn.functional.bilinear",
    namespace="nn.functional",
    method=False,
    complex=True,
)
def bilinear(x1: Any, x2: Any, /, weight: Any, bias: Any = None) -> Tensor:
    """``x1 @ weight[k] @ x2 + bias[k]`` for each output k.

    x1: shape (..., in1). x2: (..., in2). weight: (out, in1, in2). bias: (out,) or ``None``.
    Returns shape (..., out). Raises ShapeError if the shapes do not fit.
    """
    a, b, w = shape_of(x1), shape_of(x2), shape_of(weight)
    fits = a and b and a[:-1] == b[:-1] and len(w) == 3 and w[1:] == (a[-1], b[-1])
    if not fits or (bias is not None and shape_of(bias) != w[:1]):
        raise ShapeError(
            "bilinear: shapes (..., in1) and (..., in2) need a weight of shape (out, in1, in2) and "
            f"a bias of (out,); got {a}, {b}, {w}"
            + ("" if bias is None else f" and {shape_of(bias)}")
        )
    y: Tensor = einsum("...i,oij,...j->...o", x1, weight, x2)
    # inside ``autocast`` it must not widen what was computed in 16 bits
    return y if bias is None else y + autocast_to("half", bias)
