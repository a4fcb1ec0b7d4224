"""What a user's value function reads, or asks of its arrays, is never frozen in silence."""

from __future__ import annotations

import functools
import types
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from program.executors import EVERY_EXECUTOR

import tensorgrad as tg
from tensorgrad import Tensor
from tensorgrad.autograd import custom_operation

settings: Any = types.ModuleType("settings")
numbers: list[float] = [1.0]
FACTOR = 1.0
RECORD = np.zeros(1, [("s", float)])[0]
MATRIX = np.ones((1, 2)).view(np.matrix)


class Kind:
    k = 1.0


class Computing(types.ModuleType):
    @property
    def scale(self) -> float:
        return numbers[0]


computing: Any = Computing("computing")
HELD = (settings,)


def put(value: float) -> None:
    """Everything that values read is this number now."""
    global FACTOR
    FACTOR = numbers[0] = settings.k = Kind.k = RECORD["s"] = value
    MATRIX[0, 0] = value
    now.__doc__ = str(value)
    now.k = value  # type: ignore[attr-defined]
    if value != 1.0:
        settings.extra = value
    else:
        vars(settings).pop("extra", None)


def now() -> float:
    return FACTOR


def module() -> Any:
    return settings


def scaled(x: Any, by: Any = settings) -> Any:
    return x * by.k


def caught(xp: Any, x: Any) -> Any:
    try:
        return x * settings.extra
    except AttributeError:
        return x * 1.0


VALUES: dict[str, Callable[..., Any]] = {
    "a global": lambda xp, x: x * FACTOR,
    "a list": lambda xp, x: x * numbers[0],
    "a module": lambda xp, x: x * settings.k,
    "a class": lambda xp, x: x * Kind.k,
    "a module in a tuple": lambda xp, x: x * HELD[0].k,
    "a module as a default": lambda xp, x: scaled(x),
    "a module that is returned": lambda xp, x: x * module().k,
    "a module that computes": lambda xp, x: x * computing.scale,
    "what is not there yet": caught,
    "a dict of a module": lambda xp, x: x * settings.__dict__["k"],
    "a function's text": lambda xp, x: x * float(now.__doc__ or 0),
    "a function's attribute": lambda xp, x: x * now.k,  # type: ignore[attr-defined]
    "its own globals": lambda xp, x: x * now.__globals__["FACTOR"],
    "a record": lambda xp, x: x * RECORD["s"],
    "a matrix": lambda xp, x: x * MATRIX[0, 0],
}


def agree(step: Callable[..., Any], executor: str, change: Callable[[], None]) -> None:
    """A step and its compiled twin, four calls each, ``change`` before the third."""
    found: list[list[Any]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for call in (step, tg.compile(step, executor=executor)):
            put(1.0)
            found.append([])
            for k in range(4):
                if k == 2:
                    change()
                found[-1].append(call(tg.tensor([1.0, 2.0, 3.0], dtype=tg.float64)).numpy())
    put(1.0)
    np.testing.assert_allclose(found[1], found[0])


@EVERY_EXECUTOR
@pytest.mark.parametrize("name", VALUES)
def test_what_a_value_reads_is_never_frozen(name: str, executor: str) -> None:
    put(1.0)
    operation = custom_operation(VALUES[name], x=lambda g: g)
    agree(lambda x: operation(x), executor, lambda: put(5.0))


@EVERY_EXECUTOR
@pytest.mark.parametrize("name", ["a global", "a list"])
def test_a_value_of_constants_is_not_computed_beforehand(name: str, executor: str) -> None:
    operation = custom_operation(VALUES[name], x=lambda g: g)
    agree(lambda x: x + operation(tg.ones(3, dtype=tg.float64)), executor, lambda: put(5.0))


@EVERY_EXECUTOR
@pytest.mark.parametrize(
    "option",
    [settings, Kind, now, functools.partial(now), lambda: FACTOR],
    ids=["module", "class", "function", "partial", "lambda"],
)
def test_options_that_can_change_are_not_frozen(option: Any, executor: str) -> None:
    def value(xp: Any, x: Any, w: Any) -> Any:
        return x * (w() if w is not settings and w is not Kind else w.k)

    operation = custom_operation(value, x=lambda g: g)
    agree(lambda x: operation(x, option), executor, lambda: put(5.0))


def other_branch(xp: Any, x: Any) -> Any:
    return x * 0 if isinstance(x, np.ndarray) and x.max() > 100 else x * 1


def of_a_scalar(xp: Any, x: Any) -> Any:
    return x * 0 if np.isscalar(x.sum()) and x.sum() > 100 else x * 1


def by_identity(xp: Any, x: Any) -> Any:
    return np.nan_to_num(x) * 1 if xp is np else x * 1


def falls_back(xp: Any, x: Any) -> Any:
    try:
        return x.sum(where=x > 0) * x
    except TypeError:
        return x.sum() * x


def in_the_complex_plane(xp: Any, x: Any) -> Any:
    return np.abs(np.emath.sqrt(x))


def dtype_third(xp: Any, x: Any) -> Any:
    return x / np.sum(x.reshape(3, 1) * x, 1, float)


def limited(xp: Any, x: Any) -> Any:
    return 1 / np.clip(x, 0, 1)


def in_the_order_of_the_input(xp: Any, x: Any) -> Any:
    y = np.zeros_like((x.reshape(3, 1) * np.ones((3, 2))).T)
    r = y.reshape(-1)
    r[...] = 1
    return y.sum() + x


@pytest.mark.parametrize(
    "value",
    [
        other_branch, of_a_scalar, by_identity, falls_back, in_the_complex_plane, dtype_third,
        limited, in_the_order_of_the_input,
    ],
)  # fmt: skip
def test_a_value_that_asks_what_its_arrays_are(value: Callable[..., Any]) -> None:
    """Arrays of symbols never lead it along another branch, or to another function."""
    operation = custom_operation(value, x=lambda g: g)
    compiled = tg.compile(lambda x: operation(x), executor="native")
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for given in ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [500.0, -4.0, np.nan], [-0.0, 0.0, 7.0]):
            x = tg.tensor(given, dtype=tg.float64)
            np.testing.assert_allclose(compiled(x).numpy(), operation(x).numpy())
    assert "something else" not in compiled.report()


