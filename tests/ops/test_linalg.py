"""``tg.linalg``: values as NumPy and SciPy give them, gradients of both orders, every mode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numeric import assert_slope
from ops.matrix_calls import CALLS, Array, MatrixCall

import tensorgrad as tg
from tensorgrad import Tensor, linalg
from tensorgrad.autograd import grad

EVERY = pytest.mark.parametrize("name", CALLS)
EVERY_KIND = pytest.mark.parametrize("kind", ["real", "complex"])


def flat(result: Any) -> list[Any]:
    """All arrays or tensors of a result, however deep in tuples."""
    if isinstance(result, list | tuple):
        return [y for part in result for y in flat(part)]
    return [result]


def results(name: str, arrays: Sequence[Any]) -> list[Tensor]:
    known = CALLS[name]
    return flat(known.prepared(lambda *x: known.call(linalg, *x), *arrays))


def weights_for(shapes: Sequence[tuple[int, ...]], start: float) -> list[Array]:
    """Numbers that differ, for each result."""
    return [np.cos(start + np.arange(float(np.prod(s)))).reshape(s) for s in shapes]


def loss_of(ys: Sequence[Any], make: Callable[[Array], Any], start: float = 1.0) -> Any:
    """The sum of all results that have a gradient, weighted; both parts of complex ones."""
    found: Any = 0
    for y in (y for y in ys if y.requires_grad):
        first, second = weights_for([tuple(y.shape)] * 2, start)
        if "complex" in str(y.dtype):
            parts = (tg.real(y), tg.imag(y)) if isinstance(y, Tensor) else (y.real, y.imag)
            found = found + (parts[0] * make(first)).sum() + (parts[1] * make(second**2)).sum()
        else:
            found = found + (y * make(first)).sum()
    return found


def both_gradients(name: str, leaves: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """The first gradients of the weighted results, and those of the weighted first ones."""
    none = [tg.zeros_like(x) for x in leaves]
    loss = loss_of(results(name, leaves), Tensor)
    if not isinstance(loss, Tensor):
        return none, none
    firsts = grad(loss, leaves, create_graph=True)
    second = loss_of(firsts, Tensor, 0.3)
    seconds = grad(second, leaves) if isinstance(second, Tensor) else none
    return [g.detach() for g in firsts], list(seconds)


def leaves_of(arrays: Sequence[Array]) -> list[Tensor]:
    return [Tensor(a, requires_grad=True) for a in arrays]


def close(found: Any, wanted: Any, rtol: float = 1e-9, atol: float = 1e-11) -> None:
    wanted = np.asarray(wanted)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=rtol, atol=atol)


# --- values and gradients -------------------------------------------------------------------------


def test_every_function_is_called() -> None:
    elsewhere = {"LinAlgError", "kron", "matmul", "matrix_transpose", "tensordot", "vecdot"}
    elsewhere |= {"geqrf", "pca_lowrank", "svd_lowrank"}  # in test_low_rank.py
    called = {name.partition("-")[0] for name in CALLS} | {"lu_factor", "matrix_norm"}
    assert called == set(vars(linalg)["__all__"]) - elsewhere


@EVERY_KIND
@EVERY
def test_value(name: str, kind: str) -> None:
    known = CALLS[name]
    arrays = known.arrays(name, kind == "complex")
    if known.numpy is None or name + kind == "logdetcomplex":
        pytest.skip("NumPy and SciPy have no such function")
    wanted = known.numpy(np.linalg, *arrays) if callable(known.numpy) else None
    wanted = known.call(np.linalg, *arrays) if wanted is None else wanted
    found = results(name, [Tensor(a) for a in arrays])
    for y, right in zip(found, flat(wanted), strict=True):
        close(y.numpy(), right)


@EVERY_KIND
@EVERY
def test_gradients_are_slopes(name: str, kind: str, rng: np.random.Generator) -> None:
    """Of complex numbers along both parts: a gradient says how the loss changes with each."""
    arrays = CALLS[name].arrays(name, kind == "complex")
    parts = [p.copy() for a in arrays for p in ((a.real, a.imag) if kind == "complex" else (a,))]

    def whole(given: Sequence[Array]) -> list[Array]:
        if kind == "real":
            return list(given)
        return [a + 1j * b for a, b in zip(given[::2], given[1::2], strict=True)]

    def split(found: Sequence[Tensor]) -> list[Array]:
        numbers = [g.numpy() for g in found]
        return [p for g in numbers for p in ((g.real, g.imag) if kind == "complex" else (g,))]

    def value(given: Sequence[Array]) -> float:
        loss = loss_of(results(name, leaves_of(whole(given))), Tensor)
        return loss.item() if isinstance(loss, Tensor) else 0.0

    def slope(given: Sequence[Array]) -> float:
        found = both_gradients(name, leaves_of(whole(given)))[0]
        loss = loss_of([g.requires_grad_() for g in found], Tensor, 0.3)
        return float(loss.item())

    firsts, seconds = both_gradients(name, leaves_of(arrays))
    assert_slope(value, parts, split(firsts), rng, tries=1)
    assert_slope(slope, parts, split(seconds), rng, tries=1)


@EVERY_KIND
@EVERY
def test_against_pytorch(name: str, kind: str) -> None:
    torch: Any = pytest.importorskip("torch", reason="compares with PyTorch")
    known = CALLS[name]
    arrays = known.arrays(name, kind == "complex")
    if known.torch is None:
        pytest.skip("PyTorch has no such function, or no second gradient of it")
    given = known.torch if callable(known.torch) else known.call
    leaves = [torch.tensor(a, requires_grad=True) for a in arrays]
    there = flat(known.prepared(lambda *x: given(torch.linalg, *x), *leaves))
    here = results(name, leaves_of(arrays))
    for y, wanted in zip(here, there, strict=True):
        close(y.detach().numpy(), wanted.detach().numpy(force=True))
    loss = loss_of(there, torch.tensor)
    if not isinstance(loss, torch.Tensor):
        return
    firsts = torch.autograd.grad(loss, leaves, create_graph=True)
    second = loss_of(firsts, torch.tensor, 0.3)
    seconds = [None] * len(leaves)
    if isinstance(second, torch.Tensor):
        seconds = torch.autograd.grad(second, leaves, allow_unused=True)
    ours = both_gradients(name, leaves_of(arrays))
    for g, wanted in zip((*ours[0], *ours[1]), (*firsts, *seconds), strict=True):
        right = np.zeros(g.shape) if wanted is None else wanted.detach().numpy(force=True)
        close(g.detach().numpy(), right, 1e-7, 1e-9)


@pytest.mark.parametrize(
    "name", [n for n, c in CALLS.items() if max(map(len, c.shapes)) == 3 and "norm" not in n]
)
def test_stacks_of_nothing(name: str) -> None:
    """They have the right shapes, and gradients of none."""
    known: MatrixCall = CALLS[name]
    if "tensor" in name or name == "householder_product":
        pytest.skip("the first axis of an array is no stack")
    arrays = [a[:0] if a.ndim == 3 else a for a in known.arrays(name)]
    shapes = [y.shape for y in results(name, [Tensor(a) for a in known.arrays(name)])]
    found = results(name, [Tensor(a) for a in arrays])
    assert [y.shape for y in found] == [(0, *shape[1:]) for shape in shapes]
    for g in flat(both_gradients(name, leaves_of(arrays))):
        assert not g.numpy().any()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", [name for name in CALLS if "-" not in name])
def test_narrow_floats(name: str, dtype: str) -> None:
    """Results have the dtype of the matrix; of 16 bits they are computed in float32."""
    if name in ("eig", "eigvals"):
        x = Tensor(np.eye(2), dtype=dtype, requires_grad=True)
        assert linalg.eig(x).eigenvectors.dtype == "complex64"
        assert grad(tg.real(linalg.eigvals(x).sum()), x)[0].dtype == dtype
        return
    arrays = [Tensor(a, dtype=dtype).double().numpy() for a in CALLS[name].arrays(name)]
    leaves = [Tensor(a, dtype=dtype, requires_grad=True) for a in arrays]
    found, exact = results(name, leaves), results(name, [Tensor(a) for a in arrays])
    room = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 2e-1}[dtype]
    for y, wanted in zip(found, exact, strict=True):
        assert y.dtype == (dtype if wanted.dtype == tg.float64 else wanted.dtype)
        scale = max(1.0, float(np.abs(wanted.numpy()).max()))
        close(y.detach().double().numpy(), wanted.double().numpy(), room, room * scale)
    loss = loss_of(found, lambda w: Tensor(w, dtype=dtype))
    for g in grad(loss, leaves) if isinstance(loss, Tensor) else ():
        assert g.dtype == dtype
        assert np.isfinite(g.double().numpy()).all()


def test_a_tolerance_for_each_matrix() -> None:
    stack = np.stack([np.diag([4.0, 1.0])] * 2)
    found = linalg.pinv(Tensor(stack), rtol=Tensor([0.5, 0.1], dtype=tg.float64)).numpy()
    close(found, np.stack([np.diag([0.25, 0.0]), np.diag([0.25, 1.0])]))
    for rank in (
        linalg.matrix_rank(Tensor(stack), rtol=Tensor([0.5, 0.1])),
        linalg.matrix_rank(Tensor(stack), tol=Tensor([2.0, 0.5])),
    ):
        assert rank.numpy().tolist() == [1, 2]
