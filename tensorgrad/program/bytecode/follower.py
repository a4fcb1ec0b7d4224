"""Following the code that runs: frames, and the instructions that they execute.

A replay is right only if everything that Python looked at during capture is as it was. So the byte
code that runs is followed, instruction by instruction, in every frame outside the engine; a shadow
of the frame's stack holds what each instruction reads. ``watch.py`` tells of the events.

Closed by default: an instruction that is not known makes a refusal. A mistake in here is a refusal
too, never an error in the user's step.
"""

from __future__ import annotations

import gc
import inspect
import sys
import types
from typing import Any

from tensorgrad.program.bytecode import callables
from tensorgrad.program.bytecode.instructions import GATHERS, HANDLED, HANDLERS
from tensorgrad.program.bytecode.opcodes import UNTOUCHED, Instruction, effect, words
from tensorgrad.program.bytecode.reads import Reads
from tensorgrad.program.bytecode.shadow import (
    FRESH,
    NULL,
    LostError,
    Mark,
    Shadow,
    Unknown,
    values_of,
)
from tensorgrad.program.bytecode.surroundings import (
    content_of,
)
from tensorgrad.program.engine import ours
from tensorgrad.program.guards import (
    MISSING,
    SCALARS,
    lookup,
)
from tensorgrad.tensor import Tensor

# They move exceptions about, and look into nothing.
_ABOUT_ERRORS = frozenset(
    words(
        "RERAISE POP_EXCEPT RAISE_VARARGS CHECK_EG_MATCH CLEANUP_THROW END_SEND END_FOR "
        "END_ASYNC_FOR"
        " PREP_RERAISE_STAR CALL_INTRINSIC_2"
    )
)


