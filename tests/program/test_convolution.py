"""Convolutions of programs: routines in C, against the same convolutions in float64."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from program.captured import Captured
from program.vector_widths import built

import tensorgrad as tg
from tensorgrad import Tensor
from tensorgrad.nn.functional import conv1d, conv2d, max_pool2d
from tensorgrad.ops import convolution_loops
from tensorgrad.program import pool
from tensorgrad.program.compiler import SOURCES

Array = np.ndarray[Any, np.dtype[Any]]


def drawn(rng: np.random.Generator, axes: int) -> tuple[list[Array], dict[str, Any]]:
    """Input, weights and bias of a convolution drawn at random, and its options."""
    groups = int(rng.choice([1, 1, 1, 2, 3]))
    inner, outer = int(rng.choice([1, 2, 3, 5, 16, 21])), int(rng.choice([1, 2, 4, 16, 20, 33]))
    if rng.random() < 0.2:  # a channel of the result for each of the input
        groups, inner, outer = int(rng.choice([5, 16, 32, 35])), 1, 1
    kernel, dilation = rng.integers(1, 5, axes), rng.choice([1, 1, 1, 2, 3], axes)
    stride = rng.choice([1, 1, 1, 2, 3], axes)
    span = dilation * (kernel - 1)
    padding = [int(rng.integers(0, n + 1)) for n in span]
    size = [int(n + 1 - 2 * p + rng.integers(2 * p, 2 * p + 20)) for n, p in zip(span, padding)]
    size = [max(1, n) for n in size]
    x = rng.standard_normal((int(rng.integers(1, 4)), groups * inner, *size))
    layout = rng.integers(3)
    if layout == 1:
        x = np.moveaxis(np.moveaxis(x, 1, -1).copy(), -1, 1)
    elif layout == 2:
        x = x[..., ::-1].copy()[..., ::-1]
    given = [x, rng.standard_normal((groups * outer, inner, *kernel))]
    if rng.random() < 0.7:
        given.append(rng.standard_normal(groups * outer))
    options = {
        "stride": tuple(map(int, stride)),
        "padding": tuple(padding),
        "dilation": tuple(map(int, dilation)),
        "groups": groups,
    }
    return given, options


def assert_exact(found: Any, eager: Any, exact: Any) -> None:
    """As close to float64 as eager mode is, or within a few last bits."""
    for a, b, e in zip(found, eager, exact, strict=True):
        scale = abs(e.numpy()).max() + 1e-30
        error = abs(b.numpy() - e.numpy()).max() / scale
        assert abs(np.asarray(a) - e.numpy()).max() / scale <= max(4 * error, 2e-6)


def tensors(given: list[Array], dtype: Any = np.float32) -> list[Tensor]:
    kind = tg.float64 if dtype is np.float64 else tg.float32
    return [Tensor(a.astype(dtype, order="K"), dtype=kind, requires_grad=True) for a in given]


def step_of(axes: int, options: dict[str, Any]) -> Callable[..., list[Tensor]]:
    """A convolution and all its gradients."""

    def step(x: Tensor, w: Tensor, *bias: Tensor) -> list[Tensor]:
        y = (conv1d, conv2d)[axes - 1](x, w, bias[0] if bias else None, **options)
        return [y.detach(), *tg.autograd.grad(tg.sum(y * y), [x, w, *bias])]

    return step


def pooling(x: Tensor, w: Tensor, b: Tensor) -> list[Tensor]:
    """A convolution, ReLU and a pool, and all gradients."""
    y = max_pool2d(tg.relu(conv2d(x * 1.0, w, b, padding=w.shape[-1] // 2)), 2)
    return [y.detach(), *tg.autograd.grad(tg.sum(y * y), [x, w, b])]


def pooled_weights(x: Tensor, w: Tensor, b: Tensor) -> list[Tensor]:
    """The gradients for weights and bias. The gradient that they are made of lies channels last:
    nothing is handed out that it is made of."""
    y = max_pool2d(tg.relu(conv2d(x, w, b, padding=w.shape[-1] // 2)), 2)
    return list(tg.autograd.grad(tg.sum(y * y), [w, b]))


def shaped(padding: tuple[int, int]) -> Callable[..., list[Tensor]]:
    """The gradients of a convolution behind a pool, given what comes back to it."""

    def step(x: Tensor, w: Tensor, g: Tensor) -> list[Tensor]:
        y = max_pool2d(tg.relu(conv2d(x * 1.0, w, padding=padding)), 2)
        return list(tg.autograd.grad(tg.sum(y * g), [x, w]))

    return step


def shaped_case(
    rng: np.random.Generator, inner: int, outer: int, kernel: tuple[int, int]
) -> tuple[list[Array], tuple[int, int]]:
    """What ``shaped`` is given, and the padding; many of the gradients are 0."""
    padding = tuple([int(rng.integers(0, k)) for k in kernel])
    size = [int(rng.integers(4, 12)) for _ in kernel]
    after = [(n + 1 + 2 * p - k) // 2 for n, k, p in zip(size, kernel, padding, strict=True)]
    while min(after) < 1:
        size = [n + 3 for n in size]
        after = [(n + 1 + 2 * p - k) // 2 for n, k, p in zip(size, kernel, padding, strict=True)]
    g = rng.standard_normal((3, outer, *after)) * rng.choice([1.0, 0.0, -0.0], (3, outer, *after))
    given = [
        rng.standard_normal((3, inner, *size)),
        rng.standard_normal((outer, inner, *kernel)),
        g,
    ]
    return given, (padding[0], padding[1])


#: Channels of input and result, and the kernel: more than 64 channels, the most taps, few of each.
SHAPES = [(16, 5, (1, 9)), (32, 70, (2, 4)), (16, 130, (3, 3)), (48, 17, (9, 1)), (16, 64, (1, 1)),
          (16, 33, (3, 2))]  # fmt: skip


def pooled_case(rng: np.random.Generator, inner: int = 16) -> list[Array]:
    """Input, weights and bias for ``pooling``."""
    kernel, outer = int(rng.choice([1, 3])), int(rng.choice([5, 16, 20]))
    size = rng.integers(4, 12, 2)
    shapes = [(3, inner, *size), (outer, inner, kernel, kernel), (outer,)]
    return [rng.standard_normal(shape) for shape in shapes]


@pytest.mark.parametrize("seed", range(16))
def test_values_and_gradients_are_those_of_float64(seed: int) -> None:
    rng = np.random.default_rng(seed)
    axes = 1 + (seed % 4 != 0)
    given, options = drawn(rng, axes)
    step, singles = step_of(axes, options), tensors(given)
    program = Captured(step, singles)
    assert "call" not in "".join(program.executor.lines())
    assert_exact(program(*singles), step(*singles), step(*tensors(given, np.float64)))


@pytest.mark.parametrize("seed", range(6))
def test_pooled_convolutions_and_their_gradients_are_those_of_float64(seed: int) -> None:
    given = pooled_case(np.random.default_rng(seed), [1, 3, 16, 32, 16, 16][seed])
    singles = tensors(given)
    program = Captured(pooling, singles)
    assert "call" not in "".join(program.executor.lines())
    names = [i.op.name for i in program.program]
    assert "convolution_pooled" in names
    assert "convolution" not in names
    assert ("convolution_pooled_gradients" in names) == (given[0].shape[1] % 16 == 0)
    assert_exact(program(*singles), pooling(*singles), pooling(*tensors(given, np.float64)))


@pytest.mark.parametrize(("inner", "outer", "kernel"), SHAPES)
def test_gradients_behind_a_pool_are_those_of_float64_for_any_shape(
    inner: int, outer: int, kernel: tuple[int, int]
) -> None:
    given, padding = shaped_case(np.random.default_rng(outer), inner, outer, kernel)
    step, singles = shaped(padding), tensors(given)
    program = Captured(step, singles)
    assert "convolution_pooled_gradients" in [i.op.name for i in program.program]
    assert "call" not in "".join(program.executor.lines())
    assert_exact(program(*singles), step(*singles), step(*tensors(given, np.float64)))
    for k, bad in enumerate((np.nan, np.inf, -np.inf)):
        given[2].reshape(-1)[k::29] = bad
    singles = tensors(given)
    with np.errstate(all="ignore"):
        wanted = step(*singles)
        found = program(*singles)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(np.asarray(a), b.numpy(), rtol=1e-4, atol=1e-4)


def two_layers(x: Tensor, k: Tensor, b: Tensor, w: Tensor, c: Tensor) -> list[Tensor]:
    """Two pooled convolutions with a ReLU each: the gradients of weights and biases."""
    y = max_pool2d(tg.relu(conv2d(x, k, b, padding=1)), 2)
    z = max_pool2d(tg.relu(conv2d(y, w, c, padding=1)), 2)
    return list(tg.autograd.grad(tg.sum(z * z), [k, b, w, c]))


def without_a_relu(x: Tensor, k: Tensor, b: Tensor, w: Tensor, c: Tensor) -> list[Tensor]:
    y = max_pool2d(conv2d(x, k, b, padding=1), 2)
    z = max_pool2d(conv2d(y, w, c, padding=1), 2)
    return list(tg.autograd.grad(tg.sum(z * z), [k, b, w, c]))


def seen_between(x: Tensor, k: Tensor, b: Tensor, w: Tensor, c: Tensor) -> list[Tensor]:
    """The gradients of both results are handed out, and so is another sum."""
    y = max_pool2d(tg.relu(conv2d(x, k, b, padding=1)), 2)
    z = max_pool2d(tg.relu(conv2d(y, w, c, padding=1)), 2)
    found = tg.autograd.grad(tg.sum(z * z), [k, b, w, c, y, z])
    return [*found, tg.sum(found[4], axis=(0, 2, 3)), tg.sum(found[4], axis=(0, 2))]


def used_between(x: Tensor, k: Tensor, b: Tensor, w: Tensor, c: Tensor) -> list[Tensor]:
    """Others read what a ReLU gives, so that gradients are added up before its mask."""
    y = max_pool2d(tg.relu(conv2d(x, k, b, padding=1)), 2)
    z = max_pool2d(tg.relu(conv2d(y, w, c, padding=1)), 2)
    return list(tg.autograd.grad(tg.sum(z * z) + tg.sum(y * y), [k, b, w, c]))


def another_relu(x: Tensor, k: Tensor, b: Tensor, w: Tensor, c: Tensor) -> list[Tensor]:
    """The mask of the gradient for the input is not where the input is positive."""
    y = max_pool2d(conv2d(x, k, b, padding=1), 2)
    z = max_pool2d(tg.relu(conv2d(tg.relu(y) + 1.0, w, c, padding=1)), 2)
    return list(tg.autograd.grad(tg.sum(z * z), [k, b, w, c]))


def summed_otherwise(x: Tensor, k: Tensor, b: Tensor, w: Tensor, c: Tensor) -> list[Tensor]:
    """The gradient behind the second pool has a reader of its own."""
    y = max_pool2d(tg.relu(conv2d(x, k, b, padding=1)), 2)
    u = max_pool2d(conv2d(y, w, c, padding=1), 2)
    seen: list[Tensor] = []
    u.register_hook(lambda g: seen.append(tg.sum(g, axis=(2, 3))))
    z = tg.relu(u)
    return [*tg.autograd.grad(tg.sum(z * z), [k, b, w, c]), *seen]


@pytest.mark.parametrize(
    ("step", "masks", "sums"),
    [(two_layers, 0, 0), (without_a_relu, 0, 0), (seen_between, 1, 2), (used_between, 1, 1),
     (another_relu, 1, 1), (summed_otherwise, 1, 1)],
)  # fmt: skip
def test_masks_and_sums_of_gradients_behind_a_pool_are_a_part_of_them(
    step: Callable[..., list[Tensor]], masks: int, sums: int
) -> None:
    rng = np.random.default_rng(4)
    shapes = [(11, 3, 13, 10), (16, 3, 3, 3), (16,), (20, 16, 3, 3), (20,)]
    given = [rng.standard_normal(shape) for shape in shapes]
    singles = tensors(given)
    program = Captured(step, singles)
    names = [i.op.name for i in program.program]
    assert "convolution_pooled_gradients" in names
    assert (names.count("pass_positive"), names.count("sum")) == (masks, sums)
    assert_exact(program(*singles), step(*singles), step(*tensors(given, np.float64)))
    given[0][3, 1, 4, 5] = np.nan
    given[0][5, 1, 4, 5] = np.inf
    singles = tensors(given)
    with np.errstate(all="ignore"):
        for a, b in zip(program(*singles), step(*singles), strict=True):
            np.testing.assert_allclose(np.asarray(a), b.numpy(), rtol=1e-3, atol=1e-3)


def test_a_pool_is_a_part_of_the_convolution_in_evaluation_too() -> None:
    """With a ReLU between them or without, where nobody else reads what is between."""
    rng = np.random.default_rng(9)
    given = [rng.standard_normal(shape) for shape in ((3, 2, 9, 8), (20, 2, 3, 3), (20,))]

    def step(x: Tensor, w: Tensor, b: Tensor) -> list[Tensor]:
        y = conv2d(x * 3.0, w, b, padding=1)
        return [
            max_pool2d(tg.relu(conv2d(x, w, b, padding=1)), 2),
            max_pool2d(conv2d(x * 2.0, w, b, padding=1), 2),
            max_pool2d(tg.relu(y), 2) + y[0, 0, 0, 0],
        ]

    for bad in (None, np.nan, np.inf):
        if bad is not None:
            given[0][1, 1, 4, 5] = bad
        singles = [t.detach() for t in tensors(given)]
        with np.errstate(invalid="ignore"):
            program = Captured(step, singles)
            for a, b in zip(program(*singles), step(*singles), strict=True):
                np.testing.assert_allclose(np.asarray(a), b.numpy(), rtol=1e-5, atol=1e-5)
        names = [i.op.name for i in program.program]
        assert names.count("convolution_pooled") == 2
        assert names.count("max_pool") == 1


@pytest.mark.parametrize("seed", range(8))
def test_pooled_convolutions_of_one_channel_give_the_weights_of_float64(seed: int) -> None:
    rng = np.random.default_rng(seed)
    kernel = [(3, 3), (1, 1), (2, 4), (1, 7), (3, 2), (3, 3), (5, 5), (4, 2)][seed]
    outer, padding = int(rng.choice([16, 32, 48, 20])), int(rng.integers(0, min(kernel)))
    size = (40, 37) if seed == 5 else rng.integers(8, 30, 2)
    x = rng.standard_normal((5, 1, *size))
    if seed % 2:
        x = x[..., ::-1].copy()[..., ::-1]
    weights = [rng.standard_normal((outer, 1, *kernel)), rng.standard_normal(outer)]

    def step(x: Tensor, w: Tensor, b: Tensor) -> list[Tensor]:
        y = max_pool2d(tg.relu(conv2d(x, w, b, padding=padding)), 2)
        # y handed out would not lie channels last
        return list(tg.autograd.grad(tg.sum(y * y), [w, b]))

    singles = tensors([x, *weights])
    program = Captured(step, singles)
    assert "convolution_weight_pooled" in [i.op.name for i in program.program]
    wanted = step(*tensors([x, *weights], np.float64))
    assert_exact(program(*singles), step(*singles), wanted)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_image_that_is_not_finite_spoils_the_weights_as_in_eager_mode(bad: float) -> None:
    rng = np.random.default_rng(1)
    given = [rng.standard_normal(shape) for shape in [(7, 1, 10, 9), (16, 1, 3, 3), (16,)]]
    given[0][4, 0, 3, 8] = bad
    given[1] = -abs(given[1])  # what is infinite is never the largest: its gradient is 0
    singles = tensors(given)
    with np.errstate(all="ignore"):
        wanted = pooled_weights(*singles)
        found = Captured(pooled_weights, singles)(*singles)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(np.asarray(a), b.numpy(), rtol=2e-5, atol=2e-5)


def test_images_too_large_for_the_memory_of_a_thread_are_cut_into_bands() -> None:
    rng = np.random.default_rng(3)
    shapes = [(2, 16, 70, 66), (16, 16, 3, 3), (16,)]
    given = [rng.standard_normal(shape) for shape in shapes]
    singles = tensors(given)
    program = Captured(pooling, singles)
    assert "call" not in "".join(program.executor.lines())
    assert_exact(program(*singles), pooling(*singles), pooling(*tensors(given, np.float64)))


@pytest.mark.parametrize(("rows", "bands"), [(7, 2), (11, 2), (15, 2), (17, 3)])
def test_the_last_band_of_a_gradient_may_have_fewer_rows_than_a_tile(
    rows: int, bands: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stride, there is a row less of the positions that every second tap meets."""
    monkeypatch.setattr(convolution_loops._Convolution, "bands", lambda *_: bands)
    rng = np.random.default_rng(rows)
    given = [rng.standard_normal(shape) for shape in ((2, 3, rows, 7), (40, 3, 3, 3))]
    step, singles = step_of(2, {"stride": 2, "padding": 1}), tensors(given)
    program = Captured(step, singles)
    assert_exact(program(*singles), step(*singles), step(*tensors(given, np.float64)))


