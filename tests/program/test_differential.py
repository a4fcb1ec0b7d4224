"""Programs captured on harmless numbers and replayed on all others: they do what eager mode does.

Each program is made and run directly, so that nothing can fall back on another executor unseen.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
from emulator import emulator
from ops.test_table import ROWS, floats_of, weighted, weights_of
from program.captured import Captured, assert_alike, tensors_in
from program.executors import EVERY_EXECUTOR, EXECUTORS
from program.test_rows import refused
from sampler import Call, draw, host
from standin import cupy_standin

import tensorgrad as tg
from tensorgrad import Tensor, backend, nn, optim
from tensorgrad.errors import CompileError
from tensorgrad.ops.table import Operation
from tensorgrad.program.schedule import Single

needs_compiler = pytest.mark.skipif("native" not in EXECUTORS, reason="there is no C compiler")
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])

# Zeros, infinities, NaN, subnormal numbers, what exp makes infinite or nothing of, and one whose
# products do not overflow. That has one sign: what is left where large numbers cancel is rounding.
COMMON = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 0.5, 2.5, -7.0]
SPECIAL: dict[Any, list[float]] = {
    np.float32: [*COMMON, 1e-45, -1e-45, 1e-39, 1e-8, 88.9, -104.0, 20.0, 1e18],
    np.float64: [*COMMON, 5e-324, -5e-324, 1e-310, 1e-17, 709.9, -746.0, 40.0, 1e150],
}
# Where nothing is added up, the largest numbers too.
HUGE: dict[Any, list[float]] = {np.float32: [3e38, -3e38], np.float64: [1.7e308, -1.7e308]}
# Whether many factors overflow, or come to nothing, before a zero or an infinity is met depends on
# their order; and where large numbers cancel, what is left is rounding. These rows get other ones.
FACTORS = {"prod", "cumulative_prod", "layer_norm", "rms_norm"}
# Rows in which a sigmoid meets infinite numbers: NumPy's exp makes 0 of what is below the least
# normal number, and 0 times infinity is NaN. They get none of the numbers in whose exp that shows.
SIGMOIDS = {"binary_cross_entropy_with_logits"}
# Whether what no query sees is multiplied by 0, or not at all, depends on the blocks in which it is
# computed; and whether infinities of both signs are added on the way, in gradients of norms of
# channels, on the order of the terms: they are NaN or infinite. These rows get finite numbers.
FINITE = {"scaled_dot_product_attention", "batch_norm", "group_norm", "instance_norm"}
# Sigmoids that eager mode makes of tanh are 0 for numbers below -17, and 0 times infinity is NaN.
# These rows get no infinities.
BOUNDED = {"lstm", "gru"}
CANCELLED = {"matmul", "dot", "linear", "tensordot", "einsum"}
# Elementwise rows whose gradient is a difference of nearly equal numbers.
CANCELLING = {"tanh"}
ROUNDING: dict[Any, tuple[float, float]] = {np.float32: (2e-5, 1e-6), np.float64: (1e-12, 1e-13)}


@pytest.fixture(autouse=True)
def _numpy_says_nothing() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        yield


# --- every row ------------------------------------------------------------------------------------


class Batch:
    """Cases of rows, forward and backward, as one function of all their arrays."""

    def __init__(self, cases: Sequence[tuple[Operation, int, Call]], dtype: Any) -> None:
        self.cases = cases
        self.dtype = dtype
        self.weights: list[list[Tensor]] = []
        for row, _, call in cases:
            inputs, _ = call.tensors("cpu", dtype)
            kinds = [y.dtype for y in floats_of(inputs.of(row.function))]
            drawn = weights_of(row, call, np.random.default_rng(0), "cpu") if row.gradient else []
            self.weights.append([Tensor(w, dtype=k) for w, k in zip(drawn, kinds)])

    def tensors(self, change: Callable[[Operation, Any], Any] | None = None) -> list[Tensor]:
        """New leaves with the numbers of the cases, the floating arrays changed."""
        found: list[Tensor] = []
        for row, _, call in self.cases:
            changed = call if change is None else call.map(partial(change, row))
            for a in changed.arrays(floats=False):
                floating = a.dtype == np.float64
                kind = self.dtype if floating else None
                found.append(Tensor(a, dtype=kind, requires_grad=row.gradient and floating))
        return found

    def __call__(self, *tensors: Tensor) -> list[list[Tensor]]:
        """For each case the results, and the gradients of those that there are."""
        following = iter(tensors)
        found = []
        for (row, _, call), weights in zip(self.cases, self.weights):
            given: list[Tensor] = []

            def take(a: Any, given: list[Tensor] = given) -> Tensor:
                given.append(next(following))
                return given[-1]

            result = call.map(take, floats=False).of(row.function)
            seen = [t.detach() for t in tensors_in(result)]
            if row.gradient:
                loss = weighted(result, weights)
                if loss.requires_grad:
                    loss.backward()
                for t in given:
                    if t.grad is not None:
                        seen.append(t.grad)
                        t.grad = None
            found.append(seen)
        return found


def cases_of(rows: Sequence[Operation]) -> list[tuple[Operation, int, Call]]:
    drawn = [(row, k, draw(row, k)) for row in rows for k in range(len(row.cases))]
    return [case for case in drawn if not refused(case[0], case[2])]


def check(batch: Batch, program: Captured, tensors: Sequence[Tensor], **how: bool) -> None:
    """The program does with ``tensors`` what the function does."""
    rtol, atol = ROUNDING[batch.dtype]
    tiny = float(np.finfo(batch.dtype).tiny)  # NumPy's exp makes 0 of what is smaller
    found = iter(program(*tensors))
    for (row, number, _), wanted in zip(batch.cases, batch(*tensors), strict=True):
        for k, t in enumerate(wanted):
            about = f"{row.name}, case {number}, result {k}"
            least = atol if how.get("sums") or row.name in CANCELLING else tiny
            assert_alike(next(found), t.data, about, rtol, least, **how)


PER_PROGRAM = 40
PARTS = pytest.mark.parametrize("part", range(-(-len(ROWS) // PER_PROGRAM)))


def check_rows(part: int, dtype: Any, rng: np.random.Generator, rounds: int) -> None:
    rows = ROWS[part * PER_PROGRAM : (part + 1) * PER_PROGRAM]
    batch = Batch(cases_of(rows), dtype)
    program = Captured(batch, batch.tensors())
    for pool, share in [(SPECIAL[dtype], 1.0), (SPECIAL[dtype], 0.2), (COMMON, 0.3)] * rounds:

        def special(row: Operation, a: Any, pool: Any = pool, share: float = share) -> Any:
            mine = COMMON if row.name in FACTORS else pool
            if row.name in SIGMOIDS:
                mine = [x for x in pool if not 80.0 < abs(x) < 1e3]
            if row.name in FINITE:
                mine = [x for x in COMMON if np.isfinite(x)]
            if row.name in BOUNDED:
                mine = [x for x in COMMON if not np.isinf(x)]
            if row.name in CANCELLED:
                mine = [x for x in pool if not 7.0 < abs(x) < np.inf]
            return np.where(rng.random(a.shape) < share, rng.choice(mine, a.shape), a)

        check(batch, program, batch.tensors(special), sums=True)


@needs_compiler
@DTYPES
@PARTS
def test_every_row(part: int, dtype: Any, rng: np.random.Generator) -> None:
    check_rows(part, dtype, rng, 2)


@needs_compiler
@pytest.mark.slow
@DTYPES
@PARTS
def test_every_row_at_random(part: int, dtype: Any) -> None:
    check_rows(part, dtype, np.random.default_rng(), 100)


# --- elementwise rows, on all pairs of special numbers --------------------------------------------


def elementwise_cases(dtype: Any) -> list[tuple[Operation, int, Call]]:
    """The cases of elementwise rows, their floating arrays being a grid of special numbers."""
    numbers = np.array([*SPECIAL[dtype], *HUGE[dtype]])
    grid = [np.repeat(numbers, len(numbers)), np.tile(numbers, len(numbers))]
    grid.append(np.roll(grid[1], 1))
    found = []
    for row, number, call in cases_of([row for row in ROWS if row.elementwise]):
        if any(a.dtype.kind in "iu" for a in call.arrays(floats=False)):
            continue
        following = iter(grid)

        def special(a: Any, following: Any = following) -> Any:
            return next(following) if a.dtype == np.float64 else np.resize(a, len(grid[0]))

        found.append((row, number, call.map(special, floats=False)))
    return found


@needs_compiler
@DTYPES
def test_elementwise_rows_on_all_pairs(dtype: Any) -> None:
    """Each element by itself: no sum hides it."""
    batch = Batch(elementwise_cases(dtype), dtype)
    ones = batch.tensors(lambda row, a: np.full(a.shape, 0.5))
    program = Captured(batch, ones)
    check(batch, program, batch.tensors(), signs=True)


# --- numbers --------------------------------------------------------------------------------------

NUMBERS = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-45, 1e300, 0.1, 2, -3, 1 << 40, True]


@EVERY_EXECUTOR
@DTYPES
def test_numbers_of_every_kind(dtype: Any, executor: str) -> None:
    """In the text of a program, and beside equal ones of another sign or type."""
    integers = Tensor(np.array([1, 2, -3]))

    def f(x: Tensor) -> list[Tensor]:
        found = []
        for number in NUMBERS:
            held = tg.full((3,), number, dtype=dtype)
            found += [x + number, x * number, tg.maximum(x, number), tg.where(x > 0, number, x)]
            found += [held * x, 1.0 / tg.where(x > 0, number, x * number), x > number, x / held]
            found += [tg.clip(x, number, None), 1.0 / (tg.full((3,), number, dtype=dtype) * 2.0)]
            found += [integers * number, integers + number, tg.leaky_relu(x, float(number))]
        return found

    program = Captured(f, [Tensor(np.ones(3, dtype))], executor)
    for numbers in ([0.0, -0.0, 2.0], [-1.0, np.nan, np.inf], [-np.inf, 3.0, -0.0]):
        x = Tensor(np.array(numbers, dtype))
        for k, (a, t) in enumerate(zip(program(x), f(x), strict=True)):
            about = f"number {k // 13}, result {k % 13}"
            assert_alike(a, t.data, about, ROUNDING[dtype][0], 0.0, signs=True)


@EVERY_EXECUTOR
@DTYPES
def test_sums_of_negative_zeros_and_of_single_numbers(dtype: Any, executor: str) -> None:
    def f(x: Tensor, y: Tensor) -> list[Tensor]:
        return [g(z, axis=axis) for z in (x, y) for g in (tg.sum, tg.mean) for axis in (0, 1, None)]

    given = [Tensor(np.full(s, -0.0, dtype)) for s in ((3, 1), (1, 3))]
    program = Captured(f, given, executor)
    for a, t in zip(program(*given), f(*given), strict=True):
        assert_alike(a, t.data, "", 0.0, 0.0, signs=True)


# --- how arrays lie -------------------------------------------------------------------------------


def _unaligned(a: Any) -> Any:
    raw = np.zeros(a.nbytes + 1, np.uint8)
    found = raw[1:].view(a.dtype).reshape(a.shape)
    found[...] = a
    return found


def _field(a: Any) -> Any:
    """Elements at distances that are no whole number of elements."""
    record = np.zeros(a.shape, [("byte", np.uint8), ("number", a.dtype)])
    record["number"] = a
    return record["number"]


def _part_of_fields(a: Any) -> Any:
    return _field(np.pad(a, 1))[tuple(slice(1, -1) for _ in a.shape)]


def _every_second(a: Any) -> Any:
    big = np.full([2 * n for n in a.shape], 7.0, a.dtype)
    view = big[tuple(slice(1, None, 2) for _ in a.shape)]
    view[...] = a
    return view


def _reversed(a: Any) -> Any:
    back = tuple(slice(None, None, -1) for _ in a.shape)
    return a[back].copy()[back]


def _read_only(a: Any) -> Any:
    found = a.copy()
    found.flags.writeable = False
    return found


LAYOUTS: dict[str, Callable[[Any], Any]] = {
    "contiguous": lambda a: a.copy(),
    "fortran": lambda a: np.asfortranarray(a),
    "reversed": _reversed,
    "every second": _every_second,
    "inside": lambda a: np.pad(a, 1)[tuple(slice(1, -1) for _ in a.shape)],
    "unaligned": _unaligned,
    "field": _field,
    "part of fields": _part_of_fields,
    "swapped": lambda a: a.astype(a.dtype.newbyteorder()),
    "read-only": _read_only,
    "repeated": lambda a: np.broadcast_to(a[:1], a.shape),
}
SIZES = pytest.mark.parametrize("shape", [(6, 8), (80, 96)], ids=["small", "large"])


def laid(a: Any, layout: str) -> Tensor:
    """A tensor around an array that lies so."""
    x = Tensor(np.zeros((), a.dtype))
    x.data = LAYOUTS[layout](a)
    return x


def looked_at_from_all_sides(x: Tensor) -> list[Tensor]:
    """What reads ``x`` in every way that programs have: nests, products and calls."""
    n = x.shape[1]
    return [
        x * 2.0,
        x.T + 1.0,
        x[1:, ::-2] * 3.0,
        x[::-1].sum(axis=0),
        x.sum(axis=1),
        x.max(),
        (x @ x.T).sum(axis=1),
        x[2:5, : n // 2] @ x[1, n // 2 :],
        tg.softmax(x, axis=0),
        x.reshape(-1)[3:17] * 2.0,
        tg.cumulative_sum(x[3:, 2], axis=0),
        tg.sort(x[::-2], axis=1),
        tg.tril(x.T),
        x,
    ]


@EVERY_EXECUTOR
@SIZES
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arguments_however_they_lie(
    shape: tuple[int, ...], dtype: Any, executor: str, rng: np.random.Generator
) -> None:
    program = Captured(looked_at_from_all_sides, [Tensor(np.ones(shape, dtype))], executor)
    for layout in LAYOUTS:
        x = laid(rng.standard_normal(shape).astype(dtype), layout)
        before = x.data.copy()
        found = program(x)
        wanted = looked_at_from_all_sides(Tensor(x.data.astype(dtype)))
        for k, (a, t) in enumerate(zip(found, wanted, strict=True)):
            assert_alike(a, t.data, f"{layout}, result {k}", *ROUNDING[dtype], sums=True)
            assert not np.shares_memory(a, x.data)
        np.testing.assert_array_equal(x.data, before)


@EVERY_EXECUTOR
@SIZES
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_lies_outside_however_it_does(
    shape: tuple[int, ...], layout: str, executor: str, rng: np.random.Generator
) -> None:
    """Captured with one layout, and replayed with it and with all others."""
    outside = laid(rng.standard_normal(shape).astype(np.float32), layout)

    def f(y: Tensor) -> list[Tensor]:
        return looked_at_from_all_sides(outside + 0.0 * y)[:3] + looked_at_from_all_sides(outside)

    y = Tensor(np.ones(shape, np.float32))
    program = Captured(f, [y], executor)
    for other in [layout, *LAYOUTS]:
        outside.data = laid(rng.standard_normal(shape).astype(np.float32), other).data
        kept = outside.data.astype(np.float32)
        for _ in range(2):  # the second time with other numbers in the same memory
            for k, (a, t) in enumerate(zip(program(y), f(y), strict=True)):
                assert_alike(a, t.data, f"{other}, result {k}", *ROUNDING[np.float32], sums=True)
            np.testing.assert_array_equal(outside.data, kept)
            if outside.data.flags.writeable:
                outside.data[...] = kept = -kept


@EVERY_EXECUTOR
@SIZES
@pytest.mark.parametrize("layout", sorted(set(LAYOUTS) - {"read-only", "repeated", "swapped"}))
def test_what_is_overwritten_however_it_lies(
    shape: tuple[int, ...], layout: str, executor: str, rng: np.random.Generator
) -> None:
    """Its elements are, and nothing between them; where the array moves, the new one is.

    What was read before, or copied, keeps the old numbers: as a view, in a product, in a call.
    """
    start = rng.standard_normal(shape)
    w = laid(start, layout)
    copied = not np.shares_memory(w.data.reshape(-1), w.data)

    def step(x: Tensor, w: Tensor) -> list[Tensor]:
        flat = w.reshape(-1) if copied else w * 1.0
        n = w.shape[0]

        def read(number: float) -> list[Tensor]:  # equal expressions, of other numbers each time
            return [tg.tanh(w) * number, w.sum(axis=0) * number]

        before = [x + 1.0, *read(0.5), w.T + 0.5, w @ x.T, tg.sort(w[::-1], axis=0)]
        w.copy_(w * 0.5 + x)
        between = [*read(0.7), flat * 1.0]
        w.copy_(w[::-1] + w[:, ::-1] * 0.5)
        w[1:3] = tg.cumulative_sum(w, axis=1)[1:3]
        w.copy_(w - w.mean(axis=1, keepdims=True) + w[n - 1])
        return [*before, *between, *read(0.9), w.T @ x]

    x = Tensor(rng.standard_normal(shape))
    program = Captured(partial(step, w=w), [x], executor)
    np.testing.assert_array_equal(w.data, start)
    # That it lies otherwise is for those to see who give values places of their own.
    for other in [layout, "contiguous", "every second"] if executor == "native" else [layout]:
        w.data, reference = LAYOUTS[other](start), laid(start, layout)
        for _ in range(3):
            found, wanted = program(x), step(x, reference)
            for k, (a, t) in enumerate(zip([*found, w.data], [*wanted, reference], strict=True)):
                about = f"{other}, result {k}"
                assert_alike(a, t.data, about, 1e-9, 1e-9, sums=True)
        if other == "every second":
            base = w.data.base
            assert (base[::2] == 7.0).all()
            assert (base[:, ::2] == 7.0).all()


@EVERY_EXECUTOR
def test_empty_and_0_d(executor: str) -> None:
    outside = [Tensor(np.zeros((0, 3), np.float32)), Tensor(np.float32(2.0))]

    def f(x: Tensor, y: Tensor) -> list[Tensor]:
        empty, number = outside
        return [x * 2.0, y * number, (x + empty).sum(axis=0), x.T @ x, y + y, tg.concat([x, empty])]

    def given(k: float) -> list[Tensor]:
        return [Tensor(np.zeros((0, 3), np.float32)), Tensor(np.float32(k))]

    program = Captured(f, given(1.0), executor)
    for k in range(3):
        outside[1].data = np.asarray(k + 5.0, np.float32)
        for a, t in zip(program(*given(k)), f(*given(k)), strict=True):
            assert_alike(a, t.data, f"{k}", 0.0, 0.0)


@EVERY_EXECUTOR
def test_a_read_only_number_of_the_user_may_change(executor: str) -> None:
    """Only the engine's own numbers are constants; what somebody else may write to is not."""
    memory = np.ones(3, np.float32)
    number = Tensor(np.float32(0.0))
    number.data = memory[1:2].reshape(())
    number.data.flags.writeable = False
    x = Tensor(np.ones(4, np.float32))
    program = Captured(lambda x: x * number, [x], executor)
    for k in range(3):
        memory[1] = k
        np.testing.assert_array_equal(program(x)[0], float(k))


