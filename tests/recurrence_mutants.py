"""Mistakes in recurrent layers and packed sequences, and the tests that have to find them."""

from __future__ import annotations

from mutation import Mutant, Selection

SELECTIONS: dict[str, Selection] = {
    "recurrence": Selection(
        "tests/nn/test_recurrent.py tests/ops/test_table.py"
        " -k '(recurrent and not compiles and not cuda) or lstm or gru or rnn'",
        8,
    ),
    "recurrence in C": Selection("tests/program/test_recurrence.py", 30),
    "reused memory": Selection(
        "tests/program/test_arena.py tests/program/test_recurrence.py -k 'stays or place or room'",
        6,
    ),
    "kept memory": Selection("tests/test_memory.py", 2),
}

_LOOPS = "tensorgrad/ops/recurrence_loops.py"
_OPS = "tensorgrad/ops/recurrence.py"
_ROUTINES = "tensorgrad/ops/recurrence_routines.py"
_HEADER = "tensorgrad/program/c/recurrence.h"
_LAYERS = "tensorgrad/nn/recurrent.py"
_PACKING = "tensorgrad/nn/utils/rnn.py"
_MEMORY = "tensorgrad/backend/memory.py"

MUTANTS: list[Mutant] = [
    Mutant(
        "memory of an input reused that is read later",
        "tensorgrad/program/arena.py",
        "            if first != at or ended != at:\n",
        "            if first != at:\n",
        "reused memory",
    ),
    Mutant(
        "memory reused of an input that is read elsewhere, too",
        "tensorgrad/program/arena.py",
        "            if sum(piece_of.get(view.storage) is old for view in op.inputs) != 1:\n"
        "                continue\n",
        "",
        "reused memory",
    ),
    Mutant(
        "a state moves on behind the end of its sequence",
        _LOOPS,
        "            xp.copyto(cell, c, where=~alive[t])\n",
        "            pass\n",
        "recurrence",
    ),
    Mutant(
        "the gradient of a cell passes the end of its sequence",
        _LOOPS,
        "            xp.copyto(dc, held, where=~alive[t])\n",
        "",
        "recurrence",
    ),
    Mutant(
        "pieces of the input come in the same order in both directions",
        _LOOPS,
        "for start in reversed(starts) if reverse else starts:",
        "for start in starts:",
        "recurrence",
    ),
    Mutant(
        "the state before each step is that of the other direction",
        _LOOPS,
        "start = self.batch * self.out if self.reverse else 0",
        "start = 0 if self.reverse else self.batch * self.out",
        "recurrence",
    ),
    Mutant(
        "the first cell counts as zeros backward",
        _LOOPS,
        "    first = _state(xp, c, n, batch, g.dtype)\n",
        "    first = _state(xp, None, n, batch, g.dtype)\n",
        "recurrence",
    ),
    Mutant(
        "the gradient of the last cell is lost",
        _LOOPS,
        'dc = given["c"].T.copy()',
        'dc = 0 * given["c"].T.copy()',
        "recurrence",
    ),
    Mutant(
        "a projection gets gradients from behind the end",
        _LOOPS,
        "(dh if alive is None else dh * alive[t]).T",
        "dh.T",
        "recurrence",
    ),
    Mutant(
        "one bias counts twice in the candidates of a GRU",
        _LOOPS,
        "xp.zeros_like(b_hh[2 * hidden :]) if b_ih is None else b_ih[2 * hidden :]",
        "b_hh[2 * hidden :] if b_ih is None else b_ih[2 * hidden :]",
        "recurrence",
    ),
    Mutant(
        "nothing is kept for a gradient that is wanted",
        _OPS,
        'keep = current_mode().grad and any(getattr(a, "node", None) is not None for a in inputs)',
        "keep = False",
        "recurrence",
    ),
    Mutant(
        "what lies behind the end is computed with",
        _OPS,
        "        x = where(alive, x, 0.0)  # what lies behind the end is never computed with\n",
        "",
        "recurrence",
    ),
    Mutant(
        "a second gradient takes a tensor twice for one",
        _OPS,
        "            own[k] = broadcast_to(v, v.shape)\n",
        "            own[k] = v\n",
        "recurrence",
    ),
    Mutant(
        "both biases share one gradient",
        _OPS,
        'found[k] = found["b_ih"].copy()  # the same sum',
        'found[k] = found["b_ih"]',
        "recurrence",
    ),
    Mutant(
        "in C a state moves on behind the end of its sequence",
        _HEADER,
        "            if (!a->inner) shown = tg_load_some(before + r * units + at, n);\n",
        "",
        "recurrence in C",
    ),
    Mutant(
        "in C a gradient passes the end of its sequence",
        _HEADER,
        "        if (tg_has_ended(lengths, t, row + r)) continue;\n",
        "",
        "recurrence in C",
    ),
    Mutant(
        "in C the first cell counts as zeros backward",
        _HEADER,
        "cells + earlier * state : has_c ? c : 0;",
        "cells + earlier * state : 0;",
        "recurrence in C",
    ),
    Mutant(
        "in C rows that fill no tile are left out",
        _HEADER,
        "if (a->batch % rows == 0) return;",
        "return;",
        "recurrence in C",
    ),
    Mutant(
        "in C the last block of a long sum is all of it",
        _HEADER,
        "sum[i / vectors][v] += s[i / vectors][v];",
        "sum[i / vectors][v] = s[i / vectors][v];",
        "recurrence in C",
    ),
    Mutant(
        "in C the last rows make the gradient of a bias",
        _HEADER,
        "sums[i] += sum[i];",
        "sums[i] = sum[i];",
        "recurrence in C",
    ),
    Mutant(
        "in C only the first columns are kept from one block of rows to the next",
        _HEADER,
        "tg_store(to, tg_load(to) + s[k / V][k % V]);",
        "tg_store(to, (k % V ? (tg_vec){0} : tg_load(to)) + s[k / V][k % V]);",
        "recurrence in C",
    ),
    Mutant(
        "a program takes a length that is one step too long",
        _ROUTINES,
        "xp.check_labels(xp.subtract(lengths, 1), steps)",
        "xp.check_labels(xp.subtract(lengths, 1), steps + 1)",
        "recurrence in C",
    ),
    Mutant(
        "a program gives candidates of a GRU no bias of their own",
        _ROUTINES,
        "none if b is None else b[2 * n :]",
        "none if b is None else 0 * b[2 * n :]",
        "recurrence in C",
    ),
    Mutant(
        "states of directions are taken from the layer before",
        _LAYERS,
        "tuple(s[len(ends)] for s in states)",
        "tuple(s[layer] for s in states)",
        "recurrence",
    ),
    Mutant(
        "dropout before the first layer",
        _LAYERS,
        "if layer and self.dropout and self.training:",
        "if self.dropout and self.training:",
        "recurrence",
    ),
    Mutant(
        "last states stay in the order of lengths",
        _LAYERS,
        "            last = [take(s, back, axis=1) for s in last]\n",
        "            last = [take(s, take(back, back), axis=1) for s in last]\n",
        "recurrence",
    ),
    Mutant(
        "the order of the batch is that of sorting",
        _PACKING,
        "(order, np.argsort(order))",
        "(order, order)",
        "recurrence",
    ),
    Mutant(
        "memory is given to two arrays",
        _MEMORY,
        " and _kept.pop(key, None) is not None:\n",
        ":\n",
        "kept memory",
    ),
    Mutant(
        "memory is kept without bound",
        _MEMORY,
        "        if sum(m.size for m in list(_kept.values())) <= ROOM:\n",
        "        if True:\n",
        "kept memory",
    ),
]
