"""Passes that make one instruction of several neighbours. None changes what a program computes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tensorgrad.ops.activations import PASS_POSITIVE
from tensorgrad.ops.table import OPERATIONS
from tensorgrad.program.flattening import flatten_as_it_lies
from tensorgrad.program.ir import Instruction, Program, Value
from tensorgrad.program.scaling import scale_convolutions
from tensorgrad.program.uses import Uses

_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def fuse(program: Program) -> Program:
    """All passes of this module."""
    if program.aliased:
        return program
    if any(i.op.name == "max_pool" for i in program):
        program = _sum_before_spreading(_fuse_pools(program))
        if program.on_host and any(i.op.name == "convolution" for i in program):
            program = _pool_convolutions(program)
    if program.on_host and {"convolution", "scaled"} <= {i.op.name for i in program}:
        program = scale_convolutions(program)
    return flatten_as_it_lies(program)


# --- pools ----------------------------------------------------------------------------------------


def _fuse_pools(program: Program) -> Program:
    """Pools over tiles say which element of its window each largest one was.

    Where the gradient is wanted, that replaces the search for places and the scatter; where it is
    not, the pool becomes a part of the convolution before it. And a ReLU before the pool comes
    after it, where there is less of it: both keep the order of numbers, and where the largest is
    not positive no gradient passes.
    """
    from tensorgrad.ops import tiled_pooling  # loaded with nn only

    uses = Uses(program)
    changed: dict[Instruction, list[Instruction]] = {}
    for pool in program:
        if pool.op.name != "max_pool" or pool.outputs[0].dtype not in _FLOATS:
            continue
        chains = _gradients(uses, pool)
        if not tiled_pooling.fits(pool.attrs["windows"]):
            continue
        if chains:
            _with_numbers(uses, pool, chains, changed)
        elif program.on_host and _follows_convolution(uses, pool):
            _with_numbers(uses, pool, [], changed)
    if not changed:
        return program
    return program.copy([new for i in program for new in changed.get(i, [i])])


#: From the search for places to the gradient that is made of them.
_CHAIN = ("reshape", "scatter_add", "reshape")


def _gradients(uses: Uses, pool: Instruction) -> list[list[Instruction]]:
    """The chains of instructions that make the gradients of a pool, if all are what is expected."""
    x, y = pool.inputs[0], pool.outputs[0]
    found = []
    for places in uses.readers.get(y, []):
        if places.op.name != "max_pool_places" or places.inputs != (x, y):
            continue
        chain = [places]
        for name in _CHAIN:
            following = uses.only(chain[-1].outputs[0], name)
            if following is None:
                return []
            chain.append(following)
        scatter = chain[2]
        spread = uses.maker.get(scatter.inputs[0])
        same = scatter.inputs[1] is chain[1].outputs[0] and chain[3].outputs[0].shape == x.shape
        if not same or spread is None or spread.op.name != "reshape":
            return []
        if spread.inputs[0].shape != y.shape or places.attrs != pool.attrs:
            return []
        found.append(chain)
    return found


def _follows_convolution(uses: Uses, pool: Instruction) -> bool:
    """Whether nobody else reads what comes before ``pool``: a convolution, or its ReLU."""
    x = pool.inputs[0]
    if x in uses.kept or uses.readers[x] != [pool]:
        return False
    i = uses.maker.get(x)
    if i is not None and i.op is OPERATIONS["relu"].primitive:
        x = i.inputs[0]
        i = uses.maker.get(x) if uses.only(x, "relu") is not None else None
    return (
        i is not None
        and i.op.name == "convolution"
        and i.attrs["groups"] == 1
        and _is_pooled(pool, i.attrs["size"], i.outputs[0])
    )


def _with_numbers(
    uses: Uses,
    pool: Instruction,
    chains: list[list[Instruction]],
    changed: dict[Instruction, list[Instruction]],
) -> None:
    from tensorgrad.ops.tiled_pooling import MAX_POOL_TILES, SPREAD_TILES

    x, y = pool.inputs[0], pool.outputs[0]
    number = uses.new(y, np.dtype(np.uint8))
    activation = uses.maker.get(x)
    masks = [uses.only(chain[-1].outputs[0], "pass_positive") for chain in chains]
    late = (
        activation is not None
        and activation.op is OPERATIONS["relu"].primitive
        and x not in uses.kept
    )
    late = late and all(m is not None and m.inputs[1] is x for m in masks)
    readers = {pool, *masks, *[chain[0] for chain in chains]}
    late = late and set(uses.readers[x]) == readers
    if late:
        assert activation is not None
        largest = uses.new(y)
        changed[activation] = []
        changed[pool] = [
            replace(pool, op=MAX_POOL_TILES, inputs=activation.inputs, outputs=[largest, number],
                    residual=1),
            replace(activation, inputs=(largest,), outputs=[y]),
        ]  # fmt: skip
    else:
        changed[pool] = [replace(pool, op=MAX_POOL_TILES, outputs=[y, number], residual=1)]
    for chain, mask in zip(chains, masks, strict=True):
        flat = uses.maker[chain[2].inputs[0]]
        g = flat.inputs[0]
        changed.update({i: [] for i in chain})
        if uses.only(flat.outputs[0], "scatter_add") is not None:
            changed[flat] = []
        last, made = chain[-1], []
        if late:
            assert mask is not None
            passed = uses.new(y)
            made = [replace(mask, op=PASS_POSITIVE, inputs=(g, y), outputs=[passed])]
            last, g = mask, passed
        attrs = {**pool.attrs, "size": tuple(x.shape[-len(pool.attrs["windows"]) :])}
        made.append(
            replace(chain[-1], op=SPREAD_TILES, inputs=(g, number), attrs=attrs,
                    outputs=last.outputs)
        )  # fmt: skip
        changed[last] = made


def _sum_before_spreading(program: Program) -> Program:
    """The sum over windows that tile an array is that of what was put into them."""
    spread = {i.outputs[0]: i for i in program if i.op.name == "spread_tiles"}

    def moved(i: Instruction) -> Instruction:
        made = spread.get(i.inputs[0]) if i.op.name == "sum" else None
        if made is None:
            return i
        ndim, axes = len(made.outputs[0].shape), i.attrs["axis"]
        axes = range(ndim) if axes is None else axes if isinstance(axes, tuple) else (axes,)
        summed = {a % ndim for a in axes}
        tiled = set(range(ndim - len(made.attrs["windows"]), ndim))
        return replace(i, inputs=(made.inputs[0],)) if tiled <= summed else i

    return program.copy([moved(i) for i in program])


# --- convolutions with pools ----------------------------------------------------------------------


def _pool_convolutions(program: Program) -> Program:
    """Convolutions that are pooled over tiles of 2 x 2 positions store the largest ones alone.

    Their gradients are made of that after pooling, instead of what that is before it.
    """
    uses = Uses(program)
    changed: dict[Instruction, list[Instruction]] = {}
    for i in program:
        if i.op.name == "convolution":
            _pool_convolution(uses, i, changed)
        elif i.op.name == "spread_tiles":
            _pool_gradients(uses, i, changed)
    return _join_neighbours(program.copy([new for i in program for new in changed.get(i, [i])]))


def _join_neighbours(program: Program) -> Program:
    """What is done to gradients beside ``CONVOLUTION_POOLED_GRADIENTS`` becomes a part of it: they
    are zero where a ReLU's result is not positive, and summed for the biases."""
    both = [i for i in program if i.op.name == "convolution_pooled_gradients"]
    if not both:
        return program
    neighbours = _Neighbours(program)
    for i in both:
        neighbours.join(i)
    changed = neighbours.changed
    return program.copy([new for i in program for new in changed.get(i, [i])])