class Follower(Reads):
    """The guards, the refusals and the effects of one capture, from the code that runs."""

    # --- following the frames -------------------------------------------------------------------

    def entered(self, frame: Any) -> None:
        """A Python function begins that is not the engine's."""
        caller = self.shadows.get(id(frame.f_back))
        code: Any = frame.f_code
        if code.co_flags & 0x380:  # coroutines, and generators driven by an event loop
            self.now = frame
            self.refuse(f"{code.co_name} is a coroutine", "call ordinary functions")
        function = None
        if caller is not None:
            caller.must_enter = None
            if caller.callee is not None and caller.callee.__code__ is code:
                function = caller.callee
                if caller.making and caller.slot < len(caller.stack):
                    caller.stack[caller.slot] = frame.f_locals.get(code.co_varnames[0], FRESH)
        cells = self._cells_of(frame, code, function, caller)
        if caller is None and function is None and code not in self.inner:
            # Called by the engine or by C: a hook, say. Its arguments may be anything.
            count = code.co_argcount + code.co_kwonlyargcount
            for name in code.co_varnames[:count]:
                self._given(frame.f_locals.get(name))
        space = frame.f_globals
        module = sys.modules.get(str(space.get("__name__")))
        if module is not None and vars(module) is space:
            self.met[id(space)] = space
        if code.co_argcount and code.co_name.startswith("__"):
            t = type(frame.f_locals.get(code.co_varnames[0]))
            found = lookup(t, code.co_name)
            this = getattr(found, "__code__", MISSING) is code
            if this and not ours(t):
                self.note("class", t, code.co_name, found)
        self.shadows[id(frame)] = made = Shadow(frame, cells)
        if code.co_varnames[:1] == (".0",):  # the iterator of a comprehension
            given = self.iterated.get(code, [] if caller is None else [caller.passed])
            if given and all(isinstance(x, Unknown) for x in given):
                made.marks[".0"] = Unknown(given)

    def _given(self, x: Any) -> None:
        """An argument of a function that the engine calls: it may be from outside or not."""
        if type(x) is tuple:
            for part in x:
                self._given(part)
        elif isinstance(x, list | dict | set):
            made = gc.is_tracked(x) and any(x is y for y in gc.get_objects())
            if not made:  # what exists since before the step is frozen
                self.reach(x)
        elif not isinstance(x, Tensor):
            self.reach(x)

    def _cells_of(
        self, frame: Any, code: Any, function: Any, caller: Shadow | None
    ) -> dict[str, list[Any]]:
        """The cells from outside that each free variable may be."""
        if function is not None:
            known = [function]
        else:
            known = list(self.functions.get(code, ()))
            if not known and code not in self.inner and code.co_flags & inspect.CO_OPTIMIZED:
                known = _called_by(frame)  # by the engine: a hook, say
                for f in known:
                    self.reach(f)
                if not known and code.co_freevars:
                    self.now = frame
                    self.refuse(
                        f"{code.co_name} is called by code that cannot be followed, and what is "
                        "around it is "
                        "not known",
                        "call it from the step itself",
                    )
        cells: dict[str, list[Any]] = {name: [] for name in code.co_freevars}
        for f in known:
            for name, cell in zip(code.co_freevars, f.__closure__ or ()):
                if id(cell) in self.met:
                    cells[name].append(cell)
        for made in self.inner.get(code, ()):
            for name in code.co_freevars:
                cells[name] += made.get(name, [])
        return cells

    def around(self, s: Shadow, name: str) -> Any:
        """A variable of a function around the body of a class."""
        cells = s.cells.get(name, ())
        if len(cells) == 1:
            return content_of(cells[0])
        maker = self.shadows.get(id(self.makers.get(s.code)))
        found = MISSING if maker is None or cells else maker.local(name, MISSING)
        return Unknown() if found is MISSING else found

    def resumed(self, frame: Any) -> None:
        """A generator goes on."""
        caller = self.shadows.get(id(frame.f_back))
        if caller is not None:
            caller.must_enter = None
        if id(frame) not in self.shadows:
            self.now = frame
            self.refuse(
                f"the generator {frame.f_code.co_name} from outside moves on, which a replay "
                "would not do",
                "take the element outside, and pass it as an argument",
            )
            self.entered(frame)

    def returned(self, frame: Any, value: Any) -> None:
        """A Python function has given something: its caller may have waited for that."""
        caller = self.shadows.get(id(frame.f_back))
        if caller is not None:
            caller.must_enter = None
            if caller.awaited is True or caller.awaited is frame.f_code:
                caller.given = value
                if caller.slot < len(caller.stack):
                    caller.stack[caller.slot] = value
            else:  # to C code that has called back, and does with it what it likes
                self.content(value)
                made = isinstance(value, Tensor) and not self.is_outside(value)
                if type(value) not in SCALARS and not made:
                    caller.handed.append(value)
        if not frame.f_code.co_flags & 0x2A0:  # generators come back
            self.shadows.pop(id(frame), None)

    def left(self, frame: Any) -> None:
        """A frame has ended by an exception."""
        self.shadows.pop(id(frame), None)

    def instruction(self, frame: Any, offset: int) -> None:
        """An instruction is about to be executed."""
        s = self.shadows.get(id(frame))
        if s is None or s.frame is not frame:
            return
        ins = s.listing.instructions.get(offset)
        if ins is None or offset == s.told:
            return
        self.now, self.current = frame, s
        s.told = -1
        if s.later is not None:
            at, name = s.later
            s.later = None
            if at < len(s.stack):
                s.stack[at] = s.local(name, FRESH)
        if s.must_enter is not None:
            self.refuse(s.must_enter, "call a Python function, or one of tensorgrad's or NumPy's")
            s.must_enter = None
        if s.last is not None:
            self._after(s, s.last, offset)
        s.awaited = s.callee = None
        s.making = False
        while ins.name == "EXTENDED_ARG":  # 3.11 tells of it alone, later ones of what follows too
            ins = s.listing.instructions[ins.following]
            s.told = ins.offset
        s.last = ins
        name = ins.name
        if name in UNTOUCHED and name not in HANDLED:
            return
        handler = HANDLERS.get(name)
        if handler is not None:
            before = len(s.stack)
            known = effect(name, ins.arg)
            s.slot = before - (known[0] if known else 0)
            handler(self, s, ins)
        else:
            self._other(s, ins)

    def _after(self, s: Shadow, last: Instruction, offset: int) -> None:
        """Make good for what the last instruction did besides, where that shows only now."""
        falls = last.following == offset
        handed, s.handed = s.handed, []
        if self._unwinds(s, last, offset):
            s.given = MISSING
            return
        if last.name == "FOR_ITER":
            if falls:
                iterator = s.stack[-1] if s.stack else FRESH
                if s.given is not MISSING and s.awaited is not None:
                    s.stack.append(s.given)
                else:
                    s.stack.append(iterator if isinstance(iterator, Mark) else Unknown())
                    self._hand_on(s, len(s.stack) - 1, handed)
            elif s.stack:
                s.pop()
            s.given = MISSING
            return
        s.given = MISSING
        if handed:
            first = len(s.stack) - last.arg if last.name in GATHERS else s.slot
            self._hand_on(s, first, handed)
        if (last.name.endswith("_OR_POP") and falls) or (
            last.name == "SEND" and not falls and sys.version_info < (3, 12)
        ):
            s.pop()

    @staticmethod
    def _hand_on(s: Shadow, first: int, handed: list[Any]) -> None:
        """What an instruction left on the stack, from ``first`` on, may be what Python code gave
        to its C code, or hold it."""
        for k in range(max(first, 0), len(s.stack) if handed else 0):
            x = s.stack[k]
            if x is FRESH or type(x) is Unknown:
                known = [x] if isinstance(x, Unknown) else []
                s.stack[k] = Unknown([*known, *handed])

    def _unwinds(self, s: Shadow, last: Instruction, offset: int) -> bool:
        for start, end, target, depth, lasti in s.listing.handlers:
            if start <= last.offset < end and target == offset:
                del s.stack[depth:]
                s.stack += [Unknown()] * (depth - len(s.stack))
                s.stack += [FRESH] if lasti else []
                s.stack.append(Unknown())
                return True
        return False

    def _other(self, s: Shadow, ins: Instruction) -> None:
        """An instruction known only by what it takes and gives."""
        known = effect(ins.name, ins.arg)
        if known is None:
            self.refuse(
                f"the instruction {ins.name} of Python is not known here", "write it otherwise"
            )
            s.stack.clear()
            raise LostError(ins.name)
        taken = [self.settled(s.pop()) for _ in range(known[0])]
        if ins.name not in _ABOUT_ERRORS:
            for x in taken:
                self.content(x)
        s.stack += [callables.made_of(taken)] * known[1]

    def value(self, s: Shadow) -> Any:
        """The value on top, to be used."""
        return self.settled(s.pop())

    def values(self, s: Shadow, n: int) -> list[Any]:
        """The ``n`` values on top, to be used."""
        return [self.settled(s.pop()) for _ in range(n)][::-1]

    def push(self, s: Shadow, value: Any, null: bool = False, after: bool = False) -> None:
        """Put a value on the stack, and an empty place below it or above it."""
        if null and not after:
            s.stack.append(NULL)
            s.slot = len(s.stack)
        s.stack.append(value)
        if null and after:
            s.stack.append(NULL)


def _called_by(frame: Any) -> list[Any]:
    """The functions that the caller of a frame may have called to begin it."""
    found = []
    for x in values_of(frame.f_back).values() if frame.f_back is not None else ():
        own = [_own(x, "function"), _own(x, "fn")]
        methods = [vars(t).get(frame.f_code.co_name) for t in type(x).__mro__]
        for f in (x, *own, *methods):
            f = getattr(f, "__func__", f)
            if isinstance(f, types.FunctionType) and f.__code__ is frame.f_code:
                found.append(f)
    return found


def _own(x: Any, name: str) -> Any:
    """An attribute that lies in an object, past ``__getattr__`` and the like of its class."""
    try:
        return object.__getattribute__(x, name)
    except Exception:
        return None
