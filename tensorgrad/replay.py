"""The replay of the tape in reverse: gradients.

Entries are visited in descending tape position, from a heap. Whatever used a value has a higher
position than the value, so a gradient is complete when its entry comes up.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import heappop, heappush
from typing import Any

import numpy as np
from numpy import asarray, ndarray

from tensorgrad import backend, dtypes, tape, versions
from tensorgrad.backend import cuda_backend, is_array, several_gpus
from tensorgrad.backend.base import Array
from tensorgrad.dtypes import HALVES
from tensorgrad.errors import GradientError, ShapeError
from tensorgrad.observers import MODE, current_mode
from tensorgrad.tape import Deferred, Leaf, Node, Rule, unbroadcast, wrap
from tensorgrad.turns import EVERYBODY, LIMIT
from tensorgrad.versions import changed_since


def _check_saved(node: Node, rule: Rule, saved: Sequence[Any]) -> None:
    """Raise GradientError if a value saved by ``node`` was overwritten since."""
    for name, value in zip(rule.names, saved, strict=True):
        arrays = value if type(value) is tuple else (value,)
        stale = [a for a in arrays if is_array(a) and changed_since(a, node.position)]
        if stale:
            what = "its output" if name == "y" else f"its input {name!r}"
            raise GradientError(
                f"{node.op.name}{_location(node)} needs {what}, of shape {stale[0].shape}, for its "
                "gradient, but that value was overwritten in place after it was used. Compute "
                "the new value into a new tensor, or .clone() the old one before overwriting it"
            )


def _location(node: Node) -> str:
    where = getattr(node, "where", None)
    return f" ({where})" if where else ""


def replay(
    seeds: Sequence[tuple[Node, Any]],
    *,
    lift: bool,
    retain: bool,
    targets: Sequence[Node] | None = None,
) -> dict[Node, Any]:
    """Propagate gradients from ``seeds``, pairs of an entry and its gradient, down the tape.

    lift: the gradients are tensors and the rules' own computations pass the seam again and are
        recorded (higher order); else they are bare arrays.
    retain: keep the entries usable for another replay.
    targets: entries whose gradients are wanted; ``None`` means all leaves, which accumulate
        into their ``.grad``.
    Returns the gradient of each target that was reached (an empty dict without targets).

    Contributions to a value are added in descending tape position of their consumers, which is
    the same order in every run.
    """
    watchers = current_mode().observers
    if watchers and not lift and any(o.records for o in watchers):
        return _recorded(seeds, retain, targets)
    if not lift and several_gpus():
        # The rules run on bare arrays, so that the device they lie on has to be made current here.
        with cuda_backend().at(cuda_backend().current_device()):
            return _replay(seeds, lift, retain, targets, True)
    if lift and not current_mode().grad:
        with_grad = MODE.set(current_mode()._replace(grad=True))
        try:
            return _replay(seeds, lift, retain, targets, False)
        finally:
            MODE.reset(with_grad)
    return _replay(seeds, lift, retain, targets, False)


def _recorded(
    seeds: Sequence[tuple[Node, Any]], retain: bool, targets: Sequence[Node] | None
) -> dict[Node, Any]:
    """``replay`` on bare arrays while somebody records what passes the seam.

    The rules are given tensors without a history, so that each of their operations passes it.
    """
    without = MODE.set(current_mode()._replace(grad=False))
    try:
        tensors = [(node, wrap(seed, None)) for node, seed in seeds]
        found = _replay(tensors, True, retain, targets, False)
        return {node: g.data for node, g in found.items()}
    finally:
        MODE.reset(without)


_NONE: frozenset[Node] = frozenset()


def _replay(
    seeds: Sequence[tuple[Node, Any]],
    lift: bool,
    retain: bool,
    targets: Sequence[Node] | None,
    several: bool,
) -> dict[Node, Any]:
    """``replay``; with ``several``, on the device of each gradient in turn."""
    wanted = None if targets is None else _leading_to([n for n, _ in seeds], targets)
    goals = frozenset(targets) if targets else _NONE
    found: dict[Node, Any] = {}
    gradients: dict[int, Any] = {}  # position -> gradient so far
    waiting: dict[int, Node] = {}  # position -> entry; the heap holds the same positions
    heap: list[int] = []
    leaves: list[Leaf] = []  # they come last, so that after an error no .grad is changed
    added: set[int] = set()  # positions whose gradient is a sum made here, to be added to in place
    observers = current_mode().observers
    latest_version = versions.LATEST_VERSION
    special = lift or several or wanted is not None or bool(observers)

    def contribute(node: Node, d: Any) -> None:
        at = node.position
        if at not in gradients:
            gradients[at] = d
            if type(node) is Leaf:
                leaves.append(node)
            else:
                waiting[at] = node
                heappush(heap, at)
            return
        if several:
            _use_device_of(d)
        if at in added and not lift:
            gradients[at] += d
        else:
            gradients[at] = gradients[at] + d
            added.add(at)

    # The entry to visit next, where no other is waiting: a chain needs neither heap nor dicts.
    ahead: Node | None = None
    ahead_g: Any = None
    if len(seeds) == 1 and not special and type(seeds[0][0]) is not Leaf:
        ((ahead, ahead_g),) = seeds
    else:
        for seed_node, seed in seeds:
            if type(seed_node) is Leaf or seed_node in goals:
                seed = seed.clone() if lift else wrap(seed, None).clone().data
            contribute(seed_node, seed)
    while True:
        if ahead is not None:
            # A chain needs no more than this, as long as each entry has one input and no hooks.
            edges = ahead.edges
            while edges and len(edges) == 1 and ahead.hooks is None:
                ((rule, saved, parent),) = edges
                if type(parent) is not Node or ahead.position > latest_version:
                    break
                d = rule.function(ahead_g, *saved)
                if type(d) is not ndarray or (not rule.keeps_shape and d.shape != parent.shape):
                    if isinstance(d, np.generic):
                        d = asarray(d)
                    if d.shape != parent.shape:
                        d = unbroadcast(d, parent.shape)
                if not retain:
                    ahead.edges = None
                ahead, ahead_g, edges = parent, d, parent.edges
            node, g, ahead = ahead, ahead_g, None
        elif heap:
            at = heappop(heap)
            node = waiting.pop(at)
            g = gradients.pop(at)
        else:
            break
        usual = node.position <= latest_version
        together = None  # the gradients of all inputs, from one kernel or program
        if special or node.hooks is not None:
            usual = usual and not special and g.dtype not in HALVES
            if several:
                _use_device_of(g)
            g = _run_hooks(node, g, lift)
            if node in goals:
                found[node] = g
            op = node.op
            if node.edges and not lift and (op.together or (op.kernel and not _on_host(g))):
                together = _together(node, g, wanted)
                usual = usual and together is None
        edges = node.edges
        if edges is None:
            raise GradientError(
                f"backward a second time through {node.op.name}{_location(node)}: its saved "
                "values were freed after the first time. Pass retain_graph=True to the first "
                "backward() or grad()"
            )
        if not edges and isinstance(node, Deferred):
            for inner, d in node.expand(g, retain):
                if wanted is not None:
                    wanted |= _leading_to([inner], targets or ())
                contribute(inner, d)
            latest_version = versions.LATEST_VERSION
            continue
        for rule, saved, parent in edges:
            if usual:
                d = rule.function(g, *saved)
            elif wanted is None or parent in wanted:
                for observer in observers:
                    observer.differentiating(node)
                if together is None:
                    d = _differentiated(node, rule, saved, g, lift)
                else:
                    d = together[rule.index]
                for observer in observers:
                    observer.differentiated(node, rule, saved, g, d)
            else:
                continue
            shape = parent.shape
            if d.shape != shape:
                d = unbroadcast(d, shape)
            if type(d) is not ndarray and isinstance(d, np.generic):
                d = asarray(d)  # NumPy makes a scalar of a 0-d array
            if type(parent) is Leaf:
                at = parent.position
                if at in gradients:
                    contribute(parent, d)
                else:
                    gradients[at] = _own(d, g, saved)
                    leaves.append(parent)
            elif special:
                contribute(parent, _own(d, g, saved) if parent in goals else d)
            elif ahead is None and not heap:
                ahead, ahead_g = parent, d
            else:
                if ahead is not None:
                    contribute(ahead, ahead_g)
                    ahead = None
                contribute(parent, d)
            if several:
                _use_device_of(g)
        if not retain:
            node.edges = None
    for leaf in leaves:
        if leaf.hooks is not None:
            gradients[leaf.position] = _run_hooks(leaf, gradients[leaf.position], lift)
    if targets is not None:
        found.update({leaf: gradients[leaf.position] for leaf in leaves if leaf in goals})
        return found
    lock = EVERYBODY.lock
    alone = lock.acquire(True, LIMIT)
    try:
        for leaf in leaves:
            g = gradients[leaf.position]
            if leaf.turns is not None:
                with leaf.turns:
                    _accumulate(leaf, g)
            elif leaf.grad is None and not lift:
                leaf.grad = wrap(g, None)
            else:
                _accumulate(leaf, g)
    finally:
        if alone:
            lock.release()
    return found


def _differentiated(node: Node, rule: Rule, saved: Sequence[Any], g: Any, lift: bool) -> Any:
    """What ``rule`` makes of ``g``, in the cases that need a closer look."""
    if node.position > versions.LATEST_VERSION:
        _check_saved(node, rule, saved)
    if lift:
        if current_mode().grad:
            return rule.function(g, *_lifted(node, rule, saved))
        saved = [_without_history(v) for v in saved]
    if g.dtype in HALVES and node.op is not tape.CAST:  # whose gradient has the dtype of its input
        return _in_float32(rule, g, saved)
    return rule.function(g, *saved)


def _without_history(value: Any) -> Any:
    """Arrays as tensors that nothing led to; anything else as it is."""
    if is_array(value):
        return wrap(value, None)
    if type(value) is tuple and any(is_array(v) for v in value):
        return tuple(_without_history(v) for v in value)
    return value


def _on_host(g: Any) -> bool:
    return isinstance(g, ndarray | np.generic)


def _together(node: Node, g: Array, wanted: set[Node] | None) -> Sequence[Any] | None:
    """The gradients of all inputs of the entry's operation, if they are computed at once."""
    needed = [False] * len(node.op.inputs)
    values: dict[str, Any] = {}
    for rule, saved, parent in node.edges or ():
        if node.position > versions.LATEST_VERSION:
            _check_saved(node, rule, saved)
        values.update(zip(rule.names, saved))
        needed[rule.index] = wanted is None or parent in wanted
    gradients: Sequence[Any] | None
    if node.op.together is not None:
        gradients = node.op.together(g, needed, values)
    else:
        gradients = backend.of(g).gradients(node.op, g, needed, values)
    return gradients


