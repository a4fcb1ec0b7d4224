"""Where time and memory go: by operation, module and source line; and who keeps a graph alive."""

from __future__ import annotations

import gc
import inspect
import json
import linecache
import os
import sys
import threading
import types
import weakref
from collections.abc import Iterable, Mapping, Sequence
from contextvars import Token
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from tensorgrad import backend
from tensorgrad.autograd.walk import nodes_of, saved_bytes
from tensorgrad.backend import is_array
from tensorgrad.errors import TensorgradError
from tensorgrad.files import write_atomically
from tensorgrad.observers import MODE, RECORDING, Mode, Observer, current_mode
from tensorgrad.tape import Leaf, Node, Primitive
from tensorgrad.tensor import Tensor

if TYPE_CHECKING:
    from tensorgrad.nn import Module

__all__ = ["Held", "Profile", "ledger", "profile"]

_PACKAGE = os.path.dirname(os.path.abspath(__file__))
_BY = ("operation", "module", "line")


class Event(NamedTuple):
    """One computation. Times in seconds, from the start of the profile."""

    operation: str  # "tanh", or "tanh backward"
    module: str  # the path of the module that was running, or that made the entry
    line: str  # "file.py:12", outside this package
    start: float
    seconds: float
    bytes: int  # of new memory


@dataclass
class _Total:
    calls: int = 0
    seconds: float = 0.0
    bytes: int = 0


@dataclass
class Profile:
    """What was measured; ``print(profile)`` shows it by operation.

    events: every computation in order. seconds: from the beginning to the end.
    peak_bytes: the most memory that results and gradients took at one time, beyond what was there
        before. at_peak: what held it then: (operation, module, line) -> bytes.
    """

    events: list[Event] = field(default_factory=list)
    seconds: float = 0.0
    peak_bytes: int = 0
    at_peak: dict[tuple[str, str, str], int] = field(default_factory=dict)

    def totals(self, by: str = "operation") -> dict[str, tuple[int, float, int]]:
        """Calls, seconds and new bytes, by "operation", "module" or "line"; the longest first.

        Raises TensorgradError for anything else.
        """
        found: dict[str, _Total] = {}
        for event in self.events:
            total = found.setdefault(getattr(event, _known(by)), _Total())
            total.calls += 1
            total.seconds += event.seconds
            total.bytes += event.bytes
        order = sorted(found.items(), key=lambda item: -item[1].seconds)
        return {name: (t.calls, t.seconds, t.bytes) for name, t in order}

    def table(self, by: str = "operation", most: int = 20) -> str:
        """The totals as text, at most so many rows; lines with what stands in them."""
        rows = self.totals(by)
        head = f"{'calls':>7} {'time':>11} {'share':>6} {'bytes':>14}  {by}"
        lines = [head]
        whole = sum(seconds for _, seconds, _ in rows.values()) or 1.0
        for name, (calls, seconds, size) in list(rows.items())[:most]:
            shown = _with_text(name) if by == "line" else name or "(outside of modules)"
            lines.append(
                f"{calls:>7,} {seconds * 1e6:>8,.0f} us {seconds / whole:>6.1%} {size:>14,}  "
                + shown
            )
        if len(rows) > most:
            lines.append(f"and {len(rows) - most} more")
        lines.append(
            f"{self.seconds * 1e3:.2f} ms in all, {whole * 1e3:.2f} ms of them in "
            f"{len(self.events):,} computations; peak memory {self.peak_bytes:,} bytes"
        )
        return "\n".join(lines)

    def peak_table(self, by: str = "line", most: int = 20) -> str:
        """What held the memory at its peak, as text."""
        position = _BY.index(_known(by))
        found: dict[str, int] = {}
        for key, size in self.at_peak.items():
            found[key[position]] = found.get(key[position], 0) + size
        lines = [f"{'bytes':>14} {'share':>6}  {by}, at the peak of {self.peak_bytes:,} bytes"]
        for name, size in sorted(found.items(), key=lambda item: -item[1])[:most]:
            shown = _with_text(name) if by == "line" else name or "(outside of modules)"
            lines.append(f"{size:>14,} {size / max(self.peak_bytes, 1):>6.1%}  {shown}")
        return "\n".join(lines)

    def export_chrome_trace(self, path: str | os.PathLike[str]) -> None:
        """Write a JSON file for chrome://tracing or ui.perfetto.dev, in one step."""
        events = [
            {
                "name": event.operation, "cat": event.module or "outside", "ph": "X",
                "ts": event.start * 1e6, "dur": event.seconds * 1e6, "pid": os.getpid(), "tid": 1,
                "args": {"module": event.module, "line": event.line, "bytes": event.bytes},
            }
            for event in self.events
        ]  # fmt: skip
        content = json.dumps({"traceEvents": events, "displayTimeUnit": "ms"})
        write_atomically(path, content.encode())

    def __str__(self) -> str:
        return self.table()


