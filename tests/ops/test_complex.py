"""Complex numbers in every row of the table: values, refusals, gradients as PyTorch has them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from ops import torch_adaptors
from ops.test_table import reference_of
from sampler import Call, draw, host, outputs

import tensorgrad as tg
from tensorgrad import Tensor, dtypes
from tensorgrad.autograd import grad, gradcheck, gradgradcheck
from tensorgrad.errors import DtypeError
from tensorgrad.ops.table import OPERATIONS, Operation

Array = np.ndarray[Any, Any]
ROWS = list(OPERATIONS.values())


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


def complex_call(row: Operation, number: int, only: int | None = None) -> Call:
    """A case with complex numbers in place of its real ones; or in the place ``only``."""
    rng = np.random.default_rng(number)
    places = iter(range(100))

    def change(a: Array) -> Array:
        imag = rng.uniform(0.2, 0.8, a.shape) * rng.choice([-1, 1], a.shape)
        return np.asarray(a + 1j * imag) if only in (None, next(places)) else a

    return draw(row, number).map(change)


def tensors(call: Call, kind: str = "complex128") -> tuple[Call, list[Tensor]]:
    """The call with tensors, of which the complex and real ones are leaves."""
    leaves: list[Tensor] = []

    def convert(a: Array) -> Tensor:
        if a.dtype.kind not in "fc":
            return Tensor(a)
        wanted = dtypes.as_dtype(kind)
        leaves.append(Tensor(a, wanted if a.dtype.kind == "c" else dtypes.real_of(wanted)))
        leaves[-1].requires_grad = True
        return leaves[-1]

    return call.map(convert, floats=False), leaves


def cases(wanted: Callable[[Operation], bool]) -> list[Any]:
    return [
        pytest.param(row, i, id=f"{row.name}-{i}")
        for row in ROWS
        if wanted(row)
        for i in range(len(row.cases))
        if draw(row, i).arrays()
    ]


# --- what takes complex numbers, and what refuses them --------------------------------------------


@pytest.mark.parametrize(("row", "number"), cases(lambda row: not row.complex))
def test_what_is_not_for_complex_numbers_refuses_them(row: Operation, number: int) -> None:
    call, _ = tensors(complex_call(row, number))
    with pytest.raises(DtypeError, match="complex"):
        call.of(row.function)


@pytest.mark.parametrize(("row", "number"), cases(lambda row: row.complex))
def test_value(row: Operation, number: int) -> None:
    """What NumPy makes of the same numbers, in the dtype that it has, and in half of it."""
    given = complex_call(row, number)
    call, leaves = tensors(given)
    found, wanted = outputs(call.of(row.function)), outputs(given.of(reference_of(row)))
    for y, z in zip(found, map(np.asarray, wanted), strict=True):
        assert (y.shape, y.dtype) == (z.shape, z.dtype)
        np.testing.assert_allclose(host(y), z, rtol=1e-11, atol=1e-12)
    for x, a in zip(leaves, given.arrays(), strict=False):
        np.testing.assert_array_equal(host(x), a, err_msg="the input was modified")
    small, _ = tensors(given, "complex64")
    halved = {dtypes.complex128: dtypes.complex64, dtypes.float64: dtypes.float32}
    for y, z in zip(outputs(small.of(row.function)), found, strict=True):
        assert y.dtype == halved.get(z.dtype, z.dtype)
        np.testing.assert_allclose(host(y), host(z), rtol=2e-4, atol=2e-5)


# --- gradients ------------------------------------------------------------------------------------


def inexact(result: Any, kinds: str = "fc") -> list[Any]:
    """The real and complex results."""
    return [y for y in outputs(result) if np.dtype(str(y.dtype).split(".")[-1]).kind in kinds]


def numbers(rng: np.random.Generator, like: Any) -> Array:
    x = np.asarray(rng.uniform(0.5, 1.5, tuple(like.shape)))
    if "complex" not in str(like.dtype):
        return x
    return np.asarray(x + 1j * rng.uniform(-1.5, 1.5, x.shape))


def pairing(values: Sequence[Any], weights: Sequence[Any], real: Any, conj: Any) -> Any:
    """The sum of products in which a complex number is a pair of real ones."""
    found: Any = 0.0
    for y, w in zip(values, weights, strict=True):
        is_complex = "complex" in str(y.dtype)
        found = found + (real(conj(w) * y) if is_complex else w * y).sum()
    return found


def gradients(
    function: Callable[..., Any], leaves: Sequence[Any], seed: int, library: Any
) -> tuple[list[Any], list[Any]]:
    """First and second derivatives of random combinations, by ``library``'s own means."""
    rng = np.random.default_rng(seed)
    take: Any = grad if library is tg else library.autograd.grad
    unused = {} if library is tg else {"allow_unused": True}

    def derived(values: list[Any], keep: bool) -> list[Any]:
        weights = [library.tensor(numbers(rng, y)) for y in values]
        loss = pairing(values, weights, library.real, library.conj)
        if not getattr(loss, "requires_grad", False):
            return [library.zeros_like(x) for x in leaves]
        found = take(loss, leaves, create_graph=keep, **unused)
        pairs = zip(found, leaves, strict=True)
        return [library.zeros_like(x) if g is None else g for g, x in pairs]

    first = derived(inexact(function()), True)
    return first, derived(first, False)


