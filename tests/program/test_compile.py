"""What a replay leaves behind, what is captured anew, and what is refused."""

from __future__ import annotations

import os
import random
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from program.executors import EVERY_EXECUTOR, EXECUTORS
from sampler import draw, host

import tensorgrad as tg
from tensorgrad import Tensor, nn, optim
from tensorgrad.autograd import custom_operation
from tensorgrad.errors import CompileError
from tensorgrad.nn import functional
from tensorgrad.ops.random import Generator, default_generator
from tensorgrad.ops.table import OPERATIONS, Operation
from tensorgrad.program import Compiled, compile, fast_call  # noqa: A004
from tensorgrad.program.executors import c_source
from tensorgrad.program.executors import numpy as numpy_executor
from tensorgrad.program.guards import Guards

Array = np.ndarray[Any, Any]


def numbers(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def labels(n: int, classes: int, seed: int = 0) -> Tensor:
    return Tensor(np.random.default_rng(seed).integers(0, classes, n))


def network(*layers: nn.Module, seed: int = 0) -> nn.Sequential:
    generator = Generator(seed)
    for layer in layers:
        if isinstance(layer, nn.Linear):
            layer.reset_parameters(generator)
    return nn.Sequential(*layers)


OPTIMIZERS: dict[str, Callable[[Any], optim.Optimizer]] = {
    "sgd": lambda p: optim.SGD(p, lr=0.1),
    "momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "dampening": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.3),
    "maximize": lambda p: optim.SGD(p, lr=0.01, momentum=0.9, maximize=True),
    "adam": lambda p: optim.Adam(p, lr=0.01),
    "adam decay": lambda p: optim.Adam(p, lr=0.01, weight_decay=0.1),
    "amsgrad": lambda p: optim.Adam(p, lr=0.01, amsgrad=True),
    "adamw": lambda p: optim.AdamW(p, lr=0.01),
    "adagrad": lambda p: optim.Adagrad(p, lr=0.05),
    "rmsprop": lambda p: optim.RMSprop(p, lr=0.005, momentum=0.5, centered=True),
}


def training(
    model: nn.Module,
    optimizer: optim.Optimizer,
    loss: Callable[..., Tensor] = functional.cross_entropy,
) -> Callable[..., Tensor]:
    def step(x: Tensor, y: Tensor) -> Tensor:
        optimizer.zero_grad()
        value = loss(model(x), y)
        value.backward()
        optimizer.step()
        return value

    return step


def state_of(model: nn.Module) -> list[Array]:
    found = [p.detach().numpy().copy() for p in model.parameters()]
    return found + [p.grad.numpy().copy() for p in model.parameters() if p.grad is not None]


def assert_alike(runs: list[list[Array]], rtol: float = 1e-4) -> None:
    a, b = runs
    assert len(a) == len(b)
    for x, y in zip(a, b):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=2e-6)


@EVERY_EXECUTOR
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_leaves_what_eager_leaves(name: str, executor: str) -> None:
    found, states = [], []
    for compiled in (False, True):
        model = network(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))
        optimizer = OPTIMIZERS[name](model.parameters())
        step: Any = training(model, optimizer)
        if compiled:
            step = compile(step, executor=executor)
        losses = [
            step(Tensor(numbers(5, 6, seed=k)), labels(5, 3, seed=k)).item() for k in range(8)
        ]
        found.append([np.array(losses), *state_of(model)])
        states.append([v.numpy() for p in model.parameters() for v in optimizer.state[p].values()])
        if compiled:
            assert step.captures == 1
    assert_alike(found)
    assert_alike(states)


@EVERY_EXECUTOR
@pytest.mark.parametrize(
    "layers",
    [
        lambda: [nn.Linear(6, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 3)],
        lambda: [nn.Linear(6, 8), nn.RMSNorm(8), nn.SiLU(), nn.Linear(8, 3)],
        lambda: [nn.Linear(6, 8), nn.Sigmoid(), nn.Linear(8, 3), nn.LogSoftmax()],
        lambda: [nn.Linear(6, 8), nn.ELU(), nn.Linear(8, 3), nn.Softmax()],
        lambda: [nn.Linear(6, 8), nn.Softplus(), nn.LeakyReLU(0.2), nn.Linear(8, 3)],
        lambda: [
            nn.Linear(6, 40),
            nn.ReLU(),
            *[nn.Linear(40, 40), nn.ReLU()] * 3,
            nn.Linear(40, 3),
        ],
    ],
)
def test_networks(layers: Callable[[], list[nn.Module]], executor: str) -> None:
    found = []
    for compiled in (False, True):
        model = network(*layers())
        step: Any = training(model, optim.Adam(model.parameters(), lr=0.01))
        if compiled:
            step = compile(step, executor=executor)
        for k in range(4):
            step(Tensor(numbers(7, 6, seed=k)), labels(7, 3, seed=k))
        found.append(state_of(model))
    assert_alike(found, rtol=1e-3)


@EVERY_EXECUTOR
def test_learning_rate_is_taken_anew(executor: str) -> None:
    found = []
    for compiled in (False, True):
        model = network(nn.Linear(4, 3))
        optimizer = optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
        step: Any = training(model, optimizer)
        if compiled:
            step = compile(step, executor=executor)
        for k in range(5):
            optimizer.param_groups[0]["lr"] = 0.5 / (k + 1)
            step(Tensor(numbers(5, 4)), labels(5, 3))
        found.append(state_of(model))
        assert not compiled or step.captures == 1
    assert_alike(found)


@EVERY_EXECUTOR
def test_dropout_draws_fresh_bits(executor: str) -> None:
    found = []
    for compiled in (False, True):
        default_generator.seed(3)
        model = network(nn.Linear(4, 64), nn.Dropout(0.5), nn.Linear(64, 3))
        step: Any = training(model, optim.SGD(model.parameters(), lr=0.1))
        if compiled:
            step = compile(step, executor=executor)
        losses = [step(Tensor(numbers(5, 4)), labels(5, 3)).item() for _ in range(4)]
        assert len(set(losses)) == 4
        found.append([np.array(losses), np.array(default_generator.state()), *state_of(model)])
    assert_alike(found)


