"""What has to be the same for a replay to be right, besides what the key of a call holds.

A guard is one read: of ``key`` in ``holder``, which gave ``value``. Those of the code that ran come
from ``follower.py``; what the engine itself looks at (modules, gradients, hooks, optimizers) is
listed here. All of them are looked at again before every replay; where one does not hold, the
function is captured once more.

A tensor that was found at a place outside is not compared: a replay takes the one that is there
now, if it is of the same kind.
"""

from __future__ import annotations

import array
import collections
import functools
import math
import operator
import struct
import types
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tensorgrad import backend
from tensorgrad.errors import CompileError
from tensorgrad.nn.module import Module, changes
from tensorgrad.ops import random
from tensorgrad.program.aliases import Sharing
from tensorgrad.program.engine import ours
from tensorgrad.program.ir import is_writeable
from tensorgrad.tape import Leaf
from tensorgrad.tensor import Tensor

#: A container that C code or the engine reads unseen is compared up to so many entries, so many
#: levels deep; an array up to so many bytes.
ENTRIES, DEEP, ARRAY_BYTES = 10_000, 8, 1 << 16

SCALARS: frozenset[type] = frozenset(
    {int, bool, str, bytes, float, complex, type(None), type(...), type(NotImplemented)}
)
#: what has a content that is compared entry by entry, the views of dicts and classes included
CONTAINERS: tuple[type, ...] = (
    list, tuple, dict, set, frozenset, collections.deque, types.MappingProxyType,
    type({}.keys()), type({}.values()), type({}.items()),
)  # fmt: skip
#: what is compared by its bytes
BUFFERS = (bytearray, memoryview, array.array)


class _Missing:
    def __repr__(self) -> str:
        return "<missing>"


#: the value of a read that found nothing
MISSING = _Missing()


def same(a: Any, b: Any) -> bool:
    """Whether plain values are equal and of one type; ``-0.0`` is not ``0.0``, NaN is NaN.

    Anything else is never the same, unless it is the same object.
    """
    if a is b:
        return True
    t = type(b)
    if type(a) is not t:
        return False
    if t is float:
        return (a == b and math.copysign(1.0, a) == math.copysign(1.0, b)) or (a != a and b != b)
    if t is complex:
        return struct.pack("dd", a.real, a.imag) == struct.pack("dd", b.real, b.imag)
    if t in SCALARS or isinstance(b, np.dtype):
        return bool(a == b)
    if t is tuple:
        return len(a) == len(b) and all(map(same, a, b))
    if t is slice:
        return same((a.start, a.stop, a.step), (b.start, b.stop, b.step))
    if t is range:
        return same((a.start, a.stop, a.step), (b.start, b.stop, b.step))
    return isinstance(b, np.generic) and a.dtype == b.dtype and a.tobytes() == b.tobytes()


class Frozen(NamedTuple):
    """The content of a container, of a small array, or of an object with attributes.

    owner: the object itself, where another one with equal content would not do.
    """

    kind: type
    parts: tuple[Any, ...]
    owner: Any = None


def slots_of(o: Any) -> list[str]:
    """The attributes of an object that are not in its ``__dict__``."""
    found = []
    for t in type(o).__mro__:
        found += [n for n, d in vars(t).items() if isinstance(d, types.MemberDescriptorType)]
    return [n for n in found if n not in ("__dict__", "__weakref__") and hasattr(o, n)]


def parts_of(o: Any) -> list[Any]:
    """The entries of a container in order, or the attributes of an object and their values."""
    if isinstance(o, dict):  # the order counts
        kind = collections.OrderedDict if isinstance(o, collections.OrderedDict) else dict
        return [x for item in list(kind.items(o)) for x in item]
    if isinstance(o, types.MappingProxyType):
        return [x for item in list(o.items()) for x in item]
    if isinstance(o, CONTAINERS):
        entries: Any = o
        return list(entries)
    if isinstance(o, BUFFERS):
        return [bytes(o)]
    attributes = getattr(o, "__dict__", {})
    found = [x for item in list(attributes.items()) for x in item]
    return found + [getattr(o, n) for n in slots_of(o)]