# --- what is made in the step begins anew ---------------------------------------------------------


def accumulated(x: Tensor) -> Any:
    z = tg.zeros(3)
    z += x
    return z


def accumulated_twice(x: Tensor) -> Any:
    z, other = tg.zeros(3), tg.zeros(3)
    z += x
    z += x
    return z, other


def accumulated_in_what_was_folded(x: Tensor) -> Any:
    z = tg.full((3,), 2.0) * 3.0
    z -= x
    return z


def a_number_that_counts(x: Tensor) -> Any:
    count = Tensor(5.0)
    count *= x[0]
    return count + x, count


def one_element_set(x: Tensor) -> Any:
    z = tg.ones(3)
    before = z * x
    z[1] = x[0]
    between = z * x
    z[2:] = x[:1] * 2.0
    return before, between, z, tg.ones(3)


def equal_values_of_which_one_changes(x: Tensor) -> Any:
    a, b = x * 2.0, x * 2.0
    a += 1.0
    return a + 0.0, b + 0.0


def equal_values_of_which_one_has_changed(x: Tensor) -> Any:
    a = x * 2.0
    a[1] = x[0] + 1.0
    b = x * 2.0
    return a * 1.0, b * 1.0


def the_same_before_and_after(x: Tensor) -> Any:
    y = x * 2.0
    first = y * 3.0
    y.copy_(x * x)
    return first, y * 3.0


