"""Convolutions with a batch norm in evaluation behind them are one instruction."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tensorgrad.program.ir import Instruction, Program, Value
from tensorgrad.program.uses import Uses


def scale_convolutions(program: Program) -> Program:
    """Convolutions scale their results themselves, and do what follows: a sum and a ReLU."""
    uses = Uses(program)
    changed: dict[Instruction, list[Instruction]] = {}
    for i in program:
        if i.op.name == "convolution":
            _scale_convolution(uses, i, changed)
    return program.copy([new for i in program for new in changed.get(i, [i])])


def _scale_convolution(
    uses: Uses, i: Instruction, changed: dict[Instruction, list[Instruction]]
) -> None:
    from tensorgrad.ops.convolution_scaling import CONVOLUTION_SCALED

    y = i.outputs[0]
    chain = [n for n in [uses.only(y, "reshape")] if n]
    scaled = uses.only(chain[0].outputs[0] if chain else y, "scaled")
    if scaled is None or len(i.attrs["size"]) > 2 or not _by_channel(scaled, y):
        return
    chain.append(scaled)
    back = uses.only(scaled.outputs[0], "reshape")
    if back is not None and back.outputs[0].shape == y.shape:
        chain.append(back)
    if chain[-1].outputs[0].shape != y.shape:
        return
    added = None
    plus = uses.only(chain[-1].outputs[0], "add")
    if plus is not None:
        a, b = plus.inputs
        other = b if a is chain[-1].outputs[0] else a
        if type(other) is Value and a is not b and other.shape == y.shape and _is_float(other):
            added = other
            chain.append(plus)
    relu = uses.only(chain[-1].outputs[0], "relu")
    if relu is not None:
        chain.append(relu)
    changed.update({n: [] for n in (i, *chain)})
    given = scaled.inputs[1:]
    changed[chain[-1]] = [
        replace(i, op=CONVOLUTION_SCALED, inputs=(*i.inputs, *given, added),
                attrs={**i.attrs, "positive": relu is not None}, outputs=chain[-1].outputs)
    ]  # fmt: skip


def _is_float(v: Value) -> bool:
    return bool(v.dtype == np.float32)


def _by_channel(scaled: Instruction, y: Value) -> bool:
    """Whether the channels of ``y`` (N, C, ...), as (N, C, L), are scaled by a number for each."""
    x, *given = scaled.inputs
    assert type(x) is Value
    places = x.shape[:2] == y.shape[:2] and len(x.shape) == 3
    return (
        places
        and _is_float(y)
        and all(
            v is None or (type(v) is Value and v.shape == (y.shape[1], 1) and _is_float(v))
            for v in given
        )
    )