def matches(o: Any, then: Any) -> bool:
    """Whether ``o`` has the content that was frozen."""
    if type(then) is not Frozen:
        return o is then or same(o, then) or (then is Tensor and isinstance(o, Tensor))
    if type(o) is not then.kind or (then.owner is not None and o is not then.owner):
        return False
    if isinstance(o, np.ndarray):
        return (o.shape, o.dtype, o.tobytes()) == then.parts
    now = parts_of(o)
    return len(now) == len(then.parts) and all(map(matches, now, then.parts))


def lookup(t: type, name: str) -> Any:
    """What ``name`` is in a class or its bases, with no descriptor called."""
    for base in t.__mro__:
        if name in base.__dict__:
            return base.__dict__[name]
    return MISSING


def _attribute(holder: Any, key: str) -> Any:
    return getattr(holder, key, MISSING)


_READ: dict[str, Callable[[Any, Any], Any]] = {
    "key": lambda holder, key: dict.get(holder, key, MISSING),
    "has": lambda holder, key: dict.__contains__(holder, key),
    "attribute": _attribute,
    "class": lookup,
    "class attribute": lambda holder, key: holder.__dict__.get(key, MISSING),
    "cell": lambda holder, key: holder.cell_contents,
    "item": lambda holder, key: holder[key],
    "length": lambda holder, key: len(holder),
    "variable": lambda holder, key: holder.get(MISSING),
    "instance": lambda holder, key: isinstance(holder, key),
    "subclass": lambda holder, key: issubclass(holder, key),
    "referent": lambda holder, key: holder() is not None,
    "call": lambda holder, key: holder(*key[0], **dict(key[1])),
    "function": lambda f, key: (f.__code__, f.__defaults__, f.__kwdefaults__),
}


def read(kind: str, holder: Any, key: Any) -> Any:
    """What is there now; MISSING where nothing is.

    A "weak" read is of what a weak reference refers to, which the guard must not keep alive.
    """
    try:
        if kind.startswith("weak "):
            holder = holder()
            return MISSING if holder is None else _READ[kind[5:]](holder, key)
        return _READ[kind](holder, key)
    except Exception:  # of any code that a cached function runs
        return MISSING


class Guard(NamedTuple):
    """One read: of ``key`` in ``holder``, which gave ``value``, at a line of the user's."""

    kind: str
    holder: Any
    key: Any
    value: Any
    where: str

    def holds(self) -> bool:
        """Whether it gives the same now."""
        if self.kind in ("content", "entries"):
            return matches(self.holder, self.value)
        if self.kind == "function":
            f, (code, defaults, keywords) = self.holder, self.value
            return (
                f.__code__ is code and f.__defaults__ is defaults and f.__kwdefaults__ is keywords
            )
        return same(read(self.kind, self.holder, self.key), self.value)

    def __str__(self) -> str:
        t = type(self.holder)
        of = getattr(self.holder, "__name__", "") if isinstance(self.holder, type) else t.__name__
        name = (self.holder.get("__name__") if self.kind == "key" else None) or None
        what = {
            "key": f"the global {self.key!r}" if name else f"{self.key!r} of a dict",
            "cell": "a variable of the function around",
            "content": f"the content of a {of}",
            "entries": f"the entries of a {of}",
            "class": f".{self.key} of the class {of}",
            "function": f"the code or the defaults of {getattr(self.holder, '__qualname__', of)}",
            "item": f"item {self.key!r} of a {of}",
            "length": f"the length of a {of}",
            "call": f"what {getattr(self.holder, '__name__', of)}() gives",
        }.get(self.kind, f"{self.key!r} of a {of}")
        return f"{what}, read at {self.where}"


