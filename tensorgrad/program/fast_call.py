"""The fast call of a small program, in C: see c/fast_call.c.

Here the conditions and the memory of a program are listed for it. It needs Python's headers; where
they are absent, or the program is long or of a kind that it does not know, the slow path through
Python is taken, which does the same.
"""

from __future__ import annotations

import functools
import os
import sys
import sysconfig
from collections.abc import Sequence
from typing import Any

import numpy as np

from tensorgrad import backend, dtypes, versions
from tensorgrad.errors import CompileError
from tensorgrad.observers import AUTOCASTS, MODE
from tensorgrad.program import compiler
from tensorgrad.program.capture import Drawn, Options
from tensorgrad.program.executors.base import Executor, FastRun
from tensorgrad.program.guards import (
    MISSING,
    Frozen,
    Guard,
    Guards,
    Place,
    matches,
    read,
)
from tensorgrad.sparse import LazyGradient
from tensorgrad.tape import Leaf
from tensorgrad.tensor import Tensor


@functools.cache
def _module() -> Any:
    """The extension, built on first use; ``None`` where it cannot be."""
    headers = sysconfig.get_paths()["include"]
    if not os.path.exists(os.path.join(headers, "Python.h")):
        return None
    text = (compiler.SOURCES / "fast_call.c").read_text()
    text += f"/* Python {sys.version}, NumPy {np.__version__} */\n"
    options = [f"-I{headers}", f"-I{np.get_include()}"]
    try:
        return compiler.extension("tensorgrad_entry", text, options)
    except CompileError:
        return None


def fast_call_of(
    executor: Executor,
    guards: Guards,
    tensors: Sequence[Tensor],
    gradients: Sequence[tuple[Leaf, Tensor | None]],
    words: Sequence[tuple[Any, int]],
    mode: Any,
    limit: int,
) -> Any:
    """An object that is called with the arguments, or ``None`` where there is none to be had.

    gradients: the leaves, and the tensor that each has as its gradient after a replay.
    words: generators, and how many words a replay draws from each.
    limit: how many calls it may serve.
    """
    run = executor.fast_run()
    module = None if run is None else _module()
    if run is None or module is None:
        return None
    ran = _running(run, executor, tensors)
    if ran is None:
        return None
    held = _conditions(guards, tensors, mode)
    if held is None:
        return None
    ran["gradients"] = [
        _item(leaf, tensor, tensor.lent_rows if isinstance(tensor, LazyGradient) else None)
        for leaf, tensor in gradients
    ]
    ran["words"] = [_item(generator, n=count) for generator, count in words]
    return _made(module, {**held, **ran, "limit": limit})


def fast_conditions(guards: Guards, tensors: Sequence[Tensor], mode: Any) -> Any:
    """An object whose ``hold(*arguments)`` says whether the program is for a call; or ``None``.

    A "no" means that the slow path has to look.
    """
    module = _module()
    held = None if module is None else _conditions(guards, tensors, mode)
    if held is None:
        return None
    names = "rates draws results overwritten segments gradients words places"
    nothing: dict[str, Any] = {name: [] for name in names.split()}
    arguments = [(t.data.shape, t.data.dtype.num, type(t.node), 0, 0, 0, 0) for t in tensors]
    zeros = dict.fromkeys(("table", "set_threads", "get_threads", "limit", "long"), 0)
    return _made(module, {**held, **nothing, **zeros, "arguments": arguments})


def _made(module: Any, spec: dict[str, Any]) -> Any:
    try:
        return module.Entry(spec)
    except ValueError:  # more axes than it serves, or classes that change all the time
        return None


def _item(a: Any, b: Any = None, c: Any = None, n: int = 0, address: int = 0) -> tuple[Any, ...]:
    return a, b, c, n, address