def _known(by: str) -> str:
    if by not in _BY:
        raise TensorgradError(f"a profile is by {', '.join(_BY)}; got {by!r}")
    return by


def _with_text(line: str) -> str:
    """A line with what stands in it."""
    name, _, number = line.rpartition(":")
    text = linecache.getline(name, int(number)).strip() if number.isdigit() else ""
    return f"{os.path.basename(name)}:{number}  {text}" if text else line


class profile:
    """Measures what is computed inside: ``with tg.profile(model) as p: ...; print(p)``.

    model: whose modules are called by their paths; others by their class. Compiled functions run
    as they are written, so that there is something to see; a profile says how time is shared, not
    how fast a step is (``tensorgrad bench``). On a GPU every computation is waited for.

    Raises TensorgradError if a profile is running already.
    """

    _running = False

    def __init__(self, model: Module | None = None) -> None:
        self._names = {} if model is None else {id(m): p for p, m in model.named_modules()}
        self._token: Token[Mode] | None = None

    def __enter__(self) -> Profile:
        if profile._running:
            raise TensorgradError("a profile is running already; end it first")
        profile._running = True
        self._observer = _Profiler(self._names)
        mode = current_mode()
        self._token = MODE.set(mode._replace(observers=(*mode.observers, self._observer)))
        RECORDING.append(self._observer)
        return self._observer.profile

    def __exit__(self, *exc: object) -> None:
        assert self._token is not None
        self._observer.end()
        RECORDING.remove(self._observer)
        MODE.reset(self._token)
        profile._running = False


class _Profiler(Observer):
    """Takes the times, and follows the memory by weak references."""

    def __init__(self, names: Mapping[int, str]) -> None:
        self.profile = Profile()
        self._names = names
        self._modules: list[str] = []
        self._places: dict[int, tuple[str, str]] = {}  # tape position -> module and line
        self._live: dict[int, tuple[Any, int, tuple[str, str, str]]] = {}  # id of owner -> ...
        self._held: dict[tuple[str, str, str], int] = {}
        self._bytes = 0
        self._began = perf_counter()
        self._start = self._began

    def end(self) -> None:
        """Stop following."""
        self.profile.seconds = perf_counter() - self._began
        self._live.clear()

    # --- what dispatch says -----------------------------------------------------------------------

    def entered(self, module: Any) -> None:
        """See Observer."""
        name = self._names.get(id(module))
        self._modules.append(type(module).__name__ if name is None else name)

    def left(self, module: Any) -> None:
        """See Observer."""
        self._modules.pop()

    def computing(self, op: Primitive) -> None:
        """See Observer."""
        self._start = perf_counter()

    def computed(
        self, op: Primitive, inputs: Sequence[Any], attrs: Mapping[str, Any], out: Tensor
    ) -> None:
        """See Observer."""
        place = (self._modules[-1] if self._modules else "", _line())
        if out.node is not None:
            self._places[out.node.position] = place
        self._note(op.name, place, [out.data])

    def differentiating(self, node: Node) -> None:
        """See Observer."""
        self._start = perf_counter()

    def differentiated(self, node: Node, rule: Any, saved: Any, g: Any, gradient: Any) -> None:
        """See Observer."""
        place = self._places.get(node.position) or ("", _line())
        data = gradient.data if isinstance(gradient, Tensor) else gradient
        self._note(f"{node.op.name} backward", place, [data])

    # --- times and memory -------------------------------------------------------------------------

    def _note(self, name: str, place: tuple[str, str], arrays: Iterable[Any]) -> None:
        new = 0
        for array in arrays:
            if is_array(array):
                of = backend.of(array)
                of.synchronize()
                new += self._follow(of.memory_owner(array), (name, *place))
        seconds = perf_counter() - self._start
        event = Event(name, *place, self._start - self._began, seconds, new)
        self.profile.events.append(event)

    def _follow(self, owner: Any, key: tuple[str, str, str]) -> int:
        """Count the memory of ``owner`` until it is freed; the bytes, 0 if it is known."""
        number = id(owner)
        known = self._live.get(number)
        if known is not None and known[0]() is owner:
            return 0
        size = int(owner.nbytes)
        try:
            reference = weakref.ref(owner, lambda _: self._freed(number))
        except TypeError:
            return size
        self._live[number] = reference, size, key
        self._held[key] = self._held.get(key, 0) + size
        self._bytes += size
        if self._bytes > self.profile.peak_bytes:
            self.profile.peak_bytes = self._bytes
            self.profile.at_peak = {k: v for k, v in self._held.items() if v}
        return size

    def _freed(self, number: int) -> None:
        known = self._live.pop(number, None)
        if known is not None:
            _, size, key = known
            self._held[key] -= size
            self._bytes -= size


