"""Views: tensors that show memory of another one, and writes into any of them.

Where nothing is recorded a write goes to the memory, which all of them show. Where a gradient is
recorded, memory that the tape has saved must stay: the write makes a new value of the tensor that
the views were taken of (the root), and they are taken of it anew. So a view remembers its root and
the steps by which it was taken; the root's views are found by weak references, which are sorted by
root when somebody writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from weakref import ref

from numpy import asarray, empty_like, ndarray

from tensorgrad.dtypes import HALVES
from tensorgrad.errors import GradientError, explained
from tensorgrad.observers import current_mode
from tensorgrad.tape import Leaf, Node, Primitive, apply, init_node, new_object

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor
else:
    Tensor: Any = None  # set by tensor.py, as that of fast_paths.py

Step = tuple[Callable[[Any, Mapping[str, Any]], Any], Mapping[str, Any]]
#: the root, the steps from there to the view (``None``: too many), and the arrays of both
Origin = tuple["Tensor", "tuple[Step, ...] | None", Any, Any]

#: ``put_back(parent, value, attrs)``: the parent of a view whose elements have become ``value``
PutBack = Callable[[Any, Any, Mapping[str, Any]], Any]
_PUT_BACK: dict[Callable[..., Any], PutBack] = {}

_SOME = 128  # views are sorted by root when so many have been made
_MOST_STEPS = 256
#: views made since they were last sorted, and the others by the id of their root, which they hold
_NEW: list[ref[Tensor]] = []
_LIVING: dict[int, list[ref[Tensor]]] = {}
_kept = [0, _SOME]  # how many are in _LIVING, and how many there may be before the dead ones go


def viewing(op: Primitive) -> Callable[[Any, Mapping[str, Any]], Any]:
    """A function of a tensor and attributes that applies ``op``, whose result may be a view.

    A fast path through dispatch, as those of ``fast_paths``; the view remembers where it is from.
    """
    rule: Any = op.rules[0]
    get, pick = rule.get, rule.pick

    def call(x: Any, attrs: Mapping[str, Any], /) -> Any:
        if not isinstance(x, Tensor):
            if type(x) is not ndarray or x.dtype in op.slow:
                return apply(op, (x,), attrs)
            compute = op.eager
            return compute(x, **attrs)
        a, node = x.data, x.node
        grad, observers = current_mode()
        if type(a) is not ndarray or observers or (node is not None and a.dtype in HALVES):
            out = apply(op, (x,), attrs)
            y = out.data
        else:
            compute = op.eager
            try:
                y = compute(a, **attrs)
            except (ValueError, IndexError, TypeError, OverflowError, AttributeError) as error:
                raise explained(op, (a,), attrs, error) from error
            if type(y) is not ndarray:
                y = asarray(y)
            out = new_object(Tensor)
            out.data = y
            out.node = None
            if node is not None and grad:
                saved = pick((y, a), attrs) if get is None else get((y, a))
                out.node = made = new_object(Node)
                init_node(made, op, ((rule, saved, node),), y.shape)
        base = y.base
        if base is not None and (base is a or base is a.base):
            known = None if a.base is None else _known(x)
            if known is None or known[3] is not a:
                out.origin = (x, ((call, attrs),), a, y)
            else:
                out.origin = (known[0], _longer(known[1], (call, attrs)), known[2], y)
            _NEW.append(ref(out))
            if len(_NEW) > _SOME:
                _sort()
        return out

    return call


def _known(x: Any) -> Origin | None:
    """The origin that ``x`` was given, if it was given one."""
    try:
        found: Origin | None = x.origin
    except AttributeError:
        found = x.origin = None
    return found


def _longer(steps: tuple[Step, ...] | None, step: Step) -> tuple[Step, ...] | None:
    return None if steps is None or len(steps) == _MOST_STEPS else (*steps, step)


def puts_back(call: Callable[..., Any], function: PutBack) -> None:
    """Say how what ``call`` takes a view of follows from the view; without that it is read-only."""
    _PUT_BACK[call] = function


def _sort() -> None:
    """Put the views that were made lately to those of their roots."""
    some = _NEW[:]
    del _NEW[: len(some)]
    for reference in some:
        view = reference()
        origin = None if view is None else _known(view)
        if origin is not None:
            _LIVING.setdefault(id(origin[0]), []).append(reference)
            _kept[0] += 1
    if _kept[0] > _kept[1]:
        for key, references in list(_LIVING.items()):
            _LIVING[key] = [r for r in references if r() is not None]
            if not _LIVING[key]:
                del _LIVING[key]
        _kept[0] = sum(map(len, _LIVING.values()))
        _kept[1] = 2 * _kept[0] + _SOME


def origin_of(x: Tensor) -> Origin | None:
    """Where the view ``x`` is from; ``None`` if it is no view of a tensor (any more).

    That ends where ``.data`` of one of the two is replaced.
    """
    found = _known(x)
    return found if found is not None and found[3] is x.data and found[2] is found[0].data else None


def views_of(x: Tensor) -> list[Tensor]:
    """The living tensors that were taken of ``x`` as views of it, or of one another."""
    _sort()
    if id(x) not in _LIVING:
        return []
    found: dict[int, Tensor] = {}
    for reference in _LIVING[id(x)]:
        view = reference()
        if view is not None:
            origin = origin_of(view)
            if origin is not None and origin[0] is x:
                found[id(view)] = view
    return list(found.values())


def is_shared(x: Tensor) -> bool:
    """Whether ``x`` is a view, or there are views of it."""
    return origin_of(x) is not None or bool(views_of(x))


def are_same(x: Tensor, y: Tensor) -> bool:
    """Whether two tensors are the same view of one root."""
    first, second = origin_of(x), origin_of(y)
    if first is None or second is None or first[0] is not second[0]:
        return False
    return first[1] is not None and first[1] == second[1]


def is_view_of_recorded(x: Tensor) -> bool:
    """Whether ``x`` is a view of a tensor for which gradients are recorded."""
    origin = None if x.data.base is None else origin_of(x)
    return origin is not None and origin[0].node is not None


def rewritten(x: Tensor, new: Tensor) -> None:
    """Make ``x`` the value ``new``, of its shape and dtype, on the tape; its root and the other
    views of that follow.

    Raises GradientError where one of them is a leaf, ValueError for a part of a read-only view.
    """
    origin = origin_of(x)
    root = x if origin is None else origin[0]
    views = views_of(root)
    if origin is not None and origin[1] and _is_apart(origin[1], views):
        x.origin, root, views, origin = None, x, [], None
    for one in (root, *views):
        if type(one.node) is Leaf:
            raise GradientError(
                "this overwrites memory that is shared with a leaf that requires a gradient, while "
                "gradients are recorded; do it under tg.no_grad(), or write to a copy, x.clone()"
            )
    if origin is not None:
        new = _put_back(root, origin[1], new)
        if all(view is not x for view in views):
            views.append(x)
    before = root.data
    if views and type(before) is ndarray and before.strides != new.data.strides:
        _lay(new, before)
    root.data, root.node = new.data, new.node
    for view in views:
        known = _known(view)
        steps = None if known is None else known[1]
        if steps is not None:
            taken: Any = root
            for call, attrs in steps:
                taken = call(taken, attrs)
            view.data, view.node = taken.data, taken.node
            view.origin = (root, steps, root.data, view.data)


def _is_apart(steps: tuple[Step, ...], views: list[Tensor]) -> bool:
    """Whether a view is read-only as such, and nothing was taken of it: then it becomes a value of
    its own."""
    others = [known[1] for view in views if (known := _known(view)) is not None]
    deeper = any(other and len(other) > len(steps) for other in others)
    return steps[-1][0] not in _PUT_BACK and not deeper


def _put_back(root: Tensor, steps: tuple[Step, ...] | None, new: Any) -> Any:
    """What ``root`` becomes where the view that these steps lead to becomes ``new``."""
    if steps is None:
        raise GradientError(
            f"this is a view of a view of a view, more than {_MOST_STEPS} times; a write is not "
            "followed through so many: write to the tensor that they are of, or to x.clone()"
        )
    parents: list[Any] = [root]
    for call, attrs in steps[:-1]:
        parents.append(call(parents[-1], attrs))
    for parent, (call, attrs) in zip(reversed(parents), reversed(steps), strict=True):
        if call not in _PUT_BACK:
            raise ValueError(
                "what broadcast_to gives is read-only, since elements share memory; write to a "
                "copy of it, x.clone()"
            )
        new = _PUT_BACK[call](parent, new, attrs)
    return new


def _lay(new: Tensor, like: Any) -> None:
    """Let ``new``, which nobody has seen, lie in memory as ``like``: so that what was a view of
    that, and no copy, is one again."""
    if not current_mode().observers:
        laid = empty_like(like)
        laid[...] = new.data
        new.data = laid