class Place:
    """A tensor from outside, and the places where it was found; replays take the one that is there.

    The value of a program that stands for it asks here for its array.
    """

    __slots__ = ("fixed", "places", "tensor")

    def __init__(self, tensor: Tensor, places: Sequence[tuple[str, Any, Any]]) -> None:
        self.tensor = tensor
        self.places = list(places)
        #: whether no other tensor will do: its entry on the tape is part of the program
        self.fixed = type(tensor.node) not in (type(None), Leaf)

    def array(self) -> Any:
        """The array of the tensor that is there."""
        return self.tensor.data

    def find(self) -> Tensor:
        """The tensor that is there."""
        return self.tensor

    def holds(self) -> bool:
        """Look again; whether what is there will do."""
        kind, holder, key = self.places[0]
        first = read(kind, holder, key)
        if any(read(*place) is not first for place in self.places[1:]):
            return False
        old = self.tensor
        if first is old:
            return True
        if self.fixed or type(first) is not type(old) or type(first.node) is not type(old.node):
            return False
        if getattr(first.node, "hooks", None):
            return False  # the old one had none, or it would be fixed
        a, b = first.data, old.data
        if type(a) is not type(b) or (a.shape, a.dtype) != (b.shape, b.dtype):
            return False
        self.tensor = first
        return True

    def __str__(self) -> str:
        kind, holder, key = self.places[0]
        return f"a tensor found at {Guard(kind, holder, key, None, '')}".partition(", read at")[0]


class _Attributes(NamedTuple):
    """The attributes of a module.

    names: in their order. seen: those that are looked at, and what they were. get: gives these.
    parts: the lists and dicts among them, and what was in these.
    """

    of: dict[str, Any]
    names: list[str]
    get: Callable[[Any], tuple[Any, ...]] | None
    seen: dict[str, Any]
    parts: list[tuple[Any, Any]]


