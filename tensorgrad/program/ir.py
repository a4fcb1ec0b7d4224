"""A captured computation: instructions over values, and how they meet the outside.

A program is what a step did, written down once: every instruction is a primitive of the table with
its inputs, its attributes and the values it gave. Values are assigned once. Where an instruction
overwrites memory (an optimizer, ``copy_``), what is there afterwards is a new value, which lives in
the place of the old one.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tensorgrad.tape import Primitive

#: Where a value comes from: given to the step, kept outside it, made by it, or always the same.
ROLES = ("argument", "external", "temporary", "constant")

# Types whose equal objects are alike in every respect.
_EXACT = frozenset({int, bool, str, bytes, type(...)})


@dataclass(eq=False, slots=True)
class Value:
    """One array of a program: its number, shape and dtype, and where it comes from.

    fetch: of an external value, how to get the array that it is now.
    array: the array itself, of a constant; of an external value, the one seen at capture.
    before: the value in whose place it lies, if it was made by overwriting that one.
    """

    number: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    role: str = "temporary"
    label: str = ""
    fetch: Callable[[], Any] | None = None
    array: Any = None
    before: Value | None = None
    #: the value in whose memory it lies: itself, or the first of those it was made from
    place: Value = field(init=False)

    def __post_init__(self) -> None:
        self.place = self if self.before is None else self.before.place

    @property
    def nbytes(self) -> int:
        """The bytes it takes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __repr__(self) -> str:
        return f"%{self.number}"


#: Elements of an array, from one to another, in row-major order.
Range = tuple[int, int]
#: Is given a piece of work, and the elements of values from outside that it overwrites.
Piece = Callable[[Callable[[], None], Sequence[tuple[Value, int, int]]], None]


@dataclass(eq=False, slots=True)
class Instruction:
    """``outputs = op(inputs; attrs)``.

    inputs: values, numbers and ``None``.
    attrs: the attributes. live: how to get those that are other ones in every replay (the learning
        rate of an optimizer, the position of a generator), which take the place of what is there.
    outputs: the result; what it leaves for the gradient rules besides, where it does; and the new
        values of the inputs that it overwrites.
    residual: how many outputs, after the first, belong to the residual.
    written: the input positions that the last outputs overwrite.
    where: the line of the user's code.
    by_kernel: whether it is left to its kernel, though loops could do it.
    """

    op: Primitive
    inputs: tuple[Any, ...]
    attrs: dict[str, Any]
    outputs: list[Value]
    live: Callable[[], Mapping[str, Any]] | None = None
    residual: int = 0
    written: tuple[int, ...] = ()
    where: str = ""
    by_kernel: bool = False

    def values(self) -> list[Value]:
        """The inputs that are values."""
        return [v for v in self.inputs if type(v) is Value]

    @property
    def may_fail(self) -> bool:
        """Whether the numbers of its inputs can make it fail: labels and indices out of range, and
        whatever the function of a user's own operation finds."""
        return self.op.source is not None or any(v.dtype.kind in "iu" for v in self.values())


