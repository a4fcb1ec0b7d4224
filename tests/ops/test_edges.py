"""Operations at their edges: sizes 0 and 1, many elements, equal ones, infinities, fan-out."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from sampler import host

import tensorgrad as tg
from tensorgrad import Tensor
from tensorgrad.ops.random import Generator

Array = np.ndarray[Any, Any]


def leaf(values: Any, dtype: Any = None) -> Tensor:
    return Tensor(values, dtype=dtype, requires_grad=True)


def gradient(x: Tensor) -> Array:
    assert x.grad is not None
    return host(x.grad)


# --- selection ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [4, 600, 5000])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_not_selected_leaves_no_trace(size: int, dtype: str) -> None:
    """Neither an infinity nor NaN, in value or gradient, however many elements there are."""
    values = np.full(size, np.inf, dtype)
    values[::3], values[1::3] = np.nan, -2.0
    keep = np.arange(size) % 3 == 1
    for first in (True, False):
        x = leaf(values)
        y = tg.where(Tensor(keep), x, 0.0) if first else tg.where(Tensor(~keep), 0.0, x)
        np.testing.assert_array_equal(host(y), np.where(keep, -2.0, 0.0))
        assert not np.signbit(host(y)[~keep]).any()
        y.backward(Tensor(np.where(keep, 3.0, np.inf).astype(dtype)))
        np.testing.assert_array_equal(gradient(x), np.where(keep, 3.0, 0.0))


@pytest.mark.parametrize("size", [4, 600])
def test_minus_zero_is_selected_as_such(size: int) -> None:
    values = np.ones(size, np.float32)
    keep = np.arange(size) % 2 == 0
    for zero in (0.0, -0.0):
        y = host(tg.where(Tensor(keep), Tensor(values), zero))
        assert np.signbit(y[~keep]).all() == (math.copysign(1, zero) < 0)
        y = host(tg.where(Tensor(keep), zero, Tensor(values)))
        assert np.signbit(y[keep]).all() == (math.copysign(1, zero) < 0)


# --- order ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("n", [5, 100, 3000])
def test_argsort_keeps_the_order_of_equal_numbers(n: int, descending: bool) -> None:
    """Against Python's sort, which is stable."""
    values = np.random.default_rng(n).integers(0, 4, n).astype(np.float32)
    found = tg.argsort(Tensor(values), descending=descending).tolist()
    sign = -1 if descending else 1
    assert found == sorted(range(n), key=lambda i: sign * values[i])
    columns = np.stack([values, values[::-1]], axis=1)
    found = tg.argsort(Tensor(columns), axis=0, descending=descending)
    assert host(found)[:, 1].tolist() == sorted(range(n), key=lambda i: sign * columns[i, 1])


@pytest.mark.parametrize("largest", [False, True])
def test_topk_takes_the_first_of_equal_numbers(largest: bool) -> None:
    values = np.random.default_rng(1).integers(0, 3, 200).astype(np.float32)
    found, places = tg.topk(Tensor(values), 50, largest=largest)
    sign = -1 if largest else 1
    wanted = sorted(range(200), key=lambda i: sign * values[i])[:50]
    assert places.tolist() == wanted
    np.testing.assert_array_equal(host(found), values[wanted])


# --- einsum of sizes 0 and 1 ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "subscripts", ["ij,jk->ik", "ij,jk->ijk", "bij,bjk->bik", "ij,ij->", "ij,ij->j", "i,ij->ij"]
)
def test_einsum_of_sizes_0_1_and_2(subscripts: str) -> None:
    """NumPy's value, and the gradient of a sum of products written out; size 1 broadcasts."""
    terms, _, output = subscripts.partition("->")
    one, two = terms.split(",")
    labels = sorted(set(one + two))
    rng = np.random.default_rng(0)
    for sizes in itertools.product((0, 1, 2), repeat=len(labels)):
        own = dict(zip(labels, sizes))
        for alone in ("", *labels):  # the label of this size on the first, of size 1 on the second
            shapes = [
                tuple(1 if label == alone and k else own[label] for label in term)
                for k, term in enumerate((one, two))
            ]
            if alone and alone not in one:
                continue
            a, b = (rng.standard_normal(shape) for shape in shapes)
            x, y = leaf(a), leaf(b)
            found = tg.einsum(subscripts, x, y)
            full = [
                np.broadcast_to(v, tuple(own[n] for n in term))
                for v, term in zip((a, b), (one, two))
            ]
            wanted = np.einsum(subscripts, *full)
            assert found.shape == wanted.shape
            np.testing.assert_allclose(host(found), wanted, rtol=1e-12, atol=1e-14)
            found.backward(tg.ones_like(found))
            for k, (t, term) in enumerate(((x, one), (y, two))):
                whole = np.einsum(
                    f"{(two, one)[k]},{term}->{term}", full[1 - k], np.ones_like(full[k])
                )
                missing = math.prod(own[n] for n in output if n not in one + two)
                wide = whole * max(missing, 1)
                axes = tuple(i for i, n in enumerate(term) if t.shape[i] == 1 != own[n])
                np.testing.assert_allclose(
                    gradient(t), wide.sum(axes, keepdims=True), rtol=1e-12, atol=1e-14
                )


