"""Passes that make one instruction of several neighbours. None changes what a program computes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tensorgrad.ops.activations import PASS_POSITIVE
from tensorgrad.ops.table import OPERATIONS
from tensorgrad.program.ir import Instruction, Program, Value

_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


class _Uses:
    """Who makes and who reads the values of a program."""

    def __init__(self, program: Program) -> None:
        self.count = max((v.number for v in program.values()), default=0)
        self.kept = set(program.kept())
        self.maker: dict[Value, Instruction] = {}
        self.readers: dict[Value, list[Instruction]] = {}
        for i in program:
            self.maker.update(dict.fromkeys(i.outputs, i))
            for v in dict.fromkeys(i.values()):
                self.readers.setdefault(v, []).append(i)

    def only(self, v: Value, name: str) -> Instruction | None:
        """The one that reads ``v``, of a primitive of that name, if nobody else sees it."""
        readers = self.readers.get(v, [])
        if v in self.kept or len(readers) != 1 or readers[0].op.name != name:
            return None
        return readers[0]

    def new(self, like: Value, dtype: np.dtype[Any] | None = None) -> Value:
        """Another value in the shape of ``like``, for an instruction to give."""
        self.count += 1
        return Value(self.count, like.shape, like.dtype if dtype is None else dtype)


def fuse(program: Program) -> Program:
    """All passes of this module."""
    if program.aliased:
        return program
    if any(i.op.name == "max_pool" for i in program):
        program = _sum_before_spreading(_fuse_pools(program))
    return program


# --- pools ----------------------------------------------------------------------------------------


def _fuse_pools(program: Program) -> Program:
    """Pools over tiles say which element of its window each largest one was.

    Where the gradient is wanted, that replaces the search for places and the scatter. And a ReLU
    before the pool comes after it, where there is less of it: both keep the order of numbers, and
    where the largest is not positive no gradient passes.
    """
    from tensorgrad.ops import tiled_pooling  # loaded with nn only

    uses = _Uses(program)
    changed: dict[Instruction, list[Instruction]] = {}
    for pool in program:
        if pool.op.name != "max_pool" or pool.outputs[0].dtype not in _FLOATS:
            continue
        chains = _gradients(uses, pool)
        if chains and tiled_pooling.fits(pool.attrs["windows"]):
            _with_numbers(uses, pool, chains, changed)
    if not changed:
        return program
    return program.copy([new for i in program for new in changed.get(i, [i])])


#: From the search for places to the gradient that is made of them.
_CHAIN = ("reshape", "scatter_add", "reshape")


def _gradients(uses: _Uses, pool: Instruction) -> list[list[Instruction]]:
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


def _with_numbers(
    uses: _Uses,
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
        g = uses.maker[chain[2].inputs[0]].inputs[0]
        changed.update({i: [] for i in chain})
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
