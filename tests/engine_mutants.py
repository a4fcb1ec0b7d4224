"""The mistakes that mutate_engine.py plants, and the tests that have to find them."""

from __future__ import annotations

from typing import NamedTuple

from mutation import Mutant


class Selection(NamedTuple):
    """Tests that run together: arguments for pytest, and about how many seconds they take."""

    arguments: str
    seconds: float


_COMPILE = "tests/program/test_compile.py"
_TAPE = "tests/test_tape.py -k 'not million and not forward_passes'"

SELECTIONS: dict[str, Selection] = {
    # --- eager mode
    "tape": Selection(_TAPE, 4),
    "gradients": Selection("tests/autograd", 3),
    "scalars": Selection("tests/test_tensor.py -k 'scalar or operators or default'", 2),
    "second gradients": Selection(
        "tests/nn/test_losses.py tests/nn/test_layers.py -k 'cross_entropy or norm'", 2
    ),
    "gradients of rows": Selection(
        "tests/ops/test_table.py -k 'test_gradient and (concat or cross_entropy or add)'", 2
    ),
    "backward": Selection("tests/test_backward.py", 1.5),
    # --- programs
    "passes": Selection("tests/program/test_passes.py -k 'not processes'", 3),
    "steps": Selection(
        f"{_COMPILE} -k 'training or networks or learning_rate or dropout or accumulate or"
        " clipping or update or gradients'",
        6,
    ),
    "overwriting": Selection(
        f"{_COMPILE} -k 'view or statistics or fails or out_of_range or assigned'", 3
    ),
    "keys": Selection(f"{_COMPILE} -k 'modes or shapes_dtypes or changes_are_seen'", 3),
    "results": Selection(f"{_COMPILE} -k 'stays or stay or trees or threads'", 3),
    "loops": Selection(
        f"{_COMPILE} -k 'strided or nan or ties or rows or reductions or stacks or chains'", 5
    ),
    "mistakes": Selection("tests/program/test_mistakes.py", 5),
    "rounding": Selection(f"{_COMPILE} -k 'rounding or verify'", 3),
    "fuse": Selection("tests/program/test_fuse.py", 4),
}

TAPE, REPLAY = "tensorgrad/tape.py", "tensorgrad/replay.py"
PROGRAM = "tensorgrad/program"

