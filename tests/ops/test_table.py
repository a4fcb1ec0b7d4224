"""Every row of the table, every case: values, gradients, second gradients, dtypes and layouts."""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numeric import assert_slope
from ops import torch_adaptors
from sampler import LAYOUTS, REPEATED, Array, Call, Layout, draw, host, outputs

import tensorgrad as tg
from tensorgrad import Tensor, dtypes
from tensorgrad.errors import ShapeError
from tensorgrad.ops.table import OPERATIONS, Operation

ROWS = list(OPERATIONS.values())
EVERY_ROW = pytest.mark.parametrize("row", ROWS, ids=lambda r: r.name)

# Rows without a reference in NumPy, with the reason; any other row must have one.
WITHOUT_REFERENCE: dict[str, str] = {}


def every_case(wanted: Callable[[Operation], bool] = lambda row: True) -> pytest.MarkDecorator:
    """Parametrise a test over all cases of the rows that are ``wanted``."""
    return pytest.mark.parametrize(
        ("row", "number"),
        [
            pytest.param(row, i, id=f"{row.name}-{i}")
            for row in ROWS
            if wanted(row)
            for i in range(len(row.cases))
        ],
    )


def every_case_and_float(
    wanted: Callable[[Operation], bool] = lambda row: True,
) -> pytest.MarkDecorator:
    """All cases in float64, where the bounds are the narrowest, and the first in float32 too.

    For programs: of all cases in float32 they are tried by program/test_differential.py, on the CPU
    with special numbers among them, and by program/test_cuda_rows.py.
    """
    return pytest.mark.parametrize(
        ("row", "number", "dtype"),
        [
            pytest.param(row, i, dtype, id=f"{row.name}-{i}-{dtype}")
            for row in ROWS
            if wanted(row)
            for i in range(len(row.cases))
            for dtype in (dtypes.float64, dtypes.float32)[: 1 + (i == 0)]
        ],
    )


def differentiable(row: Operation) -> bool:
    return row.gradient


def floats_of(result: Any) -> list[Tensor]:
    """The floating tensors among the results."""
    return [x for x in outputs(result) if isinstance(x, Tensor) and x.dtype in dtypes.FLOATS]


def weights_of(row: Operation, call: Call, rng: np.random.Generator, device: str) -> list[Array]:
    """Random weights, one array for each floating result."""
    inputs, _ = call.tensors(device)
    return [
        np.asarray(rng.uniform(0.5, 1.5, y.shape) * rng.choice([-1, 1], y.shape))
        for y in floats_of(inputs.of(row.function))
    ]


def weighted(result: Any, weights: Sequence[Tensor]) -> Tensor:
    """The sum of all floating results times their weights: one number to differentiate."""
    total = Tensor(0.0, dtype=weights[0].dtype, device=weights[0].device)
    for y, w in zip(floats_of(result), weights, strict=True):
        total = total + tg.sum(y * w)
    return total


def gradients(
    row: Operation, inputs: Call, leaves: Sequence[Tensor], weights: Sequence[Array]
) -> list[Array]:
    """The gradients of the weighted results with respect to the leaves."""
    result = inputs.of(row.function)
    ws = [Tensor(w, dtype=y.dtype, device=y.device) for w, y in zip(weights, floats_of(result))]
    loss = weighted(result, ws)
    if loss.requires_grad:
        loss.backward()
    for x in leaves:
        assert x.grad is None or x.grad.dtype == x.dtype, f"gradient {x.grad.dtype}"
        assert x.grad is None or x.grad.device == x.device
    return [np.zeros(x.shape) if x.grad is None else host(x.grad) for x in leaves]


def assert_same(found: Any, wanted: Any, rtol: float = 1e-12, atol: float = 1e-13) -> None:
    """Equal up to rounding, with shapes and kinds of dtype, one result or several."""
    found, wanted = outputs(found), outputs(wanted)
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted):
        a, b = host(a), np.asarray(b)
        assert a.shape == b.shape, f"shape {a.shape}, reference {b.shape}"
        assert (a.dtype.kind == "f") == (b.dtype.kind == "f"), f"{a.dtype}, reference {b.dtype}"
        np.testing.assert_allclose(a.astype(np.float64), b.astype(np.float64), rtol=rtol, atol=atol)


