"""Mistakes planted in what programs make of neighbouring instructions, and in the order of axes."""

from __future__ import annotations

from mutation import Mutant, Selection

_PROGRAM = "tensorgrad/program"

SELECTIONS: dict[str, Selection] = {
    "fusion": Selection("tests/program/test_fusion.py", 22),
    "convolutions of programs": Selection(
        "tests/program/test_convolution.py -k 'pooled or finite or seen or values or shape or masks'",
        30,
    ),
    "flattening": Selection("tests/program/test_flattening.py", 4),
    "scaled convolutions": Selection("tests/program/test_convolution_scaling.py", 12),
    "memory order": Selection("tests/program/test_memory_order.py", 2),
}

MUTANTS: list[Mutant] = [
    Mutant(
        "a ReLU moved behind a pool though others read it",
        f"{_PROGRAM}/fusion.py",
        "    late = late and set(uses.readers[x]) == readers\n",
        "",
        "fusion",
    ),
    Mutant(
        "a ReLU moved behind a pool though it is handed out",
        f"{_PROGRAM}/fusion.py",
        "        and x not in uses.kept\n",
        "",
        "fusion",
    ),
    Mutant(
        "windows that leave out elements taken for tiles",
        "tensorgrad/ops/tiled_pooling.py",
        "w.stride == w.kernel and w.size == w.results * w.kernel for w in windows",
        "w.size >= w.results * w.kernel for w in windows",
        "fusion",
    ),
    Mutant(
        "the last of equal elements",
        "tensorgrad/ops/tiled_pooling.py",
        "better = xp.logical_or(part > best, part != part)",
        "better = xp.logical_or(part >= best, part != part)",
        "fusion",
    ),
    Mutant(
        "NaN is no maximum",
        "tensorgrad/ops/tiled_pooling.py",
        "better = xp.logical_or(part > best, part != part)",
        "better = part > best",
        "fusion",
    ),
    Mutant(
        "sums of what was spread over other axes",
        f"{_PROGRAM}/fusion.py",
        "if tiled <= summed else i",
        "if summed else i",
        "fusion",
    ),
    Mutant(
        "flattened images turned around though they are handed out",
        f"{_PROGRAM}/flattening.py",
        "    if y in uses.kept or y.dtype",
        "    if y.dtype",
        "flattening",
    ),
    Mutant(
        "flattened images turned around though others read them",
        f"{_PROGRAM}/flattening.py",
        "len(readers) != 1 + len(weights)",
        "not readers",
        "flattening",
    ),
    Mutant(
        "weights read before they are turned around",
        f"{_PROGRAM}/flattening.py",
        "readers[readers.index(layer) + 1 :]",
        "readers",
        "flattening",
    ),
    Mutant(
        "a copy in the order of what it copies",
        f"{_PROGRAM}/lower.py",
        'if not self._ordered or name in ("copy", "word", "index"):',
        'if not self._ordered or name in ("word", "index"):',
        "memory order",
    ),
    Mutant(
        "sums over the wrong axes of what lies otherwise",
        f"{_PROGRAM}/lower.py",
        "lying, along = x.permute(order), sorted(order.index(k) for k in axes)",
        "lying, along = x.permute(order), sorted(axes)",
        "memory order",
    ),
    Mutant(
        "a convolution pooled though it is seen",
        f"{_PROGRAM}/fusion.py",
        '    pool = uses.only(i.outputs[0], "max_pool_tiles")\n',
        "    readers = uses.readers.get(i.outputs[0], [])\n"
        '    pool = next((r for r in readers if r.op.name == "max_pool_tiles"), None)\n',
        "convolutions of programs",
    ),
    Mutant(
        "a quarter of the products of what is not finite",
        f"{_PROGRAM}/c/convolution.h",
        "if (!weights_finite || !tg_all_finite(box, size)) {",
        "if (0) {",
        "convolutions of programs",
    ),
    Mutant(
        "a quarter of the products for weights of what is not finite",
        f"{_PROGRAM}/c/convolution.h",
        "    if (!tg_all_finite(room, (stop - first) * columns * 16)) return 0;\n",
        "",
        "convolutions of programs",
    ),
    Mutant(
        "no gradient of channels beyond the 64th",
        f"{_PROGRAM}/c/convolution.h",
        "    for (long o = 0; o < c.out; o += 64, sets += 4)\n",
        "    for (long o = 0; o < c.out && o < 64; o += 64, sets += 4)\n",
        "convolutions of programs",
    ),
    Mutant(
        "a mask that others need, too, is a part of a gradient",
        f"{_PROGRAM}/fusion.py",
        "        return alike and not others and",
        "        return alike and",
        "convolutions of programs",
    ),
    Mutant(
        "a gradient is masked by another array than the input",
        f"{_PROGRAM}/fusion.py",
        "        if after is not None and after.inputs == (dx, x):",
        "        if after is not None:",
        "convolutions of programs",
    ),
    Mutant(
        "the sums of a gradient are those before its mask",
        f"{_PROGRAM}/c/convolution.h",
        "                total += to[j * c.out + o];",
        "                total += v;",
        "convolutions of programs",
    ),
    Mutant(
        "rows of a gradient are not cleared for those that follow",
        f"{_PROGRAM}/c/convolution.h",
        "            memset(rows[a], 0, 4 * line);\n",
        "",
        "convolutions of programs",
    ),
    Mutant(
        "gradients that are NaN taken for 0",
        f"{_PROGRAM}/c/convolution.h",
        "(uint64_t)(g[o] != 0.0f)",
        "(uint64_t)(g[o] < 0.0f || g[o] > 0.0f)",
        "convolutions of programs",
    ),
    Mutant(
        "NaN is no maximum of a pooled convolution",
        f"{_PROGRAM}/c/convolution.h",
        "const tg_ivec better = (x > best) | (x != x);",
        "const tg_ivec better = x > best;",
        "convolutions of programs",
    ),
    Mutant(
        "products with zeros left out though weights are not finite",
        f"{_PROGRAM}/c/convolution.h",
        "finite ? 0 : zero, pitch",
        "0, pitch",
        "convolutions of programs",
    ),
    Mutant(
        "taps of the last position left out as those of the first",
        f"{_PROGRAM}/c/convolution.h",
        "tg_taps_within(columns, c.x_size[1], at + P - 1).end",
        "tg_taps_within(columns, c.x_size[1], at + P).end",
        "convolutions of programs",
    ),
    Mutant(
        "rows of taps left out as if the image ended sooner",
        f"{_PROGRAM}/c/convolution.h",
        "tg_taps_within(rows, c.x_size[0], r)",
        "tg_taps_within(rows, c.x_size[0] - 1, r)",
        "convolutions of programs",
    ),
    Mutant(
        "a ReLU before the sum of a scaled convolution",
        f"{_PROGRAM}/c/convolution.h",
        "            tg_vec x = (sum[(r * P + j) * V + k] - center) * scale + shift;\n",
        "            tg_vec x = (sum[(r * P + j) * V + k] - center) * scale + shift;\n"
        "            if (c.positive) x = tg_pick(x <= 0.0f, tg_splat(0.0f), x);\n",
        "scaled convolutions",
    ),
    Mutant(
        "what is added to a scaled convolution is that of its first position",
        f"{_PROGRAM}/c/convolution.h",
        "    s.after.added += to * channels;\n",
        "",
        "scaled convolutions",
    ),
    Mutant(
        "a batch norm without a shift adds its mean",
        f"{_PROGRAM}/c/convolution.h",
        "o < out && shifted ? shift[from] : 0.0f",
        "o < out ? shift[from] : 0.0f",
        "scaled convolutions",
    ),
    Mutant(
        "groups are scaled as the first one",
        f"{_PROGRAM}/c/convolution.h",
        "{after.scales + g * blocks * 16, after.added",
        "{after.scales, after.added",
        "scaled convolutions",
    ),
    Mutant(
        "a convolution scaled twice where it is added to itself",
        f"{_PROGRAM}/scaling.py",
        "type(other) is Value and a is not b and other.shape",
        "type(other) is Value and other.shape",
        "scaled convolutions",
    ),
    Mutant(
        "a sum that broadcasts is part of a scaled convolution",
        f"{_PROGRAM}/scaling.py",
        "a is not b and other.shape == y.shape and _is_float(other)",
        "a is not b and _is_float(other)",
        "scaled convolutions",
    ),
]