def a_leaf_of_its_own(x: Tensor) -> Any:
    w = tg.zeros(3, requires_grad=True)
    with tg.no_grad():
        w += x
    (w * w).sum().backward()
    return w.grad, w.detach()


def copies_of_what_is_overwritten(x: Tensor) -> Any:
    y = (x.reshape(3, 1) + tg.ones((1, 2))).T
    flat = y.reshape(-1)  # a copy there, and a view of the same memory in a program
    y2 = y * 1.0
    y2 -= 1.0
    return flat * 1.0, y2, tg.cumulative_sum(flat, axis=0)


def a_running_mean(x: Tensor) -> Any:
    norm = tg.nn.BatchNorm1d(3)
    y = norm(tg.stack([x, x * 2.0]))
    return y, norm.running_mean, norm.num_batches_tracked


MADE_INSIDE = [
    accumulated,
    accumulated_twice,
    accumulated_in_what_was_folded,
    a_number_that_counts,
    one_element_set,
    equal_values_of_which_one_changes,
    equal_values_of_which_one_has_changed,
    the_same_before_and_after,
    a_leaf_of_its_own,
    copies_of_what_is_overwritten,
    a_running_mean,
]


def check_made_inside(executor: str, device: str) -> None:
    for f in MADE_INSIDE:
        program = Captured(f, [Tensor(np.ones(3, np.float32), device=device)], executor)
        for k in range(3):
            x = np.arange(3, dtype=np.float32) + k + 1
            wanted = [host(t) for t in tensors_in(f(Tensor(x, device=device)))]
            found = program(Tensor(x, device=device))
            for n, (a, b) in enumerate(zip(found, wanted, strict=True)):
                about = f"{f.__name__}, replay {k}, result {n}"
                assert_alike(backend.of(a).to_host(a), b, about, 1e-6, 0.0)


