"""Programs of many units: what repeats is compiled once, and every unit works on its own memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from program.captured import Captured
from program.executors import EXECUTORS

import tensorgrad as tg
from tensorgrad import Tensor
from tensorgrad.autograd import grad
from tensorgrad.program import compiler, schedule
from tensorgrad.program.executors import c_source
from tensorgrad.program.repeats import cuts

needs_compiler = pytest.mark.skipif("native" not in EXECUTORS, reason="there is no C compiler")

STEPS = 24


def unrolled(seed: int) -> tuple[Callable[..., Any], list[Tensor]]:
    """A loop over steps that are alike but for a few: another index, constant or order in them."""
    draw = np.random.default_rng(seed)
    kinds = ["index", "constant", "order", "result"]
    odd = {int(k): str(draw.choice(kinds)) for k in draw.integers(0, STEPS, 4)}
    rows, width = int(draw.integers(1, 6)), int(draw.choice([1, 3, 8, 17]))

    def step(x: Tensor, w: Tensor, b: Tensor) -> list[Tensor]:
        h, seen = b * 0.5 + x[0], []
        for k in range(STEPS):
            kind = odd.get(k, "")
            now = x[k + 1] if kind == "index" else x[k]
            z = tg.tanh(h @ w + now) * (0.75 if kind == "constant" else 0.5)
            z = z - now if kind != "order" else now - z
            h = z + z.mean(axis=-1, keepdims=True) * b + h * 0.25
            if kind == "result":
                seen.append(h * 2.0)
        return [h.sum(axis=0), *seen, *grad((h * h).sum(), [x, w, b])]

    shapes = (STEPS + 1, rows, width), (width, width), (width,)
    given = [
        Tensor(draw.normal(size=s).astype(np.float32) * 0.5, requires_grad=True) for s in shapes
    ]
    return step, given


@needs_compiler
@pytest.mark.parametrize("seed", range(12))
def test_steps_that_are_nearly_alike(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Called one by one, in a loop over numbers, and from objects of their own: the same bits."""
    step, given = unrolled(seed)
    wanted = Captured(step, given, "numpy")(*given)
    found = []
    for direct, part in ((1 << 30, 1 << 30), (4, 1 << 30), (4, 1 << 12)):
        monkeypatch.setattr(c_source, "_DIRECT", direct)
        monkeypatch.setattr(compiler, "_PART", part)
        program = Captured(step, given)
        assert ("tg_units(" in program.executor.text) == (direct == 4)
        found.append(program(*given))
    for alone, looped, apart, numbers in zip(*found, wanted, strict=True):
        assert alone.tobytes() == looped.tobytes() == apart.tobytes()
        np.testing.assert_allclose(alone, numbers, rtol=2e-4, atol=2e-5)


@needs_compiler
def test_units_follow_arguments_that_lie_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large arguments are read where they are: at every place that has an address in them."""
    monkeypatch.setattr(c_source, "_DIRECT", 4)

    def step(x: Tensor) -> Tensor:
        y = x[0]
        for k in range(1, 20):
            y = tg.sin(y) @ x[k] + x[20 - k]
        return y

    draw = np.random.default_rng(0)
    call = tg.compile(step)
    for _ in range(6):
        x = Tensor(draw.normal(size=(20, 24, 24)).astype(np.float32) * 0.2)
        np.testing.assert_allclose(call(x).numpy(), step(x).numpy(), rtol=1e-4, atol=1e-5)
    assert call.executor == "native"


@needs_compiler
def test_the_text_of_a_loop_does_not_grow_with_its_steps() -> None:
    def text(steps: int) -> int:
        def step(x: Tensor, w: Tensor) -> Any:
            h = x[0]
            for k in range(steps):
                h = tg.tanh(h @ w + x[k])
            return grad((h * h).sum(), w)

        given = [
            Tensor(np.ones(s, np.float32), requires_grad=True) for s in ((99, 4, 16), (16, 16))
        ]
        return len(Captured(step, given).executor.text)

    assert text(90) - text(60) < 400  # some digits for each call, and no function


@needs_compiler
@pytest.mark.parametrize("seed", range(6))
def test_long_nests_that_are_cut(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of elementwise steps with sums among them, whole and in parts of any size."""
    draw = np.random.default_rng(seed)
    odd = set(draw.integers(0, 40, 3).tolist())

    def step(x: Tensor, p: Tensor) -> list[Tensor]:
        y, z, sums = x, x * 0.5, []
        for k in range(40):
            y, z = y + 0.1 * (p[0] * z - y), z + 0.1 * (p[1] * y - z * (0.5 if k in odd else 0.75))
            y = tg.sin(y) if k in odd else tg.tanh(y)
            if k % 7 == 3:
                sums.append(y.sum() * 2.0)
        return [y, *sums, *grad((y * z).sum(), [x, p])]

    given = [
        Tensor(draw.normal(size=s).astype(np.float32), requires_grad=True) for s in ((13,), (2,))
    ]
    wanted = Captured(step, given, "numpy")(*given)
    parts = []
    for members in (1 << 20, 96, 41):
        monkeypatch.setattr(schedule, "LARGEST", members)
        monkeypatch.setattr(schedule, "_PART", members)
        program = Captured(step, given)
        parts.append(len(program.executor.schedule.units))
        for a, b in zip(program(*given), wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
    assert parts[0] < parts[1] < parts[2]


@pytest.mark.parametrize("seed", range(20))
def test_parts_of_what_repeats_are_no_more_if_it_does_so_more_often(seed: int) -> None:
    draw = np.random.default_rng(seed)
    period = [int(k) for k in draw.integers(0, 12, int(draw.integers(1, 90)))]
    before, limit = range(100, 100 + int(draw.integers(0, 50))), int(draw.integers(3, 120))

    def distinct(times: int) -> int:
        keys = [*before, *period * times, *range(200, 230)]
        costs = [1 + key % 3 for key in keys]
        found = cuts(keys, costs, [k % 5 for k in range(len(keys))], limit)
        assert found == sorted(set(found))
        assert all(0 < k < len(keys) for k in found)
        parts = [slice(a, b) for a, b in itertools.pairwise([0, *found, len(keys)])]
        assert all(sum(costs[part]) <= limit for part in parts)
        return len({tuple(keys[part]) for part in parts})

    assert distinct(150) <= distinct(50) + 2


def test_what_is_short_is_not_cut_and_what_never_repeats_is_cut_evenly() -> None:
    assert cuts([], [], [], 4) == []
    assert cuts([1, 2, 3], [1, 1, 1], [0, 0, 0], 4) == []
    assert cuts(range(10), [1] * 10, [0] * 10, 4) == [4, 8]
    assert cuts([1] * 50, [1] * 50, [0] * 50, 7) == list(range(7, 50, 7))
    assert cuts(range(10), [1] * 10, [9, 9, 9, 1, 9, 9, 9, 9, 9, 9], 4) == [3, 7]


def test_what_repeats_is_cut_where_the_least_goes_through_memory() -> None:
    period, times = 10, 40
    prices = [0 if k % period == 7 else 5 for k in range(period * times + 1)]
    found = cuts([*range(period)] * times, [1] * period * times, prices, 32)
    assert found[1:-1] == list(range(found[1], period * times - period, 30))
    assert all(k % period == 7 for k in found)
