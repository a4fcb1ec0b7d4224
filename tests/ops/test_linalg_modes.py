"""``tg.linalg`` in compiled steps and on a GPU, of which the stand-in takes the place."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from ops.matrix_calls import CALLS
from ops.test_linalg import flat
from program.executors import EXECUTORS
from standin import cupy_standin, cusolver

import tensorgrad as tg
from tensorgrad import Tensor, linalg
from tensorgrad.autograd import grad
from tensorgrad.errors import LinAlgError
from tensorgrad.program import compile  # noqa: A004


def step(name: str, leaves: Sequence[Tensor], second: bool = False) -> list[Tensor]:
    """The results, and the gradients of their squares."""
    known = CALLS[name]
    found = flat(known.prepared(lambda *x: known.call(linalg, *x), *leaves))
    loss: Any = sum((abs(y) ** 2).sum() for y in found if y.requires_grad)
    if not isinstance(loss, Tensor):
        return [y.detach() for y in found]
    firsts = grad(loss, leaves, create_graph=second)
    found += firsts
    if second:
        again: Any = sum((abs(g) ** 2).sum() for g in firsts)
        found += grad(again, leaves) if again.requires_grad else []
    return [y.detach() for y in found]


def assert_same(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> None:
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a.cpu().numpy(), b.numpy(), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kind", ["real", "complex"])
@pytest.mark.parametrize("name", [name for name in CALLS if "-" not in name and name != "lstsq"])
def test_programs(name: str, kind: str) -> None:
    """lstsq asks for the rank, and is refused: what it gives besides depends on it."""
    arrays = CALLS[name].arrays(name, kind == "complex")
    compiled = compile(lambda *x: step(name, x), executor="numpy")
    for factor in (1.0, 1.25):
        given = [Tensor(a * factor, requires_grad=True) for a in arrays]
        assert_same(compiled(*given), step(name, given))


@pytest.mark.skipif("native" not in EXECUTORS, reason="there is no C compiler")
def test_programs_say_what_is_a_call() -> None:
    def solved(x: Tensor, b: Tensor) -> Tensor:
        return (linalg.solve(x, b) ** 2).sum() + linalg.slogdet(x).logabsdet

    compiled = compile(solved)
    x, b = Tensor(np.eye(3) * 2), Tensor(np.ones((3, 1)))
    for _ in range(2):
        assert compiled(x, b).item() == pytest.approx(3 / 4 + 3 * np.log(2))
    report = compiled.report()
    assert "call solve" in report
    assert "functions of whole matrices are left to LAPACK and cuSOLVER" in report


def test_a_program_that_meets_a_singular_matrix_raises_what_the_function_raises() -> None:
    compiled = compile(lambda x: linalg.inv(x).sum(), executor="numpy")
    assert compiled(Tensor(np.eye(2))).item() == 2
    with pytest.raises(LinAlgError, match="Singular"):
        compiled(Tensor(np.ones((2, 2))))


# --- on a GPU -------------------------------------------------------------------------------------

#: The stand-in has no complex numbers.
REAL = [name for name in CALLS if name not in ("eig", "eigvals")]


def test_the_stand_in_takes_what_cupy_takes() -> None:
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    for name in cusolver.SIGNATURES:
        there = inspect.signature(getattr(cupy.linalg, name))
        assert str(cusolver.signature(name)) == str(there.replace(return_annotation=there.empty))


@pytest.mark.parametrize("name", REAL)
def test_on_a_gpu(name: str) -> None:
    arrays = CALLS[name].arrays(name)
    wanted = step(name, [Tensor(a, requires_grad=True) for a in arrays], second=True)
    with cupy_standin.installed(kernels=False):
        leaves = [Tensor(a, device="cuda", requires_grad=True) for a in arrays]
        found = step(name, leaves, second=True)
        assert all(y.device == "cuda:0" for y in found)
        assert_same(found, wanted)


def test_errors_and_empty_stacks_on_a_gpu() -> None:
    with cupy_standin.installed(kernels=False):
        with pytest.raises(LinAlgError, match="inv: Singular matrix"):
            linalg.inv(tg.ones((2, 2), device="cuda"))
        with pytest.raises(LinAlgError, match="cholesky"):
            linalg.cholesky(-tg.eye(2, device="cuda"))
        for function in (linalg.inv, linalg.cholesky, linalg.det, linalg.expm, linalg.pinv):
            assert function(tg.ones((0, 2, 2), device="cuda")).shape[0] == 0


def test_a_compiled_step_on_a_gpu() -> None:
    x = np.diag([1.0, 2.0, 3.0]) + 0.1
    with cupy_standin.installed(kernels=False):
        given = Tensor(x, dtype=tg.float32, device="cuda", requires_grad=True)

        def solved(x: Tensor) -> list[Tensor]:
            loss = (linalg.eigh(x).eigenvectors ** 4).sum() + linalg.det(x)
            return [loss.detach(), *grad(loss, [x])]

        wanted = [y.cpu().numpy() for y in solved(given)]
        compiled = compile(solved)
        for _ in range(3):
            found = [y.cpu().numpy() for y in compiled(given)]
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
        assert "call eigh" in compiled.report()
