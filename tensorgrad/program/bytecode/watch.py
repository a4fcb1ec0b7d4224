"""Telling a ``Follower`` of the instructions that a thread executes.

On Python 3.11 by ``sys.settrace``, on later versions by ``sys.monitoring``, which leaves
debuggers and coverage alone. Where one of these has taken ``settrace`` on 3.11, nothing can be
watched, and ``hindrance`` says so: the function then runs as it is.

Whatever goes wrong in here ends the watching and becomes a refusal; the user's step goes on.
"""

from __future__ import annotations

import contextlib
import dis
import gc
import sys
import threading
from collections.abc import Iterator
from typing import Any

from tensorgrad.program.bytecode.callables import UNFOLLOWED
from tensorgrad.program.bytecode.follower import Follower
from tensorgrad.program.bytecode.opcodes import TESTED, VERSION, listing
from tensorgrad.program.engine import is_engine

_CAPTURING = threading.RLock()  # sys.monitoring belongs to the interpreter, not to a thread


def hindrance() -> str:
    """Why the code of a step cannot be followed here; empty if it can."""
    if VERSION not in TESTED:
        return (
            f"the byte code of Python {VERSION[0]}.{VERSION[1]} is not known to this version of "
            "tensorgrad "
            f"(tested are {', '.join(f'{a}.{b}' for a, b in TESTED)})"
        )
    if VERSION < (3, 12):
        if sys.gettrace() is not None:
            return (
                "a debugger or a coverage tool is tracing this thread, which on Python 3.11 "
                "leaves no way to follow it besides"
            )
    elif _free_tool() is None:
        return "all tool numbers of sys.monitoring are taken"
    return ""


def _free_tool() -> int | None:
    m: Any = getattr(sys, "monitoring")  # noqa: B009 (not there on 3.11)
    return next((k for k in (4, 3) if m.get_tool(k) is None), None)


def _followed(frame: Any, reads: Follower) -> bool:
    """Whether to follow a frame: not the engine's, and Python's own only if called from one."""
    name = frame.f_globals.get("__name__", "")
    if type(name) is not str:
        return True
    if is_engine(name) or (name, frame.f_code.co_qualname) in UNFOLLOWED:
        return False
    return (
        name.partition(".")[0] not in sys.stdlib_module_names or id(frame.f_back) in reads.shadows
    )


# These call nobody's code but the value functions of operations, which a replay calls again.
_CALL_VALUES = (
    "tensorgrad.tape", "tensorgrad.ops.fast_paths", "tensorgrad.backend", "tensorgrad.backend.base",
)  # fmt: skip
_SAY = ("write", "writelines", "flush")


def _is_apart(frame: Any) -> bool:
    """Whether a frame is that of the value function of an operation, or only says something.

    What says something is what ``logging`` calls, and the output that a notebook or a test runner
    has put in place of ``sys.stdout``: a replay says nothing, so what they read is no matter.
    """
    caller = frame.f_back
    if caller is None:
        return False
    name = caller.f_globals.get("__name__")
    if name in _CALL_VALUES or (type(name) is str and name.partition(".")[0] == "logging"):
        return True
    code = frame.f_code
    if code.co_name not in _SAY or not code.co_argcount:
        return False
    said_to = frame.f_locals.get(code.co_varnames[0])
    return said_to is not None and (said_to is sys.stdout or said_to is sys.stderr)


_RETURN = dis.opmap["RETURN_VALUE"]


class _Watch:
    """Passes events on, and ends the watching when one cannot be understood.

    apart: a frame that is not followed, nor is what it calls, while it runs.
    """

    def __init__(self, reads: Follower) -> None:
        self.reads = reads
        self.alive = True
        self.apart: Any = None

    def sets_apart(self, frame: Any) -> bool:
        """Whether a new frame is not to be followed, nor what it calls."""
        if _is_apart(frame):
            self.apart = frame
        return self.apart is frame

    def ended_apart(self, frame: Any, value: Any) -> None:
        """The frame set apart has ended: a caller that is followed may wait for its result."""
        self.apart = None
        if id(frame.f_back) in self.reads.shadows:
            self.tell(self.reads.returned, frame, value)

    def tell(self, event: Any, *given: Any) -> None:
        """Pass one event on."""
        if self.alive:
            try:
                event(*given)
            except Exception as error:  # a mistake of ours must not break the user's step
                self.fail(error)

    def fail(self, error: Exception) -> None:
        """Refuse the step and follow it no further: it goes on as it is."""
        self.alive = False
        self.reads.refuse(
            f"the code could not be followed ({type(error).__name__}: {error})",
            "report it, with this line; until then call it outside the compiled function",
        )
        self.reads.shadows.clear()


