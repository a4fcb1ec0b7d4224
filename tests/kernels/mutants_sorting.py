"""Bugs in the sort of row numbers, for mutate.py."""

from __future__ import annotations

from mutation import Mutant

SORTING: list[Mutant] = [
    Mutant("negative index", "sorting.cu", "    if (row < 0) row += rows;\n", ""),
    Mutant("wrong stride", "sorting.cu", "i / (m * inner) * rows", "i / m * rows"),
    Mutant("dropped term", "sorting.cu", "* inner + i % inner;", "* inner;"),
    Mutant("dropped bit", "sorting.cu", "bit < 8; ++bit", "bit < 7; ++bit"),
    Mutant(
        "dead lanes counted",
        "sorting.cu",
        "uint32 same = __ballot_sync(WHOLE_WARP, live);",
        "uint32 same = WHOLE_WARP;",
    ),
    Mutant("swapped operand", "sorting.cu", "same &= set ? with : ~with;", "same &= with;"),
    Mutant(
        "counted by each",
        "sorting.cu",
        "if (some.live(k) && !(same & below)) seen",
        "if (some.live(k)) seen",
    ),
    Mutant(
        "missing guard",
        "sorting.cu",
        "key[k] = live(k) ? keys[at(k)] : 0;",
        "key[k] = keys[at(k)];",
    ),
    Mutant(
        "wrong place", "sorting.cu", "threadIdx.x / 32 * (ROUNDS * 32)", "threadIdx.x / 32 * 32"
    ),
    Mutant(
        "sum not cleared",
        "sorting.cu",
        "for (int w = 0; w < WARPS; ++w) seen[w][threadIdx.x] = 0;",
        "for (int w = 0; w < 1; ++w) seen[w][threadIdx.x] = 0;",
    ),
    Mutant(
        "missing barrier",
        "sorting.cu",
        "  __syncthreads();\n  count(some",
        "  count(some",
    ),
    Mutant(
        "missing barrier",
        "sorting.cu",
        "  count(some, shift, seen[threadIdx.x / 32]);\n  __syncthreads();\n",
        "  count(some, shift, seen[threadIdx.x / 32]);\n",
    ),
    Mutant(
        "missing barrier",
        "sorting.cu",
        "    __syncthreads();  // before the next chunk is counted\n",
        "",
    ),
    Mutant("dropped part", "sorting.cu", "w < WARPS; ++w) sum +=", "w < WARPS - 1; ++w) sum +="),
    Mutant(
        "guard off by one",
        "sorting.cu",
        "if (lane >= step) sum += other;",
        "if (lane > step) sum += other;",
    ),
    Mutant("guard off by one", "sorting.cu", "if (w < warp) before", "if (w <= warp) before"),
    Mutant("dropped term", "sorting.cu", "return before + sum - value;", "return before + sum;"),
    Mutant("sum not carried", "sorting.cu", "    carry += total;\n", ""),
    Mutant(
        "missing barrier",
        "sorting.cu",
        "  __syncthreads();  // before the next sums take the place of these\n",
        "",
    ),
    Mutant("sum not carried", "sorting.cu", "      next += counted;\n", ""),
    Mutant(
        "unstable",
        "sorting.cu",
        "mine[digit] + __popc(same & below);",
        "mine[digit] + __popc(same & ~below) - 1;",
    ),
    Mutant(
        "missing warp barrier",
        "sorting.cu",
        "      __syncwarp();\n      if (some.live(k)) {\n",
        "      if (some.live(k)) {\n",
    ),
    Mutant(
        "first pass forgotten",
        "sorting.cu",
        "plain ? some.at(k) : values[some.at(k)];",
        "values[some.at(k)];",
    ),
    Mutant("wrong byte", "sorting.cu", "key[k] >> shift", "key[k]"),
]
