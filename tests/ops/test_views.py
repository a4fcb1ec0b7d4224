"""A write into a view reaches what it is a view of, and whoever else shows that memory.

Random programs of views, writes and reads run on NumPy arrays, for the values, and on PyTorch's
tensors, for the gradients.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import Tensor
from tensorgrad.errors import CompileError, GradientError
from tensorgrad.ops import views

Program = Callable[[Any, Any], Any]


def given(q: bool = True, t: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """A leaf, a matrix computed from it if ``q`` (else one without history), and a vector."""
    leaf = Tensor(np.arange(12.0).reshape(3, 4), requires_grad=True)
    vector = Tensor(np.arange(4.0) + 10, requires_grad=t)
    return leaf, leaf * 1.0 if q else leaf.detach().clone(), vector


def into_a_row(q: Any, t: Any) -> None:
    q[1][...] = t


def by_out(q: Any, t: Any) -> None:
    np.add(t, 1, out=q[1])


def by_out_and_where(q: Any, t: Any) -> None:
    np.multiply(t, 2, out=q[2], where=np.array([True, False, True, False]))


def added_to_a_row(q: Any, t: Any) -> None:
    q[1] += t


def added_to_a_name(q: Any, t: Any) -> None:
    v = q[1]
    v += t
    v *= 2


def divided(q: Any, t: Any) -> None:
    v = q.T
    v /= t[:, None]


def into_the_transposed(q: Any, t: Any) -> None:
    q.T[...] = t[:, None]


def into_the_reshaped(q: Any, t: Any) -> None:
    v = q.reshape(2, 6)
    v[0] = t[0]


def into_a_view_of_a_view(q: Any, t: Any) -> None:
    q[1:].T[::-1][1:3][...] = t[:2]


def at_numbers(q: Any, t: Any) -> None:
    q[:, 1][np.array([0, 2])] = t[:2]


def ufunc_at(q: Any, t: Any) -> None:
    np.add.at(q[1], np.array([0, 0, 3]), t[:3])


def copied_to(q: Any, t: Any) -> None:
    np.copyto(q[:, ::2], t[:2])


def put(q: Any, t: Any) -> None:
    np.put(q[1], np.array([1, 2]), t[:2])


def from_a_part_of_itself(q: Any, t: Any) -> None:
    q[1:][...] = q[:2] * t


def swapped(q: Any, t: Any) -> None:
    a, b = q[0], q[2]
    q[0], q[2] = b * 1, a * 1
    a += t
    b -= a


def filled(q: Any, t: Any) -> None:
    q[0].fill(3.0)
    q[1][...] = t * q[0]


WRITES = [
    into_a_row, by_out, by_out_and_where, added_to_a_row, added_to_a_name, divided,
    into_the_transposed, into_the_reshaped, into_a_view_of_a_view, at_numbers, ufunc_at, copied_to,
    put, from_a_part_of_itself, swapped, filled,
]  # fmt: skip


@pytest.mark.parametrize("recorded", ["both", "base", "value"])
@pytest.mark.parametrize("write", WRITES, ids=lambda f: f.__name__)
def test_write_reaches_base_and_views(write: Callable[[Any, Any], None], recorded: str) -> None:
    _, q, t = given(recorded != "value", recorded != "base")
    shown = [q[1], q.T, q.reshape(-1), q[:, 1:3], q.reshape(2, 6)[1]]
    write(q, t)
    base, vector = np.arange(12.0).reshape(3, 4), np.arange(4.0) + 10
    write(base, vector)
    assert q.detach().numpy().tolist() == base.tolist()
    for view, wanted in zip(
        shown, [base[1], base.T, base.reshape(-1), base[:, 1:3], base.reshape(2, 6)[1]], strict=True
    ):
        assert view.detach().numpy().tolist() == wanted.tolist()
        assert view.requires_grad
        assert np.shares_memory(view.data, q.data)


@pytest.mark.parametrize("write", WRITES, ids=lambda f: f.__name__)
def test_gradient_of_a_write(write: Callable[[Any, Any], None]) -> None:
    def of(x: Tensor, t: Tensor) -> Tensor:
        q = x * x
        early = (q * 3).sum()
        last = q[2]
        write(q, t)
        return early + (q * q).sum() + (last**3).sum()

    x = Tensor(np.linspace(0.5, 2, 12).reshape(3, 4), requires_grad=True)
    t = Tensor(np.linspace(1, 2, 4), requires_grad=True)
    assert tg.autograd.gradcheck(of, (x, t))
    assert tg.autograd.gradgradcheck(of, (x, t))


def test_parts_of_complex_numbers() -> None:
    z = tg.zeros(3, dtype=np.complex128)
    x = Tensor([1.0, 2.0, 3.0], dtype=np.float64, requires_grad=True)
    z.imag[...] = x
    z.real[1] = x[0] * x[2]
    assert z.detach().numpy().tolist() == [1j, 3 + 2j, 3j]
    tg.sum(tg.abs(z) ** 2).backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), [2 + 18, 4, 6 + 6])


def test_an_integer_tensor_stays_in_its_memory() -> None:
    n, x = tg.zeros((2, 2), dtype=np.int64), Tensor([3.0, 4.0], requires_grad=True)
    n[1][...] = x
    assert n.tolist() == [[0, 0], [3, 4]]
    assert not n.requires_grad


# --- what is refused ------------------------------------------------------------------------------


def test_a_view_of_a_leaf_is_not_overwritten() -> None:
    x, t = Tensor([[1.0, 2.0]], requires_grad=True), Tensor([3.0, 4.0], requires_grad=True)
    row = x[0]
    with pytest.raises(GradientError, match=r"shared with a leaf.*no_grad.*clone"):
        row[...] = t
    with pytest.raises(GradientError, match="shared with a leaf"):
        row += t
    with pytest.raises(GradientError, match="shared with a leaf"):
        x[0] += t
    with tg.no_grad():
        row += t
    assert x.tolist() == [[4, 6]]


def test_a_leaf_that_is_a_view_is_not_overwritten() -> None:
    q, t = tg.zeros(3), Tensor(2.0, requires_grad=True)
    first = q[:1].requires_grad_()
    with pytest.raises(GradientError, match="shared with a leaf"):
        q[1] = t
    assert first.tolist() == [0]
    assert q.tolist() == [0, 0, 0]


def test_a_part_of_what_was_broadcast_is_read_only() -> None:
    _, q, t = given()
    wide = tg.broadcast_to(q[0], (2, 4))
    with pytest.raises(ValueError, match=r"read-only.*clone"):
        wide[0][...] = t
    assert wide[0].detach().tolist() == [0, 1, 2, 3]
    x = q
    for _ in range(300):
        x = x.T
    with pytest.raises(GradientError, match="more than 256"):
        x[0] = t[0]


def test_what_was_broadcast_shows_what_is_written() -> None:
    _, q, t = given()
    wide = tg.broadcast_to(q[0], (2, 4))
    q[0] = t
    assert wide.detach().tolist() == [[10, 11, 12, 13]] * 2
    wide[1] = 0.0  # a value of its own from here on
    assert q[0].detach().tolist() == [10, 11, 12, 13]


# --- who is told ----------------------------------------------------------------------------------


def test_detached_copied_and_saved_values_stay() -> None:
    x, q, t = given()
    detached, copy, part = q.detach(), q.reshape(3, 4, copy=True), q.detach()[1]
    product = q * q
    q[1][...] = t
    assert detached.tolist() == copy.detach().tolist() == np.arange(12.0).reshape(3, 4).tolist()
    assert part.tolist() == [4, 5, 6, 7]
    product.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == (2 * np.arange(12.0).reshape(3, 4)).tolist()


def test_a_view_taken_under_no_grad_is_recorded_when_it_is_written() -> None:
    x, q, _ = given()
    with tg.no_grad():
        row = q[0]
    row[...] = 1.0
    tg.sum(q).backward()
    assert q[0].detach().tolist() == [1] * 4
    assert x.grad is not None
    assert x.grad.tolist() == [[0] * 4, [1] * 4, [1] * 4]


def test_other_memory_ends_being_a_view() -> None:
    _, q, t = given()
    row = q[0]
    row.data = row.data.copy()
    row[...] = t
    assert q[0].detach().tolist() == [0, 1, 2, 3]
    column = q[:, 0]
    q.data = q.data.copy()
    column[...] = t[0]
    assert q[:, 0].detach().tolist() == [0, 4, 8]


def test_base_in_another_order_stays_in_it() -> None:
    x, _, t = given()
    q = x.T * 1.0  # the elements of a column lie side by side
    flat = q.T.reshape(-1)
    q[0] = t[:3]
    with tg.no_grad():
        flat[1] = -1.0
    assert q[1, 0].item() == -1
    assert flat.detach().tolist()[::4] == [10, 11, 12]


def test_views_let_go_of_what_nobody_has() -> None:
    gc.collect()
    q = tg.zeros(1000)
    for k in range(3 * views._SOME):
        q[k : k + 2].reshape(2, 1)
    assert len(views._NEW) <= views._SOME
    kept = [tg.zeros(2)[:1] for _ in range(2 * views._SOME)]
    assert len(views.views_of(q)) == 0
    del kept, q
    for _ in range(8 * views._SOME):
        tg.zeros(2)[:1]
    views._sort()
    assert views._kept[0] <= views._kept[1]
    assert sum(map(len, views._LIVING.values())) == views._kept[0]


# --- random programs ------------------------------------------------------------------------------


class RandomProgram:
    """Views of views of a few bases, writes into all of them, and sums of what is read."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def run(self, base: Any, t: Any, of: Any) -> tuple[Any, list[Any]]:
        """What the program reads, weighted and added up, and all its tensors at the end.

        of: NumPy, PyTorch or tensorgrad; base and t: what it computes with.
        """
        rng = np.random.default_rng(self.seed)
        held = [base * 1.0, of.sin(base)]
        read: Any = 0.0
        for _ in range(rng.integers(4, 14)):
            x = held[rng.integers(len(held))]
            action = rng.integers(8)
            if action < 3:
                held.append(self._view(x, rng))
            elif action < 6:
                k = int(rng.integers(len(held)))
                held[k] = self._written(held[k], x, t, rng)
            elif action == 6:
                read = read + (x * x).sum() * rng.integers(1, 4).item()
            else:
                held.pop(rng.integers(len(held)))
                held = held or [base * 2.0]
        for x in held:
            read = read + (x * x * x).sum()
        return read, held

    def _view(self, x: Any, rng: np.random.Generator) -> Any:
        n = len(x.shape)
        kind = rng.integers(4)
        if kind == 0 and n == 2:
            return x.T
        if kind == 1 and n:
            size = int(np.prod(x.shape))
            wanted = (size,) if n > 1 else (1, size)
            if _lies_in_order(x):
                return x.reshape(wanted)
        if kind == 2 and n and x.shape[0]:
            return x[int(rng.integers(x.shape[0])), ...]
        if n:
            start = int(rng.integers(x.shape[0]))
            return x[start : start + 1 + int(rng.integers(3))]
        return x[...]

    def _written(self, x: Any, other: Any, t: Any, rng: np.random.Generator) -> Any:
        k = int(rng.integers(len(t)))
        value = t[k] * 0.5
        if tuple(other.shape) == tuple(x.shape):
            value = other * t[k]
        kind = rng.integers(4)
        if kind == 0 and len(x.shape):
            x[int(rng.integers(x.shape[0]))] = t[k]
        elif kind == 1:
            x += value
        elif kind == 2:
            x *= 0.5
        else:
            x[...] = value
        return x