class _Neighbours:
    """The instructions that become a part of others, and these."""

    def __init__(self, program: Program) -> None:
        self.changed: dict[Instruction, list[Instruction]] = {}
        self._uses = Uses(program)
        self._place = {i: at for at, i in enumerate(program)}
        self._overwritten = {v.before for i in program for v in i.outputs if v.before is not None}

    def join(self, i: Instruction) -> None:
        """Let ``i`` do what is done to its ``g`` before, and to its gradient for ``x`` after it."""
        g, number, x, weight, _ = i.inputs
        dx, dw, *sums = i.outputs
        masked = False
        sums[0] = self._sum(i, g, sums[0])
        mask = self._uses.maker.get(g)
        y = None
        if mask is not None and self._is_own(mask, i, g):
            g, y = mask.inputs
            self.changed[mask] = []
        after = self._uses.only(dx, "pass_positive")
        if after is not None and after.inputs == (dx, x):
            masked, dx = True, after.outputs[0]
            self.changed[after] = []
        sums[1] = self._sum(i, dx, sums[1])
        inputs, attrs = (g, number, x, weight, y), {**i.attrs, "masked": masked}
        self.changed[i] = [replace(i, inputs=inputs, attrs=attrs, outputs=[dx, dw, *sums])]

    def _is_own(self, mask: Instruction, i: Instruction, g: Value) -> bool:
        """Whether ``mask`` is a ReLU's gradient that nobody but ``i`` has a need for."""
        if mask.op.name != "pass_positive" or mask in self.changed or g in self._uses.kept:
            return False
        others = [r for r in self._uses.readers[g] if r is not i and r not in self.changed]
        alike = all(type(v) is Value and v.shape == g.shape for v in mask.inputs)
        return alike and not others and self._overwritten.isdisjoint(mask.inputs)

    def _sum(self, i: Instruction, v: Value, found: Value) -> Value:
        """The sum of each channel of ``v``, if somebody computes it after ``i``; else ``found``."""
        for r in self._uses.readers.get(v, []):
            over = r.op.name == "sum" and r.attrs["axis"] == (0, 2, 3) and not r.attrs["keepdims"]
            if over and r not in self.changed and self._place[r] > self._place[i]:
                self.changed[r] = []
                return r.outputs[0]
        return found