@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_spreads_as_in_eager_mode(which: int, bad: float) -> None:
    rng = np.random.default_rng(which)
    given, options = drawn(rng, 2)
    while len(given) < 3:
        given, options = drawn(rng, 2)
    pooled = [(pooling, pooled_case(rng, inner)) for inner in (16, 1)]
    for step, arrays in ((step_of(2, options), given), *pooled):
        arrays[which].reshape(-1)[rng.integers(arrays[which].size)] = bad
        singles = tensors(arrays)
        with np.errstate(all="ignore"):
            wanted = step(*singles)
            found = Captured(step, singles)(*singles)
        for a, b in zip(found, wanted, strict=True):
            finite = np.isfinite(b.numpy())
            np.testing.assert_array_equal(np.asarray(a)[~finite], b.numpy()[~finite])
            assert np.isfinite(np.asarray(a)[finite]).all()


@pytest.mark.parametrize("inner", [1, 16])
def test_the_first_of_equal_positions_is_the_largest(inner: int) -> None:
    rng = np.random.default_rng(inner)
    shapes = [(5, inner, 14, 12), (35, inner, 3, 3), (35,)]
    given = [rng.integers(-1, 2, shape).astype(np.float64) for shape in shapes]
    singles = tensors(given)
    program = Captured(pooling, singles)
    for a, b in zip(program(*singles), pooling(*singles), strict=True):
        np.testing.assert_array_equal(a, b.numpy())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("row", [0, 3, 6])
