"""Mistakes in attention and what is made of it, and the tests that have to find them."""

from __future__ import annotations

from mutation import Mutant, Selection

SELECTIONS: dict[str, Selection] = {
    "attention": Selection(
        "tests/nn/test_attention.py tests/ops/test_table.py"
        " -k 'attention and not programs and not memory or dot_product and gradient'",
        8,
    ),
    "attention in programs": Selection("tests/nn/test_attention.py -k 'programs'", 6),
    "attention's routines": Selection("tests/program/test_attention.py", 12),
    "narrow attention": Selection("tests/program/test_narrow_attention.py", 6),
    "memory of attention": Selection("tests/nn/test_attention.py -k 'memory or cut'", 2),
    "rotary positions": Selection("tests/ops/test_table.py -k 'rotary'", 2),
    "transformers": Selection("tests/nn/test_transformer.py -k 'not training'", 8),
}

_BLOCKS = "tensorgrad/ops/attention_blocks.py"
_ATTENTION = "tensorgrad/ops/attention.py"
_HEADS = "tensorgrad/ops/multi_head_attention.py"
_NN = "tensorgrad/nn/attention.py"
_LOOPS = "tensorgrad/ops/attention_loops.py"
_C = "tensorgrad/program/c/attention.h"
_NARROW = "tensorgrad/program/c/narrow_attention.h"