def _is_pooled(i: Instruction, size: tuple[int, ...], y: Value) -> bool:
    """Whether the windows of ``i`` are tiles of 2 x 2 of the last two axes, and all is float32."""
    windows = i.attrs["windows"]
    twos = len(windows) == 2 and all(w.kernel == w.stride == 2 for w in windows)
    return twos and len(size) == 2 and y.dtype == np.float32


def _pool_convolution(
    uses: Uses, i: Instruction, changed: dict[Instruction, list[Instruction]]
) -> None:
    from tensorgrad.ops.convolution_pooling import CONVOLUTION_POOLED

    pool = uses.only(i.outputs[0], "max_pool_tiles")
    if (
        pool is None
        or i.attrs["groups"] != 1
        or not _is_pooled(pool, i.attrs["size"], i.outputs[0])
    ):
        return
    largest, number = pool.outputs
    relu = uses.only(largest, "relu")
    y = largest if relu is None else relu.outputs[0]
    changed[i] = []
    if relu is not None:
        changed[relu] = []
    attrs = {**i.attrs, "positive": relu is not None}
    changed[pool] = [
        replace(i, op=CONVOLUTION_POOLED, attrs=attrs, outputs=[y, number], residual=1)
    ]


def _pool_gradients(
    uses: Uses, spread: Instruction, changed: dict[Instruction, list[Instruction]]
) -> None:
    """The gradients of a convolution for its weights, or for input and weights."""
    from tensorgrad.ops import convolution_pooling as pooled

    whole, size = spread.outputs[0], spread.attrs["size"]
    readers = uses.readers.get(whole, [])
    weights = [i for i in readers if i.op.name == "convolution_weight" and i.inputs[1] is not whole]
    inputs = [i for i in readers if i.op.name == "convolution_input" and i.inputs[1] is not whole]
    alone = whole not in uses.kept and len(weights) == 1 and len(readers) == 1 + len(inputs)
    if not alone or len(inputs) > 1 or not _is_pooled(spread, size, whole):
        return
    w = weights[0]
    if w.attrs["groups"] != 1:
        return
    if not inputs:
        changed[spread] = []
        given = (*spread.inputs, w.inputs[1])
        attrs = {**w.attrs, "before": size}
        changed[w] = [replace(w, op=pooled.CONVOLUTION_WEIGHT_POOLED, inputs=given, attrs=attrs)]
    elif _is_together(w, inputs[0], size):
        x, weight = w.inputs[1], inputs[0].inputs[1]
        changed[spread] = changed[w] = changed[inputs[0]] = []
        attrs = {"size": size, "padding": w.attrs["padding"], "masked": False}
        dx = inputs[0].outputs[0]
        sums = [uses.new(dx, shape=(n,)) for n in weight.shape[:2]]
        changed[spread] = [
            replace(w, op=pooled.CONVOLUTION_POOLED_GRADIENTS,
                    inputs=(*spread.inputs, x, weight, None), attrs=attrs,
                    outputs=[dx, w.outputs[0], *sums], residual=3)
        ]  # fmt: skip


def _is_together(w: Instruction, i: Instruction, size: tuple[int, ...]) -> bool:
    """Whether the gradients for weights and input of one convolution are worth one routine."""
    from tensorgrad.ops.convolution_loops import POOLED_TAPS  # loaded with nn only

    x, weight = w.inputs[1], i.inputs[1]
    names = ("stride", "padding", "dilation", "groups")
    if any(w.attrs[name] != i.attrs[name] for name in names) or i.inputs[2] is not None:
        return False
    kernel, padding = w.attrs["size"], w.attrs["padding"]
    covered = tuple([n + k - 1 - 2 * p for n, k, p in zip(size, kernel, padding, strict=True)])
    return (
        w.attrs["stride"] == w.attrs["dilation"] == (1, 1)
        and weight.shape[2:] == kernel
        and x.shape[2:] == i.attrs["size"] == covered
        and x.shape[1] % 16 == 0
        and kernel[0] * kernel[1] <= POOLED_TAPS
    )
