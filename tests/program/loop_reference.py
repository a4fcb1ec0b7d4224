"""The loop IR run with NumPy, operation by operation: what loops made of it have to give."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from tensorgrad.program.ir import Instruction, Program, Value
from tensorgrad.program.loop_ir import (
    Call,
    Check,
    Column,
    Map,
    Product,
    Reduce,
    Scan,
    Scatter,
    Storage,
    View,
)
from tensorgrad.program.lower import Lowering
from tensorgrad.tape import Primitive

_REDUCERS = {"+": np.add, "*": np.multiply, "max": np.maximum, "min": np.minimum}
_OWN: dict[str, Any] = {
    "where": np.where,
    "cast": lambda x: x,
    "copy": lambda x: x,
    "index": lambda x: x,
    "erf": np.vectorize(math.erf),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}


class Memory:
    """The memory of a lowered program, and what its operations do to it."""

    def __init__(self) -> None:
        self._flat: dict[Storage, Any] = {}

    def _memory_of(self, view: View) -> Any:
        s = view.storage
        return self._flat.setdefault(s, np.zeros(s.size, s.dtype))

    def _addresses(self, view: View) -> Any:
        """Where the elements of a view lie."""
        at = np.full(view.shape, view.offset)
        for axis, (n, step) in enumerate(zip(view.shape, view.strides)):
            at += (np.arange(n) * step).reshape((n,) + (1,) * (len(view.shape) - 1 - axis))
        return at

    def seen(self, view: View) -> Any:
        """The array that a view shows."""
        flat = self._memory_of(view)
        steps = [k * view.dtype.itemsize for k in view.strides]
        return as_strided(flat[view.offset :], view.shape, steps)

    def run(self, op: Any) -> None:
        """Do what one operation says."""
        if isinstance(op, Check):
            labels = self.seen(op.labels)
            assert ((labels >= op.low) & (labels < op.high)).all()
            return
        if isinstance(op, Scatter):
            flat = self._memory_of(op.out)
            at = (self._addresses(op.out) + self.seen(op.places)).reshape(-1)
            x = self.seen(op.x).reshape(-1)
            if op.adds:
                np.add.at(flat, at, x)
            else:
                flat[at] = x
            return
        if isinstance(op, Scan):
            found = self._scanned(op)
        elif isinstance(op, Reduce):
            found = _REDUCERS[op.kind].reduce(self.seen(op.x), axis=op.axes, keepdims=True)
        elif isinstance(op, Product):
            found = self.seen(op.a) @ self.seen(op.b)
        else:
            assert isinstance(op, Map)
            given = [self._operand(x, op.out.shape) for x in op.inputs]
            if op.table is not None:
                at = self._addresses(op.table) + given[0]
                found = self._memory_of(op.table)[at]
                self.seen(op.out)[...] = found
                return
            found = (_OWN.get(op.name) or getattr(np, op.name))(*given)
        self.seen(op.out)[...] = np.array(found).astype(op.out.dtype)

    def _scanned(self, op: Scan) -> Any:
        turned = [np.moveaxis(self.seen(v), op.axis, 0) for v in op.operands]
        *factors, numbers = [x[::-1] if op.reverse else x for x in turned]
        found = numbers.astype(np.float64) if op.wide else numbers.copy()
        for i in range(1, len(found)):
            if op.kind == "linear":
                found[i] += factors[0][i] * found[i - 1]
            else:
                found[i] = _REDUCERS[op.kind](found[i - 1], found[i])
        return np.moveaxis(found[::-1] if op.reverse else found, 0, op.axis)

    def _operand(self, x: Any, shape: tuple[int, ...]) -> Any:
        if isinstance(x, Column):
            return np.broadcast_to(np.arange(shape[-1], dtype=x.dtype), shape)
        return self.seen(x) if isinstance(x, View) else x


def lowered(
    value: Any, arrays: Sequence[Any], mutates: tuple[int, ...] = (), attrs: Any = None
) -> tuple[Lowering, list[Value], list[Value]]:
    """A program of one primitive, in loops: with its inputs, and its outputs after the first."""
    attrs = attrs or {}
    rules: dict[str, Any] = {f"x{k}": None for k in range(len(arrays))}
    op = Primitive("tested", value, rules, mutates=mutates)
    inputs = [Value(k, a.shape, a.dtype, "external", array=a.copy()) for k, a in enumerate(arrays)]
    y = value(np, *[a.copy() for a in arrays], **attrs)
    outputs = [Value(100, y.shape, y.dtype)]
    outputs += [Value(101 + k, arrays[k].shape, arrays[k].dtype, before=inputs[k]) for k in mutates]
    program = Program(
        instructions=[Instruction(op, tuple(inputs), attrs, outputs, written=mutates)]
    )
    program.results = [outputs[0]]
    return Lowering(program), inputs, outputs


def computed(
    value: Any, arrays: Sequence[Any], mutates: tuple[int, ...] = (), attrs: Any = None
) -> list[Any] | None:
    """The result of a value function, and what it leaves in the inputs it mutates, by loops.

    ``None`` where it is a call.
    """
    lowering, inputs, outputs = lowered(value, arrays, mutates, attrs)
    if any(isinstance(op, Call) for op in lowering.operations):
        return None
    memory = Memory()
    for v in inputs:
        memory.seen(lowering.views[v])[...] = v.array
    for op in lowering.operations:
        memory.run(op)
    return [np.array(memory.seen(lowering.views[v])) for v in outputs]
