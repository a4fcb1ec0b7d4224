"""Gradients of slices and indices are added in place: the numbers are those of whole arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from sampler import host

import tensorgrad as tg
from tensorgrad import Tensor
from tensorgrad.autograd import grad
from tensorgrad.observers import MODE, Observer, current_mode
from tensorgrad.ops.parts import Part, add_at_index


def whole_arrays(function: Callable[[], Any]) -> Any:
    """``function`` where somebody watches: the rules then give whole arrays."""
    token = MODE.set(current_mode()._replace(observers=(Observer(),)))
    try:
        return function()
    finally:
        MODE.reset(token)


# --- random programs ------------------------------------------------------------------------------


def _index(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """A random index of an array of ``shape``: slices, numbers, new axes, arrays and masks."""
    if rng.random() < 0.15:
        return rng.random(shape[: rng.integers(1, len(shape) + 1)]) < 0.5
    parts: list[Any] = []
    arrays = rng.random() < 0.5
    length = tuple(rng.integers(1, 4, rng.integers(1, 3)))
    for n in shape[: rng.integers(1, len(shape) + 1)]:
        kind = rng.integers(5)
        if kind == 0:
            parts.append(int(rng.integers(-n, n)))
        elif kind == 1:
            parts.append(slice(None, None, int(rng.choice([1, 2, -1]))))
        elif kind == 2 and arrays:
            parts.append(rng.integers(-n, n, length))
        elif kind == 3:
            parts.append(slice(int(rng.integers(n)), None))
        else:
            parts += [None, slice(0, int(rng.integers(1, n + 1)))]
    if rng.random() < 0.3:
        parts.insert(int(rng.integers(len(parts) + 1)), ...)
    return tuple(parts)


def _step(rng: np.random.Generator, x: Tensor) -> Tensor:
    """Something with whole numbers: all sums are exact, in whatever order they are made."""
    kind = rng.integers(9)
    if not x.size or not x.ndim:
        return x * 2.0
    n = x.shape[0]
    if kind < 4:
        return x[_index(rng, x.shape)]
    if kind == 4:
        return tg.unstack(x)[rng.integers(n)] * tg.split(x, n)[rng.integers(n)]
    if kind == 5:
        return tg.take(x, rng.integers(0, x.shape[-1], 3), axis=-1)
    if kind == 6:
        return tg.gather(x, rng.integers(0, n, (2, *x.shape[1:])), axis=0)
    if kind == 7:
        return tg.flip(x, axis=0) + x
    return tg.where(x > 0.0, x, 2.0 * x)


def _losses(seed: int, leaves: list[Tensor], hooks: bool) -> list[Tensor]:
    """Sums of what random steps make of the leaves; most begin from the same few tensors."""
    rng = np.random.default_rng(seed)
    pool = [*leaves, *[x * 1.0 for x in leaves]]
    losses: list[Tensor] = []
    for _ in range(12):
        x = pool[rng.integers(len(pool))]
        y = _step(rng, x)
        kind = rng.integers(6)
        if hooks and y is not x and kind == 0:
            y.register_hook(lambda g: g * 2.0)
        if hooks and y is not x and kind == 1:
            y.retain_grad()
        if 0 < y.size < 100 and rng.random() < 0.4:
            pool.append(y)
        weights = Tensor(rng.integers(-2, 3, y.shape), dtype=y.dtype)
        losses.append((y * weights).sum())
    return losses


def _leaves(seed: int) -> list[Tensor]:
    rng = np.random.default_rng(seed)
    shapes = [(4,), (3, 4), (2, 3, 4)]
    return [
        Tensor(rng.integers(-3, 4, shape), dtype="float64", requires_grad=True) for shape in shapes
    ]


def _sum(losses: list[Tensor]) -> Tensor:
    total = losses[0]
    for loss in losses[1:]:
        total = total + loss
    return total


def _gradients(seed: int, way: str) -> list[Any]:
    """The gradients of the leaves of a random program, after two backward passes."""
    leaves = _leaves(seed)
    losses = _losses(seed, leaves, hooks=True)
    loss = _sum(losses)
    if way == "grad":
        return [host(g) for g in grad(loss, leaves)]
    if way == "create_graph":
        loss.backward(create_graph=True)
    elif way == "several":
        for one in losses:
            one.backward(retain_graph=True)
    else:
        loss.backward(retain_graph=True)
    return [np.zeros(x.shape) if x.grad is None else host(x.grad) for x in leaves]


@pytest.mark.parametrize("seed", range(60))
def test_random_programs(seed: int) -> None:
    wanted = whole_arrays(lambda: _gradients(seed, "backward"))
    for way in ("backward", "grad", "create_graph", "several"):
        for found, right in zip(_gradients(seed, way), wanted, strict=True):
            np.testing.assert_array_equal(found, right)


def test_a_gradient_that_somebody_keeps_is_not_added_to() -> None:
    """What a hook was shown, what retain_grad keeps, and a gradient that came in whole."""
    x = Tensor(np.arange(6.0), requires_grad=True)
    y = x * 1.0
    y.retain_grad()
    shown: list[Tensor] = []

    def hook(g: Tensor) -> None:
        shown.append(g)

    y.register_hook(hook)
    z = y * 1.0
    seed = tg.ones(6, dtype="float64")
    (tg.stack([z[1], z[4]]).sum() + z[2:].sum()).backward(retain_graph=True)
    before = host(shown[0]).copy()
    z.backward(seed)
    np.testing.assert_array_equal(host(seed), np.ones(6))
    np.testing.assert_array_equal(host(shown[0]), before)
    np.testing.assert_array_equal(before, [0, 1, 1, 1, 2, 1])
    assert x.grad is not None
    np.testing.assert_array_equal(host(x.grad), before + 1)


def test_the_same_array_handed_to_two_is_copied_first() -> None:
    """``x + y`` hands one gradient to both; a part is added to one of them only."""
    x, y = (Tensor(np.zeros(3), requires_grad=True) for _ in range(2))
    a, b = x * 1.0, y * 1.0
    part = a[0] * 5.0  # its node comes up after that of the sum
    part.backward(retain_graph=True)
    ((a + b).sum() + part).backward()
    assert x.grad is not None
    assert y.grad is not None
    np.testing.assert_array_equal(host(x.grad), [11, 1, 1])
    np.testing.assert_array_equal(host(y.grad), [1, 1, 1])


def test_a_leaf_that_was_sliced_is_accumulated() -> None:
    x = Tensor(np.zeros((2, 3)), requires_grad=True)
    for _ in range(2):
        (x[0].sum() + x[:, 1].sum() * 10.0 + x.sum() * 100.0).backward()
    assert x.grad is not None
    np.testing.assert_array_equal(host(x.grad), 2 * np.array([[101, 111, 101], [100, 110, 100]]))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32])
def test_dtypes(dtype: Any) -> None:
    """Sums of small whole numbers are exact in all of them."""
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 5, (4, 6))

    def gradient() -> Any:
        x = Tensor(rng.integers(-2, 3, (5, 20)), dtype=dtype, requires_grad=True)
        y = x * 1.0
        loss = y[1].sum() + y[:, ::2].sum() + y.sum() + tg.gather(y, rows % 5, axis=0).sum()
        (loss + sum(y[r].sum() for r in rows)).backward()
        assert x.grad is not None
        assert x.grad.dtype == dtype
        return host(x.grad)

    np.testing.assert_array_equal(gradient(), whole_arrays(gradient))


@pytest.mark.parametrize(
    "use",
    [
        lambda x, t: x[t],
        lambda x, t: x[:, t % 3],
        lambda x, t: x[np.array([t, 0, t])],
        lambda x, t: x[:, np.array([t % 3, 0])],
        lambda x, t: tg.gather(x, np.full((1, 3), t), axis=0),
    ],
    ids=["x[t]", "x[:, t]", "x[rows]", "x[:, columns]", "gather"],
)
def test_one_array_is_made_for_all_parts(use: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of a loop goes by its steps and not by their square; without a clock."""
    made = []
    kinds: list[type[Part]] = [Part, *Part.__subclasses__()]
    for kind in kinds:

        def whole(self: Any, of: Any = kind.whole) -> Any:
            made.append(self)
            return of(self)

        monkeypatch.setattr(kind, "whole", whole)
    x = Tensor(np.ones((20, 3)), requires_grad=True)
    y = x * 1.0
    _sum([use(y, t).sum() for t in range(20)]).backward()
    assert len(made) == 1