def _line() -> str:
    """The line outside this package that led here."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    return "" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"


# --- the ledger -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Held:
    """A graph that is alive, and who keeps it.

    operation, shape: of the tensor at its end. entries: of the tape. bytes: of the values that they
    have saved. holders: the variables, attributes and items that refer to the tensor.
    """

    operation: str
    shape: tuple[int, ...]
    entries: int
    bytes: int
    holders: tuple[str, ...]

    def __str__(self) -> str:
        shape = "x".join(map(str, self.shape)) or "scalar"
        return (
            f"{self.operation} {shape}: {self.entries:,} entries, {self.bytes:,} bytes, kept by "
            + (", ".join(self.holders) or "nobody that could be found")
        )


def ledger() -> list[Held]:
    """All graphs that are alive in this process, and who keeps each of them, the largest first.

    A training loop that appends ``loss`` to a list, in place of ``loss.item()``, keeps the graph of
    every step; here its name is told. Graphs that are part of another one are not listed.
    """
    gc.collect()
    tensors = [
        x for x in gc.get_objects()
        # Not isinstance: objects of others may answer the question for their class with code.
        if issubclass(type(x), Tensor) and x.node is not None and type(x.node) is not Leaf
    ]  # fmt: skip
    inner: set[Node] = set()
    graphs: dict[Node, tuple[int, int]] = {}
    for tensor in tensors:
        assert tensor.node is not None
        if tensor.node not in graphs and tensor.node.edges:
            nodes = nodes_of([tensor.node])
            graphs[tensor.node] = len(nodes), saved_bytes(nodes)
            inner |= nodes - {tensor.node}
    ignored = {id(tensors), id(sys._getframe())}
    found = []
    for tensor in tensors:
        node = tensor.node
        if node is None or node in inner or node not in graphs:
            continue
        entries, size = graphs[node]
        holders = _holders(tensor, ignored)
        found.append(Held(node.op.name, node.shape, entries, size, holders))
    return sorted(found, key=lambda held: -held.bytes)


def _holders(target: Any, ignored: set[int], depth: int = 0) -> tuple[str, ...]:
    """Who refers to an object, in words."""
    # No closures in here: their cells would be found as holders.
    found: list[str] = []
    wanted = id(target)
    for frame in _frames():
        variables = frame.f_locals
        if variables is frame.f_globals:
            continue
        ignored.add(id(variables))
        code = frame.f_code
        names = [name for name, value in variables.items() if id(value) == wanted]
        if type(variables) is dict and code.co_flags & inspect.CO_OPTIMIZED:
            variables.clear()  # before Python 3.13 a copy, which would keep what it shows
        if not code.co_filename.startswith(_PACKAGE):
            place = f"{os.path.basename(code.co_filename)}:{frame.f_lineno}"
            found += [f"variable {name} in {code.co_name} ({place})" for name in names]
    for holder in gc.get_referrers(target):
        if id(holder) in ignored or isinstance(holder, types.FrameType):
            continue
        if isinstance(holder, dict):
            found += _in_dict(holder, target, ignored)
        elif isinstance(holder, list | tuple) and depth < 3:
            position = [x is target for x in holder].index(True)
            for name in _holders(holder, ignored, depth + 1):
                found.append(f"item {position} of {name}")
        elif isinstance(holder, types.CellType):
            found += _of_cell(holder)
        else:  # an object may have its attributes in itself, without a dict
            try:
                attributes = object.__getattribute__(holder, "__dict__")
            except AttributeError:
                continue
            for name, value in dict(attributes).items():
                if value is target:
                    found.append(f"attribute {name} of a {type(holder).__name__}")
    return tuple(dict.fromkeys(found))


def _of_cell(cell: types.CellType) -> list[str]:
    """The functions outside this package that have a variable of an enclosing one in ``cell``."""
    found = []
    for closure in gc.get_referrers(cell):
        if not isinstance(closure, tuple):
            continue
        for function in gc.get_referrers(closure):
            if isinstance(function, types.FunctionType) and function.__closure__ is closure:
                code = function.__code__
                if not code.co_filename.startswith(_PACKAGE):
                    name = code.co_freevars[[c is cell for c in closure].index(True)]
                    found.append(f"variable {name} that {function.__qualname__} refers to")
    return found


def _in_dict(holder: dict[Any, Any], target: Any, ignored: set[int]) -> list[str]:
    names = [key for key, value in holder.items() if value is target]
    if "__name__" in holder and "__builtins__" in holder:
        return [f"global {name} of {holder['__name__']}" for name in names]
    for owner in gc.get_referrers(holder):
        if id(owner) not in ignored and getattr(owner, "__dict__", None) is holder:
            return [f"attribute {name} of a {type(owner).__name__}" for name in names]
    return [f"key {name!r} of a dict" for name in names]


def _frames() -> list[types.FrameType]:
    """The frames of all threads."""
    found = []
    own = threading.get_ident()
    for number, top in sys._current_frames().items():
        frame: types.FrameType | None = sys._getframe(1) if number == own else top
        while frame is not None:
            found.append(frame)
            frame = frame.f_back
    return found
