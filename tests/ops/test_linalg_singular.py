"""Matrix functions where they have no derivative, or where the plain formula divides by zero.

What does not depend on a choice of vectors has its gradient; what does is NaN, and never a number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numeric import assert_slope

import tensorgrad as tg
from tensorgrad import Tensor, linalg
from tensorgrad.autograd import grad
from tensorgrad.errors import LinAlgError, ShapeError

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(0)
BY: Array = RNG.standard_normal((3, 3))
SYMMETRIC = BY + BY.T
TURN = np.linalg.qr(RNG.standard_normal((3, 3)))[0]
UNKNOWN: dict[str, Any] = {"ord": "fro"}
#: Symmetric matrices with eigenvalues, and singular values, that coincide.
COINCIDING = {
    "identity": np.eye(3),
    "zero": np.zeros((3, 3)),
    "turned": TURN @ np.diag([2.0, 2.0, 1.0]) @ TURN.T,
    "close": TURN @ np.diag([2.0, 2.0 + 4e-16, 1.0]) @ TURN.T,
    "projection": TURN @ np.diag([0.0, 0.0, 1.0]) @ TURN.T,
}
EVERY_MATRIX = pytest.mark.parametrize("name", COINCIDING)


def slope(function: Callable[[Tensor], Tensor], at: Array) -> Array:
    x = Tensor(at, requires_grad=True)
    return np.asarray(grad(function(x), x)[0].numpy())


def of_spectrum(x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """``function`` of a symmetric matrix."""
    w, v = linalg.eigh(x)
    return (v * function(w)[None, :]) @ v.mT


def put_together(x: Tensor) -> Tensor:
    u, s, vh = linalg.svd(x, full_matrices=False)
    return (u * s[None, :]) @ vh


def weighted(y: Tensor, by: Array = BY) -> Tensor:
    return (y * Tensor(by[: y.shape[0], : y.shape[1]])).sum()


# --- eigenvalues and singular values that coincide ------------------------------------------------


@EVERY_MATRIX
def test_what_does_not_depend_on_the_choice_is_right(name: str) -> None:
    x = COINCIDING[name]
    exponential = slope(lambda x: linalg.trace(linalg.expm(x)), x)
    for function, wanted in (
        (lambda x: linalg.eigvalsh(x).sum(), np.eye(3)),
        (lambda x: linalg.eigh(x).eigenvalues.sum(), np.eye(3)),
        (lambda x: tg.exp(linalg.eigh(x).eigenvalues).sum(), exponential),
        (lambda x: (linalg.svdvals(x) ** 2).sum(), 2 * x),
        (lambda x: (linalg.svd(x).S ** 2).sum(), 2 * x),
    ):
        np.testing.assert_allclose(slope(function, x), wanted, rtol=1e-12, atol=1e-13)


@EVERY_MATRIX
def test_what_depends_on_the_choice_is_nan(name: str) -> None:
    """So is what does not, if its gradient cannot be told from those of values and vectors."""
    x = COINCIDING[name]
    for function in (
        lambda x: weighted(linalg.eigh(x).eigenvectors),
        lambda x: weighted(of_spectrum(x, lambda w: w), SYMMETRIC),
        lambda x: weighted(of_spectrum(x, tg.exp), SYMMETRIC),
        lambda x: linalg.trace(of_spectrum(x, tg.exp)),
        lambda x: weighted(linalg.svd(x).U),
        lambda x: weighted(linalg.svd(x).Vh),
        lambda x: weighted(put_together(x)),
    ):
        assert np.isnan(slope(function, x)).all()


def test_numerators_that_cancel_do_not_make_a_gradient() -> None:
    """Of ``V @ diag(w ** 2) @ inv(V)`` they vanish, yet the gradient has terms of the values."""
    x, by = np.diag([2.0, 2.0, 3.0]), np.array([[1.0, 2.0, 3.0], [2.0, 1.0, 1.0], [3.0, 1.0, 1.0]])

    def square(w: Tensor, v: Tensor) -> Tensor:
        return weighted(tg.real((v * w[None, :] ** 2) @ linalg.inv(v)), by)

    for function in (
        lambda x: square(*linalg.eig(x)),
        lambda x: square(*linalg.eigh(x)),
        lambda x: square(linalg.svd(x).S, linalg.svd(x).U),
        lambda x: square(linalg.svd(x, hermitian=True).S, linalg.svd(x, hermitian=True).U),
    ):
        assert np.isnan(slope(function, x)).all()
        apart = slope(function, np.diag([2.0, 2.5, 3.0]))
        wanted = np.array([[4.0, 9.0, 15.0], [9.0, 5.0, 5.5], [15.0, 5.5, 6.0]])
        np.testing.assert_allclose((apart + apart.T) / 2, wanted, rtol=1e-12)


def test_vectors_whose_gradients_cancel_to_zeros_are_used() -> None:
    """Of ``V @ diag(w ** 2) @ inv(V)`` at a multiple of the identity they are exactly 0."""

    def square(w: Tensor, v: Tensor) -> Tensor:
        return tg.real((v * w[..., None, :] ** 2) @ linalg.inv(v)).sum()

    def by_svd(x: Tensor, **options: bool) -> Tensor:
        u, s, _ = linalg.svd(x, **options)
        return square(s, u)

    for x in (2 * np.eye(3), np.stack([2 * np.eye(2), np.eye(2)])):
        for function in (
            lambda x: square(*linalg.eig(x)),
            lambda x: square(*linalg.eigh(x)),
            by_svd,
            lambda x: by_svd(x, hermitian=True),
        ):
            assert np.isnan(slope(function, x)).all()
    for alone in (
        lambda x: (linalg.eigh(x)[0] ** 2).sum(),
        lambda x: (tg.real(linalg.eig(x)[0]) ** 2).sum(),
    ):
        assert np.isfinite(slope(alone, 2 * np.eye(3))).all()
    part = slope(lambda x: linalg.eigh(x)[1][1, :, 0].sum(), np.stack([np.eye(2), np.diag([1, 2])]))
    assert np.isfinite(part).all()


def test_of_a_stack_only_the_matrix_in_question_is_nan() -> None:
    stack = np.stack([np.diag([1.0, 2.0, 3.0]) + 0.1 * SYMMETRIC, np.eye(3)])
    functions: list[Any] = [lambda x: linalg.eigh(x)[1], lambda x: linalg.svd(x)[0]]
    for function in functions:
        found = slope(lambda x: (function(x) * Tensor(BY)).sum(), stack)  # noqa: B023
        assert np.isfinite(found[0]).all()
        assert np.isnan(found[1]).all()


def test_vectors_that_are_used_may_stand_beside_others_that_coincide() -> None:
    """The eigenvector of the largest eigenvalue of a projection; the others do not matter."""
    x = COINCIDING["projection"]

    def value(arrays: Any) -> float:
        v = np.linalg.eigh((arrays[0] + arrays[0].T) / 2)[1][:, -1]
        return float(v @ SYMMETRIC @ v)

    def ours(x: Tensor) -> Tensor:
        v = linalg.eigh(x).eigenvectors[:, -1]
        return v @ Tensor(SYMMETRIC) @ v

    assert_slope(value, [x], [slope(ours, x)], np.random.default_rng(0))


def test_values_alone_have_a_generalized_gradient() -> None:
    """Of the largest of equal ones that of any share; here each of the vectors in question."""
    found = slope(lambda x: linalg.matrix_norm(x, ord=2), np.eye(2))
    np.testing.assert_allclose(found, np.eye(2) / 2)
    found = slope(lambda x: linalg.eigvalsh(x)[0], np.eye(2))
    np.testing.assert_allclose(np.trace(found), 1.0)
    assert np.isnan(slope(lambda x: linalg.eigh(x).eigenvalues[0], np.eye(2))).all()


def test_singular_values_that_vanish() -> None:
    """Once, a matrix put together has its gradient; of twice nothing is known of the vectors."""
    left, right = RNG.standard_normal((2, 4, 3))
    for rank, known in ((3, True), (2, True), (1, False)):
        x = left[:, :rank] @ right[:, :rank].T[:, :3]
        found = slope(lambda x: weighted(put_together(x), left), x)
        if known:
            np.testing.assert_allclose(found, left[:, :3], rtol=1e-9, atol=1e-12)
        else:
            assert np.isnan(found).all()
    assert np.isnan(slope(lambda x: weighted(put_together(x)), np.zeros((3, 2)))).all()
    x = left[:, :1] @ right[:1, :2]
    by = RNG.standard_normal((4, 1))  # a multiple of the other column would turn with nothing
    assert np.isnan(slope(lambda x: weighted(linalg.svd(x, False).U[:, 1:], by), x)).all()


@pytest.mark.parametrize("shape", [(4, 2), (2, 4)], ids=str)
def test_further_columns_of_square_factors(shape: tuple[int, int]) -> None:
    """Their space has a gradient, they themselves have none."""
    x = RNG.standard_normal(shape)
    tall = shape[0] > shape[1]
    by = RNG.standard_normal((4, 4))

    def rest(x: Tensor) -> Tensor:
        u, _, vh = linalg.svd(x)
        return u[:, 2:] if tall else vh[2:].mT

    def other(x: Tensor) -> Tensor:
        return linalg.qr(x if tall else x.mT, mode="complete").Q[:, 2:]

    for further in (rest, other):

        def space(x: Tensor) -> Tensor:
            columns = further(x)  # noqa: B023
            return (columns @ columns.mT * Tensor(by)).sum()

        found = slope(space, x)

        def value(arrays: Any) -> float:
            a = arrays[0] if tall else arrays[0].T
            return float(((np.eye(4) - a @ np.linalg.pinv(a)) * by).sum())

        assert_slope(value, [x], [found], np.random.default_rng(0))
        assert np.isnan(slope(lambda x: (further(x) ** 3).sum(), x)).all()  # noqa: B023


def test_phases_of_complex_vectors() -> None:
    x = BY + 1j * SYMMETRIC
    for function in (linalg.eig, linalg.eigh):
        fine = slope(lambda x: (abs(function(x)[1]) ** 2)[0, 0], x)  # noqa: B023
        assert np.isfinite(fine).all()
        assert np.isnan(slope(lambda x: tg.real(function(x)[1]).sum(), x)).all()  # noqa: B023


def test_too_few_eigenvectors() -> None:
    for x in (np.array([[1.0, 1.0], [0.0, 1.0]]), np.array([[0.0, 1.0], [0.0, 0.0]])):
        assert np.isnan(slope(lambda x: tg.real(linalg.eigvals(x)[0]), x)).all()


# --- triangles ------------------------------------------------------------------------------------


def test_factors_of_matrices_without_full_rank() -> None:
    x = RNG.standard_normal((4, 1)) @ RNG.standard_normal((1, 3))
    functions: list[Any] = [lambda x: linalg.qr(x)[0], lambda x: linalg.qr(x)[1]]
    for function in (*functions, lambda x: linalg.lu(x)[1]):
        assert np.isnan(slope(lambda x: (function(x) ** 2).sum(), x)).all()  # noqa: B023


# --- determinants and inverses --------------------------------------------------------------------


def cofactors(x: Array) -> Array:
    n = len(x)
    return np.array(
        [
            [(-1) ** (i + j) * np.linalg.det(np.delete(np.delete(x, i, 0), j, 1)) for j in range(n)]
            for i in range(n)
        ]
    )


@pytest.mark.parametrize("complex", [False, True], ids=["real", "complex"])
@pytest.mark.parametrize("rank", range(5))
def test_determinants_of_singular_matrices(rank: int, complex: bool) -> None:
    """The first and second gradient of matrices of any rank, that of the identity too."""
    left, right, more = RNG.standard_normal((3, 4, 4)) + 1j * complex * RNG.standard_normal((4, 4))
    if not complex:
        left, right = left.real, right.real
    x = left[:, :rank] @ right[:rank] if rank else (np.eye(4) if not complex else 1j * np.eye(4))
    by = np.ascontiguousarray(more.real)
    leaf = Tensor(x, requires_grad=True)
    (first,) = grad(tg.real(linalg.det(leaf)), leaf, create_graph=True)
    np.testing.assert_allclose(first.detach().numpy(), cofactors(x).conj(), atol=1e-12)
    (second,) = grad((tg.real(first) * Tensor(by)).sum(), leaf)

    def value(parts: Any) -> float:
        return float((cofactors(parts[0] + 1j * parts[1]).real * by).sum())

    found = second.numpy()
    if complex:
        assert_slope(value, [x.real, x.imag], [found.real, found.imag], np.random.default_rng(0))
    else:
        assert_slope(lambda a: value([a[0], 0]), [x], [found], np.random.default_rng(0))


def test_determinants_of_what_is_not_finite() -> None:
    stack = np.stack([np.diag([np.nan, 1.0]), np.diag([2.0, 3.0])])
    with np.errstate(invalid="ignore"):  # NumPy's
        found = slope(lambda x: linalg.det(x).sum(), stack)
    assert np.isnan(found[0]).all()
    np.testing.assert_allclose(found[1], np.diag([3.0, 2.0]))


def test_third_gradients_of_determinants() -> None:
    x = Tensor(BY, requires_grad=True)
    (first,) = grad(linalg.det(x), x, create_graph=True)
    (second,) = grad((first**2).sum(), x, create_graph=True)
    third = grad((second**2).sum(), x)[0].numpy()

    def value(arrays: Any) -> float:
        leaf = Tensor(arrays[0], requires_grad=True)
        (first,) = grad(linalg.det(leaf), leaf, create_graph=True)
        return float((grad((first**2).sum(), leaf)[0].numpy() ** 2).sum())

    assert_slope(value, [BY], [third], np.random.default_rng(0))


def test_logarithms_of_determinants_of_singular_matrices() -> None:
    stack = np.stack([np.diag([1.0, 0.0]), np.diag([2.0, 2.0]), np.diag([-1.0, 2.0])])
    sign, size = linalg.slogdet(Tensor(stack))
    assert sign.numpy().tolist() == [0.0, 1.0, -1.0]
    np.testing.assert_allclose(size.numpy(), [-np.inf, np.log(4), np.log(2)])
    found = slope(lambda x: linalg.slogdet(x).logabsdet.sum(), stack)
    assert np.isnan(found[0]).all()
    np.testing.assert_allclose(found[1:], np.linalg.inv(stack[1:]).swapaxes(1, 2))
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(linalg.logdet(Tensor(stack)).numpy()[::2], [-np.inf, np.nan])


def test_no_inverse_is_an_error() -> None:
    singular, negative = Tensor(np.ones((2, 2))), Tensor(-np.eye(2))
    for function in (
        linalg.inv,
        lambda x: linalg.solve(x, Tensor([1.0, 2.0], dtype=tg.float64)),
        lambda x: linalg.solve_triangular(x * 0, Tensor([1.0, 2.0], dtype=tg.float64)),
        lambda x: linalg.matrix_power(x, -1),
        lambda x: linalg.cholesky(negative),
    ):
        with pytest.raises(LinAlgError, match=r"\(2, 2\)"):
            function(singular)
        with pytest.raises(np.linalg.LinAlgError):
            function(singular)


def test_pseudo_inverses_of_matrices_without_full_rank() -> None:
    """The rank is that of the standard's tolerance, and stays: so changes keep it here."""
    left, right = RNG.standard_normal((4, 2)), RNG.standard_normal((2, 3))
    by, target = RNG.standard_normal((3, 4)), RNG.standard_normal(4)
    functions: list[Any] = [
        lambda m, a, b: (m.pinv(a @ b) * (Tensor(by) if m is linalg else by)).sum(),
        lambda m, a, b: ((m.pinv(a @ b) @ (Tensor(target) if m is linalg else target)) ** 2).sum(),
    ]
    for function in functions:
        leaves = [Tensor(a, requires_grad=True) for a in (left, right)]
        found = [g.numpy() for g in grad(function(linalg, *leaves), leaves)]
        assert_slope(
            lambda a: float(function(np.linalg, *a)),  # noqa: B023
            [left, right], found, np.random.default_rng(0),
        )  # fmt: skip
    fit = linalg.lstsq(Tensor(left @ right), Tensor(target))
    assert fit.rank.item() == 2
    assert fit.residuals.shape == (0,)
    wanted = np.linalg.lstsq(left @ right, target, rcond=None)[0]
    np.testing.assert_allclose(fit.x.numpy(), wanted)
    assert linalg.matrix_rank(Tensor(left @ right)).item() == 2
    np.testing.assert_array_equal(slope(lambda x: linalg.pinv(x).sum(), np.zeros((2, 3))), 0.0)


