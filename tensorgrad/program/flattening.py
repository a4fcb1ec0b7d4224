"""A pass for images that are flattened before a product: in the order in which they lie.

A convolution's result lies channels last in programs; flattened as eager mode does it, it would be
turned around in memory, and so would its gradient. Where the weights that it meets are smaller,
their columns are put into its order instead, and the gradient for them back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tensorgrad.ops.transposed_rows import TRANSPOSED_ROWS
from tensorgrad.program.ir import Instruction, Program, Value
from tensorgrad.program.sums import primitive
from tensorgrad.program.uses import Uses
from tensorgrad.tape import Primitive

# Operations whose results lie as their first operand does, and those that lie channels last.
_KEEP = frozenset({"relu", "max_pool", "max_pool_tiles"})
_CONVOLUTIONS = frozenset({"convolution", "convolution_pooled"})
_PERMUTE, _RESHAPE = primitive("permute_dims"), primitive("reshape")
_FLOAT = np.dtype(np.float32)


def flatten_as_it_lies(program: Program) -> Program:
    """Let flattened images keep the order of their axes in memory, where products follow."""
    if program.aliased or not program.on_host:
        return program
    if not any(i.op.name in _CONVOLUTIONS for i in program):
        return program
    uses = Uses(program)
    flattened = [found for i in program if (found := _flattened(uses, i)) is not None]
    if not flattened:
        return program
    turned = _Turned(uses)
    for found in flattened:
        turned.take(found)
    made = [new for i in program for new in turned.changed.get(i, [i])]
    return program.copy(made)


@dataclass(frozen=True, slots=True)
class _Flattened:
    """Images that are flattened, and who multiplies them.

    layer: the product with ``weight``, a row for each result. weights: the gradients for it.
    inputs: products with the same weights whose results become gradients of the images, and how.
    """

    reshape: Instruction
    layer: Instruction
    weights: Sequence[Instruction]
    inputs: Sequence[tuple[Instruction, Instruction]]

    def is_worth_it(self) -> bool:
        """Whether fewer numbers are put into another order than would be without; never where the
        images are their own weights."""
        columns = (1 + len(self.weights)) * self.layer.inputs[1].shape[0]
        return bool(columns < (1 + len(self.inputs)) * self.reshape.outputs[0].shape[0])


def _lies_last(uses: Uses, v: Value) -> bool:
    """Whether a convolution made ``v``, so that its channels lie side by side."""
    maker = uses.maker.get(v)
    while maker is not None and maker.op.name in _KEEP:
        maker = uses.maker.get(maker.values()[0])
    return maker is not None and maker.op.name in _CONVOLUTIONS


def _flattened(uses: Uses, i: Instruction) -> _Flattened | None:
    """What belongs together around a reshape ``i``, if it is worth another order."""
    if i.op.name != "reshape" or not i.values():
        return None
    x, y = i.values()[0], i.outputs[0]
    if y in uses.kept or y.dtype != _FLOAT or not _lies_last(uses, x):
        return None
    spatial = math.prod(x.shape[2:])
    if y.shape != (x.shape[0], math.prod(x.shape[1:])) or not 1 < spatial < y.shape[1]:
        return None
    readers = uses.readers.get(y, [])
    layers = [r for r in readers if r.op.name == "linear" and r.inputs.index(y) == 0]
    weights = [r for r in readers if r.op.name == "matmul" and _is_gradient(r, y)]
    if len(layers) != 1 or len(readers) != 1 + len(weights):
        return None
    found = _Flattened(i, layers[0], weights, _gradients(uses, layers[0], x))
    return found if found.is_worth_it() else None


def _gradients(uses: Uses, layer: Instruction, x: Value) -> list[tuple[Instruction, Instruction]]:
    """Products with the weights of a layer behind it, each with the reshape to images as ``x``."""
    weight = layer.inputs[1]
    readers = uses.readers.get(weight, [])
    found = []
    for i in readers[readers.index(layer) + 1 :]:
        if i.op.name != "matmul" or not _is_gradient(i, weight):
            continue
        after = uses.only(i.outputs[0], "reshape")
        if after is not None and after.outputs[0].shape == x.shape:
            found.append((i, after))
    return found


def _is_gradient(i: Instruction, y: Value) -> bool:
    """Whether it is the product of another matrix and ``y``."""
    a, b = i.inputs
    return b is y and a is not y and type(a) is Value and len(a.shape) == 2


class _Turned:
    """The instructions that take the place of others."""

    def __init__(self, uses: Uses) -> None:
        self.changed: dict[Instruction, list[Instruction]] = {}
        self._uses = uses

    def take(self, found: _Flattened) -> None:
        """Write what ``found`` becomes."""
        x, y = found.reshape.values()[0], found.reshape.outputs[0]
        channels, size = x.shape[1], math.prod(x.shape[2:])
        weight = found.layer.inputs[1]
        own = self._uses.new(weight)
        self.changed[found.reshape] = self._last(found.reshape, x, y)
        self.changed[found.layer] = [
            _made(found.layer, TRANSPOSED_ROWS, weight, own, high=channels),
            replace(found.layer, inputs=(found.layer.inputs[0], own, *found.layer.inputs[2:])),
        ]
        for i in found.weights:
            turned = self._uses.new(i.outputs[0])
            back = _made(i, TRANSPOSED_ROWS, turned, i.outputs[0], high=size)
            self.changed[i] = [replace(i, outputs=[turned]), back]
        for i, after in found.inputs:
            turned = self._uses.new(i.outputs[0])
            self.changed[i] = [replace(i, inputs=(i.inputs[0], own), outputs=[turned])]
            self.changed[after] = self._images(after, turned, after.outputs[0])

    def _last(self, where: Instruction, x: Value, y: Value) -> list[Instruction]:
        """``y``: the images ``x`` flattened channels last."""
        order = (0, *range(2, len(x.shape)), 1)
        turned = self._uses.new(x, shape=tuple([x.shape[k] for k in order]))
        return [
            _made(where, _PERMUTE, x, turned, axes=order),
            _made(where, _RESHAPE, turned, y, shape=y.shape),
        ]

    def _images(self, where: Instruction, x: Value, y: Value) -> list[Instruction]:
        """``y``: the images that lie channels last in the rows of ``x``."""
        rows, channels, *size = y.shape
        apart = self._uses.new(x, shape=(rows, *size, channels))
        axes = (0, len(y.shape) - 1, *range(1, len(y.shape) - 1))
        return [
            _made(where, _RESHAPE, x, apart, shape=apart.shape),
            _made(where, _PERMUTE, apart, y, axes=axes),
        ]


def _made(where: Instruction, op: Primitive, x: Value, y: Value, **attrs: object) -> Instruction:
    return Instruction(op, (x,), attrs, [y], where=where.where)