MUTANTS: list[Mutant] = [
    # --- the tape
    Mutant(
        "overwriting through a view not noted",
        TAPE,
        "if type(array) is not ndarray or array.base is not None:",
        "if type(array) is not ndarray:",
        "tape",
    ),
    Mutant(
        "-0.0 taken for 0.0",
        TAPE,
        "b = constant(x2, dtype) if usual and x2 else x2",
        "b = constant(x2, dtype) if usual else x2",
        "mistakes",
    ),
    Mutant(
        "unbroadcast over the wrong axis",
        TAPE,
        "*(extra + i for i, n in enumerate(shape) if n == 1 != kept[i])",
        "*(i for i, n in enumerate(shape) if n == 1 != kept[i])",
        "backward",
    ),
    Mutant(
        "default dtype ignored",
        TAPE,
        "common = dtypes.get_default_dtype()",
        "common = dtypes.float32",
        "scalars",
    ),
    Mutant(
        "residual forgotten",
        TAPE,
        '        attrs = {**attrs, "r": residual}\n',
        '        attrs = {**attrs, "r": y}\n',
        "steps",
    ),
    Mutant(
        "number of a variadic input off",
        TAPE,
        '{**attrs, "index": i - fixed}',
        '{**attrs, "index": len(inputs) - 1 - i}',
        "gradients of rows",
    ),
    Mutant(
        "overwriting noted before, not after",
        TAPE,
        "    LAST_OVERWRITE = now = _next_position()\n",
        "    now = _next_position()\n",
        "tape",
    ),
    Mutant(
        "16-bit rules not widened",
        TAPE,
        "        node.hooks = []  # its rules are computed in float32, or by a kernel\n",
        "        pass\n",
        "backward",
    ),
    # --- the backward pass
    Mutant(
        "retain_graph ignored",
        REPLAY,
        "        if not retain:\n            node.edges = None\n",
        "        node.edges = None\n",
        "tape",
    ),
    Mutant(
        "entries of a chain never freed",
        REPLAY,
        "                if not retain:\n                    ahead.edges = None\n",
        "",
        "backward",
    ),
    Mutant(
        "leaves written before an error",
        REPLAY,
        "                    gradients[at] = _own(d, g, saved)\n"
        "                    leaves.append(parent)\n",
        "                    gradients[at] = _own(d, g, saved)\n"
        "                    leaves.append(parent)\n"
        "                    if targets is None and not lift and parent.grad is None:\n"
        "                        parent.grad = wrap(d * 0, None)\n",
        "backward",
    ),
    Mutant(
        "saved values not checked",
        REPLAY,
        "    if node.position > tape.LAST_OVERWRITE:\n        _check_saved(node, rule, saved)\n"
        "    if lift:",
        "    if lift:",
        "tape",
    ),
    Mutant(
        "saved values of a chain not checked",
        REPLAY,
        "if type(parent) is not Node or ahead.position > last_overwrite:",
        "if type(parent) is not Node:",
        "backward",
    ),
    Mutant(
        "saved tuples not checked",
        REPLAY,
        "arrays = value if type(value) is tuple else (value,)",
        "arrays = (value,)",
        "tape",
    ),
    Mutant(
        "fan-out summed in a shared array",
        REPLAY,
        "            gradients[at] = gradients[at] + d\n",
        "            gradients[at] += d\n",
        "tape",
    ),
    Mutant(
        "first contribution taken for a sum",
        REPLAY,
        "            gradients[at] = d\n            if type(node) is Leaf:",
        "            gradients[at] = d\n            added.add(at)\n"
        "            if type(node) is Leaf:",
        "tape",
    ),
    Mutant(
        "an entry visited before its gradient is complete",
        REPLAY,
        "            elif ahead is None and not heap:\n",
        "            elif ahead is None:\n",
        "backward",
    ),
    Mutant(
        "hooks of a chain skipped",
        REPLAY,
        "while edges and len(edges) == 1 and ahead.hooks is None:",
        "while edges and len(edges) == 1:",
        "backward",
    ),
    Mutant(
        "hooks of leaves skipped",
        REPLAY,
        "        if leaf.hooks is not None:\n            g = _run_hooks(leaf, g, lift)\n",
        "",
        "tape",
    ),
    Mutant(
        "a hook's gradient not its own",
        REPLAY,
        "    if type(node) is Leaf and node.hooks:  # a hook",
        "    if False:  # a hook",
        "tape",
    ),
    Mutant(
        "views handed out as gradients",
        REPLAY,
        "    if d is g or d.base is not None:\n",
        "    if d is g:\n",
        "tape",
    ),
    Mutant(
        "saved values handed out as gradients",
        REPLAY,
        "        if d is value:\n            return d.copy()\n",
        "        if d is value:\n            return d\n",
        "backward",
    ),
    Mutant(
        "results of grad share memory",
        REPLAY,
        "contribute(parent, _own(d, g, saved) if parent in goals else d)",
        "contribute(parent, d)",
        "backward",
    ),
    Mutant(
        "accumulated in place",
        REPLAY,
        "node.grad = wrap(held.data + gradient.data, None)",
        "held.data += gradient.data",
        "tape",
    ),
    Mutant(
        "residual forgotten in second gradients",
        REPLAY,
        '    if residual is not None and "r" in values:',
        '    if False and residual is not None and "r" in values:',
        "second gradients",
    ),
    Mutant(
        "freed entries passed over",
        REPLAY,
        "unknown = isinstance(node, Deferred) or node.edges is None",
        "unknown = isinstance(node, Deferred)",
        "tape",
    ),
    Mutant(
        "recomputed parts passed over",
        REPLAY,
        "unknown = isinstance(node, Deferred) or node.edges is None",
        "unknown = node.edges is None",
        "gradients",
    ),
    Mutant(
        "16-bit rules not widened",
        REPLAY,
        "    if g.dtype in HALVES and node.op is not tape.CAST:",
        "    if False and g.dtype in HALVES and node.op is not tape.CAST:",
        "backward",
    ),
    Mutant(
        "the seed aliased",
        REPLAY,
        "                seed = seed.clone() if lift else wrap(seed, None).clone().data\n",
        "                pass\n",
        "tape",
    ),
    Mutant(
        "no_grad reaches create_graph",
        REPLAY,
        "    if lift and not current_mode().grad:\n",
        "    if False:\n",
        "tape",
    ),
    # --- capture
    Mutant(
        "stale views not noticed",
        f"{PROGRAM}/capture.py",
        "                self._stale.add(other)\n",
        "",
        "mistakes",
    ),
    Mutant(
        "views from outside not noticed",
        f"{PROGRAM}/capture.py",
        "owner in self._written and _overlap(array, self._written[owner])",
        "False",
        "mistakes",
    ),
    Mutant(
        "generator position not advanced",
        f"{PROGRAM}/capture.py",
        "self.words[generator] = generator.state()[1] - start",
        "self.words[generator] = 0",
        "steps",
    ),
    Mutant(
        "draws all at the start",
        f"{PROGRAM}/capture.py",
        "Drawn(generator, position - start)",
        "Drawn(generator, 0)",
        "mistakes",
    ),
    Mutant(
        "gradients not put back after an error",
        f"{PROGRAM}/capture.py",
        "            leaf.grad = self.leaves[leaf]\n",
        "            pass\n",
        "overwriting",
    ),
    Mutant(
        "state not put back after an error",
        f"{PROGRAM}/capture.py",
        "                array[...] = saved\n        note_overwritten(",
        "                pass\n        note_overwritten(",
        "overwriting",
    ),
    Mutant(
        "gradient from before baked in",
        f"{PROGRAM}/capture.py",
        "value.fetch = lambda leaf=leaf: leaf.grad.data",
        "value.fetch = lambda: array",
        "steps",
    ),
    Mutant(
        "learning rate frozen",
        f"{PROGRAM}/capture.py",
        "return {name: self.group[name] for name in self.names}",
        "return {name: self.optimizer.defaults[name] for name in self.names}",
        "steps",
    ),
    Mutant(
        "options missing from the guards",
        f"{PROGRAM}/capture.py",
        'LIVE_OPTIONS = ("lr",)',
        'LIVE_OPTIONS = ("lr", "momentum")',
        "mistakes",
    ),
    Mutant(
        "constants not copied",
        f"{PROGRAM}/capture.py",
        "            value.array = array.copy()\n",
        "            value.array = array\n",
        "mistakes",
    ),
    # --- passes
    Mutant(
        "overwritten values shared",
        f"{PROGRAM}/passes.py",
        "taken = set(program.kept()) | {v.before for i in program for v in i.outputs if v.before}",
        "taken = set(program.kept())",
        "mistakes",
    ),
    Mutant(
        "results shared",
        f"{PROGRAM}/passes.py",
        "taken = set(program.kept()) | {v.before",
        "taken = {v.before",
        "mistakes",
    ),
    Mutant(
        "a constant that is overwritten folded",
        f"{PROGRAM}/passes.py",
        "all(v in constant and v.place not in overwritten for v in i.values())",
        "all(v in constant for v in i.values())",
        "mistakes",
    ),
    Mutant(
        "only the first output keeps alive",
        f"{PROGRAM}/passes.py",
        "if any(v in needed for v in i.outputs):",
        "if i.outputs[0] in needed:",
        "mistakes",
    ),
    Mutant(
        "updates taken for dead code",
        f"{PROGRAM}/program.py",
        "        found.update(dict.fromkeys(self.updates().values()))\n",
        "",
        "steps",
    ),
    # --- loops over views
    Mutant(
        "wrong stride in a transposed view",
        f"{PROGRAM}/loops.py",
        "return View(self.storage, shape, tuple(self.strides[a] for a in axes), self.offset)",
        "return View(self.storage, shape, self.strides, self.offset)",
        "passes",
    ),
    Mutant(
        "offset of a slice forgotten",
        f"{PROGRAM}/loops.py",
        "offset += start * s if count else 0",
        "offset += start * s if count and s > 1 else 0",
        "passes",
    ),
    Mutant(
        "step of a slice forgotten",
        f"{PROGRAM}/loops.py",
        "strides.append(s * step)",
        "strides.append(s)",
        "passes",
    ),
    Mutant(
        "axes merged that do not lie side by side",
        f"{PROGRAM}/loops.py",
        "while k + 1 < len(old) and old[k][1] == old[k + 1][0] * old[k + 1][1]:",
        "while k + 1 < len(old):",
        "passes",
    ),
    Mutant(
        "repeated axes keep their stride",
        f"{PROGRAM}/loops.py",
        "0 if n == 1 else s for n, s in zip(self.shape, self.strides)",
        "s for n, s in zip(self.shape, self.strides)",
        "mistakes",
    ),
    # --- lowering
    Mutant(
        "expressions shared across an overwriting",
        f"{PROGRAM}/lower.py",
        "            self._known.clear()  # it may have read what is overwritten\n",
        "            pass\n",
        "mistakes",
    ),
    Mutant(
        "expressions shared across a call that overwrites",
        f"{PROGRAM}/lower.py",
        "        if i.written:\n            self._known.clear()\n",
        "",
        "mistakes",
    ),
    Mutant(
        "results shared by loops",
        f"{PROGRAM}/lower.py",
        "self._sharing = not self._kept.intersection(i.outputs)",
        "self._sharing = True",
        "mistakes",
    ),
    Mutant(
        "dtype missing from the key of an expression",
        f"{PROGRAM}/lower.py",
        "for x in given), dtype, shape\n",
        "for x in given), shape\n",
        "mistakes",
    ),
    Mutant(
        "kind missing from the key of a reduction",
        f"{PROGRAM}/lower.py",
        "key = (kind, x, tuple(axes))",
        "key = (x, tuple(axes))",
        "mistakes",
    ),
    Mutant(
        "axes missing from the key of a reduction",
        f"{PROGRAM}/lower.py",
        "key = (kind, x, tuple(axes))",
        "key = (kind, x, len(axes))",
        "mistakes",
    ),
    Mutant(
        "position of a draw forgotten",
        f"{PROGRAM}/lower.py",
        'text = f"(tg_word({{0}}, {{1}} + {{index}}) >=',
        'text = f"(tg_word({{0}}, {{index}}) >=',
        "mistakes",
    ),
    # --- nests
    Mutant(
        "label barrier ignored",
        f"{PROGRAM}/nests.py",
        "            first = max(first, self._barrier)\n",
        "",
        "mistakes",
    ),
    Mutant(
        "overwritten before it is read",
        f"{PROGRAM}/nests.py",
        "first = max(first, self._last_read.get(target, 0), self._home.get(target, 0))",
        "first = max(first, self._home.get(target, 0))",
        "mistakes",
    ),
    Mutant(
        "neighbours read while they are overwritten",
        f"{PROGRAM}/nests.py",
        "return level if self._safe(nest, op, level) else None",
        "return level",
        "mistakes",
    ),
    Mutant(
        "numbers known in the end read too early",
        f"{PROGRAM}/nests.py",
        "                if (nest.level[found] == LATE) != (level == LATE):\n"
        "                    return False\n",
        "",
        "mistakes",
    ),
    # --- memory
    Mutant(
        "liveness off by one",
        f"{PROGRAM}/placed.py",
        "                spans[s] = s.nbytes, first, at\n",
        "                spans[s] = s.nbytes, first, max(first, at - 1)\n",
        "mistakes",
    ),
    Mutant(
        "spans that meet share memory",
        f"{PROGRAM}/placed.py",
        "if begins <= last and first <= ends:",
        "if begins < last and first < ends:",
        "passes",
    ),
    Mutant(
        "gaps taken that are too small",
        f"{PROGRAM}/placed.py",
        "if start + size <= at:",
        "if start < at:",
        "passes",
    ),
    # --- C
    Mutant(
        "NaN lost by the maximum of two",
        f"{PROGRAM}/c/support.h",
        "TG T tg_max_##s(T a, T b) { return a > b || a != a ? a : b; }  ",
        "TG T tg_max_##s(T a, T b) { return a > b ? a : b; }            ",
        "mistakes",
    ),
    Mutant(
        "NaN lost by the maximum of a row",
        f"{PROGRAM}/c_source.py",
        "const {ctype} {acc} = {acc}n ? NAN : {acc}m;",
        "const {ctype} {acc} = {acc}m;",
        "mistakes",
    ),
    Mutant(
        "NaN lost by the maximum of all",
        f"{PROGRAM}/c_source.py",
        'return f"{acc} = {x} {sign} {acc} || {x} != {x} ? {x} : {acc};"',
        'return f"{acc} = {x} {sign} {acc} ? {x} : {acc};"',
        "mistakes",
    ),
    Mutant(
        "partial sums by thread",
        f"{PROGRAM}/c_source.py",
        "        total = work * self.rows * self.columns\n",
        "        from tensorgrad.program.pool import threads\n\n"
        "        total = work * self.rows * self.columns * threads()\n",
        "mistakes",
    ),
    Mutant(
        "last partial sum forgotten",
        f"{PROGRAM}/c_source.py",
        "f\"for (long k = 1; k < pieces; k++) {accumulated(m.kind, acc + 'w', f'a{n}[k]')}\",",
        "f\"for (long k = 1; k < pieces - 1; k++) {accumulated(m.kind, acc + 'w', f'a{n}[k]')}\",",
        "mistakes",
    ),
    Mutant(
        "wrong leading dimension of a transposed factor",
        f"{PROGRAM}/c_source.py",
        "return 1, max(c, rows) if columns != 1 else rows",
        "return 1, max(c, columns) if columns != 1 else rows",
        "mistakes",
    ),
    Mutant(
        "sign of zero lost in a literal",
        f"{PROGRAM}/c_source.py",
        "        text = repr(float(x)) + (",
        "        text = repr(float(x) or 0.0) + (",
        "mistakes",
    ),
    Mutant(
        "negative labels pass",
        f"{PROGRAM}/c/support.h",
        "bad |= (uint64_t)labels[i] >= (uint64_t)classes;",
        "bad |= labels[i] >= classes;",
        "overwriting",
    ),
    # --- the native executor
    Mutant(
        "gaps in large arguments ignored",
        f"{PROGRAM}/native.py",
        "self.memory[storage] = np.ascontiguousarray(arguments[k])",
        "self.memory[storage] = arguments[k]",
        "mistakes",
    ),
    Mutant(
        "results overwritten while somebody holds them",
        f"{PROGRAM}/native.py",
        "if direct and getrefcount(self._results[k][1]) > 2:",
        "if direct and getrefcount(self._results[k][1]) > 3:",
        "results",
    ),
    Mutant(
        "new memory not told to C",
        f"{PROGRAM}/native.py",
        "        if storage in self._slots:\n"
        "            self._table[self._slots[storage]] = memory.ctypes.data\n",
        "",
        "results",
    ),
    # --- the NumPy executor
    Mutant(
        "results in memory that serves again",
        f"{PROGRAM}/calls.py",
        "if not self._buffers_allowed or v in self._kept:",
        "if not self._buffers_allowed:",
        "results",
    ),
    Mutant(
        "views handed out as results",
        f"{PROGRAM}/calls.py",
        "    if array.base is not None or id(array) in taken:\n",
        "    if id(array) in taken:\n",
        "mistakes",
    ),
    Mutant(
        "overwriting not noted",
        f"{PROGRAM}/calls.py",
        "        if written:\n",
        "        if False:\n",
        "mistakes",
    ),
    # --- comparison with the function
    Mutant(
        "any difference excused",
        f"{PROGRAM}/comparison.py",
        "_EXCUSED = 16.0",
        "_EXCUSED = 1e9",
        "rounding",
    ),
    Mutant(
        "nothing excused",
        f"{PROGRAM}/comparison.py",
        "_EXCUSED = 16.0",
        "_EXCUSED = 0.0",
        "rounding",
    ),
    Mutant(
        "generators not put back",
        f"{PROGRAM}/comparison.py",
        '            generator.set_state(saved[f"the state of generator {k}"])\n',
        "            pass\n",
        "rounding",
    ),
    # --- fuse
    Mutant(
        "stale memo with retain_graph",
        f"{PROGRAM}/fused.py",
        "if memo.g is not g:",
        "if memo.g is None:",
        "mistakes",
    ),
]