class Guards:
    """The conditions of one program; ``hold()`` says whether they are met."""

    def __init__(self) -> None:
        self.reads: list[Guard] = []
        self.places: list[Place] = []
        #: modules that were entered, and what the engine reads of each
        self.modules: list[tuple[Module, list[tuple[str, Any]]]] = []
        self._parameters: list[tuple[Mapping[str, Any], str, Any]] = []
        #: classes of modules, and what was found in each by a name
        self.classes: list[tuple[type, str, Any]] = []
        #: classes of the engine that the step uses, and all that is in them
        self.engine: list[tuple[type, Collection[Any], list[Any]]] = []
        self.attributes: list[_Attributes] = []  # of the modules entered
        self._known: set[int] = set()
        self._seen = changes.count
        #: tensors from outside: [tensor or its place, entry on the tape, array]
        self.tensor_states: list[list[Any]] = []
        #: leaves, with the list of their hooks and what was in it
        self.hooks: list[tuple[Any, Any, tuple[Any, ...]]] = []
        #: leaves, and whether each had no gradient
        self.gradients: list[tuple[Any, bool]] = []
        #: optimizers, the number of a group and the plan that it had
        self.updates: list[tuple[Any, ...]] = []
        #: optimizers, and what they consist of
        self.optimizers: list[tuple[Any, list[Any]]] = []
        #: which arguments' entries on the tape have their gradients changed, and by which leaf
        self.argument_leaves: dict[int, Any] = {}
        #: arguments whose entry has to be that very one: its gradient or its hooks are looked at
        self._own_leaves: dict[int, Any] = {}
        #: arguments that are leaves
        self.leaf_arguments: list[int] = []
        self.sharing: Sharing | None = None
        self._skipped: dict[int, set[Any]] = {}  # attributes of modules that the step sets itself
        self._fetches: list[Callable[[], Any]] = []
        self._outside_arrays: list[Any] = []
        #: what did not hold when it was looked at last
        self.broken: Any = None

    def uses_history(self) -> bool:
        """Whether tensors from outside are used that require a gradient."""
        return any(node is not None for _, node, _ in self.tensor_states)

    def enter(self, module: Module) -> None:
        """Watch a module, and those in it, from now on."""
        if id(module) in self._known:
            return
        for m in module.modules():
            if id(m) not in self._known:
                self._known.add(id(m))
                found = _watched(m)
                self.modules.append((m, [(n, _plain_copy(x)) for n, x in found]))
                for name in ("forward", "__call__", "training"):
                    self.classes.append((type(m), name, lookup(type(m), name)))
                self._parameters += [
                    (vars(m), n, x) for n, x in found if isinstance(x, Tensor | Module)
                ]

    def locate(self, reads: Any) -> None:
        """Note where tensors from outside were found."""
        self.places = [Place(t, found) for t, found in reads.tensors.values() if found]
        for place in self.places:
            place.fixed = place.fixed or id(place.tensor) in reads.identified

    def tensors(self, recorder: Any) -> list[tuple[Tensor, Callable[[], Tensor]]]:
        """The tensors from outside that are known, each with how to find what is there then."""
        found: dict[int, tuple[Tensor, Callable[[], Tensor]]] = {}
        for place in self.places:
            found[id(place.tensor)] = (place.tensor, place.find)
        others = [t for t, _ in recorder.externals]
        others += [p for _, _, p in self._parameters if isinstance(p, Tensor)]
        for t in others:
            found.setdefault(id(t), (t, functools.partial(_itself, t)))
        return list(found.values())

    def complete(
        self, recorder: Any, reads: Any, program: Any, arguments: Sequence[Tensor]
    ) -> None:
        """Add what the capture has shown.

        Raises CompileError if the step changed a module after it was called.
        """
        self.reads = list(reads.guards.values())
        self.reads += _of_functions(list(reads.met.values()))
        if recorder.words:
            # Layers and functions draw from the one that is there.
            name = "default_generator"
            self.reads.append(Guard("key", vars(random), name, random.default_generator, "a draw"))
        written = set(reads.written)
        self._skipped = {
            id(m): {n for h, n in written if h == id(vars(m))} for m, _ in self.modules
        }
        kept = []
        for module, then in self.modules:
            skipped = self._skipped[id(module)]
            then = [(n, x) for n, x in then if n not in skipped]
            if not _alike([(n, x) for n, x in _watched(module) if n not in skipped], then):
                raise CompileError(
                    f"this cannot be compiled: a {type(module).__name__} is changed after it was "
                    "called (a "
                    "mode, a parameter, a hook). Remedy: change it outside the step"
                )
            kept.append((module, then))
        self.modules, self._seen = kept, changes.count
        self._note_attributes()
        used: list[type] = [
            Tensor,
            *[type(m) for m, _ in kept],
            *[type(o) for o, *_ in recorder.updates],
        ]
        bases = dict.fromkeys(base for t in used for base in t.__mro__ if ours(base))
        self.engine = [(t, vars(t).values(), list(vars(t).values())) for t in bases]
        self._parameters = [(d, n, x) for d, n, x in self._parameters if (id(d), n) not in written]
        leaves = set(recorder.touched)
        kept_to = {*leaves, *recorder.looked_at, *recorder.at_first}
        at = {id(p.tensor): p for p in self.places}
        for place in self.places:
            node = place.tensor.node
            place.fixed = place.fixed or node in kept_to or bool(getattr(node, "hooks", None))
        for t, value in recorder.externals:
            known = at.get(id(t))
            if known is not None:
                value.fetch = known.array
            self.tensor_states.append([known or t, t.node, t.data])
        shown = {id(t) for t, _ in recorder.externals}
        self.tensor_states += [
            [p, p.tensor.node, p.tensor.data] for p in self.places if id(p.tensor) not in shown
        ]
        # The step may have asked others, too, for a shape, or whether they require a gradient:
        # parameters of modules, and what came by a way that has no name.
        shown |= set(at)
        others = [p for _, _, p in self._parameters if isinstance(p, Tensor)]
        others += [t for t, found in reads.tensors.values() if not found]
        asked = {id(t): t for t in others if id(t) not in shown}
        self.tensor_states += [[t, t.node, t.data] for t in asked.values()]
        self.hooks = [(leaf, leaf.hooks, tuple(leaf.hooks or ())) for leaf in recorder.leaves]
        added_to = [leaf for leaf, cleared in recorder.touched.items() if not cleared]
        looked_at = [leaf for leaf in recorder.leaves if leaf in recorder.looked_at]
        self.gradients = [
            (leaf, recorder.leaves[leaf] is None)
            for leaf in dict.fromkeys([*added_to, *looked_at, *recorder.at_first])
        ]
        if added_to:
            met_outside = tuple(t for t, _ in recorder.externals)
            before = [recorder.leaves[leaf] for leaf in added_to]
            if not _apart([g for g in before if g is not None], met_outside):
                raise CompileError(
                    "this cannot be compiled: the step adds to gradients that are one and the "
                    "same, or lie in the memory of other tensors. Remedy: give each a copy, as in "
                    "p.grad = g.clone()"
                )
            given = tuple(added_to), met_outside
            self.reads.append(Guard("call", gradients_apart, (given, ()), True, "backward"))
        for optimizer in dict.fromkeys(o for o, *_ in recorder.updates):
            self.optimizers.append((optimizer, _parts_of_optimizer(optimizer)))
        updated = [optimizer for optimizer, _ in self.optimizers]
        for optimizer in dict.fromkeys(recorder.cleared):
            if optimizer not in updated:
                self.reads += _of_groups(optimizer)
        for optimizer, number, _ in recorder.updates:
            self.updates.append((optimizer, number, optimizer._plans[number]))
        self.argument_leaves = {
            k: t.node for k, t in enumerate(arguments) if t.node is not None and t.node in leaves
        }
        # All memory that the step may have met under another name counts, whether the program uses
        # it or not: an argument may be a tensor that lies outside, too.
        seen = {*added_to, *looked_at, *recorder.at_first}
        for k, t in enumerate(arguments):
            if type(t.node) is Leaf:
                self.leaf_arguments.append(k)
                if t.node in seen or t.node.hooks:
                    self._own_leaves[k] = t.node
        for optimizer, number, _ in recorder.updates:
            group = optimizer.param_groups[number]
            if any((id(group), name) in reads.written for name in optimizer.live_options):
                raise CompileError(
                    "this cannot be compiled: the learning rate is set by the step. Remedy: set "
                    "it, and step schedulers, outside"
                )
        outside = [v for v in program.values() if v.role == "external"]
        self._fetches = [v.fetch for v in outside]
        self._fetches += [p.array for p in self.places if p.array not in self._fetches]
        # Those of the time of the capture: the step may have taken a gradient away since.
        arrays = [v.array for v in outside]
        arrays += [f() for f in self._fetches[len(outside) :]]
        met = set(map(id, arrays))
        parameters = [p for _, _, p in self._parameters if isinstance(p, Tensor)]
        others = [*parameters, *[t for t, _ in recorder.externals]]
        others += [p for o, _ in self.optimizers for g in o.param_groups for p in g["params"]]
        for t in others:
            if id(t.data) not in met:
                met.add(id(t.data))
                self._fetches.append(functools.partial(getattr, t, "data"))
                arrays.append(t.data)
        self._outside_arrays = arrays
        self.sharing = Sharing(
            [t.data for t in arguments], self._outside_arrays, recorder.by_layout
        )

    @staticmethod
    def names_of(optimizer: Any) -> list[str]:
        """The options of an optimizer that a program has to be captured anew for."""
        return [name for name in optimizer.defaults if name not in optimizer.live_options]

    def hold(self, arguments: Sequence[Tensor]) -> bool:
        """Whether everything is as it was, for a call with these tensors."""
        self.broken = self._first_broken(arguments)
        return self.broken is None

    def apart(self, arguments: Sequence[Tensor]) -> bool:
        """Whether these tensors share memory with those outside as at capture, where all else of
        what ``hold`` asks is known to be as it was."""
        assert self.sharing is not None
        return self.sharing.holds([t.data for t in arguments], self._outside_arrays)

    def _first_broken(self, arguments: Sequence[Tensor]) -> Any:
        if self._seen != changes.count or not self._same_attributes():
            for module, then in self.modules:
                skipped = self._skipped[id(module)]
                now = [(n, x) for n, x in _watched(module) if n not in skipped]
                if not _alike(now, then):
                    return f"an attribute, a parameter or a mode of a {type(module).__name__}"
            self._seen = changes.count
            self._note_attributes()
        for t, attributes, values in self.engine:
            if not _are_same(list(attributes), values):
                return f"an attribute of the class {t.__name__}"
        for d, name, value in self._parameters:
            if d.get(name) is not value:
                return f"the parameter or part {name!r} of a module"
        for t, name, value in self.classes:
            if lookup(t, name) is not value:
                return f"{t.__name__}.{name}"
        for guard in self.reads:
            if not guard.holds():
                return guard
        for place in self.places:
            if not place.holds():
                return place
        moved = False
        for entry in self.tensor_states:
            of, node, array = entry
            tensor = of.tensor if type(of) is Place else of
            a = tensor.data
            if tensor.node is not node:
                if type(of) is not Place or of.fixed or type(tensor.node) is not type(node):
                    return (
                        f"whether a tensor of shape {tensor.shape} requires a gradient, and which"
                    )
                entry[1] = tensor.node
            if a is not array:
                if type(a) is not type(array) or (a.shape, a.dtype, a.strides) != (
                    array.shape, array.dtype, array.strides,
                ):  # fmt: skip
                    return f"the shape, dtype or layout of a tensor that was of shape {array.shape}"
                if is_writeable(a) is not is_writeable(array):
                    return "whether the memory of a tensor may be written to"
                entry[2] = a
                moved = True
        for leaf, hooks, registered in self.hooks:
            if leaf.hooks is not hooks or tuple(hooks or ()) != registered:
                return "the hooks of a tensor"
        for leaf, empty in self.gradients:
            if (leaf.grad is None) is not empty:
                return "whether a parameter has a gradient"
        for optimizer, then in self.optimizers:
            if not _alike(_parts_of_optimizer(optimizer), then):
                return f"the groups, parameters or options of the {type(optimizer).__name__}"
        for optimizer, number, plan in self.updates:
            # A plan holds for a list of parameters; its bundles never change.
            if optimizer._plans.get(number) is not plan:
                return f"the state of the {type(optimizer).__name__}"
        for k in self.leaf_arguments:
            node = arguments[k].node
            own = self._own_leaves.get(k)
            if type(node) is not Leaf or (own is not None and node is not own):
                return "the gradient of an argument, or its hooks"
            if own is None and node.hooks:
                return "the hooks of an argument"
        assert self.sharing is not None
        if moved or self._has_moved():
            now = [f() for f in self._fetches]
            if not self.sharing.outside_holds(now):
                return "which tensors outside share memory"
            self._outside_arrays = now
        if not self.sharing.holds([t.data for t in arguments], self._outside_arrays):
            return "which tensors share memory, or how they lie in it"
        return None

    def _note_attributes(self) -> None:
        self.attributes = []
        for m, _ in self.modules:
            watched = {name for name, _ in _watched(m)} - self._skipped[id(m)]
            seen = {
                name: x
                for name, x in vars(m).items()
                if name in watched or x is None  # where a parameter may come
            }
            names = list(vars(m))
            get = operator.itemgetter(*seen, *list(seen)[:1]) if seen else None
            parts = [(x, _plain_copy(x)) for x in seen.values() if type(x) in (list, dict, set)]
            self.attributes.append(_Attributes(vars(m), names, get, seen, parts))

    def _same_attributes(self) -> bool:
        """Whether the modules have the attributes that they had, in that order: a quick look, which
        sees what was put into ``vars(module)``, too."""
        for attributes, names, get, seen, parts in self.attributes:
            if list(attributes) != names:
                return False
            if get is not None and not all(map(operator.is_, get(attributes), seen.values())):
                return False
            if parts and not all(matches(x, then) for x, then in parts):
                return False
        return True

    def _has_moved(self) -> bool:
        return any(f() is not a for f, a in zip(self._fetches, self._outside_arrays))


