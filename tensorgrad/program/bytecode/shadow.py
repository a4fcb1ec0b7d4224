"""The shadow of a frame that is followed, and the marks that stand in it for what is not known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import CodeType
from typing import Any

from tensorgrad.program.bytecode.opcodes import VERSION, Instruction, Listing, listing
from tensorgrad.program.guards import MISSING


class Mark:
    """Stands for an object on the stack."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<{self.name}>"


#: made by the step, and nothing from outside lies in it
FRESH = Mark("fresh")
#: the empty place beside a callable on the stack
NULL = Mark("null")


#: a method of something fresh
METHOD = Mark("method")


class Unknown(Mark):
    """Something that C code gave, made of ``sources`` or found in them.

    opaque: it may be anything else, too, so that nothing can be read of it. computed: anything
        that Python code gave which was followed, so that its content is guarded.
    """

    def __init__(
        self, sources: Sequence[Any] = (), opaque: bool | None = None, computed: bool = False
    ) -> None:
        super().__init__("unknown")
        found: list[Any] = []
        self.sources: tuple[Any, ...] = ()
        self.computed: bool = computed
        self.opaque: bool = not sources if opaque is None else opaque
        hidden = [x for x in sources if isinstance(x, Unknown) and x.opaque]
        self.computed = computed or (bool(hidden) and all(x.computed for x in hidden))
        for x in sources:
            if isinstance(x, Unknown):
                found += x.sources
                self.opaque = self.opaque or x.opaque
            elif not isinstance(x, Mark):
                found.append(x)
        self.sources = tuple(found)


class Made(Unknown):
    """A function made by the step, or a method found in a class (``function``)."""

    def __init__(
        self, code: CodeType | None, sources: Sequence[Any] = (), function: Any = None
    ) -> None:
        super().__init__(sources, opaque=code is None)
        self.code = code
        self.function = function


class Generated(Unknown):
    """A generator of a function that is followed."""

    def __init__(self, code: CodeType) -> None:
        super().__init__(computed=True)
        self.code = code


class Instance(Unknown):
    """A new object of a class."""

    def __init__(self, of: type, sources: Sequence[Any] = ()) -> None:
        super().__init__(sources)
        self.of = of


class Saved(Mark):
    """What a comprehension saves of a variable of its function that has the name of its own.

    before: the value that the variable's place held, where that was no cell.
    """

    def __init__(self, before: Any) -> None:
        super().__init__("saved")
        self.before = before


class Counted(Mark):
    """A number read from outside that may turn out to be just a counter.

    place: kind, holder and key of the read, and the number that was there before the step.
    now: the number. steps: what was done to it since: pairs of a function of two numbers and the
    second one. If it is put back where it came from, that is an effect; if it is used for anything
    else, it is a read like any other.
    """

    def __init__(
        self, place: tuple[Any, ...], now: Any, steps: tuple[Any, ...], where: str
    ) -> None:
        super().__init__("counted")
        self.place, self.now, self.steps, self.where = place, now, steps, where


class LostError(Exception):
    """The shadow does not fit the frame."""


def values_of(frame: Any) -> dict[str, Any]:
    """The local variables of a frame that need no care, whatever it executes (``Shadow.local``)."""
    code, found = frame.f_code, frame.f_locals
    if VERSION < (3, 13) or not code.co_cellvars:
        return dict(found)
    plain = listing(code).stored.intersection(code.co_cellvars)
    names = {*code.co_varnames, *code.co_cellvars, *code.co_freevars} - plain
    values = {name: found.get(name, MISSING) for name in names}
    return {name: value for name, value in values.items() if value is not MISSING}


class Shadow:
    """What is on the stack of a frame, as far as that is known.

    cells: for each free variable the cells from outside that it may be.
    awaited: the code whose result belongs into ``slot`` of the stack; True for whatever is called
        next. given: that result. callee: the function that is about to be called, and ``making``
        whether it is the ``__init__`` of an object that belongs into the slot.
    handed: what Python code gave to the C code of this instruction, which may hand it on.
    marks: what is known of parameters that are no more than that. later: a slot of the stack that
        gets the value of a local once this instruction has stored it.
    plain: the values of variables that lie bare in the place of a cell: those of a comprehension
        whose name is that of a cell variable of the function around it.
    told: the offset of an instruction that was looked at ahead of its turn.
    must_enter: why it is a refusal if no Python code is entered by the instruction.
    """

    __slots__ = (
        "awaited", "callee", "cells", "code", "frame", "given", "handed", "kwnames", "last",
        "later", "listing", "making", "marks", "must_enter", "passed", "plain", "slot", "stack",
        "told",
    )  # fmt: skip

    def __init__(self, frame: Any, cells: Mapping[str, list[Any]]) -> None:
        self.frame, self.code, self.cells = frame, frame.f_code, cells
        self.listing: Listing = listing(self.code)
        self.stack: list[Any] = []
        self.last: Instruction | None = None
        self.kwnames: tuple[str, ...] = ()
        self.awaited: Any = None
        self.slot = 0
        self.given: Any = MISSING
        self.handed: list[Any] = []
        self.callee: Any = None
        self.making = False
        self.must_enter: str | None = None
        self.told = -1
        self.marks: dict[str, Any] = {}
        self.later: tuple[int, str] | None = None
        self.plain: dict[str, Any] = {}
        self.passed: Any = None  # the first argument of a function made by the step

    def local(self, name: str, default: Any) -> Any:
        """The value of a local variable.

        ``f_locals`` of 3.13 take whatever lies in the place of a cell variable for a cell, and
        crash where a comprehension has put a bare value there: that one is known from here.
        """
        if name in self.plain:
            return self.plain[name]
        return self.frame.f_locals.get(name, default)

    def clears(self, name: str) -> Saved | None:
        """A comprehension saves a variable: what it leaves on the stack where that is a cell."""
        if VERSION < (3, 13) or name not in self.code.co_cellvars:
            return None
        return Saved(self.plain.pop(name, MISSING))

    def stores(self, name: str, value: Any) -> None:
        """A value is put into the place of a variable as it is, in no cell."""
        if VERSION < (3, 13) or name not in self.code.co_cellvars:
            return
        if not isinstance(value, Saved):
            self.plain[name] = Unknown() if value is FRESH else value
        elif value.before is MISSING:
            self.plain.pop(name, None)
        else:
            self.plain[name] = value.before

    def pop(self) -> Any:
        """The value on top, raw: a number that may be a counter stays one."""
        if not self.stack:
            raise LostError(f"nothing is left on the stack of {self.code.co_name}")
        return self.stack.pop()