@pytest.mark.parametrize("kind", ["real", "complex", "hermitian", "tall", "wide", "stack"])
def test_pseudo_inverses_that_cut_singular_values_off(kind: str) -> None:
    """Of 3, 2, 0.5 and 0.4 times numbers near 1 the last two, and in wide and tall ones too."""
    rng = np.random.default_rng(5)
    shape = {"tall": (6, 4), "wide": (4, 6), "stack": (2, 4, 4)}.get(kind, (4, 4))
    x = rng.standard_normal(shape) + 1j * (kind in ("complex", "hermitian")) * rng.standard_normal(
        shape
    )
    u, _, vh = np.linalg.svd(x if kind in ("complex", "hermitian") else x.real, False)
    values, rtol = np.array([3.0, 2.0, 0.5, 0.4]), 0.3
    x = (u * values) @ (u.conj().mT if kind == "hermitian" else vh)
    by = rng.standard_normal(x.mT.shape)
    more: dict[str, Any] = {"hermitian": True} if kind == "hermitian" else {}
    tolerance: Any = np.full(2, rtol) if kind == "stack" else rtol

    def ours(x: Tensor) -> Tensor:
        y = linalg.pinv(x, rtol=tolerance, **more)
        return ((tg.real(y) + tg.imag(y) if x.dtype == tg.complex128 else y) * Tensor(by)).sum()

    def value(parts: Any) -> float:
        a = parts[0] + 1j * parts[1] if len(parts) == 2 else parts[0]
        a = (a + a.conj().mT) / 2 if kind == "hermitian" else a
        y = np.linalg.pinv(a, rcond=tolerance)
        return float(((y.real + y.imag) * by).sum())

    found = slope(ours, x)
    parts = [x.real, x.imag] if np.iscomplexobj(x) else [x]
    slopes = [found.real, found.imag] if np.iscomplexobj(x) else [found]
    assert_slope(value, parts, slopes, np.random.default_rng(0))


