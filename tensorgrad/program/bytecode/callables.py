"""What C code reads and changes: functions, methods and types that ``reads.py`` cannot follow.

A list of what is known, for everything else is refused. Where a function gives something that it
found in its arguments, the content of these is guarded, and what it gave is an ``Unknown`` made of
them.
"""

from __future__ import annotations

import abc
import collections
import contextvars
import datetime
import decimal
import functools
import inspect
import operator
import re
import sys
import threading
import types
import warnings
import weakref
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad.nn.module import Module
from tensorgrad.observers import MODE, current_mode
from tensorgrad.program.bytecode.opcodes import words
from tensorgrad.program.bytecode.shadow import (
    FRESH,
    Generated,
    Instance,
    Made,
    Mark,
    Unknown,
    values_of,
)
from tensorgrad.program.engine import ours
from tensorgrad.program.guards import BUFFERS, CONTAINERS, MISSING, SCALARS, lookup, parts_of
from tensorgrad.tensor import Tensor

if TYPE_CHECKING:
    from tensorgrad.program.bytecode.reads import Reads

_C_FUNCTIONS = (
    types.BuiltinFunctionType, types.MethodWrapperType, types.MethodDescriptorType,
    types.WrapperDescriptorType, types.ClassMethodDescriptorType, np.ufunc,
)  # fmt: skip
_ARRAY_FUNCTION = type(np.concatenate)

#: C types whose objects never change, or whose state is looked at elsewhere.
STATELESS: frozenset[type] = frozenset(
    {
        object, type, range, slice, re.Pattern, re.Match, decimal.Decimal, datetime.date,
        datetime.time, datetime.datetime, datetime.timedelta, datetime.tzinfo, datetime.timezone,
        functools.partial, contextvars.ContextVar, contextvars.Token, weakref.ref,
        type(threading.Lock()), type(threading.RLock()), property, staticmethod, classmethod, super,
        operator.attrgetter, operator.itemgetter, operator.methodcaller, np.dtype, np.ufunc,
        type(functools.lru_cache(len)), types.GenericAlias, types.UnionType, _ARRAY_FUNCTION,
        types.BuiltinFunctionType, types.MethodWrapperType, types.MethodDescriptorType,
        types.WrapperDescriptorType, types.ClassMethodDescriptorType, types.GetSetDescriptorType,
        types.MemberDescriptorType, types.FunctionType, types.MethodType, types.ModuleType,
        types.CodeType, types.CellType, types.SimpleNamespace, threading.local, BaseException,
        type(None), type(...), type(NotImplemented),
        int, float, complex, bool, str, bytes, np.generic,
    }
)  # fmt: skip
_IMMUTABLE = (
    str,
    bytes,
    int,
    float,
    complex,
    tuple,
    range,
    slice,
    frozenset,
    type(None),
    np.generic,
)
_IMMUTABLE_TYPE = 1 << 8  # Py_TPFLAGS_IMMUTABLETYPE

_LIST = frozenset(
    words(
        "copy count index __len__ __getitem__ __contains__ __iter__ __add__ __mul__ __rmul__ "
        "__eq__ __ne__"
        " __lt__ __le__ __gt__ __ge__ __reversed__ __repr__ __str__ __sizeof__ __hash__ __format__"
    )
)
_DICT = frozenset(
    words(
        "get items keys values copy __len__ __getitem__ __contains__ __iter__ __eq__ __ne__ "
        "__or__ __ror__"
        " __reversed__ __repr__ __str__ __sizeof__ __format__"
    )
)
_SET = frozenset(
    words(
        "copy union intersection difference symmetric_difference issubset issuperset isdisjoint"
        " __contains__ __len__ __iter__ __and__ __or__ __sub__ __xor__ __rand__ __ror__ __rsub__ "
        "__rxor__"
        " __eq__ __ne__ __lt__ __le__ __gt__ __ge__ __repr__ __str__ __sizeof__ __format__"
    )
)
_ARRAY_CHANGES = frozenset(
    words(
        "fill put itemset sort partition resize setfield setflags byteswap tofile dump __setitem__"
        " __delitem__ __iadd__ __isub__ __imul__ __itruediv__ __ifloordiv__ __imod__ __ipow__ "
        "__iand__"
        " __ior__ __ixor__ __ilshift__ __irshift__ __imatmul__ __setstate__"
    )
)
_BUFFER_CHANGES = frozenset(
    words(
        "append extend insert remove pop clear reverse __setitem__ __delitem__ release fromlist"
        " frombytes fromfile fromunicode byteswap tofile"
    )
)
_OBJECT = frozenset(
    words(
        "__init__ __repr__ __str__ __eq__ __ne__ __lt__ __le__ __gt__ __ge__ __hash__ __format__ "
        "__sizeof__"
        " __reduce__ __reduce_ex__ __dir__ __subclasshook__ __init_subclass__ __getstate__"
    )
)