def test_a_gradient_that_is_not_finite_spoils_weights_that_meet_zeros(bad: float, row: int) -> None:
    def step(x: Tensor, w: Tensor, g: Tensor) -> list[Tensor]:
        return list(tg.autograd.grad(conv2d(x, w, padding=1), [w], g))

    rng = np.random.default_rng(row)
    given = [rng.standard_normal(shape) for shape in [(5, 17, 7, 6), (32, 17, 3, 3), (5, 32, 7, 6)]]
    given[2][3, 20, row, 2] = bad
    singles = tensors(given)
    with np.errstate(all="ignore"):
        (wanted,), (found,) = step(*singles), Captured(step, singles)(*singles)
    spoiled = ~np.isfinite(wanted.numpy())
    assert np.isnan(wanted.numpy()[20, 3, 0, 1]) == (np.isnan(bad) or row == 0)
    np.testing.assert_array_equal(np.asarray(found)[spoiled], wanted.numpy()[spoiled])
    np.testing.assert_allclose(
        np.asarray(found)[~spoiled], wanted.numpy()[~spoiled], rtol=2e-5, atol=2e-5
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_spoils_what_meets_zeros(bad: float) -> None:
    rng = np.random.default_rng(0)
    given = [rng.standard_normal(shape) for shape in [(2, 32, 7, 6), (32, 32, 3, 3)]]
    given[1][5, 3, 0, 1] = bad
    singles, step = tensors(given), step_of(2, {"padding": 1})
    with np.errstate(all="ignore"):
        wanted, found = step(*singles), Captured(step, singles)(*singles)
    assert np.isnan(wanted[0].numpy()[:, 5, 0]).all()
    for a, b in zip(found[:2], wanted[:2], strict=True):
        spoiled = ~np.isfinite(b.numpy())
        np.testing.assert_array_equal(np.asarray(a)[spoiled], b.numpy()[spoiled])
        assert np.isfinite(np.asarray(a)[~spoiled]).all()


@pytest.mark.parametrize(
    ("shapes", "options"),
    [
        ([(2, 17, 9, 17), (64, 17, 3, 4)], {"padding": (1, 15), "dilation": (1, 5)}),
        ([(9, 16, 8, 32), (16, 16, 3, 3)], {"padding": 1}),
        ([(2, 10, 11, 23), (40, 5, 3, 5)], {"padding": (2, 1), "groups": 2, "stride": (1, 2)}),
    ],
)
def test_images_are_read_where_they_lie(shapes: list[Any], options: dict[str, Any]) -> None:
    rng = np.random.default_rng(len(options))
    x, w = (rng.standard_normal(shape) for shape in shapes)
    given = [np.moveaxis(x, 1, -1).copy(), w]

    def step(x: Tensor, w: Tensor) -> list[Tensor]:
        return step_of(2, options)(x.permute(0, 3, 1, 2), w)

    singles = tensors(given)
    assert_exact(
        Captured(step, singles)(*singles), step(*singles), step(*tensors(given, np.float64))
    )


@pytest.mark.parametrize("channels", [(40, 3, 5), (300, 20, 1), (3, 33, 200)])
def test_many_taps_and_channels_are_packed_and_summed_in_pieces(channels: tuple[int, ...]) -> None:
    inner, outer, taps = channels
    rng = np.random.default_rng(taps)
    shapes = [(2, inner, taps + 9), (outer, inner, taps), (outer,)]
    given = [rng.standard_normal(shape) for shape in shapes]
    singles, step = tensors(given), step_of(1, {"padding": min(taps - 1, 2)})
    program = Captured(step, singles)
    assert "call" not in "".join(program.executor.lines())
    assert_exact(program(*singles), step(*singles), step(*tensors(given, np.float64)))


def test_a_pool_whose_convolution_is_seen_keeps_it() -> None:
    def step(x: Tensor, w: Tensor, b: Tensor) -> list[Tensor]:
        y = conv2d(x * 3.0, w, b, padding=1)
        z = max_pool2d(y, 2)
        return [y.detach(), *tg.autograd.grad(tg.sum(z * z), [x, w, b])]

    given = pooled_case(np.random.default_rng(0))
    singles = tensors(given)
    program = Captured(step, singles)
    assert "convolution" in [i.op.name for i in program.program]
    assert_exact(program(*singles), step(*singles), step(*tensors(given, np.float64)))


def test_bits_do_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    shapes = [(9, 16, 18, 20), (20, 16, 3, 3), (20,)]
    singles = tensors([rng.standard_normal(shape) for shape in shapes])
    plain = step_of(2, {"padding": 1, "stride": (1, 2)})
    for step in (plain, pooling):
        results = []
        for threads in "13":
            monkeypatch.setenv("TENSORGRAD_THREADS", threads)
            results.append(Captured(step, singles)(*singles))
        for a, b in zip(*results, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("width", [4, 8])  # where there are 16, all other tests have them
def test_shorter_vectors_do(width: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    options = {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": 2}
    shapes = [(2, 10, 11, 9), (38, 5, 3, 3), (38,)]
    grouped = [rng.standard_normal(shape) for shape in shapes]
    many, padding = shaped_case(rng, 32, 70, (2, 4))
    deep = [rng.standard_normal(shape) for shape in [(2, 20, 6, 5), (20, 1, 3, 3), (20,)]]
    cases: list[tuple[Callable[..., list[Tensor]], list[Array]]] = [
        (step_of(2, options), grouped),
        (step_of(2, {"padding": 1, "groups": 20}), deep),
        (pooling, [np.rint(a) for a in pooled_case(rng)]),  # with ties
        (shaped(padding), many),
        (pooled_weights, [rng.standard_normal(n) for n in [(3, 1, 9, 8), (16, 1, 3, 3), (16,)]]),
    ]
    for k, (step, given) in enumerate(cases):
        singles = tensors(given)
        program = Captured(step, singles)
        executor: Any = program.executor
        folder = tmp_path / str(k)
        folder.mkdir()
        text = executor.source.text.replace('#include "support.h"', "")
        library: Any = built(text, width, folder)
        library.tg_link(None, None, *executor_links())
        executor._library = library
        executor._calls = [executor._segment(number) for number in executor.source.steps]
        assert_exact(program(*singles), step(*singles), step(*tensors(given, np.float64)))
        given[0].reshape(-1)[given[0].size // 2] = np.nan
        singles = tensors(given)
        with np.errstate(all="ignore"):
            wanted = step(*singles)
        for a, b in zip(program(*singles), wanted, strict=True):
            np.testing.assert_array_equal(np.isnan(a), np.isnan(b.numpy()))


def executor_links() -> tuple[Any, Any]:
    """What programs use of the threads."""
    return pool.library().tg_run, pool.library().tg_rows


def test_gradients_behind_a_pool_have_room_for_the_sums_of_all_taps() -> None:
    header = (SOURCES / "convolution.h").read_text()
    assert f"#define TG_POOLED_TAPS {convolution_loops.POOLED_TAPS} " in header
    assert convolution_loops.fits((32, 16, 3, 3), (12, 14))
    assert not convolution_loops.fits((32, 16, 5, 5), (12, 14))
