"""How the kernels are launched: one file for each family, a launcher for each row with a kernel.

A row of the table names its kernel; here the name leads to functions that take the row's arrays,
choose the grid, make the outputs and launch. A launcher that finds its kernel unfit (an integer
dtype, an axis it does not serve) returns ``NotImplemented``, and the row's own value or rules are
used. Imported by the CUDA backend alone.
"""

from __future__ import annotations

from tensorgrad.backend.launch import (
    activation,
    attention,
    bias_activation,
    convolution,
    epilogues,
    indexing,
    masked_products,
    normalization,
    optimizer,
    pooling,
    products,
    random,
    recurrence,
    rows,
)
from tensorgrad.backend.launch.common import BACKWARD, BETWEEN, FORWARD

__all__ = [
    "BACKWARD", "BETWEEN", "FORWARD", "activation", "attention", "bias_activation", "convolution",
    "epilogues", "indexing", "masked_products", "normalization", "optimizer", "pooling",
    "products", "random", "recurrence", "rows",
]  # fmt: skip
