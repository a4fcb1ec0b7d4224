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

from tensorgrad.ops.table import OPERATIONS
from tensorgrad.program.ir import Instruction, Program, Value
from tensorgrad.program.uses import Uses

# Operations whose results lie as their first operand does, and those that lie channels last.
_KEEP = frozenset({"relu", "max_pool", "max_pool_tiles"})
_CONVOLUTIONS = frozenset({"convolution", "convolution_pooled"})
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
        weight = found.layer.inputs[1]
        self.changed[found.reshape] = self._last(found.reshape, x, y)
        first, own = self._columns(found.layer, weight, x.shape[1:])
        inputs = (found.layer.inputs[0], own, *found.layer.inputs[2:])
        self.changed[found.layer] = [*first, replace(found.layer, inputs=inputs)]
        for i in found.weights:
            turned = self._uses.new(i.outputs[0])
            back = self._back(i, turned, i.outputs[0], (i.outputs[0].shape[0], *x.shape[1:]))
            self.changed[i] = [replace(i, outputs=[turned]), *back]
        for product, after in found.inputs:
            turned = self._uses.new(product.outputs[0])
            self.changed[product] = [
                replace(product, inputs=(product.inputs[0], own), outputs=[turned])
            ]
            self.changed[after] = self._back(after, turned, after.outputs[0], x.shape)

    def _columns(
        self, where: Instruction, weight: Value, image: tuple[int, ...]
    ) -> tuple[list[Instruction], Value]:
        """The weights with columns in the order of the images, channels last."""
        rows = weight.shape[0]
        apart, own = self._uses.new(weight, shape=(rows, *image)), self._uses.new(weight)
        first = _made(where, "reshape", weight, apart, shape=apart.shape)
        return [first, *self._last(where, apart, own)], own

    def _last(self, where: Instruction, x: Value, y: Value) -> list[Instruction]:
        """``y``: the images ``x`` flattened channels last."""
        order = (0, *range(2, len(x.shape)), 1)
        turned = self._uses.new(x, shape=tuple([x.shape[k] for k in order]))
        return [
            _made(where, "permute_dims", x, turned, axes=order),
            _made(where, "reshape", turned, y, shape=y.shape),
        ]

    def _back(
        self, where: Instruction, x: Value, y: Value, image: tuple[int, ...]
    ) -> list[Instruction]:
        """``y``: what lies channels last in the rows of ``x``, in the order of ``image``."""
        channels, *size = image[1:]
        apart = self._uses.new(x, shape=(image[0], *size, channels))
        turned = self._uses.new(x, shape=image)
        axes = (0, len(image) - 1, *range(1, len(image) - 1))
        first = _made(where, "reshape", x, apart, shape=apart.shape)
        if y.shape == image:
            return [first, _made(where, "permute_dims", apart, y, axes=axes)]
        return [
            first,
            _made(where, "permute_dims", apart, turned, axes=axes),
            _made(where, "reshape", turned, y, shape=y.shape),
        ]


def _made(where: Instruction, name: str, x: Value, y: Value, **attrs: object) -> Instruction:
    op = OPERATIONS[name].primitive
    assert op is not None
    return Instruction(op, (x,), attrs, [y], where=where.where)
