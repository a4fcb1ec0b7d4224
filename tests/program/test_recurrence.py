"""Recurrent layers of programs: routines in C, against the same layers in float64."""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from program.captured import Captured
from program.executors import EXECUTORS
from program.vector_widths import WIDTHS

import tensorgrad as tg
from tensorgrad import Tensor, nn
from tensorgrad.program import compiler
from tensorgrad.program.loop_ir import Call

pytestmark = pytest.mark.skipif("native" not in EXECUTORS, reason="there is no C compiler")

Array = np.ndarray[Any, np.dtype[Any]]
KINDS = {"lstm": 4, "gru": 3, "rnn": 1}


def drawn(rng: np.random.Generator, kind: str) -> tuple[dict[str, Array], dict[str, Any]]:
    """Arrays of a layer drawn at random, by their names as arguments, and its options."""
    gates = KINDS[kind]
    steps, batch = int(rng.choice([1, 2, 5, 9])), int(rng.choice([1, 3, 4, 8, 13, 18]))
    inputs, hidden = int(rng.choice([1, 3, 16, 21])), int(rng.choice([1, 5, 16, 23, 32, 70]))
    out = max(1, hidden // 2 - 1) if kind == "lstm" and rng.random() < 0.3 else hidden
    shapes: dict[str, tuple[int, ...]] = {
        "x": (steps, batch, inputs),
        "weight_ih": (gates * hidden, inputs),
        "weight_hh": (gates * hidden, out),
    }
    if out != hidden:
        shapes["weight_hr"] = (out, hidden)
    for name in ("bias_ih", "bias_hh"):
        if rng.random() < 0.6:
            shapes[name] = (gates * hidden,)
    for name, size in (("h0", out), ("c0", hidden))[: 1 + (kind == "lstm")]:
        if rng.random() < 0.5:
            shapes[name] = (batch, size)
    given = {name: 0.5 * rng.standard_normal(shape) for name, shape in shapes.items()}
    for name in ("weight_ih", "weight_hh"):  # so that errors do not grow from step to step
        given[name] *= given[name].shape[1] ** -0.5
    layout = rng.integers(4)
    if layout == 1:  # batches first
        given["x"] = np.swapaxes(np.swapaxes(given["x"], 0, 1).copy(), 0, 1)
    elif layout == 2:
        given["x"] = np.moveaxis(given["x"], 2, 0).copy().transpose(1, 2, 0)
    elif layout == 3:
        given = {name: np.asfortranarray(a) for name, a in given.items()}
    options: dict[str, Any] = {"reverse": bool(rng.integers(2))}
    if kind == "rnn":
        options["nonlinearity"] = str(rng.choice(["tanh", "relu"]))
    if rng.random() < 0.4:
        options["lengths"] = Tensor(rng.integers(1, steps + 1, batch))
    return given, options


def stepped(
    kind: str, names: list[str], options: dict[str, Any], weights: list[Array]
) -> Callable[..., list[Tensor]]:
    """What a layer gives, and the gradients of all its inputs."""

    factors = {t: [Tensor(w.astype(t)) for w in weights] for t in (np.float32, np.float64)}

    def step(*given: Tensor) -> list[Tensor]:
        found = getattr(nn.functional, kind)(**dict(zip(names, given)), **options)
        weighted = zip(found, factors[found[0].dtype.type])
        loss = sum((tg.sum(y * w) for y, w in weighted), Tensor(0.0))
        return [*[y.detach() for y in found], *tg.autograd.grad(loss, list(given))]

    return step


def case(seed: int, kind: str) -> tuple[Callable[..., list[Tensor]], list[Array]]:
    """A step drawn at random and what it is given, in float64."""
    rng = np.random.default_rng(seed)
    given, options = drawn(rng, kind)
    steps, batch, _ = given["x"].shape
    rows, out = given["weight_hh"].shape
    sizes = [(steps, batch, out), (batch, out), (batch, rows // KINDS[kind])]
    weights = [rng.standard_normal(size) for size in sizes]
    return stepped(kind, list(given), options, weights), list(given.values())


def tensors(given: list[Array], dtype: Any = np.float32) -> list[Tensor]:
    return [Tensor(a.astype(dtype, order="K"), requires_grad=True) for a in given]


def calls(captured: Captured) -> list[str]:
    """The primitives that a program calls."""
    return [
        unit.operation.instruction.op.name
        for unit in captured.executor.schedule.units
        if isinstance(getattr(unit, "operation", None), Call)
    ]


def check(step: Callable[..., list[Tensor]], given: list[Array], limit: float = 2e-6) -> None:
    """A program without calls that gives what float64 gives, about as exactly as eager mode."""
    singles = tensors(given)
    captured = Captured(step, singles)
    assert not calls(captured)
    wanted = step(*tensors(given, np.float64))
    for found, eager, exact in zip(captured(*singles), step(*singles), wanted):
        scale = abs(exact.numpy()).max() + 1e-30
        error = abs(eager.numpy() - exact.numpy()).max() / scale
        assert abs(found - exact.numpy()).max() / scale <= max(4 * error, limit)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [1, 8, 13])
def test_values_and_gradients_are_those_of_float64(kind: str, seed: int) -> None:
    check(*case(seed, kind))


@pytest.mark.parametrize("kind", ["lstm", "rnn"])
def test_wide_inputs_and_many_rows(kind: str) -> None:
    """More columns than sums are kept for at a time, long sums, several blocks of rows."""
    rng = np.random.default_rng(0)
    sizes = [(9, 25, 530), (KINDS[kind] * 18, 530), (KINDS[kind] * 18, 18)]
    weights = [rng.standard_normal((9, 25, 18)), *rng.standard_normal((2, 25, 18))]
    step = stepped(kind, ["x", "weight_ih", "weight_hh"], {}, weights)
    check(step, [rng.standard_normal(size) * size[-1] ** -0.5 for size in sizes], 1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [4])
def test_what_is_not_finite_is_where_eager_mode_has_it(kind: str, seed: int) -> None:
    step, given = case(seed, kind)
    rng = np.random.default_rng(seed)
    singles = tensors(given)
    captured = Captured(step, singles)
    for bad in (np.nan, np.inf, -np.inf):
        for k in range(len(given)):
            planted = [a.astype(np.float32, order="K") for a in given]
            planted[k][tuple(int(rng.integers(n)) for n in planted[k].shape)] = bad
            changed = [Tensor(a, requires_grad=True) for a in planted]
            with np.errstate(all="ignore"):
                wanted = step(*changed)
            for found, eager in zip(captured(*changed), wanted):
                np.testing.assert_allclose(found, eager.numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_bits_do_not_depend_on_threads(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    gates = KINDS[kind]
    sizes = [(6, 37, 9), (gates * 40, 9), (gates * 40, 40), (gates * 40,)]
    names = ["x", "weight_ih", "weight_hh", "bias_ih"]
    weights = [rng.standard_normal((6, 37, 40)), *rng.standard_normal((2, 37, 40))]
    step = stepped(kind, names, {}, weights)
    given = tensors([rng.standard_normal(size) for size in sizes])
    found = []
    for count in (1, 2, 3):
        monkeypatch.setenv("TENSORGRAD_THREADS", str(count))
        captured = Captured(step, given)
        assert captured.executor.threads == count
        found += [[a.tobytes() for a in captured(*given)] for _ in range(2)]
    assert found[1:] == found[:1] * 5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [8, 4])
def test_narrower_vectors_give_the_same(
    kind: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("these are the widths of x86")
    step, given = case(13, kind)
    monkeypatch.setattr(compiler, "FLAGS", (*compiler.FLAGS, *WIDTHS[width]))
    check(step, given)


def test_a_projection_that_keeps_the_size_is_one() -> None:
    rng = np.random.default_rng(0)
    given = [0.5 * rng.standard_normal(size) for size in ((4, 3, 5), (24, 5), (24, 6), (6, 6))]
    weights = [rng.standard_normal((4, 3, 6)), *rng.standard_normal((2, 3, 6))]
    names = ["x", "weight_ih", "weight_hh", "weight_hr"]
    check(stepped("lstm", names, {}, weights), given)


def test_lengths_out_of_range_stop_a_program_before_anything_is_changed() -> None:
    x, w, u = tensors([np.ones((3, 2, 4)), np.ones((20, 4)), np.ones((20, 5))])

    @tg.compile
    def step(lengths: Tensor) -> Tensor:
        return nn.functional.lstm(x, w, u, lengths=lengths)[0].detach()

    lengths = Tensor(np.array([3, 1]))
    for _ in range(5):  # what follows is no call that is checked, and no capture
        step(lengths)
    for wrong in ([0, 3], [4, 3]):
        with pytest.raises(IndexError, match="lengths must be integers from 1 to"):
            step(Tensor(np.array(wrong)))


@pytest.mark.parametrize("kind", KINDS)
def test_training_steps_are_those_of_eager_mode(kind: str) -> None:
    rng = np.random.default_rng(0)
    x, target = Tensor(rng.standard_normal((7, 6, 5))), Tensor(rng.standard_normal((7, 6, 36)))
    losses = []
    for compiled in (False, True):
        generator = tg.random.Generator(0)
        layer = getattr(nn, kind.upper())(5, 18, bidirectional=True, generator=generator)
        optimizer = tg.optim.Adam(layer.parameters(), lr=0.01)

        def step(x: Tensor, layer: Any = layer, optimizer: Any = optimizer) -> Tensor:
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(layer(x)[0], target)
            loss.backward()
            optimizer.step()
            return loss

        call: Any = tg.compile(step, executor="native") if compiled else step
        losses.append([float(call(x).detach()) for _ in range(5)])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_second_gradients_are_those_of_eager_mode(kind: str) -> None:
    rng = np.random.default_rng(1)
    gates = KINDS[kind]
    given = [rng.standard_normal(s) for s in ((2, 2, 2), (gates * 3, 2), (gates * 3, 3))]

    def step(*given: Tensor) -> list[Tensor]:
        y = getattr(nn.functional, kind)(*given)[0]
        first = tg.autograd.grad(tg.sum(y * y), list(given), create_graph=True)
        squares = sum((tg.sum(d * d) for d in first), Tensor(0.0))
        return list(tg.autograd.grad(squares, list(given)))

    singles = tensors(given)
    for found, exact in zip(Captured(step, singles)(*singles), step(*tensors(given, np.float64))):
        np.testing.assert_allclose(found, exact.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("twice", [False, True])
def test_what_comes_backward_takes_the_place_of_the_gates(kind: str, twice: bool) -> None:
    """Unless a second pass reads these again."""
    tg.manual_seed(0)
    layer = getattr(nn, kind.upper())(5, 19)
    parameters = list(layer.parameters())

    def step(x: Tensor) -> list[Tensor]:
        for p in parameters:
            p.grad = None
        y = layer(x)[0]
        if twice:
            y.square().sum().backward(retain_graph=True)
        y.sin().sum().backward()
        return [p.grad * 1.0 for p in parameters if p.grad is not None]

    x = Tensor(np.random.default_rng(0).standard_normal((7, 9, 5)), dtype=np.float32)
    right = [g.numpy() for g in step(x)]
    compiled = tg.compile(step)
    for _ in range(2):
        for a, b in zip(compiled(x), right, strict=True):
            np.testing.assert_allclose(a.numpy(), b, rtol=2e-4, atol=2e-5)
    executor: Any = compiled._last().executor
    assert "call" not in compiled.report()
    where = [
        (executor._offsets[op.outputs[0].storage], executor._offsets[op.inputs[-2].storage])
        for op in (u.operation for u in executor.schedule.units if hasattr(u, "operation"))
        if getattr(op, "function", "") == f"{kind}_back"
    ]
    assert [d == gates for d, gates in where] == ([False, True] if twice else [True])