@EVERY_EXECUTOR
def test_what_is_made_inside_begins_anew(executor: str) -> None:
    check_made_inside(executor, "cpu")


@pytest.mark.usefixtures("defaults")
def test_what_is_made_inside_begins_anew_on_cuda() -> None:
    reason = emulator.available()
    if reason is not None:
        pytest.skip(reason)
    with cupy_standin.installed():
        backend.set_default_device("cuda")
        check_made_inside("cuda", "cuda")


def test_an_optimizer_made_inside_is_refused() -> None:
    w = Tensor(np.ones(3), requires_grad=True)

    def f(x: Tensor) -> None:
        (w * x).sum().backward()
        optim.SGD([w], lr=0.1, momentum=0.9).step()

    with pytest.raises(CompileError, match="made inside"):
        Captured(f, [Tensor(np.ones(3))], "numpy")


# --- what of it is memory of its own --------------------------------------------------------------

EXTENTS = pytest.mark.parametrize("n", [3, 40], ids=["small", "large"])


def the_same_in_many_ways(x: Tensor) -> list[Tensor]:
    y, s = x * 2.0, tg.sigmoid(x)
    w = x.detach().requires_grad_()
    (w * w).sum().backward()
    assert w.grad is not None
    return [
        y, y, y.detach(), y.T, y[1:], x * 2.0, y.reshape(-1), x, x.T, tg.ones(x.shape),
        tg.ones(x.shape), w.grad, w.grad.T, w.detach(), tg.softmax(x, axis=1), y + 0.0, y * 1.0, s,
        s, s.detach(),
    ]  # fmt: skip


