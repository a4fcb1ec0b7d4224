"""What has to be the same for a replay to be right, besides the arguments' shapes and dtypes.

A program holds what Python decided while it was captured: which modules are in training mode, what
the closure's numbers were, which tensors the parameters are. All of it is looked at again before
every replay, and where anything differs the function is captured once more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from types import FunctionType, MethodType, ModuleType
from typing import Any

from tensorgrad.nn.module import Module, changes
from tensorgrad.program.capture import LIVE_OPTIONS, Recorder
from tensorgrad.tensor import Tensor

_SCALARS = (int, float, str, bool, type(None), complex, bytes)
_PLAIN = (*_SCALARS, list, dict, set, tuple)
_MISSING = object()


class Guards:
    """The conditions of one program; ``hold()`` says whether they are met."""

    __slots__ = (
        "_cells", "_dicts", "_gradients", "_hooks", "_known", "_modules", "_objects", "_seen",
        "_sizes", "_tensors", "_updates",
    )  # fmt: skip

    def __init__(self, function: Callable[..., Any], arguments: Sequence[Any] = ()) -> None:
        """Look at what ``function`` can see, before it is captured: it might change some of it."""
        self._cells: list[tuple[Any, Any]] = []
        self._dicts: list[tuple[Mapping[str, Any], str, Any]] = []
        self._objects: list[tuple[Mapping[str, Any], int]] = []
        #: scalars, submodules and parameters of the modules; looked at when any module changed
        self._modules: list[tuple[Mapping[str, Any], str, Any]] = []
        self._sizes: list[tuple[Mapping[str, Any], int]] = []
        self._known: set[int] = set()
        self._seen = changes.count
        for holder, name, value in (s for f in (function, *arguments) for s in _watched(f)):
            if isinstance(value, Module):
                self.enter(value)
            if isinstance(holder, dict) and name == "":
                self._objects.append((holder, len(holder)))
            elif name is None:
                self._cells.append((holder, _snapshot(value)))
            else:
                self._dicts.append((holder, name, _snapshot(value)))
        for argument in arguments:
            if isinstance(argument, Module):
                self.enter(argument)

    def enter(self, module: Module) -> None:
        """Watch a module, and those in it, from now on."""
        if id(module) in self._known:
            return
        for m in module.modules():
            if id(m) not in self._known:
                self._known.add(id(m))
                items = [*vars(m).items(), ("training", m.training)]
                self._modules += [(vars(m), name, _snapshot(value)) for name, value in items]
                self._sizes.append((vars(m), len(vars(m).keys() - {"training"})))

    def complete(self, recorder: Recorder) -> None:
        """Add what the capture has shown: tensors from outside, gradients, optimizers."""
        self._tensors = [[t, t.node, t.data] for t, _ in recorder.externals]
        self._hooks = [(leaf, leaf.hooks, len(leaf.hooks or ())) for leaf in recorder.leaves]
        added_to = [leaf for leaf, cleared in recorder.touched.items() if not cleared]
        looked_at = [leaf for leaf in recorder.leaves if leaf in recorder.looked_at]
        self._gradients = [
            (leaf, recorder.leaves[leaf] is None)
            for leaf in dict.fromkeys([*added_to, *looked_at, *recorder.at_first])
        ]
        self._updates = []
        for optimizer, number, _ in recorder.updates:
            plan = optimizer._plans[number]
            group = optimizer.param_groups[number]
            names = self.names_of(optimizer)
            options = itemgetter(*names) if len(names) > 1 else itemgetter(names)
            self._updates.append((optimizer, number, plan, group, options, options(group)))

    @staticmethod
    def names_of(optimizer: Any) -> list[str]:
        """The options of an optimizer that a program has to be captured anew for."""
        return [name for name in optimizer.defaults if name not in LIVE_OPTIONS]

    def hold(self) -> bool:
        """Whether everything is as it was."""
        if self._seen != changes.count:
            for attributes, name, value in self._modules:
                now = attributes.get(name, _MISSING)
                if now is _MISSING and name == "training":
                    now = True
                if now is not value and not _same(now, value):
                    return False
            for attributes, size in self._sizes:
                if len(attributes) - ("training" in attributes) != size:
                    return False
            self._seen = changes.count
        for entry in self._tensors:
            tensor, node, array = entry
            a = tensor.data
            if tensor.node is not node:
                return False
            if a is not array:
                if type(a) is not type(array) or (a.shape, a.dtype, a.strides) != (
                    array.shape, array.dtype, array.strides,
                ):  # fmt: skip
                    return False
                entry[2] = a
        for cell, value in self._cells:
            now = cell.cell_contents
            if now is not value and not _same(now, value):
                return False
        for holder, name, value in self._dicts:
            now = holder.get(name, _MISSING)
            if now is not value and not _same(now, value):
                return False
        for leaf, hooks, size in self._hooks:
            if leaf.hooks is not hooks or len(hooks or ()) != size:
                return False
        for attributes, size in self._objects:
            if len(attributes) != size:
                return False
        for leaf, empty in self._gradients:
            if (leaf.grad is None) is not empty:
                return False
        for optimizer, number, plan, group, options, values in self._updates:
            # A plan holds for a list of parameters; its bundles never change.
            if (
                optimizer._plans.get(number) is not plan
                or optimizer.param_groups[number] is not group
            ):
                return False
            params = group["params"]
            if params is not plan.params or len(params) != plan.count or options(group) != values:
                return False
        return True


def _snapshot(value: Any) -> Any:
    """What to compare with later: a copy of plain data, and else the object itself."""
    if isinstance(value, list | dict | set) and _plain(value):
        return _copied(value)
    return value


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _copied(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set):
        return type(value)(_copied(v) for v in value)
    return value


def _plain(value: Any, depth: int = 3) -> bool:
    if isinstance(value, _SCALARS):
        return True
    if not depth:
        return False
    if isinstance(value, dict):
        return len(value) <= 100 and all(
            _plain(k, 0) and _plain(v, depth - 1) for k, v in value.items()
        )
    if isinstance(value, list | tuple | set):
        return len(value) <= 100 and all(_plain(v, depth - 1) for v in value)
    return False


def _same(now: Any, then: Any) -> bool:
    """Whether plain data is equal; of anything else, whether it is the same object."""
    if now is then:
        return True
    if type(now) is not type(then) or not isinstance(then, _PLAIN):
        return False
    try:
        return bool(now == then)
    except (ValueError, TypeError):  # tensors and arrays among it
        return False


def _watched(function: Any) -> Iterable[tuple[Any, str | None, Any]]:
    """What a function can see without being given it: its cells, the globals that it names, and
    the attributes of the objects that it is bound to; and what the functions among them see."""
    seen: set[int] = set()
    stack = [function]
    while stack:
        f = stack.pop()
        if id(f) in seen:
            continue
        seen.add(id(f))
        if isinstance(f, MethodType):
            stack += [f.__func__, f.__self__]
            continue
        if not isinstance(f, FunctionType):
            if not isinstance(f, Module | Tensor | type | ModuleType) and hasattr(f, "__dict__"):
                yield from _attributes(f)
            call = vars(type(f)).get("__call__")
            if isinstance(call, FunctionType) and not _ours(call):
                stack.append(call)
            continue
        if _ours(f) and f is not function:
            continue
        for cell in f.__closure__ or ():
            try:
                value = cell.cell_contents
            except ValueError:  # not filled yet
                continue
            yield cell, None, value
            yield from _attributes(value)
            if isinstance(value, FunctionType | MethodType):
                stack.append(value)
        for name in f.__code__.co_names:
            if name in f.__globals__:
                value = f.__globals__[name]
                if isinstance(value, ModuleType) or _ours(value):
                    continue
                yield f.__globals__, name, value
                yield from _attributes(value)
                if isinstance(value, FunctionType | MethodType):
                    stack.append(value)
        for value in f.__defaults__ or ():
            if isinstance(value, FunctionType | MethodType):
                stack.append(value)
        stack += [c for c in f.__code__.co_consts if isinstance(c, FunctionType)]


def _attributes(value: Any) -> Iterable[tuple[Any, str, Any]]:
    """The attributes of an object in sight, and, under no name, how many they are."""
    known = isinstance(value, Module | Tensor | type | ModuleType | FunctionType | MethodType)
    # A compiled function, which may be this one: it is in sight where it is called as a method is.
    known = known or type(value).__module__.startswith("tensorgrad.program")
    if not known and isinstance(getattr(value, "__dict__", None), dict):
        ours = _ours(type(value))  # an optimizer, say, whose options are looked at on their own
        for name, inner in vars(value).items():
            if not ours or not isinstance(inner, list | dict):
                yield vars(value), name, inner
        yield vars(value), "", None


def _ours(f: Any) -> bool:
    """Whether it belongs to this package, whose functions keep no state."""
    return str(getattr(f, "__module__", "")).partition(".")[0] in ("tensorgrad", "numpy")
