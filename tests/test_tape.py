"""The tape and the backward pass: memory, depth, what is saved and detected, who owns gradients."""

from __future__ import annotations

import asyncio
import gc
import operator
import sys
import threading
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from sampler import Array, host

import tensorgrad as tg
from tensorgrad import Tensor, autograd
from tensorgrad.errors import GradientError, ShapeError
from tensorgrad.observers import current_mode
from tensorgrad.tape import Node
from tensorgrad.versions import VERSIONS


def leaf(values: Any, dtype: Any = np.float64, device: str = "cpu") -> Tensor:
    return Tensor(values, dtype=dtype, device=device, requires_grad=True)


def gradient(x: Tensor) -> Array:
    """The gradient of ``x``, which must be there."""
    assert x.grad is not None
    return host(x.grad)


@pytest.fixture
def without_collector() -> Iterator[None]:
    """Nothing may be left for the garbage collector: it is off, and must find nothing after."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def live_nodes() -> int:
    return sum(issubclass(type(o), Node) for o in gc.get_objects())


# --- memory ---------------------------------------------------------------------------------------


def test_forward_passes_alone_leave_nothing(without_collector: None) -> None:
    w = leaf(np.ones((10, 10)))
    x = Tensor(np.ones((4, 10)))

    def forward() -> None:
        tg.sum(tg.tanh(x @ w) * 2 + w[0])

    for _ in range(100):
        forward()
    before_nodes = live_nodes()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(10_000):
            forward()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 20_000
    assert live_nodes() == before_nodes


def test_backward_passes_leave_nothing(without_collector: None) -> None:
    w = leaf(np.ones((10, 10)))
    x = Tensor(np.ones((4, 10)))

    def step() -> None:
        loss = tg.sum(tg.sigmoid(x @ w))
        loss.backward()
        w.grad = None
        (g,) = tg.autograd.grad(tg.sum(tg.exp(x @ w)), w, create_graph=True)
        tg.sum(g * g).backward()
        w.grad = None

    step()
    before = live_nodes()
    for _ in range(200):
        step()
    assert live_nodes() == before
    assert gc.collect() == 0


def test_backward_frees_what_was_saved() -> None:
    x = leaf(np.ones(5))
    y = tg.exp(x)
    saved = weakref.ref(y.data)
    z = tg.sum(y)
    del y
    assert saved() is not None
    z.backward()
    assert saved() is None


def test_an_error_in_the_middle_leaves_the_graph_usable() -> None:
    x = leaf([1.0, 2.0])
    y = x * x

    def refuse(g: Tensor) -> None:
        raise RuntimeError("no")

    remove = y.register_hook(refuse)
    z = tg.sum(y)
    with pytest.raises(RuntimeError, match="no"):
        z.backward(retain_graph=True)
    remove()
    assert x.grad is None
    z.backward()
    assert gradient(x).tolist() == [2, 4]


# --- depth ----------------------------------------------------------------------------------------


def test_a_long_chain_is_not_a_deep_recursion() -> None:
    x = leaf([1.0])
    y = x
    for _ in range(100_000):
        y = y + 1.0
    y.backward()
    assert gradient(x).tolist() == [1]
    del y


def test_a_long_chain_is_freed_without_recursion() -> None:
    limit = sys.getrecursionlimit()
    y = leaf([1.0])
    for _ in range(100_000):
        y = y * 1.0
    last = weakref.ref(y)
    sys.setrecursionlimit(200)
    try:
        del y
    finally:
        sys.setrecursionlimit(limit)
    assert last() is None


def test_a_long_chain_of_second_gradients() -> None:
    x = leaf([0.5])
    y = x
    for _ in range(2_000):
        y = y * 1.0
    y = y * y * y
    (g,) = tg.autograd.grad(y, x, create_graph=True)
    (h,) = tg.autograd.grad(g, x)
    assert g.item() == pytest.approx(0.75)
    assert h.item() == pytest.approx(3.0)


def test_a_million_entries() -> None:
    x = leaf([1.0])
    y = x
    for _ in range(500_000):
        y = (y + 1.0) - 1.0
    y.backward()
    assert gradient(x).tolist() == [1]


def test_each_entry_is_visited_once() -> None:
    """Fan-out doubles the number of paths at each step, and adds one entry."""
    x = leaf([1.0])
    y = x
    visits: list[int] = []

    def note(number: int, g: Tensor) -> None:
        visits.append(number)

    for i in range(60):
        y = y + y
        y.register_hook(partial(note, i))
    y.backward()
    assert gradient(x).tolist() == [2.0**60]
    assert visits == list(range(59, -1, -1))


# --- what is saved --------------------------------------------------------------------------------

# the operation on (x, c), and which of x, c and the output it must keep for the gradient of x
SAVES: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], str]] = {
    "add": (lambda x, c: x + c, ""),
    "subtract": (lambda x, c: c - x, ""),
    "negative": (lambda x, c: -x, ""),
    "multiply by a constant": (lambda x, c: x * c, "c"),
    "multiply by a number": (lambda x, c: x * 3.0, ""),
    "divide by a constant": (lambda x, c: x / c, "c"),
    "sigmoid": (lambda x, c: tg.sigmoid(x), "y"),
    "tanh": (lambda x, c: tg.tanh(x), "y"),
    "exp": (lambda x, c: tg.exp(x), "y"),
    "sqrt": (lambda x, c: tg.sqrt(x), "y"),
    "relu": (lambda x, c: tg.relu(x), "y"),
    "softmax": (lambda x, c: tg.softmax(x, axis=0), "y"),
    "log": (lambda x, c: tg.log(x), "x"),
    "sin": (lambda x, c: tg.sin(x), "x"),
    "sum": (lambda x, c: tg.sum(x), ""),
    "mean": (lambda x, c: tg.mean(x), ""),
    "matmul with a constant": (lambda x, c: x @ c, "c"),
    "index": (lambda x, c: x[::-1] + 0.0, ""),
    "reshape": (lambda x, c: tg.reshape(x, (3, 1)) + 0.0, ""),
    "stack": (lambda x, c: tg.stack([x, c]), ""),
    "convert": (lambda x, c: x.astype(np.float32), ""),
}


@pytest.mark.parametrize("case", SAVES)
def test_exactly_what_a_rule_names_is_saved(case: str) -> None:
    function, expected = SAVES[case]
    start = leaf([0.5, 1.0, 2.0])
    x = start + 0.0  # an intermediate value, held by nobody else
    c = Tensor([1.0, 2.0, 4.0], dtype=np.float64)
    y = function(x, c)
    arrays = {"x": weakref.ref(x.data), "c": weakref.ref(c.data), "y": weakref.ref(y.data)}
    node = y.node
    assert node is not None
    del x, c, y
    kept = {name for name, array in arrays.items() if array() is not None}
    assert kept == set(expected)


def test_both_factors_are_saved_where_both_need_gradients() -> None:
    a, b = leaf([1.0, 2.0]) + 0.0, leaf([3.0, 4.0]) + 0.0
    y = a * b
    held = weakref.ref(a.data), weakref.ref(b.data)
    del a, b
    assert all(r() is not None for r in held)
    assert y.requires_grad


def test_nothing_is_recorded_without_need() -> None:
    a, b = Tensor([1.0, 2.0]), Tensor([3.0, 4.0])
    assert (tg.exp(a * b)).node is None
    x = leaf([1.0, 2.0])
    assert (x > 1).node is None
    with tg.no_grad():
        for y in (x * 2, tg.exp(x), tg.sum(x), x @ x, tg.softmax(x), tg.stack([x, x]), x[0]):
            assert y.node is None
    assert (x.detach() * 2).node is None


# --- order and repeatability ----------------------------------------------------------------------


def test_gradients_are_bit_identical_between_runs(rng: np.random.Generator) -> None:
    values = rng.normal(size=(50, 50))

    def run() -> list[bytes]:
        w = leaf(values, np.float32)
        h = tg.tanh(w @ w)
        parts = [tg.sum(tg.sin(h * float(k)) * w[k % 50]) for k in range(30)]
        total = parts[0]
        for p in parts[1:]:
            total = total + p
        total.backward()
        return [gradient(w).tobytes(), host(total).tobytes()]

    first = run()
    assert all(run() == first for _ in range(5))


def test_contributions_are_added_latest_first() -> None:
    """The order is that of descending tape position, which shows in rounding."""
    x = leaf([1.0])
    parts = [x * 1e16, x * 1.0, x * -1e16]
    (parts[0] + parts[1] + parts[2]).backward()
    assert gradient(x).tolist() == [(-1e16 + 1.0) + 1e16]


# --- using a graph up -----------------------------------------------------------------------------


def test_second_backward_says_what_to_do() -> None:
    x = leaf([1.0, 2.0])
    y = tg.sum(tg.exp(x))
    y.backward()
    with pytest.raises(GradientError, match=r"second time.*retain_graph=True"):
        y.backward()
    assert gradient(x) == pytest.approx(np.exp([1, 2]))


def test_second_backward_through_a_shared_part() -> None:
    x = leaf([1.0, 2.0])
    shared = tg.exp(x)
    tg.sum(shared).backward()
    with pytest.raises(GradientError, match=r"exp.*retain_graph"):
        tg.sum(shared * 2).backward()


def test_grad_through_a_freed_part() -> None:
    """It must not pass for a part that leads nowhere."""
    x = leaf([1.0, 2.0])
    shared = tg.exp(x)
    tg.sum(shared).backward()
    with pytest.raises(GradientError, match=r"exp.*retain_graph"):
        tg.autograd.grad(tg.sum(shared * 2), x)


def test_retained_graph_gives_the_same_again() -> None:
    x = leaf([1.0, 2.0])
    y = tg.sum(tg.exp(x) * x)
    y.backward(retain_graph=True)
    first = gradient(x).copy()
    y.backward()
    np.testing.assert_array_equal(gradient(x), 2 * first)


def test_gradients_of_interior_values_are_not_counted_twice() -> None:
    """A second backward pass must not start from what the first one left behind."""
    x = leaf([6.0])
    y = x * x
    z = y * y
    z.backward(retain_graph=True)
    x.grad = None
    z.backward()
    assert gradient(x).tolist() == [4 * 6.0**3]


def test_nothing_recorded() -> None:
    with pytest.raises(GradientError, match="requires_grad=True"):
        Tensor([1.0]).backward()
    x = leaf([1.0])
    with tg.no_grad():
        y = x * 2
    with pytest.raises(GradientError, match="no_grad"):
        y.backward()


def test_seed_is_needed_and_checked() -> None:
    x = leaf([1.0, 2.0])
    y = x * x
    with pytest.raises(GradientError, match=r"\(2,\).*ones_like"):
        y.backward(retain_graph=True)
    with pytest.raises(ShapeError, match=r"\(2,\).*\(3,\)"):
        y.backward(Tensor([1.0, 2.0, 3.0]))
    y.backward(np.array([1.0, 10.0]))
    assert gradient(x).tolist() == [2, 40]


# --- overwritten values ---------------------------------------------------------------------------


def assign(x: Tensor) -> None:
    x[...] = 7.0


def assign_element(x: Tensor) -> None:
    x[0] = 7.0


def add_in_place(x: Tensor) -> None:
    x += 1.0


def scale_in_place(x: Tensor) -> None:
    x *= 0.5


def copy_into(x: Tensor) -> None:
    x.copy_(Tensor([7.0, 7.0], dtype=x.dtype))


def through_a_view(x: Tensor) -> None:
    x.detach()[0:1][...] = 7.0


def through_a_view_of_a_view(x: Tensor) -> None:
    tg.reshape(x.detach(), (1, 2))[0].copy_(Tensor([7.0, 7.0], dtype=x.dtype))


CHANGES = [
    assign,
    assign_element,
    add_in_place,
    scale_in_place,
    copy_into,
    through_a_view,
    through_a_view_of_a_view,
]
EVERY_CHANGE = pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)


@EVERY_CHANGE
def test_overwritten_input_is_detected(change: Callable[[Tensor], None], device: str) -> None:
    x = leaf([1.0, 2.0], device=device)
    y = tg.sum(tg.log(x))
    with tg.no_grad():
        change(x)
    with pytest.raises(GradientError, match=r"log.*its input 'x'.*\(2,\).*overwritten.*clone"):
        y.backward()
    assert x.grad is None


@EVERY_CHANGE
def test_overwritten_output_is_detected(change: Callable[[Tensor], None], device: str) -> None:
    x = leaf([1.0, 2.0], device=device)
    y = tg.exp(x)
    z = tg.sum(y)
    with tg.no_grad():
        change(y)
    with pytest.raises(GradientError, match=r"exp.*its output"):
        z.backward()


@EVERY_CHANGE
def test_overwritten_constant_is_detected(change: Callable[[Tensor], None], device: str) -> None:
    x = leaf([1.0, 2.0], device=device)
    c = Tensor([3.0, 4.0], dtype=np.float64, device=device)
    y = tg.sum(x * c)
    change(c)
    with pytest.raises(GradientError, match=r"multiply.*x2"):
        y.backward()


@EVERY_CHANGE
def test_overwritten_before_use_is_no_alarm(change: Callable[[Tensor], None], device: str) -> None:
    x = leaf([1.0, 2.0], device=device)
    with tg.no_grad():
        change(x)
    now = host(x).copy()
    tg.sum(tg.log(x)).backward()
    np.testing.assert_allclose(gradient(x), 1 / now)


@EVERY_CHANGE
def test_overwritten_before_use_and_another_after_is_no_alarm(
    change: Callable[[Tensor], None], device: str
) -> None:
    x, other = leaf([1.0, 2.0], device=device), Tensor([1.0, 2.0], device=device)
    with tg.no_grad():
        change(x)
    y = tg.sum(tg.log(x))
    change(other)
    y.backward()
    np.testing.assert_allclose(gradient(x), 1 / host(x))


@EVERY_CHANGE
def test_computing_again_after_overwriting_is_no_alarm(
    change: Callable[[Tensor], None], device: str
) -> None:
    x = leaf([1.0, 2.0], device=device)
    tg.sum(tg.log(x))  # abandoned
    with tg.no_grad():
        change(x)
    y = tg.sum(tg.log(x))
    y.backward()
    np.testing.assert_allclose(gradient(x), 1 / host(x))


def test_overwriting_what_was_not_saved_is_no_alarm(device: str) -> None:
    x = leaf([1.0, 2.0], device=device)
    a = x + 1.0
    y = tg.sum(a + a)
    with tg.no_grad():
        a[...] = 0.0
        x[...] = 0.0
    y.backward()
    assert gradient(x).tolist() == [2, 2]


def test_overwriting_another_tensor_is_no_alarm() -> None:
    x = leaf([1.0, 2.0])
    y = tg.sum(tg.log(x))
    other = x.detach().clone()
    other[...] = 0.0
    y.backward()
    assert gradient(x).tolist() == [1, 0.5]


def test_memory_used_again_is_no_alarm() -> None:
    """Python gives a new array the id of a dead one; that must not look like overwriting."""
    x = leaf(np.ones(8))
    for _ in range(200):
        scratch = Tensor(np.ones(8))
        scratch[...] = 2.0
        del scratch
        fresh = Tensor(np.full(8, 3.0))
        tg.sum(x * fresh).backward()
    assert gradient(x).tolist() == [600.0] * 8


def test_marks_of_dead_memory_are_forgotten() -> None:
    gc.collect()
    before = len(VERSIONS)
    for _ in range(100):
        scratch = Tensor(np.ones(8))
        scratch[...] = 2.0
    del scratch
    assert len(VERSIONS) == before


def test_training_steps_raise_no_alarm(rng: np.random.Generator) -> None:
    """The update of an optimizer overwrites what the last graph saved, and that is right."""
    w = leaf(rng.normal(size=(3, 2)))
    x = Tensor(rng.normal(size=(5, 3)))
    for _ in range(5):
        loss = tg.sum(tg.tanh(x @ w) ** 2)
        w.grad = None
        loss.backward()
        assert w.grad is not None
        with tg.no_grad():
            w -= 0.1 * w.grad


def test_update_between_forward_and_backward_is_detected(rng: np.random.Generator) -> None:
    a = leaf(rng.normal(size=(3, 3)))
    h = tg.exp(leaf(rng.normal(size=(2, 3))))
    loss = tg.sum(h @ a)
    with tg.no_grad():
        a -= 0.1
    with pytest.raises(GradientError, match="matmul"):
        loss.backward()


def test_overwriting_is_detected_in_second_gradients() -> None:
    x = leaf([1.0, 2.0])
    (g,) = tg.autograd.grad(tg.sum(x * x * x), x, create_graph=True)
    with tg.no_grad():
        x += 1.0
    with pytest.raises(GradientError, match="overwritten"):
        tg.sum(g).backward()


INDEXING: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "getitem": lambda x, i: x[i],
    "index_put": lambda x, i: tg.index_put(x, i, tg.sum(x)),
    "take": lambda x, i: tg.take(x, i, axis=0),
    "gather": lambda x, i: tg.gather(x, i, 0),
    "take_along_axis": lambda x, i: tg.take_along_axis(x, i, axis=0),
    "scatter_add": lambda x, i: tg.scatter_add(x, i, x[:2], 0),
}


@pytest.mark.parametrize("function", INDEXING)
def test_overwritten_index_is_detected(function: str) -> None:
    """Or a copy of the index was saved, and the gradient is right."""
    f = INDEXING[function]
    x = leaf([1.0, 2.0, 3.0])
    tg.sum(f(x, Tensor([0, 2])) * 2).backward()
    wanted = gradient(x)
    x.grad = None
    index = Tensor([0, 2])
    y = tg.sum(f(x, index) * 2)
    index[...] = 1
    try:
        y.backward()
    except GradientError as error:
        assert "overwritten" in str(error)  # noqa: PT017
    else:
        np.testing.assert_array_equal(gradient(x), wanted)


# --- hooks and kept gradients ---------------------------------------------------------------------


def test_retain_grad_keeps_the_gradient_of_a_computed_tensor() -> None:
    x = leaf([1.0, 2.0])
    y = (x * 2).retain_grad()
    z = tg.sum(y * y)
    assert y.grad is None
    z.backward()
    assert gradient(y).tolist() == [4, 8]
    assert gradient(x).tolist() == [8, 16]
    assert not np.shares_memory(gradient(y), gradient(x))


def test_gradients_of_computed_tensors_are_not_kept_unasked() -> None:
    x = leaf([1.0, 2.0])
    y = x * 2
    tg.sum(y * y).backward()
    assert y.grad is None


def test_hooks_see_and_replace_gradients() -> None:
    x = leaf([1.0, 2.0])
    seen: list[list[float]] = []
    y = x * 2
    y.register_hook(lambda g: seen.append(host(g).tolist()))
    y.register_hook(lambda g: g * 10)
    remove = x.register_hook(lambda g: g + 1)
    tg.sum(y).backward(retain_graph=True)
    assert seen == [[1, 1]]
    assert gradient(x).tolist() == [21, 21]
    x.grad = None
    remove()
    remove()  # a second time does nothing
    tg.sum(y).backward()
    assert gradient(x).tolist() == [20, 20]


def test_hook_of_a_shared_value_sees_the_whole_gradient() -> None:
    x = leaf([1.0])
    y = x * 1.0
    seen: list[float] = []
    y.register_hook(lambda g: seen.append(g.item()))
    (y * 2 + y * 3 + y * 4).backward()
    assert seen == [9]


def test_hook_must_keep_the_shape() -> None:
    x = leaf([1.0, 2.0])
    y = x * 2
    y.register_hook(lambda g: tg.sum(g))
    with pytest.raises(ShapeError, match=r"hook.*\(2,\).*\(\)"):
        tg.sum(y).backward()


def test_hook_keeps_the_dtype() -> None:
    x = leaf([1.0, 2.0], np.float32)
    y = x * 2
    y.register_hook(lambda g: g.double())
    try:
        tg.sum(y * y).backward()
    except TypeError:
        return
    assert x.grad is not None
    assert x.grad.dtype == np.float32


def test_what_a_leaf_hook_kept_is_its_own() -> None:
    x = leaf([1.0, 2.0])
    kept: list[Tensor] = []
    x.register_hook(lambda g: kept.append(g))
    tg.sum(x * 3).backward()
    assert x.grad is not None
    with tg.no_grad():
        x.grad *= 10.0
    assert kept[0].tolist() == [3, 3]


def test_kept_gradients_are_writable() -> None:
    for create_graph in (False, True):
        x = leaf([1.0, 2.0])
        y = (x * 1.0).retain_grad()
        tg.sum(y).backward(create_graph=create_graph)
        assert gradient(y).flags.writeable
        assert not np.shares_memory(gradient(y), gradient(x))


def test_what_a_hook_kept_does_not_change() -> None:
    x = leaf([1.0, 2.0])
    kept: list[Tensor] = []
    y = x * 2
    y.register_hook(lambda g: kept.append(g))
    tg.sum(y + y).backward(retain_graph=True)
    tg.sum(y + y).backward()
    assert [host(g).tolist() for g in kept] == [[2, 2], [2, 2]]
    assert gradient(x).tolist() == [8, 8]


# --- accumulation and aliasing --------------------------------------------------------------------


def test_gradients_accumulate_into_fresh_memory() -> None:
    x = leaf([1.0, 2.0])
    tg.sum(x * x).backward()
    first = x.grad
    assert first is not None
    tg.sum(x * 3).backward()
    assert gradient(x).tolist() == [5, 7]
    assert host(first).tolist() == [2, 4], "somebody may hold the old gradient"


def test_taking_part_in_a_computation_leaves_the_gradient_alone() -> None:
    x = leaf([1.0, 2.0])
    tg.sum(x * x).backward()
    kept = x.grad
    tg.exp(x) * 2
    assert x.grad is kept


@pytest.mark.parametrize("create_graph", [False, True])
def test_leaves_do_not_share_gradients(create_graph: bool) -> None:
    x, y = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    tg.sum(x + y).backward(create_graph=create_graph)
    assert not np.shares_memory(gradient(x), gradient(y))
    assert gradient(x).flags.writeable
    assert gradient(y).flags.writeable


@pytest.mark.parametrize("create_graph", [False, True])
def test_seed_is_not_aliased(create_graph: bool) -> None:
    for function in (lambda x: x, lambda x: x + 0.0, lambda x: tg.reshape(x, (2, 1))):
        x = leaf([1.0, 2.0])
        y = function(x)
        seed = Tensor(np.ones(y.shape))
        y.backward(seed, create_graph=create_graph)
        assert not np.shares_memory(gradient(x), seed.data)
        seed[...] = 9.0
        assert gradient(x).tolist() == [1, 1]


def test_gradient_does_not_alias_values() -> None:
    x, c = leaf([1.0, 2.0]), Tensor([3.0, 4.0], dtype=np.float64)
    y = leaf(1.0)
    (y * tg.sum(x * c)).backward()
    assert not np.shares_memory(gradient(x), c.data)
    (y * x[0]).backward()
    assert not np.shares_memory(gradient(y), x.data)


def test_results_of_grad_are_the_callers_own() -> None:
    x, y = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    z = x + y
    seed = Tensor([1.0, 1.0], dtype=np.float64)
    grads = tg.autograd.grad(z, [x, y, z], seed, retain_graph=True)
    arrays = [host(g) for g in grads] + [seed.data]
    for i, a in enumerate(arrays):
        assert a.flags.writeable
        assert not any(np.shares_memory(a, b) for b in arrays[:i])
    assert x.grad is None
    (g,) = tg.autograd.grad(tg.sum(z) * 2, z)
    assert host(g).flags.writeable
    assert host(g).strides == (8,)


def test_one_tensor_used_twice_by_one_operation() -> None:
    x = leaf([2.0, 3.0])
    cases: list[tuple[Callable[[], Tensor], list[float]]] = [
        (lambda: x * x, [4, 6]),
        (lambda: x + x, [2, 2]),
        (lambda: x - x, [0, 0]),
        (lambda: x / x, [0, 0]),
        (lambda: tg.maximum(x, x), [1, 1]),
        (lambda: tg.concat([x, x, x]), [3, 3]),
        (lambda: tg.where(x > 2.5, x, x), [1, 1]),
        (lambda: tg.einsum("i,i,i->i", x, x, x), [12, 27]),
    ]
    for f, wanted in cases:
        x.grad = None
        tg.sum(f()).backward()
        assert gradient(x).tolist() == wanted


# --- modes ----------------------------------------------------------------------------------------


def test_detached_values_are_constants() -> None:
    x = leaf([2.0])
    (x.detach() * x).backward()
    assert gradient(x).tolist() == [2]
    assert np.shares_memory(x.detach().data, x.data)


def test_modes_nest() -> None:
    x = leaf([2.0])
    assert tg.is_grad_enabled()
    with tg.no_grad():
        assert not (x * 1).requires_grad
        with tg.enable_grad():
            assert (x * 1).requires_grad
            with tg.no_grad():
                assert not (x * 1).requires_grad
            assert (x * 1).requires_grad
        assert not (x * 1).requires_grad
    assert (x * 1).requires_grad


def test_create_graph_inside_no_grad() -> None:
    """It is an explicit request to record."""
    x = leaf(2.0)
    y = x * x * x
    with tg.no_grad():
        (g,) = tg.autograd.grad(y, x, create_graph=True)
    (h,) = tg.autograd.grad(g, x)
    assert h.item() == 12


def test_modes_end_with_an_error() -> None:
    with pytest.raises(KeyError), tg.no_grad():
        raise KeyError
    assert tg.is_grad_enabled()


def test_no_grad_as_decorator() -> None:
    @tg.no_grad()  # type: ignore[no-untyped-call,unused-ignore]
    def twice(x: Tensor) -> Tensor:
        return x * 2

    assert twice.__name__ == "twice"
    x = leaf([1.0])
    assert not twice(x).requires_grad
    assert not twice(x).requires_grad
    assert (x * 1).requires_grad


@pytest.mark.parametrize("mode", [tg.no_grad, autograd.detect_anomaly])
def test_a_mode_as_decorator_of_a_generator(mode: Any) -> None:
    """It holds while the generator runs, and not while its caller does, whatever is done to it."""

    def changed() -> bool:
        return current_mode() != outside

    outside = current_mode()
    seen: list[Any] = []

    @mode()  # type: ignore[untyped-decorator]
    def each(n: int) -> Any:
        """Numbers."""
        for i in range(n):
            try:
                seen.append((changed(), (yield i)))
            except KeyError as error:
                seen.append((changed(), error))
            finally:
                seen.append(changed())
        return "end"

    assert (each.__name__, each.__doc__) == ("each", "Numbers.")
    running = each(3)
    assert next(running) == 0
    assert not changed()
    assert running.send("told") == 1
    assert not changed()
    error = KeyError("thrown")
    assert running.throw(error) == 2
    assert not changed()
    with pytest.raises(StopIteration, match="end"):
        next(running)
    assert seen == [(True, "told"), True, (True, error), True, (True, None), True]
    assert not changed()
    seen.clear()
    running = each(3)
    next(running)
    running.close()
    assert seen == [True]
    with pytest.raises(ValueError, match="unknown"):
        each(3).throw(ValueError("unknown"))
    assert list(each(2)) == [0, 1]
    assert not changed()


def test_no_grad_as_decorator_of_asynchronous_functions() -> None:
    @tg.no_grad()
    async def one() -> bool:
        await asyncio.sleep(0)
        return tg.is_grad_enabled()

    @tg.no_grad()
    async def each() -> Any:
        for _ in range(2):
            await asyncio.sleep(0)
            yield tg.is_grad_enabled()

    async def both() -> list[Any]:
        found: list[Any] = [(await one(), tg.is_grad_enabled())]
        return found + [(inside, tg.is_grad_enabled()) async for inside in each()]

    assert asyncio.run(both()) == [(False, True)] * 3


@pytest.mark.parametrize("what", [type("Some", (), {}), 3])
def test_no_grad_as_decorator_of_what_it_is_not_for(what: Any) -> None:
    with pytest.raises(TypeError, match=r"@no_grad\(\) is for functions and methods"):
        tg.no_grad()(what)


def test_threads_have_modes_of_their_own() -> None:
    x = leaf([2.0])
    inside, done = threading.Event(), threading.Event()
    found: dict[str, bool] = {}

    def without() -> None:
        with tg.no_grad():
            inside.set()
            done.wait(10)
            found["without"] = (x * 1).requires_grad

    thread = threading.Thread(target=without)
    thread.start()
    assert inside.wait(10)
    found["main"] = (x * 1).requires_grad
    done.set()
    thread.join()
    assert found == {"without": False, "main": True}


def test_threads_can_compute_gradients_at_once() -> None:
    results: dict[int, list[float]] = {}

    def work(k: int) -> None:
        x = leaf(np.full(50, float(k)))
        for _ in range(100):
            x.grad = None
            tg.sum(tg.tanh(x) * x).backward()
        results[k] = gradient(x).tolist()

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k in range(4):
        t = np.tanh(k)
        assert results[k] == pytest.approx([t + k * (1 - t * t)] * 50)


# --- dtypes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("second", ["float16", "bfloat16", "float32", "float64"])
def test_each_leaf_gets_a_gradient_of_its_own_dtype(first: str, second: str, device: str) -> None:
    a = leaf([1.0, 2.0], first, device)
    b = leaf([3.0, 4.0], second, device)
    tg.sum(a * b + tg.exp(b) / a).backward()
    assert a.grad is not None
    assert b.grad is not None
    assert a.grad.dtype == a.dtype
    assert b.grad.dtype == b.dtype
    ea, eb = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    wanted = eb - np.exp(eb) / ea**2
    np.testing.assert_allclose(host(a.grad).astype(float), wanted, rtol=0.03)


def test_fan_out_over_dtypes() -> None:
    x = leaf([1.0, 2.0], np.float32)
    (tg.sum(x.astype(np.float64) ** 2) + tg.sum(x.half() * 3) + tg.sum(x)).backward()
    assert x.grad is not None
    assert x.grad.dtype == np.float32
    assert host(x.grad).tolist() == [6, 8]


# --- random graphs --------------------------------------------------------------------------------

UNARY: list[tuple[Callable[[Any], Any], Callable[[Any, Any], Any]]] = [
    (lambda x: tg.sin(x), lambda t, x: x.sin()),
    (lambda x: tg.tanh(x), lambda t, x: x.tanh()),
    (lambda x: tg.sigmoid(x), lambda t, x: x.sigmoid()),
    (lambda x: tg.sum(x, axis=0), lambda t, x: x.sum(0)),
    (lambda x: tg.sum(x, axis=1, keepdims=True), lambda t, x: x.sum(1, keepdim=True)),
    (lambda x: x.T[None, 1], lambda t, x: x.T[None, 1]),
    (lambda x: x[:, [2, 0, 2]], lambda t, x: x[:, [2, 0, 2]]),
    (lambda x: x * 0.5 - 1.0, lambda t, x: x * 0.5 - 1.0),
    (lambda x: tg.softmax(x, axis=1), lambda t, x: x.softmax(1)),
    (lambda x: tg.reshape(x, (9,))[::3], lambda t, x: x.reshape(9)[::3]),
]
BINARY = [operator.add, operator.sub, operator.mul, operator.matmul]


@given(st.data())
def test_random_graphs_against_pytorch(data: st.DataObject) -> None:
    """Graphs of random operations on random earlier values, all 3x3 after broadcasting."""
    torch: Any = pytest.importorskip("torch", reason="compares with PyTorch")
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    starts = [rng.normal(size=(3, 3)) for _ in range(2)]
    ours = [leaf(a) for a in starts]
    theirs = [torch.tensor(a, requires_grad=True) for a in starts]
    mine, other = list(ours), list(theirs)
    for _ in range(data.draw(st.integers(1, 12))):
        i = data.draw(st.integers(0, len(mine) - 1))
        j = data.draw(st.integers(0, len(mine) - 1))
        if data.draw(st.booleans()):
            f, f_torch = data.draw(st.sampled_from(UNARY))
            a, b = f(mine[i]), f_torch(torch, other[i])
        else:
            g = data.draw(st.sampled_from(BINARY))
            a, b = g(mine[i], mine[j]), g(other[i], other[j])
        if a.shape != (3, 3):
            a = tg.broadcast_to(a, (3, 3))
            b = b.expand(3, 3)
        mine.append(a * 0.3)
        other.append(b * 0.3)
    tg.sum(mine[-1] * mine[-2]).backward()
    (other[-1] * other[-2]).sum().backward()
    np.testing.assert_allclose(host(mine[-1]), other[-1].detach().numpy(), rtol=1e-9, atol=1e-12)
    for x, t in zip(ours, theirs, strict=True):
        found = np.zeros((3, 3)) if x.grad is None else host(x.grad)
        wanted = np.zeros((3, 3)) if t.grad is None else t.grad.numpy()
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
@pytest.mark.parametrize("wide", ["float32", "float64"])
def test_gradient_of_a_cast_has_the_dtype_of_its_input(half: str, wide: str) -> None:
    """Of 16 bits too: else the gradients of master weights would be rounded."""
    w = Tensor([1.0, 2.0], dtype=wide, requires_grad=True)
    (w.astype(half) * 3).sum().backward()
    assert w.grad is not None
    assert str(w.grad.dtype) == wide
    assert w.grad.tolist() == [3, 3]
