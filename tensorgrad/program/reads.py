"""What a step reads of its surroundings while it runs: the source of the guards.

A replay is right only if everything that Python looked at during capture is as it was. So the
byte code that runs is followed, instruction by instruction, in every frame outside the engine: a
shadow of the frame's stack holds, for each slot, the object itself, ``FRESH`` for what the step
made and in which nothing from outside lies, or an ``Unknown``. A read of an object that was there
before the step (*outside*) becomes a guard: (kind, holder, key, value). By induction the same reads
of the same holders lead along the same path, so that nothing else need be known.

Closed by default: an instruction, a C function or an object whose state lies in C that is not known
here makes a refusal, with the line; so does an object from outside that came by a way nobody
followed (see ``finished``). A mistake in here is a refusal too, never an error in the user's step.

Who runs this and what is made of it: ``watch.py`` tells of the instructions, ``guards.py`` holds
the guards, ``effects.py`` carries out what the step changes outside.
"""

from __future__ import annotations

import collections
import contextlib
import decimal
import functools
import gc
import inspect
import itertools
import operator
import sys
import threading
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tensorgrad.nn.module import Module
from tensorgrad.ops.random import Generator
from tensorgrad.optim.optimizer import Optimizer
from tensorgrad.program import callables
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
from tensorgrad.program.opcodes import words, UNTOUCHED, Instruction, effect
from tensorgrad.program.trees import is_plain_container
from tensorgrad.program.shadow import (
    FRESH,
    NULL,
    Counted,
    Generated,
    Instance,
    METHOD,
    LostError,
    Made,
    Mark,
    Shadow,
    Unknown,
)
from tensorgrad.tensor import Tensor


class Refusal(NamedTuple):
    """Why a step cannot be a program: what it does, at which line, and what to do instead."""

    what: str
    where: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}. At {self.where}. Remedy: {self.remedy}"


_PASS_IT = "compute it outside and pass it as an argument"
_BY_OPERATION: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv,
    "//": operator.floordiv, "%": operator.mod, "&": operator.and_, "|": operator.or_,
    "^": operator.xor,
}  # fmt: skip
_DUNDERS = {
    "+": "add", "-": "sub", "*": "mul", "/": "truediv", "//": "floordiv", "%": "mod", "&": "and",
    "|": "or", "^": "xor", "@": "matmul", "**": "pow", "<<": "lshift", ">>": "rshift",
}  # fmt: skip
_COMPARED = {
    "<": ("__lt__", "__gt__"), "<=": ("__le__", "__ge__"), "==": ("__eq__",), "!=": ("__ne__",),
    ">": ("__gt__", "__lt__"), ">=": ("__ge__", "__le__"),
}  # fmt: skip
_NUMBERS = (int, float)


