"""Convolutions with a batch norm in evaluation behind them: one routine, as exact as the parts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from program.captured import Captured
from program.test_convolution import Array, assert_exact, drawn, executor_links, tensors
from program.vector_widths import WIDTHS, built

import tensorgrad as tg
from tensorgrad import Tensor
from tensorgrad.nn.functional import batch_norm, conv1d, conv2d

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def inference(
    options: dict[str, Any], bias: bool = True, adds: bool = True, positive: bool = True
) -> Callable[..., list[Tensor]]:
    """Convolution, batch norm by running statistics, sum and ReLU."""

    def step(x: Tensor, w: Tensor, p: Tensor, *more: Tensor) -> list[Tensor]:
        b, mean, var, weight, shift = p
        with tg.no_grad():
            convolution = conv1d if x.ndim == 3 else conv2d
            y = convolution(x, w, b if bias else None, **options)
            y = batch_norm(y, mean, var * var, weight, shift if bias else None, eps=0.1)
            y = more[0] + y if adds else y
            return [tg.relu(y) if positive else y]

    return step


def case(rng: np.random.Generator, axes: int = 2) -> tuple[list[Array], dict[str, Any]]:
    """Input, weights, numbers of channels and what is added, and the options."""
    given, options = drawn(rng, axes)
    x, w = given[:2]
    size = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, p, d, s in zip(
            x.shape[2:], w.shape[2:], options["padding"], options["dilation"], options["stride"]
        )
    ]
    added = rng.standard_normal((len(x), len(w), *size))
    if rng.random() < 0.5:
        added = np.moveaxis(np.moveaxis(added, 1, -1).copy(), -1, 1)
    return [x, w, rng.standard_normal((5, len(w))), added], options


def captured(step: Callable[..., list[Tensor]], singles: list[Tensor]) -> Captured:
    """The program, which is one routine."""
    program = Captured(step, singles)
    names = [i.op.name for i in program.program]
    assert "convolution_scaled" in names
    assert not {"convolution", "scaled", "relu"} & set(names)
    assert "call" not in "".join(program.executor.lines())
    return program


@pytest.mark.parametrize("seed", range(10))
def test_results_are_those_of_float64(seed: int) -> None:
    rng = np.random.default_rng(seed)
    given, options = case(rng, 1 + (seed % 5 != 0))
    step = inference(options, bool(seed & 1), bool(seed & 2), bool(seed & 4))
    singles = tensors(given)
    program = captured(step, singles)
    assert_exact(program(*singles), step(*singles), step(*tensors(given, np.float64)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 0.0])
def test_special_numbers_give_what_eager_mode_gives(bad: float) -> None:
    rng = np.random.default_rng(3)
    shapes = [(2, 16, 7, 9), (20, 16, 3, 3), (5, 20), (2, 20, 7, 9)]
    step = inference({"padding": 1}, positive=np.isnan(bad))
    singles = tensors([rng.standard_normal(shape) for shape in shapes])
    program = captured(step, singles)
    for which, at in [(0, 100), (1, 50), *[(2, 20 * row + 3) for row in range(5)], (3, 200)]:
        given = [t.detach().numpy().copy() for t in singles]
        given[which].reshape(-1)[at] = bad
        own = tensors(given)
        wanted, found = step(*own)[0].numpy(), np.asarray(program(*own)[0])
        finite = np.isfinite(wanted)
        np.testing.assert_array_equal(found[~finite], wanted[~finite])
        np.testing.assert_allclose(found[finite], wanted[finite], rtol=1e-4, atol=1e-4)


def test_what_others_see_of_the_parts_stays() -> None:
    def step(x: Tensor, w: Tensor, p: Tensor) -> list[Tensor]:
        with tg.no_grad():
            y = conv2d(x, w)
            z = batch_norm(y, p[1], p[2] * p[2], p[3], p[4])
            return [tg.relu(z), z] if seen else [tg.relu(z), y]

    rng = np.random.default_rng(0)
    given = [rng.standard_normal(shape) for shape in [(2, 3, 6, 5), (4, 3, 2, 2), (5, 4)]]
    for seen in (False, True):
        singles = tensors(given)
        program = Captured(step, singles)
        names = [i.op.name for i in program.program]
        assert ("convolution_scaled" in names, "relu" in names) == (seen, True)
        assert_exact(program(*singles), step(*singles), step(*tensors(given, np.float64)))


def test_a_sum_with_itself_or_with_one_image_stays_a_sum() -> None:
    def step(x: Tensor, w: Tensor, p: Tensor, more: Tensor) -> list[Tensor]:
        with tg.no_grad():
            y = batch_norm(conv2d(x, w), p[1], p[2] * p[2], p[3], p[4])
            z = batch_norm(conv2d(x, w * 2), p[1], p[2] * p[2], p[3], p[4])
            return [y + y, z + more]

    rng = np.random.default_rng(0)
    shapes = [(2, 3, 6, 5), (4, 3, 2, 2), (5, 4), (4, 5, 4)]
    given = [rng.standard_normal(shape) for shape in shapes]
    singles = tensors(given)
    program = Captured(step, singles)
    names = [i.op.name for i in program.program]
    assert names.count("convolution_scaled") == names.count("add") - 1 == 2
    assert_exact(program(*singles), step(*singles), step(*tensors(given, np.float64)))


def test_weights_that_are_overwritten_before_the_norm_are_used_as_they_were() -> None:
    def step(x: Tensor, w: Tensor, p: Tensor) -> list[Tensor]:
        with tg.no_grad():
            kept = w * 1.0
            y = conv2d(x, kept)
            kept *= 3.0
            return [batch_norm(y, p[1], p[2] * p[2], p[3], p[4]), kept]

    rng = np.random.default_rng(0)
    given = [rng.standard_normal(shape) for shape in [(2, 3, 6, 5), (4, 3, 2, 2), (5, 4)]]
    singles = tensors(given)
    assert_exact(
        Captured(step, singles)(*singles), step(*singles), step(*tensors(given, np.float64))
    )


@pytest.mark.parametrize("width", WIDTHS)
def test_vectors_of_any_width_do(width: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    options = {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": 2}
    shapes = [(2, 10, 11, 9), (38, 5, 3, 3), (5, 38), (2, 38, 6, 9)]
    given = [rng.standard_normal(shape) for shape in shapes]
    singles, step = tensors(given), inference(options)
    program = captured(step, singles)
    executor: Any = program.executor
    library: Any = built(executor.source.text.replace('#include "support.h"', ""), width, tmp_path)
    library.tg_link(None, None, *executor_links())
    executor._library = library
    executor._calls = [executor._segment(number) for number in executor.source.steps]
    assert_exact(program(*singles), step(*singles), step(*tensors(given, np.float64)))