#: Functions of ``builtins`` that look at the content of their arguments and at nothing else.
_BUILTINS = frozenset(
    words(
        "abs all any ascii bin chr divmod format hex iter len max min oct ord pow repr round "
        "sorted sum"
        " reversed aiter anext"
    )
)
#: Those of them that only go through the entries.
_ENTRIES = frozenset({"iter", "len", "reversed"})
#: Those that look at no content.
_LOOK_AT_NOTHING = frozenset(words("id callable print hash compile __build_class__"))
#: Modules of C whose functions give the same for the same arguments and change nothing.
_PURE = frozenset(
    words(
        "math cmath _operator operator _struct _json binascii _string unicodedata zlib _md5 "
        "_sha1 _sha2 _sha256"
        " _sha512 _blake2 _sha3 _stat _datetime _decimal _typing _functools itertools _bisect "
        "_abc _csv"
        " _codecs errno"
    )
)
_CHANGE_THE_FIRST = frozenset(
    words(
        "insort insort_left insort_right heappush heappop heapify heapreplace heappushpop "
        "_heapify_max"
        " _heappop_max _heapreplace_max _count_elements setitem delitem iadd iand iconcat ifloordiv"
        " ilshift imatmul imod imul ior ipow irshift isub itruediv ixor copyto put place putmask"
        " put_along_axis fill_diagonal pack_into"
    )
)
_HARMLESS = {
    "sys": frozenset({"intern"}),
    "_warnings": frozenset({"warn", "warn_explicit"}),
    "_thread": frozenset({"allocate_lock", "RLock"}),
    "posix": frozenset({"fspath", "cpu_count"}),
    "_weakref": frozenset({"getweakrefs"}),
    "_collections": frozenset({"_tuplegetter"}),
}
_STATE_OF_NUMPY = frozenset(
    words(
        "fromfile load save savez savetxt loadtxt genfromtxt memmap seterr seterrcall setbufsize"
        " set_printoptions get_printoptions geterr geterrcall getbufsize"
    )
)
#: Packages of Python's own that are not followed, and look at files, frames or loaded modules.
_STATE_OF_PYTHON = frozenset(words("importlib linecache traceback tokenize"))
_ENGINE_REFUSED = {
    "Generator.state": "the state of a random generator is read",
    "Generator.set_state": "the state of a random generator is set",
    "set_default_dtype": "the default dtype is set inside the step",
    "set_default_device": "the default device is set inside the step",
    "set_float32_matmul_precision": "the precision of products is set inside the step",
}


def is_c(f: Any) -> bool:
    """Whether a callable is a function or method of C."""
    return isinstance(f, _C_FUNCTIONS) or type(f) is _ARRAY_FUNCTION


def is_known_descriptor(found: Any) -> bool:
    """Whether a class attribute is one whose ``__get__`` runs nobody's code."""
    kinds = (
        types.GetSetDescriptorType, types.MemberDescriptorType, types.FunctionType,
        functools.partialmethod, type, type(functools.lru_cache(len)),
    )  # fmt: skip
    known = isinstance(found, (*_C_FUNCTIONS, *kinds))
    return known or type(found).__module__ in ("_collections", "builtins", "functools")


def is_harmless_manager(o: Any) -> bool:
    """Whether entering and leaving ``o``, of a C type, means nothing for a replay: a lock."""
    return type(o) in (type(threading.Lock()), type(threading.RLock()))


def closed(o: Any) -> bool:
    """Whether the state of ``o`` lies in C, in a way that nothing here knows.

    A class written in Python adds to its base room for a dict, for weak references and for its
    slots, and no more.
    """
    if type(o) in SCALARS:
        return False
    for base in type(o).__mro__:
        if (
            base in STATELESS
            or base in CONTAINERS
            or base in BUFFERS
            or base in (np.ndarray, Tensor)
        ):
            return False
        if issubclass(base, types.GeneratorType) or (
            hasattr(base, "__next__") and base.__flags__ & _IMMUTABLE_TYPE
        ):
            return False  # iterators are refused where they move on
        if base.__flags__ & _IMMUTABLE_TYPE:
            return True
        names = vars(base)
        room = sum(isinstance(x, types.MemberDescriptorType) for x in names.values())
        room += ("__dict__" in names) + ("__weakref__" in names)
        below = base.__base__
        if below is not None and base.__basicsize__ > below.__basicsize__ + 8 * room:
            return True
    return False


