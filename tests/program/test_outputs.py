"""Which object is which among those that a step hands out, leaves behind and was given."""

from __future__ import annotations

import collections
import contextlib
import datetime
import decimal
import fractions
import functools
import operator
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import Tensor
from tensorgrad.errors import CompileError


class Thing:
    """An object with attributes."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


class Slotted:
    __slots__ = ("a", "b")


class Pair(NamedTuple):
    a: Any
    b: Any


class Word(str):
    __slots__ = ()


class Number(int):
    pass


class Closing:
    def __del__(self) -> None:
        pass


def seen(o: Any, met: dict[int, int] | None = None) -> Any:
    """What an object is made of, and which of its parts are one and the same."""
    met = {} if met is None else met
    if isinstance(o, Tensor):
        return "tensor", met.setdefault(id(o), len(met)), o.tolist()
    if o is None or isinstance(o, int | float | str | type | types.FunctionType):
        return o
    known = id(o) in met
    name = type(o).__name__, met.setdefault(id(o), len(met))
    if known:
        return name
    if isinstance(o, dict):
        return name, [(seen(k, met), seen(v, met)) for k, v in o.items()]
    if isinstance(o, list | tuple | collections.deque):
        return name, [seen(x, met) for x in o], getattr(o, "maxlen", None)
    if isinstance(o, set | frozenset):
        return name, sorted(str(seen(x)) for x in o)
    if isinstance(o, slice):
        return name, [seen(x, met) for x in (o.start, o.stop, o.step)]
    if isinstance(o, functools.partial):
        return name, [seen(x, met) for x in (o.func, o.args, o.keywords)]
    if isinstance(o, operator.itemgetter | operator.methodcaller):
        return name, o.__reduce__()
    if type(o) in (decimal.Decimal, datetime.date, fractions.Fraction, types.GenericAlias):
        return repr(o)
    names = [*getattr(o, "__dict__", {}), *getattr(type(o), "__slots__", ())]
    return name, [(n, seen(getattr(o, n), met)) for n in names]


def one_dict_twice(s: Any, x: Tensor, given: Any) -> Any:
    d = {"loss": x * 2}
    s.last = d
    return d


def one_list_in_two_places(s: Any, x: Tensor, given: Any) -> Any:
    s.a = s.b = [x * 2]
    return x * 1


def appended_and_kept(s: Any, x: Tensor, given: Any) -> Any:
    r = Thing(loss=x * 2, done=False)
    s.log.append(r)
    s.log.append([r, r])
    s.current = r
    return x * 1


def nested_twice(s: Any, x: Tensor, given: Any) -> Any:
    parts = [x * 2]
    return parts, {"parts": parts, "pair": Pair(parts, (parts,))}


def argument_kept(s: Any, x: Tensor, given: Any) -> Any:
    s.batch = given
    s.inner = given["list"]
    return x * 1


def argument_returned(s: Any, x: Tensor, given: Any) -> Any:
    return given


def argument_inside(s: Any, x: Tensor, given: Any) -> Any:
    return {"b": given["list"], "y": x * 2, "t": given["list"][1], "all": [given, given]}


def object_with_itself(s: Any, x: Tensor, given: Any) -> Any:
    a: Any = Thing(v=x * 2)
    a.me = a
    a.children = [Thing(parent=a, v=x * 3)]
    return a


def parent_and_child_kept(s: Any, x: Tensor, given: Any) -> Any:
    a: Any = Thing()
    b: Any = Slotted()
    a.child, b.a, b.b = b, a, x * 2
    s.tree = a
    return b


def list_in_itself(s: Any, x: Tensor, given: Any) -> Any:
    rows: list[Any] = [x * 2]
    rows.append(rows)
    table: dict[str, Any] = {"rows": rows}
    table["table"] = table
    return rows, table


def deques(s: Any, x: Tensor, given: Any) -> Any:
    d = collections.deque([x * 2, 1], maxlen=3)
    return d, [d]


def namespaces(s: Any, x: Tensor, given: Any) -> Any:
    s.m = types.SimpleNamespace(loss=x * 3)
    return types.SimpleNamespace(loss=x * 2, same=s.m)


def partials(s: Any, x: Tensor, given: Any) -> Any:
    return functools.partial(operator.add, x * 2), slice(x * 1, 3), slice(1, 2)


def getters(s: Any, x: Tensor, given: Any) -> Any:
    return operator.itemgetter(1, 2), operator.methodcaller("sum", 0), x * 2


def values(s: Any, x: Tensor, given: Any) -> Any:
    return decimal.Decimal("1.50"), datetime.date(2000, 1, 2), fractions.Fraction(1, 3), list[int]


def tensor_as_key(s: Any, x: Tensor, given: Any) -> Any:
    y = x * 2
    return {y: y + 1, "a": y, (1, y): 2}


RIGHT = [
    one_dict_twice, one_list_in_two_places, appended_and_kept, nested_twice, argument_kept,
    argument_returned, argument_inside, object_with_itself, parent_and_child_kept, list_in_itself,
    deques, namespaces, partials, getters, values, tensor_as_key,
]  # fmt: skip


def world_and_arguments(k: int) -> tuple[Tensor, Any]:
    inner = [Tensor(np.array([float(k)], np.float32)), (1, 2)]
    return Tensor(np.array([1.0, k], np.float32)), {"list": inner, "again": inner, "n": 3}


@pytest.mark.parametrize("step", RIGHT, ids=lambda f: str(f.__name__))
def test_objects_are_the_same_where_they_are(step: Callable[..., Any]) -> None:
    def run(wrap: Callable[..., Any]) -> tuple[list[Any], Any]:
        s = Thing(log=[])
        call = wrap(lambda x, given: step(s, x, given))
        found = []
        for k in range(6):
            x, given = world_and_arguments(k)
            result = call(x, given)
            met: dict[int, int] = {}
            found.append([seen(o, met) for o in (given, result, s)])
            if isinstance(result, dict) and result is not given:
                result["extra"] = k
                found.append(seen(s))
        return found, call

    right, _ = run(lambda f: f)
    came, call = run(lambda f: tg.compile(f, executor="numpy"))
    assert came == right
    assert call.captures == 1
    assert not call.reasons


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda x: Word("ab"), "Word"),
        (lambda x: Number(3), "Number"),
        (lambda x: operator.methodcaller("f", [1]), "methodcaller"),
        (lambda x: [x].append, "builtin_function_or_method"),
        (lambda x: Closing(), "Closing"),
        (lambda x: collections.Counter("a"), "of a class of its own"),
        (lambda x: ValueError("a"), "ValueError"),
        (lambda x: functools.reduce(lambda a, _: [a], range(3000), x), "nested too deeply"),
    ],
)
def test_what_cannot_be_made_anew_is_refused(make: Callable[[Tensor], Any], text: str) -> None:
    call = tg.compile(lambda x: (x * 2, make(x)))
    with pytest.raises(CompileError, match=text):
        call(Tensor([1.0, 2.0]))


def test_a_tuple_that_contains_itself_is_refused() -> None:
    def step(x: Tensor) -> Any:
        rows: list[Any] = [x]
        pair = (rows, x * 2)
        rows.append(pair)
        return pair

    with pytest.raises(CompileError, match="contains itself"):
        tg.compile(step)(Tensor([1.0]))


@pytest.mark.parametrize("executor", ["numpy", "auto"])
@pytest.mark.parametrize("how", ["same", "clone", "product"])
def test_two_gradients_that_are_one_tensor(executor: str, how: str) -> None:
    def run(wrap: Callable[..., Any]) -> list[Any]:
        w, v = (Tensor(np.ones(3, np.float32), requires_grad=True) for _ in range(2))

        def step(x: Tensor) -> Tensor:
            w.grad = None
            (w * x).sum().backward()
            assert w.grad is not None
            v.grad = {"same": w.grad, "clone": w.grad.clone(), "product": w.grad * 1}[how]
            return x * 1

        call, found = wrap(step), []
        for _ in range(7):
            call(Tensor([1.0, -2.0, 3.0]))
            assert w.grad is not None
            w.grad += 1
            found.append([w.grad is v.grad, w.grad.tolist(), v.grad.tolist()])  # type: ignore[union-attr]
        return found

    assert run(lambda f: tg.compile(f, executor=executor)) == run(lambda f: f)


def test_two_gradients_in_one_memory_are_refused() -> None:
    w, v = (Tensor(np.ones(3, np.float32), requires_grad=True) for _ in range(2))

    def step(x: Tensor) -> Tensor:
        (w * x).sum().backward()
        assert w.grad is not None
        v.grad = w.grad.detach()
        return x * 1

    with pytest.raises(CompileError, match="same memory"):
        tg.compile(step)(Tensor([1.0, -2.0, 3.0]))


def test_lists_given_once_or_twice_are_other_calls() -> None:
    def step(a: list[Any], b: list[Any]) -> Any:
        return b, a[0] * 2

    x = Tensor([1.0, 2.0])
    call = tg.compile(step)
    one, other = [x], [x]
    for a, b in ((one, one), (one, other), (other, one), (one, one)):
        assert call(a, b)[0] is b
    assert call.captures == 2


def test_keys_tell_units_of_time_apart() -> None:
    call = tg.compile(lambda x, t: x * float(t / np.timedelta64(1, "s")))
    x = Tensor([1.0])
    units: list[tuple[Any, float]] = [("s", 2.0), ("m", 120.0), ("s", 2.0)]
    for unit, factor in units:
        with contextlib.suppress(CompileError):
            assert call(x, np.timedelta64(2, unit)).tolist() == [factor]


def test_an_argument_may_be_named_self() -> None:
    def step(x: Tensor, **options: Any) -> Tensor:
        return x * options["self"]

    call = tg.compile(step)
    for factor in (2.0, 2.0, 3.0):
        assert call(Tensor([1.0]), self=factor).tolist() == [factor]


def _counted(x: Tensor) -> Tensor:
    return x * _counted.factor  # type: ignore[attr-defined]


def test_attributes_of_the_function_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_counted, "factor", 3.0, raising=False)
    call: Any = tg.compile(_counted)
    monkeypatch.setitem(globals(), "_counted", call)
    for factor in (3.0, 3.0, 5.0):
        call.factor = factor
        assert call(Tensor([1.0])).tolist() == [factor]


@pytest.mark.parametrize("executor", ["numpy", "auto"])
def test_views_that_may_not_be_written(executor: str) -> None:
    b = tg.ones(3)
    wide = tg.broadcast_to(b, (2, 3))

    def step(x: Tensor) -> Tensor:
        b.copy_(b + x)
        return wide * 1

    call = tg.compile(step, executor=executor)
    for k in range(1, 7):
        assert call(tg.ones(3)).tolist() == [[1.0 + k] * 3] * 2


@pytest.mark.parametrize("executor", ["numpy", "auto"])
def test_memory_that_may_no_longer_be_written(executor: str) -> None:
    s = tg.zeros(3)

    def step(x: Tensor) -> Tensor:
        s.copy_(s + x)
        return s * 2

    call = tg.compile(step, executor=executor)
    for _ in range(6):
        call(tg.ones(3))
    fixed = np.zeros(3, np.float32)
    fixed.flags.writeable = False
    s.data = fixed
    for _ in range(3):
        with pytest.raises(ValueError, match="read-only"):
            call(tg.ones(3))
    np.testing.assert_array_equal(fixed, 0.0)


@pytest.mark.parametrize("executor", ["numpy", "auto"])
@pytest.mark.parametrize("how", ["one tensor", "a parameter"])
def test_gradients_in_the_memory_of_others_are_refused(executor: str, how: str) -> None:
    w, v = (Tensor(np.ones(3, np.float32), requires_grad=True) for _ in range(2))

    def step(x: Tensor) -> Tensor:
        (w * x + v * x * 2).sum().backward()
        return x * 1

    call, x = tg.compile(step, executor=executor), Tensor([1.0, -2.0, 3.0])
    for _ in range(6):
        call(x)
    w.grad = w.detach() if how == "a parameter" else v.grad
    with pytest.raises(CompileError, match="in the memory of other tensors"):
        call(x)
    assert not call.dropped
    both = tg.zeros(6)
    w.grad, v.grad = both[:3], both[3:]
    call(x)
    w.grad = v.grad = None
    for k in range(1, 4):
        call(x)
        assert w.grad is not None
        assert w.grad.tolist() == [k, -2 * k, 3 * k]
