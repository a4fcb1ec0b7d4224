"""Bugs in attention and in the products of tiles, for mutate.py."""

from __future__ import annotations

from mutation import Mutant

ATTENTION: list[Mutant] = [
    # --- tiles
    Mutant("rows behind the end", "tiles.cuh", "if (row < there && chunk * per", "if (chunk * per"),
    Mutant(
        "rows behind the end",
        "tiles.cuh",
        "if (row < there && at < width && !",
        "if (at < width && !",
    ),
    Mutant(
        "features behind the end",
        "tiles.cuh",
        "row < there && at < width)\n        to",
        "row < there)\n        to",
    ),
    Mutant(
        "rows that see nothing",
        "tiles.cuh",
        "chunk * per < width && !(level && level[row] == infinity<float>())",
        "chunk * per < width",
    ),
    Mutant(
        "wrong pair",
        "tiles.cuh",
        "| uint32(narrow<E>(second).bits) << 16",
        "| uint32(narrow<E>(first).bits) << 16",
    ),
    Mutant(
        "wrong row", "tiles.cuh", "const int row = k >> 1, column", "const int row = k & 1, column"
    ),
    Mutant(
        "missing barrier",
        "tiles.cuh",
        "  all[lane][5] = b1;\n  __syncwarp();\n",
        "  all[lane][5] = b1;\n",
    ),
    Mutant(
        "wrong lane",
        "tiles.cuh",
        "const int from = (lane & ~3) + other",
        "const int from = (lane & ~3) + 0 * other",
    ),
    Mutant(
        "wrong group",
        "tiles.cuh",
        "const int row = 16 * (group + j) + 4 * t + i;",
        "const int row = 16 * group + 4 * t + i;",
    ),
    Mutant(
        "wrong group",
        "tiles.cuh",
        "read_turned<E, D>(b, tile, 16 * group, n);",
        "read_turned<E, D>(b, tile, 0, n);",
    ),
    Mutant(
        "zero times NaN", "tiles.cuh", "by[half] == 0.0f ? 0.0f : at[n][half][k]", "at[n][half][k]"
    ),
    # --- what is hidden and dropped
    Mutant(
        "hidden by one too few",
        "attention.cuh",
        "query + 1 < c.columns ? query + 1",
        "query + 1 < c.columns ? query + 2",
    ),
    Mutant(
        "hidden by one too many",
        "attention.cuh",
        "c.causal ? clamped(key - query) : 0",
        "c.causal ? clamped(key - query + 1) : 0",
    ),
    Mutant(
        "keys behind the end",
        "attention.cuh",
        "clamped(end - key) : 0",
        "clamped(end - key + 1) : 0",
    ),
    Mutant(
        "wrong row of a mask",
        "attention.cuh",
        "{0, query < c.rows ? clamped(end - key) : 0,\n          head + query * c.masked.row",
        "{0, query < c.rows ? clamped(end - key) : 0,\n          head + query * c.mask_column",
    ),
    Mutant(
        "mask not added",
        "attention.cuh",
        "s[k] += widen(static_cast<const T*>(c.mask)[place]);",
        "s[k] = widen(static_cast<const T*>(c.mask)[place]);",
    ),
    Mutant(
        "wrong word", "attention.cuh", "if (skip + k == 4 * block + i)", "if (k == 4 * block + i)"
    ),
    Mutant(
        "words in rows",
        "attention.cuh",
        "for (int apart = 2; apart > 0; apart >>= 1)",
        "for (int apart = 2; apart > 1; apart >>= 1)",
    ),
    Mutant(
        "wrong threshold",
        "attention.cuh",
        "words.at[i] >= c.threshold ? c.kept : 0.0f",
        "words.at[i] >= c.threshold ? 1.0f : 0.0f",
    ),
    Mutant(
        "wrong head",
        "attention.cuh",
        "{{rest / size[1], rest % size[1], number % size[2]}, number}",
        "{{rest / size[1], rest % size[1], 0}, number}",
    ),
    Mutant(
        "half of the lanes",
        "attention.cuh",
        "return Op::combine(x, __shfl_xor_sync(WHOLE_WARP, x, 2));",
        "return x;",
    ),
    # --- forward
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
    Mutant("results of before not corrected", "attention.cu", "        sums.scale(shrink);\n", ""),
    Mutant(
        "dropped before the sum",
        "attention.cu",
        "              total[half] += x[i];\n            }\n            if (c.drops) {",
        "            }\n            if (c.drops) {",
    ),
    Mutant(
        "level without the largest",
        "attention.cu",
        "low[half] + logf(total[half])",
        "logf(total[half])",
    ),
    Mutant(
        "infinity less itself",
        "attention.cu",
        "most[half] == -infinity<float>() ? 0.0f : most[half]",
        "most[half]",
    ),
    Mutant(
        "division by nothing",
        "attention.cu",
        "by[half] = none ? 0.0f : 1.0f / total[half];",
        "by[half] = 1.0f / total[half];",
    ),
    Mutant(
        "a tile too few",
        "attention.cu",
        "c.causal && j + P::FORWARD - 1 > first",
        "c.causal && j > first",
    ),
    # --- backward
    Mutant("delta left out", "attention.cu", "dropped * d - weight * delta", "dropped * d"),
    Mutant(
        "dropout left out", "attention.cu", "dropped * d - weight * delta", "weight * (d - delta)"
    ),
    Mutant(
        "weights that were not dropped",
        "attention.cu",
        "dropped.at[half][i] = x[i] * kept[i];",
        "dropped.at[half][i] = x[i];",
    ),
    Mutant("first of the shared heads", "attention.cu", "turn < turns; ++turn", "turn < 1; ++turn"),
    Mutant(
        "wrong row of levels",
        "attention.cu",
        "((at[0] * c.size[1] + at[1]) * c.size[2] + at[2]) * c.rows",
        "((at[0] * c.size[1] + at[1]) * c.size[2]) * c.rows",
    ),
    Mutant(
        "scale left out",
        "attention.cu",
        "const float by[2] = {c.scale, c.scale}",
        "const float by[2] = {1, 1}",
    ),
    Mutant(
        "tiles before the diagonal",
        "attention.cu",
        "c.causal ? first / P::KEYS * P::KEYS : 0",
        "c.causal ? first / P::KEYS * P::KEYS + P::KEYS : 0",
    ),
    Mutant(
        "swapped arrays",
        "attention.cu",
        "of_k_sums.put(own, by);\n    of_v_sums.put(own_v, one);",
        "of_k_sums.put(own_v, by);\n    of_v_sums.put(own, one);",
    ),
    Mutant(
        "missing grid stride",
        "attention.cu",
        "row < all; row += thread_count() >> 5",
        "row < all; row += all",
    ),
    Mutant(
        "part of the features", "attention.cu", "i < width; i += 32 * per", "i < 32; i += 32 * per"
    ),
]