@EVERY_EXECUTOR
def test_modes_are_programs_of_their_own(executor: str) -> None:
    model = network(nn.Linear(4, 32), nn.Dropout(0.5))
    call = compile(model, executor=executor)
    x = Tensor(numbers(3, 4))
    with tg.no_grad():
        assert not np.array_equal(call(x).numpy(), call(x).numpy())
        model.eval()
        np.testing.assert_allclose(call(x).numpy(), call(x).numpy())
        np.testing.assert_allclose(call(x).numpy(), model(x).numpy(), rtol=1e-5)
        model.train()
        assert not np.array_equal(call(x).numpy(), call(x).numpy())
    assert call.captures == 2


@EVERY_EXECUTOR
def test_gradients_accumulate(executor: str) -> None:
    found = []
    for compiled in (False, True):
        model = network(nn.Linear(4, 3))

        def add(x: Tensor, y: Tensor, model: nn.Module = model) -> Tensor:
            loss = functional.cross_entropy(model(x), y)
            loss.backward()
            return loss

        step: Any = compile(add, executor=executor) if compiled else add
        for k in range(5):
            step(Tensor(numbers(5, 4, seed=k)), labels(5, 3, seed=k))
        if compiled:
            assert step.captures == 2  # without a gradient to add to, and with one
        found.append(state_of(model))
    assert_alike(found)


@EVERY_EXECUTOR
def test_clipping(executor: str) -> None:
    found = []
    for compiled in (False, True):
        model = network(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        optimizer = optim.SGD(model.parameters(), lr=0.1)

        def step(x: Tensor, y: Tensor, model: Any = model, optimizer: Any = optimizer) -> Any:
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(x), y)
            loss.backward()
            norm = optim.clip_grad_norm_(model.parameters(), 0.1)
            optim.clip_grad_value_(model.parameters(), 0.05)
            optimizer.step()
            return loss, norm

        call: Any = compile(step, executor=executor) if compiled else step
        norms = [
            call(Tensor(numbers(5, 4, seed=k)), labels(5, 3, seed=k))[1].item() for k in range(4)
        ]
        found.append([np.array(norms), *state_of(model)])
    assert_alike(found)