@dataclass(eq=False, slots=True)
class Program:
    """Instructions in order, and what goes in and out.

    arguments: the tensors given to the step, in order.
    results: what the step returns, in order.
    gradients: leaves of the tape, and the value that each has as its gradient in the end, or
        ``None`` where it has none.
    rows: of the leaves whose gradient is rows, its class and its shape. The value in ``gradients``
        is then that of the rows; their numbers come last there, in this order and without a leaf.
    aliased: a value was overwritten of whose memory another value is a view, so that the
        instructions have to run on that very memory, in this very order.
    touched: the values from outside that are overwritten, or in whose memory something else is.
    on_host: whether all arrays are NumPy's.
    reads: for operations of the user's own: guards of what their value functions read, or why
        these cannot be turned into loops.
    relied_on: those of these guards that hold for loops made of the program.
    """

    arguments: list[Value] = field(default_factory=list)
    instructions: list[Instruction] = field(default_factory=list)
    results: list[Value] = field(default_factory=list)
    gradients: list[tuple[Any, Value | None]] = field(default_factory=list)
    rows: dict[Any, tuple[Any, tuple[int, ...]]] = field(default_factory=dict)
    aliased: bool = False
    touched: dict[Value, None] = field(default_factory=dict)
    on_host: bool = True
    reads: dict[Primitive, Any] = field(default_factory=dict)
    relied_on: dict[Primitive, Any] = field(default_factory=dict)

    def gradient(self, number: int, arrays: Sequence[Any]) -> Any:
        """A gradient that is rows as a tensor, any other as its array, of those that a run gave."""
        leaf, _ = self.gradients[number]
        if leaf not in self.rows:
            return arrays[number]
        kind, shape = self.rows[leaf]
        return kind(shape, arrays[self.number_of(leaf)], arrays[number], lent=True)

    def number_of(self, leaf: Any) -> int:
        """Where the numbers of the rows are among the gradients."""
        return len(self.gradients) - len(self.rows) + list(self.rows).index(leaf)

    @property
    def leaves(self) -> list[Any]:
        """The leaves that have gradients, in order."""
        return [leaf for leaf, _ in self.gradients if leaf is not None]

    def copy(self, instructions: list[Instruction]) -> Program:
        """The same program with other instructions."""
        return replace(self, instructions=instructions)

    def __iter__(self) -> Iterator[Instruction]:
        return iter(self.instructions)

    def values(self) -> list[Value]:
        """All values, each once, in the order in which they first appear."""
        found: dict[Value, None] = dict.fromkeys(self.arguments)
        for i in self.instructions:
            for x in (*i.inputs, *i.outputs):
                if type(x) is Value:
                    found[x] = None
        found.update(dict.fromkeys(self.kept()))
        return list(found)

    def kept(self) -> list[Value]:
        """The values that somebody sees after a replay: results, gradients, overwritten state."""
        found: dict[Value, None] = dict.fromkeys(self.results)
        found.update({v: None for _, v in self.gradients if v is not None})
        found.update(dict.fromkeys(self.updates().values()))
        return list(found)

    def updates(self) -> dict[Value, Value]:
        """The external values and arguments that are overwritten, and the last value of each."""
        found = {}
        for i in self.instructions:
            for v in i.outputs if i.written else ():
                if v.before is not None and v.place.role in ("external", "argument"):
                    found[v.place] = v
        return found

    def __str__(self) -> str:
        lines = [f"{_typed(v)} = argument {k}" for k, v in enumerate(self.arguments)]
        for v in self.values():
            if v.role in ("external", "constant"):
                lines.append(f"{_typed(v)} = {v.role} {v.label}".rstrip())
        for i in self.instructions:
            attrs = {k: v for k, v in i.attrs.items() if _shown(v)}
            options = "".join(f", {k}={v!r}" for k, v in attrs.items())
            given = ", ".join(map(_operand, i.inputs))
            gives = ", ".join(map(_typed, i.outputs))
            over = "".join(f"  # over {v.before}" for v in i.outputs if v.before is not None)
            lines.append(f"{gives} = {i.op.name}({given}{options}){over}")
        for leaf, value in self.gradients:
            what = "numbers of its rows" if leaf is None else f"gradient of a leaf {leaf.shape}"
            lines.append(f"{what} = {value}")
        return "\n".join([*lines, f"return {', '.join(map(repr, self.results))}"])

    def to_json(self) -> str:
        """The program as JSON: values with role, shape and dtype, instructions, results.

        It is for reading: arrays and live attributes are named, not contained.
        """
        values = [
            {
                "number": v.number,
                "role": v.role,
                "label": v.label,
                "shape": list(v.shape),
                "dtype": str(v.dtype),
                "over": None if v.before is None else v.before.number,
            }
            for v in self.values()
        ]
        instructions = [
            {
                "op": i.op.name,
                "inputs": [x.number if type(x) is Value else {"number": x} for x in i.inputs],
                "attrs": {k: repr(v) for k, v in i.attrs.items() if _shown(v)},
                "outputs": [v.number for v in i.outputs],
                "where": i.where,
            }
            for i in self.instructions
        ]
        whole = {
            "arguments": [v.number for v in self.arguments],
            "values": values,
            "instructions": instructions,
            "results": [v.number for v in self.results],
            "gradients": [None if v is None else v.number for _, v in self.gradients],
        }
        return json.dumps(whole, indent=1)

    def to_dot(self) -> str:
        """The program as a graph in the DOT language, for Graphviz."""
        lines = ["digraph program {", "  node [shape=box, fontname=monospace];"]
        for v in self.values():
            if v.role != "temporary":
                text = f"{v.role} {v.label}\\n{v.shape} {v.dtype}".replace('"', "'")
                lines.append(f'  v{v.number} [label="{text}", style=rounded];')
        made = {v: f"i{k}" for k, i in enumerate(self.instructions) for v in i.outputs}
        for k, i in enumerate(self.instructions):
            first = i.outputs[0]
            lines.append(f'  i{k} [label="{i.op.name}\\n{first.shape} {first.dtype}"];')
            lines += [f"  {made.get(v, f'v{v.number}')} -> i{k};" for v in i.values()]
        for k, v in enumerate(self.results):
            lines.append(f'  r{k} [label="result {k}", style=rounded];')
            lines.append(f"  {made.get(v, f'v{v.number}')} -> r{k};")
        return "\n".join([*lines, "}"])


def is_writeable(array: Any) -> bool:
    """Whether an array may be written to; those of a GPU always may."""
    return type(array) is not np.ndarray or array.flags.writeable


def exact(x: Any) -> Any:
    """A key that is equal for what computes alike: 0.0 and -0.0, 1 and True are not."""
    if type(x) is tuple or type(x) is list:
        return type(x), tuple([exact(part) for part in x])
    if type(x) is float:
        return struct.pack("<d", x)
    if type(x) is complex:
        return complex, exact(x.real), exact(x.imag)
    if isinstance(x, np.generic):
        return type(x), x.tobytes()
    if x is None or type(x) in _EXACT or isinstance(x, np.dtype):
        return type(x), x
    if type(x) is slice:
        return slice, exact((x.start, x.stop, x.step))
    return "identity", id(x)


def _typed(v: Value) -> str:
    return f"%{v.number}: {v.dtype}{list(v.shape)}"


def _operand(x: Any) -> str:
    return repr(x)


def _shown(attr: Any) -> bool:
    """Whether an attribute says something about the computation to a reader."""
    if isinstance(attr, Sequence | int | float | None | np.dtype):
        return True
    return isinstance(attr, Mapping)