def _use_device_of(array: Array) -> None:
    if not _on_host(array):
        array.device.use()


def _leading_to(roots: Iterable[Node], targets: Sequence[Node]) -> set[Node]:
    """The entries on a path from ``roots`` to ``targets``."""
    reachable = set(roots)
    stack = list(reachable)
    while stack:
        for _, _, parent in stack.pop().edges or ():
            if parent not in reachable:
                reachable.add(parent)
                stack.append(parent)
    wanted = set(targets)
    for node in sorted(reachable, key=lambda n: -n.position):
        # What a deferred entry leads to is not known before it is expanded.
        # A freed one is to be arrived at, so that it can complain.
        unknown = isinstance(node, Deferred) or node.edges is None
        if unknown or any(p in wanted for _, _, p in node.edges or ()):
            wanted.add(node)
    return wanted


def _lifted(node: Node, rule: Rule, saved: Sequence[Any]) -> list[Any]:
    """The saved arrays as tensors in their place on the tape, so that rules are recorded."""
    entries: dict[str, Node] = {"y": node}
    for other, _, parent in node.edges or ():
        entries[node.op.inputs[other.index]] = parent
    values: dict[str, Any] = {}
    for name, value in zip(rule.names, saved, strict=True):
        if is_array(value):
            value = wrap(value, entries.get(name))
        elif type(value) is tuple and any(is_array(v) for v in value):
            value = tuple(wrap(v, None) for v in value)
        values[name] = value
    residual = node.op.residual
    if residual is not None and "r" in values:
        values["r"] = residual(*[values[name] for name in tape.parameters_of(residual)])
    return list(values.values())


