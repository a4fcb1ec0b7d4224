"""The mistakes that mutate_engine.py plants, and the tests that have to find them."""

from __future__ import annotations

from typing import NamedTuple

from mutation import Mutant


class Selection(NamedTuple):
    """Tests that run together: arguments for pytest, and about how many seconds they take."""

    arguments: str
    seconds: float


_COMPILE = "tests/program/test_compile.py"
_MISTAKES = "tests/program/test_mistakes.py"
_KINDS = "tests/program/reads/test_kinds.py"
_CHANGES = "tests/program/reads/test_changes.py"
_TAPE = "tests/test_tape.py -k 'not million and not forward_passes'"

SELECTIONS: dict[str, Selection] = {
    # --- eager mode
    "tape": Selection(_TAPE, 9),
    "gradients": Selection("tests/autograd", 6),
    "scalars": Selection("tests/test_tensor.py -k 'scalar or operators or default'", 2),
    "second gradients": Selection(
        "tests/nn/test_losses.py tests/nn/test_layers.py -k 'cross_entropy or norm'", 6
    ),
    "gradients of rows": Selection(
        "tests/ops/test_table.py -k 'test_gradient and (concat or cross_entropy or add)'", 7
    ),
    "backward": Selection("tests/test_backward.py", 1),
    # --- programs
    "passes": Selection("tests/program/test_passes.py -k 'not processes'", 4),
    "steps": Selection(
        f"{_COMPILE} -k 'training or networks or learning_rate or dropout or accumulate or"
        " clipping or update or gradients'",
        21,
    ),
    "overwriting": Selection(
        f"{_COMPILE} -k 'view or statistics or fails or out_of_range or assigned'", 5
    ),
    "results": Selection(f"{_COMPILE} -k 'stays or stay or trees or threads'", 6),
    "modules": Selection(f"{_COMPILE} -k 'modes or changes_are_seen'", 5),
    "rounding": Selection(f"{_COMPILE} -k 'rounding or verify'", 9),
    "fuse": Selection("tests/program/test_fuse.py", 9),
    "cuda": Selection("tests/program/test_cuda.py -k 'not compile'", 5),
    # --- tests/program/test_mistakes.py in parts
    "keys": Selection(
        f"{_MISTAKES} -k 'zero or numbers_that or two_dtypes or reductions_of or options or draws"
        " or look_alike'",
        6,
    ),
    "written": Selection(
        f"{_MISTAKES} -k 'begins_anew or of_which or before_and_after or another_view or"
        " neighbours or overwritten or overwrites'",
        5,
    ),
    "handed out": Selection(
        f"{_MISTAKES} -k 'told_apart or outlive or only_the or keeps or there_or_not or hooks or"
        " views_of_arguments'",
        6,
    ),
    "native": Selection(
        f"{_MISTAKES} -k 'maxima or gaps or factors or repeated or early or lie_apart or the_end"
        " or many_parts'",
        8,
    ),
    "threads": Selection(f"{_MISTAKES} -k 'bits_do_not_depend'", 9),
    "checks": Selection(f"{_MISTAKES} -k '2_4_8 or where or happens_once or bits_are'", 4),
    "shared memory": Selection(f"{_MISTAKES} -k 'memory_that or share_memory'", 3),
    "followed": Selection(
        f"{_MISTAKES} -k 'appear or class_of or hole or nobody_knows or history'", 4
    ),
    # --- what a step reads
    "names": Selection(f"{_KINDS} -k '[names or [closures or [functions'", 6),
    "attributes": Selection(f"{_KINDS} -k '[attributes or [classes or [properties'", 4),
    "containers": Selection(f"{_KINDS} -k '[containers or [loops'", 7),
    "C functions": Selection(f"{_KINDS} -k '[control or [C or [NumPy'", 6),
    "tensors": Selection(f"{_KINDS} -k '[tensors'", 5),
    "refused": Selection(f"{_KINDS} -k 'guarded and not file'", 2),
    "effects": Selection(f"{_KINDS} -k 'carries or matter'", 5),
    "settings": Selection(f"{_CHANGES} -k 'configuration and (NaN or True or beside or 0.0)'", 5),
    "optimizers": Selection(f"{_CHANGES} -k 'momentum or maximize or present or hook_on'", 5),
    "sharing": Selection(
        f"{_CHANGES} -k 'twice or memory or names or two_tensors or outside_tensor'", 6
    ),
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
        "keys",
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
        "    if together or y.dtype in HALVES:\n",
        "    if together:\n",
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
        "shared = d is g or d.base is not None",
        "shared = d is g",
        "tape",
    ),
    Mutant(
        "saved values handed out as gradients",
        REPLAY,
        "if d is value or (type(value) is tuple and any(d is v for v in value)):",
        "if type(value) is tuple and any(d is v for v in value):",
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
        "written",
    ),
    Mutant(
        "views from outside not noticed",
        f"{PROGRAM}/capture.py",
        "owner in self._written and _overlap(array, self._written[owner])",
        "False",
        "written",
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
        "keys",
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
        "constants not copied",
        f"{PROGRAM}/capture.py",
        "            value.array = array.copy()\n",
        "            value.array = array\n",
        "written",
    ),
    # --- passes
    Mutant(
        "overwritten values shared",
        f"{PROGRAM}/passes.py",
        "taken = set(program.kept()) | {v.before for i in program for v in i.outputs if v.before}",
        "taken = set(program.kept())",
        "written",
    ),
    Mutant(
        "results shared",
        f"{PROGRAM}/passes.py",
        "taken = set(program.kept()) | {v.before",
        "taken = {v.before",
        "handed out",
    ),
    Mutant(
        "only the first output keeps alive",
        f"{PROGRAM}/passes.py",
        "if any(v in needed for v in i.outputs):",
        "if i.outputs[0] in needed:",
        "handed out",
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
        "keys",
    ),
    # --- lowering
    Mutant(
        "expressions shared across an overwriting",
        f"{PROGRAM}/lower.py",
        "            self._known.clear()  # it may have read what is overwritten\n",
        "            pass\n",
        "written",
    ),
    Mutant(
        "expressions shared across a call that overwrites",
        f"{PROGRAM}/lower.py",
        "        if i.written:\n            self._known.clear()\n",
        "",
        "written",
    ),
    Mutant(
        "dtype missing from the key of an expression",
        f"{PROGRAM}/lower.py",
        "for x in given), dtype, shape\n",
        "for x in given), shape\n",
        "keys",
    ),
    Mutant(
        "kind missing from the key of a reduction",
        f"{PROGRAM}/lower.py",
        "key = (kind, x, tuple(axes))",
        "key = (x, tuple(axes))",
        "keys",
    ),
    Mutant(
        "axes missing from the key of a reduction",
        f"{PROGRAM}/lower.py",
        "key = (kind, x, tuple(axes))",
        "key = (kind, x, len(axes))",
        "keys",
    ),
    Mutant(
        "position of a draw forgotten",
        f"{PROGRAM}/lower.py",
        'text = f"(tg_word({{0}}, {{1}} + {{index}}) >=',
        'text = f"(tg_word({{0}}, {{index}}) >=',
        "keys",
    ),
    # --- nests
    Mutant(
        "label barrier ignored",
        f"{PROGRAM}/nests.py",
        "            first = max(first, self._barrier)\n",
        "",
        "written",
    ),
    Mutant(
        "overwritten before it is read",
        f"{PROGRAM}/nests.py",
        "first = max(first, self._last_read.get(target, 0), self._home.get(target, 0))",
        "first = max(first, self._home.get(target, 0))",
        "written",
    ),
    Mutant(
        "neighbours read while they are overwritten",
        f"{PROGRAM}/nests.py",
        "return level if self._safe(nest, op, level) else None",
        "return level",
        "written",
    ),
    Mutant(
        "numbers known in the end read too early",
        f"{PROGRAM}/nests.py",
        "                if (nest.level[found] == LATE) != (level == LATE):\n"
        "                    return False\n",
        "",
        "keys",
    ),
    # --- memory
    Mutant(
        "liveness off by one",
        f"{PROGRAM}/placed.py",
        "                spans[s] = s.nbytes, first, at\n",
        "                spans[s] = s.nbytes, first, max(first, at - 1)\n",
        "handed out",
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
        "native",
    ),
    # --- C
    Mutant(
        "NaN lost by the maximum of two",
        f"{PROGRAM}/c/support.h",
        "TG T tg_max_##s(T a, T b) { return a > b || a != a ? a : b; }  ",
        "TG T tg_max_##s(T a, T b) { return a > b ? a : b; }            ",
        "native",
    ),
    Mutant(
        "NaN lost by the maximum of a row",
        f"{PROGRAM}/c_source.py",
        "const {ctype} {acc} = {acc}n ? NAN : {acc}m;",
        "const {ctype} {acc} = {acc}m;",
        "native",
    ),
    Mutant(
        "NaN lost by the maximum of all",
        f"{PROGRAM}/c_source.py",
        'return f"{acc} = {x} {sign} {acc} || {x} != {x} ? {x} : {acc};"',
        'return f"{acc} = {x} {sign} {acc} ? {x} : {acc};"',
        "native",
    ),
    Mutant(
        "partial sums by thread",
        f"{PROGRAM}/c_source.py",
        "        total = work * self.rows * self.columns\n",
        "        from tensorgrad.program.pool import threads\n\n"
        "        total = work * self.rows * self.columns * threads()\n",
        "threads",
    ),
    Mutant(
        "last partial sum forgotten",
        f"{PROGRAM}/c_source.py",
        "f\"for (long k = 1; k < pieces; k++) {accumulated(m.kind, acc + 'w', f'a{n}[k]')}\",",
        "f\"for (long k = 1; k < pieces - 1; k++) {accumulated(m.kind, acc + 'w', f'a{n}[k]')}\",",
        "native",
    ),
    Mutant(
        "wrong leading dimension of a transposed factor",
        f"{PROGRAM}/c_source.py",
        "return 1, max(c, rows) if columns != 1 else rows",
        "return 1, max(c, columns) if columns != 1 else rows",
        "native",
    ),
    Mutant(
        "sign of zero lost in a literal",
        f"{PROGRAM}/c_source.py",
        "        text = repr(float(x)) + (",
        "        text = repr(float(x) or 0.0) + (",
        "keys",
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
        "self.memory[storage] = packed(arguments[k], storage.dtype)",
        "self.memory[storage] = arguments[k]",
        "native",
    ),
    Mutant(
        "results overwritten while somebody holds them",
        f"{PROGRAM}/native.py",
        "if direct and getrefcount(self._results[k][1]) > 2",
        "if direct and getrefcount(self._results[k][1]) > 3",
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
        "handed out",
    ),
    Mutant(
        "overwriting not noted",
        f"{PROGRAM}/calls.py",
        "        if written:\n",
        "        if False:\n",
        "written",
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
    # --- guards
    Mutant(
        "a kind of guard that always holds",
        f"{PROGRAM}/guards.py",
        "        return same(read(self.kind, self.holder, self.key), self.value)\n",
        '        return self.kind == "item" or same(\n'
        "            read(self.kind, self.holder, self.key), self.value\n        )\n",
        "containers",
    ),
    Mutant(
        "the code of functions not guarded",
        f"{PROGRAM}/guards.py",
        "f.__code__ is code and f.__defaults__ is defaults",
        "f.__defaults__ is defaults",
        "names",
    ),
    Mutant(
        "-0.0 taken for 0.0",
        f"{PROGRAM}/guards.py",
        "(a == b and math.copysign(1.0, a) == math.copysign(1.0, b))",
        "a == b",
        "settings",
    ),
    Mutant(
        "NaN compared by ==",
        f"{PROGRAM}/guards.py",
        " or (a != a and b != b)\n",
        "\n",
        "settings",
    ),
    Mutant(
        "types of numbers ignored",
        f"{PROGRAM}/guards.py",
        "    if type(a) is not t:\n        return False\n    if t is float:",
        "    if type(a) not in SCALARS and type(a) is not t:\n        return False\n    if t is float:",
        "settings",
    ),
    Mutant(
        "order of a dict ignored",
        f"{PROGRAM}/guards.py",
        "return [x for item in list(kind.items(o)) for x in item]",
        "return [x for item in sorted(kind.items(o), key=repr) for x in item]",
        "containers",
    ),
    Mutant(
        "content compared by length alone",
        f"{PROGRAM}/guards.py",
        "return len(now) == len(then.parts) and all(map(matches, now, then.parts))",
        "return len(now) == len(then.parts)",
        "containers",
    ),
    Mutant(
        "tensors at two places taken for one",
        f"{PROGRAM}/guards.py",
        "        if any(read(*place) is not first for place in self.places[1:]):\n",
        "        if False:\n",
        "sharing",
    ),
    Mutant(
        "another tensor in place of one with a history",
        f"{PROGRAM}/guards.py",
        "        self.fixed = type(tensor.node) not in (type(None), Leaf)\n",
        "        self.fixed = False\n",
        "followed",
    ),
    Mutant(
        "changes of modules not looked at",
        f"{PROGRAM}/guards.py",
        "        if self._seen != changes.count:\n",
        "        if False:\n",
        "modules",
    ),
    Mutant(
        "presence of gradients not guarded",
        f"{PROGRAM}/guards.py",
        "            if (leaf.grad is None) is not empty:\n",
        "            if False:\n",
        "steps",
    ),
    Mutant(
        "hooks not guarded",
        f"{PROGRAM}/guards.py",
        "if leaf.hooks is not hooks or tuple(hooks or ()) != registered:",
        "if leaf.hooks is not hooks:",
        "handed out",
    ),
    Mutant(
        "options missing from the guards",
        f"{PROGRAM}/guards.py",
        'LIVE_OPTIONS = ("lr",)',
        'LIVE_OPTIONS = ("lr", "momentum")',
        "keys",
    ),
    Mutant(
        "options of optimizers not guarded",
        f"{PROGRAM}/guards.py",
        "found += [(name, v) for name, v in group.items() if name not in",
        "found += [(name, v) for name, v in () if name not in",
        "optimizers",
    ),
    Mutant(
        "memory shared with what lies outside ignored",
        f"{PROGRAM}/guards.py",
        "        if not self.sharing.holds([t.data for t in arguments], self._outside_arrays):\n",
        "        if False:\n",
        "shared memory",
    ),
    # --- which memory is the same
    Mutant(
        "distance of shared memory ignored",
        f"{PROGRAM}/aliases.py",
        "apart = _start(b) - _start(a)",
        "apart = 0",
        "handed out",
    ),
    Mutant(
        "memory that runs backwards",
        f"{PROGRAM}/aliases.py",
        "            low += (n - 1) * step\n",
        "            pass\n",
        "handed out",
    ),
    # --- reads
    Mutant(
        "a number that is used taken for a counter",
        f"{PROGRAM}/surroundings.py",
        "                self.guards[name] = Guard(kind, holder, key, then, x.where)\n",
        "                pass\n",
        "names",
    ),
    Mutant(
        "names that are not there not guarded",
        f"{PROGRAM}/reads.py",
        '            self.note("key", space, name, MISSING)\n',
        "            pass\n",
        "names",
    ),
    Mutant(
        "attributes that are not there not guarded",
        f"{PROGRAM}/reads.py",
        '            self.note("key", attributes, name, MISSING)\n',
        "            pass\n",
        "attributes",
    ),
    Mutant(
        "keys that are not there not guarded",
        f"{PROGRAM}/reads.py",
        '                self.note("key", o, key, MISSING)\n',
        "                pass\n",
        "containers",
    ),
    Mutant(
        "special methods that appear not seen",
        f"{PROGRAM}/reads.py",
        '            self.note("class", t, name, lookup(t, name))\n\n    # --- calls',
        "            pass\n\n    # --- calls",
        "followed",
    ),
    Mutant(
        "the class of an object not guarded",
        f"{PROGRAM}/reads.py",
        '            self.note("attribute", o, "__class__", type(o))\n        return type(o)',
        "            pass\n        return type(o)",
        "followed",
    ),
    Mutant(
        "guards not checked after the step",
        f"{PROGRAM}/surroundings.py",
        "            if not changed and not guard.holds():\n",
        "            if False:\n",
        "followed",
    ),
    Mutant(
        "iterators that move on accepted",
        f"{PROGRAM}/reads.py",
        '            if self.is_outside(o):\n                self.refuse(\n                    f"an iterator',
        '            if False:\n                self.refuse(\n                    f"an iterator',
        "refused",
    ),
    Mutant(
        "numbers of .data accepted",
        f"{PROGRAM}/reads.py",
        'if isinstance(o, Tensor) and name in ("data", "node"):',
        'if isinstance(o, Tensor) and name == "node":',
        "refused",
    ),
    Mutant(
        "unknown functions of C accepted",
        f"{PROGRAM}/callables.py",
        "    r.refuse(\n        f\"{name}() of {module or 'C code'} is called,",
        "    str(\n        f\"{name}() of {module or 'C code'} is called,",
        "followed",
    ),
    Mutant(
        "the clock accepted",
        f"{PROGRAM}/callables.py",
        'if name in ("now", "utcnow", "today"):',
        'if name == "today":',
        "refused",
    ),
    Mutant(
        "context variables not guarded",
        f"{PROGRAM}/callables.py",
        '            r.note("variable", owner, None, value)\n',
        "",
        "C functions",
    ),
    # --- effects
    Mutant(
        "appended twice",
        f"{PROGRAM}/effects.py",
        "                a.to.append(unflatten(tree, results))\n",
        "                a.to += [unflatten(tree, results)] * 2\n",
        "effects",
    ),
    Mutant(
        "counters counted twice where a call is checked",
        f"{PROGRAM}/effects.py",
        "        for a in self.appends:\n            kept =",
        "        for c in self.counts:\n"
        "            put(c.kind, c.holder, c.key, c.holder, c.after(read(c.kind, c.holder, c.key)))\n"
        "        for a in self.appends:\n            kept =",
        "effects",
    ),
    Mutant(
        "results not put into attributes",
        f"{PROGRAM}/effects.py",
        "        base.__setitem__(holder, key, value)\n",
        "        pass\n",
        "effects",
    ),
    Mutant(
        "what was appended keeps the function's numbers",
        f"{PROGRAM}/effects.py",
        "                a.to[-k] = unflatten(a.trees[-k], results)\n",
        "                pass\n",
        "checks",
    ),
    # --- keys, captures and checks
    Mutant(
        "signs of zeros missing from the key",
        f"{PROGRAM}/trees.py",
        '        return t, struct.pack("d", obj)\n',
        "        return t, obj\n",
        "keys",
    ),
    Mutant(
        "types missing from the key",
        f"{PROGRAM}/trees.py",
        "        return t, obj\n    if isinstance(obj, np.generic):",
        "        return obj\n    if isinstance(obj, np.generic):",
        "keys",
    ),
    Mutant(
        "default dtype missing from the key",
        f"{PROGRAM}/compiled.py",
        "        dtypes.get_default_dtype(),\n",
        "",
        "tensors",
    ),
    Mutant(
        "autocast missing from the key",
        f"{PROGRAM}/compiled.py",
        "        autocast_dtype(),\n",
        "        None,\n",
        "fuse",
    ),
    Mutant(
        "relations of arguments missing from the key",
        f"{PROGRAM}/compiled.py",
        "            relations([t.data for t in tensors]) if len(tensors) > 1 else (),\n            ambient",
        "            ambient",
        "handed out",
    ),
    Mutant(
        "refusals accepted",
        f"{PROGRAM}/compiled.py",
        "problem: Any = reads.refusals[0] if reads.refusals else recorder.refusal",
        "problem: Any = recorder.refusal",
        "refused",
    ),
    Mutant(
        "the captured call not taken back",
        f"{PROGRAM}/compiled.py",
        "        after = state.copy()\n        recorder.undo()\n",
        "        after = state.copy()\n",
        "steps",
    ),
    Mutant(
        "checks at calls 2, 4, 8 left out",
        f"{PROGRAM}/compiled.py",
        "        return following & (following - 1) == 0\n",
        "        return False\n",
        "checks",
    ),
    Mutant(
        "checks left out on the quick way",
        f"{PROGRAM}/compiled.py",
        "limit = (1 << self.calls.bit_length()) - 1 - self.calls",
        "limit = 1 << 30",
        "checks",
    ),
    Mutant(
        "the program's state stays where a check differs",
        f"{PROGRAM}/compiled.py",
        "        state.restore(after)\n        self.dropped = why\n",
        "        self.dropped = why\n",
        "checks",
    ),
    Mutant(
        "gradients not renewed while somebody holds them",
        f"{PROGRAM}/compiled.py",
        "                kept.append(k)\n",
        "                pass\n",
        "handed out",
    ),
    Mutant(
        "generators not moved on",
        f"{PROGRAM}/compiled.py",
        "generator.set_state((key, position + words))",
        "generator.set_state((key, position))",
        "steps",
    ),
    Mutant(
        "views of arguments that lie otherwise",
        f"{PROGRAM}/outputs.py",
        "            arguments[m.of.number].data.strides == m.strides\n",
        "            True\n",
        "handed out",
    ),
    # --- the quick way in
    Mutant(
        "-0.0 taken for 0.0",
        f"{PROGRAM}/c/entry.c",
        "return memcmp(&a, &b, sizeof a) == 0 ||",
        "return a == b ||",
        "settings",
    ),
    Mutant(
        "generators not moved on",
        f"{PROGRAM}/c/entry.c",
        "PyLong_FromUnsignedLongLong(value + (uint64_t)w->n)",
        "PyLong_FromUnsignedLongLong(value)",
        "keys",
    ),
    Mutant(
        "gradients overwritten while somebody holds their arrays",
        f"{PROGRAM}/c/entry.c",
        "if (Py_REFCNT(g->b) > usual || Py_REFCNT(SLOT(g->b, e->data_at)) > 2) return 0;",
        "if (Py_REFCNT(g->b) > usual) return 0;",
        "handed out",
    ),
    Mutant(
        "gaps in small arguments ignored",
        f"{PROGRAM}/c/entry.c",
        "if (!PyArray_IS_C_CONTIGUOUS(a) || !PyArray_ISNOTSWAPPED(a)) return 0;",
        "",
        "native",
    ),
    Mutant(
        "overwriting not noted",
        f"{PROGRAM}/c/entry.c",
        "int bad = PyDict_SetItem(e->tape_dict, name_last, now);",
        "int bad = 0;",
        "written",
    ),
    Mutant(
        "presence of gradients not guarded",
        f"{PROGRAM}/c/entry.c",
        "if ((SLOT(l->a, e->grad_at) == Py_None) != l->n) return 0;",
        "",
        "handed out",
    ),
    Mutant(
        "memory shared with what lies outside ignored",
        f"{PROGRAM}/c/entry.c",
        "        if (!apart(e, args, k, a)) return 0;\n",
        "",
        "shared memory",
    ),
    Mutant(
        "checks left out",
        f"{PROGRAM}/c/entry.c",
        "if (kwargs || e->count >= e->limit || ",
        "if (kwargs || ",
        "checks",
    ),
    # --- on a GPU
    Mutant(
        "graphs kept after memory has moved",
        f"{PROGRAM}/cuda.py",
        "            self._captures += 1\n            self._graphs = [None] * len(self._segments)\n",
        "            self._captures += 1\n",
        "cuda",
    ),
    Mutant(
        "learning rates and positions sent once",
        f"{PROGRAM}/cuda.py",
        "        if bits != self._sent_scalars:\n",
        "        if not self._sent_scalars:\n",
        "cuda",
    ),
    Mutant(
        "last partial sums of a column forgotten",
        f"{PROGRAM}/cuda_source.py",
        "for (index_t k = 1; k < teams; ++k) ",
        "for (index_t k = 1; k < teams - 1; ++k) ",
        "cuda",
    ),
    Mutant(
        "only the first chunk of columns",
        f"{PROGRAM}/cuda_source.py",
        'first = f"(blockIdx.y * {self.steps} + k)" if self.chunks > 1 else "k"',
        'first = "k"',
        "cuda",
    ),
]