@EVERY_EXECUTOR
@EXTENTS
def test_results_stay_what_they_are(n: int, executor: str, rng: np.random.Generator) -> None:
    """Nothing that was returned changes, whatever is done with the other results, and replayed."""
    shape = (2 * n, 3 * n)
    program = Captured(the_same_in_many_ways, [Tensor(np.ones(shape, np.float32))], executor)
    kept: list[tuple[Any, Any]] = []
    for _ in range(4):
        x = Tensor(rng.standard_normal(shape).astype(np.float32))
        before = x.data.copy()
        eager = the_same_in_many_ways(x)
        found = program(x)
        for k, a in enumerate(found):
            assert_alike(a, eager[k].data, f"result {k}", *ROUNDING[np.float32])
            for j in range(k):
                if not np.shares_memory(eager[k].data, eager[j].data):
                    assert not np.shares_memory(a, found[j]), f"results {j} and {k}"
        for a in found:
            a += 1.0
            kept.append((a, a.copy()))
        np.testing.assert_array_equal(x.data, before)
        for a, copied in kept:
            np.testing.assert_array_equal(a, copied)


def test_an_argument_in_the_memory_of_what_is_overwritten() -> None:
    """Captured so, the program runs on that very memory, in the order of the step."""
    memory = np.arange(8, dtype=np.float32)
    w, x = Tensor(np.float32(0.0)), Tensor(np.float32(0.0))
    w.data, x.data = memory[:6], memory[2:]

    def f(x: Tensor) -> list[Tensor]:
        before = x * 1.0
        w.copy_(w * 2.0)
        return [before, x + 0.0, x.T * 3.0]

    with pytest.raises(CompileError, match="several views"):
        Captured(f, [x], "native")
    program = Captured(f, [x], "numpy")
    np.testing.assert_array_equal(memory, np.arange(8))
    for _ in range(3):
        start = memory.copy()
        wanted = [t.data.copy() for t in f(x)]
        after = memory.copy()
        memory[...] = start
        for a, b in zip(program(x), wanted, strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(memory, after)


# --- order ----------------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.parametrize("n", [5, 300])
def test_labels_are_looked_at_before_anything_is_overwritten(n: int) -> None:
    """The updates are of the shapes of nests that begin earlier, and must not join these."""
    outside = [Tensor(np.ones(s, np.float32)) for s in ((n, 4), (n,), (7,), ())]

    def f(x: Tensor, y: Tensor, labels: Tensor) -> Tensor:
        flat, logits = y * 3.0, x * 2.0
        sums = logits.sum(axis=1)
        loss = tg.nn.functional.cross_entropy(logits, labels)
        for t, new in zip(outside, [logits + 1.0, sums, flat + 1.0, flat.sum()]):
            t.copy_(new)
        return loss

    def given(label: int) -> list[Tensor]:
        labels = np.zeros(n, np.int64)
        labels[-1] = label
        numbers = [Tensor(np.full(s, 3.0, np.float32)) for s in ((n, 4), (7,))]
        return [*numbers, Tensor(labels)]

    program = Captured(f, given(0), "native")
    for bad in (4, -1, 1 << 40):
        with pytest.raises(IndexError, match=f"label number {n - 1} is {bad}"):
            program(*given(bad))
        for t in outside:
            assert (t.data == 1.0).all()
    program(*given(3))
    for t, number in zip(outside, (7.0, 24.0, 10.0, 63.0), strict=True):
        assert (t.data == number).all()


@needs_compiler
def test_bits_do_not_depend_on_threads(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    x, w = (Tensor(rng.standard_normal(s).astype(np.float32)) for s in ((700, 300), (300, 260)))

    def f(x: Tensor, w: Tensor) -> list[Tensor]:
        y = tg.tanh(x @ w)
        z = tg.softmax(y, axis=1)
        return [y, z, z.sum(axis=0), (z * z).sum(), x.max(axis=0), tg.exp(x).mean(), w.sum(axis=1)]

    found = []
    for count in (1, 2, 3, 7):
        monkeypatch.setenv("TENSORGRAD_THREADS", str(count))
        program = Captured(f, [x, w])
        assert program.executor.threads == count
        found.append([a.tobytes() for a in program(x, w)])
    assert found[1:] == found[:1] * 3


# --- steps ----------------------------------------------------------------------------------------


UPDATES: list[tuple[Any, dict[str, Any]]] = [
    (optim.SGD, {"lr": 0.1}),
    (optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    (optim.SGD, {"lr": 0.1, "momentum": 0.9, "maximize": True}),
    (optim.Adam, {"lr": 0.1, "weight_decay": 0.1}),
    (optim.Adam, {"lr": 0.1, "amsgrad": True}),
    (optim.AdamW, {"lr": 0.1}),
    (optim.LAMB, {"lr": 0.1, "weight_decay": 0.1}),
]


@needs_compiler
@DTYPES
def test_updates_by_any_gradient(dtype: Any) -> None:
    """Each optimizer that has a loop form, three steps, by gradients that hold special numbers."""
    numbers = np.array(SPECIAL[dtype], dtype)
    gradients = [Tensor(np.roll(numbers, k)) for k in range(3)]
    for kind, options in UPDATES:
        both = [Tensor(np.linspace(-2.0, 2.0, len(numbers), dtype=dtype)) for _ in range(2)]
        optimizers = [kind([w.requires_grad_()], **options) for w in both]

        def step(g: Tensor, w: Tensor, optimizer: Any) -> None:
            w.grad = None
            w.backward(g)
            optimizer.step()

        (w, reference), (mine, theirs) = both, optimizers
        program = Captured(partial(step, w=w, optimizer=mine), [Tensor(np.ones_like(numbers))])
        calls = [u for u in program.executor.schedule.units if type(u) is Single]
        assert not calls, f"{kind.__name__} has no loop form"
        for g in gradients:
            program(g)
            step(g, reference, theirs)
            about = f"{kind.__name__} {options}"
            assert_alike(w.data, reference.data, about, *ROUNDING[dtype])


@pytest.mark.parametrize("dtype", [tg.float16, tg.bfloat16], ids=str)
@EVERY_EXECUTOR
def test_training_in_16_bits(dtype: Any, executor: str) -> None:
    """Every optimizer: the bits of eager mode where they are its calls, else all but a few."""
    kinds = [
        kind
        for kind in vars(optim).values()
        if isinstance(kind, type) and issubclass(kind, optim.Optimizer)
    ]
    kinds.remove(optim.Optimizer)
    kinds.remove(optim.SparseAdam)  # which takes the rows of a table
    assert len(kinds) > 10

    def trained(kind: Any, compiled: bool) -> list[Any]:
        tg.manual_seed(0)
        layers = [nn.Linear(5, 8, bias=False), nn.ReLU(), nn.Linear(8, 3, bias=False)]
        if kind is not optim.Muon:
            layers.insert(1, nn.LayerNorm(8))
        model = nn.Sequential(*layers).to(dtype)
        optimizer = kind(model.parameters(), lr=0.01)

        def step(x: Tensor, labels: Tensor) -> Tensor:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), labels)
            loss.backward()
            optimizer.step()
            return loss.detach()

        run: Any = step
        rng = np.random.default_rng(0)
        seen = []
        for k in range(4):
            given = [
                Tensor(rng.standard_normal((6, 5)), dtype=dtype),
                Tensor(rng.integers(0, 3, 6)),
            ]
            if compiled and not k:
                run = Captured(step, given, executor)
            found = run(*given)
            seen.append(np.asarray(found[0] if compiled else found.data))
        return [*seen, *[p.data for p in model.parameters()]]

    near = 4 * {tg.float16: 2.0**-10, tg.bfloat16: 2.0**-7}[dtype]
    for kind in kinds:
        found, wanted = trained(kind, True), trained(kind, False)
        assert [a.dtype for a in found] == [b.dtype for b in wanted]
        x, y = (np.concatenate([a.ravel() for a in ends]) for ends in (found, wanted))
        if executor == "numpy":
            assert x.tobytes() == y.tobytes(), kind.__name__
        assert np.mean(x != y) < 0.1, kind.__name__
        np.testing.assert_allclose(
            x.astype(np.float64), y.astype(np.float64), near, near, err_msg=kind.__name__
        )


# --- memory seen through several views ------------------------------------------------------------


def test_views_of_what_lies_outside_are_overwritten() -> None:
    """Capture, check and replay each do it once; and what is made inside begins anew here too."""
    both = [Tensor(np.arange(6, dtype=np.float32)) for _ in range(2)]

    def step(x: Tensor, w: Tensor) -> list[Tensor]:
        z, part = tg.zeros(4), w[2:]
        ends = z[1:3]
        part += x
        ends += x[:2]
        return [z * 1.0, part * 2.0, x * 1.0]

    compiled = tg.compile(lambda x: step(x, both[0]))
    for k in range(9):
        numbers = np.arange(4, dtype=np.float32) + k
        found, wanted = compiled(Tensor(numbers)), step(Tensor(numbers), both[1])
        for a, b in zip([*found, both[0]], [*wanted, both[1]], strict=True):
            np.testing.assert_array_equal(a.data, b.data, err_msg=f"call {k + 1}")
    assert compiled.captures == 1
    assert not compiled.reasons


def test_a_view_of_an_argument_is_overwritten() -> None:
    def step(x: Tensor) -> Tensor:
        part = x[1:]
        part *= 2.0
        return part + 1.0

    compiled = tg.compile(step)
    for k in range(9):
        x, y = (Tensor(np.arange(5, dtype=np.float32) + k) for _ in range(2))
        np.testing.assert_array_equal(compiled(x).data, step(y).data)
        np.testing.assert_array_equal(x.data, y.data, err_msg=f"call {k + 1}")
    assert compiled.captures == 1


def test_a_view_shows_what_is_written_later() -> None:
    w = Tensor(np.arange(6, dtype=np.float32).reshape(2, 3))

    def step(x: Tensor) -> list[Tensor]:
        across, flat = w.T, w.reshape(-1)
        w.copy_(w * 0.5 + x)
        return [across * 1.0, flat * 2.0]

    x = Tensor(np.ones((2, 3), np.float32))
    with pytest.raises(CompileError, match="several views"):
        Captured(step, [x], "native")
    compiled = tg.compile(step)
    for _ in range(5):
        found = compiled(x)
        np.testing.assert_array_equal(found[0].data, w.data.T)
        np.testing.assert_array_equal(found[1].data, w.data.reshape(-1) * 2.0)


def test_what_was_computed_from_an_argument_stays_when_it_is_overwritten() -> None:
    """A product with one is no copy in the program where nobody could see the difference."""

    def step(x: Tensor) -> list[Tensor]:
        y = x * tg.ones(())
        z = tg.sum(tg.ones((1,)) * x, axis=0, keepdims=True)
        x.copy_(x + 1.0)
        return [y + 0.0, z * y]

    program = Captured(step, [Tensor(np.ones(3, np.float32))], "numpy")
    for k in range(3):
        x, reference = (Tensor(np.arange(3, dtype=np.float32) + k) for _ in range(2))
        for a, t in zip(program(x), step(reference), strict=True):
            np.testing.assert_array_equal(a, t.data)
        np.testing.assert_array_equal(x.data, reference.data)


def test_an_argument_that_is_given_other_data_is_refused() -> None:
    """Eager mode leaves the argument another array, which a replay would not."""
    w = Tensor(np.ones(3), requires_grad=True)

    def f(x: Tensor) -> Tensor:
        x[0] = (w * w).sum()
        return x * 2.0

    with pytest.raises(CompileError, match="was given other data"):
        Captured(f, [Tensor(np.ones(3))], "numpy")