MUTANTS: list[Mutant] = [
    Mutant(
        "the sum of exponentials is not corrected for a larger score",
        _BLOCKS,
        "sums = sums * shrink + found_sum",
        "sums = sums + found_sum",
        "attention",
    ),
    Mutant(
        "the largest score forgets earlier blocks",
        _BLOCKS,
        "            new = xp.maximum(new, top)\n",
        "            new = new + 0 * top\n",
        "attention",
    ),
    Mutant(
        "rows that see nothing become NaN",
        _BLOCKS,
        "low = xp.where(new == -math.inf, s.dtype.type(0), new)",
        "low = new",
        "attention",
    ),
    Mutant(
        "one key too few before the diagonal",
        _BLOCKS,
        "min(self.columns, rows.stop) if self.causal",
        "min(self.columns, rows.stop - 1) if self.causal",
        "attention",
    ),
    Mutant(
        "a block that touches the diagonal is not masked",
        _BLOCKS,
        "if self.causal and columns.stop - 1 > rows.start:",
        "if self.causal and columns.stop - 1 > rows.stop:",
        "attention",
    ),
    Mutant(
        "dropout numbers rows without the head",
        _BLOCKS,
        "row = head * np.uint64(self.rows) +",
        "row = head * np.uint64(0) +",
        "attention",
    ),
    Mutant(
        "dropout begins anew in each block of keys",
        _BLOCKS,
        "xp, key, position + columns.start, row",
        "xp, key, position, row",
        "attention",
    ),
    Mutant(
        "the gradient of dropped weights",
        _BLOCKS,
        "                    d *= kept\n",
        "",
        "attention",
    ),
    Mutant(
        "values get gradients of weights that were dropped",
        _BLOCKS,
        "                    weights = p * kept\n",
        "",
        "attention",
    ),
    Mutant(
        "a gradient without its level",
        _BLOCKS,
        "                d -= level\n",
        "",
        "attention",
    ),
    Mutant(
        "the gradient of an array that was broadcast is that of its last part",
        _BLOCKS,
        "self.target[place] += d",
        "self.target[place] = d",
        "attention",
    ),
    Mutant(
        "blocks as high as there are queries",
        _BLOCKS,
        "        room = self.scores_at_once // max(1, self.height)\n",
        "        self.height, room = self.rows, self.columns\n",
        "memory of attention",
    ),
    Mutant(
        "the second gradient of queries without the scale",
        _ATTENTION,
        "        return where(blind, 0.0, matmul(d, k) * scale)\n",
        "        return where(blind, 0.0, matmul(d, k))\n",
        "attention",
    ),
    Mutant(
        "programs drop other weights",
        "tensorgrad/ops/attention_loops.py",
        "shape = (*s.shape[:-1], stride_of(s.shape[-1]))\n    words",
        "shape = s.shape\n    words",
        "attention in programs",
    ),
    Mutant(
        "queries that see nothing have the gradient of what they do not see",
        "tensorgrad/ops/attention_blocks.py",
        "                d = _cleared(xp, blind, d) if some else d\n",
        "",
        "attention",
    ),
    Mutant(
        "programs forget the scale of queries",
        "tensorgrad/ops/attention_loops.py",
        "        (xp.where(blind, zero, xp.matmul(d, k) * scale), q.shape),\n",
        "        (xp.where(blind, zero, xp.matmul(d, k)), q.shape),\n",
        "attention in programs",
    ),
    Mutant(
        "queries in groups take the wrong head",
        _ATTENTION,
        "(*query.shape[:-3], few, many, *query.shape[-2:])",
        "(*query.shape[:-3], many, few, *query.shape[-2:])",
        "attention",
    ),
    Mutant(
        "truth values of several heads mean the reverse",
        _HEADS,
        "seen = logical_not(mask) if mask is not None",
        "seen = mask if mask is not None",
        "transformers",
    ),
    Mutant(
        "one of two masks counts",
        _HEADS,
        "        return logical_or(a, b)\n",
        "        return a\n",
        "transformers",
    ),
    Mutant(
        "further keys are hidden ahead",
        _HEADS,
        "if causal and (bias_k is not None or add_zero_attn):",
        "if causal and bias_k is not None:",
        "transformers",
    ),
    Mutant(
        "the mask for generation begins at the first position",
        _NN,
        "hidden_ahead(q.shape[2], k.shape[2], before, q.device)",
        "hidden_ahead(q.shape[2], k.shape[2], 0, q.device)",
        "transformers",
    ),
    Mutant(
        "a cache overwrites the last position",
        _NN,
        "self.keys[:, :, self.length : end] = keys",
        "self.keys[:, :, self.length - 1 : end - 1] = keys",
        "transformers",
    ),
    Mutant(
        "norms on the wrong side",
        "tensorgrad/nn/transformer.py",
        "            return x + dropout(function(norm(x)))\n",
        "            return norm(x) + dropout(function(norm(x)))\n",
        "transformers",
    ),
    Mutant(
        "rotary positions turn back",
        "tensorgrad/ops/positions.py",
        "stack([a * c - b * s, a * s + b * c], axis=-1)",
        "stack([a * c + b * s, b * c - a * s], axis=-1)",
        "rotary positions",
    ),
    Mutant(
        "a tile of keys of which some are hidden counts whole",
        _C,
        "if (j + TG_PANEL <= least) tg_weigh_tile",
        "if (j <= least) tg_weigh_tile",
        "attention's routines",
    ),
    Mutant(
        "hidden keys have weights in gradients",
        _C,
        "            if (!all) y = tg_pick(tg_before(j + v * TG_L, seen[r]), y, (tg_vec){0});\n"
        "            tg_store(w->p + at",
        "            tg_store(w->p + at",
        "attention's routines",
    ),
    Mutant(
        "too many queries are skipped before the diagonal",
        _C,
        "first + j > row ? first + j - row : 0;",
        "first + j > row ? first + j - row + 1 : 0;",
        "attention's routines",
    ),
    Mutant(
        "a tile of queries sees what its first one does",
        _C,
        "tg_seen(s, row + i + TG_TILE - 1, first, n)",
        "tg_seen(s, row + i, first, n)",
        "attention's routines",
    ),
    Mutant(
        "sums of earlier keys keep their scale",
        _C,
        "tg_load(y + r * padded + j) * shrink[r]);",
        "tg_load(y + r * padded + j));",
        "attention's routines",
    ),
    Mutant(
        "gradients of queries are those of the last keys",
        _C,
        "            if (adds) x += tg_gathered(to, 1, n);\n",
        "",
        "attention's routines",
    ),
    Mutant(
        "the gradient of values lies where that of keys does",
        _LOOPS,
        "(apart, 2 * apart)",
        "(apart, apart)",
        "attention's routines",
    ),
    Mutant(
        "gradients lie in another order than the slices",
        _LOOPS,
        "        apart = first\n",
        "        apart = 1\n",
        "attention's routines",
    ),
    Mutant(
        "a vector of queries sees one key more",
        _NARROW,
        "if (s->causal) score = tg_pick(tg_before(from, j), ",
        "if (s->causal) score = tg_pick(tg_before(from + 1, j), ",
        "narrow attention",
    ),
    Mutant(
        "keys that a vector's first queries do not see have weights in gradients",
        _NARROW,
        "            weight = tg_pick(hidden, (tg_vec){0}, weight), d = tg_pick(hidden, (tg_vec){0}, d);\n",
        "",
        "narrow attention",
    ),
    Mutant(
        "gradients of keys are those of the last queries",
        _NARROW,
        "tg_vec sum = tg_load(sums + c * TG_L);",
        "tg_vec sum = (tg_vec){0};",
        "narrow attention",
    ),
    Mutant(
        "gradients of queries are not scaled",
        _NARROW,
        "w.dq[c] * s->scale);",
        "w.dq[c]);",
        "narrow attention",
    ),
]