# --- scans ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("width", [1, 3, 20])
def test_the_first_factor_of_a_recurrence_does_not_matter(width: int, reverse: bool) -> None:
    """Were it infinite or NaN: neither the values nor the gradients see it."""
    rng = np.random.default_rng(width)
    a, b = rng.standard_normal((2, 6, width))
    results = []
    for first in (1.0, np.inf, np.nan):
        a[-1 if reverse else 0] = first
        x, y = leaf(a), leaf(b)
        s = tg.linear_recurrence(x, y, axis=0, reverse=reverse)
        s.sum().backward()
        results.append((host(s), gradient(y), np.delete(gradient(x), -1 if reverse else 0, 0)))
    for other in results[1:]:
        for one, two in zip(results[0], other):
            np.testing.assert_array_equal(one, two)


# --- indexing -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "width"), [(70_000, 2), (40_000, 3), (3, 70_000), (70_000, 1)])
def test_gradients_of_many_rows_selected_again(rows: int, width: int) -> None:
    """Every one arrives, at the places that a count says."""
    places = np.random.default_rng(0).integers(-5, 5, rows)
    x = leaf(np.zeros((5, width)))
    x[places].sum().backward()
    wanted = np.bincount(places % 5, minlength=5)
    np.testing.assert_array_equal(gradient(x), np.repeat(wanted[:, None], width, 1))


@pytest.mark.parametrize("axis", [0, 1])
def test_gather_at_places_counted_from_the_end(axis: int) -> None:
    """In gather and in its gradient."""
    values = np.arange(12.0).reshape(3, 4)
    n = values.shape[axis]
    places = np.random.default_rng(axis).integers(-n, n, (3, 4))
    x = leaf(values)
    found = tg.take_along_axis(x, Tensor(places), axis=axis)
    np.testing.assert_array_equal(host(found), np.take_along_axis(values, places, axis))
    found.sum().backward()
    wanted = np.zeros((3, 4))
    for i, j in np.ndindex(3, 4):
        wanted[(places[i, j], j) if axis == 0 else (i, places[i, j])] += 1
    np.testing.assert_array_equal(gradient(x), wanted)


@pytest.mark.parametrize("k", [-2, -1, 0, 1, 2])
def test_gradients_of_triangles(k: int) -> None:
    for cut, kept in ((tg.tril, np.tril), (tg.triu, np.triu)):
        x = leaf(np.full((4, 3), np.inf))
        cut(x, k=k).backward(Tensor(np.ones((4, 3))))
        np.testing.assert_array_equal(gradient(x), kept(np.ones((4, 3)), k))


# --- random numbers -------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_dropout_keeps_the_mean(p: float) -> None:
    """A share p is 0, the rest is scaled, and the gradient is that of the same elements."""
    x = leaf(np.full(20_000, 3.0))
    y = tg.dropout(x, p, generator=Generator(1))
    left = host(y) != 0
    assert left.mean() == pytest.approx(1 - p, abs=0.015)
    np.testing.assert_allclose(host(y)[left], 3 / (1 - p))
    y.sum().backward()
    np.testing.assert_allclose(gradient(x), np.where(left, 1 / (1 - p), 0))


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32", "float64"])
def test_even_numbers_stay_below_1(name: str) -> None:
    """In 16 bits too, where rounding would give 1; with the mean and the variance of even ones."""
    drawn = host(Generator(2).uniform((200_000,), dtype=name)).astype(np.float64)
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert drawn.mean() == pytest.approx(0.5, abs=0.004)
    assert drawn.var() == pytest.approx(1 / 12, rel=0.02)


def test_no_word_of_the_stream_is_used_twice() -> None:
    """Draws of odd sizes: all numbers of all of them differ."""
    generator = Generator(3)
    drawn = [generator.uniform((n,), dtype="float64").tolist() for n in (1, 3, 2, 5, 1, 7)]
    drawn += [generator.normal((n,), dtype="float64").tolist() for n in (1, 3, 1)]
    numbers = [x for part in drawn for x in part]
    assert len(set(numbers)) == len(numbers)
    halves = [generator.uniform((n,), dtype="float32").tolist() for n in (1, 2, 3, 1, 2)]
    numbers = [x for part in halves for x in part]
    assert len(set(numbers)) == len(numbers)