class Reads:
    """The guards, the refusals and the effects of one capture."""

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
        #: what was written: id of the holder and key -> (kind, holder, key), or a Counted
        self.written: dict[tuple[int, Any], Any] = {}
        #: id of a container -> (it, how many results were appended to it)
        self.appended: dict[int, tuple[Any, int]] = {}
        self.shadows: dict[int, Shadow] = {}
        self._outside: dict[int, Any] = {}  # by id; holding them keeps the ids valid
        self._holders: dict[int, Any] = {}  # what was written to
        self._weak: dict[int, Any] = {}  # weak references to objects that only they hold
        self._covered: dict[int, Any] = {}  # containers among the arguments: the key has them
        self._believed: dict[int, Any] = {}  # what was read and is not from outside: see finished
        self._functions: dict[Any, list[Any]] = {}  # code -> functions from outside
        self._inner: dict[Any, list[Mapping[str, list[Any]]]] = {}  # code of functions made inside
        self._makers: dict[Any, Any] = {}  # code -> the frame that made a function of it last
        self._now: Any = None
        self._current: Shadow | None = None
        self._enter = enter
        self._frozen_before = gc.get_freeze_count()
        self._root(function)
        self._argument((args, kwargs))

    # --- the beginning and the end --------------------------------------------------------------

    def start(self) -> None:
        """Called right before the step: what exists now is from outside."""
        if not self._frozen_before:
            gc.freeze()

    def finished(self) -> None:
        """Called right after the step: does everything that was read come from where it seems to?

        What was taken for made by the step must be younger than the step. ``gc.freeze`` put all
        objects that the collector knows into a generation of their own, so those it lists now are
        the young ones. (Where somebody else has frozen objects before, this net is not there.)
        """
        self._now = self._current = None
        self.shadows.clear()
        self._makers.clear()
        try:
            if not self._frozen_before:
                young = set(map(id, gc.get_objects()))
                for o in self._believed.values():
                    if gc.is_tracked(o) and id(o) not in young and id(o) not in self._outside:
                        self.refuse(
                            f"an object of type {type(o).__name__} is read that was there before the "
                            "step and came by a way that cannot be followed",
                            "give it a name outside the step and use that name",
                        )
        finally:
            self._believed.clear()
            if not self._frozen_before:
                gc.unfreeze()
        for t, places in self.tensors.values():
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
        """Whether a place was read before it was written; without a kind, anything of the holder."""
        for guard in self.guards.values():
            if guard.holder is holder and (kind is None or same(guard.key, key)):
                return True
        places = [p for _, found in self.tensors.values() for p in found]
        return any(h is holder and (kind is None or same(k, key)) for _, h, k in places)

    def release(self) -> None:
        """Let go of everything that was met: the guards hold what they need."""
        for table in (self._outside, self._holders, self._covered, self._functions, self._inner):
            table.clear()
        self.tensors.clear()
        self.guards.clear()

    def refuse(self, what: str, remedy: str = _PASS_IT) -> None:
        """Note why the step cannot be a program; the step itself goes on."""
        if len(self.refusals) < 20:
            self.refusals.append(Refusal(what, self.where, remedy))

    @property
    def where(self) -> str:
        """The line that is being executed."""
        f = self._now
        return "the end of the call" if f is None else f"{f.f_code.co_filename}:{f.f_lineno}"

    # --- what is outside ------------------------------------------------------------------------

    def _root(self, f: Any) -> None:
        """The function that is compiled: it is the same in every call, so only its parts count."""
        self.reach(f)
        if isinstance(f, functools.partial):
            self.note("attribute", f, "func", f.func)
            self.note("attribute", f, "args", f.args)
            self.reach(f.keywords)
            self.content(f.keywords)
            self._root(f.func)
        elif isinstance(f, types.MethodType):
            self._root(f.__func__)
        elif isinstance(f, types.FunctionType):
            wrapped = vars(f).get("__wrapped__", MISSING)
            if wrapped is not MISSING:
                self.note("key", vars(f), "__wrapped__", wrapped)
        elif not ours(type(f)):
            self.note("class", type(f), "__call__", lookup(type(f), "__call__"))

    def _argument(self, x: Any) -> None:
        if is_plain_container(x):
            self._covered[id(x)] = x
            for part in x.values() if isinstance(x, dict) else x:
                self._argument(part)
            if isinstance(x, dict):
                for key in x:
                    self._argument(key)
        elif not isinstance(x, Tensor):
            self.reach(x)

    def is_outside(self, o: Any) -> bool:
        """Whether ``o`` was there before the step, and is no container that the key has."""
        i = id(o)
        if isinstance(o, Mark) or i in self._covered:
            return False
        return i in self._outside or isinstance(o, types.ModuleType | types.MappingProxyType)

    def note(self, kind: str, holder: Any, key: Any, value: Any) -> Any:
        """A guard, unless there is one; the value."""
        if isinstance(value, Tensor):
            self._found(value, kind, holder, key)
            return value
        name = (kind, id(holder), type(key), key)
        if name not in self.guards:
            if id(holder) in self._weak:
                kind, holder = f"weak {kind}", self._weak[id(holder)]
            if (id(holder), key) in self.written and kind in ("key", "item", "cell", "class attribute"):
                return value  # the step put it there itself
            self.guards[name] = Guard(kind, holder, key, value, self.where)
            self.reach(value)
        return value

    def _found(self, t: Tensor, kind: str, holder: Any, key: Any) -> None:
        """A tensor was found at a place outside: replays take what is there then."""
        if (id(holder), key) in self.written:
            return
        self._outside[id(t)] = t
        places = self.tensors.setdefault(id(t), (t, []))[1]
        if not any(k == kind and h is holder and same(n, key) for k, h, n in places):
            places.append((kind, holder, key))

    def reach(self, value: Any) -> None:
        """Remember what came from outside, and what belongs to it without being read by name."""
        if type(value) in SCALARS or id(value) in self._outside or isinstance(value, Mark):
            return
        self._outside[id(value)] = value
        if isinstance(value, Tensor):
            return
        if isinstance(value, Module):
            self._enter(value)
            for m in value.modules():  # the engine reads these, unseen
                self._outside[id(m)] = m
                for x in vars(m).values():
                    if isinstance(x, Tensor):
                        self._outside[id(x)] = x
                    elif isinstance(x, tuple) and x and hasattr(x[0], "function"):  # its hooks
                        for hook in x:
                            self.reach(hook.function)
        elif isinstance(value, types.MethodType):
            self.reach(value.__func__)
            self.reach(value.__self__)
        elif isinstance(value, types.FunctionType):
            if ours(value):
                return
            self._functions.setdefault(value.__code__, []).append(value)
            self._outside[id(value.__globals__)] = value.__globals__
            for cell in value.__closure__ or ():
                self._outside[id(cell)] = cell
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
            self.reach(getattr(value, "function", None))
        elif isinstance(value, property):
            for f in (value.fget, value.fset, value.fdel):
                self.reach(f)
        elif isinstance(value, staticmethod | classmethod):
            self.reach(value.__func__)

    def weakly(self, o: Any, reference: Any) -> None:
        """An object from outside that may be held by nothing but weak references."""
        self._weak[id(o)] = reference
        self._outside[id(o)] = o

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
            self._see_into(o, "the content")
            for source in o.sources:
                self.content(source)
            return
        if type(o) in SCALARS or isinstance(o, Mark | Tensor):
            return
        if not self.is_outside(o):
            self._look_into(o, deep)
            return
        whole = deep or isinstance(o, CONTAINERS)
        if whole and (id(o) in self.appended or id(o) in self._holders):
            self.refuse(
                f"a {type(o).__name__} from outside is read as a whole after the step changed it",
                "read it before, or keep it outside the step",
            )
            return
        if isinstance(o, (*CONTAINERS, *BUFFERS, np.ndarray)) or deep or callables.closed(o):
            then = self._frozen(o, deep, 0, [0], nested)
            if type(then) is Frozen:
                self.note("content" if nested else "entries", o, None, then)

    def _look_into(self, o: Any, deep: bool, depth: int = 0) -> None:
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
                self._look_into(x, deep, depth + 1)

    def _frozen(
        self, o: Any, deep: bool, depth: int, count: list[int], nested: bool = True
    ) -> Any:
        count[0] += 1
        if count[0] > ENTRIES or depth > DEEP:
            if count[0] < 2 * ENTRIES:
                self.refuse(
                    f"a {type(o).__name__} is read as a whole that has more than {ENTRIES} entries or is "
                    f"nested more than {DEEP} levels deep",
                    "read the entries that are needed by index or key, or make a tensor of it outside",
                )
                count[0] = 2 * ENTRIES
            return o
        t = type(o)
        if t in SCALARS or isinstance(o, Tensor | np.generic | np.dtype):
            return o
        if isinstance(o, BUFFERS):
            if memoryview(o).nbytes > ARRAY_BYTES:
                self.refuse(f"a large {t.__name__} from outside is read", "make a tensor of it outside")
            self._outside[id(o)] = o
            return Frozen(t, tuple(parts_of(o)))
        if isinstance(o, np.ndarray):
            if t is not np.ndarray or o.nbytes > ARRAY_BYTES or o.dtype.hasobject:
                self.refuse(
                    f"a {t.__name__} of shape {o.shape} and dtype {o.dtype} from outside is read, which "
                    f"cannot be compared in every call (arrays of numbers up to {ARRAY_BYTES:,} bytes can)",
                    "make a tensor of it outside",
                )
                return o
            self._outside[id(o)] = o
            return Frozen(t, (o.shape, o.dtype, o.tobytes()))
        if isinstance(o, CONTAINERS) and depth and not nested:
            self.reach(o)
            return o
        if isinstance(o, CONTAINERS):
            self._outside[id(o)] = o
            self._attributes_of(o)
            if t is collections.defaultdict:
                self.note("attribute", o, "default_factory", o.default_factory)
            parts = []
            for place, x in callables.places_of(o):
                if isinstance(x, Tensor) and place is not None:
                    self._found(x, *place)
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
            o, type | types.ModuleType | types.FunctionType | Module | Optimizer
        ) or isinstance(o, property | staticmethod | classmethod | types.CellType)
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
                self._outside[id(x)] = x
            else:
                inner.append(self._frozen(x, deep, depth + 1, count))
        return Frozen(t, tuple(inner), o)

    def _attributes_of(self, o: Any) -> None:
        """A container of a class of the user's may have attributes; they are read by name."""
        d = getattr(o, "__dict__", None)
        if d:
            self._outside[id(d)] = d

    # --- writes ---------------------------------------------------------------------------------

    def write(self, kind: str, holder: Any, key: Any, owner: Any, what: str, value: Any) -> None:
        """The step puts something at a place: an effect, if the place is outside.

        kind, holder, key: the place. owner: the object as the user sees it.
        """
        if id(owner) in self._covered:
            self.refuse(f"{what} of an argument is changed", "return the value instead")
            self.settled(value)
            return
        if not (self.is_outside(owner) or self.is_outside(holder)):
            self._believe(owner)
            self.settled(value)
            return
        place = (id(holder), key)
        if isinstance(value, Counted):
            if value.place[1] is holder and value.place[2] == key and value.place[0] == kind:
                self.written[place] = value
                self._holders[id(holder)] = holder
                self._holders[id(owner)] = owner
                return
            self.settled(value)
        self.written[place] = (kind, holder, key, owner)
        self._holders[id(holder)] = holder
        self._holders[id(owner)] = owner

    def _append(self, to: Any) -> None:
        """Something is appended to a list or a deque."""
        if id(to) in self._covered:
            self.refuse("an argument is appended to", "return the value instead")
        elif self.is_outside(to):
            if id(to) in self._holders:
                self.refuse(
                    "a list from outside is changed in more than one way", "only append to it"
                )
            count = self.appended.get(id(to), (to, 0))[1]
            self.appended[id(to)] = (to, count + 1)
        else:
            self._believe(to)

    def _believe(self, o: Any) -> None:
        known = type(o) in SCALARS or id(o) in self._covered
        if not known and not isinstance(o, Mark | Tensor):
            self._believed[id(o)] = o

    def changes(self, o: Any, what: str) -> None:
        """The step changes something in a way that a replay does not carry out."""
        if isinstance(o, Unknown):
            self.refuse(f"{what} of something that C code gave is changed", "give it a name first")
        elif self.is_outside(o) or id(o) in self._covered:
            if not isinstance(o, Tensor):
                self.refuse(
                    f"{what} of a {type(o).__name__} from outside is changed",
                    "a replay repeats o.name = x, o[key] = x, list.append(x) and counters, nothing else; do "
                    "it outside the step",
                )
        else:
            self._believe(o)

    def settled(self, x: Any) -> Any:
        """A value that is used: one that might have been a counter is a read like any other."""
        if isinstance(x, Counted):
            kind, holder, key, then = x.place
            name = (kind, id(holder), type(key), key)
            if name not in self.guards:
                self.guards[name] = Guard(kind, holder, key, then, x.where)
            return x.now
        return x

    # --- reads ----------------------------------------------------------------------------------

    def _placed(self, kind: str, holder: Any, key: Any, value: Any) -> Any:
        """A read at a place that may be written too: a guard, or a number that may be a counter."""
        put = self.written.get((id(holder), key))
        if put is not None and not isinstance(put, Counted):
            return value  # the step put it there itself
        if type(value) in _NUMBERS:
            if isinstance(put, Counted):
                return Counted(put.place, value, put.steps, self.where)
            return Counted((kind, holder, key, value), value, (), self.where)
        return self.note(kind, holder, key, value)

    def attribute(self, o: Any, name: str) -> Any:
        """``o.name``; what is known of the value."""
        if o is FRESH or isinstance(o, Unknown):
            if name in ("data", "node"):
                self.refuse(
                    f"the numbers in .{name} of a tensor are read", "compute with the tensor itself"
                )
            if o is FRESH:
                return METHOD
            if isinstance(o, Instance):
                return self._of_new(o, name)
            return self._of_unknown(o, name)
        if isinstance(o, Mark):
            return Unknown()
        t = type(o)
        if t is super:
            return self._super(o, name)
        if isinstance(o, Tensor) and name in ("data", "node"):
            self.refuse(
                f"the numbers in .{name} of a tensor are read", "compute with the tensor itself"
            )
            return Unknown()
        if isinstance(o, Tensor) and ours(t):
            return self._bound(lookup(t, name), o, t, name)
        if isinstance(o, types.ModuleType):
            value = vars(o).get(name, MISSING)
            self._outside[id(vars(o))] = vars(o)
            value = self._placed("key", vars(o), name, value)
            if value is MISSING:
                get = vars(o).get("__getattr__", MISSING)
                self.note("key", vars(o), "__getattr__", get)
                return MISSING if get is MISSING else self._invoked(get, [name])
            return value
        if isinstance(o, type):
            return self._of_class(o, name)
        return self._of_instance(o, t, name)

    def of_mark(self, o: Mark, name: str, given: list[Any]) -> Any:
        """A method of C is called of something unnamed."""
        for x in (o, *given):
            self.content(x)
        return callables.made_of([o, *given])

    def _of_unknown(self, o: Unknown, name: str) -> Any:
        if o.opaque:
            self.refuse(
                f".{name} is read of the result of a call that cannot be seen into",
                "give the result a name first: y = f(x), then y.name",
            )
            return Unknown()
        return self._of_each(o, lambda x: self.attribute(x, name))

    def _of_each(self, o: Unknown, what: Callable[[Any], Any]) -> Any:
        """What is read of something that may be any of many objects: it is read of each."""
        s = self._current
        found = []
        python = False
        for x in itertools.islice(self._inside(o), 101):
            if len(found) > 100:
                self.refuse(f"what a call gave may be any of more than {len(found)} objects")
                break
            if s is not None:
                s.awaited = None
            found.append(self.settled(what(x)))
            python |= s is not None and s.awaited is not None
        if python and s is not None:
            s.awaited = True  # Python code of any of them gives the result
        parts = [x for x in found if x is not MISSING]
        return Unknown(parts, opaque=python or None) if parts or python else FRESH

    @staticmethod
    def _inside(o: Unknown) -> Iterator[Any]:
        return (x for source in o.sources for x in callables.objects_in(source))

    def _of_new(self, o: Instance, name: str) -> Any:
        """An attribute of a new object, of which only the class is known."""
        found = lookup(o.of, name)
        self.note("class", o.of, name, found)
        if isinstance(found, types.FunctionType):
            self.reach(found)
            return Made(found.__code__, o.sources)
        if isinstance(found, property):
            return self._invoked(found.fget, [o])
        if isinstance(found, types.GetSetDescriptorType | types.MemberDescriptorType):
            return Unknown(o.sources)
        return self._bound(found, None, o.of, name)

    def _super(self, o: Any, name: str) -> Any:
        mro, me = o.__self_class__.__mro__, o.__self__
        for base in mro[mro.index(o.__thisclass__) + 1 :]:
            found = base.__dict__.get(name, MISSING)
            self.note("class attribute", base, name, found)
            if found is not MISSING:
                return self._bound(found, None if isinstance(me, type) else me, o.__self_class__, name)
        return Unknown()

    def _in_class(self, t: type, name: str) -> Any:
        """What ``name`` is in a class or its bases: a guard, or a number that may be a counter."""
        found = lookup(t, name)
        if type(found) not in _NUMBERS:
            self.note("class", t, name, found)
            return found
        for base in t.__mro__:
            if name in base.__dict__:
                return self._placed("class attribute", base, name, found)
            self.note("class attribute", base, name, MISSING)
        return found

    def _of_class(self, o: type, name: str) -> Any:
        if name == "__dict__":
            return o.__dict__
        meta = type(o)
        over = lookup(meta, name)
        if over is not MISSING and hasattr(type(over), "__set__"):  # a property of the metaclass
            self.note("class", meta, name, over)
            return self._bound(over, o, meta, name)
        found = self._in_class(o, name)
        if found is MISSING:
            self.note("class", meta, name, over)
            if over is not MISSING:
                return self._bound(over, o, meta, name)
            get = lookup(meta, "__getattr__")
            self.note("class", meta, "__getattr__", get)
            return MISSING if get is MISSING else self._invoked(get, [o, name])
        return self._bound(found, None, o, name)

    def _of_instance(self, o: Any, t: type, name: str, raw: bool = False) -> Any:
        outside = self.is_outside(o)
        user = not ours(t)
        if not outside:
            self._believe(o)
        get = lookup(t, "__getattribute__")
        if not isinstance(get, types.WrapperDescriptorType) and not raw:
            self.note("class", t, "__getattribute__", get)
            return self._invoked(get, [o, name])
        meta = lookup(t, name)
        if meta is not MISSING and hasattr(type(meta), "__set__"):
            if user:
                self.note("class", t, name, meta)
            if outside:
                self.note("attribute", o, "__class__", t)
            if isinstance(meta, types.MemberDescriptorType):
                value = getattr(o, name, MISSING)
                return self._placed("attribute", o, name, value) if outside else value
            if isinstance(meta, property) or isinstance(
                lookup(type(meta), "__get__"), types.FunctionType
            ):
                return self._bound(meta, o, t, name)
            if outside and callables.closed(o):
                self.refuse(
                    f".{name} of a {t.__name__} from outside is read, whose state cannot be followed",
                )
                return Unknown()
            value = getattr(o, name, MISSING)  # of C: nobody's code runs
            return self.note("attribute", o, name, value) if outside else value
        if issubclass(t, threading.local) and meta is MISSING:  # one for each thread
            return self.note("attribute", o, name, getattr(o, name, MISSING))
        attributes = _dict_of(o)
        if outside:
            self.note("attribute", o, "__class__", t)
            if attributes is not None:
                self._outside[id(attributes)] = attributes
                self.note("attribute", o, "__dict__", attributes)
        own = attributes is not None and name in attributes
        if user and not own:
            meta = self._in_class(t, name)
        elif user or meta is MISSING:
            self.note("class", t, name, meta)
        if user:
            self.note("class", t, "__getattribute__", get)
        if own:
            value = attributes[name]
            return self._placed("key", attributes, name, value) if outside else value
        if attributes is not None and outside and (id(attributes), name) not in self.written:
            self.note("key", attributes, name, MISSING)
        if meta is MISSING and isinstance(o, types.MethodType):
            return self.attribute(o.__func__, name)
        found = self._bound(meta, o, t, name)
        if found is MISSING and lookup(t, "__getattr__") is MISSING and hasattr(o, name):
            self.refuse(f".{name} of a {t.__name__} is given by C code that is not known here")
            return Unknown()
        return found

    def _bound(self, found: Any, o: Any, t: type, name: str) -> Any:
        """What a class attribute becomes when it is read of ``o``, or of the class itself."""
        if isinstance(found, Counted):
            return found
        if found is MISSING:
            if o is None:
                return Unknown()
            get = lookup(t, "__getattr__")
            if not ours(t):
                self.note("class", t, "__getattr__", get)
            return MISSING if get is MISSING else self._invoked(get, [o, name])
        if isinstance(found, staticmethod):
            self.reach(found.__func__)
            return found.__func__
        if isinstance(found, classmethod):
            self.reach(found.__func__)
            return types.MethodType(found.__func__, t)
        if isinstance(found, types.FunctionType):
            return found if o is None else types.MethodType(found, o)
        if isinstance(found, property):
            return found if o is None else self._invoked(found.fget, [o])
        get = lookup(type(found), "__get__")
        if get is MISSING:
            return found
        if isinstance(get, types.FunctionType):
            self.reach(found)
            self.note("class", type(found), "__get__", get)
            return self._awaiting(get)
        if not isinstance(get, types.WrapperDescriptorType):
            return self._invoked(get, [found, o, t])
        if callables.is_known_descriptor(found):
            return found.__get__(o, t)  # of C: nobody's code runs
        self.refuse(f"an attribute of {t.__name__} is computed by C code that is not known here")
        return Unknown()

    def _invoked(self, f: Any, args: list[Any]) -> Any:
        """What C code gives that is about to call ``f``: for a property, or a special method."""
        if isinstance(f, types.FunctionType) or f is MISSING or f is None:
            return self._awaiting(f)
        return self.settled(self.call(f, args, {}))

    def _awaiting(self, function: Any) -> Any:
        """The result of a Python function that this instruction is about to call."""
        s = self._current
        if s is not None and isinstance(function, types.MethodType):
            function = function.__func__
        if s is not None and isinstance(function, types.FunctionType):
            if function.__code__.co_flags & inspect.CO_GENERATOR:
                return Generated(function.__code__)
            s.awaited = function.__code__
            s.callee = function
        return Unknown()

    def item(self, o: Any, key: Any) -> Any:
        """``o[key]``; what is known of the value."""
        if o is FRESH or isinstance(o, Tensor | str | bytes):
            self.content(key)
            return FRESH
        if isinstance(o, Mark):
            self.content(key)
            self._see_into(o, "an item")
            self.content(o)
            if isinstance(o, Unknown) and self._current is not None:
                inside = [x for y in o.sources for x in callables.objects_in(y, True)]
                if any(map(callables.computes_items, inside)):
                    self._current.awaited = True
                    return Unknown()
            return FRESH if o is METHOD else o
        t = type(o)
        if isinstance(o, type):
            get = lookup(type(o), "__getitem__")
            if get is MISSING:
                get = self._of_class(o, "__class_getitem__")
                return self._awaiting(get)
            return self._awaiting(get)
        get = lookup(t, "__getitem__")
        if isinstance(get, types.FunctionType):
            if not ours(t):
                self.note("class", t, "__getitem__", get)
            if ours(get) and isinstance(o, Module):
                self.reach(o)
                with contextlib.suppress(Exception):
                    return operator.getitem(o, key)  # its modules are guarded as a whole
            return self._awaiting(get)
        plain = type(key) in SCALARS or isinstance(key, type | types.FunctionType)
        if type(key) is tuple:
            plain = all(type(k) in SCALARS for k in key)
        outside = self.is_outside(o)
        if not outside:
            self._believe(o)
        if isinstance(o, dict) and not isinstance(key, Mark):
            self.reach(key) if not plain else None
            if not (plain or self.is_outside(key)):
                self.content(key)
                self.content(o)
                return Unknown([o])
            return self._key(o, key, outside)
        if isinstance(o, list | tuple | collections.deque) and type(key) is int:
            if id(o) in self.appended:
                self.refuse("a list is read after the step appended to it", "read it before")
            try:
                value = o[key]
            except IndexError:
                self.content(o)
                return Unknown()
            if outside and type(o) is not tuple:
                if key < 0 or isinstance(o, collections.deque):
                    self.note("length", o, None, len(o))
                return self._placed("item", o, key, value)
            self.reach(value) if outside else None
            return value
        if isinstance(o, (*CONTAINERS, *BUFFERS, np.ndarray, range, np.generic)):
            self.content(o)
            self.content(key)
            return Unknown([o]) if isinstance(o, CONTAINERS) else FRESH
        if outside and callables.closed(o):
            self.content(o)
            return Unknown()
        self.content(o, deep=True)
        self.content(key)
        return Unknown([o])

    def _see_into(self, o: Any, what: str) -> None:
        """Refuse to read of what may be anything."""
        if not isinstance(o, Unknown):
            return
        known = isinstance(o, Generated | Made) or (what == "the content" and o.computed)
        if o.opaque and not known:
            self.refuse(
                f"{what} is read of the result of a call that cannot be seen into",
                "give the result a name first",
            )

    def _key(self, o: dict[Any, Any], key: Any, outside: bool) -> Any:
        t = type(o)
        value = dict.get(o, key, MISSING)
        if outside and t is not dict:
            self.note("attribute", o, "__class__", t)
        if value is MISSING:
            if outside:
                self.note("key", o, key, MISSING)
            missing = lookup(t, "__missing__")
            if missing is not MISSING:
                self.note("class", t, "__missing__", missing)
                if isinstance(missing, types.FunctionType):
                    return self._awaiting(missing)
                if outside:
                    self.changes(o, "an entry")  # a defaultdict makes one
            return Unknown()
        return self._placed("key", o, key, value) if outside else value

    def named(self, frame: Any, name: str, names: Any = None) -> Any:
        """A global name, or one of a class body or of ``exec``."""
        space = frame.f_globals
        if names is not None and names is not space:
            if name in names:
                value = names[name]
                if self.is_outside(names):
                    return self._placed("key", names, name, value)
                return value
            if self.is_outside(names):
                self.note("key", names, name, MISSING)
        value = space.get(name, MISSING)
        if self.is_outside(space):
            if value is not MISSING:
                return self._placed("key", space, name, value)
            self.note("key", space, name, MISSING)
        if value is not MISSING:
            return value
        builtin = frame.f_builtins
        self._outside[id(builtin)] = builtin
        return self.note("key", builtin, name, builtin.get(name, MISSING))

    def iterate(self, o: Any) -> Any:
        """``iter(o)`` is followed by ``next``; the iterator, as far as it is known."""
        if o is FRESH or isinstance(o, Tensor):
            return FRESH
        if isinstance(o, Unknown):
            self._see_into(o, "an element")
            for source in o.sources:
                self.entries(source)
            return o
        t = type(o)
        if hasattr(t, "__next__"):
            if self.is_outside(o):
                self.refuse(
                    f"an iterator from outside ({t.__name__}) moves on, which a replay would not do",
                    "take the element outside, and pass it as an argument",
                )
            else:
                self._believe(o)
            return o
        get = lookup(t, "__iter__")
        if isinstance(get, types.FunctionType):
            if not ours(t):
                self.note("class", t, "__iter__", get)
            return self._awaiting(get)
        if get is MISSING and isinstance(lookup(t, "__getitem__"), types.FunctionType):
            self.note("class", t, "__iter__", MISSING)
            self.note("class", t, "__getitem__", lookup(t, "__getitem__"))
            return Unknown([o])
        self.entries(o)
        return FRESH if isinstance(o, str | bytes | range) else Unknown([o])

    def special(self, o: Any, *names: str) -> None:
        """C looks up special methods in the class of ``o``: those that are not there count too."""
        t = type(o)
        if t in SCALARS or isinstance(o, Mark) or ours(t) or t in callables.STATELESS:
            return
        if isinstance(o, CONTAINERS) and t.__module__ in ("builtins", "collections"):
            return
        for name in names:
            self.note("class", t, name, lookup(t, name))

    # --- calls ----------------------------------------------------------------------------------

    def call(self, f: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """What a call reads; what is known of its result."""
        while isinstance(f, functools.partial):
            if self.is_outside(f):
                self._root(f)
            args, kwargs, f = [*f.args, *args], {**f.keywords, **kwargs}, f.func
            for x in (*args, *kwargs.values()):
                if not isinstance(x, Mark | Tensor):
                    self.reach(x) if self.is_outside(f) else None
        if isinstance(f, types.MethodType):
            f, args = f.__func__, [f.__self__, *args]
        given = [*args, *kwargs.values()]
        if isinstance(f, types.FunctionType):
            return self._python(f, args, given)
        if isinstance(f, Mark):
            if not (isinstance(f, Made) and f.code is not None):
                for x in given:
                    self.content(x)
            if f is METHOD:
                return callables.made_of(given)  # of a tensor, or of a value made by the step
            if isinstance(f, Unknown) and not isinstance(f, Made):
                self._see_into(f, "a call")
                return self._of_each(
                    f, lambda x: self.call(x, args, kwargs) if callable(x) else MISSING
                )
            code = f.code if isinstance(f, Made) else None
            if code is not None and code.co_flags & inspect.CO_GENERATOR:
                return Generated(code)
            s = self._current
            if s is not None:
                s.awaited = code or True
                s.must_enter = "something is called that cannot be seen into"
            return Unknown()
        if isinstance(f, type):
            return self._instance(f, args, kwargs, given)
        if callables.is_c(f):
            return callables.called(self, f, args, kwargs)
        python = lookup(type(f), "__call__")
        if isinstance(python, types.FunctionType):
            if not ours(type(f)):
                self.note("class", type(f), "__call__", python)
            return self._python(python, [f, *args], [f, *given])
        return callables.called(self, f, args, kwargs)

    def _python(self, f: types.FunctionType, args: list[Any], given: list[Any]) -> Any:
        if not ours(f):
            if self.is_outside(f):
                self.reach(f)
            if (f.__module__, f.__qualname__) in callables.UNFOLLOWED:
                return callables.asked_again(self, f, args)
            return self._awaiting(f)
        why = callables.refused_of_the_engine(f)
        if why:
            self.refuse(why)
        if f.__module__ in callables.ASKED_AGAIN:
            return callables.asked_again(self, f, args)
        for x in given:
            if isinstance(x, Unknown):
                self.content(x)
            elif isinstance(x, Tensor | Module | Optimizer | Generator | Mark):
                self.reach(x) if self.is_outside(x) else None
            elif isinstance(x, np.ndarray):
                self.content(x)
            elif ours(type(x)) and self.is_outside(x):
                d = _dict_of(x)
                if d is not None:  # the engine reads what it likes of its own object
                    self._outside[id(d)] = d
                    for name, value in list(d.items()):
                        self.note("key", d, name, value)
                        if isinstance(value, CONTAINERS):
                            self.content(value)
            elif hasattr(type(x), "__next__"):
                self.iterate(x)
            else:
                self.content(x)
                if isinstance(x, types.FunctionType | types.MethodType | functools.partial):
                    self.reach(x)
        return self._awaiting(f)

    def _instance(
        self, f: type, args: list[Any], kwargs: dict[str, Any], given: list[Any]
    ) -> Any:
        meta = lookup(type(f), "__call__")
        if isinstance(meta, types.FunctionType):
            self.note("class", type(f), "__call__", meta)
            return self._awaiting(meta)
        if f is super:
            return self._new_super(args)
        if f is type and len(args) == 1:
            if isinstance(args[0], Unknown):
                return self._of_each(args[0], self._type_of)
            return FRESH if isinstance(args[0], Mark) else self._type_of(args[0])
        if ours(f):
            why = callables.refused_of_the_engine(f)
            if why:
                self.refuse(why)
            for x in given:
                self.iterate(x) if hasattr(type(x), "__next__") else self.content(x)
            return callables.made_of(given)
        new, init = lookup(f, "__new__"), lookup(f, "__init__")
        if isinstance(new, staticmethod):
            new = new.__func__
        python = isinstance(new, types.FunctionType), isinstance(init, types.FunctionType)
        if any(python):
            self.note("class", f, "__new__", lookup(f, "__new__"))
            self.note("class", f, "__init__", init)
            self.reach(new)
            self.reach(init)
            if python[0]:  # it may give what was there before: a singleton
                return self._awaiting(new)
            for x in given:
                if isinstance(x, list | tuple | dict):
                    self._look_into(x, False)
            found = self._awaiting(init)
            if self._current is not None:
                self._current.awaited, self._current.making = None, True
            del found
            return Instance(f)
        return callables.constructed(self, f, args, kwargs, given)

    def _type_of(self, o: Any) -> Any:
        if self.is_outside(o):
            self.note("attribute", o, "__class__", type(o))
        return type(o)

    def _new_super(self, args: list[Any]) -> Any:
        with contextlib.suppress(Exception):
            if not args:
                names, found = self._now.f_code.co_varnames, self._now.f_locals
                return super(found["__class__"], found[names[0]])
            return super(*args)
        return Unknown()

    # --- writes by name and by key ----------------------------------------------------------------

    def stores_attribute(self, o: Any, name: str, value: Any, raw: bool = False) -> None:
        """``o.name = value``. raw: past the ``__setattr__`` of the class."""
        if isinstance(o, Mark | Tensor):
            self.settled(value)
            if isinstance(o, Unknown) and not isinstance(o, Instance):
                self.changes(o, f".{name}")
            return
        t = type(o)
        if isinstance(o, types.ModuleType):
            self.write("key", vars(o), name, o, f".{name}", value)
            return
        if isinstance(o, type):
            if type(value) in _NUMBERS or isinstance(value, Counted):
                self.write("class attribute", o, name, o, f".{name}", value)
            elif id(o) in self._outside:
                self.changes(o, f".{name}")
            return
        custom = lookup(t, "__setattr__")
        if not raw and custom is not object.__setattr__ and not ours(custom):
            self.note("class", t, "__setattr__", custom)
            value = self.settled(value)
            self._invoked(custom, [o, name, value])
            return
        meta = lookup(t, name)
        if meta is not MISSING and hasattr(type(meta), "__set__"):
            if not ours(t):
                self.note("class", t, name, meta)
            if isinstance(meta, types.MemberDescriptorType):
                self.write("attribute", o, name, o, f".{name}", value)
                return
            self.settled(value)
            python = isinstance(meta, property) or isinstance(
                lookup(type(meta), "__set__"), types.FunctionType
            )
            if not python or ours(t):
                self.changes(o, f".{name}")
            return
        attributes = _dict_of(o)
        if attributes is None or (isinstance(o, Optimizer) and ours(t)):
            self.settled(value)
            self.changes(o, f".{name}")
            return
        if isinstance(o, Module) and isinstance(attributes.get(name), Tensor | Module):
            if isinstance(attributes[name], Module) or type(attributes[name]) is not Tensor:
                self.settled(value)
                self.changes(o, f".{name}")
                return
        self.write("key", attributes, name, o, f".{name}", value)

    def stores_item(self, o: Any, key: Any, value: Any, raw: bool = False) -> None:
        """``o[key] = value``. raw: past the ``__setitem__`` of the class."""
        if isinstance(o, Mark | Tensor):
            self.settled(value)
            if isinstance(o, Unknown):
                self.changes(o, "an item")
            return
        custom = lookup(type(o), "__setitem__")
        if isinstance(custom, types.FunctionType) and not raw:
            self.settled(value)
            if not ours(custom):
                self.note("class", type(o), "__setitem__", custom)
            elif self.is_outside(o):
                self.changes(o, "an item")
            return
        if isinstance(o, dict) and (type(key) in SCALARS or self.is_outside(key)):
            self.write("key", o, key, o, f"[{key!r:.40}]", value)
        elif isinstance(o, list | collections.deque) and type(key) is int:
            self.write("item", o, key, o, f"[{key}]", value)
        else:
            self.settled(value)
            self.changes(o, "an item")

    # --- following the frames -------------------------------------------------------------------

    def entered(self, frame: Any) -> None:
        """A Python function begins that is not the engine's."""
        caller = self.shadows.get(id(frame.f_back))
        code = frame.f_code
        if code.co_flags & 0x380:  # coroutines, and generators driven by an event loop
            self._now = frame
            self.refuse(f"{code.co_name} is a coroutine", "call ordinary functions")
        function = None
        if caller is not None:
            caller.must_enter = None
            if caller.callee is not None and caller.callee.__code__ is code:
                function = caller.callee
                if caller.making and caller.slot < len(caller.stack):
                    caller.stack[caller.slot] = frame.f_locals.get(code.co_varnames[0], FRESH)
        cells = self._cells_of(frame, code, function, caller)
        if caller is None and function is None and code not in self._inner:
            # Called by the engine or by C: a hook, say. Its arguments may be anything.
            count = code.co_argcount + code.co_kwonlyargcount
            for name in code.co_varnames[:count]:
                x = frame.f_locals.get(name)
                if not isinstance(x, Tensor | list | tuple | dict):
                    self.reach(x)
        space = frame.f_globals
        module = sys.modules.get(str(space.get("__name__")))
        if module is not None and vars(module) is space:
            self._outside[id(space)] = space
        if code.co_argcount and code.co_name.startswith("__"):
            t = type(frame.f_locals.get(code.co_varnames[0]))
            found = lookup(t, code.co_name)
            if getattr(found, "__code__", None) is code and not ours(t):
                self.note("class", t, code.co_name, found)
        self.shadows[id(frame)] = Shadow(frame, cells)

    def _cells_of(
        self, frame: Any, code: Any, function: Any, caller: Shadow | None
    ) -> dict[str, list[Any]]:
        """The cells from outside that each free variable may be."""
        if function is not None:
            known = [function]
        else:
            known = list(self._functions.get(code, ()))
            if not known and code not in self._inner and code.co_flags & inspect.CO_OPTIMIZED:
                known = [f for f in gc.get_referrers(code) if type(f) is types.FunctionType]
                for f in known:
                    self.reach(f)
        cells: dict[str, list[Any]] = {name: [] for name in code.co_freevars}
        for f in known:
            for name, cell in zip(code.co_freevars, f.__closure__ or ()):
                if id(cell) in self._outside:
                    cells[name].append(cell)
        for made in self._inner.get(code, ()):
            for name in code.co_freevars:
                cells[name] += made.get(name, [])
        return cells

    def around(self, s: Shadow, name: str) -> Any:
        """A variable of a function around the body of a class."""
        cells = s.cells.get(name, ())
        if len(cells) == 1:
            return _content(cells[0])
        maker = self._makers.get(s.code)
        found = MISSING if maker is None or cells else maker.f_locals.get(name, MISSING)
        return Unknown() if found is MISSING else found

    def resumed(self, frame: Any) -> None:
        """A generator goes on."""
        caller = self.shadows.get(id(frame.f_back))
        if caller is not None:
            caller.must_enter = None
        if id(frame) not in self.shadows:
            self._now = frame
            self.refuse(
                f"the generator {frame.f_code.co_name} from outside moves on, which a replay would not do",
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
        self._now, self._current = frame, s
        s.told = -1
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
        if name in UNTOUCHED and name not in _HANDLED:
            return
        handler = _HANDLERS.get(name)
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
        if self._unwinds(s, last, offset):
            s.given = MISSING
            return
        if last.name == "FOR_ITER":
            if falls:
                iterator = s.stack[-1] if s.stack else FRESH
                if s.given is not MISSING and s.awaited is not None:
                    s.stack.append(s.given)
                else:
                    s.stack.append(iterator if isinstance(iterator, Mark) else Unknown([iterator]))
            elif s.stack:
                s.pop()
            s.given = MISSING
            return
        s.given = MISSING
        if (last.name.endswith("_OR_POP") and falls) or (
            last.name == "SEND" and not falls and sys.version_info < (3, 12)
        ):
            s.pop()

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
        for x in taken:
            self.content(x)
        outside = [
            x
            for x in taken
            if not isinstance(x, Tensor) and type(x) not in SCALARS and x is not FRESH
        ]
        s.stack += [Unknown(outside) if outside else FRESH for _ in range(known[1])]

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


_ENGINE = (
    "tensorgrad.tape", "tensorgrad.replay", "tensorgrad.tensor", "tensorgrad.ops",
    "tensorgrad.backend", "tensorgrad.dtypes", "tensorgrad.autograd", "tensorgrad.nn",
    "tensorgrad.program", "tensorgrad.errors", "tensorgrad.files", "tensorgrad.optim.optimizer",
    "tensorgrad.optim.update", "tensorgrad.optim.sgd", "tensorgrad.optim.adam",
    "tensorgrad.optim.adaptive", "tensorgrad.optim.further", "tensorgrad.optim.layerwise",
    "tensorgrad.optim.clip", "tensorgrad.optim.average", "tensorgrad.profiler",
)  # fmt: skip
#: Packages whose Python code is not followed: what they do to a step is known, or nothing.
_SKIPPED = frozenset(
    words(
        "numpy ml_dtypes cupy cupyx importlib _frozen_importlib _frozen_importlib_external "
        "logging warnings linecache traceback re sre_compile sre_parse sre_constants tokenize"
    )
)


@functools.lru_cache(4096)
def is_engine(name: str) -> bool:
    """Whether the code of a module of this name is not followed.

    Of this package that is the engine: what it reads is guarded by ``guards.py``. Schedules, data and
    the trainer are code like any other.
    """
    top = name.partition(".")[0]
    if top == "tensorgrad":
        return name == top or any(name == e or name.startswith(e + ".") for e in _ENGINE)
    return top in _SKIPPED


def ours(thing: Any) -> bool:
    """Whether a function or a class belongs to the engine, or to what is not followed like it."""
    return is_engine(str(getattr(thing, "__module__", "")))


def _dict_of(o: Any) -> Any:
    try:
        return object.__getattribute__(o, "__dict__")
    except AttributeError:
        return None


# --- the instructions -----------------------------------------------------------------------------

_Handler = Callable[[Reads, Shadow, Instruction], None]
_HANDLERS: dict[str, _Handler] = {}
_HANDLED = frozenset({"KW_NAMES", "CALL_INTRINSIC_1"})


def _handles(*names: str) -> Callable[[_Handler], _Handler]:
    def enter(handler: _Handler) -> _Handler:
        _HANDLERS.update(dict.fromkeys(names, handler))
        return handler

    return enter


@_handles("LOAD_FAST", "LOAD_FAST_CHECK", "LOAD_FAST_AND_CLEAR", "LOAD_FAST_LOAD_FAST")
def _load_fast(r: Reads, s: Shadow, ins: Instruction) -> None:
    found = s.frame.f_locals
    for name in ins.value if isinstance(ins.value, tuple) else (ins.value,):
        s.stack.append(found.get(name, FRESH))


@_handles("STORE_FAST_LOAD_FAST")
def _store_load(r: Reads, s: Shadow, ins: Instruction) -> None:
    value = r.value(s)  # the local has it only after this instruction
    stored, loaded = ins.value
    s.stack.append(value if stored == loaded else s.frame.f_locals.get(loaded, FRESH))


@_handles("STORE_FAST", "POP_TOP", "RETURN_VALUE")
def _store_fast(r: Reads, s: Shadow, ins: Instruction) -> None:
    value = s.pop()
    if ins.name != "POP_TOP":
        r.settled(value)


@_handles("YIELD_VALUE")
def _yield_value(r: Reads, s: Shadow, ins: Instruction) -> None:
    r.value(s)
    s.stack.append(FRESH)  # what is sent, by a frame that is followed or by nobody


@_handles("LOAD_CONST")
def _load_const(r: Reads, s: Shadow, ins: Instruction) -> None:
    # From this very code: equal code objects share a listing, and what they contain is not the same.
    value = s.code.co_consts[ins.arg]
    if type(value) in (tuple, frozenset):
        r.reach(value)
    s.stack.append(value)


@_handles("LOAD_GLOBAL")
def _load_global(r: Reads, s: Shadow, ins: Instruction) -> None:
    null = bool(ins.arg & 1)
    if null and sys.version_info < (3, 13):
        s.stack.append(NULL)
    s.slot = len(s.stack)
    s.stack.append(r.named(s.frame, ins.value))
    if null and sys.version_info >= (3, 13):
        s.stack.append(NULL)


@_handles("LOAD_NAME")
def _load_name(r: Reads, s: Shadow, ins: Instruction) -> None:
    s.stack.append(r.named(s.frame, ins.value, s.frame.f_locals))


@_handles("LOAD_FROM_DICT_OR_GLOBALS")
def _load_from_dict(r: Reads, s: Shadow, ins: Instruction) -> None:
    names = r.value(s)
    s.stack.append(
        r.named(s.frame, ins.value, names if isinstance(names, dict) else s.frame.f_locals)
    )


@_handles("LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF")
def _load_deref(r: Reads, s: Shadow, ins: Instruction) -> None:
    if ins.name == "LOAD_FROM_DICT_OR_DEREF":
        s.pop()
    value = s.frame.f_locals.get(ins.value, MISSING)
    if value is MISSING:  # in the body of a class, which has no place for it
        value = r.around(s, ins.value)
    for cell in s.cells.get(ins.value, ()):
        if _content(cell) is value:
            value = r._placed("cell", cell, None, value)
            value_ = r.settled(value) if len(s.cells[ins.value]) > 1 else value
            value = value_
    s.stack.append(value)


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING


@_handles("STORE_DEREF")
def _store_deref(r: Reads, s: Shadow, ins: Instruction) -> None:
    value = s.pop()
    cells = s.cells.get(ins.value, ())
    if len(cells) > 1:
        r.refuse(
            f"the variable {ins.value!r} of a function around is changed, which cannot be told apart"
        )
    for cell in cells:
        r.write("cell", cell, None, cell, f"the variable {ins.value!r}", value)
    if not cells:
        r.settled(value)


@_handles("STORE_GLOBAL")
def _store_global(r: Reads, s: Shadow, ins: Instruction) -> None:
    r.write(
        "key", s.frame.f_globals, ins.value, s.frame.f_globals, f"the global {ins.value!r}", s.pop()
    )


@_handles("STORE_NAME")
def _store_name(r: Reads, s: Shadow, ins: Instruction) -> None:
    names = s.frame.f_locals
    r.write("key", names, ins.value, names, f"the name {ins.value!r}", s.pop())


@_handles("DELETE_GLOBAL", "DELETE_NAME")
def _delete_name(r: Reads, s: Shadow, ins: Instruction) -> None:
    r.changes(s.frame.f_globals if ins.name == "DELETE_GLOBAL" else s.frame.f_locals, "a name")


@_handles("DELETE_DEREF")
def _delete_deref(r: Reads, s: Shadow, ins: Instruction) -> None:
    for cell in s.cells.get(ins.value, ()):
        r.changes(cell, f"the variable {ins.value!r}")


@_handles("LOAD_ATTR", "LOAD_METHOD")
def _load_attr(r: Reads, s: Shadow, ins: Instruction) -> None:
    null = ins.name == "LOAD_METHOD" or (sys.version_info >= (3, 12) and bool(ins.arg & 1))
    o = r.value(s)
    if null and sys.version_info < (3, 13):
        s.stack.append(NULL)
    s.slot = len(s.stack)
    s.stack.append(r.attribute(o, ins.value))
    if null and sys.version_info >= (3, 13):
        s.stack.append(NULL)


@_handles("LOAD_SUPER_ATTR")
def _load_super_attr(r: Reads, s: Shadow, ins: Instruction) -> None:
    _, cls, o = r.values(s, 3)
    null = bool(ins.arg & 1)
    if null and sys.version_info < (3, 13):
        s.stack.append(NULL)
    s.slot = len(s.stack)
    known = isinstance(cls, type) and not isinstance(o, Mark)
    s.stack.append(r.attribute(super(cls, o), ins.value) if known else Unknown())
    if null and sys.version_info >= (3, 13):
        s.stack.append(NULL)


@_handles("STORE_ATTR")
def _store_attr(r: Reads, s: Shadow, ins: Instruction) -> None:
    o = r.value(s)
    r.stores_attribute(o, ins.value, s.pop())


@_handles("DELETE_ATTR")
def _delete_attr(r: Reads, s: Shadow, ins: Instruction) -> None:
    r.changes(r.value(s), f".{ins.value}")


@_handles("BINARY_SUBSCR")
def _binary_subscr(r: Reads, s: Shadow, ins: Instruction) -> None:
    o, key = r.values(s, 2)
    s.slot = len(s.stack)
    s.stack.append(r.item(o, key))


@_handles("BINARY_SLICE")
def _binary_slice(r: Reads, s: Shadow, ins: Instruction) -> None:
    o, a, b = r.values(s, 3)
    for x in (a, b):
        r.content(x)
    s.slot = len(s.stack)
    s.stack.append(r.item(o, FRESH))


@_handles("STORE_SUBSCR")
def _store_subscr(r: Reads, s: Shadow, ins: Instruction) -> None:
    o, key = r.values(s, 2)
    r.stores_item(o, key, s.pop())


@_handles("STORE_SLICE")
def _store_slice(r: Reads, s: Shadow, ins: Instruction) -> None:
    _, o, _, _ = r.values(s, 4)
    r.changes(o, "a slice")


@_handles("DELETE_SUBSCR")
def _delete_subscr(r: Reads, s: Shadow, ins: Instruction) -> None:
    o, _ = r.values(s, 2)
    if not isinstance(lookup(type(o), "__delitem__"), types.FunctionType):
        r.changes(o, "an item")


@_handles("BINARY_OP")
def _binary_op(r: Reads, s: Shadow, ins: Instruction) -> None:
    b, a = r.settled(s.pop()), s.pop()
    symbol = _operations()[ins.arg]
    plain = symbol.rstrip("=")
    s.slot = len(s.stack)
    if isinstance(a, Counted):
        if plain in ("+", "-", "*") and type(b) in _NUMBERS:
            function = _BY_OPERATION[plain]
            s.stack.append(Counted(a.place, function(a.now, b), (*a.steps, (function, b)), a.where))
            return
        a = r.settled(a)
    function = _BY_OPERATION.get(plain)
    if function is not None and _is_plain(a) and _is_plain(b):
        try:
            s.stack.append(function(a, b))
        except Exception:  # the step is about to raise the same
            s.stack.append(FRESH)
        return
    inplace = symbol.endswith("=")
    dunder = _DUNDERS[plain]
    r.special(a, f"__{dunder}__", *([f"__i{dunder}__"] if inplace else []))
    r.special(b, f"__r{dunder}__")
    if inplace and isinstance(a, list | set | dict | collections.deque | np.ndarray | bytearray):
        r.changes(a, "the content")
    r.content(a)
    r.content(b)
    if isinstance(a, decimal.Decimal) or isinstance(b, decimal.Decimal):
        callables.ask_again(r, callables.decimal_context)
    if isinstance(a, str | bytes) or all(x is FRESH or _is_number(x) for x in (a, b)):
        s.stack.append(FRESH)
        return
    s.awaited = True  # by way of __add__ or __radd__, whichever gives the result
    lists = [x for x in (a, b) if isinstance(x, CONTAINERS) or isinstance(x, Unknown)]
    s.stack.append(Unknown(lists) if lists else FRESH)


@functools.cache
def _operations() -> list[str]:
    import dis

    return [symbol for _, symbol in dis._nb_ops]  # type: ignore[attr-defined]


def _is_number(x: Any) -> bool:
    return type(x) in (int, float, bool, complex, type(None))


def _is_plain(x: Any) -> bool:
    return type(x) in (int, float, bool, str) and (type(x) is not str or len(x) < 10_000)


@_handles("COMPARE_OP")
def _compare_op(r: Reads, s: Shadow, ins: Instruction) -> None:
    a, b = r.values(s, 2)
    symbol = str(ins.value).removeprefix("bool(").removesuffix(")")
    for x in (a, b):
        r.special(x, *_COMPARED.get(symbol, ()))
        r.content(x)
    s.slot, s.awaited = len(s.stack), True
    s.stack.append(FRESH)


@_handles("IS_OP")
def _is_op(r: Reads, s: Shadow, ins: Instruction) -> None:
    # Which objects they are is known by the guards that led to them; not so of unnamed ones.
    for x, other in zip(pair := r.values(s, 2), pair[::-1]):
        if isinstance(x, Unknown) and not isinstance(x, Made | Generated):
            r.content(x)
            if other is not None and other is not FRESH:
                r.refuse("it is asked which object the result of a call is", "give it a name first")
    s.stack.append(FRESH)


@_handles("CONTAINS_OP")
def _contains_op(r: Reads, s: Shadow, ins: Instruction) -> None:
    x, o = r.values(s, 2)
    r.special(o, "__contains__", "__iter__")
    if (
        isinstance(o, dict)
        and type(o).__contains__ is dict.__contains__
        and r.is_outside(o)
        and type(x) in SCALARS
    ):
        r.note("has", o, x, x in o)
    elif hasattr(type(o), "__next__"):
        r.iterate(o)
    else:
        r.content(o)
        r.content(x)
    s.stack.append(FRESH)


def _truth(r: Reads, x: Any) -> None:
    r.special(x, "__bool__", "__len__")
    r.content(x)


@_handles("UNARY_NOT", "TO_BOOL", "UNARY_NEGATIVE", "UNARY_POSITIVE", "UNARY_INVERT")
def _unary(r: Reads, s: Shadow, ins: Instruction) -> None:
    x = r.value(s)
    if ins.name in ("UNARY_NOT", "TO_BOOL"):
        _truth(r, x)
        # What a bool is made of stays known: a test of it must not be taken for something new.
        s.stack.append(FRESH)
        return
    s.slot = len(s.stack)
    if type(x) in _NUMBERS and ins.name == "UNARY_NEGATIVE":
        s.stack.append(-x)
        return
    r.special(
        x,
        f"__{ {'UNARY_NEGATIVE': 'neg', 'UNARY_POSITIVE': 'pos', 'UNARY_INVERT': 'invert'}[ins.name] }__",
    )
    r.content(x)
    if isinstance(x, decimal.Decimal):
        callables.ask_again(r, callables.decimal_context)
    s.awaited = True
    s.stack.append(FRESH)


def _jump_if(r: Reads, s: Shadow, ins: Instruction) -> None:
    if "NONE" in ins.name:
        r.value(s)
    elif ins.name.endswith("_OR_POP"):
        x = r.settled(s.stack[-1]) if s.stack else FRESH
        if s.stack:
            s.stack[-1] = x
        _truth(r, x)
    else:
        _truth(r, r.value(s))


_HANDLERS.update(
    dict.fromkeys(
        [
            f"{a}JUMP{b}_IF_{c}"
            for a in ("POP_", "")
            for b in ("", "_FORWARD", "_BACKWARD")
            for c in ("TRUE", "FALSE", "NONE", "NOT_NONE", "TRUE_OR_POP", "FALSE_OR_POP")
        ],
        _jump_if,
    )
)


@_handles("GET_ITER", "GET_YIELD_FROM_ITER")
def _get_iter(r: Reads, s: Shadow, ins: Instruction) -> None:
    o = r.value(s)
    s.slot = len(s.stack)
    s.stack.append(r.iterate(o))


@_handles("FOR_ITER")
def _for_iter(r: Reads, s: Shadow, ins: Instruction) -> None:
    iterator = s.stack[-1] if s.stack else FRESH
    s.given, s.slot = MISSING, len(s.stack)  # beyond the stack: it is put there by _after
    if isinstance(iterator, types.GeneratorType):
        s.awaited = iterator.gi_code
    elif isinstance(iterator, Generated):
        s.awaited = iterator.code
    elif not isinstance(iterator, Mark):
        following = lookup(type(iterator), "__next__")
        if isinstance(following, types.FunctionType):
            s.awaited, s.callee = following.__code__, following
        if r.is_outside(iterator):
            r.iterate(iterator)


@_handles("SEND")
def _send(r: Reads, s: Shadow, ins: Instruction) -> None:
    r.value(s)
    receiver = s.stack[-1] if s.stack else FRESH
    if not isinstance(receiver, Mark) and r.is_outside(receiver):
        r.iterate(receiver)
    s.slot = len(s.stack)
    if isinstance(receiver, types.GeneratorType):
        s.awaited = receiver.gi_code
    s.stack.append(receiver if isinstance(receiver, Unknown) else Unknown([receiver]))


@_handles("COPY")
def _copy(r: Reads, s: Shadow, ins: Instruction) -> None:
    if len(s.stack) < ins.arg:
        raise LostError("COPY")
    s.stack[-ins.arg] = r.settled(s.stack[-ins.arg])
    s.stack.append(s.stack[-ins.arg])


@_handles("SWAP")
def _swap(r: Reads, s: Shadow, ins: Instruction) -> None:
    if len(s.stack) < ins.arg:
        raise LostError("SWAP")
    s.stack[-1], s.stack[-ins.arg] = s.stack[-ins.arg], s.stack[-1]


@_handles("PUSH_NULL")
def _push_null(r: Reads, s: Shadow, ins: Instruction) -> None:
    s.stack.append(NULL)


@_handles("BUILD_TUPLE", "BUILD_LIST")
def _build(r: Reads, s: Shadow, ins: Instruction) -> None:
    # A likeness of the new container, in which what is known of its parts stays known.
    parts = r.values(s, ins.arg)
    s.stack.append(tuple(parts) if ins.name == "BUILD_TUPLE" else parts)


@_handles("LIST_TO_TUPLE")
def _list_to_tuple(r: Reads, s: Shadow, ins: Instruction) -> None:
    x = r.value(s)
    s.stack.append(tuple(x) if isinstance(x, list) else x)


@_handles("BUILD_MAP")
def _build_map(r: Reads, s: Shadow, ins: Instruction) -> None:
    parts = r.values(s, 2 * ins.arg)
    s.stack.append(_likeness(parts[::2], parts[1::2]))


@_handles("BUILD_CONST_KEY_MAP")
def _build_const_key_map(r: Reads, s: Shadow, ins: Instruction) -> None:
    keys = r.value(s)
    s.stack.append(_likeness(keys, r.values(s, ins.arg)))


def _likeness(keys: Sequence[Any], values: Sequence[Any]) -> Any:
    if any(isinstance(k, Mark) or type(k) not in SCALARS for k in keys):
        return Unknown([x for x in (*keys, *values) if not isinstance(x, Mark)])
    return dict(zip(keys, values))


@_handles("BUILD_SET", "BUILD_STRING", "BUILD_SLICE")
def _build_other(r: Reads, s: Shadow, ins: Instruction) -> None:
    parts = r.values(s, ins.arg)
    if ins.name != "BUILD_SET":
        if ins.name == "BUILD_SLICE" and all(_is_number(x) for x in parts):
            s.stack.append(slice(*parts))
            return
        s.stack.append(FRESH)
        return
    s.stack.append(Unknown([x for x in parts if not isinstance(x, Mark)]))


@_handles("LIST_APPEND", "SET_ADD")
def _list_append(r: Reads, s: Shadow, ins: Instruction) -> None:
    x = r.value(s)
    _into(s, ins.arg, [x])


@_handles("MAP_ADD")
def _map_add(r: Reads, s: Shadow, ins: Instruction) -> None:
    _into(s, ins.arg, r.values(s, 2), keys=True)


@_handles("LIST_EXTEND", "SET_UPDATE")
def _list_extend(r: Reads, s: Shadow, ins: Instruction) -> None:
    x = r.value(s)
    r.iterate(x)
    _into(s, ins.arg, list(x) if type(x) in (list, tuple) else [Unknown([x])])


@_handles("DICT_UPDATE", "DICT_MERGE")
def _dict_update(r: Reads, s: Shadow, ins: Instruction) -> None:
    x = r.value(s)
    r.content(x)
    at = len(s.stack) - ins.arg
    if at < 0:
        raise LostError(ins.name)
    into = s.stack[at]
    if type(into) is dict and type(x) is dict:
        into.update(x)
    else:
        s.stack[at] = Unknown([y for y in (into, x) if not isinstance(y, Mark)])


def _into(s: Shadow, depth: int, parts: list[Any], keys: bool = False) -> None:
    """Add parts to the container at ``depth`` of the stack: to its likeness, or to what is known."""
    at = len(s.stack) - depth
    if at < 0:
        raise LostError("append")
    into = s.stack[at]
    if type(into) is list and not keys:
        into += parts
    else:
        sources = list(into.sources) if isinstance(into, Unknown) else [into]
        for x in parts:
            sources += x.sources if isinstance(x, Unknown) else [x]
        s.stack[at] = Unknown([x for x in sources if not isinstance(x, Mark | Tensor)])


@_handles("UNPACK_SEQUENCE")
def _unpack_sequence(r: Reads, s: Shadow, ins: Instruction) -> None:
    o = r.value(s)
    r.iterate(o)
    if type(o) in (list, tuple) and len(o) == ins.arg:
        s.stack += list(o)[::-1]
    else:
        s.stack += [FRESH if o is FRESH or isinstance(o, Tensor) else Unknown([o])] * ins.arg


@_handles("FORMAT_VALUE", "FORMAT_SIMPLE", "FORMAT_WITH_SPEC", "CONVERT_VALUE")
def _format(r: Reads, s: Shadow, ins: Instruction) -> None:
    known = effect(ins.name, ins.arg)
    assert known is not None
    for x in r.values(s, known[0]):
        r.special(x, "__format__", "__str__", "__repr__")
        r.content(x)
    s.stack.append(FRESH)


@_handles("CALL_INTRINSIC_1")
def _intrinsic(r: Reads, s: Shadow, ins: Instruction) -> None:
    x = r.value(s)
    name = str(ins.value)
    if "LIST_TO_TUPLE" in name or ins.arg == 6 or "LIST_TO_TUPLE" in name:
        s.stack.append(tuple(x) if isinstance(x, list) else x)
    else:
        r.content(x)
        s.stack.append(x if isinstance(x, Mark) else Unknown([x]))


@_handles("IMPORT_NAME")
def _import_name(r: Reads, s: Shadow, ins: Instruction) -> None:
    names, _ = r.value(s), r.value(s)
    whole = str(ins.value)
    name = whole if names else whole.partition(".")[0]
    module = sys.modules.get(name, MISSING)
    if module is MISSING:
        r.refuse(f"the module {whole} is loaded inside the step", "import it outside")
        s.stack.append(Unknown())
        return
    r.reach(sys.modules)
    s.stack.append(r.note("key", sys.modules, name, module))


@_handles("IMPORT_FROM")
def _import_from(r: Reads, s: Shadow, ins: Instruction) -> None:
    module = s.stack[-1] if s.stack else FRESH
    s.slot = len(s.stack)
    s.stack.append(r.settled(r.attribute(module, ins.value)))


@_handles("MATCH_CLASS")
def _match_class(r: Reads, s: Shadow, ins: Instruction) -> None:
    o, cls, names = r.values(s, 3)
    names = names if isinstance(names, tuple) else ()
    if not isinstance(o, Mark):
        r._type_of(o)
    positional: Any = ()
    if (
        isinstance(cls, type)
        and ins.arg
        and cls not in (int, float, str, bytes, bool, list, tuple, dict, set)
    ):
        positional = r.settled(r.attribute(cls, "__match_args__"))
    found = []
    for name in (*(positional if isinstance(positional, tuple) else ())[: ins.arg], *names):
        if isinstance(o, Mark) or hasattr(o, name):
            found.append(r.settled(r.attribute(o, name)))
    s.stack.append(
        Unknown([o]) if isinstance(o, Mark) or len(found) != ins.arg + len(names) else tuple(found)
    )


@_handles("MATCH_KEYS")
def _match_keys(r: Reads, s: Shadow, ins: Instruction) -> None:
    keys, o = s.stack[-1], s.stack[-2]
    if isinstance(o, dict) and isinstance(keys, tuple):
        found = [r.settled(r.item(o, k)) for k in keys]
        s.stack.append(tuple(found))
    else:
        r.content(o)
        s.stack.append(Unknown([o]))


@_handles("MATCH_MAPPING", "MATCH_SEQUENCE", "GET_LEN")
def _match_kind(r: Reads, s: Shadow, ins: Instruction) -> None:
    o = s.stack[-1]
    if not isinstance(o, Mark):
        r._type_of(o)
    if ins.name == "GET_LEN":
        r.content(o)
    s.stack.append(FRESH)


@_handles("BEFORE_WITH")
def _before_with(r: Reads, s: Shadow, ins: Instruction) -> None:
    o = r.value(s)
    t = type(o)
    if isinstance(o, Unknown):
        r._see_into(o, "a context manager")
    if isinstance(o, Mark):
        r.content(o)
        s.stack += [METHOD, Unknown() if isinstance(o, Unknown) else FRESH]
        s.awaited, s.slot = True, len(s.stack) - 1
        return
    enter, leave = lookup(t, "__enter__"), lookup(t, "__exit__")
    if not ours(t):
        r.note("class", t, "__enter__", enter)
        r.note("class", t, "__exit__", leave)
    elif r.is_outside(o):
        r.content(o, deep=True)
    if not isinstance(enter, types.FunctionType) and not callables.is_harmless_manager(o):
        r.refuse(f"a {t.__name__} is entered, which is C code that is not known here")
    python = isinstance(leave, types.FunctionType)
    s.stack += [Made(leave.__code__) if python else METHOD, Unknown()]
    s.slot = len(s.stack) - 1
    if isinstance(enter, types.FunctionType):
        s.awaited, s.callee = enter.__code__, enter


@_handles("WITH_EXCEPT_START")
def _with_except_start(r: Reads, s: Shadow, ins: Instruction) -> None:
    s.stack.append(FRESH)


@_handles("PUSH_EXC_INFO")
def _push_exc_info(r: Reads, s: Shadow, ins: Instruction) -> None:
    error = s.pop()
    s.stack += [FRESH, error]


@_handles("CHECK_EXC_MATCH")
def _check_exc_match(r: Reads, s: Shadow, ins: Instruction) -> None:
    r.value(s)
    s.stack.append(FRESH)


@_handles("LOAD_BUILD_CLASS")
def _load_build_class(r: Reads, s: Shadow, ins: Instruction) -> None:
    s.stack.append(FRESH)


@_handles("LOAD_CLOSURE", "LOAD_ASSERTION_ERROR", "LOAD_LOCALS")
def _load_fresh(r: Reads, s: Shadow, ins: Instruction) -> None:
    s.stack.append(FRESH)


@_handles("MAKE_FUNCTION")
def _make_function(r: Reads, s: Shadow, ins: Instruction) -> None:
    code = s.pop()
    if isinstance(code, types.CodeType):
        made = {name: list(s.cells.get(name, ())) for name in code.co_freevars}
        r._makers[code] = s.frame
        known = r._inner.setdefault(code, [])
        if made not in known:
            known.append(made)
    known_effect = effect(ins.name, ins.arg)
    assert known_effect is not None
    parts = r.values(s, known_effect[0] - 1)  # defaults: read when they are used, as locals
    sources = [x for x in parts if not isinstance(x, Mark | Tensor)]
    s.stack.append(Made(code if isinstance(code, types.CodeType) else None, sources))


@_handles("SET_FUNCTION_ATTRIBUTE")
def _set_function_attribute(r: Reads, s: Shadow, ins: Instruction) -> None:
    function = s.pop()
    s.pop()
    s.stack.append(function)


@_handles("KW_NAMES")
def _kw_names(r: Reads, s: Shadow, ins: Instruction) -> None:
    s.kwnames = s.code.co_consts[ins.arg]


def _called(r: Reads, s: Shadow, args: list[Any], names: tuple[str, ...]) -> None:
    second, first = r.value(s), r.value(s)
    if sys.version_info >= (3, 13):
        f = first
        if second is not NULL:
            args = [second, *args]
    elif first is NULL:
        f = second
    else:
        f, args = first, [second, *args]
    split = len(args) - len(names)
    s.slot = len(s.stack)
    s.stack.append(r.call(f, args[:split], dict(zip(names, args[split:]))))


@_handles("CALL")
def _call(r: Reads, s: Shadow, ins: Instruction) -> None:
    names, s.kwnames = s.kwnames, ()
    _called(r, s, r.values(s, ins.arg), names)


@_handles("CALL_KW")
def _call_kw(r: Reads, s: Shadow, ins: Instruction) -> None:
    names = r.value(s)
    _called(r, s, r.values(s, ins.arg), names if isinstance(names, tuple) else ())


@_handles("CALL_FUNCTION_EX")
def _call_function_ex(r: Reads, s: Shadow, ins: Instruction) -> None:
    kwargs = r.value(s) if ins.arg & 1 else {}
    args = r.value(s)
    r.content(kwargs)
    if hasattr(type(args), "__next__") or isinstance(args, (*CONTAINERS, Mark)):
        r.iterate(args)
    given = list(args) if isinstance(args, list | tuple) else [Unknown([args])]
    for x in given:
        if isinstance(x, list | dict) and r.is_outside(args):
            r.reach(x)
    second, first = r.value(s), r.value(s)
    f = first if sys.version_info >= (3, 13) else second if first is NULL else first
    if sys.version_info >= (3, 13) and second is not NULL:
        given = [second, *given]
    s.slot = len(s.stack)
    s.stack.append(
        r.call(f, given, dict(kwargs) if isinstance(kwargs, dict) else {"": Unknown([kwargs])})
    )
