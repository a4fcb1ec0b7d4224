"""Passes: small functions from program to program. None of them changes what a program computes.

A program in which memory is shared between values of which one is overwritten is left as it is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tensorgrad import backend
from tensorgrad.backend import is_array
from tensorgrad.program.capture import Drawn
from tensorgrad.program.fusion import fuse
from tensorgrad.program.ir import Instruction, Program, Value, exact
from tensorgrad.program.sums import merge_sums_of_products


def eliminate_dead_code(program: Program) -> Program:
    """Drop the instructions of which nobody sees anything."""
    if program.aliased:
        return program
    needed = set(program.kept())
    live: list[Instruction] = []
    for i in reversed(program.instructions):
        # Who may fail, on an index out of range, say, does so although nobody wants the result.
        stays = _is_unknown(program, i) or (i.may_fail and not i.op.elementwise)
        if stays or any(v in needed for v in i.outputs):
            needed.update(i.values())
            live.append(i)
    return program.copy(live[::-1])


def eliminate_common_subexpressions(program: Program) -> Program:
    """Compute what several instructions compute alike only once."""
    if program.aliased:
        return program
    same: dict[Value, Value] = {}
    known: dict[Any, Instruction] = {}
    left: list[Instruction] = []
    taken = set(program.kept()) | {v.before for i in program for v in i.outputs if v.before}
    for i in program:
        if any(x in same for x in i.values()):
            inputs = tuple([same.get(x, x) if type(x) is Value else x for x in i.inputs])
            i = replace(i, inputs=inputs)
        key = None if _is_unknown(program, i) else _key(i)
        first = None if key is None else known.get(key)
        # What is seen from outside, or overwritten later, needs memory of its own.
        if first is not None and not taken.intersection([*i.outputs, *first.outputs]):
            same.update(zip(i.outputs, first.outputs))
            continue
        if key is not None:
            known.setdefault(key, i)
        left.append(i)
    return program.copy(left)


def _is_unknown(program: Program, i: Instruction) -> bool:
    """Whether it is a user's own operation that may do more than compute a value."""
    return type(program.reads.get(i.op)) is str


def _key(i: Instruction) -> Any:
    """What makes two instructions alike; ``None`` if nothing does."""
    if i.written:
        return None
    attrs, live = i.attrs, None
    if type(i.live) is Drawn:  # at its place in the stream, wherever that begins
        live = exact(i.live.generator), i.live.offset
        attrs = {k: v for k, v in attrs.items() if k not in i.op.live}
    elif i.live is not None:
        return None
    options = tuple(sorted((name, exact(x)) for name, x in attrs.items()))
    inputs = tuple([x if type(x) is Value else exact(x) for x in i.inputs])
    return i.op, inputs, options, live, len(i.outputs)


def fold_constants(program: Program) -> Program:
    """Compute now what depends on constants alone."""
    if program.aliased:
        return program
    constant: dict[Value, Any] = {v: v.array for v in program.values() if v.role == "constant"}
    left: list[Instruction] = []
    for i in program:
        values = i.values()
        known = bool(values) and all(v in constant for v in values)
        fixed = known and i.live is None and not i.written and not i.op.random
        fixed = fixed and i.op not in program.reads  # of which the value can change
        # What is larger than what it is made of (ones, broadcast) is not worth its memory.
        if not fixed or i.outputs[0].nbytes > max(v.nbytes for v in values):
            left.append(i)
            continue
        arrays = [constant[x] if type(x) is Value else x for x in i.inputs]
        place = backend.of(next(a for a in arrays if is_array(a)))
        made = place.run(i.op, arrays, i.attrs)
        parts = [made] if i.op.residual is None else [made[0], *_flat(made[1])]
        for v, array in zip(i.outputs, parts, strict=True):
            v.role = "constant"
            v.array = constant[v] = place.xp.asarray(array)
    return program.copy(left)


def _flat(residual: Any) -> list[Any]:
    return [a for a in (residual if isinstance(residual, tuple) else (residual,)) if is_array(a)]


def simplified(program: Program) -> Program:
    """All passes in order."""
    program = eliminate_common_subexpressions(fold_constants(program))
    program = eliminate_dead_code(merge_sums_of_products(program))
    return eliminate_dead_code(fuse(program))
