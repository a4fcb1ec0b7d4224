"""Linear layers on a GPU with cublasLt: products that add the bias, apply a ReLU, make gradients.

A nest behind a product reads all that this has written. The library's products do as much before
they write; so where it is, these passes make one instruction of a layer and its ReLU, one of the
gradient behind it (the product before, where the ReLU let it pass, and the bias's sums), and one of
the gradients of weights and bias. They stay calls, whose launches are parts of the graph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from tensorgrad.dtypes import HALVES, float32
from tensorgrad.ops.masked_products import LINEAR_RELU, RELU_GRADIENT, WEIGHTS_AND_BIAS, row_of
from tensorgrad.program.ir import Instruction, Program, Value
from tensorgrad.program.uses import Uses

_FLOATS = (float32, *HALVES)


def with_library_products(program: Program, has_algorithm: Callable[..., bool]) -> Program:
    """The program with such instructions, wherever they fit.

    has_algorithm: whether the library has one for a layer with a ReLU, of the shapes of its input
        and weight and their dtype: its masks are its own, so that others cannot make them.
    """
    if program.aliased or not any(i.op.name == "linear" for i in program):
        return program
    made = _Passes(program, has_algorithm)
    for i in program:
        made.forward(i)
    if not made.masks:
        return program
    for i in program:
        made.backward(i)
    for i in program:
        made.parameters(i)
    return program.copy([new for i in program for new in made.changed.get(i, [i])])


class _Passes:
    """What is put in the place of instructions.

    masks: of the result of each layer with a ReLU, the mask.
    """

    def __init__(self, program: Program, has_algorithm: Callable[..., bool]) -> None:
        self._has_algorithm = has_algorithm
        self.uses = Uses(program)
        self.changed: dict[Instruction, list[Instruction]] = {}
        self.masks: dict[Value, Value] = {}
        self._place = {i: k for k, i in enumerate(program)}
        #: of what is overwritten, where that happens first
        self._overwritten: dict[Value, int] = {}
        for k, i in enumerate(program):
            for v in i.outputs:
                if v.before is not None:
                    self._overwritten.setdefault(v.before, k)

    def _is_layer(self, *values: Any) -> bool:
        """Whether all are arrays of one float of at most 32 bits, with elements, that stay."""
        first = values[0]
        return all(
            type(v) is Value and v.dtype == first.dtype and v.dtype in _FLOATS and v.nbytes
            for v in values
        )

    def forward(self, i: Instruction) -> None:
        """A layer, and the ReLU that alone reads what it gives."""
        if i.op.name != "linear":
            return
        x, weight, bias = i.inputs
        z = i.outputs[0]
        relu = self.uses.only(z, "relu" if bias is not None else "bias_relu")
        if relu is None:
            return
        bias = relu.inputs[1] if bias is None else bias
        if not self._is_layer(x, weight, bias) or bias.shape != (weight.shape[0],):
            return
        if not self._has_algorithm(x.shape, weight.shape, x.dtype):
            return
        y = relu.outputs[0]
        rows = z.nbytes // z.dtype.itemsize // bias.shape[0]
        mask = self.uses.new(y, np.dtype(np.uint8), (rows * row_of(bias.shape[0]) // 8,))
        self.masks[y] = mask
        self.changed[i] = []
        self.changed[relu] = [
            replace(relu, op=LINEAR_RELU, inputs=(x, weight, bias), attrs={}, outputs=[y, mask],
                    residual=1, by_kernel=True)
        ]  # fmt: skip

    def backward(self, i: Instruction) -> None:
        """The gradient behind a ReLU: of the product before it nobody else makes use.

        That of 16-bit floats is widened before and rounded afterwards, which changes no number.
        """
        if i.op.name != "pass_positive":
            return
        (widened, g), (_, y) = map(self._widened, i.inputs)
        last = self.uses.only(i.outputs[0], "astype") if widened else i
        if y not in self.masks or last is None or last.outputs[0].dtype != y.dtype:
            return
        product = self.uses.maker.get(g)
        reader = self.uses.only(g, "astype" if widened else "pass_positive")
        if product is None or product.op.name != "matmul" or reader is not (widened or i):
            return
        if widened and self.uses.only(i.inputs[0], "pass_positive") is not i:
            return
        d, weight = product.inputs
        if not self._is_layer(y, d, weight) or len(weight.shape) != 2 or len(d.shape) < 2:
            return
        at = self._place[i]
        if g.shape != y.shape or any(self._overwritten.get(v, at) < at for v in (d, weight)):
            return
        made = last.outputs[0]
        sums = self._sum_of(made, self._place[last])
        self.changed.update({step: [] for step in (product, widened, i) if step is not None})
        self.changed[last] = [
            replace(i, op=RELU_GRADIENT, inputs=(d, weight, self.masks[y], y), attrs={},
                    outputs=[made, self._taken(sums, y)], residual=1, by_kernel=True)
        ]  # fmt: skip

    def _widened(self, v: Any) -> tuple[Instruction | None, Any]:
        """What makes a float32 of a 16-bit float, and that; nothing and the value itself else."""
        made = self.uses.maker.get(v)
        if made is None or made.op.name != "astype" or made.inputs[0].dtype not in HALVES:
            return None, v
        return made, made.inputs[0]

    def parameters(self, i: Instruction) -> None:
        """The gradients of weights and bias, from what no product above has summed."""
        turned = self.uses.maker.get(i.inputs[0]) if i.op.name == "matmul" else None
        if turned is None or turned.op.name != "permute_dims" or i in self.changed:
            return
        (d,), x = turned.inputs, i.inputs[1]
        if not self._is_layer(d, x) or len(d.shape) != 2 or len(x.shape) != 2:
            return
        if self.uses.only(turned.outputs[0], "matmul") is not i:
            return
        sums = self._sum_of(d, -1)
        if sums is None:
            return
        self.changed[turned] = []
        first, second = sorted((i, sums), key=self._place.__getitem__)
        outputs = [i.outputs[0], self._taken(sums, d)]
        self.changed[second] = []
        self.changed[first] = [
            replace(i, op=WEIGHTS_AND_BIAS, inputs=(d, x), attrs={}, outputs=outputs, residual=1,
                    by_kernel=True)
        ]  # fmt: skip

    def _sum_of(self, v: Value, after: int) -> Instruction | None:
        """The instruction after a place that sums the rows of ``v``, if there is one."""
        for r in self.uses.readers.get(v, []):
            if r in self.changed or self._place[r] <= after or r.op.name != "sum_to":
                continue
            if r.attrs["shape"] == v.shape[-1:] and r.outputs[0].dtype == v.dtype:
                return r
        return None

    def _taken(self, sums: Instruction | None, like: Value) -> Value:
        """Where the sums go: to what an instruction gave, which is left out then."""
        if sums is None:
            return self.uses.new(like, shape=like.shape[-1:])
        self.changed.setdefault(sums, [])
        return sums.outputs[0]