@EVERY_EXECUTOR
def test_gradients_of_gradients_inside(executor: str) -> None:
    def penalty(x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        (g,) = tg.autograd.grad((x * x * x).sum(), [x], create_graph=True)
        (h,) = tg.autograd.grad((g * g).sum(), [x])
        return h

    call = compile(penalty, executor=executor)
    for k in range(3):
        x = numbers(4, seed=k)
        np.testing.assert_allclose(call(Tensor(x)).numpy(), 36 * x**3, rtol=1e-5)
    assert call.captures == 1


@EVERY_EXECUTOR
def test_running_statistics(executor: str) -> None:
    class Normalize(nn.Module):
        mean: Tensor

        def __init__(self) -> None:
            self.register_buffer("mean", Tensor(np.zeros(4, np.float32)))

        def forward(self, x: Tensor) -> Tensor:
            with tg.no_grad():
                self.mean.copy_(self.mean * 0.9 + x.mean(axis=0) * 0.1)
            return x - self.mean

    found = []
    for compiled in (False, True):
        model = Normalize()
        call: Any = compile(model, executor=executor) if compiled else model
        outs = [call(Tensor(numbers(5, 4, seed=k))).numpy() for k in range(4)]
        found.append([*outs, model.mean.numpy()])
    assert_alike(found)


@EVERY_EXECUTOR
def test_tensors_assigned_by_the_user_are_used(executor: str) -> None:
    model = network(nn.Linear(4, 3))
    call = compile(model, executor=executor)
    x = Tensor(numbers(2, 4))
    with tg.no_grad():
        call(x)
        call(x)
        model[0].weight.data = numbers(3, 4, seed=9)  # type: ignore[attr-defined]
        np.testing.assert_allclose(call(x).numpy(), model(x).numpy(), rtol=1e-5)
        model[0].weight = nn.Parameter(numbers(3, 4, seed=8))
        np.testing.assert_allclose(call(x).numpy(), model(x).numpy(), rtol=1e-5)
        model[0].bias.copy_(Tensor(numbers(3, seed=7)))  # type: ignore[attr-defined]
        np.testing.assert_allclose(call(x).numpy(), model(x).numpy(), rtol=1e-5)
        model[0].weight.data = np.asfortranarray(numbers(3, 4, seed=6))  # type: ignore[attr-defined]
        np.testing.assert_allclose(call(x).numpy(), model(x).numpy(), rtol=1e-5)


@EVERY_EXECUTOR
def test_what_a_replay_returned_stays(executor: str) -> None:
    model = network(nn.Linear(4, 3))
    step = compile(training(model, optim.SGD(model.parameters(), lr=0.1)), executor=executor)
    x, y = Tensor(numbers(5, 4)), labels(5, 3)
    step(x, y)
    losses = [step(x, y) for _ in range(3)]
    assert len({v.item() for v in losses}) == 3
    weight = model[0].weight  # type: ignore[attr-defined]
    held, array, part = weight.grad, weight.grad.numpy(), weight.grad.numpy()[1:]
    copies = held.numpy().copy()
    step(x, y)
    np.testing.assert_array_equal(held.numpy(), copies)
    np.testing.assert_array_equal(array, copies)
    del held, array
    step(x, y)
    np.testing.assert_array_equal(part, copies[1:])
    assert not np.array_equal(weight.grad.numpy(), copies)


# --- mistakes that are easily made ----------------------------------------------------------------

SCALE = 2.0
TABLE = {"scale": 2.0}
OTHER = Tensor(np.ones(3, np.float32))


def _closure() -> tuple[Callable[..., Any], Callable[[], None]]:
    factor = 2.0

    def f(x: Tensor) -> Tensor:
        return x * factor

    def change() -> None:
        nonlocal factor
        factor = 3.0

    return f, change


def _closure_tensor() -> tuple[Callable[..., Any], Callable[[], None]]:
    other = Tensor(numbers(3))

    def f(x: Tensor) -> Tensor:
        return x * other

    def change() -> None:
        nonlocal other
        other = Tensor(numbers(3, seed=5))

    return f, change


def _closure_in_place() -> tuple[Callable[..., Any], Callable[[], None]]:
    other = Tensor(numbers(3))

    def change() -> None:
        other.copy_(Tensor(numbers(3, seed=5)))

    return (lambda x: x * other), change


def _global() -> tuple[Callable[..., Any], Callable[[], None]]:
    def change() -> None:
        global SCALE
        SCALE += 1.0

    return (lambda x: x * SCALE), change


def _global_dict() -> tuple[Callable[..., Any], Callable[[], None]]:
    return (lambda x: x * TABLE["scale"]), (lambda: TABLE.update(scale=TABLE["scale"] + 1.0))


def _list() -> tuple[Callable[..., Any], Callable[[], None]]:
    factors = [1.0, 2.0]
    return (lambda x: x * factors[1]), (lambda: factors.append(factors.pop() + 1.0))


def _helper() -> tuple[Callable[..., Any], Callable[[], None]]:
    factor = 2.0

    def helper(x: Tensor) -> Tensor:
        return x * factor

    def change() -> None:
        nonlocal factor
        factor = 5.0

    return (lambda x: helper(x) + 1.0), change


def _attribute() -> tuple[Callable[..., Any], Callable[[], None]]:
    class Scaled(nn.Module):
        factor = 2.0

        def forward(self, x: Tensor) -> Tensor:
            return x * self.factor

    model = Scaled()
    model.factor = 2.0
    return model, lambda: setattr(model, "factor", 7.0)


def _plain_object() -> tuple[Callable[..., Any], Callable[[], None]]:
    class Scaled:
        def __init__(self) -> None:
            self.factor = 2.0

        def __call__(self, x: Tensor) -> Tensor:
            return x * self.factor

    found = Scaled()
    return found, lambda: setattr(found, "factor", 7.0)


def _method() -> tuple[Callable[..., Any], Callable[[], None]]:
    class Scaled:
        def __init__(self) -> None:
            self.factor = 2.0

        def scale(self, x: Tensor) -> Tensor:
            return x * self.factor

    found = Scaled()
    return found.scale, lambda: setattr(found, "factor", 7.0)


def _dropout_rate() -> tuple[Callable[..., Any], Callable[[], None]]:
    model = nn.Dropout(0.0)
    return model, lambda: setattr(model, "p", 1.0)


def _swapped_layer() -> tuple[Callable[..., Any], Callable[[], None]]:
    model = network(nn.Linear(3, 3))
    return model, lambda: setattr(model, "0", network(nn.Linear(3, 3), seed=4)[0])


def _appended_layer() -> tuple[Callable[..., Any], Callable[[], None]]:
    model = network(nn.Linear(3, 3))
    return model, lambda: model.__setattr__("1", nn.ReLU())


def _loaded() -> tuple[Callable[..., Any], Callable[[], None]]:
    model, other = network(nn.Linear(3, 3)), network(nn.Linear(3, 3), seed=4)
    return model, lambda: model.load_state_dict(other.state_dict()) and None


def _frozen() -> tuple[Callable[..., Any], Callable[[], None]]:
    model = network(nn.Linear(3, 3))

    def f(x: Tensor) -> Any:
        model.zero_grad()
        out = model(x).sum()
        out.backward()
        grads = [p.grad for p in model.parameters()]
        return [out.detach(), *[g for g in grads if g is not None]]

    def freeze() -> None:
        model[0].weight.requires_grad_(False)  # type: ignore[attr-defined]

    return f, freeze


def _threshold() -> tuple[Callable[..., Any], Callable[[], None]]:
    limits = {"low": -1.0, "high": 1.0}
    return (lambda x: x.clip(limits["low"], limits["high"])), (lambda: limits.update(high=0.1))


CHANGES = [
    _closure, _closure_tensor, _closure_in_place, _global, _global_dict, _list, _helper,
    _attribute, _plain_object, _method, _dropout_rate, _swapped_layer, _appended_layer, _loaded,
    _frozen, _threshold,
]  # fmt: skip


@EVERY_EXECUTOR
@pytest.mark.parametrize("planted", CHANGES, ids=lambda f: f.__name__)
def test_changes_are_seen(planted: Callable[..., Any], executor: str) -> None:
    f, change = planted()
    call = compile(f, executor=executor)

    def same() -> None:
        x = Tensor(numbers(4, 3))
        found, wanted = call(x), f(x)
        for a, b in zip(
            found if isinstance(found, list) else [found],
            wanted if isinstance(wanted, list) else [wanted],
            strict=True,
        ):
            np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-5)

    for _ in range(3):
        same()
    assert call.captures == 1
    change()
    for _ in range(3):
        same()


@EVERY_EXECUTOR
def test_shapes_dtypes_and_constants_are_programs_of_their_own(executor: str) -> None:
    call = compile(lambda x, k, scale=1.0: (x * k).sum(axis=0) * scale, executor=executor)
    for _ in range(2):
        for dtype in (np.float32, np.float64):
            for shape in ((2, 3), (4, 3)):
                for k in (2, 2.5):
                    x: Any = numbers(*shape).astype(dtype)
                    for more in ({}, {"scale": 3.0}):
                        out = call(Tensor(x), k, **more).numpy()
                        assert out.dtype == dtype
                        wanted = (x * k).sum(axis=0) * more.get("scale", 1.0)
                        np.testing.assert_allclose(out, wanted, rtol=1e-5)


def test_more_shapes_than_programs_are_kept() -> None:
    """Those that are too many run as they are, and say so; the others are not captured again."""
    call = compile(lambda x: (x * 2.0).sum(), limit=3, executor="numpy")
    made = []

    def in_turn() -> None:
        for _ in range(12):
            for n in range(1, 6):
                assert call(Tensor(np.full(n, 1.5))).item() == 3.0 * n
            made.append(call.captures)

    with pytest.warns(UserWarning, match="more than 3 programs are wanted in turn"):
        in_turn()
    assert made[-1] == made[-6]
    assert "more than 3 programs" in call.report()


def test_oldest_program_is_dropped() -> None:
    call = compile(lambda x: x + 1.0, limit=2, executor="numpy")
    for n in (1, 2, 3):
        call(Tensor(numbers(n)))
    assert call.captures == 3
    call(Tensor(numbers(3)))
    assert call.captures == 3
    call(Tensor(numbers(1)))
    assert call.captures == 4