def _itself(tensor: Tensor) -> Tensor:
    return tensor


def _alike(now: Sequence[Any], then: Sequence[Any]) -> bool:
    if len(now) != len(then):
        return False
    for a, b in zip(now, then):
        if a is not b and not (type(b) is tuple and _alike_pair(a, b)) and not matches(a, b):
            return False
    return True


def _alike_pair(a: Any, b: Any) -> bool:
    return type(a) is tuple and len(a) == len(b) and all(map(matches, a, b))


def _watched(module: Module) -> list[tuple[str, Any]]:
    """What the engine reads of a module: of its own layers all, of others what any module has."""
    layer = any(
        t.__module__.startswith("tensorgrad.nn.")
        and t.__module__ not in ("tensorgrad.nn.module", "tensorgrad.nn.containers")
        for t in type(module).__mro__
    )
    found: list[tuple[str, Any]] = [("training", module.training)]
    for name, value in vars(module).items():
        used = name in ("_hooks", "_persistent", "forward") or isinstance(value, Tensor | Module)
        if name != "training" and (layer or used):
            found.append((name, value))
    return found


def _are_same(now: list[Any], then: list[Any]) -> bool:
    """Whether two lists of attributes of a class are alike; quick where they are, one by one."""
    try:
        return now == then
    except Exception:  # of something that cannot be compared, as two tensors
        return False