def reference_of(row: Operation) -> Callable[..., Any]:
    """The NumPy function of a row."""
    if callable(row.reference):
        return row.reference
    assert isinstance(row.reference, str)
    root, _, path = row.reference.rpartition("scipy.special.")
    found: Any = np
    if root or path != row.reference:
        found = pytest.importorskip("scipy.special", reason="compares with SciPy")
    *names, last = path.split(".")
    if last.isdigit():  # of several results
        several = functools.reduce(getattr, names, found)
        return lambda *args: several(*args)[int(last)]
    function: Callable[..., Any] = functools.reduce(getattr, [*names, last], found)
    return function


# --- the rows themselves --------------------------------------------------------------------------


@EVERY_ROW
def test_row_is_complete(row: Operation) -> None:
    assert row.cases, "a row needs cases, or nothing of it is tested"
    assert row.summary.endswith((".", ":")), f"the summary is not a sentence: {row.summary!r}"
    namespace = operator.attrgetter(row.namespace)(tg) if row.namespace else tg
    assert getattr(namespace, row.name) is row.function
    for name in (row.name, *row.aliases):
        assert callable(getattr(namespace, name)), f"{row.namespace or 'tg'}.{name} is missing"
        if row.method:
            assert callable(getattr(Tensor, name)), f"Tensor.{name} is missing"
    signature = inspect.signature(row.function)
    for name, parameter in signature.parameters.items():
        assert parameter.annotation is not inspect.Parameter.empty, f"{name} has no type"
    assert signature.return_annotation is not inspect.Signature.empty
    if row.primitive is not None:
        assert row.primitive.promotion in ("same", "float", "bool", "any")


@EVERY_ROW
def test_row_has_references(row: Operation) -> None:
    assert torch_adaptors.has_counterpart(row) != (row.name in torch_adaptors.WITHOUT), (
        "a row has a counterpart in PyTorch or a reason in torch_adaptors.WITHOUT, and not both"
    )
    assert (row.reference is None) == (row.name in WITHOUT_REFERENCE), (
        "a row has a reference in NumPy or a reason in WITHOUT_REFERENCE, and not both"
    )


def test_lists_name_rows_only() -> None:
    known = set(OPERATIONS)
    assert set(torch_adaptors.WITHOUT) <= known
    assert set(torch_adaptors.ADAPTORS) <= known
    assert set(WITHOUT_REFERENCE) <= known


def test_aliases_are_unique() -> None:
    names = [name for row in ROWS for name in (row.name, *row.aliases)]
    assert len(names) == len(set(names))


def test_a_module_gives_what_its_rows_define_and_their_aliases() -> None:
    """A row whose name is missing in ``__all__`` of its module would not be in the namespace."""
    rows = [row for row in ROWS if not row.namespace]
    names = {name for row in rows for name in (row.name, *row.aliases)}
    assert names <= set(vars(tg.ops)["__all__"]) <= set(vars(tg)["__all__"])
    assert tg.absolute is tg.abs
    assert OPERATIONS["concat"].aliases == ("cat", "concatenate")


# --- values ---------------------------------------------------------------------------------------


@every_case(lambda row: row.reference is not None)
def test_value(row: Operation, number: int, device: str) -> None:
    call = draw(row, number)
    inputs, leaves = call.tensors(device)
    before = [x.data.copy() for x in leaves]
    function = row.function
    if "device" in inspect.signature(function).parameters:  # what is made of no tensor
        function = functools.partial(function, device=device)
    result = inputs.of(function)
    for y in outputs(result):
        assert isinstance(y, Tensor)
        assert y.device.startswith(device)
        assert not y.requires_grad
    assert_same(result, call.of(reference_of(row)))
    for x, kept in zip(leaves, before):
        assert (x.data == kept).all(), "the input was modified"


@every_case(lambda row: row.method)
def test_method_is_the_function(row: Operation, number: int) -> None:
    inputs, _ = draw(row, number).tensors()
    if not inputs.args or not isinstance(inputs.args[0], Tensor):
        pytest.skip("this case has no tensor in the first place")
    by_method = getattr(inputs.args[0], row.name)(*inputs.args[1:], **inputs.kwargs)
    for a, b in zip(outputs(by_method), outputs(inputs.of(row.function)), strict=True):
        np.testing.assert_array_equal(host(a), host(b))