def _running(run: FastRun, keep: Executor, tensors: Sequence[Tensor]) -> dict[str, Any] | None:
    """Where a program takes its arguments and leaves its results; ``None`` for what C cannot do."""
    rates, draws = [], []
    for live, name, buffer in run.scalars:
        if isinstance(live, Options):
            rates.append(_item(live.group, name, n=buffer.itemsize, address=buffer.ctypes.data))
        elif isinstance(live, Drawn):
            offset = live.offset if name == "position" else 0
            draws.append(_item(live.generator, f"_{name}", None, offset, buffer.ctypes.data))
        else:
            return None
    arguments: list[Any] = []
    places: list[Any] = []
    for k, t in enumerate(tensors):
        copy = (run.copied[k].ctypes.data, run.copied[k].nbytes) if k in run.copied else (0, 0)
        first = len(places)
        places += [_item(None, n=added, address=at) for at, added in run.placed.get(k, ())]
        kind = t.data.shape, t.data.dtype.num, type(t.node)
        arguments.append((*kind, *copy, first, len(places)))
    overwritten = []
    for array in run.overwritten:
        owner = backend.of(array).memory_owner(array)
        entry = versions.VERSIONS.get(id(owner))
        if entry is None:
            return None
        overwritten.append(_item(entry))
    return {
        "arguments": arguments,
        "places": places,
        "rates": rates,
        "draws": draws,
        "results": [_item(array) for array in run.results],
        "overwritten": overwritten,
        "segments": [_item(keep, address=address) for address in run.segments],
        "table": run.table,
        "long": int(run.long),
        "set_threads": run.threads[0],
        "get_threads": run.threads[1],
    }