def _lies_in_order(x: Any) -> bool:
    if hasattr(x, "is_contiguous"):
        return bool(x.is_contiguous())
    array = x.data if isinstance(x, Tensor) else x
    return bool(array.flags.c_contiguous)


SEEDS = range(60)


def numbers() -> tuple[Any, Any]:
    return np.linspace(0.2, 1.3, 12).reshape(3, 4), np.array([0.3, 0.7, 1.1])


@pytest.mark.parametrize("recorded", [True, False])
def test_random_programs_have_numpys_values(recorded: bool) -> None:
    for seed in SEEDS:
        base, t = numbers()
        wanted, arrays = RandomProgram(seed).run(base, t, np)
        found, tensors = RandomProgram(seed).run(
            Tensor(base, requires_grad=recorded), Tensor(t, requires_grad=recorded), tg
        )
        np.testing.assert_allclose(found.item(), wanted, rtol=1e-12, err_msg=f"{seed}")
        for x, y in zip(tensors, arrays, strict=True):
            np.testing.assert_allclose(x.detach().numpy(), y, rtol=1e-12, err_msg=f"{seed}")


def test_random_programs_have_pytorchs_gradients() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    for seed in SEEDS:
        base, t = numbers()
        leaves = [torch.tensor(x, requires_grad=True) for x in (base, t)]
        try:
            RandomProgram(seed).run(leaves[0], leaves[1], torch)[0].backward()
        except RuntimeError:  # it keeps no copy of what it saved
            continue
        ours = [Tensor(x, requires_grad=True) for x in (base, t)]
        RandomProgram(seed).run(ours[0], ours[1], tg)[0].backward()
        for x, y in zip(ours, leaves, strict=True):
            found = 0 if x.grad is None else x.grad.numpy()
            wanted = 0 if y.grad is None else y.grad.numpy()
            np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-12, err_msg=f"{seed}")


