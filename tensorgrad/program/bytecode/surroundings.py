"""What was there before a step: the guards, the refusals and the effects of one capture.

A read of an object that was there before the step (*outside*) becomes a guard: (kind, holder, key,
value). By induction the same reads of the same holders lead along the same path, so that nothing
else need be known. What C code reads of a container unseen is guarded by content.

Closed by default: an object from outside whose state lies in C, or that came by a way nobody
followed (see ``finished``), makes a refusal, with the line.
"""

from __future__ import annotations

import collections
import functools
import gc
import operator
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tensorgrad.nn.hooks import Hook
from tensorgrad.nn.module import Module
from tensorgrad.ops.random import Generator
from tensorgrad.optim.optimizer import Optimizer
from tensorgrad.program.bytecode import callables
from tensorgrad.program.bytecode.shadow import (
    Counted,
    Generated,
    Made,
    Mark,
    Shadow,
    Unknown,
)
from tensorgrad.program.engine import ours
from tensorgrad.program.guards import (
    ARRAY_BYTES,
    BUFFERS,
    CONTAINERS,
    DEEP,
    ENTRIES,
    MISSING,
    SCALARS,
    Frozen,
    Guard,
    lookup,
    parts_of,
    read,
    same,
    slots_of,
)
from tensorgrad.program.trees import is_plain_container
from tensorgrad.tensor import Tensor

# Python 3.12 begins with some hundred of its own objects frozen.
_FROZEN_BY_PYTHON = 2000


class Refusal(NamedTuple):
    """Why a step cannot be a program: what it does, at which line, and what to do instead."""

    what: str
    where: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}. At {self.where}. Remedy: {self.remedy}"


PASS_IT = "compute it outside and pass it as an argument"
NUMBERS = (int, float)


