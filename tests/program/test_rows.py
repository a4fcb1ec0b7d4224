"""Every row of the table, forward and backward, replayed on each executor against eager mode."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ops.test_table import (
    ROWS,
    differentiable,
    every_case,
    every_case_and_float,
    floats_of,
    weighted,
    weights_of,
)
from program.executors import EVERY_EXECUTOR
from sampler import Array, Call, draw, host, outputs

from tensorgrad import Tensor, dtypes
from tensorgrad.errors import CompileError
from tensorgrad.ops.random import default_generator
from tensorgrad.ops.table import Operation
from tensorgrad.program import compile  # noqa: A004

# The shape of what they give depends on the numbers in their input.
DATA_DEPENDENT = {"nonzero", "unique_values"}


def alone(row: Operation) -> bool:
    """Whether a row is tried in programs of its own: special functions share those of
    test_special_rows.py."""
    return row.namespace != "special"


def refused(row: Operation, call: Call) -> bool:
    """Whether the row cannot be compiled with these arguments."""
    masks = any(a.dtype == np.bool_ for a in call.arrays(floats=False))
    by_mask = row.name in ("getitem", "index_put") and masks
    counted = row.name == "repeat" and any(a.dtype == np.int64 for a in call.arrays(floats=False))
    return row.name in DATA_DEPENDENT or by_mask or counted


def changed(call: Call, step: int) -> Call:
    """The call with slightly other numbers, which keep their order."""
    return call.map(lambda a: np.asarray(a * (1.0 + 0.001 * step)))


def check(
    row: Operation,
    number: int,
    dtype: Any,
    executor: str,
    backward: bool,
    device: str = "cpu",
) -> Any:
    """The compiled function, after three calls that did what eager mode does."""
    call = draw(row, number)
    weights: list[Tensor] = []
    if backward:
        inputs, _ = call.tensors(device, dtype)
        kinds = [y.dtype for y in floats_of(inputs.of(row.function))]
        drawn = weights_of(row, call, np.random.default_rng(0), device)
        weights = [Tensor(w, dtype=kind, device=device) for w, kind in zip(drawn, kinds)]

    def step(*tensors: Tensor) -> Any:
        for t in tensors:
            t.grad = None
        following = iter(tensors)
        inner = call.map(lambda _: next(following), floats=False)
        result = inner.of(row.function)
        if backward:
            loss = weighted(result, weights)
            if loss.requires_grad:
                loss.backward()
        return [x.detach() for x in outputs(result) if isinstance(x, Tensor)]

    def tensors(k: int) -> list[Tensor]:
        found: list[Tensor] = []

        def convert(a: Array) -> Tensor:
            floating = a.dtype == np.float64
            kind = dtype if floating else None
            t = Tensor(a, dtype=kind, device=device, requires_grad=backward and floating)
            found.append(t)
            return t

        changed(call, k).map(convert, floats=False)
        return found

    compiled = compile(step, executor=executor)
    if refused(row, call):
        with pytest.raises(CompileError, match="Remedy"):
            compiled(*tensors(0))
        return compiled
    rtol, atol = (1e-12, 1e-13) if dtype == dtypes.float64 else (2e-5, 1e-6)
    given = tensors(0)
    for k in range(3):
        default_generator.seed(k)
        numbers = tensors(k)
        for t, n in zip(given, numbers):
            t.data = n.data  # the same tensors with other numbers: as a user assigns to a parameter
        state = default_generator.state()
        found = compiled(*given)
        gradients = [t.grad for t in given]
        after = default_generator.state()
        default_generator.set_state(state)
        wanted = step(*numbers)
        assert default_generator.state() == after
        for a, b in zip(found, wanted, strict=True):
            assert a.dtype == b.dtype
            assert a.shape == b.shape
            np.testing.assert_allclose(host(a), host(b), rtol=rtol, atol=atol)
        for g, t in zip(gradients, numbers, strict=True):
            assert (g is None) == (t.grad is None)
            if g is not None and t.grad is not None:
                scale = float(np.max(np.abs(host(t.grad)), initial=0.0))
                np.testing.assert_allclose(
                    host(g), host(t.grad), rtol=rtol, atol=atol * max(1.0, scale)
                )
    assert compiled.captures == 1
    return compiled


@EVERY_EXECUTOR
@every_case(lambda row: alone(row) and not differentiable(row))
def test_without_gradients(row: Operation, number: int, executor: str) -> None:
    check(row, number, dtypes.float32, executor, backward=False)


@EVERY_EXECUTOR
@pytest.mark.parametrize(
    "row", [row for row in ROWS if alone(row) and differentiable(row)], ids=lambda r: r.name
)
def test_forward(row: Operation, executor: str) -> None:
    """The first case by itself: of all cases the values are tried with the gradients."""
    check(row, 0, dtypes.float32, executor, backward=False)


@EVERY_EXECUTOR
@every_case_and_float(lambda row: alone(row) and differentiable(row))
def test_backward(row: Operation, number: int, dtype: Any, executor: str) -> None:
    check(row, number, dtype, executor, backward=True)