def _in_float32(rule: Rule, g: Array, saved: Sequence[Any]) -> Array:
    """The rule on 16-bit floats: computed in float32, rounded once."""
    half = g.dtype
    wide = [v.astype(dtypes.float32) if getattr(v, "dtype", None) in HALVES else v for v in saved]
    d = rule.function(g.astype(dtypes.float32), *wide)
    return d.astype(half) if d.dtype == dtypes.float32 else d


def _run_hooks(node: Node, g: Any, lift: bool) -> Any:
    for hook in tuple(node.hooks or ()):
        replaced = hook(g if lift else wrap(g, None))
        if replaced is not None:
            if replaced.shape != node.shape:
                raise ShapeError(
                    f"a gradient hook must return shape {node.shape}, got {replaced.shape}"
                )
            if replaced.dtype != g.dtype:
                replaced = replaced.astype(g.dtype)
            g = replaced if lift else replaced.data
    if getattr(node, "keeps_grad", False):
        _accumulate(node, g.clone() if lift else g.copy())
    if type(node) is Leaf and node.hooks:  # a hook may have kept the one it was shown
        g = g.clone() if lift else g.copy()
    return g


def _own(d: Any, g: Any, saved: Sequence[Any]) -> Any:
    """``d``, in memory that nobody else refers to: it is about to be handed to the user."""
    if type(d) is ndarray or is_array(d):
        shared = d is g or d.base is not None
        for value in saved:
            if d is value or (type(value) is tuple and any(d is v for v in value)):
                shared = True
        return d.copy() if shared else d
    flat = [v for value in (g, *saved) for v in (value if type(value) is tuple else (value,))]
    arrays = [v.data if hasattr(v, "node") else v for v in flat]
    return d.clone() if d.data.base is not None or any(d.data is a for a in arrays) else d


def _accumulate(node: Node, g: Any) -> None:
    """Add ``g`` to the ``.grad`` of a leaf, or of an entry that keeps its gradient."""
    gradient = wrap(g, None) if is_array(g) else g
    watchers = current_mode().observers
    if type(node) is Leaf:
        for observer in watchers:
            observer.changed_gradient(node, False)
    held = getattr(node, "grad", None)
    if held is None:
        node.grad = gradient
    elif gradient.node is None and not watchers:
        node.grad = wrap(held.data + gradient.data, None)  # fresh: somebody may hold the old one
    else:
        node.grad = held + gradient
