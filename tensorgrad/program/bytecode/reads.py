"""What is read by ``o.name``, ``o[key]``, a name, iteration and a call, and what that gives.

Each gives the value itself, ``FRESH`` for what the step made and in which nothing from outside
lies, or an ``Unknown``; where Python code computes the value, it is awaited (``Shadow.awaited``).
"""

from __future__ import annotations

import collections
import contextlib
import functools
import inspect
import itertools
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tensorgrad.nn.module import Module
from tensorgrad.ops.random import Generator
from tensorgrad.optim.optimizer import Optimizer
from tensorgrad.program.bytecode import callables
from tensorgrad.program.bytecode.shadow import (
    FRESH,
    METHOD,
    Counted,
    Generated,
    Instance,
    Made,
    Mark,
    Shadow,
    Unknown,
    values_of,
)
from tensorgrad.program.bytecode.surroundings import NUMBERS, Surroundings, dict_of
from tensorgrad.program.engine import is_of_ours, ours
from tensorgrad.program.guards import (
    BUFFERS,
    CONTAINERS,
    MISSING,
    SCALARS,
    lookup,
)
from tensorgrad.tensor import Tensor


class Reads(Surroundings):
    """The ways to read an object, and to write to it."""

    shadows: dict[int, Shadow]

    # --- reads ----------------------------------------------------------------------------------

    def placed(self, kind: str, holder: Any, key: Any, value: Any) -> Any:
        """A read at a place that may be written too: a guard, or a number that may be a counter."""
        put = self.written.get((id(holder), key))
        if put is not None and not isinstance(put, Counted):
            return value  # the step put it there itself
        if type(value) in NUMBERS:
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
            return self._of_unknown(o, name) if isinstance(o, Unknown) else Unknown()
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
        if isinstance(o, Tensor) and self.is_outside(o):
            self.unnamed(o)
        if isinstance(o, Tensor) and ours(t):
            return self._bound(lookup(t, name), o, t, name)
        if isinstance(o, types.ModuleType) and name == "__dict__":
            self.met[id(vars(o))] = vars(o)
            return vars(o)
        if isinstance(o, types.ModuleType):
            if name not in vars(o) and o.__name__ == "tensorgrad":
                getattr(o, name, None)  # loaded as it is first named: no change by the step
            value = vars(o).get(name, MISSING)
            self.met[id(vars(o))] = vars(o)
            value = self.placed("key", vars(o), name, value)
            if value is MISSING:
                get = vars(o).get("__getattr__", MISSING)
                self.note("key", vars(o), "__getattr__", get)
                return MISSING if get is MISSING else self.invoked(get, [name])
            return value
        if isinstance(o, type):
            return self._of_class(o, name)
        return self.of_instance(o, t, name)

    def of_mark(self, o: Mark, name: str, given: list[Any]) -> Any:
        """A method of C is called of something unnamed."""
        for x in (o, *given):
            self.content(x)
        return callables.made_of([o, *given])

    def _of_unknown(self, o: Unknown, name: str) -> Any:
        if isinstance(o, Made):
            # One made by the step has, so far, what it was made of and nothing else.
            return Unknown(o.sources) if o.function is None else self.attribute(o.function, name)
        for x in self._inside(o):
            if isinstance(x, Tensor) and id(x) not in self.covered:
                self.unnamed(x)
        return self.of_each(o, f".{name}", lambda x: self.attribute(x, name))

    def unnamed(self, t: Tensor) -> None:
        """Something is asked of a tensor that may have come by a way that has no name."""
        self.tensors.setdefault(id(t), (t, []))
        self.nodes.setdefault(id(t), t.node)

    def of_each(self, o: Unknown, name: str, what: Callable[[Any], Any]) -> Any:
        """What is read of something that may be any of many objects: it is read of each.

        name: of what is read, for a refusal where it may be anything.
        """
        if o.opaque:
            self.refuse(
                f"{name} is read of the result of a call that cannot be seen into",
                "give the result a name first: y = f(x), then use y",
            )
            return Unknown()
        s = self.current
        found: list[Any] = []
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
        """What it may be; of containers those that have attributes, as named tuples do."""
        for source in o.sources:
            for x in callables.objects_in(source, containers=True):
                if not isinstance(x, CONTAINERS) or type(x).__module__ != "builtins":
                    yield x
                if isinstance(x, Module):
                    yield from x.parameters()

    def _of_new(self, o: Instance, name: str) -> Any:
        """An attribute of a new object, of which only the class is known."""
        get = lookup(o.of, "__getattribute__")
        self.note("class", o.of, "__getattribute__", get)
        if isinstance(get, types.FunctionType):
            return self.invoked(get, [o, name])
        found = lookup(o.of, name)
        self.note("class", o.of, name, found)
        if isinstance(found, types.FunctionType):
            self.reach(found)
            return Made(found.__code__, o.sources, found)
        if isinstance(found, property):
            return self.invoked(found.fget, [o])
        if isinstance(found, types.GetSetDescriptorType | types.MemberDescriptorType):
            return Unknown(o.sources)
        return self._bound(found, None, o.of, name)

    def _super(self, o: Any, name: str) -> Any:
        mro, me = o.__self_class__.__mro__, o.__self__
        for base in mro[mro.index(o.__thisclass__) + 1 :]:
            found = base.__dict__.get(name, MISSING)
            self.note("class attribute", base, name, found)
            if found is not MISSING:
                return self._bound(
                    found, None if isinstance(me, type) else me, o.__self_class__, name
                )
        return Unknown()

    def _in_class(self, t: type, name: str) -> Any:
        """What ``name`` is in a class or its bases: a guard, or a number that may be a counter."""
        found = lookup(t, name)
        if type(found) not in NUMBERS:
            self.note("class", t, name, found)
            return found
        for base in t.__mro__:
            if name in base.__dict__:
                if base is not t:
                    self.note("attribute", t, "__mro__", t.__mro__)
                return self.placed("class attribute", base, name, found)
            self.note("class attribute", base, name, MISSING)
        return found

    def _of_class(self, o: type, name: str) -> Any:
        if name == "__dict__":
            return o.__dict__
        meta = type(o)
        over = lookup(meta, name)
        if over is not MISSING and hasattr(type(over), "__set__"):  # a property of the metaclass
            self.note("class", meta, name, over)
            if isinstance(over, types.GetSetDescriptorType | types.MemberDescriptorType):
                return self.note("attribute", o, name, getattr(o, name, MISSING))
            return self._bound(over, o, meta, name)
        found = self._in_class(o, name)
        if found is MISSING:
            self.note("class", meta, name, over)
            if over is not MISSING:
                return self._bound(over, o, meta, name)
            get = lookup(meta, "__getattr__")
            self.note("class", meta, "__getattr__", get)
            return MISSING if get is MISSING else self.invoked(get, [o, name])
        return self._bound(found, None, o, name)

    def of_instance(self, o: Any, t: type, name: str, raw: bool = False) -> Any:
        """``o.name`` of an object of class ``t``. raw: past a ``__getattribute__`` of the class."""
        outside = self.is_outside(o)
        user = not ours(t)
        if not outside:
            self.believe(o)
        get = lookup(t, "__getattribute__")
        if not isinstance(get, types.WrapperDescriptorType) and not raw:
            self.note("class", t, "__getattribute__", get)
            return self.invoked(get, [o, name])
        meta = lookup(t, name)
        if meta is not MISSING and hasattr(type(meta), "__set__"):
            if user:
                self.note("class", t, name, meta)
            if outside:
                self.note("attribute", o, "__class__", t)
            if isinstance(meta, types.MemberDescriptorType):
                value = getattr(o, name, MISSING)
                return self.placed("attribute", o, name, value) if outside else value
            if isinstance(meta, property) or isinstance(
                lookup(type(meta), "__get__"), types.FunctionType
            ):
                return self._bound(meta, o, t, name)
            if outside and callables.closed(o):
                self.refuse(
                    f".{name} of a {t.__name__} from outside is read, whose state cannot be "
                    "followed",
                )
                return Unknown()
            value = getattr(o, name, MISSING)  # of C: nobody's code runs
            return self.note("attribute", o, name, value) if outside else value
        if issubclass(t, threading.local) and meta is MISSING:  # one for each thread
            return self.note("attribute", o, name, getattr(o, name, MISSING))
        attributes = dict_of(o)
        if outside:
            self.note("attribute", o, "__class__", t)
            if attributes is not None:
                self.met[id(attributes)] = attributes
                self.note("attribute", o, "__dict__", attributes)
        elif attributes is not None and self.is_outside(attributes):
            outside = True  # a new object that was given the attributes of another one
        own = attributes is not None and name in attributes
        if isinstance(o, Tensor) and (own or meta is MISSING):
            self.identify(o)  # another one may have another attribute
        if user and not own:
            meta = self._in_class(t, name)
        elif user or meta is MISSING:
            self.note("class", t, name, meta)
        if user:
            self.note("class", t, "__getattribute__", get)
        if own:
            value = attributes[name]
            return self.placed("key", attributes, name, value) if outside else value
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
            return MISSING if get is MISSING else self.invoked(get, [o, name])
        if isinstance(found, staticmethod):
            self.reach(found.__func__)
            return found.__func__
        if isinstance(found, classmethod):
            self.reach(found.__func__)
            return types.MethodType(found.__func__, t)
        if isinstance(found, types.FunctionType):
            return found if o is None else types.MethodType(found, o)
        if isinstance(found, property):
            return found if o is None else self.invoked(found.fget, [o])
        get = lookup(type(found), "__get__")
        if get is MISSING:
            return found
        if isinstance(get, types.FunctionType):
            self.reach(found)
            self.note("class", type(found), "__get__", get)
            return self.awaiting(get)
        if not isinstance(get, types.WrapperDescriptorType):
            return self.invoked(get, [found, o, t])
        if callables.is_known_descriptor(found):
            return found.__get__(o, t)  # of C: nobody's code runs
        self.refuse(f"an attribute of {t.__name__} is computed by C code that is not known here")
        return Unknown()

    def invoked(self, f: Any, args: list[Any]) -> Any:
        """What C code gives that is about to call ``f``: for a property, or a special method."""
        if isinstance(f, types.FunctionType) and ours(f):
            return self._python(f, args, args)
        if isinstance(f, types.FunctionType) or f is MISSING or f is None:
            return self.awaiting(f)
        return self.settled(self.call(f, args, {}))

    def awaiting(self, function: Any) -> Any:
        """The result of a Python function that this instruction is about to call."""
        s = self.current
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
            self.see_into(o, "an item")
            self.content(o)
            if isinstance(o, Unknown) and self.current is not None:
                inside = [x for y in o.sources for x in callables.objects_in(y, True)]
                if any(map(callables.computes_items, inside)):
                    self.current.awaited = True
                    return Unknown()
            return FRESH if o is METHOD else o
        t = type(o)
        if isinstance(o, type):
            get = lookup(type(o), "__getitem__")
            if get is MISSING:
                get = self._of_class(o, "__class_getitem__")
                return self.awaiting(get)
            return self.awaiting(get)
        get = lookup(t, "__getitem__")
        if isinstance(get, types.FunctionType):
            if not ours(t):
                self.note("class", t, "__getitem__", get)
            if ours(get) and isinstance(o, Module):
                self.reach(o)
                with contextlib.suppress(Exception):
                    return get(o, key)  # its modules are guarded as a whole
            return self.awaiting(get)
        plain = type(key) in SCALARS or isinstance(key, type | types.FunctionType)
        if type(key) is tuple:
            plain = all(type(k) in SCALARS for k in key)
        outside = self.is_outside(o)
        if not outside:
            self.believe(o)
        if isinstance(key, Tensor):
            self.identify(key)
        if isinstance(o, dict) and not isinstance(key, Mark):
            self.reach(key) if not plain else None
            if not (plain or self.is_outside(key)):
                self.content(key)
                self.content(o)
                return Unknown([o])
            return self.key_of(o, key, outside)
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
                return self.placed("item", o, key, value)
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

    def key_of(self, o: dict[Any, Any], key: Any, outside: bool) -> Any:
        """``o[key]`` of a dict, past a ``__getitem__`` of its class."""
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
                    return self.awaiting(missing)
                if outside:
                    self.changes(o, "an entry")  # a defaultdict makes one
                elif getattr(o, "default_factory", None) in (list, dict, set, int, float, str):
                    return FRESH
            return Unknown()
        return self.placed("key", o, key, value) if outside else value

    def named(self, frame: Any, name: str, names: Any = None) -> Any:
        """A global name, or one of a class body or of ``exec``."""
        space = frame.f_globals
        if names is not None and names is not space:
            if name in names:
                value = names[name]
                if self.is_outside(names):
                    return self.placed("key", names, name, value)
                return value
            if self.is_outside(names):
                self.note("key", names, name, MISSING)
        value = space.get(name, MISSING)
        if self.is_outside(space):
            if value is not MISSING:
                return self.placed("key", space, name, value)
            self.note("key", space, name, MISSING)
        if value is not MISSING:
            return value
        builtin = frame.f_builtins
        self.met[id(builtin)] = builtin
        return self.note("key", builtin, name, builtin.get(name, MISSING))

    def iterate(self, o: Any) -> Any:
        """``iter(o)`` is followed by ``next``; the iterator, as far as it is known."""
        if o is FRESH or isinstance(o, Tensor):
            return FRESH
        if isinstance(o, Unknown):
            self.see_into(o, "an element")
            for source in o.sources:
                self.entries(source)
            return o
        t = type(o)
        if hasattr(t, "__next__"):
            if self.is_outside(o):
                self.refuse(
                    f"an iterator from outside ({t.__name__}) moves on, which a replay would not "
                    "do",
                    "take the element outside, and pass it as an argument",
                )
            else:
                self.believe(o)
            return o
        get = lookup(t, "__iter__")
        if isinstance(get, types.FunctionType):
            if not ours(t):
                self.note("class", t, "__iter__", get)
            return self.awaiting(get)
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
            found = lookup(t, name)
            self.note("class", t, name, found)
            if isinstance(found, property):
                self.refuse(f"{name} of a {t.__name__} is a property", "define it as a method")

    # --- calls ----------------------------------------------------------------------------------

    def call(self, f: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """What a call reads; what is known of its result."""
        while isinstance(f, functools.partial):
            if self.is_outside(f):
                self.root(f)
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
                return self.of_each(
                    f, "()", lambda x: self.call(x, args, kwargs) if callable(x) else MISSING
                )
            code = f.code if isinstance(f, Made) else None
            if code is not None and code.co_flags & inspect.CO_GENERATOR:
                self.iterated.setdefault(code, []).append(args[0] if args else FRESH)
                return Generated(code)
            s = self.current
            if s is not None:
                s.passed = args[0] if args else None
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
            return self.awaiting(f)
        why = callables.refused_of_the_engine(f)
        if why:
            self.refuse(why)
        if f.__module__ in callables.ASKED_AGAIN:
            return callables.asked_again(self, f, args)
        for x in given:
            callables.called_back(self, x, given)
            if isinstance(x, Unknown):
                self.content(x)
            elif isinstance(x, Tensor | Module | Optimizer | Generator | Mark):
                self.reach(x) if self.is_outside(x) else None
            elif isinstance(x, np.ndarray):
                self.content(x)
            elif is_of_ours(x) and self.is_outside(x):
                d = dict_of(x)
                if d is not None:  # the engine reads what it likes of its own object
                    self.met[id(d)] = d
                    for name, value in list(d.items()):
                        self.note("key", d, name, value)
                        callables.called_back(self, value, given)
                        if isinstance(value, CONTAINERS):
                            self.content(value)
            elif hasattr(type(x), "__next__"):
                self.iterate(x)
            else:
                self.content(x)
                if isinstance(x, types.FunctionType | types.MethodType | functools.partial):
                    self.reach(x)
        return self.awaiting(f)

    def _instance(self, f: type, args: list[Any], kwargs: dict[str, Any], given: list[Any]) -> Any:
        meta = lookup(type(f), "__call__")
        if isinstance(meta, types.FunctionType):
            self.note("class", type(f), "__call__", meta)
            return self.awaiting(meta)
        if f is super:
            return self._new_super(args)
        if f is type and len(args) == 1:
            if isinstance(args[0], Instance):
                return args[0].of
            if isinstance(args[0], Unknown):
                return self.of_each(args[0], "type()", self.type_of)
            return FRESH if isinstance(args[0], Mark) else self.type_of(args[0])
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
                return self.awaiting(new)
            for x in given:
                if isinstance(x, list | tuple | dict):
                    self.look_into(x, False)
            found = self.awaiting(init)
            if self.current is not None:
                self.current.awaited, self.current.making = None, True
            del found
            return Instance(f)
        return callables.constructed(self, f, args, kwargs, given)

    def type_of(self, o: Any) -> Any:
        """``type(o)``."""
        if self.is_outside(o):
            self.note("attribute", o, "__class__", type(o))
        return type(o)

    def _new_super(self, args: list[Any]) -> Any:
        with contextlib.suppress(Exception):
            if not args:
                names, found = self.now.f_code.co_varnames, values_of(self.now)
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
            if type(value) in NUMBERS or isinstance(value, Counted):
                self.write("class attribute", o, name, o, f".{name}", value)
            elif id(o) in self.met:
                self.changes(o, f".{name}")
            return
        custom = lookup(t, "__setattr__")
        if not raw and custom is not object.__setattr__ and not ours(custom):
            self.note("class", t, "__setattr__", custom)
            value = self.settled(value)
            self.invoked(custom, [o, name, value])
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
        attributes = dict_of(o)
        if attributes is None or (isinstance(o, Optimizer) and ours(t)):
            self.settled(value)
            self.changes(o, f".{name}")
            return
        there = attributes.get(name)
        if (
            isinstance(o, Module)
            and isinstance(there, Tensor | Module)
            and type(there) is not Tensor
        ):
            self.settled(value)  # a parameter or a module of a module
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
        if isinstance(key, Tensor):
            self.identify(key)
        if isinstance(o, dict) and (type(key) in SCALARS or self.is_outside(key)):
            what = f"{key!r:.40}" if type(key) in SCALARS else f"a {type(key).__name__}"
            self.write("key", o, key, o, f"[{what}]", value)
        elif isinstance(o, list | collections.deque) and type(key) is int:
            self.write("item", o, key, o, f"[{key}]", value)
        else:
            self.content(self.settled(value))  # a slice takes over what is in it
            self.changes(o, "an item")