@EVERY_EXECUTOR
def test_a_value_that_asks_how_its_arrays_lie(executor: str) -> None:
    def value(xp: Any, x: Any) -> Any:
        return x * 2 if x.flags.c_contiguous else x * 3

    operation = custom_operation(value, x=lambda g: g)
    compiled = tg.compile(lambda x: operation(x), executor=executor)
    array = np.arange(6.0).reshape(2, 3)
    for given in (array, array, np.asfortranarray(array), array):
        x = Tensor(given, copy=False)
        np.testing.assert_array_equal(compiled(x).numpy(), operation(x).numpy())


@EVERY_EXECUTOR
def test_a_value_that_raises_leaves_what_eager_mode_leaves(executor: str) -> None:
    def value(xp: Any, x: Any) -> Any:
        if x.min() < 0:
            raise ValueError("negative")
        return x * 2

    check = custom_operation(value, x=lambda g: g * 2)
    found = []
    for wrap in (lambda f: f, lambda f: tg.compile(f, executor=executor)):
        p = tg.tensor([1.0, 2.0, 3.0], requires_grad=True)
        optimizer = tg.optim.SGD([p], lr=0.1)

        def step(x: Tensor, p: Tensor = p, optimizer: Any = optimizer) -> Tensor:
            optimizer.zero_grad()
            (p * x).sum().backward()
            optimizer.step()
            return check(x * 1.0).sum()

        call = wrap(step)
        for given in ([1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [1.0, 1.0, -1.0]):
            try:
                call(tg.tensor(given))
            except ValueError:
                assert given[2] < 0
        found.append(p.detach().numpy())
    np.testing.assert_allclose(found[1], found[0])


@EVERY_EXECUTOR
def test_errors_of_what_nobody_uses_are_raised(executor: str) -> None:
    def step(labels: Tensor) -> Tensor:
        tg.one_hot(labels, 3)
        return labels * 2

    call = tg.compile(step, executor=executor)
    for _ in range(3):
        call(tg.tensor([1, 2]))
    with pytest.raises(IndexError, match="out of bounds"):
        call(tg.tensor([5, 2]))


@pytest.mark.parametrize("layout", ["T", "step", "columns", "reversed", "broadcast"])
@pytest.mark.parametrize("reduction", ["sum", "max", "min", "prod"])
def test_reductions_over_everything_read_each_element_once(layout: str, reduction: str) -> None:
    """Alone in its nest, in memory that does not lie in order: nothing beside it is read."""
    views: dict[str, Callable[[Tensor], Tensor]] = {
        "T": lambda x: x.T,
        "step": lambda x: x[::2],
        "columns": lambda x: x[:, :2],
        "reversed": lambda x: x[::-1, 1:],
        "broadcast": lambda x: tg.broadcast_to(x[:, :1], (6, 3)),
    }
    call = tg.compile(lambda x: getattr(views[layout](x), reduction)(), executor="native")
    for scale in (0.0, 0.0, 1.0, 1.1):
        x = tg.tensor(np.linspace(0.5, 2.0, 18).reshape(6, 3) * scale)
        right = getattr(views[layout](x), reduction)()
        np.testing.assert_allclose(call(x).item(), right.item(), rtol=1e-6)
    assert "something else" not in call.report()


def test_gradients_without_axes_stay_arrays() -> None:
    """Two contributions to a leaf of one element: NumPy's sum of them is a scalar."""
    p = tg.tensor(1.0, requires_grad=True)
    for _ in range(2):
        (p * p).backward()
        assert p.grad is not None
        assert type(p.grad.data) is np.ndarray
    assert p.grad is not None
    assert p.grad.item() == 4.0
    tg.optim.clip_grad_norm_([p], 1.0)


@EVERY_EXECUTOR
def test_gradients_of_rows_keep_their_dtype_beside_a_number(executor: str) -> None:
    def gradient(x: Tensor) -> Tensor:
        a = x.detach().requires_grad_()
        return tg.autograd.grad(tg.arctan2(a, 1.0).sum(), a)[0]

    x = tg.tensor(np.array([1e30, 2.0], np.float32))
    found = tg.compile(gradient, executor=executor)(x)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.numpy(), gradient(x).numpy(), rtol=1e-6)