@pytest.mark.parametrize("leaf", [True, False])
def test_second_gradients_through_many_slices(leaf: bool) -> None:
    """Of the sum of x[t]**3 + x[:, t]**3: the gradient of the sum of the squared gradient."""
    values = np.random.default_rng(0).standard_normal((12, 12, 40))
    x = Tensor(values, requires_grad=True)
    y = x if leaf else x * 1.0
    parts = [y[t] for t in range(12)] + [y[:, t] for t in range(12)]
    (g,) = grad(_sum([(p * p * p).sum() for p in parts]), x, create_graph=True)
    np.testing.assert_allclose(host(g.detach()), 6 * values**2, rtol=1e-12, atol=1e-14)
    (second,) = grad((g * g).sum(), x)
    np.testing.assert_allclose(host(second), 144 * values**3, rtol=1e-12, atol=1e-14)


# --- programs -------------------------------------------------------------------------------------

LOOPS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "x[t]": lambda x, t: x[t],
    "x[:, t]": lambda x, t: x[:, t],
    "x[..., t]": lambda x, t: x[..., -1 - t],
    "windows": lambda x, t: x[t : t + 3],
    "two axes": lambda x, t: x[t % 3, t],
    "split": lambda x, t: tg.split(x, 20)[t],
    "beside all": lambda x, t: x[t] * x.mean() + x[3],
    "rows": lambda x, t: x[np.array([t, 0, t])],
}


