"""Arguments and results as trees, from which the tensors are taken out.

``signature`` makes the part of a call's key that its arguments are; ``flatten`` and ``unflatten``
take apart what a step hands out, and put it together again around the tensors of a replay.
"""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import functools
import operator
import re
import struct
import types
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from tensorgrad.errors import CompileError
from tensorgrad.nn.module import Module
from tensorgrad.program.bytecode import callables
from tensorgrad.program.guards import SCALARS, same, slots_of
from tensorgrad.tensor import Tensor


class TensorLeaf(NamedTuple):
    """The place of a tensor in a tree: its number among those taken out."""

    number: int


class Node(NamedTuple):
    """A container or an object that is made anew in every replay.

    names: of attributes, or plain keys of a dict; other keys stand before their values in parts.
    number: by which it goes where it is met again.
    """

    kind: type
    names: tuple[Any, ...]
    parts: tuple[Any, ...]
    number: int


class Again(NamedTuple):
    """What the node of that number has made."""

    number: int


class Passed(NamedTuple):
    """A container among the arguments, by the indices and keys that lead to it."""

    path: tuple[Any, ...]


class Constant(NamedTuple):
    """Anything else: the same in every replay."""

    value: Any


def is_plain_container(obj: Any) -> bool:
    """Whether an argument is no more than the values in it: a list, a dict, a (named) tuple."""
    t = type(obj)
    if t in (list, tuple, dict, OrderedDict):
        return True
    return isinstance(obj, tuple) and hasattr(t, "_fields") and not hasattr(obj, "__dict__")


def signature(obj: Any, tensors: list[Tensor], seen: dict[int, int] | None = None) -> Any:
    """The structure of arguments, as part of a key; the tensors are added to ``tensors``.

    Types count, and so do the signs of zeros: what is equal may still compute something else.
    seen: the lists and dicts that were met; one that stands in two places is no two.

    Raises CompileError for what is neither a tensor nor hashable.
    """
    t = type(obj)
    if isinstance(obj, Tensor):
        tensors.append(obj)
        return TensorLeaf
    if is_plain_container(obj):
        seen = {} if seen is None else seen
        if isinstance(obj, list | dict):
            number = len(seen)
            at = seen.setdefault(id(obj), number)
            if at != number:
                return Again, at
        if isinstance(obj, dict):
            return t, *[
                (signature(k, tensors, seen), signature(v, tensors, seen)) for k, v in obj.items()
            ]
        return t, *[signature(x, tensors, seen) for x in obj]
    if t is float:
        return t, struct.pack("d", obj)
    if t is complex:
        return t, struct.pack("dd", obj.real, obj.imag)
    if t in SCALARS or isinstance(obj, np.dtype):
        return t, obj
    if isinstance(obj, np.generic):
        return t, obj.dtype, obj.tobytes()
    if t in _BY_VALUE:
        return t, repr(obj)
    if t is slice or t is range:
        return t, *[signature(x, tensors) for x in (obj.start, obj.stop, obj.step)]
    if isinstance(obj, list | dict | tuple):
        return t, Same(obj)  # of a class of the user's: it may be more than what is in it
    try:
        hash(obj)
    except TypeError:
        kind = "NumPy array" if isinstance(obj, np.ndarray) else t.__name__
        raise CompileError(
            f"a compiled function takes tensors, hashable constants, and tuples, lists and "
            f"dicts of them; got a {kind}. Make a tensor of it, as in tg.Tensor(x)"
        ) from None
    return t, Same(obj)


class Same:
    """An object in a key, equal to this very one alone, which the key does not keep alive.

    Its address would not do: when it is gone, another object may get that.
    """

    __slots__ = ("_found", "_hash")

    def __init__(self, obj: Any) -> None:
        self._hash = hash(id(obj))
        try:
            self._found: Callable[[], Any] = weakref.ref(obj)
        except TypeError:  # of a class that does not allow it: kept as long as the key
            self._found = functools.partial(_itself, obj)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Same) or self._hash != other._hash:
            return False
        found = self._found()
        return found is not None and found is other._found()


def _itself(obj: Any) -> Any:
    return obj


_BY_VALUE = frozenset(
    {
        decimal.Decimal, fractions.Fraction, datetime.date, datetime.time, datetime.datetime,
        datetime.timedelta,
    }
)  # fmt: skip


#: What the step makes of these never changes, and nobody asks which object it is.
_VALUES = frozenset(
    {
        range, re.Pattern, decimal.Decimal, fractions.Fraction, datetime.date, datetime.time,
        datetime.datetime, datetime.timedelta, datetime.timezone, types.GenericAlias,
        types.UnionType,
    }
)  # fmt: skip
_GETTERS = (operator.attrgetter, operator.itemgetter, operator.methodcaller)
#: What can be made only when all its parts are there, so that it cannot be one of them.
_CLOSED = (tuple, frozenset, slice, functools.partial)