def test_least_squares_that_cut_singular_values_off() -> None:
    x, target = np.array([[3.0, 1.0, 0.0], [1.0, 2.0, 1.0], [0.0, 1.0, 0.5]]), np.arange(3.0)

    def value(arrays: Any) -> float:
        return float((np.linalg.pinv(arrays[0], rcond=0.3) @ arrays[1]).sum())

    leaves = [Tensor(a, requires_grad=True) for a in (x, target)]
    found = [g.numpy() for g in grad(linalg.lstsq(leaves[0], leaves[1], 0.3).x.sum(), leaves)]
    assert_slope(value, [x, target], found, np.random.default_rng(0))


@pytest.mark.parametrize("rank", [2, 4])
def test_second_gradients_of_pseudo_inverses_with_a_tolerance(rank: int) -> None:
    """They exist where several singular values are 0, and where some are cut off."""
    rng = np.random.default_rng(3)
    turn = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    left, right = turn[:, :rank] * np.array([3.0, 2.0, 0.5, 0.4])[:rank], np.eye(4)[:rank]
    by = rng.standard_normal((4, 4))

    def first(leaves: list[Tensor], create: bool) -> list[Tensor]:
        y = (linalg.pinv(leaves[0] @ leaves[1], rtol=0.3) * Tensor(by)).sum()
        return list(grad(y, leaves, create_graph=create))

    def value(arrays: Any) -> float:
        leaves = [Tensor(a, requires_grad=True) for a in arrays]
        return float(sum((g.numpy() ** 2).sum() for g in first(leaves, False)))

    leaves = [Tensor(a, requires_grad=True) for a in (left, right)]
    gradients = first(leaves, True)
    second = grad((gradients[0] ** 2).sum() + (gradients[1] ** 2).sum(), leaves)
    assert_slope(value, [left, right], [g.numpy() for g in second], np.random.default_rng(0))


