"""Nests over the same numbers in another shape become one, and compute again what is not kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import Tensor
from tensorgrad.nn.functional import batch_norm, conv2d, relu
from tensorgrad.program.compiler import compiler
from tensorgrad.program.loop_ir import Reduce
from tensorgrad.program.schedule import Nest

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C compiler was found")

Array = np.ndarray[Any, np.dtype[Any]]


def nests(compiled: Any, size: int) -> list[Nest]:
    """The nests over so many numbers."""
    units = compiled._last().executor.schedule.units
    return [u for u in units if isinstance(u, Nest) and np.prod(u.dims) == size]


def stored(nest: Nest) -> int:
    """How many arrays as large as its space a nest writes."""
    return sum(m.out.size == np.prod(nest.dims) for m in nest.stored)


def test_batch_norm_and_relu_pass_memory_as_often_as_they_must(rng: Any) -> None:
    x, g = (rng.standard_normal(n).astype(np.float32) for n in ((4, 3, 16, 16), (4, 16, 16, 16)))
    kernel = rng.standard_normal((16, 3, 1, 1)).astype(np.float32)
    weight, bias = rng.standard_normal((2, 16)).astype(np.float32)

    def step(x: Tensor, kernel: Tensor, weight: Tensor, bias: Tensor, g: Tensor) -> Any:
        mean, var = tg.zeros(16, dtype=x.dtype), tg.ones(16, dtype=x.dtype)
        y = relu(batch_norm(conv2d(x, kernel), mean, var, weight, bias, True))
        y = conv2d(y, kernel.permute(1, 0, 2, 3))
        return [y.detach(), *tg.autograd.grad((y * g[:, :3]).sum(), [x, weight, bias])]

    arrays = x, kernel, weight, bias, g
    compiled: Any = tg.compile(step)
    found = compiled(*[Tensor(a, requires_grad=True) for a in arrays])
    exact = step(*[Tensor(a.astype(np.float64), requires_grad=True) for a in arrays])
    for a, b in zip(found, exact):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=2e-4, atol=2e-4)
    # Statistics read twice; the result is written, and where it is positive; the two sums write
    # nothing; the gradient is written.
    found = nests(compiled, g.size)
    assert [stored(n) for n in found] == [0, 0, 2, 0, 1]
    assert [sum(type(m) is Reduce for m in n.members) for n in found] == [1, 1, 0, 2, 0]


def test_what_was_overwritten_is_not_computed_again(rng: Any) -> None:
    p = rng.standard_normal((64, 512)).astype(np.float32)
    x = Tensor(rng.standard_normal((64, 512)).astype(np.float32))

    def step(p: Tensor) -> Any:
        y = p * 3.0 - 1.0  # which is read once the sum is known, and p is another one by then
        with tg.no_grad():
            p.copy_(p - 0.1 * x * y.sum())
        return y * p.mean()

    ours, theirs = Tensor(p.copy()), Tensor(p.copy())
    compiled: Any = tg.compile(lambda: step(ours))
    for _ in range(3):
        np.testing.assert_allclose(compiled().numpy(), step(theirs).numpy(), rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-4, atol=1e-3)
    assert compiled._last().executor.name == "native"


def _random(rng: np.random.Generator, p: Tensor, x: Tensor) -> Any:
    """A function of values in several shapes, sums of them, and memory that is overwritten."""
    shapes = [(32, 16, 64), (32, 16, 8, 8), (512, 64), (4, 8, 16, 64)]
    plan = [tuple(rng.integers(0, 1 << 30, 3).tolist()) for _ in range(14)]

    def run() -> Any:
        values = [x, p * 1.0]
        for what, first, second in plan:
            a, b = values[first % len(values)], values[second % len(values)]
            shape = shapes[second % len(shapes)]
            kind = what % 9
            if kind < 3:
                made = (a + b.reshape(a.shape)) * 0.5
            elif kind == 3:
                made = tg.where(a > 0.1, a, b.reshape(a.shape) * 0.3)
            elif kind == 4:
                made = a - a.mean(tuple(range(a.ndim - 1)), keepdims=True)
            elif kind == 5:
                made = a * (b.reshape(a.shape).sum(-1, keepdims=True) * 0.01)
            elif kind == 6:
                made = a * a.mean()
            elif kind == 7:
                made = a.reshape(-1, 64).permute(1, 0).reshape(64, 512).permute(1, 0)
            else:
                with tg.no_grad():
                    p.copy_(p * 0.9 + a.reshape(p.shape) * 0.1)
                made = a * 0.7
            values.append(made.reshape(shape) if first % 2 else made)
        return values[-1], values[-3] + 0.0, sum(v.mean() for v in values)

    return run


@pytest.mark.parametrize("seed", range(12))
def test_random_programs_compute_what_they_did(seed: int) -> None:
    def made() -> tuple[Any, Tensor]:
        rng = np.random.default_rng(seed)
        p, x = (Tensor(rng.standard_normal((32, 16, 64)).astype(np.float32)) for _ in range(2))
        return _random(rng, p, x), p

    (ours, p), (theirs, q) = made(), made()
    compiled: Any = tg.compile(ours)
    for _ in range(2):
        for a, b in zip(compiled(), theirs()):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(p.numpy(), q.numpy(), rtol=1e-4, atol=1e-4)
    assert compiled._last().executor.name == "native"


def test_what_is_padded_or_cut_out_lies_as_convolutions_have_it(rng: Any) -> None:
    """A shortcut that takes every second place and adds channels, as in residual networks."""
    x = rng.standard_normal((2, 3, 8, 8)).astype(np.float32)
    first = rng.standard_normal((16, 3, 3, 3)).astype(np.float32)
    second = rng.standard_normal((32, 16, 3, 3)).astype(np.float32)

    def step(x: Tensor, first: Tensor, second: Tensor) -> Any:
        y = relu(conv2d(x, first, padding=1))
        way = tg.pad(y[:, :, ::2, ::2], ((0, 0), (8, 8), (0, 0), (0, 0)), constant_values=0.5)
        z = relu(conv2d(y, second, stride=2, padding=1) + way)
        part = z[:, 3:, 1:]
        grads = tg.autograd.grad((part * part).sum(), [x, first])
        return [z.detach() * 2.0, way.detach() * 2.0, *grads]

    compiled: Any = tg.compile(step)
    found = compiled(*[Tensor(a, requires_grad=True) for a in (x, first, second)])
    exact = step(*[Tensor(a.astype(np.float64), requires_grad=True) for a in (x, first, second)])
    for a, b in zip(found, exact):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-4)
        assert a.numpy().flags.c_contiguous
    assert compiled._last().executor.name == "native"
    # In no loop over what is large do numbers lie apart, but for what is handed out.
    for nest in nests(compiled, 2 * 16 * 64) + nests(compiled, 2 * 32 * 16):
        for m in nest.members:
            if m.out.storage.role == "temporary" and m not in nest.stored:
                assert all(v.strides[-1] in (0, 1) for v in m.views), (nest.dims, m)
