"""kernels/random.cu and dropout.cu: the bits of the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_devices import EPSILON, FLOATS, Cuda, as_float64
from standin import cupy_standin

import tensorgrad as tg
from tensorgrad.backend.launch import common

KEYS = [0, 1, 0xDEADBEEF_12345678, 2**64 - 1]
POSITIONS = [0, 4, 5, 6, 7, 2**33 + 1, 2**64 - 65_600 * 2]
SIZES = [0, 1, 3, 4, 31, 1000]


def both(draw: Any, key: int, position: int) -> tuple[Any, Any]:
    """What ``draw`` gives on the GPU and on the CPU, from one state of the generator."""
    found = []
    for device in ("cuda", "cpu"):
        generator = tg.Generator(0)
        generator.set_state((key, position))
        found.append(draw(generator, device).cpu().numpy())
    return found[0], found[1]


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("key", KEYS)
def test_bit_identical(cuda: Cuda, key: int, position: int) -> None:
    for n in SIZES:
        for dtype in FLOATS:
            kind = getattr(tg, dtype)
            for low, high in ((0.0, 1.0), (-0.3, 2.7)):
                ours, theirs = both(
                    lambda g, d: g.uniform((n,), low, high, dtype=kind, device=d),  # noqa: B023
                    key, position,
                )  # fmt: skip
                np.testing.assert_array_equal(ours, theirs)
                assert ours.dtype == theirs.dtype
        for low, high in ((0, 10), (-5, 2**32 - 5), (3, 4)):
            ours, theirs = both(
                lambda g, d: g.randint(low, high, (n,), device=d),  # noqa: B023
                key, position,
            )  # fmt: skip
            np.testing.assert_array_equal(ours, theirs)
        ours, theirs = both(lambda g, d: g.permutation(n, device=d), key, position)  # noqa: B023
        np.testing.assert_array_equal(ours, theirs)
    assert {"random_uniform", "random_integers", "random_words"} <= set(cuda.launched)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("position", [0, 1, 2, 3, 6, 2**64 - 4100])
def test_normal_within_2_ulp(cuda: Cuda, dtype: str, position: int) -> None:
    """Of each number itself; scaled ones, of the scale."""
    kind = getattr(tg, dtype)
    for n in (0, 1, 2, 5, 2001):
        ours, theirs = both(lambda g, d: g.normal((n,), dtype=kind, device=d), 7, position)  # noqa: B023
        ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
        assert (abs(ours - theirs) <= 2 * EPSILON[dtype] * abs(theirs)).all()
        ours, theirs = both(
            lambda g, d: g.normal((n,), 1.5, 0.3, dtype=kind, device=d),  # noqa: B023
            7, position,
        )  # fmt: skip
        off = abs(ours.astype(np.float64) - theirs.astype(np.float64))
        assert (off <= 4 * EPSILON[dtype]).all()


def test_nothing_is_written_beside_what_is_drawn(cuda: Cuda) -> None:
    """From each place within a block of four words, for each number of left-over elements."""
    for position in range(4):
        for n in (1, 2, 3, 4, 5):
            for dtype in ("float16", "float32", "float64"):
                generator = tg.Generator(0)
                generator.set_state((3, position))
                kind = getattr(tg, dtype)
                generator.uniform((n,), dtype=kind, device="cuda")
                generator.normal((n,), dtype=kind, device="cuda")
                generator.randint(0, 9, (n,), device="cuda")
    assert not cupy_standin.MARGINS.overrun()


def test_one_launch_for_a_draw(cuda: Cuda) -> None:
    tg.Generator(1).normal((1000,), device="cuda")
    assert cuda.launched == {"random_normal": 1}


def test_steps_through_the_grid(cuda: Cuda, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "MOST_BLOCKS", 2)
    for dtype in ("float32", "float64"):
        kind = getattr(tg, dtype)
        for position in (0, 3):
            ours, theirs = both(
                lambda g, d: g.uniform((5001,), dtype=kind, device=d),  # noqa: B023
                3, position,
            )  # fmt: skip
            np.testing.assert_array_equal(ours, theirs)
            ours, theirs = both(
                lambda g, d: g.normal((2001,), dtype=kind, device=d),  # noqa: B023
                3, position,
            )  # fmt: skip
            np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    ours, theirs = both(lambda g, d: g.permutation(1500, device=d), 3, 1)
    np.testing.assert_array_equal(ours, theirs)
    x = cuda.tensor(np.ones(4099))
    y = tg.dropout(x, 0.5, generator=tg.Generator(5))
    z = tg.dropout(x.cpu(), 0.5, generator=tg.Generator(5))
    np.testing.assert_array_equal(y.cpu().numpy(), z.numpy())


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("n", [0, 1, 31, 32, 33, 1000, 65_537])
@pytest.mark.parametrize("dtype", FLOATS)
def test_dropout(cuda: Cuda, dtype: str, n: int, offset: int, rng: np.random.Generator) -> None:
    """The numbers of the CPU, forward and backward, for any place in the stream."""
    if n == 65_537 and (offset or dtype != "float32"):
        pytest.skip("one large array is enough")
    x = cuda.tensor(rng.normal(size=n), dtype, offset, requires_grad=True)
    g = cuda.tensor(rng.normal(size=n), dtype, offset)
    twin = x.detach().cpu()
    twin.requires_grad = True
    for p, position in ((0.3, 0), (0.5, 1), (0.9, 6), (1.0, 0), (1e-9, 3)):
        found: list[tuple[Any, Any]] = []
        for t, d in ((x, g), (twin, g.cpu())):
            t.grad = None
            generator = tg.Generator(0)
            generator.set_state((11, position))
            y = tg.dropout(t, p, generator=generator)
            y.backward(d)
            assert t.grad is not None
            found.append((y.detach().cpu().numpy(), t.grad.cpu().numpy()))
        for ours, theirs in zip(*found):
            np.testing.assert_array_equal(ours, theirs)
    assert cuda.launched == ({"dropout": 10} if n else {})


def test_dropout_of_any_layout(cuda: Cuda, rng: np.random.Generator) -> None:
    x = cuda.tensor(rng.normal(size=(8, 12)), requires_grad=True)
    y = tg.dropout(x.T[::2], 0.4, generator=tg.Generator(3))
    z = tg.dropout(x.detach().cpu().T[::2], 0.4, generator=tg.Generator(3))
    np.testing.assert_array_equal(y.detach().cpu().numpy(), z.numpy())
    y.sum().backward()  # a gradient that is one number, repeated
    assert x.grad is not None
    kept = as_float64(y) != 0
    expected = np.zeros((8, 12))
    expected.T[::2] = kept / 0.6
    np.testing.assert_allclose(as_float64(x.grad), expected, rtol=1e-6)


def test_the_mask_is_the_same_for_rules_and_kernel(
    cuda: Cuda, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    """Under create_graph, in a checkpoint, and with kernels switched off in between."""
    from tensorgrad.backend.cuda import load

    x = cuda.tensor(rng.normal(size=100), "float64", requires_grad=True)

    def f(x: Any) -> Any:
        return tg.dropout(x * x, 0.5)

    tg.manual_seed(9)
    y = f(x)
    (plain,) = tg.autograd.grad(y.sum(), x, retain_graph=True)
    with monkeypatch.context() as patch:
        patch.setattr(load(), "kernels", False)
        (ruled,) = tg.autograd.grad(y.sum(), x, retain_graph=True)
    (first,) = tg.autograd.grad(y.sum(), x, create_graph=True)
    (second,) = tg.autograd.grad(first.sum(), x)
    tg.manual_seed(9)
    (again,) = tg.autograd.grad(tg.autograd.checkpoint(f, x).sum(), x)
    kept = np.where(as_float64(y) != 0, 2.0, 0.0)
    for gradient in (plain, ruled, first, again):
        np.testing.assert_allclose(as_float64(gradient), 2 * as_float64(x) * kept)
    np.testing.assert_allclose(as_float64(second), 2 * kept)


def test_normal_of_a_small_word(cuda: Cuda) -> None:
    """Where the logarithm is steep: at the smallest of half a million words."""
    from tensorgrad.backend import philox

    place = 2 * int(philox.bits(np, 7, 0, 1 << 20)[0::2].argmin())
    ours, theirs = both(lambda g, d: g.normal((2,), device=d), 7, place)
    assert (abs(ours - theirs) <= 2 * EPSILON["float32"] * abs(theirs)).all()


def test_dropout_keeps_a_word_at_the_threshold(cuda: Cuda) -> None:
    from tensorgrad.backend import philox

    word = int(philox.bits(np, 7, 0, 1)[0])
    generator = tg.Generator(7)
    y = tg.dropout(cuda.tensor(np.ones(8)), word / 2.0**32, generator=generator)
    assert as_float64(y)[0] != 0