@pytest.mark.parametrize("leaf", [True, False])
@pytest.mark.parametrize("name", LOOPS)
def test_loops_in_programs(name: str, leaf: bool) -> None:
    """With the gradients of before, which are added to."""
    start = np.random.default_rng(0).standard_normal((20, 20, 20)).astype(np.float32)
    found = []
    for compiled in (False, True):
        x = Tensor(start, requires_grad=True)

        def step(x: Tensor = x) -> Tensor:
            y = x if leaf else x * 2.0
            loss = _sum([tg.tanh(LOOPS[name](y, t)).sum() for t in range(9)])
            (loss + y[0].square().sum()).backward()
            return loss.detach()

        executor = "auto" if leaf and name in ("x[t]", "windows") else "numpy"
        run = tg.compile(step, executor=executor) if compiled else step
        losses = [run().item() for _ in range(3)]
        found.append((np.array(losses), host(x.grad)))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_one_instruction_adds_all_rows_that_are_looked_up() -> None:
    """Of a large table; with a padding, and numbers of other types, among them."""
    start = np.random.default_rng(0).standard_normal((2000, 40)).astype(np.float32)
    found = []
    for compiled in (False, True):
        x = Tensor(start, requires_grad=True)

        def step(x: Tensor = x) -> Tensor:
            x.grad = None
            rows = [np.arange(t, 2000, 50 + t) % 128 for t in range(6)]
            y = [x[np.asarray(r, np.uint8 if r.size % 2 else np.int64)] for r in rows]
            y.append(tg.nn.functional.embedding(Tensor([3, 4, 3]), x, padding_idx=4))
            loss = _sum([tg.tanh(one).sum() for one in y])
            loss.backward()
            return loss.detach()

        call: Any = tg.compile(step, executor="numpy") if compiled else step
        losses = [call().item() for _ in range(3)]
        found.append((np.array(losses), host(x.grad)))
    assert [i.op.name for i in call.program()].count("index_add") == 1
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_one_instruction_adds_many_parts() -> None:
    """Large ones, and those that fill the array: no zeros are needed then."""
    for shape, count, many in (
        ((30, 200), 29, True), ((30, 200), 30, True), ((30, 4), 30, True), ((30, 4), 29, False),
    ):  # fmt: skip
        x = Tensor(np.ones(shape, np.float32), requires_grad=True)

        def step(x: Tensor = x, count: int = count) -> Tensor:
            x.grad = None
            _sum([tg.tanh(x[t]).sum() for t in range(count)]).backward()
            return x.sum().detach()

        call = tg.compile(step, executor="numpy")
        call()
        ops = [i.op.name for i in call.program()]
        assert (ops.count("from_parts"), ops.count("unslice")) == ((1, 0) if many else (0, 29))


