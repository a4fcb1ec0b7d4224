"""Decompositions of low rank, reflections, draws by weights, and searching in many rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import Tensor, linalg
from tensorgrad.errors import ShapeError

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(7, 5), (5, 7), (2, 6, 4)])
@pytest.mark.parametrize("complex", [False, True], ids=["real", "complex"])
def test_of_low_rank_all_is_found(shape: tuple[int, ...], complex: bool) -> None:
    *batch, m, n = shape
    x: Any = RNG.standard_normal((*batch, m, 3)) @ RNG.standard_normal((*batch, 3, n))
    if complex:
        x = x * np.exp(1j)
    u, s, v = linalg.svd_lowrank(Tensor(x), 3)
    assert (u.shape, s.shape, v.shape) == ((*batch, m, 3), (*batch, 3), (*batch, n, 3))
    np.testing.assert_allclose(s.numpy(), np.linalg.svd(x)[1][..., :3], rtol=1e-10)
    back = (u.numpy() * s.numpy()[..., None, :]) @ v.numpy().conj().swapaxes(-1, -2)
    np.testing.assert_allclose(back, x, rtol=1e-10, atol=1e-12)


def test_principal_directions() -> None:
    x = RNG.standard_normal((30, 4)) * np.array([5.0, 2.0, 1.0, 0.1]) + 3.0
    u, s, v = linalg.pca_lowrank(Tensor(x), 4)
    centred = x - x.mean(0)
    np.testing.assert_allclose(s.numpy(), np.linalg.svd(centred)[1], rtol=1e-10)
    assert linalg.pca_lowrank(Tensor(x)).S.shape == (4,)
    raw = linalg.svd_lowrank(Tensor(x), 4, M=Tensor(x.mean(0))).S
    np.testing.assert_allclose(raw.numpy(), s.numpy(), rtol=1e-10)
    np.testing.assert_allclose(abs(v.numpy().T @ v.numpy()), np.eye(4), atol=1e-12)
    assert u.shape == (30, 4)
    with pytest.raises(ShapeError, match=r"q must be between 0 and 4; got 5"):
        linalg.svd_lowrank(Tensor(x), 5)


def test_gradient_of_singular_values_of_low_rank() -> None:
    x = Tensor(RNG.standard_normal((6, 3)), requires_grad=True)

    def of(x: Tensor) -> Tensor:
        return (linalg.svd_lowrank(x, 3).S ** 3).sum()

    assert tg.autograd.gradcheck(of, (x,))


@pytest.mark.parametrize("shape", [(4, 3), (3, 3), (3, 5), (2, 4, 3)])
def test_reflections_are_lapacks(shape: tuple[int, ...]) -> None:
    x = RNG.standard_normal(shape)
    a, tau = linalg.geqrf(Tensor(x, requires_grad=True))
    assert not a.requires_grad
    for one, found, factors in zip(
        x.reshape(-1, *shape[-2:]), a.numpy().reshape(-1, *shape[-2:]),
        tau.numpy().reshape(-1, min(shape[-2:])), strict=True,
    ):  # fmt: skip
        h, wanted = np.linalg.qr(one, mode="raw")
        np.testing.assert_allclose(found, h.T, rtol=1e-12)
        np.testing.assert_allclose(factors, wanted, rtol=1e-12)
    if shape[-2] >= shape[-1]:
        q = linalg.householder_product(a, tau).numpy()
        np.testing.assert_allclose(q @ np.triu(a.numpy())[..., : shape[-1], :], x, atol=1e-12)


# --- draws by weights -----------------------------------------------------------------------------


def test_integers_are_drawn_in_proportion_to_their_weights() -> None:
    weights = np.array([[1.0, 0.0, 3.0, 4.0], [2.0, 2.0, 0.0, 0.0]])
    generator = tg.random.Generator(3)
    drawn = tg.random.multinomial(weights, 4000, replacement=True, generator=generator).numpy()
    assert drawn.shape == (2, 4000)
    for row, of in zip(drawn, weights, strict=True):
        shares = np.bincount(row, minlength=4) / 4000
        assert shares[of == 0].tolist() == [0.0] * int((of == 0).sum())
        np.testing.assert_allclose(shares, of / of.sum(), atol=0.04)
    state = generator.state()
    again = tg.random.multinomial(weights[0], 5, replacement=True, generator=generator)
    generator.set_state(state)
    other = tg.random.multinomial(weights[0], 5, replacement=True, generator=generator)
    assert again.tolist() == other.tolist()


def test_without_replacement_no_integer_comes_again() -> None:
    weights = np.tile(np.array([1.0, 0.0, 3.0, 4.0]), (3000, 1))
    drawn = tg.random.multinomial(Tensor(weights), 2, generator=tg.random.Generator(1)).numpy()
    assert (drawn[:, 0] != drawn[:, 1]).all()
    assert not (drawn == 1).any()
    first = np.bincount(drawn[:, 0], minlength=4) / 3000
    np.testing.assert_allclose(first, [1 / 8, 0, 3 / 8, 1 / 2], atol=0.04)
    behind_last = np.bincount(drawn[drawn[:, 0] == 3, 1], minlength=4)
    np.testing.assert_allclose(behind_last / behind_last.sum(), [0.25, 0, 0.75, 0], atol=0.05)


@pytest.mark.parametrize(
    ("weights", "n", "again"),
    [([1.0, 0.0], 2, False), ([0.0, 0.0], 1, True), ([1.0, -1.0], 1, True), ([np.inf], 1, True)],
)
def test_weights_that_allow_no_draw(weights: list[float], n: int, again: bool) -> None:
    with pytest.raises(ValueError, match="multinomial: weights must be"):
        tg.random.multinomial(weights, n, again)


# --- many rows ------------------------------------------------------------------------------------


def test_rows_are_searched_each_by_its_own_values() -> None:
    rows, values = np.sort(RNG.standard_normal((2, 3, 5))), RNG.standard_normal((2, 3, 4))
    found = tg.searchsorted(Tensor(rows), Tensor(values))
    wanted = [
        [np.searchsorted(a, b).tolist() for a, b in zip(one, some, strict=True)]
        for one, some in zip(rows, values, strict=True)
    ]
    assert found.tolist() == wanted
    order = RNG.permuted(np.tile(np.arange(5), (2, 3, 1)), axis=-1)
    mixed = np.empty_like(rows)
    np.put_along_axis(mixed, order, rows, axis=-1)
    by_order = tg.searchsorted(Tensor(mixed), Tensor(values), sorter=Tensor(order))
    assert by_order.tolist() == wanted
    with pytest.raises(ShapeError, match="axes of the values"):
        tg.searchsorted(Tensor(rows), Tensor(values[0]))


def test_silu_of_complex_numbers() -> None:
    z = RNG.standard_normal(5) + 1j * RNG.standard_normal(5)
    found = tg.silu(Tensor(z))
    np.testing.assert_allclose(found.numpy(), z / (1 + np.exp(-z)), rtol=1e-12)
    x = Tensor(z, requires_grad=True)
    assert tg.autograd.gradcheck(lambda x: tg.silu(x), (x,))
    assert tg.autograd.gradgradcheck(lambda x: tg.silu(x), (x,))
