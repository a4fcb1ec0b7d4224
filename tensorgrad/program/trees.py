"""Arguments and results as trees, from which the tensors are taken out.

``signature`` makes the part of a call's key that its arguments are; ``flatten`` and ``unflatten``
take apart what a step hands out, and put it together again around the tensors of a replay.
"""

from __future__ import annotations

import datetime
import decimal
import fractions
import functools
import struct
import types
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tensorgrad.errors import CompileError
from tensorgrad.nn.module import Module
from tensorgrad.program import callables
from tensorgrad.program.guards import SCALARS, same, slots_of
from tensorgrad.tensor import Tensor


class Leaf(NamedTuple):
    """The place of a tensor in a tree: its number among those taken out."""

    number: int


class Node(NamedTuple):
    """A container or an object that is made anew in every replay."""

    kind: type
    names: tuple[Any, ...]
    parts: tuple[Any, ...]


class Constant(NamedTuple):
    """Anything else: the same in every replay."""

    value: Any


def is_plain_container(obj: Any) -> bool:
    """Whether an argument is no more than the values in it: a list, a dict, a (named) tuple."""
    t = type(obj)
    if t in (list, tuple, dict, OrderedDict):
        return True
    return isinstance(obj, tuple) and hasattr(t, "_fields") and not hasattr(obj, "__dict__")


def signature(obj: Any, tensors: list[Tensor]) -> Any:
    """The structure of arguments, as part of a key; the tensors are added to ``tensors``.

    Types count, and so do the signs of zeros: what is equal may still compute something else.

    Raises CompileError for what is neither a tensor nor hashable.
    """
    t = type(obj)
    if isinstance(obj, Tensor):
        tensors.append(obj)
        return Leaf
    if is_plain_container(obj) and not isinstance(obj, dict):
        return t, *[signature(x, tensors) for x in obj]
    if is_plain_container(obj):
        return t, *[(signature(k, tensors), signature(v, tensors)) for k, v in obj.items()]
    if t is float:
        return t, struct.pack("d", obj)
    if t is complex:
        return t, struct.pack("dd", obj.real, obj.imag)
    if t in SCALARS or isinstance(obj, np.dtype):
        return t, obj
    if isinstance(obj, np.generic):
        return t, obj.tobytes()
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


class Found:
    """Tensors, each once, in the order in which they were met."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self._numbers: dict[int, int] = {}

    def number(self, tensor: Tensor) -> int:
        """The number of a tensor, which is added if it is new."""
        at = self._numbers.setdefault(id(tensor), len(self.tensors))
        if at == len(self.tensors):
            self.tensors.append(tensor)
        return at


def flatten(obj: Any, found: Found, is_outside: Callable[[Any], bool]) -> Any:
    """A tree of what a step hands out; its tensors are added to ``found``.

    is_outside: whether an object was there before the step; such an object stays itself.

    Raises CompileError for an object that cannot be made anew.
    """
    t = type(obj)
    if isinstance(obj, Tensor):
        return Leaf(found.number(obj))
    if t in SCALARS or isinstance(obj, np.generic | np.dtype):
        return Constant(obj)
    if isinstance(obj, list | dict | set) and is_outside(obj):
        return Constant(obj)
    if t in (list, tuple, set, frozenset) or (isinstance(obj, tuple) and hasattr(t, "_fields")):
        return Node(t, (), tuple([flatten(x, found, is_outside) for x in obj]))
    if t is dict or t is OrderedDict:
        return Node(t, tuple(obj), tuple([flatten(x, found, is_outside) for x in obj.values()]))
    made = isinstance(obj, type | types.FunctionType | types.MethodType)
    if is_outside(obj) or (t in callables.STATELESS and not made):
        return Constant(obj)
    if (
        made
        or callables.closed(obj)
        or isinstance(obj, Module | np.ndarray)
        or hasattr(t, "__next__")
    ):
        raise CompileError(
            f"this cannot be compiled: the step hands out a {t.__name__} that it made, which a "
            "replay "
            "cannot make anew. Remedy: return tensors, numbers, and tuples, lists and dicts of them"
        )
    if isinstance(obj, list | tuple | dict | set):
        raise CompileError(
            f"this cannot be compiled: the step hands out a {t.__name__}, of a class of its own. "
            "Remedy: "
            "return a plain tuple, list or dict"
        )
    attributes = {**getattr(obj, "__dict__", {}), **{n: getattr(obj, n) for n in slots_of(obj)}}
    parts = tuple([flatten(x, found, is_outside) for x in attributes.values()])
    return Node(t, tuple(attributes), parts)


def unflatten(tree: Any, tensors: Sequence[Tensor]) -> Any:
    """What ``flatten`` took apart, with these tensors in it."""
    t = type(tree)
    if t is Leaf:
        return tensors[tree.number]
    if t is Constant:
        return tree.value
    kind = tree.kind
    parts = [unflatten(x, tensors) for x in tree.parts]
    if kind is list:
        return parts
    if hasattr(kind, "_fields"):
        return kind._make(parts)
    if kind in (tuple, set, frozenset):
        return kind(parts)
    if kind is dict or kind is OrderedDict:
        return kind(zip(tree.names, parts))
    made = object.__new__(kind)
    for name, part in zip(tree.names, parts):
        object.__setattr__(made, name, part)
    return made


def constants_of(tree: Any) -> list[Any]:
    """The objects in a tree that stay themselves."""
    if type(tree) is Constant:
        return [tree.value]
    return [] if type(tree) is Leaf else [x for part in tree.parts for x in constants_of(part)]


def alike(a: Any, b: Any) -> bool:
    """Whether two trees are the same; constants by type and value, or by identity."""
    if type(a) is not type(b):
        return False
    if type(a) is Leaf:
        return a == b
    if type(a) is Constant:
        return a.value is b.value or same(a.value, b.value)
    return (
        a.kind is b.kind
        and len(a.parts) == len(b.parts)
        and len(a.names) == len(b.names)
        and all(map(same, a.names, b.names))
        and all(map(alike, a.parts, b.parts))
    )
