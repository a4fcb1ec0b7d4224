"""What a primitive says about itself holds of what it does, and what it does not say does not.

Every primitive of the library is tried with the calls that the rows of the table, their gradients
and the optimizers make.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ops.primitive_calls import PrimitiveCall, calls, every_primitive

from tensorgrad.tape import Primitive

PRIMITIVES = every_primitive()
EVERY = pytest.mark.parametrize("op", PRIMITIVES, ids=lambda op: f"{op.name}-{len(op.inputs)}")
#: labels for numbers: each is exact in every floating type, and none is a constant of an operation
LABELS = np.array([sign * k / 8 for k in range(1, 255, 2) for sign in (1, -1)])


def floating(x: Any) -> bool:
    return isinstance(x, np.ndarray) and x.dtype.kind not in "biu"


def same(a: Any, b: Any) -> bool:
    return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def relabelled(call: PrimitiveCall, labels: Any) -> tuple[Any, ...]:
    """The inputs with the labels in place of their floating numbers, in order."""
    following = iter(labels)
    return tuple(
        np.array([next(following) for _ in range(x.size)], x.dtype).reshape(x.shape)
        if floating(x)
        else x
        for x in call.inputs
    )


def test_every_primitive_is_called() -> None:
    assert [op for op in PRIMITIVES if op not in calls()] == []


def is_elementwise(call: PrimitiveCall) -> bool:
    """Whether parts of the elements, in another order, are computed from the same parts of the
    inputs."""
    try:
        shape = np.broadcast_shapes(*(np.shape(x) for x in call.inputs if x is not None))
    except ValueError:
        return False
    whole = call.of()
    if whole.shape != shape:
        return False
    flat = [
        np.broadcast_to(x, shape).reshape(-1) if isinstance(x, np.ndarray) else x
        for x in call.inputs
    ]
    for part in (slice(1, None), slice(0, 1), slice(None, None, -1)):
        given = [x[part].copy() if isinstance(x, np.ndarray) else x for x in flat]
        try:
            found = call.of(*given)
        except (ValueError, IndexError, TypeError):  # an axis that is not there
            return False
        if not same(found, whole.reshape(-1)[part]):
            return False
    return True


@EVERY
def test_elementwise(op: Primitive) -> None:
    holds = all(is_elementwise(call) for call in calls()[op])
    if not op.random and not op.mutates:
        assert op.elementwise == holds
    assert holds or not op.elementwise


def only_moves(call: PrimitiveCall, rng: np.random.Generator) -> bool:
    """Whether other numbers in the inputs give the other numbers at the same places.

    Two numbers may become one: so what compares numbers is told from what does not look at them.
    """
    count = sum(x.size for x in call.inputs if floating(x))
    first = LABELS[:count]
    second = rng.choice(LABELS[-4:], count)
    try:
        one, other = call.of(*relabelled(call, first)), call.of(*relabelled(call, second))
    except np.linalg.LinAlgError:
        return False
    if one.shape != other.shape or (one.dtype.kind == "c" and one.imag.any()):  # of two numbers
        return False
    one, other = one.real, other.real
    become = {float(a): float(b) for a, b in zip(first, second, strict=True)}
    wanted = [become.get(x, x) for x in one.reshape(-1).astype(np.float64).tolist()]
    return np.array_equal(wanted, other.reshape(-1).astype(np.float64), equal_nan=True)


@EVERY
def test_moves(op: Primitive) -> None:
    rng = np.random.default_rng(0)
    some = [
        call
        for call in calls()[op]
        if any(map(floating, call.inputs)) and call.of().dtype.kind not in "biu" and call.of().size
    ]
    few = [c for c in some if sum(x.size for x in c.inputs if floating(x)) <= len(LABELS)]
    if op.random or (op.mutates and not op.moves) or not some:
        assert not (op.random and op.moves)
        return
    assert few
    assert op.moves == all(only_moves(call, rng) for call in few)


@EVERY
def test_fresh(op: Primitive) -> None:
    if not op.fresh:
        return
    for call in calls()[op]:
        for lay in (np.array, np.asfortranarray, lambda x: np.repeat(x, 2)[::2].reshape(x.shape)):
            given = [lay(x) if isinstance(x, np.ndarray) else x for x in call.inputs]
            found = call.of(*given)
            assert not any(np.shares_memory(found, x) for x in given if isinstance(x, np.ndarray))


def other_numbers(x: Any) -> Any:
    """Other numbers of the same kind, indices among them that are in range, too."""
    if not isinstance(x, np.ndarray):
        return x
    return ~x if x.dtype == np.bool_ else np.zeros_like(x)


def is_integer(x: Any) -> bool:
    return isinstance(x, np.ndarray) and x.dtype.kind in "iu"


@EVERY
def test_data_dependent(op: Primitive) -> None:
    varies = False
    for call in calls()[op]:
        copies = [x.copy() if isinstance(x, np.ndarray) else x for x in call.inputs]
        try:
            other = call.of(*map(other_numbers, call.inputs))
        except np.linalg.LinAlgError:  # of numbers alone
            continue
        except IndexError:  # of lengths, which are 1 at least
            ones = [np.ones_like(x) if is_integer(x) else other_numbers(x) for x in call.inputs]
            other = call.of(*ones)
        varies |= other.shape != call.of(*copies).shape
    assert op.data_dependent == varies


@EVERY
def test_random(op: Primitive) -> None:
    differs = False
    for call in calls()[op]:
        assert op.random == ({"key", "position"} <= call.attrs.keys())
        if op.random:
            assert same(call.of(), call.of())
            for name in op.live:
                differs |= not same(call.of(), call.of(**{name: call.attrs[name] + 4}))
    assert op.random == differs


@EVERY
def test_mutates(op: Primitive) -> None:
    """Exactly what it says: nothing else in any call, and each of it in some call."""
    said: set[int] = set()
    changed: set[int] = set()
    for call in calls()[op]:
        allowed = {k for k in op.mutated(len(call.inputs)) if call.inputs[k] is not None}
        for added in (0.0, 1.0) if allowed else (0.0,):  # the calls were noted when it was done
            before = [
                np.asarray(x + x.dtype.type(added)) if floating(x) and k in allowed else x
                for k, x in enumerate(call.inputs)
            ]
            given = [x.copy() if isinstance(x, np.ndarray) else x for x in before]
            call.of(*given)
            pairs = enumerate(zip(given, before, strict=True))
            now = {k for k, (a, b) in pairs if isinstance(a, np.ndarray) and not same(a, b)}
            assert now <= allowed
            said, changed = said | allowed, changed | now
    assert changed == said


@EVERY
def test_live(op: Primitive) -> None:
    """A number that is looked up in every replay changes what is computed."""
    for name in op.live:
        changed = False
        for call in calls()[op]:
            other = call.attrs[name] + 1
            before, after = (
                [x.copy() if isinstance(x, np.ndarray) else x for x in call.inputs] for _ in "ab"
            )
            one, two = call.of(*before), call.of(*after, **{name: other})
            changed |= not same(one, two)
        assert changed
    updates = op.name in {"sgd", "adam", "lamb"}
    assert not updates or op.live == ("lr",)


@EVERY
def test_what_moves_takes_no_flops(op: Primitive) -> None:
    for call in calls()[op]:
        out = call.of(*(x.copy() if isinstance(x, np.ndarray) else x for x in call.inputs))
        flops = op.flops(call.inputs, out)
        full = all(x.size for x in call.arrays())
        assert flops == 0 if op.moves else flops >= out.size * full
