"""Mistakes in pooling and resampling, and the tests that have to find them."""

from __future__ import annotations

from mutation import Mutant, Selection

SELECTIONS: dict[str, Selection] = {
    "largest": Selection(
        "tests/nn/test_pooling.py tests/ops/test_table.py"
        " -k 'largest or random_options or layers or (max_pool and test_value)'",
        12,
    ),
    "pools": Selection(
        "tests/nn/test_pooling.py tests/ops/test_table.py"
        " -k 'random_options or halves or zeros or (pool and (test_value or gradient))'",
        15,
    ),
    "places of pools": Selection(
        "tests/nn/test_pooling.py tests/ops/test_table.py -k 'fractional or unpool'", 8
    ),
    "resampling": Selection(
        "tests/nn/test_resampling.py tests/nn/test_pooling.py tests/ops/test_table.py"
        " -k 'interpolate or shuffle or infinity or adaptive or resampling'",
        15,
    ),
    "samples": Selection("tests/nn/test_sampling_grids.py tests/ops/test_table.py -k 'grid'", 12),
}

_POOLING, _WINDOWS = "tensorgrad/ops/pooling.py", "tensorgrad/ops/windows.py"
_BY_INDEX, _MAP = "tensorgrad/ops/index_pooling.py", "tensorgrad/ops/weighted_take.py"
_RESAMPLING, _GRIDS = "tensorgrad/ops/resampling.py", "tensorgrad/ops/sampling_grids.py"

MUTANTS: list[Mutant] = [
    Mutant(
        "the last of equal elements gets the gradient, axis by axis",
        _POOLING,
        "better = part > best",
        "better = part >= best",
        "largest",
    ),
    Mutant(
        "NaN is not the largest",
        _POOLING,
        "            if nan:\n",
        "            if nan and xp is not np:\n",
        "largest",
    ),
    Mutant(
        "the second of equal elements gets the gradient, by comparison",
        _POOLING,
        "missed &= x[(..., *index)] != y",
        "missed &= x[(..., *index)] < y * 0.5",
        "largest",
    ),
    Mutant(
        "padding can be taken for the largest",
        _POOLING,
        "            if w.padding:  # an element",
        "            if w.padding > 9:  # an element",
        "largest",
    ),
    Mutant(
        "padding is zero and not the lowest number",
        _POOLING,
        "    outside = lowest(x.dtype)\n    for axis, w in enumerate",
        "    outside = 0\n    for axis, w in enumerate",
        "largest",
    ),
    Mutant(
        "windows may begin beyond the end",
        _WINDOWS,
        "        if ceil_mode and (count - 1) * s >= size + p:",
        "        if ceil_mode and (count - 1) * s > size + p:",
        "pools",
    ),
    Mutant(
        "padding counts in every mean",
        _POOLING,
        "            lengths = xp.minimum(end, w.size) - xp.maximum(start, 0)",
        "            lengths = end - start",
        "pools",
    ),
    Mutant(
        "what windows share gets the gradient of the last",
        _WINDOWS,
        "        if w.apart:\n            part[...] = g",
        "        if w.stride:\n            part[...] = g",
        "pools",
    ),
    Mutant(
        "the gradient of a norm of zeros is NaN",
        _POOLING,
        "pow(where(zero, 1.0, sums), 1 / p)",
        "pow(sums, 1 / p)",
        "pools",
    ),
    Mutant(
        "the first window does not begin at the beginning",
        _BY_INDEX,
        "+ u) * apart) - trunc(u * apart)",
        "+ u) * apart)",
        "places of pools",
    ),
    Mutant(
        "the axes of drawn numbers are mixed up",
        _BY_INDEX,
        "order = range(n) if n == 3 else range(n)[::-1]",
        "order = range(n)",
        "places of pools",
    ),
    Mutant(
        "an element counts as often as it stands in the map",
        _MAP,
        "found[last, every] / (most - last)",
        "found[last, every]",
        "resampling",
    ),
    Mutant(
        "weights of zero make NaN of infinities",
        _MAP,
        "        if sparse:",
        "        if sparse and xp is not np:",
        "resampling",
    ),
    Mutant(
        "the factor is forgotten",
        _RESAMPLING,
        "spacing = 1 / factor if factor else size / results",
        "spacing = size / results",
        "resampling",
    ),
    Mutant(
        "aligned corners are not",
        _RESAMPLING,
        "at = rows * spacing if align else",
        "at = rows * spacing if align is None else",
        "resampling",
    ),
    Mutant(
        "outside of the input is its border",
        _GRIDS,
        "found = where(expand_dims(valid, -1), take(table, row, 0), 0.0)",
        "found = take(table, row, 0)",
        "samples",
    ),
    Mutant(
        "reflected at the middles of the outermost elements",
        _GRIDS,
        "(-0.5, size - 0.5)",
        "(0.0, size - 1.0)",
        "samples",
    ),
    Mutant(
        "the places of cubic samples are not brought inside",
        _GRIDS,
        "place = _inside(first + float(k), size, padding_mode, align)",
        "place = first + float(k)",
        "samples",
    ),
]