class Surroundings:
    """What is outside the step, what was read of it, and what the step changes there."""

    def __init__(
        self,
        function: Any,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        enter: Callable[[Module], None],
    ) -> None:
        """enter: told of every module that is met."""
        self.guards: dict[Any, Guard] = {}
        self.refusals: list[Refusal] = []
        #: where tensors from outside were found: id -> (tensor, [(kind, holder, key), ...])
        self.tensors: dict[int, tuple[Tensor, list[tuple[str, Any, Any]]]] = {}
        #: the entries on the tape that tensors from outside had when they were found first
        self.nodes: dict[int, Any] = {}
        #: tensors among the arguments
        self.given: dict[int, Tensor] = {}
        #: tensors from outside of which it matters that they are these very objects
        self.identified: dict[int, Tensor] = {}
        #: what was written: id of the holder and key -> (kind, holder, key), or a Counted
        self.written: dict[tuple[int, Any], Any] = {}
        #: id of a container -> (it, how many results were appended to it)
        self.appended: dict[int, tuple[Any, int]] = {}
        self.shadows: dict[int, Shadow] = {}
        self.met: dict[int, Any] = {}  # by id; holding them keeps the ids valid
        self.changed: dict[int, Any] = {}  # what was written to
        self.weak: dict[int, Any] = {}  # weak references to objects that only they hold
        #: containers among the arguments, whose content the key has; and those of them that were
        #: not found outside as well
        self.arguments: dict[int, Any] = {}
        self.covered: dict[int, Any] = {}
        self.believed: dict[int, Any] = {}  # what was read and is not from outside: see finished
        self.functions: dict[Any, list[Any]] = {}  # code -> functions from outside
        self.inner: dict[Any, list[Mapping[str, list[Any]]]] = {}  # code of functions made inside
        #: code of generator expressions -> what each that was made goes through
        self.iterated: dict[Any, list[Any]] = {}
        self.makers: dict[Any, Any] = {}  # code -> the frame that made a function of it last
        self.now: Any = None
        self.current: Shadow | None = None
        self._enter = enter
        self._before: set[int] | None = None  # ids of what there was
        self.root(function)
        self.argument((args, kwargs))

    # --- the beginning and the end --------------------------------------------------------------

    def start(self) -> None:
        """Called right before the step: what exists now is from outside."""
        if gc.get_freeze_count() < _FROZEN_BY_PYTHON:
            gc.freeze()
        else:  # somebody has frozen what is shared with other processes: it stays so
            self._before = set(map(id, gc.get_objects()))

    def finished(self) -> None:
        """Called right after the step: does everything that was read come from where it seems to?

        What was taken for made by the step must be younger than the step. ``gc.freeze`` put all
        objects that the collector knows into a generation of their own, so those it lists now are
        the young ones.
        """
        self.now = self.current = None
        self.shadows.clear()
        self.makers.clear()
        self.iterated.clear()
        try:
            young = set(map(id, gc.get_objects())) - (self._before or set())
            for o in self.believed.values():
                if gc.is_tracked(o) and id(o) not in young and id(o) not in self.met:
                    self.refuse(
                        f"an object of type {type(o).__name__} is read that was there before the "
                        "step and came by a way that cannot be followed",
                        "give it a name outside the step and use that name",
                    )
        finally:
            self.believed.clear()
            if self._before is None:
                gc.unfreeze()
            self._before = None
        for t, places in self.tensors.values():
            if t.node is not self.nodes[id(t)]:
                self.refuse(
                    f"the step changes whether a tensor of shape {t.shape} requires a gradient",
                    "do it outside the step, once",
                )
            for kind, holder, key in places:
                if (id(holder), key) not in self.written and read(kind, holder, key) is not t:
                    self.refuse(
                        f"the step replaces a tensor of shape {t.shape} that it reads",
                        "overwrite it in place, as in x.copy_(y) under no_grad()",
                    )
        for guard in self.guards.values():
            changed = (id(guard.holder), guard.key) in self.written
            if not changed and not guard.holds():
                self.refuse(
                    f"the step changes what it reads: {guard}",
                    "keep such state in tensors that are overwritten in place, or outside the step",
                )

    def has_read(self, kind: str | None, holder: Any, key: Any) -> bool:
        """Whether a place was read before it was written; without a kind, any of the holder."""
        for guard in self.guards.values():
            if guard.holder is holder and (kind is None or same(guard.key, key)):
                return True
        places = [p for _, found in self.tensors.values() for p in found]
        return any(h is holder and (kind is None or same(k, key)) for _, h, k in places)

    def release(self) -> None:
        """Let go of everything that was met: the guards hold what they need."""
        tables = (self.met, self.changed, self.covered, self.arguments, self.functions, self.inner)
        for table in tables:
            table.clear()
        self.tensors.clear()
        self.guards.clear()

    def refuse(self, what: str, remedy: str = PASS_IT) -> None:
        """Note why the step cannot be a program; the step itself goes on."""
        if len(self.refusals) < 20:
            self.refusals.append(Refusal(what, self.where, remedy))

    @property
    def where(self) -> str:
        """The line that is being executed."""
        f = self.now
        return "the end of the call" if f is None else f"{f.f_code.co_filename}:{f.f_lineno}"

    # --- what is outside ------------------------------------------------------------------------

    def root(self, f: Any) -> None:
        """The function that is compiled: it is the same in every call, so only its parts count."""
        self.reach(f)
        if isinstance(f, functools.partial):
            self.note("attribute", f, "func", f.func)
            self.note("attribute", f, "args", f.args)
            self.reach(f.keywords)
            self.content(f.keywords)
            self.root(f.func)
        elif isinstance(f, types.MethodType):
            self.root(f.__func__)
        elif isinstance(f, types.FunctionType):
            wrapped = vars(f).get("__wrapped__", MISSING)
            if wrapped is not MISSING:
                self.note("key", vars(f), "__wrapped__", wrapped)
        elif not ours(type(f)):
            self.note("class", type(f), "__call__", lookup(type(f), "__call__"))

    def argument(self, x: Any) -> None:
        """An argument: what it consists of is part of the key, if it is a plain container."""
        if is_plain_container(x):
            self.arguments[id(x)] = self.covered[id(x)] = x
            for part in x.values() if isinstance(x, dict) else x:
                self.argument(part)
            if isinstance(x, dict):
                for key in x:
                    self.argument(key)
        elif isinstance(x, Tensor):
            self.given[id(x)] = x
        else:
            self.reach(x)

    def is_outside(self, o: Any) -> bool:
        """Whether ``o`` was there before the step, and is no container that the key has."""
        i = id(o)
        if isinstance(o, Mark) or i in self.covered:
            return False
        return i in self.met or isinstance(o, types.ModuleType | types.MappingProxyType)

    def note(self, kind: str, holder: Any, key: Any, value: Any) -> Any:
        """A guard, unless there is one; the value."""
        if isinstance(value, Tensor):
            self.found_at(value, kind, holder, key)
            return value
        name = (kind, id(holder), type(key), key)
        if name not in self.guards:
            if id(holder) in self.weak:
                kind, holder = f"weak {kind}", self.weak[id(holder)]
            if (id(holder), key) in self.written and kind in (
                "key",
                "item",
                "cell",
                "class attribute",
            ):
                return value  # the step put it there itself
            self.guards[name] = Guard(kind, holder, key, value, self.where)
            self.reach(value)
        return value

    def found_at(self, t: Tensor, kind: str, holder: Any, key: Any) -> None:
        """A tensor was found at a place outside: replays take what is there then."""
        if (id(holder), key) in self.written:
            return
        self.met[id(t)] = t
        self.nodes.setdefault(id(t), t.node)
        for hook in getattr(t.node, "hooks", None) or ():
            self.reach(hook)
            callables.called_back(self, hook, ())
        places = self.tensors.setdefault(id(t), (t, []))[1]
        if not any(k == kind and h is holder and same(n, key) for k, h, n in places):
            places.append((kind, holder, key))

    def identify(self, x: Any, other: Any = MISSING) -> None:
        """It matters which object ``x`` is: it is looked up in a set, or compared with another.

        A tensor from outside has to be the same in a replay. Which one an argument is may be
        another one each time, unless it is told from the other by the memory that it has.
        """
        if isinstance(x, Tensor) and (other is MISSING or isinstance(other, Tensor)):
            if id(x) in self.given and not _is_apart(x, other):
                self.refuse(
                    "it is asked which tensor an argument is",
                    "look it up outside, and pass what is found as an argument",
                )
            self.identified[id(x)] = x
        elif id(x) in self.arguments and (other is MISSING or isinstance(other, CONTAINERS)):
            self.refuse(
                f"it is asked which {type(x).__name__} an argument is", "compare what is in it"
            )

    def reach(self, value: Any) -> None:
        """Remember what came from outside, and what belongs to it without being read by name."""
        if type(value) in SCALARS or id(value) in self.met or isinstance(value, Mark):
            return
        self.met[id(value)] = value
        self.covered.pop(id(value), None)  # another one may be passed, while this one changes
        if isinstance(value, Tensor):
            return
        if isinstance(value, Module):
            self._enter(value)
            for m in value.modules():  # the engine reads these, unseen
                self.met[id(m)] = m
                for x in vars(m).values():
                    if isinstance(x, Tensor):
                        self.met[id(x)] = x
                    elif isinstance(x, tuple) and x and isinstance(x[0], Hook):
                        for hook in x:
                            self.reach(hook.function)
                            callables.called_back(self, hook.function, ())
        elif isinstance(value, types.MethodType):
            self.reach(value.__func__)
            self.reach(value.__self__)
        elif isinstance(value, types.BuiltinFunctionType | types.MethodWrapperType):
            if not isinstance(value.__self__, types.ModuleType):
                self.reach(value.__self__)
        elif isinstance(value, types.FunctionType):
            if ours(value):
                return
            self.functions.setdefault(value.__code__, []).append(value)
            self.met[id(value.__globals__)] = value.__globals__
            for cell in value.__closure__ or ():
                self.met[id(cell)] = cell
            self.note(
                "function", value, None, (value.__code__, value.__defaults__, value.__kwdefaults__)
            )
            if value.__kwdefaults__ is not None:
                self.reach(value.__kwdefaults__)
                self.content(value.__kwdefaults__)
        elif isinstance(value, tuple):
            for x in value:
                self.reach(x)
        elif type(value).__module__.startswith("tensorgrad.program"):  # a compiled function
            function = getattr(value, "function", None)
            if function is not None:
                self.root(function)
                for x in function.args if isinstance(function, functools.partial) else ():
                    self.reach(x)
        elif isinstance(value, functools.partial):
            for x in (value.func, *value.args, value.keywords):
                self.reach(x)
            for x in value.keywords.values():
                self.reach(x)
        elif isinstance(value, operator.methodcaller):
            for x in value.__reduce__()[1]:
                self.reach(x)
        elif isinstance(value, property):
            for f in (value.fget, value.fset, value.fdel):
                self.reach(f)
        elif isinstance(value, staticmethod | classmethod):
            self.reach(value.__func__)

    def weakly(self, o: Any, reference: Any) -> None:
        """An object from outside that may be held by nothing but weak references."""
        self.weak[id(o)] = reference
        self.met[id(o)] = o

    # --- content --------------------------------------------------------------------------------

    def entries(self, o: Any) -> None:
        """Guard which entries a container has; of containers among them not the content, which is
        guarded where it is read."""
        if isinstance(o, CONTAINERS) and self.is_outside(o):
            self.content(o, nested=False)
        else:
            self.content(o)

    def content(self, o: Any, deep: bool = False, nested: bool = True) -> None:
        """Guard all of a container, or of an object, that somebody reads unseen.

        deep: the attributes of objects in it, too. nested: the content of containers in it.
        """
        if isinstance(o, Unknown):
            self.see_into(o, "the content")
            for source in o.sources:
                self.content(source)
            return
        if type(o) in SCALARS or isinstance(o, Mark | Tensor):
            return
        if not self.is_outside(o):
            if isinstance(o, (*CONTAINERS, *BUFFERS, np.ndarray)):
                self.believe(o)
            self.look_into(o, deep)
            return
        whole = deep or isinstance(o, CONTAINERS)
        if whole and (id(o) in self.appended or id(o) in self.changed):
            self.refuse(
                f"a {type(o).__name__} from outside is read as a whole after the step changed it",
                "read it before, or keep it outside the step",
            )
            return
        if isinstance(o, (*CONTAINERS, *BUFFERS, np.ndarray)) or deep or callables.closed(o):
            then = self._frozen(o, deep, 0, [0], nested)
            if type(then) is Frozen:
                self.note("content" if nested else "entries", o, None, then)

    def look_into(self, o: Any, deep: bool, depth: int = 0) -> None:
        """What lies in a container that the step made, or that the key has, may be from outside."""
        if depth > DEEP:
            self.refuse("containers are nested too deeply to be followed", "nest them less")
            return
        parts: Iterable[Any] = ()
        if isinstance(o, list | tuple | set | frozenset | collections.deque):
            parts = list(o)
        elif isinstance(o, dict):
            parts = [*dict.keys(o), *dict.values(o)]
        elif (
            deep
            and not isinstance(o, type | types.ModuleType | types.FunctionType)
            and not ours(type(o))
        ):
            parts = parts_of(o)
        for x in parts:
            if type(x) in SCALARS or isinstance(x, Tensor):
                continue
            if self.is_outside(x):
                self.content(x, deep)
            elif x is not o and isinstance(x, (*CONTAINERS,)):
                self.look_into(x, deep, depth + 1)

    def _frozen(self, o: Any, deep: bool, depth: int, count: list[int], nested: bool = True) -> Any:
        count[0] += 1
        if count[0] > ENTRIES or depth > DEEP:
            if count[0] < 2 * ENTRIES:
                self.refuse(
                    f"a {type(o).__name__} is read as a whole that has more than {ENTRIES} "
                    "entries or is "
                    f"nested more than {DEEP} levels deep",
                    "read the entries that are needed by index or key, or make a tensor of it "
                    "outside",
                )
                count[0] = 2 * ENTRIES
            return o
        t = type(o)
        if t in SCALARS or isinstance(o, Tensor | np.generic | np.dtype):
            return o
        if isinstance(o, BUFFERS):
            if memoryview(o).nbytes > ARRAY_BYTES:
                self.refuse(
                    f"a large {t.__name__} from outside is read", "make a tensor of it outside"
                )
            self.met[id(o)] = o
            return Frozen(t, tuple(parts_of(o)))
        if isinstance(o, np.ndarray):
            if t is not np.ndarray or o.nbytes > ARRAY_BYTES or o.dtype.hasobject:
                self.refuse(
                    f"a {t.__name__} of shape {o.shape} and dtype {o.dtype} from outside is "
                    "read, which "
                    f"cannot be compared in every call (arrays of numbers up to {ARRAY_BYTES:,} "
                    "bytes can)",
                    "make a tensor of it outside",
                )
                return o
            self.met[id(o)] = o
            return Frozen(t, (o.shape, o.dtype, o.tobytes()))
        if isinstance(o, CONTAINERS) and depth and not nested:
            self.reach(o)
            return o
        if isinstance(o, CONTAINERS):
            self.met[id(o)] = o
            self._attributes_of(o)
            if t is collections.defaultdict:
                self.note("attribute", o, "default_factory", getattr(o, "default_factory", None))
            parts: list[Any] = []
            for place, x in callables.places_of(o):
                if isinstance(x, Tensor) and place is not None:
                    self.found_at(x, *place)
                    parts.append(Tensor)
                else:
                    parts.append(self._frozen(x, deep, depth + 1, count, nested))
            # Which tensors are in it is known by their places, which are in this very container.
            exact = t in (list, tuple, dict, set, frozenset, collections.OrderedDict)
            exact = exact and (not depth or not any(x is Tensor for x in parts))
            return Frozen(t, tuple(parts), None if exact else o)
        self.reach(o)
        if callables.closed(o):
            self.refuse(
                f"a {t.__name__} from outside is read, whose content cannot be followed",
                "copy what is needed into a list, a dict or a tensor",
            )
            return o
        if deep and isinstance(o, types.MethodType):
            return Frozen(t, (self._frozen(o.__self__, deep, depth + 1, count),), o)
        if deep and type(o) is functools.partial:
            inner_parts = (o.func, o.args, o.keywords)
            for x in inner_parts:
                self._frozen(x, deep, depth + 1, count)
            self.note("attribute", o, "args", o.args)
            self.content(o.keywords, True)
            return o
        plain = (hasattr(o, "__dict__") or slots_of(o)) and not ours(t)
        opaque = isinstance(
            o,
            (
                type | types.ModuleType | types.FunctionType | Module | Optimizer,
                property | staticmethod | classmethod | types.CellType,
            ),
        )
        if not deep:
            return o
        if opaque or not plain:
            if opaque or (ours(t) and not isinstance(o, Generator)):
                self.refuse(
                    f"a {t.__name__} lies in what C code is given or gives, which may read any "
                    "attribute of it",
                    "write the attribute out, as in x.name, and give results of calls a name first",
                )
            return o
        inner = []
        for x in parts_of(o):
            if isinstance(x, Tensor):
                inner.append(x)
                self.met[id(x)] = x
            else:
                inner.append(self._frozen(x, deep, depth + 1, count))
        return Frozen(t, tuple(inner), o)

    def see_into(self, o: Any, what: str) -> None:
        """Refuse to read of what may be anything."""
        if not isinstance(o, Unknown):
            return
        known = isinstance(o, Generated | Made) or (
            what in ("the content", "an element") and o.computed
        )
        if o.opaque and not known:
            self.refuse(
                f"{what} is read of the result of a call that cannot be seen into",
                "give the result a name first",
            )

    def _attributes_of(self, o: Any) -> None:
        """A container of a class of the user's may have attributes; they are read by name."""
        d = getattr(o, "__dict__", None)
        if d:
            self.met[id(d)] = d

    # --- writes ---------------------------------------------------------------------------------

    def write(self, kind: str, holder: Any, key: Any, owner: Any, what: str, value: Any) -> None:
        """The step puts something at a place: an effect, if the place is outside.

        kind, holder, key: the place. owner: the object as the user sees it.
        """
        if id(owner) in self.arguments:
            self.refuse(f"{what} of an argument is changed", "return the value instead")
            self.settled(value)
            return
        if not (self.is_outside(owner) or self.is_outside(holder)):
            self.believe(owner)
            self.settled(value)
            return
        place = (id(holder), key)
        if isinstance(value, Counted):
            if value.place[1] is holder and value.place[2] == key and value.place[0] == kind:
                self.written[place] = value
                self.changed[id(holder)] = holder
                self.changed[id(owner)] = owner
                return
            self.settled(value)
        self.written[place] = (kind, holder, key, owner)
        self.changed[id(holder)] = holder
        self.changed[id(owner)] = owner

    def appends(self, to: Any) -> None:
        """Something is appended to a list or a deque."""
        if id(to) in self.arguments:
            self.refuse("an argument is appended to", "return the value instead")
        elif self.is_outside(to):
            if id(to) in self.changed:
                self.refuse(
                    "a list from outside is changed in more than one way", "only append to it"
                )
            count = self.appended.get(id(to), (to, 0))[1]
            self.appended[id(to)] = (to, count + 1)
        else:
            self.believe(to)

    def believe(self, o: Any) -> None:
        """Take something for made by the step, until ``finished`` has seen how old it is."""
        known = type(o) in SCALARS or id(o) in self.covered
        if not known and not isinstance(o, Mark | Tensor):
            self.believed[id(o)] = o

    def changes(self, o: Any, what: str) -> None:
        """The step changes something in a way that a replay does not carry out."""
        if isinstance(o, Unknown):
            self.refuse(f"{what} of something that C code gave is changed", "give it a name first")
        elif self.is_outside(o) or id(o) in self.arguments:
            if not isinstance(o, Tensor):
                self.refuse(
                    f"{what} of a {type(o).__name__} from outside is changed",
                    "a replay repeats o.name = x, o[key] = x, list.append(x) and counters, "
                    "nothing else; do "
                    "it outside the step",
                )
        else:
            self.believe(o)

    def settled(self, x: Any) -> Any:
        """A value that is used: one that might have been a counter is a read like any other."""
        if isinstance(x, Counted):
            kind, holder, key, then = x.place
            name = (kind, id(holder), type(key), key)
            if name not in self.guards:
                self.guards[name] = Guard(kind, holder, key, then, x.where)
            return x.now
        return x


def _is_apart(x: Tensor, other: Any) -> bool:
    """Whether two tensors have memory of their own: who shares memory is part of the key."""
    if not isinstance(other, Tensor) or not (x.size and other.size):
        return False
    a, b = x.data, other.data
    return type(a) is np.ndarray and type(b) is np.ndarray and not np.may_share_memory(a, b)


def dict_of(o: Any) -> Any:
    """The attributes of an object as they lie in it, or None."""
    try:
        return object.__getattribute__(o, "__dict__")
    except AttributeError:
        return None


def content_of(cell: Any) -> Any:
    """What a cell of a closure holds; MISSING if nothing yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING
