"""Bugs in attention and in the products of tiles, for mutate.py."""

from __future__ import annotations

from mutation import Mutant

ATTENTION: list[Mutant] = [
    Mutant("rows behind the end", "tiles.cuh", "if (row < there && chunk * per", "if (chunk * per"),
    Mutant(
        "missing barrier",
        "attention.cu",
        "      __syncthreads();  // what was there may still be being read\n",
        "",
    ),
    Mutant(
        "sum of before not corrected",
        "attention.cu",
        "          total[half] *= shrink[half];\n",
        "",
    ),
]
