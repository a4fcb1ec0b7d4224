"""The backward pass: gradients.

Nodes are visited in descending tape position, from a heap. Whatever used a value has a higher
position than the value, so a gradient is complete when its node comes up.

Of complex numbers the pass carries what pairs with a change ``d`` as ``real(g * d)``, without
conjugation: so the rules of functions that have a derivative are those of real numbers. What users
give and get is the conjugate of that, the direction of steepest ascent: it is taken where
gradients enter, and where they leave or are shown (``conjugate``, ``_run_hooks``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from heapq import heappop, heappush
from typing import Any

import numpy as np
from numpy import asarray, ndarray

from tensorgrad import backend, dtypes, versions
from tensorgrad.backend import BACKENDS, gemm, is_array
from tensorgrad.backend.base import Array, Postponed
from tensorgrad.dtypes import COMPLEX, HALVES
from tensorgrad.errors import GradientError, ShapeError
from tensorgrad.observers import MODE, Mode, current_mode
from tensorgrad.ops.complex_parts import conj
from tensorgrad.ops.elementwise import add
from tensorgrad.ops.indexing import recorded_gradient
from tensorgrad.ops.parts import Part, Rows, RowsPart
from tensorgrad.ops.shaping import sum_of_recorded, unbroadcast
from tensorgrad.tape import CAST, Deferred, Leaf, Node, Rule, parameters_of, wrap
from tensorgrad.turns import EVERYBODY, LIMIT
from tensorgrad.versions import changed_since

#: Nodes to begin from, each with its gradient: an array, or a tensor.
Seeds = Sequence[tuple[Node, Any]]


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


def run_backward(
    seeds: Seeds,
    *,
    create_graph: bool,
    retain_graph: bool,
    targets: Sequence[Node] | None = None,
) -> dict[Node, Any]:
    """Propagate gradients from ``seeds``, pairs of a node and its gradient, down the tape.

    create_graph: the gradients are tensors, and what the rules compute is dispatched and recorded
        again (higher order); else they are bare arrays.
    retain_graph: keep the nodes usable for another backward pass.
    targets: nodes whose gradients are wanted; ``None`` means all leaves, which accumulate into
        their ``.grad``.
    Returns the gradient of each target that was reached (an empty dict without targets).

    Contributions to a value are added in descending tape position of their consumers, which is
    the same order in every run.
    """
    mode = current_mode()
    if create_graph:
        if mode.grad:
            return _BackwardPass(targets, True, retain_graph).run(seeds)
        with _mode(mode._replace(grad=True)):
            return _BackwardPass(targets, True, retain_graph).run(seeds)
    if mode.observers and any(observer.records for observer in mode.observers):
        # The rules are given tensors without a history, so that their operations are dispatched.
        with _mode(mode._replace(grad=False)):
            tensors = [(node, wrap(seed, None)) for node, seed in seeds]
            found = _BackwardPass(targets, True, retain_graph).run(tensors)
            return {node: g.data for node, g in found.items()}
    if len(BACKENDS) > 1:
        for device in BACKENDS.values():
            if device.multi_gpu:
                return _on_several_gpus(device, _BackwardPass(targets, False, retain_graph), seeds)
    return _BackwardPass(targets, False, retain_graph).run(seeds)


def _on_several_gpus(device: Any, backward_pass: _BackwardPass, seeds: Seeds) -> dict[Node, Any]:
    """A pass whose rules run on bare arrays: that makes the device current on which these lie.

    Afterwards the current device is what it was.
    """
    before = backward_pass.current = device.current_number()
    try:
        return backward_pass.run(seeds)
    finally:
        if backward_pass.current != before:
            device.make_current(before)


@contextmanager
def _mode(mode: Mode) -> Iterator[None]:
    token = MODE.set(mode)
    try:
        yield
    finally:
        MODE.reset(token)


class _BackwardPass:
    """The state of one backward pass.

    targets: see ``run_backward``.
    dispatched: the gradients are tensors and not bare arrays.
    retain: keep the saved values.
    """

    __slots__ = (
        "added", "current", "dispatched", "found", "gradients", "heap", "kept", "leaves",
        "observers", "retain", "targets", "waiting", "wanted",
    )  # fmt: skip

    def __init__(self, targets: Sequence[Node] | None, dispatched: bool, retain: bool) -> None:
        self.targets = None if targets is None else frozenset(targets)
        self.dispatched = dispatched
        self.retain = retain
        #: the number of the current GPU, where there are several: that of each gradient is made
        #: current before it is computed with
        self.current: int | None = None
        self.observers = current_mode().observers
        #: the nodes on a path to a target
        self.wanted: set[Node] | None = None
        #: the gradients of targets that are complete
        self.found: dict[Node, Any] = {}
        #: position -> the gradient so far
        self.gradients: dict[int, Any] = {}
        #: position -> the node to visit; the heap holds the same positions
        self.waiting: dict[int, Node] = {}
        self.heap: list[int] = []
        #: those reached. They come last, so that after an error no ``.grad`` is changed.
        self.leaves: list[Leaf] = []
        #: positions whose gradient is a sum made here, to be added to in place
        self.added: set[int] = set()
        #: what deferred nodes leave for one another
        self.kept: dict[Node, Any] = {}

    def run(self, seeds: Seeds) -> dict[Node, Any]:
        """The whole pass; see ``run_backward``."""
        targets = self.targets
        if self.dispatched or targets is not None or self.observers:
            if targets is not None:
                self.wanted = _leading_to([node for node, _ in seeds], targets)
            self._add_seeds(seeds)
            while self.heap:
                at = heappop(self.heap)
                g = self.gradients.pop(at)
                self._visit(self.waiting.pop(at), sum_of_recorded(g) if type(g) is list else g)
        elif len(seeds) == 1 and type(seeds[0][0]) is not Leaf:
            self._fast_path(*seeds[0])
        else:
            self._add_seeds(seeds)
            self._fast_path(None, None)
        if self.dispatched:
            in_rows = targets is None and not current_mode().grad
            for leaf in self.leaves:
                g = self.gradients[leaf.position]
                if type(g) is list:
                    sums = recorded_gradient if in_rows and not leaf.hooks else sum_of_recorded
                    self.gradients[leaf.position] = sums(g)
        for leaf in self.leaves:
            if leaf.hooks is not None:
                at = leaf.position
                self.gradients[at] = _run_hooks(leaf, self.gradients[at], self.dispatched)
        if targets is None:
            self._accumulate_leaves()
        else:
            self.found.update(
                {leaf: self.gradients[leaf.position] for leaf in self.leaves if leaf in targets}
            )
        return self.found

    def _add_seeds(self, seeds: Seeds) -> None:
        for node, seed in seeds:
            if type(node) is Leaf or (self.targets is not None and node in self.targets):
                seed = seed.clone() if self.dispatched else wrap(seed, None).clone().data
            self._add(node, seed)

    def _add(self, node: Node, d: Any) -> None:
        """Add ``d`` to the gradient of ``node``, which is to be visited."""
        at, gradients = node.position, self.gradients
        if at not in gradients:
            gradients[at] = d
            if type(node) is Leaf:
                self.leaves.append(node)
            else:
                self.waiting[at] = node
                heappush(self.heap, at)
            return
        if self.current is not None:
            self._use_device_of(d)
        if at in self.added and not self.dispatched:
            gradients[at] += d
        elif self.dispatched and (isinstance(d, Part) or type(gradients[at]) is list):
            before = gradients[at]  # they are added when all are there
            if type(before) is not list:
                before = gradients[at] = [before]
            before.append(d)
        else:
            before = gradients[at]
            if type(before) is Postponed:
                before = before.array()
            if _kept_as_rows(before):
                before = before.data
            both = add(before, d) if type(before) is ndarray else before + d
            gradients[at] = _as_array(both)
            self.added.add(at)

    def _add_part(self, node: Node, part: Part) -> None:
        """Add ``part`` to the gradient of ``node``, in place: that costs no more than the part."""
        at, gradients = node.position, self.gradients
        held: Any = gradients.get(at)
        if type(held) is Postponed:
            held = gradients[at] = held.array()
        if self.dispatched:
            self._add(node, [part] if held is None else part)
            return
        if type(node) is Leaf and self.targets is None and (held is None or _kept_as_rows(held)):
            rows = part.as_rows(0 if held is None else held.count)
            if rows is not None:
                if held is None:
                    self._add(node, rows)
                else:
                    gradients[at] = held.joined(rows)
                return
        if held is None:
            self._add(node, part.whole())
        elif at in self.added:
            gradients[at] = part.added_to(held)
        else:
            gradients[at] = part.added_to(held.data if _kept_as_rows(held) else held.copy())
        self.added.add(at)

    def _fast_path(self, node: Node | None, g: Any) -> None:
        """Visit all nodes, beginning with ``node``, where nobody watches and all leaves are wanted.

        A chain needs neither heap nor dicts: where no other node is waiting, the next is at hand.
        """
        heap, waiting, gradients, leaves = self.heap, self.waiting, self.gradients, self.leaves
        retain, latest_version = self.retain, versions.LATEST_VERSION
        while True:
            if node is None:
                if not heap:
                    return
                at = heappop(heap)
                node = waiting.pop(at)
                g = gradients.pop(at)
            if self.current is not None:
                self._use_device_of(g)
            edges = node.edges
            if not edges or node.hooks is not None or node.position > latest_version:
                if edges and not node.hooks and node.op.kernel and type(g) is not ndarray:
                    node, g = self._all_at_once(node, g)
                else:
                    self._visit(node, g)
                    node = None
                latest_version = versions.LATEST_VERSION
                continue
            ahead = ahead_g = None
            for rule, saved, parent in edges:
                if not saved:  # ``*saved`` alone would take three times as long
                    d = rule.eager(g)
                elif len(saved) == 1:
                    d = rule.eager(g, saved[0])
                else:
                    d = rule.eager(g, *saved)
                if type(d) is not ndarray or (not rule.keeps_shape and d.shape != parent.shape):
                    if isinstance(d, Part):
                        self._add_part(parent, d)
                        continue
                    if type(d) not in BACKENDS or d.shape != parent.shape:
                        d = _fitted(d, parent.shape)
                if type(parent) is Leaf:
                    if parent.position in gradients:
                        self._add(parent, d)
                    else:
                        gradients[parent.position] = _own(d, g, saved)
                        leaves.append(parent)
                elif ahead is None and not heap:
                    ahead, ahead_g = parent, d
                else:
                    if ahead is not None:
                        self._add(ahead, ahead_g)
                        ahead = None
                    self._add(parent, d)
            if not retain:
                node.edges = None
            node, g = ahead, ahead_g

    def _all_at_once(self, node: Node, g: Any) -> tuple[Node | None, Any]:
        """Hand ``g`` on by one kernel for all inputs of ``node``, on the fast path.

        Returns a node that is next, with its gradient, where one is known. Where there is no such
        kernel, or somebody wants to see the gradient, this is ``_visit``.
        """
        edges = node.edges or ()
        ahead: Node | None = None
        ahead_g: Any = None
        together = None
        if not getattr(node, "keeps_grad", False):
            together = self._together(node, g)
        if together is None:
            self._visit(node, g.array() if type(g) is Postponed else g)
            return None, None
        for rule, _, parent in edges:
            d = together[rule.index]
            if type(d) is Postponed and (parent.position in self.gradients or not _takes(parent)):
                d = d.array()
            if isinstance(d, Part):
                self._add_part(parent, d)
                continue
            if d.shape != parent.shape:
                d = _fitted(d, parent.shape)
            if type(parent) is Leaf:
                if parent.position not in self.gradients:
                    d = _own(d, g, ())
            elif ahead is None and not self.heap:
                ahead, ahead_g = parent, d
                continue
            elif ahead is not None:
                self._add(ahead, ahead_g)
                ahead = None
            self._add(parent, d)
        node.edges = node.edges if self.retain else None
        return ahead, ahead_g

    def _visit(self, node: Node, g: Any) -> None:
        """Hand the complete gradient ``g`` of any ``node`` on to its inputs."""
        if self.current is not None:
            self._use_device_of(g)
        g = _run_hooks(node, g, self.dispatched)
        if self.targets is not None and node in self.targets:
            self.found[node] = conjugate(g)
        if node.edges is None:
            raise GradientError(
                f"backward a second time through {node.op.name}{_location(node)}: its saved "
                "values were freed after the first time. Pass retain_graph=True to the first "
                "backward() or grad()"
            )
        if not node.edges and isinstance(node, Deferred):
            for inner, d in node.expand(g, self.retain, self.kept):
                if self.wanted is not None:
                    self.wanted |= _leading_to([inner], self.targets or ())
                self._add(inner, d)
            return
        together = self._together(node, g)
        for rule, saved, parent in node.edges:
            if self.wanted is not None and parent not in self.wanted:
                continue
            for observer in self.observers:
                observer.differentiating(node)
            if together is None:
                d = self._differentiated(node, rule, saved, g)
            else:
                d = together[rule.index]
                d = d.array() if type(d) is Postponed else d
            for observer in self.observers:
                observer.differentiated(node, rule, saved, g, d)
            if self.observers and rule.gives_parts and not self.dispatched:
                d = self._still_sparse(rule, saved, g, d)
            if isinstance(d, Part):
                self._add_part(parent, d)
                continue
            d = _fitted(d, parent.shape)
            if parent.position not in self.gradients and (
                type(parent) is Leaf or (self.targets is not None and parent in self.targets)
            ):
                d = _own(d, g, saved)
            self._add(parent, d)
            if self.current is not None:
                self._use_device_of(g)
        if not self.retain:
            node.edges = None

    def _use_device_of(self, array: Any) -> None:
        """Make the GPU current that an array lies on; nothing for one of the host."""
        if isinstance(array, ndarray | np.generic):
            return
        number = array.data.device_id
        if number != self.current:
            array.device.use()
            self.current = number

    def _still_sparse(self, rule: Rule, saved: Sequence[Any], g: Any, d: Any) -> Any:
        """``d``, or its part if the gradient is to stay rows: whoever watches changes nothing."""
        part = rule.eager(g, *saved)
        return part if isinstance(part, RowsPart) and part.sparse else d

    def _together(self, node: Node, g: Any) -> Sequence[Any] | None:
        """The gradients of all inputs, where one kernel or program computes them at once."""
        op = node.op
        array = g.factor if type(g) is Postponed else g
        has_kernel = op.kernel and type(array) is not ndarray and type(array) in BACKENDS
        if self.dispatched or not (op.together or has_kernel):
            return None
        needed = [False] * len(op.inputs)
        values: dict[str, Any] = {}
        for rule, saved, parent in node.edges or ():
            if node.position > versions.LATEST_VERSION:
                _check_saved(node, rule, saved)
            values.update(zip(rule.names, saved))
            needed[rule.index] = self.wanted is None or parent in self.wanted
        found = backend.of(array).gradients(op, g, needed, values) if has_kernel else None
        if found is None and op.together is not None:
            found = op.together(g, needed, values)
        return found

    def _differentiated(self, node: Node, rule: Rule, saved: Sequence[Any], g: Any) -> Any:
        """What ``rule`` makes of ``g``."""
        if node.position > versions.LATEST_VERSION:
            _check_saved(node, rule, saved)
        if self.dispatched:
            if current_mode().grad:
                saved = _on_the_tape(node, rule, saved)
                return (rule.eager if rule.gives_parts else rule.function)(g, *saved)
            saved = [_without_history(v) for v in saved]
            if rule.gives_parts:
                return rule.eager(g, *saved)
        in_parts = rule.gives_parts and not self.observers
        if g.dtype in HALVES and node.op is not CAST and not in_parts:
            # The gradient of a cast has the dtype of its input; GPUs multiply 16-bit floats.
            on_host = isinstance(g.data if self.dispatched else g, ndarray | np.generic)
            if on_host or node.op.kernel not in gemm.RULES:
                return _in_float32(rule, g, saved)
        return (rule.function if self.observers else rule.eager)(g, *saved)

    def _accumulate_leaves(self) -> None:
        """Add the gradients of the leaves reached to their ``.grad``."""
        lock = EVERYBODY.lock
        alone = lock.acquire(True, LIMIT)
        try:
            for leaf in self.leaves:
                g = self.gradients[leaf.position]
                if leaf.turns is not None:
                    with leaf.turns:
                        _accumulate(leaf, g)
                elif leaf.grad is None and type(g) in BACKENDS:
                    leaf.grad = wrap(g, None)
                else:
                    _accumulate(leaf, g)
        finally:
            if alone:
                lock.release()


def _takes(node: Node) -> bool:
    """Whether the kernel of a node that has no other gradient wants it as a product to come."""
    kernel = node.op.kernel
    alone = not node.hooks and not getattr(node, "keeps_grad", False)
    return alone and kernel is not None and kernel.startswith("linear_")


def _fitted(d: Any, shape: tuple[int, ...]) -> Any:
    """``d`` as the gradient of a value of ``shape``, and as an array where it was a scalar."""
    if d.shape != shape:
        d = unbroadcast(d, shape)
    return _as_array(d)


def _as_array(d: Any) -> Any:
    """``d``, and as an array where NumPy made a scalar of what has no axes."""
    return asarray(d) if isinstance(d, np.generic) else d


def _without_history(value: Any) -> Any:
    """Arrays as tensors that nothing led to; anything else as it is."""
    if is_array(value):
        return wrap(value, None)
    if type(value) is tuple and any(is_array(v) for v in value):
        return tuple(_without_history(v) for v in value)
    return value


def _leading_to(roots: Iterable[Node], targets: Collection[Node]) -> set[Node]:
    """The nodes on a path from ``roots`` to ``targets``."""
    reachable = set(roots)
    stack = list(reachable)
    while stack:
        for _, _, parent in stack.pop().edges or ():
            if parent not in reachable:
                reachable.add(parent)
                stack.append(parent)
    wanted = set(targets)
    for node in sorted(reachable, key=lambda n: -n.position):
        # What a deferred node leads to is not known before it is expanded.
        # A freed one is to be arrived at, so that it can complain.
        unknown = isinstance(node, Deferred) or node.edges is None
        if unknown or any(p in wanted for _, _, p in node.edges or ()):
            wanted.add(node)
    return wanted


def _on_the_tape(node: Node, rule: Rule, saved: Sequence[Any]) -> list[Any]:
    """The saved arrays as tensors in their place on the tape, so that rules are recorded."""
    places: dict[str, Node] = {"y": node}
    for other, _, parent in node.edges or ():
        places[node.op.inputs[other.index]] = parent
    values: dict[str, Any] = {}
    for name, value in zip(rule.names, saved, strict=True):
        if is_array(value):
            value = wrap(value, places.get(name))
        elif type(value) is tuple and any(is_array(v) for v in value):
            value = tuple(wrap(v, None) for v in value)
        values[name] = value
    residual = node.op.residual
    if residual is not None and "r" in values:
        values["r"] = residual(*[values[name] for name in parameters_of(residual)])
    return list(values.values())


def _in_float32(rule: Rule, g: Array, saved: Sequence[Any]) -> Array:
    """The rule on 16-bit floats: computed in float32, rounded once."""
    half = g.dtype
    wide = [v.astype(dtypes.float32) if getattr(v, "dtype", None) in HALVES else v for v in saved]
    d = rule.function(g.astype(dtypes.float32), *wide)
    return d.astype(half) if d.dtype == dtypes.float32 else d


def conjugate(g: Any) -> Any:
    """A gradient as it enters or leaves the pass: of complex numbers the conjugate."""
    return _as_array(conj(g)) if g.dtype in COMPLEX else g


def _run_hooks(node: Node, g: Any, dispatched: bool) -> Any:
    """``g``, shown to the hooks of ``node``, or what they put in its place.

    That of a leaf is then what the user gets; that of another node goes on in the pass.
    """
    if g.dtype not in COMPLEX:
        return _shown(node, g, dispatched)
    if type(node) is Leaf:
        return _shown(node, conjugate(g), dispatched)
    if node.hooks or getattr(node, "keeps_grad", False):
        return conjugate(_shown(node, conjugate(g), dispatched))
    return g


def _shown(node: Node, g: Any, dispatched: bool) -> Any:
    for hook in tuple(node.hooks or ()):
        replaced = hook(g if dispatched or _kept_as_rows(g) else wrap(g, None))
        if replaced is not None:
            if replaced.shape != node.shape:
                raise ShapeError(
                    f"a gradient hook must return shape {node.shape}, got {replaced.shape}"
                )
            if replaced.dtype != g.dtype:
                replaced = replaced.astype(g.dtype)
            g = replaced if dispatched or _kept_as_rows(replaced) else replaced.data
    if getattr(node, "keeps_grad", False):
        _accumulate(node, g.clone() if dispatched else g.copy())
    if type(node) is Leaf and node.hooks:  # a hook may have kept the one it was shown
        g = g.copied() if _kept_as_rows(g) else g.clone() if dispatched else g.copy()
    return g


def _kept_as_rows(g: Any) -> bool:
    return isinstance(g, Rows)


def _own(d: Any, g: Any, saved: Sequence[Any]) -> Any:
    """``d``, in memory that nobody else refers to: it is about to be handed to the user."""
    if type(d) in BACKENDS:
        if d is g or d.base is not None:
            return d.copy()
        for value in saved:
            for v in value if type(value) is tuple else (value,):
                if d is v:
                    return d.copy()
        return d
    flat = [v for value in (g, *saved) for v in (value if type(value) is tuple else (value,))]
    arrays = [v.data if hasattr(v, "node") else v for v in flat]
    return d.clone() if d.data.base is not None or any(d.data is a for a in arrays) else d


def _accumulate(node: Node, g: Any) -> None:
    """Add ``g`` to the ``.grad`` of a leaf, or of a node that keeps its gradient."""
    gradient = wrap(g, None) if is_array(g) else g
    watchers = current_mode().observers
    if type(node) is Leaf:
        for observer in watchers:
            observer.changed_gradient(node, False)
    held = getattr(node, "grad", None)
    if held is None:
        node.grad = gradient
    elif _kept_as_rows(held) and _kept_as_rows(gradient) and not held.is_dense:
        node.grad = held.joined(gradient)
    elif gradient.node is None and not watchers:
        node.grad = wrap(held.data + gradient.data, None)  # fresh: somebody may hold the old one
    else:
        node.grad = held + gradient