# --- rows -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("strange", [math.nan, math.inf, -math.inf, 1e30, 1e-30, 0.0])
@pytest.mark.parametrize(
    "name", ["norm", "std", "logsumexp", "softmax", "var", "max", "layer_norm"]
)
def test_one_row_says_nothing_about_another(name: str, strange: float) -> None:
    """Large and small numbers beside a row of others, and all of them alone: the same values."""
    rows = np.array([[1e25, -1e25, 3e24], [1e-30, 2e-30, -3e-30], [1.0, 2.0, 4.0]], np.float32)

    def function(x: Tensor) -> Tensor:
        return tg.layer_norm(x, (3,)) if name == "layer_norm" else getattr(tg, name)(x, axis=-1)

    def both(values: Array) -> tuple[Array, Array]:
        x = leaf(values)
        with np.errstate(all="ignore"):
            y = function(x)
            y.backward(tg.ones_like(y))
        return host(y), gradient(x)

    beside = both(np.vstack([rows, np.full((1, 3), strange, np.float32)]))
    for i, row in enumerate(rows):
        for found, alone in zip(beside, both(row[None])):
            np.testing.assert_allclose(found[i], alone[0], rtol=1e-5)


# --- 16 bits --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32", "float64"])
def test_rms_norm_adds_the_spacing_of_its_dtype(name: str) -> None:
    """Where no eps is given: the distance from 1 to the next number."""
    eps = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23, "float64": 2.0**-52}[name]
    x = math.sqrt(eps) / 2
    y = tg.rms_norm(Tensor(np.full((2, 4), x), dtype=name), (4,))
    np.testing.assert_allclose(host(y).astype(np.float64), 1 / math.sqrt(5), rtol=8e-3)


# --- the error function ---------------------------------------------------------------------------


def test_erf_against_that_of_python() -> None:
    """Within 3 ulp in float64, from -7 to 7."""
    x = np.concatenate([np.linspace(-7, 7, 4001), np.logspace(-300, 0, 200)])
    wanted = np.array([math.erf(v) for v in x.tolist()])
    np.testing.assert_allclose(host(tg.erf(Tensor(x))), wanted, rtol=7e-16)
    single = host(tg.erf(Tensor(x.astype(np.float32)))).astype(np.float64)
    exact = np.array([math.erf(v) for v in x.astype(np.float32).astype(np.float64).tolist()])
    np.testing.assert_allclose(single, exact, rtol=1.2e-7, atol=1e-45)


# --- sums of gradients ----------------------------------------------------------------------------


@pytest.mark.parametrize("uses", [2, 3, 4, 7])
@pytest.mark.parametrize("names", ["twice the same", "views", "products"])
def test_gradients_of_values_used_often(uses: int, names: str) -> None:
    """What several consumers hand on is added up in an array of its own.

    The gradients that flow on elsewhere, the seed, and those of other leaves stay as they are.
    """
    x, others = leaf(np.arange(1.0, 5.0)), [leaf(np.full(4, k + 1.0)) for k in range(uses)]
    middle = x * 1.0
    parts = []
    for k, other in enumerate(others):
        if names == "twice the same":
            parts.append(middle + other)  # hand on the very array that they were given
        elif names == "views":
            parts.append(middle.reshape(2, 2).reshape(4) + other)
        else:
            parts.append(middle * (k + 1.0) + other)
    seed = np.array([1.0, -2.0, 3.0, 0.5])
    weights = Tensor(seed.copy())
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    total.backward(weights)
    factor = sum(range(1, uses + 1)) if names == "products" else uses
    np.testing.assert_array_equal(gradient(x), seed * factor)
    for other in others:
        np.testing.assert_array_equal(gradient(other), seed)
    np.testing.assert_array_equal(host(weights), seed)


def test_gradients_are_in_memory_of_their_own() -> None:
    """Overwriting one changes no other, nor what was given to ``backward``."""
    a, b, c = (leaf(np.zeros(3)) for _ in range(3))
    weights = Tensor(np.array([1.0, 2.0, 3.0]))
    (a + b + c.reshape(3, 1).reshape(3)).backward(weights)
    for x in (a, b, c):
        assert x.grad is not None
        x.grad.copy_(-1.0)
        for other in {a, b, c} - {x}:
            assert other.grad is not None
            assert not np.shares_memory(other.grad.data, x.grad.data)
        x.grad.copy_(weights)
    np.testing.assert_array_equal(host(weights), [1, 2, 3])