@every_case(torch_adaptors.has_counterpart)
def test_against_pytorch(row: Operation, number: int, rng: np.random.Generator) -> None:
    torch: Any = pytest.importorskip("torch", reason="compares with PyTorch")
    call = draw(row, number)
    theirs: list[Any] = []

    def convert(a: Array) -> Any:
        x = torch.tensor(a)
        if a.dtype == np.float64:
            theirs.append(x.requires_grad_(row.gradient))
        return x

    there = call.map(convert, floats=False)
    expected = outputs(torch_adaptors.call(row, there.args, there.kwargs))
    expected = [torch.as_tensor(y) for y in expected]
    inputs, leaves = call.tensors(requires_grad=row.gradient)
    result = inputs.of(row.function)
    assert_same(result, [y.detach().numpy() for y in expected], 1e-10, 1e-12)
    if not row.gradient:
        return
    weights = weights_of(row, call, rng, "cpu")
    real = [y for y in expected if y.dtype.is_floating_point]
    loss = torch.zeros((), dtype=torch.float64)
    for y, w in zip(real, weights, strict=True):
        loss = loss + (y * torch.tensor(w)).sum()
    if loss.requires_grad:
        loss.backward()
    found = gradients(row, inputs, leaves, weights)
    for g, x in zip(found, theirs, strict=True):
        wanted = np.zeros(x.shape) if x.grad is None else x.grad.numpy()
        np.testing.assert_allclose(g, wanted, rtol=1e-9, atol=1e-11)


# --- gradients ------------------------------------------------------------------------------------


@every_case(differentiable)
def test_gradient(row: Operation, number: int, device: str, rng: np.random.Generator) -> None:
    call = draw(row, number)
    weights = weights_of(row, call, rng, device)

    def f(arrays: Sequence[Array]) -> float:
        inputs, _ = call.replace(arrays).tensors(device)
        results = floats_of(inputs.of(row.function))
        return float(sum((host(y) * w).sum() for y, w in zip(results, weights, strict=True)))

    inputs, leaves = call.tensors(device, requires_grad=True)
    found = gradients(row, inputs, leaves, weights)
    assert_slope(f, call.arrays(), found, rng)