REFUSED: dict[str, Callable[[Tensor], Any]] = {
    "item": lambda x: x * x.sum().item(),
    "float": lambda x: x * float(x.sum()),
    "bool": lambda x: x if (x > 0).all() else -x,
    "int": lambda x: x[: int(x.sum().astype(tg.int64))],
    "numpy": lambda x: Tensor(x.detach().numpy() * 2),
    "tolist": lambda x: Tensor(x.tolist()),
    "print": lambda x: repr(x),
    "array": lambda x: x * Tensor(np.random.default_rng().random(3).astype(np.float32)),
    "bare array": lambda x: x * np.ones(3, np.float32),
    "mask": lambda x: x[x > 0].sum(),
    "nonzero": lambda x: tg.nonzero(x)[0],
    "random": lambda x: x * random.random(),
    "numpy.random": lambda x: x * np.random.rand(),  # noqa: NPY002
    "seed": lambda x: (default_generator.seed(0), default_generator.uniform((3,)) * x)[1],
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_place_and_remedy(name: str) -> None:
    with pytest.raises(CompileError, match=r"test_compile.py:\d+.*Remedy"):
        compile(REFUSED[name])(Tensor(numbers(3)))


def test_arguments_are_checked() -> None:
    call = compile(lambda x: x)
    with pytest.raises(CompileError, match="NumPy array"):
        call(numbers(3))
    with pytest.raises(TypeError, match="a function is needed"):
        compile(3)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="executor must be one of"):
        compile(lambda x: x, executor="gpu")
    with pytest.raises(ValueError, match="limit"):
        compile(lambda x: x, limit=0)
    with pytest.raises(CompileError, match="call the function first"):
        call.program()