class Found:
    """Tensors and objects that a step hands out or leaves behind, each once, as they are met."""

    def __init__(self, given: Any = ()) -> None:
        """given: the arguments. Lists, dicts and tuples among them stay themselves."""
        self.tensors: list[Tensor] = []
        self._numbers: dict[int, int] = {}
        #: by the id of an object, its number among those that are made anew, and the object
        self._made: dict[int, tuple[int, Any]] = {}
        self._open: set[int] = set()
        self._passed = dict(_containers(given, ()))

    def number(self, tensor: Tensor) -> int:
        """The number of a tensor, which is added if it is new."""
        at = self._numbers.setdefault(id(tensor), len(self.tensors))
        if at == len(self.tensors):
            self.tensors.append(tensor)
        return at

    def known(self, obj: Any) -> Again | Passed | None:
        """How to find an object that was met before, or that was given.

        Raises CompileError for one that is part of itself and cannot be made so.
        """
        entry = self._made.get(id(obj))
        if entry is None:
            path = self._passed.get(id(obj))
            return None if path is None else Passed(path)
        if id(obj) in self._open and isinstance(obj, _CLOSED):
            raise _refused(f"a {type(obj).__name__} that contains itself", "return what is in it")
        return Again(entry[0])

    def begin(self, obj: Any) -> int:
        """The number of an object that is about to be taken apart."""
        number = len(self._made)
        self._made[id(obj)] = number, obj
        self._open.add(id(obj))
        return number

    def end(self, obj: Any) -> None:
        """It has been taken apart."""
        self._open.discard(id(obj))


def _containers(obj: Any, path: tuple[Any, ...]) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """The containers in arguments, by id, with the indices and keys that lead to them."""
    for key, x in obj.items() if isinstance(obj, dict) else enumerate(obj):
        if is_plain_container(x):
            yield from _containers(x, (*path, key))
            yield id(x), (*path, key)


def flatten(obj: Any, found: Found, is_outside: Callable[[Any], bool]) -> Any:
    """A tree of what a step hands out; its tensors are added to ``found``.

    is_outside: whether an object was there before the step; such an object stays itself.

    Raises CompileError for an object that cannot be made anew.
    """
    t = type(obj)
    if isinstance(obj, Tensor):
        return TensorLeaf(found.number(obj))
    if t in SCALARS or isinstance(obj, np.dtype) or (isinstance(obj, np.generic) and t != np.void):
        return Constant(obj)
    known = found.known(obj)
    if known is not None:
        return known
    if is_outside(obj) or _is_value(obj, is_outside):
        return Constant(obj)
    names, parts = _taken_apart(obj)
    number = found.begin(obj)
    try:
        trees = tuple([flatten(x, found, is_outside) for x in parts])
    except RecursionError:
        raise _refused("objects that are nested too deeply", "nest them less") from None
    found.end(obj)
    return Node(t, names, trees, number)


def _is_value(obj: Any, is_outside: Callable[[Any], bool]) -> bool:
    """Whether what the step made may stay itself: it never changes, and refers to nothing else."""
    t = type(obj)
    if t in _VALUES:
        return True
    if t is slice:
        return {type(obj.start), type(obj.stop), type(obj.step)} <= SCALARS
    if t in _GETTERS:
        made, arguments = obj.__reduce__()
        return made is t and all(type(x) in SCALARS for x in arguments)
    if t is types.BuiltinFunctionType:
        return isinstance(obj.__self__, types.ModuleType | None) or is_outside(obj.__self__)
    return t in _C_DESCRIPTORS


_C_DESCRIPTORS = (
    types.MethodDescriptorType, types.WrapperDescriptorType, types.ClassMethodDescriptorType,
    types.GetSetDescriptorType, types.MemberDescriptorType,
)  # fmt: skip