def test_condition_of_singular_matrices() -> None:
    x = Tensor(np.diag([1.0, 0.0]))
    assert [linalg.cond(x, p).item() for p in (None, 2, 1, "fro", np.inf)] == [np.inf] * 5
    assert linalg.cond(x, -2).item() == 0
    assert linalg.cond(x * 0).item() == np.inf
    with np.errstate(all="ignore"):
        assert not np.isfinite(slope(linalg.cond, np.diag([1.0, 0.0]))).all()


def test_norms_of_nothing() -> None:
    """0 at the zero matrix, or one of the generalized gradients."""
    for ord in ("fro", 1, -1, np.inf, -np.inf):
        found = slope(lambda x: linalg.matrix_norm(x, ord=ord), np.zeros((2, 3)))  # noqa: B023
        assert not found.any()
    for ord in (2, "nuc"):
        found = slope(lambda x: linalg.matrix_norm(x, ord=ord), np.zeros((2, 3)))  # noqa: B023
        assert np.linalg.norm(found, 2) <= 1


# --- what does not fit ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda x: linalg.inv(x), r"inv: the last two axes must have one size; got shape \(2, 3\)"),
        (lambda x: linalg.svd(x[0]), r"svd: a matrix .* got shape \(3,\)"),
        (
            lambda x: linalg.solve(x.mT @ x, x),
            r"solve: b must have the size of a, 3, along axis -2",
        ),
        (lambda x: linalg.lstsq(x, x.mT), "lstsq: b must have as many rows as a"),
        (lambda x: linalg.cross(x, x[:, :2]), "cross: both must have size 3"),
        (lambda x: linalg.outer(x, x), "outer: two vectors"),
        (lambda x: linalg.multi_dot([x, x]), "multi_dot: matrices with sizes that fit"),
        (lambda x: linalg.tensorinv(x, 1), "tensorinv: the first 1 axes"),
        (lambda x: linalg.tensorsolve(x, x), "tensorsolve: a must have the shape of b"),
        (lambda x: linalg.householder_product(x, x), "householder_product: m >= n >= k"),
        (lambda x: linalg.cond(x[:, :0]), "cond: matrices without elements"),
    ],
)
def test_shapes_that_do_not_fit(call: Callable[[Tensor], Any], text: str) -> None:
    with pytest.raises(ShapeError, match=text):
        call(Tensor(np.ones((2, 3))))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda x: linalg.qr(x, mode="raw"), "qr: mode must be"),
        (lambda x: linalg.eigh(x, "X"), "eigh: UPLO must be"),
        (lambda x: linalg.matrix_norm(x, ord=3), "matrix_norm: ord must be"),
        (lambda x: linalg.norm(x, "fro", axis=0), "is a norm of matrices"),
        (lambda x: linalg.norm(x[None], 1), "a norm is over one or two axes"),
        (lambda x: linalg.vector_norm(x, **UNKNOWN), "is a norm of matrices"),
        (lambda x: linalg.pinv(x, 0.1, rtol=0.1), "give the tolerance once"),
        (lambda x: linalg.matrix_rank(x, 0.1, rtol=0.1), "give the tolerance once"),
        (lambda x: linalg.solve_triangular(x, x, trans=3), "trans must be"),
        (lambda x: linalg.lu_solve(linalg.lu_factor(x), x, trans=3), "trans must be"),
        (lambda x: linalg.multi_dot([x]), "at least two factors"),
        (lambda x: linalg.block_diag(), "at least one array"),
        (lambda x: linalg.tensorinv(x, 0), "ind must be positive"),
        (lambda x: linalg.vander(x, -1), "n must not be negative"),
    ],
)
def test_options_that_are_unknown(call: Callable[[Tensor], Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        call(Tensor(np.eye(2)))