@EVERY_EXECUTOR
def test_first_call_that_fails_leaves_what_it_did(executor: str) -> None:
    model = network(nn.Linear(4, 3))
    optimizer = optim.Adam(model.parameters())
    fail = [True]

    def step(x: Tensor, y: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        if fail[0]:
            raise RuntimeError("half-way")
        return loss

    before = [p.detach().numpy().copy() for p in model.parameters()]
    call = compile(step, executor=executor)
    x, y = Tensor(numbers(5, 4)), labels(5, 3)
    with pytest.raises(RuntimeError, match="half-way"):
        call(x, y)
    for p, b in zip(model.parameters(), before):
        assert (p.detach().numpy() != b).any()
        assert p.grad is not None
    fail[0] = False
    call(x, y)
    call(x, y)


@EVERY_EXECUTOR
def test_label_out_of_range_changes_nothing(executor: str) -> None:
    model = network(nn.Linear(4, 3))
    call = compile(training(model, optim.SGD(model.parameters(), lr=0.1)), executor=executor)
    x = Tensor(numbers(5, 4))
    for _ in range(2):
        call(x, labels(5, 3))
    before = [p.detach().numpy().copy() for p in model.parameters()]
    with pytest.raises(IndexError, match="a label must lie between 0 and 2"):
        call(x, Tensor(np.array([0, 1, 3, 0, 0])))
    with pytest.raises(IndexError, match="label number 1 is -1"):
        call(x, Tensor(np.array([0, -1, 2, 0, 0])))
    for p, b in zip(model.parameters(), before):
        np.testing.assert_array_equal(p.detach().numpy(), b)


@EVERY_EXECUTOR
def test_verify_finds_what_no_guard_sees(executor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    factors = [2.0]
    call = compile(lambda x: x * factors[0], executor=executor, verify=True)
    x = Tensor(numbers(3))
    for _ in range(3):
        call(x)
    monkeypatch.setattr(Guards, "hold", lambda self, arguments: True)  # a hole in the guards
    monkeypatch.setattr(call._last_used, "conditions", None)
    factors[0] = 3.0
    with pytest.raises(CompileError, match="result 0 differs by"):
        call(x)


@EVERY_EXECUTOR
@pytest.mark.parametrize("calls", [1, 2, 3, 5])
def test_checks_find_what_no_guard_sees(
    executor: str, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the calls 2, 4, 8 since the capture: then the function's numbers stand, for good."""
    factors, log = [2.0], []

    def step(x: Tensor) -> Tensor:
        log.append(x.sum())
        return x * factors[0]

    call = compile(step, executor=executor)
    x = Tensor(numbers(3))
    for _ in range(calls):
        call(x)
    monkeypatch.setattr(Guards, "hold", lambda self, arguments: True)
    monkeypatch.setattr(call._last_used, "conditions", None)
    factors[0] = 3.0
    check = 1 << calls.bit_length()  # the next of them
    for _ in range(check - calls - 1):
        call(x)
    with pytest.warns(UserWarning, match="runs as it is"):
        found = call(x)
    np.testing.assert_array_equal(found.numpy(), x.numpy() * np.float32(3.0))
    np.testing.assert_array_equal(call(x).numpy(), x.numpy() * np.float32(3.0))
    assert "does not do what the function does" in call.dropped
    assert call.dropped in call.report()
    assert call.executor == "python"
    assert len(log) == check + 1  # what Python does happened once in every call


@EVERY_EXECUTOR
def test_the_numbers_that_stay_are_the_programs(executor: str) -> None:
    """Bits do not depend on which calls were checked."""
    ends = []
    for forever in (False, True):
        model = network(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
        call = compile(training(model, optim.Adam(model.parameters(), lr=0.01)), executor=executor)
        for k in range(20):
            call(Tensor(numbers(5, 6, seed=k)), labels(5, 3, seed=k))
            if forever and call._last_used is not None:
                call._last_used.fast, call._last_used.calls = None, 4  # not the next one
        ends.append(state_of(model))
    for a, b in zip(*ends, strict=True):
        np.testing.assert_array_equal(a, b)


@EVERY_EXECUTOR
def test_verify_passes_where_nothing_is_wrong(executor: str) -> None:
    found = []
    for options in ({}, {"verify": 2}):
        default_generator.seed(1)
        model = network(nn.Linear(4, 16), nn.Dropout(0.3), nn.ReLU(), nn.Linear(16, 3))
        step = training(model, optim.Adam(model.parameters(), lr=0.01))
        call = compile(step, executor=executor, **options)
        for k in range(7):
            call(Tensor(numbers(5, 4, seed=k)), labels(5, 3, seed=k))
        found.append(state_of(model))
    assert_alike(found)


@EVERY_EXECUTOR
def test_views_of_one_memory(executor: str) -> None:
    base = Tensor(numbers(6))
    part = base[2:4]

    def f(x: Tensor) -> Tensor:
        part.copy_(x)
        return base * 2.0

    call = compile(f, executor=executor)
    for k in range(3):
        x = numbers(2, seed=k)
        out = call(Tensor(x)).numpy()
        np.testing.assert_allclose(out[2:4], 2 * x, rtol=1e-6)
        np.testing.assert_allclose(base.numpy()[2:4], x, rtol=1e-6)


@EVERY_EXECUTOR
def test_trees_of_results(executor: str) -> None:
    call = compile(
        lambda x: {"sum": x.sum(), "parts": (x[0], [x[1:], "text", 3])}, executor=executor
    )
    for k in range(3):
        x = numbers(4, seed=k)
        out = call(Tensor(x))
        np.testing.assert_allclose(out["sum"].numpy(), x.sum(), rtol=1e-5)
        first, (rest, text, three) = out["parts"]
        assert first.item() == x[0]
        assert text == "text"
        assert three == 3
        np.testing.assert_array_equal(rest.numpy(), x[1:])


@EVERY_EXECUTOR
def test_strided_arguments(executor: str) -> None:
    call = compile(lambda x: (x @ x.T).sum(axis=1), executor=executor)
    big = numbers(8, 10)
    call(Tensor(big[:4, :5]))
    for view in (big[::2, ::2], big[:4, 4::-1]):
        x = Tensor(np.zeros((4, 5), np.float32))
        x.data = view
        np.testing.assert_allclose(call(x).numpy(), (view @ view.T).sum(axis=1), rtol=1e-4)


@EVERY_EXECUTOR
def test_threads(executor: str) -> None:
    call = compile(lambda x: (x @ x).sum() + x.exp().sum(), executor=executor)
    wrong: list[float] = []

    def work(k: int) -> None:
        x = numbers(64, 64, seed=k) * 0.1
        wanted = float((x @ x).sum() + np.exp(x).sum())
        for _ in range(50):
            found = float(call(Tensor(x)))
            if abs(found - wanted) > 1e-2 * abs(wanted):
                wrong.append(found - wanted)

    workers = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert not wrong


@EVERY_EXECUTOR
def test_after_a_fork(executor: str) -> None:
    call = compile(lambda x: (x @ x).sum(), executor=executor)
    x = Tensor(numbers(300, 300))
    wanted = [call(x).item() for _ in range(2)][1]
    child = os.fork()
    if child == 0:
        os._exit(0 if abs(call(x).item() - wanted) < 1e-3 * abs(wanted) + 1e-3 else 1)
    assert os.waitpid(child, 0)[1] == 0


@EVERY_EXECUTOR
def test_nan_passes(executor: str) -> None:
    def f(x: Tensor) -> Any:
        return x.max(axis=1), tg.relu(x), tg.maximum(x, 0.5), functional.softmax(x, axis=1), x.max()

    call = compile(f, executor=executor)
    x = numbers(40, 37)
    x[3, 17] = np.nan
    with np.errstate(invalid="ignore"):
        for _ in range(2):
            for a, b in zip(call(Tensor(x)), f(Tensor(x))):
                np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5)


@EVERY_EXECUTOR
def test_ties_share(executor: str) -> None:
    def f(x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        x.max(axis=1).sum().backward()
        assert x.grad is not None
        return x.grad

    call = compile(f, executor=executor)
    for _ in range(2):
        out = call(Tensor(np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]], np.float32))).numpy()
        np.testing.assert_allclose(out, [[0, 0.5, 0.5], [1 / 3] * 3], rtol=1e-6)


@EVERY_EXECUTOR
def test_large_loops_on_several_threads(executor: str) -> None:
    def f(x: Tensor, w: Tensor, b: Tensor) -> Any:
        x, w = x.detach().requires_grad_(), w.detach().requires_grad_()
        y = (tg.sigmoid(x * w + b) * tg.relu(x - 0.1)).sum()
        y.backward()
        return y, x.grad, w.grad, (x * 2.0).sum(axis=0), x.max(axis=0)

    call = compile(f, executor=executor)
    x, w, b = (Tensor(numbers(1000, 300, seed=k)) for k in range(3))
    wanted = f(x, w, b)
    first = call(x, w, b)
    found = [call(x, w, b) for _ in range(3)]
    for k, v in enumerate(wanted):
        for run in (first, *found):
            np.testing.assert_allclose(
                run[k].detach().numpy(), v.detach().numpy(), rtol=1e-4, atol=1e-4
            )
        np.testing.assert_array_equal(found[0][k].numpy(), found[1][k].numpy())


def test_decorator_and_methods() -> None:
    class Model:
        def __init__(self) -> None:
            self.scale = 2.0

        @compile(executor="numpy")
        def run(self, x: Tensor) -> Tensor:
            """Scaled."""
            return x * self.scale

    assert isinstance(Model.run, Compiled)
    assert Model.run.__doc__ == "Scaled."


@EVERY_EXECUTOR
def test_objects_among_the_arguments(executor: str) -> None:
    class Scaled:
        def __init__(self) -> None:
            self.factor = 2.0

        @compile(executor=executor)
        def run(self, x: Tensor) -> Tensor:
            return x * self.factor

    scaled, x = Scaled(), Tensor(numbers(3))
    for factor in (2.0, 2.0, 5.0, 5.0):
        scaled.factor = factor
        np.testing.assert_allclose(scaled.run(x).numpy(), x.numpy() * factor, rtol=1e-6)


@EVERY_EXECUTOR
def test_hooks_added_later(executor: str) -> None:
    model = network(nn.Linear(4, 3))
    step = compile(training(model, optim.SGD(model.parameters(), lr=0.1)), executor=executor)
    x, y = Tensor(numbers(5, 4)), labels(5, 3)
    for _ in range(3):
        step(x, y)
    weight = next(model.parameters())
    before = weight.detach().numpy().copy()
    remove = weight.register_hook(lambda g: g * 0.0)
    step(x, y)
    np.testing.assert_array_equal(weight.detach().numpy(), before)
    remove()
    step(x, y)
    assert not np.array_equal(weight.detach().numpy(), before)


@EVERY_EXECUTOR
def test_a_view_of_a_weight_is_no_obstacle(executor: str) -> None:
    """x @ w.T takes a view of what the optimizer overwrites, and does not use it afterwards."""
    w = Tensor(numbers(3, 4), requires_grad=True)
    optimizer = optim.SGD([w], lr=0.1)

    def f(x: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = tg.square(x @ w.T).mean()
        loss.backward()
        optimizer.step()
        return loss

    call = compile(f, executor=executor)
    losses = [call(Tensor(numbers(5, 4))).item() for _ in range(5)]
    assert losses == sorted(losses, reverse=True)
    assert not call.program().aliased


@EVERY_EXECUTOR
def test_a_view_used_after_the_overwriting(executor: str) -> None:
    w = Tensor(numbers(3, 4))

    def f(x: Tensor) -> Tensor:
        view = w[1]
        w.copy_(x)
        return view * 2.0

    call = compile(f, executor=executor)
    for k in range(3):
        x = numbers(3, 4, seed=k)
        np.testing.assert_allclose(call(Tensor(x)).numpy(), 2 * x[1], rtol=1e-6)


def test_data_assigned_inside_is_refused() -> None:
    w = Tensor(numbers(3))

    def f(x: Tensor) -> Tensor:
        y = x * w
        w.data = w.data + 1.0
        return y

    with pytest.raises(CompileError, match=r"numbers in .data of a tensor are read"):
        compile(f)(Tensor(numbers(3)))


def test_a_module_that_counts_is_given_up() -> None:
    class Counting(nn.Module):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls = self.calls + 1
            return x + float(self.calls)

    model = Counting()
    call = compile(model, executor="numpy")
    x = Tensor(np.zeros(2))
    with pytest.warns(UserWarning, match=r"Counting runs as it is .* 'calls' of a dict, read at"):
        found = [float(call(x).numpy()[0]) for _ in range(30)]
    assert found == sorted(found)
    assert call.captures <= 12


def test_report_and_program_are_readable() -> None:
    model = network(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    step = compile(training(model, optim.SGD(model.parameters(), lr=0.1)))
    step(Tensor(numbers(5, 4)), labels(5, 3))
    program = step.program()
    assert "linear(" in str(program)
    assert "return %" in str(program)
    assert '"op": "linear"' in program.to_json()
    assert program.to_dot().startswith("digraph")
    assert "executor" in step.report()


@pytest.mark.skipif("native" not in EXECUTORS, reason="there is no C compiler")
def test_the_report_says_what_is_moved() -> None:
    """One pass that reads 100 numbers and writes 100; a call reads and writes as many."""
    x = Tensor(numbers(10, 10))
    call = compile(lambda x: (x * 2.0 + 1.0).exp(), executor="native")
    call(x)
    item = x.dtype.itemsize
    assert f"; {200 * item:,} bytes, " in call.report()
    sorts = compile(lambda x: tg.sort(x * 2.0), executor="native")
    sorts(x)
    lines = sorts.report().splitlines()
    assert f"; {200 * item:,} bytes, " in next(line for line in lines if "nest" in line)
    places = 100 * item + 100 * 8
    assert f"; {places:,} bytes, " in next(line for line in lines if "call argsort" in line)


@EVERY_EXECUTOR
def test_large_results_stay(executor: str) -> None:
    call = compile(lambda x: (x * 2.0, x.exp(), x + 0.0), executor=executor)
    kept = []
    for k in range(6):
        x = numbers(200, 300, seed=k)
        out = call(Tensor(x))
        kept.append((x, out[0], out[1].numpy()[5:]))
        del out
    for x, double, part in kept:
        np.testing.assert_array_equal(double.numpy(), x * 2)
        np.testing.assert_allclose(part, np.exp(x)[5:], rtol=1e-5)
    first = call(Tensor(x))[2].data.ctypes.data
    if executor == "native":  # nobody kept it: the same memory serves again
        assert call(Tensor(x))[2].data.ctypes.data == first


@EVERY_EXECUTOR
def test_long_chains(executor: str) -> None:
    """Longer than a nest, and than Python's stack of calls would allow to look back."""

    def f(x: Tensor) -> Any:
        x = x.detach().requires_grad_()
        y, total = x, x.sum()
        for k in range(700):
            y = tg.tanh(y) if k % 7 == 0 else y * 1.01 - 0.01
            total = total * 0.999 + 0.001
        (y.sum() * total).backward()
        return y, x.grad

    call = compile(f, executor=executor)
    for k in range(2):
        x = Tensor(numbers(4, 3, seed=k))
        for a, b in zip(call(x), f(x)):
            np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-3, atol=1e-6)
    assert call.captures == 1


@EVERY_EXECUTOR
def test_integers_wrap_around(executor: str) -> None:
    call = compile(lambda x: x * x + x, executor=executor)
    big = np.array([2**62, -(2**63), 3], np.int64)
    with np.errstate(over="ignore"):
        for _ in range(2):
            np.testing.assert_array_equal(call(Tensor(big)).numpy(), big * big + big)


@EVERY_EXECUTOR
def test_long_rows_and_many_phases(executor: str) -> None:
    """Rows too long to be kept on the stack between the passes over them."""

    def f(x: Tensor) -> Any:
        return functional.softmax(x, axis=1), functional.layer_norm(tg.exp(x), (x.shape[1],))

    call = compile(f, executor=executor)
    for k in range(2):
        x = numbers(3, 9000, seed=k)
        for a, b in zip(call(Tensor(x)), f(Tensor(x))):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=2e-4, atol=1e-5)


@EVERY_EXECUTOR
def test_reductions_over_every_choice_of_axes(executor: str) -> None:
    axes: list[Any] = [0, 1, 2, (0, 1), (0, 2), (1, 2), (0, 1, 2)]

    def f(x: Tensor) -> Any:
        return [r for a in axes for r in (x.sum(axis=a), x.max(axis=a), (x * x).mean(axis=a))]

    call = compile(f, executor=executor)
    for k in range(2):
        x = Tensor(numbers(4, 5, 6, seed=k))
        for a, b in zip(call(x), f(x)):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-5)
        y = Tensor(numbers(6, 5, 4, seed=k))
        y.data = y.data.T  # another layout of the same shape
        for a, b in zip(call(y), f(y)):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-5)


