"""Programs at the special values of ops/special_points.py: what eager mode gives, NaN included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ops.special_points import ALONG, BINARY, UNARY, WEIGHTS, Array, pairs, points, rows
from program.executors import EVERY_EXECUTOR
from sampler import host

import tensorgrad as tg
from tensorgrad import Tensor, dtypes
from tensorgrad.ops.table import OPERATIONS
from tensorgrad.program import compile  # noqa: A004

Calls = dict[str, Callable[..., Tensor]]


def calls(kind: str) -> tuple[Calls, list[Array]]:
    """All functions of a kind, and the arguments that each of them is given."""
    if kind == "two numbers":
        found = {name: OPERATIONS[name].function for name in BINARY if OPERATIONS[name].gradient}
        return found, list(pairs("float32"))
    table = UNARY if kind == "one number" else ALONG

    def of(operation: str, args: Any, kwargs: Any) -> Callable[[Tensor], Tensor]:
        return lambda x: OPERATIONS[operation].function(x, *args, **kwargs)

    argument = points("float32") if kind == "one number" else rows("float32")
    if kind == "rows":  # of two such numbers the order decides whether a product overflows
        huge = np.isfinite(argument) & (np.abs(argument) > 1e30)
        argument = argument[huge.sum(1) < 2]
    return {name: of(*call) for name, call in table.items()}, [argument]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@EVERY_EXECUTOR
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("kind", ["one number", "two numbers", "rows"])
def test_values_and_slopes_are_those_of_eager_mode(kind: str, dtype: str, executor: str) -> None:
    """All functions in one program, each of arguments of its own; three calls."""
    functions, arguments = calls(kind)
    weights = Tensor(WEIGHTS, dtype=dtype)

    def step(*leaves: Tensor) -> list[Tensor]:
        results = []
        total = tg.zeros((), dtype=dtype)
        for k, function in enumerate(functions.values()):
            y = function(*leaves[k * len(arguments) : (k + 1) * len(arguments)])
            results.append(y)
            shaped = y.ndim and y.shape[-1] == len(WEIGHTS)
            total = total + tg.sum(y * weights if shaped else y)
        total.backward()
        return [y.detach() for y in results]

    def fresh() -> list[Tensor]:
        kind_of = dtypes.as_dtype(dtype)
        return [Tensor(a, dtype=kind_of, requires_grad=True) for _ in functions for a in arguments]

    compiled = compile(step, executor=executor)
    wanted = fresh()
    values = step(*wanted)
    leaves = fresh()
    for _ in range(3):
        for x in leaves:
            x.grad = None
        found = compiled(*leaves)
    names = list(functions)
    for name, a, b in zip(names, found, values, strict=True):
        assert_alike(name, host(a), host(b))
    for k, (x, y) in enumerate(zip(leaves, wanted, strict=True)):
        assert x.grad is not None
        assert y.grad is not None
        assert_alike(f"slope of {names[k // len(arguments)]}", host(x.grad), host(y.grad))


def assert_alike(name: str, found: Array, wanted: Array) -> None:
    """Equal up to rounding on the way, infinities and NaN in the same places."""
    eps = float(np.finfo(wanted.dtype).eps)
    a, b = found.astype(np.float64), wanted.astype(np.float64)
    finite = np.abs(np.where(np.isfinite(b), b, 0.0))
    near = np.abs(a - b) <= 16 * eps * np.maximum(finite, 1.0)
    good = near | (a == b) | (np.isnan(a) & np.isnan(b))
    if not good.all():
        raise AssertionError(f"{name}: {a[~good][:4]}, in eager mode {b[~good][:4]}")