def places_of(o: Any) -> Iterator[tuple[Any, Any]]:
    """The parts of a container, each with the place where it lies, if it has one of its own."""
    if isinstance(o, dict):
        kind = collections.OrderedDict if isinstance(o, collections.OrderedDict) else dict
        for key, value in kind.items(o):
            yield None, key
            yield ("key", o, key), value
    elif isinstance(o, list | collections.deque):
        for k, value in enumerate(list(o)):
            yield ("item", o, k), value
    elif isinstance(o, types.MappingProxyType):
        for value in parts_of(o):
            yield None, value
    elif isinstance(o, tuple):
        for value in tuple.__iter__(o):
            yield None, value
    else:
        for value in list(o):
            yield None, value


def objects_in(o: Any, containers: bool = False, depth: int = 0) -> Iterator[Any]:
    """What something may be that C code took out of ``o``: its entries, at any depth.

    containers: the containers and tensors among them, too.
    """
    if depth > 8 or type(o) in SCALARS:
        return
    if isinstance(o, CONTAINERS):
        if containers:
            yield o
        for part in parts_of(o)[:1000]:
            yield from objects_in(part, containers, depth + 1)
    elif containers or not isinstance(o, Tensor):
        yield o
        if isinstance(o, Module):
            yield from list(o.modules())[1:]


def computes_items(o: Any) -> bool:
    """Whether ``o[key]`` or its entries are what Python code gives."""
    t = type(o)
    if isinstance(o, Module) and ours(lookup(t, "__iter__")):
        return False  # its modules, which are guarded as a whole
    return (
        isinstance(lookup(t, "__iter__"), types.FunctionType)
        or isinstance(lookup(t, "__getitem__"), types.FunctionType)
        or isinstance(lookup(t, "__missing__"), types.FunctionType)
        or (hasattr(t, "__next__") and not isinstance(o, Mark))
    )


def refused_of_the_engine(f: Any) -> str:
    """Why a function of the engine or of NumPy cannot be called in a step; empty if it can."""
    name = getattr(f, "__qualname__", "")
    module = str(getattr(f, "__module__", ""))
    if module.startswith("tensorgrad"):
        return _ENGINE_REFUSED.get(name, "")
    if module.partition(".")[0] in _STATE_OF_PYTHON:
        return f"{name}() of {module} depends on more than its arguments"
    if module.startswith("numpy") and (
        name in _STATE_OF_NUMPY or module.startswith("numpy.random")
    ):
        return f"{name}() of NumPy depends on more than its arguments"
    return ""