@EVERY_EXECUTOR
def test_stacks_of_matrices(executor: str) -> None:
    def f(q: Tensor, k: Tensor, v: Tensor) -> Any:
        q, k, v = (t.detach().requires_grad_() for t in (q, k, v))
        scores = functional.softmax(q @ k.mT * 0.125, axis=-1)
        out = scores @ v
        (out * out).sum().backward()
        return out, q.grad, k.grad, v.grad

    call = compile(f, executor=executor)
    for seed in range(3):
        given = [Tensor(numbers(2, 4, 40, 16, seed=seed + j)) for j in range(3)]
        for a, b in zip(call(*given), f(*given)):
            np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-3, atol=1e-5)
    assert call.captures == 1


# --- large chains: in tiles, and past the caches --------------------------------------------------


@EVERY_EXECUTOR
@pytest.mark.parametrize("size", [1 << 18, (1 << 18) + 7])
def test_large_chains(executor: str, size: int) -> None:
    """Values in the middle that are seen, numbers, truth values, and memory with gaps."""

    def f(x: Tensor, w: Tensor) -> list[Tensor]:
        y = tg.sigmoid(x * 1.5 - w)
        z = tg.where(y > 0.5, y * x, tg.relu(x) + 2.0)
        return [z, y, (z * y).sum(), tg.maximum(z, y).max()]

    call = compile(f, executor=executor)
    room = numbers(2 * size)
    for k in range(3):
        x = Tensor(room + k, dtype=tg.float32)
        x.data = x.data[::2]
        w = Tensor(0.25 * k, dtype=tg.float32)
        for a, b in zip(call(x, w), f(x, w), strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize(
    "row", [row for row in OPERATIONS.values() if row.elementwise], ids=lambda row: row.name
)
def test_every_elementwise_row_in_tiles(row: Operation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Value and gradient, in tiles of four elements, are those of eager mode to the last bit."""
    monkeypatch.setattr(numpy_executor, "_LARGE", 2)
    monkeypatch.setattr(numpy_executor, "_TILE", 4)
    for number in range(len(row.cases)):
        call = draw(row, number)
        given = [
            Tensor(a, dtype=tg.float32 if a.dtype == np.float64 else None)
            for a in call.arrays(floats=False)
        ]

        def step(*tensors: Tensor, call: Any = call) -> list[Tensor]:
            mine = [t.detach().requires_grad_() if t.dtype == tg.float32 else t for t in tensors]
            following = iter(mine)
            y = call.map(lambda _: next(following), floats=False).of(row.function)
            if y.requires_grad:
                y.sum().backward()
            return [y.detach() * 1, *[t.grad for t in mine if t.grad is not None]]

        compiled = compile(step, executor="numpy")
        for _ in range(2):
            for a, b in zip(compiled(*given), step(*given), strict=True):
                np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=str(number))
        assert "shared_out" in compiled._last().executor.text or row.name not in ("exp", "gelu")


@EVERY_EXECUTOR
def test_gradients_of_large_chains(executor: str) -> None:
    x = Tensor(numbers(1 << 18), dtype=tg.float32, requires_grad=True)

    def step() -> Tensor:
        x.grad = None
        loss = (tg.tanh(x * x) * tg.exp(-x)).sum()
        loss.backward()
        return loss

    call = compile(step, executor=executor)
    loss = step().item()
    assert x.grad is not None
    wanted = x.grad.numpy().copy()
    for _ in range(3):
        assert abs(call().item() - loss) <= 1e-4 * abs(loss)
        np.testing.assert_allclose(x.grad.numpy(), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif("native" not in EXECUTORS, reason="there is no C compiler")
def test_results_past_the_caches() -> None:
    """Results of 32 MiB are written without being read before; the last block is not whole."""
    size = (1 << 23) + 1001
    call = compile(lambda x: x * 2.0 + 1.0, executor="native")
    x = Tensor(np.arange(size), dtype=tg.float32)
    for _ in range(2):
        np.testing.assert_array_equal(call(x).numpy(), x.numpy() * 2 + 1)
    assert "tg_stream" in call._last().executor.text


# --- gradients from elsewhere ---------------------------------------------------------------------


@EVERY_EXECUTOR
def test_gradients_that_are_assigned(executor: str) -> None:
    """From outside, as evolution strategies do; computed in the step; and by argument, refused."""
    given = [Tensor(numbers(3, 2)), Tensor(numbers(2))]
    ends = []
    for compiled in (False, True):
        params = [Tensor(numbers(3, 2), requires_grad=True), Tensor(numbers(2), requires_grad=True)]
        update = optim.Adam(params, lr=0.1)

        def step(scale: Tensor, params: Any = params, update: optim.Adam = update) -> Tensor:
            params[0].grad = given[0]
            params[1].grad = given[1] * scale
            update.step()
            return (params[0] ** 2).sum().detach()

        run: Any = compile(step, executor=executor) if compiled else step
        found = [run(Tensor(float(k))).item() for k in range(4)]
        assert params[0].grad is given[0]
        ends.append((found, *[host(p) for p in params], host(params[1].grad)))
    for a, b in zip(*ends, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)

    def assign(g: Tensor) -> None:
        params[0].grad = g

    with pytest.raises(CompileError, match=r"p\.grad = g\.clone"):
        compile(assign, executor=executor)(given[0])


@pytest.mark.skipif("native" not in EXECUTORS, reason="there is no C compiler")
@pytest.mark.parametrize("name", ["Adam", "RMSprop", "Lion"])
def test_parameters_whose_gradient_is_rounding(name: str) -> None:
    """A bias before a batch normalization has no effect: its gradient is noise, its steps whole."""
    default_generator.seed(0)
    model = network(nn.Linear(7, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 3))
    update = getattr(optim, name)(model.parameters(), lr=0.01)
    call = compile(training(model, update), verify=2)
    for k in range(6):
        call(Tensor(numbers(12, 7) + k), labels(12, 3))
    executor = call._last().executor
    assert executor.name == "native", executor.reason


@pytest.mark.skipif("native" not in EXECUTORS, reason="there is no C compiler")
@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (" / ", " * 0.98f / "),
        ("0.10000000149011612f", "0.102f"),
        ("tg_tanh_f(", "1.001f * tg_tanh_f("),
    ],
)
def test_mistakes_are_not_taken_for_rounding(
    right: str, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where gradients are noise as well as elsewhere: C with a mistake in it is not used."""
    write = c_source.write

    def planted(*given: Any) -> Any:
        made = write(*given)
        assert right in made.text
        made.text = made.text.replace(right, wrong)
        return made

    monkeypatch.setattr(c_source, "write", planted)
    default_generator.seed(0)
    model = network(nn.Linear(7, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 3))
    update = optim.Adam(model.parameters(), lr=0.01)
    call = compile(training(model, update))
    call(Tensor(numbers(12, 7)), labels(12, 3))
    executor = call._last().executor
    assert executor.name == "numpy"
    assert "did something else" in executor.reason


@pytest.mark.skipif("native" not in EXECUTORS, reason="there is no C compiler")
def test_adam_where_gradients_are_next_to_nothing() -> None:
    """The last bit of a gradient near 0 moves a parameter by a good part of the learning rate."""
    draw = np.random.default_rng(0)
    x = Tensor(draw.normal(size=(64, 256)).astype(np.float32))
    w = Tensor(draw.normal(size=(256, 512)).astype(np.float32) * 1e-6, requires_grad=True)
    update = optim.Adam([w], lr=1e-3)

    def step() -> Tensor:
        update.zero_grad()
        loss = (tg.tanh(x @ w) * 1e-6).sum()
        loss.backward()
        update.step()
        return loss

    call = compile(step)
    call()
    assert call._last().executor.name == "native", call.report()


@EVERY_EXECUTOR
@pytest.mark.parametrize("clip", ["norm", "value", None])
def test_update_alone_takes_the_gradients_of_now(executor: str, clip: str | None) -> None:
    """Gradients that were there before the call, and are overwritten in it; or are missing."""

    def updates(run: Any) -> list[Any]:
        p = Tensor(np.ones(3, np.float32), requires_grad=True)
        optimizer = optim.SGD([p], lr=1.0)

        def update() -> None:
            if clip == "norm":
                optim.clip_grad_norm_([p], 0.5)
            elif clip == "value":
                optim.clip_grad_value_([p], 0.5)
            optimizer.step()

        step = run(update)
        found: list[Any] = []
        for i in range(5):
            p.grad = None if i == 3 else Tensor(np.array([1.0, 2, 3 + i], np.float32))
            step()
            found += [p.tolist(), None if p.grad is None else p.grad.tolist()]
        return found

    plain = updates(lambda f: f)
    compiled = updates(lambda f: compile(f, executor=executor))
    for a, b in zip(plain, compiled, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.skipif("native" not in EXECUTORS, reason="needs a C compiler")
def test_the_quick_way_comes_back_after_every_validation() -> None:
    """However many epochs there are; a program that never runs quickly twice gives up on it."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    step = compile(training(model, optim.SGD(model.parameters(), lr=0.01)))
    x, t = Tensor(np.ones((5, 3), np.float32)), Tensor(np.ones((5, 1), np.float32))
    for _ in range(20):
        for _ in range(30):
            step(x, t)
        model.eval()
        model.train()
    step(x, t)
    step(x, t)
    assert step._last_used is not None
    if fast_call._module() is None:
        pytest.skip("Python's headers are not here")
    assert step._last_used.fast is not None
    assert step._last_used.fast.count >= 1


@EVERY_EXECUTOR
def test_bytes_are_converted(executor: str) -> None:
    """Pixels as they come, scaled inside the step; what is computed with bytes stays NumPy's."""
    pixels = Tensor(np.random.default_rng(0).integers(0, 256, (7, 5)).astype(np.uint8))

    def scaled(x: Tensor) -> Tensor:
        return (x.float() * (1 / 255) + x.T.float().sum() * 1e-5).exp()

    def wrapped(x: Tensor) -> Tensor:
        return (x + x) * x  # modulo 256

    for f in (scaled, wrapped, lambda x: x > 100, lambda x: (x - 7.5).astype("uint8")):
        call = compile(f, executor=executor)
        for _ in range(3):
            found = call(pixels)
            expected = f(pixels)
            assert found.dtype == expected.dtype
            np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-6)
    assert compile(scaled, executor=executor)(pixels).dtype == np.float32


class Pane:
    """An output as a notebook has it: Python code with a state of its own."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def write(self, text: str) -> int:
        self.said.append(text)
        return len(text)

    def flush(self) -> None:
        pass


def test_what_a_step_says_to_an_output_in_python_is_no_hindrance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pane = Pane()
    monkeypatch.setattr(sys, "stdout", pane)

    def step(x: Tensor) -> Tensor:
        print("a step", end="", flush=True)
        return x * sys.stdout.write("of it")

    compiled = tg.compile(step)
    for _ in range(6):
        assert compiled(tg.ones(2)).numpy().tolist() == [5, 5]
    assert compiled.captures == 1
    assert not compiled.reasons
    assert pane.said[:3] == ["a step", "", "of it"]


@custom_operation(x=lambda g: 3.0 * g)
def relu(x: Any) -> Any:
    return 3.0 * x


@custom_operation(a=lambda g: g, b=lambda g: g)
def linear(a: Any, b: Any) -> Any:
    return a + b


@EVERY_EXECUTOR
def test_an_operation_of_the_user_may_have_the_name_of_one_of_ours(executor: str) -> None:
    """It is known by itself: what a program does in another way for ours is not done for it."""
    compiled = tg.compile(lambda x: linear(relu(x), x), executor=executor)
    x = Tensor([[-1.0, 2.0], [0.5, -3.0]])
    for _ in range(3):
        np.testing.assert_array_equal(compiled(x).numpy(), 4 * x.numpy())