def gradients_apart(leaves: Sequence[Leaf], others: Sequence[Tensor]) -> bool:
    """Whether the gradients of leaves lie in memory of their own, which ``others`` do not share."""
    return _apart([leaf.grad for leaf in leaves if leaf.grad is not None], others)


def _apart(gradients: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    taken: dict[int, list[Any]] = {}
    for k, t in enumerate((*others, *gradients)):
        a = t.data
        there = taken.setdefault(id(backend.of(a).memory_owner(a)), [])
        if k >= len(others) and any(
            type(a) is not np.ndarray or np.may_share_memory(a, b) for b in there
        ):
            return False
        there.append(a)
    return True


def _of_functions(met: Iterable[Any]) -> list[Guard]:
    """Guards of the code and the defaults of the engine's functions among what the step met."""
    return [
        Guard("function", f, None, (f.__code__, f.__defaults__, f.__kwdefaults__), "the step")
        for f in met
        if isinstance(f, types.FunctionType) and ours(f)
    ]


def _of_groups(optimizer: Any) -> list[Guard]:
    """Guards of which parameters an optimizer has, where it only forgets their gradients."""
    groups, where = optimizer.param_groups, "zero_grad()"
    found = [
        Guard("key", vars(optimizer), "param_groups", groups, where),
        Guard("length", groups, None, len(groups), where),
    ]
    for number, group in enumerate(groups):
        params = group["params"]
        found += [
            Guard("item", groups, number, group, where),
            Guard("key", group, "params", params, where),
            Guard("length", params, None, len(params), where),
            *(Guard("item", params, k, p, where) for k, p in enumerate(params)),
        ]
    return found


def _plain_copy(value: Any) -> Any:
    if type(value) in (list, dict, set):
        return Frozen(type(value), tuple(_plain_copy(x) for x in parts_of(value)))
    return value


def _parts_of_optimizer(o: Any) -> list[Any]:
    """What a program holds of an optimizer: its groups, their parameters and options."""
    found: list[Any] = [o.param_groups]
    live = (*o.live_options, "params")
    for group in o.param_groups:
        found += [group, group["params"], *group["params"]]
        found += [(name, v) for name, v in group.items() if name not in live]
    t = type(o)
    return [
        *found,
        vars(o).get("step"),
        vars(o).get("zero_grad"),
        lookup(t, "step"),
        lookup(t, "zero_grad"),
    ]