def first_gradients(
    row: Operation, call: Call, weights: Sequence[Array], device: str
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """The leaves, the weights as leaves, and the first gradients as recorded tensors."""
    inputs, leaves = call.tensors(device, requires_grad=True)
    ws = [Tensor(w, device=device, requires_grad=True) for w in weights]
    weighted(inputs.of(row.function), ws).backward(create_graph=True)
    firsts = []
    for x in leaves:
        firsts.append(Tensor(np.zeros(x.shape), device=device) if x.grad is None else x.grad)
        x.grad = None
    for w in ws:
        w.grad = None
    return leaves, ws, firsts


@every_case(differentiable)
def test_second_gradient(
    row: Operation, number: int, device: str, rng: np.random.Generator
) -> None:
    call = draw(row, number)
    weights = weights_of(row, call, rng, device)
    n = len(call.arrays())
    v = [rng.uniform(0.5, 1.5, a.shape) for a in call.arrays()]

    def f(values: Sequence[Array]) -> float:
        inputs, leaves = call.replace(values[:n]).tensors(device, requires_grad=True)
        found = gradients(row, inputs, leaves, values[n:])
        return float(sum((g * d).sum() for g, d in zip(found, v, strict=True)))

    leaves, ws, firsts = first_gradients(row, call, weights, device)
    loss = Tensor(0.0, dtype=np.float64, device=device)
    for g, d in zip(firsts, v, strict=True):
        loss = loss + tg.sum(g * Tensor(d, device=device))
    if loss.requires_grad:
        loss.backward()
    found = [np.zeros(x.shape) if x.grad is None else host(x.grad) for x in (*leaves, *ws)]
    assert_slope(f, [*call.arrays(), *weights], found, rng, tries=1)


@every_case(lambda row: not row.gradient)
def test_no_gradient_where_none_is_promised(row: Operation, number: int, device: str) -> None:
    inputs, _ = draw(row, number).tensors(device, requires_grad=True)
    for y in outputs(inputs.of(row.function)):
        assert not y.requires_grad


# --- layouts --------------------------------------------------------------------------------------


def assert_layout(row: Operation, call: Call, layout: Layout, device: str, seed: int) -> None:
    """The layout of the inputs in memory changes neither the values nor the gradients."""
    wanted, leaves = call.tensors(device, requires_grad=row.gradient)
    weights = weights_of(row, call, np.random.default_rng(seed), device)
    plain = outputs(wanted.of(row.function))
    plain_gradients = gradients(row, wanted, leaves, weights) if row.gradient else []
    laid: list[Tensor] = []

    def convert(a: Array) -> Tensor:
        x = layout.tensor(a, device)
        if a.dtype == np.float64:
            x.requires_grad = row.gradient
            laid.append(x)
        return x

    inputs = call.map(convert, floats=False)
    before = [host(x).copy() for x in laid]
    for a, b in zip(outputs(inputs.of(row.function)), plain, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        np.testing.assert_allclose(host(a), host(b), rtol=1e-13, atol=1e-14)
    if row.gradient:
        found = gradients(row, inputs, laid, weights)
        for g, wanted_g in zip(found, plain_gradients, strict=True):
            np.testing.assert_allclose(g, wanted_g, rtol=1e-12, atol=1e-13)
    for x, kept in zip(laid, before):
        np.testing.assert_array_equal(host(x), kept, err_msg="the input was modified")


@every_case()
def test_layout(row: Operation, number: int, device: str) -> None:
    """The first case of a row in every layout, each other case in one of them."""
    for layout in LAYOUTS if number == 0 else [LAYOUTS[number % len(LAYOUTS)]]:
        assert_layout(row, draw(row, number), layout, device, number)


@every_case(lambda row: row.elementwise)
def test_repeated_without_copying(row: Operation, number: int, device: str) -> None:
    call = draw(row, number).map(constant_rows, floats=False)
    assert_layout(row, call, REPEATED, device, number)


def constant_rows(a: Array) -> Array:
    """The array with its first column in place of all."""
    return np.ascontiguousarray(np.broadcast_to(a[..., :1], a.shape)) if a.ndim else a


# --- shapes of elementwise functions --------------------------------------------------------------


@every_case(lambda row: row.elementwise)
def test_no_axes(row: Operation, number: int, device: str) -> None:
    call = draw(row, number).map(lambda a: np.resize(a, 1).reshape(()), floats=False)
    inputs, leaves = call.tensors(device, requires_grad=row.gradient)
    assert inputs.of(row.function).shape == ()
    assert_same(inputs.of(row.function), call.of(reference_of(row)))
    if row.gradient:
        for g in gradients(row, inputs, leaves, [np.array(1.5)]):
            assert g.shape == ()


@every_case(lambda row: row.elementwise)
def test_no_elements(row: Operation, number: int, device: str) -> None:
    call = draw(row, number).map(lambda a: np.empty((0, 3), a.dtype), floats=False)
    inputs, leaves = call.tensors(device, requires_grad=row.gradient)
    assert inputs.of(row.function).shape == (0, 3)
    if row.gradient:
        for g in gradients(row, inputs, leaves, [np.empty((0, 3))]):
            assert g.shape == (0, 3)


SHAPES = [((3, 1), (1, 4)), ((4,), (2, 3, 4)), ((), (2, 3)), ((2, 1, 1), (3, 1)), ((1, 1), (3,))]


def first_pair(row: Operation) -> Call | None:
    """The first case of a row with two floating arrays of one shape."""
    for number in range(len(row.cases)):
        call = draw(row, number)
        shapes = [a.shape for a in call.arrays()]
        if len(shapes) > 1 and len(set(shapes)) == 1:
            return call
    return None


PAIRS = [row for row in ROWS if row.elementwise and first_pair(row) is not None]


def test_pairs_are_found() -> None:
    assert {"add", "multiply", "pow", "where", "maximum", "atan2"} <= {r.name for r in PAIRS}


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("row", PAIRS, ids=lambda r: r.name)
def test_broadcasting(
    row: Operation, shapes: tuple[tuple[int, ...], ...], device: str, rng: np.random.Generator
) -> None:
    """Small arguments give what they give repeated in full; their gradients are sums."""
    call = first_pair(row)
    assert call is not None
    given = iter(shapes * 2)
    small = call.map(lambda a: np.asarray(np.resize(a, next(given)), a.dtype), floats=False)
    full_shape = np.broadcast_shapes(*(a.shape for a in small.arrays(floats=False)))
    full = small.map(lambda a: np.broadcast_to(a, full_shape).copy(), floats=False)
    inputs, leaves = small.tensors(device, requires_grad=row.gradient)
    inputs_full, leaves_full = full.tensors(device, requires_grad=row.gradient)
    assert_same(inputs.of(row.function), host(inputs_full.of(row.function)))
    assert_same(inputs.of(row.function), small.of(reference_of(row)))
    if row.gradient:
        weights = [rng.uniform(0.5, 1.5, full_shape)]
        found = gradients(row, inputs, leaves, weights)
        in_full = gradients(row, inputs_full, leaves_full, weights)
        for g, g_full in zip(found, in_full, strict=True):
            extra = tuple(range(g_full.ndim - g.ndim))
            summed = g_full.sum(axis=extra)
            ones = tuple(i for i, n in enumerate(g.shape) if n == 1)
            np.testing.assert_allclose(g, summed.sum(axis=ones, keepdims=True), rtol=1e-12)


@pytest.mark.parametrize("row", PAIRS, ids=lambda r: r.name)
def test_shapes_that_do_not_broadcast(row: Operation, device: str) -> None:
    call = first_pair(row)
    assert call is not None
    sizes = iter([3, 4, 3])
    wrong = call.map(lambda a: np.resize(a, next(sizes)), floats=False)
    inputs, _ = wrong.tensors(device)
    with pytest.raises(ShapeError) as caught:
        inputs.of(row.function)
    for part in (row.name, "(3,)", "(4,)"):
        assert part in str(caught.value)


# --- element types --------------------------------------------------------------------------------

# The unit roundoff of each type, and how many of them may add up. Halves are computed in float32
# and rounded once for each primitive, while float32 is summed in float32.
ROUNDOFF = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24}
ALLOWED = {"float16": 4, "bfloat16": 4, "float32": 16}


@every_case()
def test_dtype(row: Operation, number: int, device: str) -> None:
    """Narrow floats give what float64 gives on the same numbers, and results of their own type."""
    for name in ROUNDOFF:
        check_dtype(row, number, name, device)


def check_dtype(row: Operation, number: int, name: str, device: str) -> None:
    dtype = dtypes.as_dtype(name)
    call = draw(row, number).map(lambda a: a.astype(dtype).astype(np.float64))
    inputs, leaves = call.tensors(device, dtype, requires_grad=row.gradient)
    wide, wide_leaves = call.tensors(device, requires_grad=row.gradient)
    result, exact = outputs(inputs.of(row.function)), outputs(wide.of(row.function))
    for y, z in zip(result, exact, strict=True):
        assert y.dtype == (dtype if z.dtype == np.float64 and leaves else z.dtype)
        assert_near(host(y), host(z), ALLOWED[name] * ROUNDOFF[name])
    if row.gradient and leaves:
        weights = weights_of(row, call, np.random.default_rng(number), device)
        weights = [w.astype(dtype).astype(np.float64) for w in weights]
        found = gradients(row, inputs, leaves, weights)
        for g, h in zip(found, gradients(row, wide, wide_leaves, weights), strict=True):
            assert_near(g, h, 4 * ALLOWED[name] * ROUNDOFF[name])


def assert_near(found: Array, exact: Array, tolerance: float) -> None:
    """Equal to within ``tolerance`` of the largest number."""
    wide = found.astype(np.float64)
    scale = max(1.0, float(np.abs(exact).max(initial=0)))
    np.testing.assert_allclose(wide, exact.astype(np.float64), rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("row", [r for r in ROWS if r.elementwise], ids=lambda r: r.name)
def test_integers(row: Operation, device: str) -> None:
    """Integers give float32 in real functions, and integers where the function has them."""
    call = draw(row, 0)
    for value in (1, 0, 2):
        whole = call.map(lambda a: np.full(a.shape, value, np.int64))  # noqa: B023
        with np.errstate(all="ignore"):
            wanted = np.asarray(whole.of(reference_of(row)))
        if np.isfinite(wanted).all():
            break
    inputs, _ = whole.tensors(device)
    y = inputs.of(row.function)
    types = "float" if row.primitive is None else row.primitive.promotion
    real = types == "float" or (types == "same" and any(type(a) is float for a in call.args))
    assert y.dtype == (dtypes.float32 if real else dtypes.bool if types == "bool" else dtypes.int64)
    np.testing.assert_allclose(host(y).astype(float), wanted.astype(float), rtol=1e-6)