def _taken_apart(obj: Any) -> tuple[tuple[Any, ...], Sequence[Any]]:
    """The names and the parts of which ``unflatten`` makes an object like this one.

    Raises CompileError if there are none.
    """
    t = type(obj)
    if t in (list, tuple, set, frozenset) or (isinstance(obj, tuple) and hasattr(t, "_fields")):
        return (), list(obj)
    if t is dict or t is OrderedDict:
        if all(type(key) in SCALARS for key in obj):
            return tuple(obj), list(obj.values())
        return (), [x for item in obj.items() for x in item]
    if t is collections.deque:
        return (obj.maxlen,), list(obj)
    if t is slice:
        return (), [obj.start, obj.stop, obj.step]
    if t is functools.partial and not vars(obj):
        return (), [obj.func, obj.args, obj.keywords]
    if (
        isinstance(obj, type | types.FunctionType | types.MethodType | Module | np.ndarray)
        or callables.closed(obj)
        or hasattr(t, "__next__")
    ):
        raise _refused(
            f"a {t.__name__} that it made, which a replay cannot make anew",
            "return tensors, numbers, and tuples, lists and dicts of them",
        )
    if isinstance(obj, list | tuple | dict | set):
        raise _refused(
            f"a {t.__name__}, of a class of its own", "return a plain tuple, list or dict"
        )
    try:
        if hasattr(t, "__del__"):
            raise TypeError
        _blank(t)
    except TypeError:
        raise _refused(
            f"a {t.__name__}, of a class that is not written in Python or says what becomes of "
            "its objects in the end",
            "return tensors, numbers, and tuples, lists and dicts of them",
        ) from None
    attributes = {**getattr(obj, "__dict__", {}), **{n: getattr(obj, n) for n in slots_of(obj)}}
    return tuple(attributes), list(attributes.values())


def _blank(kind: type) -> Any:
    """An object without attributes. Raises TypeError where its class has more in C than these."""
    if issubclass(kind, types.SimpleNamespace):
        return types.SimpleNamespace.__new__(kind)
    return object.__new__(kind)


def _refused(what: str, remedy: str) -> CompileError:
    return CompileError(f"this cannot be compiled: the step hands out {what}. Remedy: {remedy}")


def unflatten(
    tree: Any, tensors: Sequence[Tensor], given: Any = (), made: dict[int, Any] | None = None
) -> Any:
    """What ``flatten`` took apart, with these tensors in it.

    given: the arguments of this call. made: the objects by their numbers; trees that were
        flattened one after the other are put together in the same order, with the same dict.
    """
    t = type(tree)
    if t is TensorLeaf:
        return tensors[tree.number]
    if t is Constant:
        return tree.value
    if made is None:
        made = {}
    if t is Again:
        return made[tree.number]
    if t is Passed:
        found = given
        for key in tree.path:
            found = found[key]
        return found
    kind, names = tree.kind, tree.names
    if kind in _FILLED or not (issubclass(kind, _CLOSED)):
        # It is there before its parts: one of them may refer to it.
        new: Any = _blank(kind) if kind not in _FILLED else kind()
        if kind is collections.deque:
            new = collections.deque(maxlen=names[0])
        made[tree.number] = new
        parts = [unflatten(x, tensors, given, made) for x in tree.parts]
        if kind in (list, collections.deque):
            new.extend(parts)
        elif kind is set:
            new.update(parts)
        elif kind in _FILLED:
            new.update(zip(names, parts) if names else zip(parts[::2], parts[1::2]))
        else:
            for name, part in zip(names, parts):
                object.__setattr__(new, name, part)
        return new
    parts = [unflatten(x, tensors, given, made) for x in tree.parts]
    if hasattr(kind, "_fields"):
        new = kind._make(parts)
    elif kind is slice:
        new = slice(*parts)
    elif kind is functools.partial:
        new = functools.partial(parts[0], *parts[1], **parts[2])
    else:
        new = kind(parts)
    made[tree.number] = new
    return new


_FILLED = frozenset({list, dict, OrderedDict, set, collections.deque})


def constants_of(tree: Any) -> list[Any]:
    """The objects in a tree that stay themselves."""
    if type(tree) is Constant:
        return [tree.value]
    return [x for part in tree.parts for x in constants_of(part)] if type(tree) is Node else []


def alike(a: Any, b: Any) -> bool:
    """Whether two trees are the same; constants by type and value, or by identity."""
    if type(a) is not type(b):
        return False
    if type(a) is Constant:
        return a.value is b.value or same(a.value, b.value) or _equal(a.value, b.value)
    if type(a) is not Node:
        return bool(a == b)
    return (
        a.kind is b.kind
        and a.number == b.number
        and len(a.parts) == len(b.parts)
        and len(a.names) == len(b.names)
        and all(map(same, a.names, b.names))
        and all(map(alike, a.parts, b.parts))
    )


def _equal(a: Any, b: Any) -> bool:
    """Whether two objects that the step made, and that never change, say the same."""
    if type(a) is not type(b):
        return False
    if type(a) in _GETTERS:
        return all(map(same, a.__reduce__(), b.__reduce__()))
    return type(a) in _VALUES and bool(a == b) and repr(a) == repr(b)