def called(r: Reads, f: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """What a call of C code reads; what is known of its result."""
    given = [*args, *kwargs.values()]
    name = str(getattr(f, "__name__", type(f).__name__))
    owner = getattr(f, "__self__", None)
    for x in given:
        called_back(r, x, given if isinstance(owner, types.ModuleType) else [*given, owner])
    if isinstance(f, type(functools.lru_cache(len))):
        return _cached(r, f, args, kwargs)
    if isinstance(f, weakref.ref):
        o = f()
        if r.is_outside(f):
            r.note("referent", f, None, o is not None)
            if o is not None and not r.is_outside(o):
                r.weakly(o, f)
        return o
    if isinstance(f, _GETTERS):
        return _getter(r, f, args)
    if isinstance(f, np.ufunc):
        return _ufunc(r, f, args, kwargs, given)
    objclass = getattr(f, "__objclass__", None)
    if objclass is not None and args and owner is None:
        owner, args, given = args[0], args[1:], given[1:]
    if isinstance(owner, np.ufunc):
        if name == "at":
            r.changes(args[0], "the content")
        return _ufunc(r, f, args, kwargs, given)
    if owner is not None and not isinstance(owner, types.ModuleType):
        return _method(r, owner, name, args, kwargs, given)
    return _function(r, f, name, args, kwargs, given)


def called_back(r: Any, f: Any, given: Sequence[Any]) -> None:
    """What C code, or the engine, reads and changes that calls ``f``: ``map(d.get, keys)``.

    given: all that it was given. Python functions are followed when they are called.
    """
    if isinstance(f, types.MethodType):
        f = f.__func__
    if isinstance(f, functools.partial):
        r.reach(f)
        for x in (*f.args, *f.keywords.values()):
            r.content(x)
        called_back(r, f.func, [*given, *f.args])
        return
    if isinstance(f, type(functools.lru_cache(len))):
        r.refuse(
            f"{getattr(f, '__name__', 'a function')}() with a cache is given to code that calls it "
            "unseen",
            "write the call out in a lambda",
        )
        return
    if isinstance(f, type):
        unseen = not isinstance(lookup(f, "__init__"), types.FunctionType)
        for x in given if unseen else ():  # a class of C goes through them
            if not isinstance(x, type):
                r.content(x)
        return
    if not isinstance(f, _GETTERS) and (not is_c(f) or isinstance(f, np.ufunc)):
        return  # nothing is asked of an object whose class may answer with code of its own
    name = str(getattr(f, "__name__", ""))
    owner = getattr(f, "__self__", None)
    special = isinstance(owner, types.ModuleType) and name in _SPECIAL
    if isinstance(f, _GETTERS) or (special and name in ("getattr", "hasattr", "vars")):
        r.reach(f)
        for x in given:
            if x is not f:
                r.content(x, True)
    elif special:
        r.refuse(f"{name}() is given to code that calls it unseen", "write it out in a lambda")
    elif name in _LOOK_AT_NOTHING:
        return
    elif owner is None or isinstance(owner, types.ModuleType):
        for x in given:
            if x is not f:
                r.content(x)
        _function(r, f, name, [FRESH], {}, [FRESH])
    elif name in ("append", "__setitem__", "__setattr__"):
        r.changes(owner, "the content")  # unseen: which result it was is not known
    elif not isinstance(owner, type):
        _method(r, owner, name, [FRESH], {}, [FRESH])


#: Modules whose functions are not followed: what they give is asked for again in every guard.
ASKED_AGAIN = frozenset({"logging"})
#: Functions of Python's own modules that keep a cache, and nothing else.
UNFOLLOWED = frozenset(
    {("functools", "singledispatch.<locals>.dispatch"), ("copyreg", "_slotnames")}
)
_SAY_NOTHING = frozenset(
    words("debug info warning warn error critical exception log fatal handle emit")
)


def asked_again(r: Reads, f: Any, args: list[Any]) -> Any:
    """The result of a function that depends on what it is given and on state of its own."""
    if f.__name__ in _SAY_NOTHING:
        return r.awaiting(f)  # a message, which a replay does not repeat
    if all(type(x) in SCALARS or isinstance(x, type) or r.is_outside(x) for x in args):
        value = f(*args)
        return r.note("call", f, (tuple(args), ()), value)
    r.refuse(f"{f.__name__}() of {f.__module__} is called with what the step made")
    return r.awaiting(f)


_GETTERS = (operator.itemgetter, operator.attrgetter, operator.methodcaller)


def ask_again(r: Reads, f: Any) -> Any:
    """A guard on what a function without arguments gives."""
    return r.note("call", f, ((), ()), f())


def decimal_context() -> str:
    """What arithmetic with decimal numbers depends on besides them."""
    return repr(decimal.getcontext())


def made_of(given: list[Any]) -> Any:
    """What C code gives that may hold what it was given."""
    sources = [
        x
        for x in given
        if isinstance(x, Unknown)
        or not (
            isinstance(x, Mark | Tensor | np.ndarray | np.generic | str | bytes)
            or type(x) in SCALARS
        )
    ]
    if not sources:
        return FRESH
    hidden = [x for x in sources if computes_items(x)]
    computed = all(
        isinstance(x, types.GeneratorType | map) or not hasattr(type(x), "__next__") for x in hidden
    )
    return Unknown(sources, opaque=True if hidden else None, computed=bool(hidden) and computed)


def _shallow(r: Reads, given: list[Any]) -> Any:
    for x in given:
        r.iterate(x) if hasattr(type(x), "__next__") else r.content(x)
    return made_of(given)


def _entries(r: Reads, given: list[Any]) -> Any:
    for x in given:
        r.iterate(x) if hasattr(type(x), "__next__") else r.entries(x)
    return made_of(given)


def _deep(r: Reads, given: list[Any]) -> Any:
    for x in given:
        r.iterate(x) if hasattr(type(x), "__next__") else r.content(x, True)
    return made_of(given)


def _ufunc(r: Reads, f: Any, args: list[Any], kwargs: dict[str, Any], given: list[Any]) -> Any:
    outs = kwargs.get("out", args[f.nin :] if isinstance(f, np.ufunc) else ())
    for out in outs if isinstance(outs, tuple | list) else (outs,):
        if isinstance(out, np.ndarray):
            r.changes(out, "the content")
    return _shallow(r, given)


def _cached(r: Reads, f: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """A function with a cache: what it gives is looked up again before every replay."""
    given = [*args, *kwargs.values()]
    if not all(
        type(x) in SCALARS or (r.is_outside(x) and not isinstance(x, Tensor)) for x in given
    ):
        r.refuse(
            f"{getattr(f, '__name__', 'a function')}() with a cache is called with what the step "
            "made",
            "call the function that it wraps, or call it outside",
        )
        return Unknown()
    # It is in the cache from here on, as it would be without us, and no part of the program.
    without = MODE.set(current_mode()._replace(observers=()))
    try:
        value = f(*args, **kwargs)
    except Exception:
        return Unknown()  # the step is about to raise the same
    finally:
        MODE.reset(without)
    r.reach(f)
    return r.note("call", f, (tuple(args), tuple(kwargs.items())), value)


def _getter(r: Reads, f: Any, args: list[Any]) -> Any:
    """What ``operator.itemgetter`` and its kin read is what the code written out would."""
    kind, parts = f.__reduce__()[:2]
    if kind is functools.partial or not args:
        return _deep(r, args)
    found = []
    if isinstance(f, operator.methodcaller):
        method = r.settled(r.attribute(args[0], parts[0]))
        return r.call(method, list(parts[1:]), {}) if method is not MISSING else Unknown()
    for key in parts:
        value = args[0]
        if isinstance(f, operator.itemgetter):
            value = r.settled(r.item(value, key))
        else:
            for name in key.split("."):
                value = r.settled(r.attribute(value, name))
                if r.current is not None and r.current.awaited is not None:
                    return _deep(r, args)  # a property in the middle
        found.append(value)
    return found[0] if len(found) == 1 else tuple(found)


def _function(
    r: Reads, f: Any, name: str, args: list[Any], kwargs: dict[str, Any], given: list[Any]
) -> Any:
    module = str(
        getattr(f, "__module__", None) or getattr(getattr(f, "__self__", None), "__name__", "")
    )
    if module == "builtins":
        special = _SPECIAL.get(name)
        if special is not None:
            return special(r, args, kwargs)
        if name in ("id", "hash", "callable"):
            for x in given:
                r.identify(x)
                r.special(x, "__call__", "__hash__")
        if name in _LOOK_AT_NOTHING:
            return FRESH
        if name in _BUILTINS:
            for x in given:
                r.special(x, "__iter__", "__len__", "__getitem__", "__bool__", "__lt__", "__eq__")
            found = _shallow(r, given)
            return (
                FRESH if name in ("len", "repr", "format", "hash", "ascii", "any", "all") else found
            )
    top = module.partition(".")[0]
    if name in _CHANGE_THE_FIRST and args:
        r.changes(args[0], "the content")
        return _shallow(r, given)
    if module == "sys" and name in ("getrecursionlimit", "getdefaultencoding", "getswitchinterval"):
        return ask_again(r, f)
    if name in _HARMLESS.get(module, ()):
        for x in given:
            r.content(x)
        if module == "_warnings":  # whether a warning is an error
            r.content(r.note("key", vars(warnings), "filters", warnings.filters))
        return made_of(given)
    if module in ("_operator", "operator") and name == "getitem" and len(args) == 2:
        return r.item(args[0], args[1])
    if module == "_abc":
        return FRESH
    if module == "_functools" and name == "reduce" and args:
        _shallow(r, given)
        f = args[0].__func__ if isinstance(args[0], types.MethodType) else args[0]
        code = f.__code__ if isinstance(f, types.FunctionType) else None
        code = f.code if isinstance(f, Made) else code
        if r.current is not None:
            r.current.awaited = code  # what it gives last is the result
        return Unknown(computed=True)
    if module in ("_struct", "_json", "_csv"):
        return _deep(r, given)
    if module in _PURE:
        return _shallow(r, given)
    if top in ("numpy", "ml_dtypes"):
        why = refused_of_the_engine(f)
        if why:
            r.refuse(why)
        for out in (kwargs.get("out"), kwargs.get("dst")):
            if isinstance(out, np.ndarray):
                r.changes(out, "the content")
        return _shallow(r, given)
    r.refuse(
        f"{name}() of {module or 'C code'} is called, which may give something else each time, "
        "or do "
        "something that a replay would not repeat",
        "call it outside, and pass what it gives as an argument",
    )
    return Unknown()


def _getattr(r: Reads, args: list[Any], kwargs: dict[str, Any]) -> Any:
    if len(args) > 1 and type(args[1]) is str:
        value = r.attribute(args[0], args[1])
        return args[2] if value is MISSING and len(args) > 2 else value
    return _deep(r, args)


def _hasattr(r: Reads, args: list[Any], kwargs: dict[str, Any]) -> Any:
    if len(args) == 2 and type(args[1]) is str:
        r.settled(r.attribute(args[0], args[1]))
        if r.current is not None:
            r.current.awaited = None
        return FRESH
    return _deep(r, args)


def _setattr(r: Reads, args: list[Any], kwargs: dict[str, Any]) -> Any:
    if len(args) == 3 and type(args[1]) is str:
        r.stores_attribute(args[0], args[1], args[2])
    else:
        r.changes(args[0], "an attribute")


def _delattr(r: Reads, args: list[Any], kwargs: dict[str, Any]) -> Any:
    r.changes(args[0], "an attribute")


def _next(r: Reads, args: list[Any], kwargs: dict[str, Any]) -> Any:
    it = args[0]
    r.iterate(it)
    s = r.current
    if s is not None:
        if isinstance(it, types.GeneratorType):
            s.awaited = it.gi_code
        elif isinstance(it, Generated):
            s.awaited = it.code
        elif isinstance(lookup(type(it), "__next__"), types.FunctionType):
            return r.awaiting(lookup(type(it), "__next__"))
    return made_of([_gone_through(it), *args[1:]])


_EMPTY: list[Any] = [[], (), {}, {}.values(), {}.items(), set(), collections.deque()]
_OF_CONTAINERS = (*[type(iter(x)) for x in _EMPTY], type(reversed([])), type(reversed({})))


def _gone_through(it: Any) -> Any:
    """What an iterator goes through, or the iterator, in which it cannot be seen."""
    if isinstance(it, _OF_CONTAINERS):
        rest = it.__reduce__()[1]
        return rest[0] if rest else it
    return it


def _iter(r: Reads, args: list[Any], kwargs: dict[str, Any]) -> Any:
    if len(args) != 1:
        _shallow(r, args)
        return Unknown()
    return r.iterate(args[0])


def _isinstance(r: Reads, args: list[Any], kwargs: dict[str, Any]) -> Any:
    if len(args) != 2:
        return FRESH
    x = args[0]
    if not isinstance(x, Mark | Tensor):
        r.type_of(x)
    for kind in _kinds(r, args[1]):  # what is registered with an abstract class lies in C
        if type(x) in SCALARS:
            r.note("subclass", type(x), kind, issubclass(type(x), kind))
        elif isinstance(x, Unknown) and x.opaque and not isinstance(x, Instance):
            r.refuse(
                f"the result of a call is asked whether it is a {kind.__name__}", "give it a name"
            )
        elif isinstance(x, Instance):
            r.note("subclass", x.of, kind, issubclass(x.of, kind))
        elif not isinstance(x, Mark):
            r.note("subclass", type(x), kind, issubclass(type(x), kind))
            if r.is_outside(x):
                r.note("instance", x, kind, isinstance(x, kind))
        elif isinstance(x, Unknown):
            for y in [y for source in x.sources for y in objects_in(source, True)]:
                r.note("subclass", type(y), kind, issubclass(type(y), kind))
    return FRESH


def _kinds(r: Reads, given: Any) -> list[Any]:
    """The abstract classes among those that something is compared with."""
    if isinstance(given, Unknown):
        r.see_into(given, "a class")
        found = [x for source in given.sources for x in objects_in(source)]
    else:
        found = list(given) if isinstance(given, tuple) else [given]
    return [x for x in found if isinstance(x, abc.ABCMeta)]


def _issubclass(r: Reads, args: list[Any], kwargs: dict[str, Any]) -> Any:
    if len(args) == 2 and isinstance(args[0], type):
        r.note("attribute", args[0], "__mro__", args[0].__mro__)
        for kind in _kinds(r, args[1]):
            r.note("subclass", args[0], kind, issubclass(args[0], kind))
    return FRESH


def _globals(r: Reads, args: list[Any], kwargs: dict[str, Any]) -> Any:
    return r.now.f_globals


def _locals(r: Reads, args: list[Any], kwargs: dict[str, Any]) -> Any:
    return values_of(r.now)


def _vars(r: Reads, args: list[Any], kwargs: dict[str, Any]) -> Any:
    if not args:
        return _locals(r, args, kwargs)
    o = args[0]
    if isinstance(o, Mark):
        r.content(o)
        return r.attribute(o, "__dict__") if isinstance(o, Unknown) else o
    if isinstance(o, type):
        return r.attribute(o, "__dict__")
    found = getattr(o, "__dict__", MISSING)
    if r.is_outside(o) and isinstance(found, dict):
        r.note("attribute", o, "__dict__", found)
    return found


def _dir(r: Reads, args: list[Any], kwargs: dict[str, Any]) -> Any:
    for x in args:
        if not isinstance(lookup(type(x), "__dir__"), types.FunctionType):
            r.refuse("the names that an object has are listed by dir()", "keep a list of them")
    return FRESH


def _evaluated(r: Reads, args: list[Any], kwargs: dict[str, Any]) -> Any:
    for x in args[1:]:
        if isinstance(x, dict) and r.is_outside(x):
            r.reach(x)
    if r.current is not None:
        r.current.awaited = True
    return Unknown()


def _import(r: Reads, args: list[Any], kwargs: dict[str, Any]) -> Any:
    name = args[0] if args and type(args[0]) is str else ""
    module = sys.modules.get(name.partition(".")[0], MISSING)
    if module is MISSING:
        r.refuse(f"the module {name} is loaded inside the step", "import it outside")
        return MISSING
    r.reach(sys.modules)
    return r.note("key", sys.modules, name.partition(".")[0], module)


_SPECIAL = {
    "getattr": _getattr, "hasattr": _hasattr, "setattr": _setattr, "delattr": _delattr,
    "next": _next, "isinstance": _isinstance, "issubclass": _issubclass, "globals": _globals,
    "locals": _locals, "vars": _vars, "dir": _dir, "eval": _evaluated, "exec": _evaluated,
    "__import__": _import, "iter": _iter,
}  # fmt: skip


def _method(
    r: Reads, owner: Any, name: str, args: list[Any], kwargs: dict[str, Any], given: list[Any]
) -> Any:
    if isinstance(owner, Mark):
        return r.of_mark(owner, name, given)
    if isinstance(owner, CONTAINERS) and name not in ("append", "__setitem__"):
        for x in given:  # they may be looked for in it
            if isinstance(x, Tensor):
                r.identify(x)
    if isinstance(owner, type):
        return _of_type(r, owner, name, args, given)
    if name == "__setattr__" and len(args) == 2 and type(args[0]) is str:
        return r.stores_attribute(owner, args[0], args[1], raw=True)
    if name == "__getattribute__" and len(args) == 1 and type(args[0]) is str:
        return r.of_instance(owner, type(owner), args[0], raw=True)
    if (
        name == "__setitem__"
        and len(args) == 2
        and isinstance(owner, dict | list | collections.deque)
    ):
        return r.stores_item(owner, args[0], args[1], raw=True)
    if name == "append" and isinstance(owner, list | collections.deque) and len(args) == 1:
        r.appends(owner)
        return None
    if isinstance(owner, dict):
        return _of_dict(r, owner, name, args, given)
    if isinstance(owner, contextvars.ContextVar):
        if name == "get":
            value = owner.get(MISSING)
            r.note("variable", owner, None, value)
            return value if value is not MISSING or not args else args[0]
        r.changes(owner, "the value")
        return FRESH
    known: Any = None
    if isinstance(owner, list | collections.deque):
        known = _LIST
    elif isinstance(owner, set):
        known = _SET
    elif isinstance(owner, np.ndarray):
        if name in _ARRAY_CHANGES:
            r.changes(owner, "the content")
        return _shallow(r, [owner, *given])
    elif isinstance(owner, BUFFERS):
        if name in _BUFFER_CHANGES or name.startswith("__i"):
            r.changes(owner, "the content")
        return _shallow(r, [owner, *given])
    if known is not None:
        if name not in known and name not in _OBJECT:
            r.changes(owner, "the content")
        return _shallow(r, [owner, *given])
    if isinstance(owner, str) and name in ("format", "format_map"):
        return _deep(r, given)  # "{0.name}" reads attributes
    if isinstance(owner, _IMMUTABLE):
        return _shallow(r, [owner, *given])
    if name == "__next__" or hasattr(type(owner), "__next__"):
        r.iterate(owner)
        return made_of([owner, *given])
    if is_harmless_manager(owner):
        if name in ("release", "__enter__", "__exit__") or (name == "acquire" and not given):
            return FRESH
        if name == "locked":
            return ask_again(r, owner.locked)
        r.refuse(f"the state of a lock is read by {name}()")
        return FRESH
    if isinstance(owner, decimal.Decimal):
        ask_again(r, decimal_context)
    if type(owner) in STATELESS or any(
        b in STATELESS and b is not object for b in type(owner).__mro__
    ):
        return _shallow(r, given)
    if name in _OBJECT:
        return _deep(r, [owner, *given])
    if type(owner).__module__ in ("builtins",):  # views, cells and the like, made by the step
        return _shallow(r, [owner, *given])
    r.refuse(
        f"{name}() of a {type(owner).__module__}.{type(owner).__name__} is called, which is C "
        "code that is not "
        "known here",
        "call it outside, and pass what it gives as an argument",
    )
    return Unknown()


def _of_dict(r: Reads, owner: dict[Any, Any], name: str, args: list[Any], given: list[Any]) -> Any:
    if name == "__getitem__" and len(args) == 1:
        return (
            r.key_of(owner, args[0], r.is_outside(owner))
            if _is_key(args[0])
            else r.item(owner, args[0])
        )
    if (
        name == "get"
        and args
        and not isinstance(args[0], Mark)
        and (_is_key(args[0]) or r.is_outside(args[0]))
    ):
        value = dict.get(owner, args[0], MISSING)
        if r.is_outside(owner):
            if value is MISSING:
                r.note("key", owner, args[0], MISSING)
            else:
                value = r.placed("key", owner, args[0], value)
        return value if value is not MISSING else args[1] if len(args) > 1 else None
    if name == "setdefault" and args and _is_key(args[0]) and args[0] in owner:
        value = dict.get(owner, args[0])
        return r.placed("key", owner, args[0], value) if r.is_outside(owner) else value
    if name not in _DICT and name not in _OBJECT:
        r.changes(owner, "the content")
        _shallow(r, given)  # what it takes over
        return Unknown([owner])
    return _shallow(r, [owner, *given])


def _is_key(key: Any) -> bool:
    return type(key) in SCALARS


def _of_type(r: Reads, owner: type, name: str, args: list[Any], given: list[Any]) -> Any:
    if name == "__new__" and args and isinstance(args[0], type):
        for x in given[1:]:
            r.content(x)
        return Instance(args[0])
    if name in ("now", "utcnow", "today"):
        r.refuse(
            f"the clock is read by {owner.__name__}.{name}()",
            "read it outside, and pass it as an argument",
        )
        return Unknown()
    if name == "__subclasses__":
        r.refuse("the subclasses of a class are read", "keep a list of your own")
        return Unknown()
    if name in ("__setattr__", "__delattr__"):
        r.changes(owner, "an attribute")
        return FRESH
    if name in (
        "register",
        "__subclasshook__",
        "__instancecheck__",
        "__subclasscheck__",
        "mro",
        "__call__",
    ):
        return _shallow(r, given)
    if (
        owner in STATELESS
        or owner in CONTAINERS
        or owner.__module__ in ("builtins", "collections", "datetime")
    ):
        return _shallow(r, given)
    if name in _OBJECT:
        return FRESH
    if any((b in STATELESS and b is not object) or b in CONTAINERS for b in owner.__mro__):
        return _shallow(r, given)
    r.refuse(f"{owner.__name__}.{name}() is called, which is C code that is not known here")
    return Unknown()


_MADE_BY_C = frozenset(
    words(
        "builtins itertools collections functools operator datetime decimal re types weakref "
        "_thread"
    )
)


_GO_THROUGH = frozenset({list, tuple, zip, map, filter, enumerate, reversed, dict})


def constructed(
    r: Reads, f: type, args: list[Any], kwargs: dict[str, Any], given: list[Any]
) -> Any:
    """A class without Python code in ``__new__`` and ``__init__`` is called."""
    for x in given:
        called_back(r, x, given)
    if f in _GETTERS or f is functools.partial:
        if any(isinstance(x, Mark) for x in given):
            r.refuse(f"a {f.__name__} is made of what cannot be seen into", "write it out")
            return Unknown()
        for x in given:
            r.reach(x) if r.is_outside(x) else None
        make: Any = f
        return make(*args, **kwargs)  # one like that which the step makes
    if any(b.__module__ in ("_random", "_io", "socket", "_socket", "mmap") for b in f.__mro__):
        r.refuse(
            f"a {f.__name__} is made inside the step, which depends on more than its arguments"
        )
        return FRESH
    if issubclass(f, decimal.Decimal):
        ask_again(r, decimal_context)
    if issubclass(f, np.generic | np.dtype | int | float | complex | str | bytes):
        for x in given:
            r.special(x, "__int__", "__float__", "__index__", "__str__", "__bool__", "__len__")
            r.content(x)
            if issubclass(f, str) and isinstance(x, np.ndarray):
                ask_again(r, np.get_printoptions)
        return FRESH if f.__module__ != "__main__" and not _is_python(f) else Instance(f)
    base = next((b for b in f.__mro__ if not _is_python(b)), object)
    if base.__module__ not in _MADE_BY_C and not issubclass(base, np.ndarray | BaseException):
        r.refuse(
            f"a {base.__module__}.{base.__name__} is made inside the step, which is C code that "
            "is not known here",
            "make it outside",
        )
    if base is object:
        return Instance(f)
    for x in given:
        r.special(x, "__iter__", "__len__", "__getitem__")
    found = (_entries if f in _GO_THROUGH else _shallow)(r, given)
    if f is map or any(callable(x) for x in given if not isinstance(x, type | Mark)):
        found = Unknown(getattr(found, "sources", ()), opaque=f is not filter, computed=True)
    return found if not _is_python(f) else Instance(f, getattr(found, "sources", ()))


def _is_python(t: type) -> bool:
    return not t.__flags__ & _IMMUTABLE_TYPE and inspect.isclass(t)