# --- sums at an index -----------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1, 3, 17, 40])
@pytest.mark.parametrize(
    ("count", "high"), [(0, 5), (1, 5), (30, 500), (300, 400), (300, 40), (900, 3), (2000, 1)]
)
def test_rows_are_added_in_order(width: int, count: int, high: int) -> None:
    """Few numbers of one row have the bits of a sum in order; many are nearer to the exact sum."""
    rng = np.random.default_rng(count + width)
    rows = rng.integers(-high, high, count)
    g = rng.standard_normal((count, width)).astype(np.float32)
    for fresh in (True, False):
        y = np.zeros((high, width), np.float32)
        if not fresh:
            y += rng.standard_normal(y.shape).astype(np.float32)
        start, exact, ordered = y.copy(), y.astype(np.float64), np.zeros_like(y)
        add_at_index(y, ("array", ...), [rows], g, fresh=fresh)
        np.add.at(exact, rows, g.astype(np.float64))
        np.testing.assert_allclose(y, exact, rtol=1e-5, atol=1e-5)
        wider = width <= 16 and count > 4 * high  # these are added in float64
        if fresh and not wider and (np.bincount(rows % high, minlength=high) <= 20).all():
            np.add.at(ordered, rows, g)
            np.testing.assert_array_equal(y, start + ordered)


def test_many_numbers_of_one_row_do_not_drift() -> None:
    g = np.full((100_000, 20), 0.1, np.float32)
    y = np.zeros((4, 20), np.float32)
    add_at_index(y, ("array", ...), [np.tile([1, 3], 50_000)], g, fresh=True)
    np.testing.assert_allclose(y[1::2], 5000.0, rtol=1e-5)
    np.testing.assert_array_equal(y[::2], 0)


def test_strides_of_both() -> None:
    rng = np.random.default_rng(0)
    lays: list[Any] = [np.asfortranarray, lambda a: np.repeat(a, 2, axis=1)[:, ::2]]
    for lay in lays:
        g = lay(rng.standard_normal((50, 30)))
        y, wanted = lay(np.zeros((40, 30))), np.zeros((40, 30))
        rows = rng.integers(0, 20, 50)
        add_at_index(y, ("array", ...), [rows], g)
        np.add.at(wanted, rows, g)
        np.testing.assert_allclose(y, wanted, rtol=1e-12, atol=1e-15)


def test_arrays_apart_in_an_index() -> None:
    """Their axes come first in the result."""
    rng = np.random.default_rng(0)
    index: Any = (slice(None), np.array([0, 2, 2]), slice(None), np.array([[1], [0]]))
    y, wanted = np.zeros((2, 3, 4, 2)), np.zeros((2, 3, 4, 2))
    g = rng.standard_normal(wanted[index].shape)
    add_at_index(y, ((None,) * 3, "array", (None,) * 3, "array", ...), [index[1], index[3]], g)
    np.add.at(wanted, index, g)
    np.testing.assert_allclose(y, wanted, rtol=1e-12, atol=1e-14)