def test_random_programs_have_the_gradients_of_differences() -> None:
    for seed in list(SEEDS)[:25]:
        x, t = (Tensor(a, requires_grad=True) for a in numbers())

        def of(x: Tensor, t: Tensor, seed: int = seed) -> Tensor:
            return RandomProgram(seed).run(x, t, tg)[0] + 0.0 * (x.sum() + t.sum())

        assert tg.autograd.gradcheck(of, (x, t)), seed


# --- programs -------------------------------------------------------------------------------------


def test_compiled_functions_write_through_views() -> None:
    x, t = (Tensor(a, requires_grad=True) for a in numbers())

    def step(scale: Tensor) -> tuple[Any, ...]:
        x.grad = t.grad = None
        q = tg.sin(x) * scale
        row, column = q[1], q.T[2]
        column[...] = t * q[0, :3]
        row += 1.0
        q[0][...] = q[2] * row
        (q * q * row).sum().backward()
        grads = x.grad, t.grad
        x.grad = t.grad = None
        return (q.detach(), *grads)

    program = tg.compile(step)
    for k in range(3):
        for found, wanted in zip(program(Tensor(k + 1.0)), step(Tensor(k + 1.0)), strict=True):
            np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=1e-6)


def test_compiled_functions_refuse_to_write_through_views_of_what_lies_outside() -> None:
    q, x = tg.zeros((2, 2)), Tensor([1.0, 2.0], requires_grad=True)
    row = q[1]

    @tg.compile
    def through_a_view() -> Tensor:
        row[...] = x * 2
        return q * 1

    @tg.compile
    def through_an_argument(p: Tensor) -> Tensor:
        p[1][...] = x * 2
        return p * 1

    with pytest.raises(CompileError, match="requires a gradient"):
        through_a_view()
    with pytest.raises(CompileError, match="from outside"):
        through_an_argument(tg.zeros((2, 2)))