def _conditions(guards: Guards, tensors: Sequence[Tensor], mode: Any) -> dict[str, Any] | None:
    """The guards as lists for C; what C cannot look at is asked of ``rest``."""
    sharing = guards.sharing
    if sharing is None or sharing.among or sharing.across or guards.leaf_arguments:
        return None
    if any(type(t.data) is not np.ndarray for t in tensors):
        return None
    if sharing.layouts is not None and any(x is not None for x in sharing.layouts):
        return None  # C takes only arguments that lie in order
    lists: dict[str, list[Any]] = {
        name: []
        for name in ("cells", "dicts", "sizes", "items", "attributes", "functions", "contents")
    }
    classes: dict[type, None] = {}
    rest: list[Guard] = []
    for g in guards.reads:
        if g.kind == "key" and g.value is not MISSING:
            lists["dicts"].append(_item(g.holder, g.key, g.value))
        elif g.kind == "key" or (g.kind == "has" and g.value is False):
            lists["dicts"].append(_item(g.holder, g.key, None, 1))
        elif g.kind == "cell":
            lists["cells"].append(_item(g.holder, g.value))
        elif g.kind in ("class", "class attribute"):
            classes[g.holder] = None
        elif g.kind == "item" and type(g.holder) is list and g.key >= 0:
            lists["items"].append(_item(g.holder, g.value, n=g.key))
        elif g.kind == "length" and type(g.holder) is list:
            lists["sizes"].append(_item(g.holder, n=g.value))
        elif g.kind == "attribute" and g.key == "__class__":
            lists["attributes"].append(_item(g.holder, None, g.value, 1))
        elif g.kind == "attribute" and g.key == "__dict__":
            lists["attributes"].append(_item(g.holder, "__dict__", g.value))
        elif g.kind == "function":
            lists["functions"].append(_item(g.holder, g.value))
        elif g.kind in ("content", "entries") and _is_flat(g.holder, g.value):
            lists["contents"].append(_item(g.holder, g.value.parts))
        else:
            rest.append(g)
    modules: list[Any] = []
    if sys.version_info >= (3, 13):  # where the version of a dict does not tell of every change
        for attributes, names, _, seen, parts in guards.attributes:
            looked_at = tuple(names)
            # In the place of what is not looked at stands what cannot be an attribute: the names.
            then = tuple(seen.get(name, looked_at) for name in names)
            modules.append(_item(attributes, looked_at, then))
            rest += [
                Guard("key", attributes, name, was, "")
                for name, x in seen.items()
                for part, was in parts
                if part is x
            ]
    else:
        for m, _ in guards.modules:
            modules += [_item(d) for d in (vars(m), *vars(m).values()) if type(d) is dict]
    for place in guards.places:
        for kind, holder, key in place.places:
            if kind == "key":
                lists["dicts"].append(_item(holder, key, place.tensor))
            elif kind == "cell":
                lists["cells"].append(_item(holder, place.tensor))
            elif kind == "item" and type(holder) is list and key >= 0:
                lists["items"].append(_item(holder, place.tensor, n=key))
            else:
                rest.append(Guard(kind, holder, key, place.tensor, ""))
    for _, hooks, then in guards.hooks:
        lists["items"] += [_item(hooks, hook, n=k) for k, hook in enumerate(then)]
    for t, _, _ in guards.classes:
        classes[t] = None
    for t, *_ in guards.engine:
        classes[t] = None
    for optimizer, _ in guards.optimizers:
        classes[type(optimizer)] = None
        for name in ("step", "zero_grad"):
            own = vars(optimizer).get(name, MISSING)
            lists["dicts"].append(
                _item(vars(optimizer), name, None, 1)
                if own is MISSING
                else _item(vars(optimizer), name, own)
            )
        lists["dicts"].append(_item(vars(optimizer), "param_groups", optimizer.param_groups))
        lists["sizes"].append(_item(optimizer.param_groups, n=len(optimizer.param_groups)))
        for number, group in enumerate(optimizer.param_groups):
            lists["items"].append(_item(optimizer.param_groups, group, n=number))
            lists["sizes"].append(_item(group, n=len(group)))
            lists["dicts"].append(_item(group, "params", group["params"]))
            lists["sizes"].append(_item(group["params"], n=len(group["params"])))
            lists["items"] += [
                _item(group["params"], p, n=k) for k, p in enumerate(group["params"])
            ]
            lists["dicts"] += [
                _item(group, name, value)
                for name, value in group.items()
                if name not in (*optimizer.live_options, "params")
            ]
    for optimizer, number, plan in guards.updates:
        lists["dicts"].append(_item(optimizer._plans, number, plan))
    lists["dicts"].append(_item(vars(backend), "_default", backend._default))
    lists["dicts"].sort(key=lambda item: id(item[0]))  # those of one dict side by side
    return {
        "tensor_type": Tensor,
        "leaf_type": Leaf,
        "mode_var": MODE,
        "mode": mode,
        "active": AUTOCASTS,
        "next_position": versions.next_position,
        "versions_dict": vars(versions),
        "defaults": vars(dtypes),
        "default_dtype": dtypes.get_default_dtype(),
        "tensors": [
            _item(of.tensor if type(of) is Place else of, array, node)
            for of, node, array in guards.tensor_states
        ],
        "hooks": [_item(leaf, hooks, n=len(then)) for leaf, hooks, then in guards.hooks],
        "leaves": [_item(leaf, n=int(empty)) for leaf, empty in guards.gradients],
        "modules": modules,
        "classes": [_item(t) for t in classes],
        "ranges": list(sharing.ranges),
        "rest": functools.partial(_all_hold, rest) if rest else None,
        **lists,
    }


def _is_flat(holder: Any, content: Any) -> bool:
    """Whether C can compare a container with its content: no entry has a content of its own."""
    kind = type(holder)
    return (
        kind in (dict, list, tuple)
        and type(content) is Frozen
        and content.kind is kind
        and content.owner in (None, holder)
        and not any(type(part) is Frozen for part in content.parts)
    )


def _all_hold(guards: Sequence[Guard]) -> bool:
    return all(matches(read(g.kind, g.holder, g.key), g.value) or g.holds() for g in guards)