def assert_as_in_pytorch(
    ours: Callable[[], Any], leaves: list[Tensor], theirs: Callable[[], Any], there: list[Any]
) -> None:
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    found = gradients(ours, leaves, 0, tg)
    wanted = gradients(theirs, there, 0, torch)
    for mine, other in zip(found, wanted, strict=True):
        for g, h, x in zip(mine, other, leaves, strict=True):
            assert (g.shape, g.dtype) == (x.shape, x.dtype)
            h = h.detach().resolve_conj().numpy()
            scale = max(1.0, float(np.abs(h).max(initial=0)))
            np.testing.assert_allclose(host(g), h, rtol=1e-8, atol=1e-10 * scale)


def compare(row: Operation, given: Call) -> None:
    torch: Any = pytest.importorskip("torch", reason="compares with PyTorch")
    call, leaves = tensors(given)
    there: list[Any] = []

    def convert(a: Array) -> Any:
        x = torch.tensor(a)
        if a.dtype.kind in "fc":
            there.append(x.requires_grad_())
        return x

    theirs = given.map(convert, floats=False)
    assert_as_in_pytorch(
        lambda: call.of(row.function),
        leaves,
        lambda: torch_adaptors.call(row, theirs.args, theirs.kwargs),
        there,
    )


#: where PyTorch has no derivative for complex numbers
WITHOUT_PYTORCH = {
    "bilinear", "embedding", "fold", "max_unpool1d", "max_unpool2d", "max_unpool3d", "round",
    "silu", "unfold",
}  # fmt: skip
GRADIENTS = cases(lambda row: row.complex and row.gradient)


@pytest.mark.parametrize(("row", "number"), GRADIENTS)
def test_gradients(row: Operation, number: int) -> None:
    """Those of real and imaginary parts, to the second order; without PyTorch of differences."""
    if row.name in WITHOUT_PYTORCH or find_spec("torch") is None:
        given = complex_call(row, number)
        _, leaves = tensors(given)

        def function(*xs: Tensor) -> Any:
            following = iter(xs)

            def convert(a: Array) -> Tensor:
                return next(following) if a.dtype.kind in "fc" else Tensor(a)

            return given.map(convert, floats=False).of(row.function)

        assert gradcheck(function, leaves)
        assert gradgradcheck(function, leaves)
    else:
        compare(row, complex_call(row, number))


MIXED = [
    pytest.param(row, i, k, id=f"{row.name}-{i}-{k}")
    for row in ROWS
    if row.complex and row.gradient and row.name not in ("embedding",)
    for i in range(len(row.cases))
    if len(draw(row, i).arrays()) > 1
    for k in range(len(draw(row, i).arrays()))
]


@pytest.mark.parametrize(("row", "number", "place"), MIXED)
def test_real_numbers_beside_complex_ones_get_real_gradients(
    row: Operation, number: int, place: int
) -> None:
    given = complex_call(row, number, place)
    if row.primitive is None or row.primitive.promotion == "any":
        call, leaves = tensors(given)
        if row.name in ("index_put", "scatter") and place:  # complex does not fit into real
            with pytest.raises(DtypeError, match="complex"):
                call.of(row.function)
            return
        for y in inexact(call.of(row.function)):
            tg.sum(tg.real(y) + tg.imag(y)).backward()
        for x in leaves:
            assert x.grad is None or x.grad.dtype == x.dtype
    else:
        widened = given.map(lambda a: np.asarray(a + 0j), floats=True)
        call, leaves = tensors(given)
        wide, wide_leaves = tensors(widened)
        found = gradients(lambda: call.of(row.function), leaves, 1, tg)[0]
        wanted = gradients(lambda: wide.of(row.function), wide_leaves, 1, tg)[0]
        for g, h, x in zip(found, wanted, leaves, strict=True):
            assert g.dtype == x.dtype
            kept = host(h) if x.dtype in dtypes.COMPLEX else host(h).real
            np.testing.assert_allclose(host(g), kept, rtol=1e-11, atol=1e-12)