@contextlib.contextmanager
def watching(reads: Follower) -> Iterator[None]:
    """Inside, ``reads`` is told of what this thread executes."""
    with _CAPTURING:
        watch = _Watch(reads)
        # A collection would run code in the middle of the step that is not the step's.
        collects = gc.isenabled()
        gc.disable()
        reads.start()
        try:
            with _traced(watch) if VERSION < (3, 12) else _monitored(watch):
                yield
        finally:
            try:  # also after a failure: what ``start`` has frozen must thaw
                reads.finished()
            except Exception as error:
                watch.fail(error)
            finally:
                if collects:
                    gc.enable()


@contextlib.contextmanager
def _traced(watch: _Watch) -> Iterator[None]:
    reads = watch.reads

    raised: set[int] = set()  # frames in which an exception was raised last

    def ended(frame: Any, value: Any) -> None:
        # A frame that an exception ends returns None, too: a generator that is closed, say.
        by_exception = id(frame) in raised and frame.f_code.co_code[frame.f_lasti] != _RETURN
        raised.discard(id(frame))
        if by_exception:
            watch.tell(reads.left, frame)
        else:
            watch.tell(reads.returned, frame, value)

    def within(frame: Any, event: str, arg: Any) -> Any:
        if event == "opcode":
            if raised:
                raised.discard(id(frame))
            watch.tell(reads.instruction, frame, frame.f_lasti)
        elif event == "return":
            ended(frame, arg)
        elif event == "exception":
            raised.add(id(frame))
        return within

    def ending(frame: Any, event: str, arg: Any) -> Any:
        if event == "return":
            ended(frame, arg)
        elif event == "exception":
            raised.add(id(frame))
        return ending

    def computing(frame: Any, event: str, arg: Any) -> Any:
        if event == "return" and watch.apart is frame:
            watch.ended_apart(frame, arg)
        return computing

    def begins(frame: Any, event: str, arg: Any) -> Any:
        if event != "call" or not watch.alive or watch.apart is not None:
            return None
        try:
            return chosen(frame)
        except Exception as error:
            watch.fail(error)
            return None

    def chosen(frame: Any) -> Any:
        """Who is told of the events of a new frame."""
        if watch.sets_apart(frame):
            frame.f_trace_lines = False
            return computing
        if not _followed(frame, reads):
            caller = reads.shadows.get(id(frame.f_back))
            if caller is None:
                return None
            frame.f_trace_lines = False
            caller.must_enter = None
            return ending
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        ins = listing(frame.f_code).instructions.get(frame.f_lasti)
        again = ins is not None and ins.name == "RESUME" and ins.arg != 0
        watch.tell(reads.resumed if again else reads.entered, frame)
        return within

    sys.settrace(begins)
    try:
        yield
    finally:
        sys.settrace(None)


@contextlib.contextmanager
def _monitored(watch: _Watch) -> Iterator[None]:
    m: Any = getattr(sys, "monitoring")  # noqa: B009
    e, tool, reads, here = m.events, _free_tool(), watch.reads, threading.get_ident()
    codes: set[Any] = set()

    def begin(code: Any, offset: int) -> None:
        if threading.get_ident() == here and watch.alive and watch.apart is None:
            watch.tell(began, sys._getframe(1), reads.entered)

    def resume(code: Any, offset: int) -> None:
        if threading.get_ident() == here and watch.alive and watch.apart is None:
            watch.tell(began, sys._getframe(1), reads.resumed)

    def began(frame: Any, tell: Any) -> None:
        if watch.sets_apart(frame):
            return
        if _followed(frame, reads):
            if frame.f_code not in codes:
                codes.add(frame.f_code)
                m.set_local_events(tool, frame.f_code, e.INSTRUCTION)
            tell(frame)
        elif id(frame.f_back) in reads.shadows:
            reads.shadows[id(frame.f_back)].must_enter = None

    def step(code: Any, offset: int) -> None:
        if threading.get_ident() == here and watch.apart is None:
            watch.tell(reads.instruction, sys._getframe(1), offset)

    def end(code: Any, offset: int, value: Any) -> None:
        if threading.get_ident() == here:
            frame = sys._getframe(1)
            if watch.apart is None:
                watch.tell(reads.returned, frame, value)
            elif watch.apart is frame:
                watch.ended_apart(frame, value)

    def unwound(code: Any, offset: int, error: Any) -> None:
        if threading.get_ident() == here:
            frame = sys._getframe(1)
            if watch.apart is None:
                watch.tell(reads.left, frame)
            elif watch.apart is frame:
                watch.apart = None

    told = {
        e.PY_START: begin, e.PY_RESUME: resume, e.PY_RETURN: end, e.PY_YIELD: end,
        e.PY_UNWIND: unwound,
    }  # fmt: skip
    m.use_tool_id(tool, "tensorgrad")
    try:
        for event, f in (*told.items(), (e.INSTRUCTION, step)):
            m.register_callback(tool, event, f)
        m.set_events(tool, sum(told))
        yield
    finally:
        m.set_events(tool, 0)
        for code in codes:
            m.set_local_events(tool, code, 0)
        for event in (*told, e.INSTRUCTION):
            m.register_callback(tool, event, None)
        m.free_tool_id(tool)
