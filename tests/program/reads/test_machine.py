"""Compiled functions through any history: modes, options, memory and containers between calls.

Two worlds are made of equal copies and live through the same history. In one the functions are
compiled, in the other they are not; after every event all that can be seen has to be alike. Then
the compiled world takes over the values of the other one, so that rounding does not add up.
"""

from __future__ import annotations

import copy
import threading
import warnings
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from program.executors import EXECUTORS

import tensorgrad as tg
from tensorgrad import Tensor, nn, optim
from tensorgrad.amp import autocast
from tensorgrad.errors import CompileError, TensorgradError
from tensorgrad.nn import functional
from tensorgrad.ops.random import Generator

Array = np.ndarray[Any, Any]

SIZES = st.sampled_from([1, 3])
NUMBERS = st.sampled_from([0.0, -0.0, 1, 1.0, True, 2.0, float("nan"), float("inf")])
NAMES = st.sampled_from(["0.weight", "0.bias", "2.weight", "2.bias"])


class Loss:
    """A loss with state of its own."""

    def __init__(self) -> None:
        self.weight = 1.0
        self.options = {"l1": 0.0, "labels": [0.5, 1.0]}

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        value = functional.mse_loss(output, target) * self.weight
        if self.options["l1"]:
            value = value + functional.l1_loss(output, target) * self.options["l1"]
        labels = self.options["labels"]
        assert isinstance(labels, list)
        return value * labels[-1]


class World:
    """A model and all around it, and functions that use them; compiled if ``wrap`` says so."""

    def __init__(self, wrap: Callable[[Any], Any]) -> None:
        self.model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        for layer in (self.model[0], self.model[2]):
            assert isinstance(layer, nn.Linear)
            layer.reset_parameters(Generator(1))
        self.optimizer: Any = optim.SGD(self.model.parameters(), lr=0.1, momentum=0.5)
        self.loss: Any = Loss()
        self.extra = [Tensor([0.5, 0.25, -1.0]), Tensor([1.0, 2.0, 3.0])]
        self.outside = Tensor(np.arange(6, dtype=np.float32))
        self.leaves = [Tensor([1.0, 2.0], requires_grad=True) for _ in range(2)]
        self.history: list[Tensor] = []
        self.kept: list[Tensor | None] = []
        self.zero = True
        self.record = False
        self.calls = 0
        self.handles: list[Any] = []
        world = self

        def step(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
            if world.zero:
                world.optimizer.zero_grad()
            output = world.model(x + world.extra[0])
            value = world.loss(output, t)
            value.backward()
            world.optimizer.step()
            if world.record:
                world.history.append(value.detach())
            world.calls += 1
            return value, output

        def evaluate(x: Tensor, k: Any = 1.0) -> Tensor:
            return world.model(x) * k + world.extra[1].sum()

        def in_place(a: Tensor, b: Tensor) -> Tensor:
            with tg.no_grad():
                a.copy_(a * 2 + b)
                b.copy_(b + 1)
            return a - b

        def differentiate(x: Tensor, clear: bool) -> Any:
            if clear:
                x.grad = None
            (x * x * world.loss.weight + world.leaves[0]).sum().backward()
            return x.grad, x * (2.0 if world.leaves[0].grad is None else 3.0)

        def nested(things: Any) -> Tensor:
            if isinstance(things, dict):
                return things["x"] * things.get("k", 3.0)
            total = things[0]
            for other in things[1:]:
                total = total * other
            return total

        self.step, self.evaluate = wrap(step), wrap(evaluate)
        self.in_place, self.nested = wrap(in_place), wrap(nested)
        self.differentiate = wrap(differentiate)

    def parameters(self) -> dict[str, Tensor]:
        return dict(self.model.named_parameters())

    def tensors(self) -> list[Tensor]:
        """What is compared, and taken over: in the order in which it is met."""
        found = [*self.parameters().values(), *self.extra, self.outside, *self.history]
        leaves = [*self.parameters().values(), *self.leaves]
        found += [*self.leaves, *[p.grad for p in leaves if p.grad is not None]]
        for group in self.optimizer.param_groups:
            for p in group["params"]:
                state = self.optimizer.state.get(p) or {}
                found += [v for v in state.values() if isinstance(v, Tensor)]
        return found + [k for k in self.kept if k is not None]

    def facts(self) -> list[Any]:
        """What has to be the same exactly."""
        parameters = [*self.parameters().values(), *self.leaves]
        return [
            [p.grad is None for p in parameters], [p.requires_grad for p in parameters],
            self.calls, len(self.history), [k is None for k in self.kept],
        ]  # fmt: skip


def alike(a: Any, b: Any, loose: bool = False) -> None:
    """Raises AssertionError unless two results are alike, up to rounding."""
    assert type(a) is type(b)
    if isinstance(a, tuple):
        assert len(a) == len(b)
        for p, q in zip(a, b):
            alike(p, q, loose)
    elif isinstance(a, Tensor):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        bound = 2e-2 if loose or a.data.dtype.itemsize == 2 else 2e-4
        p, q = a.detach().numpy().astype(np.float64), b.detach().numpy().astype(np.float64)
        np.testing.assert_allclose(q, p, rtol=bound, atol=bound / 10)
    elif isinstance(a, str | float | None):
        assert a == b


class Histories(RuleBasedStateMachine):
    """Each rule happens in both worlds."""

    executor = "numpy"

    def __init__(self) -> None:
        super().__init__()
        self.plain = World(lambda f: f)
        self.fast = World(lambda f: tg.compile(f, executor=self.executor))
        self.dtype = tg.get_default_dtype()

    def teardown(self) -> None:
        tg.set_default_dtype(self.dtype)

    def both(self, event: Callable[[World], Any], loose: bool = False) -> None:
        """Let an event happen in both worlds, and compare; ``loose``: in 16 bits."""
        found: list[Any] = []
        for world in (self.plain, self.fast):
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                try:
                    found.append(event(world))
                except CompileError:
                    raise
                except (TensorgradError, ValueError, TypeError, RuntimeError) as error:
                    found.append(f"{type(error).__name__}: {error}")
        alike(found[0], found[1], loose)
        assert self.plain.facts() == self.fast.facts()
        theirs, ours = self.plain.tensors(), self.fast.tensors()
        assert len(theirs) == len(ours)
        for a, b in zip(theirs, ours):
            alike(a, b, loose)
        for a, b in zip(theirs, ours):
            np.copyto(b.data, a.data)

    # --- calls ---

    @rule(n=SIZES, seed=st.integers(0, 3))
    def trains(self, n: int, seed: int) -> None:
        draw = np.random.default_rng(seed)
        x, t = draw.normal(size=(n, 3)), draw.normal(size=(n, 2))
        self.both(lambda w: w.step(Tensor(x), Tensor(t)))

    @rule(n=SIZES, k=NUMBERS)
    def evaluates(self, n: int, k: Any) -> None:
        self.both(lambda w: w.evaluate(Tensor(np.ones((n, 3))), k))

    @rule(n=SIZES)
    def evaluates_without_recording(self, n: int) -> None:
        def event(w: World) -> Any:
            with tg.no_grad():
                return w.evaluate(Tensor(np.ones((n, 3))))

        self.both(event)

    @rule(dtype=st.sampled_from(["bfloat16", "float16"]))
    def evaluates_in_half_precision(self, dtype: str) -> None:
        def event(w: World) -> Any:
            with autocast(dtype):
                return w.evaluate(Tensor(np.ones((3, 3)))).float()

        self.both(event)

    @rule(n=SIZES)
    def trains_in_half_precision(self, n: int) -> None:
        def event(w: World) -> Any:
            with autocast("bfloat16"):
                value, output = w.step(Tensor(np.ones((n, 3))), Tensor(np.zeros((n, 2))))
            return value.float(), output.float()

        self.both(event, loose=True)

    @rule(which=st.integers(0, 3), clear=st.booleans())
    def differentiates(self, which: int, clear: bool) -> None:
        def event(w: World) -> Any:
            if which == 3:
                return w.differentiate(w.parameters()["2.bias"], clear)
            x = w.leaves[which] if which < 2 else Tensor([1.0, 2.0], requires_grad=True)
            return w.differentiate(x, clear)

        self.both(event)

    @rule(which=st.integers(0, 1), how=st.integers(0, 3))
    def changes_a_leaf(self, which: int, how: int) -> None:
        def event(w: World) -> None:
            leaf = w.leaves[which]
            if how == 0:
                leaf.grad = None
            elif how == 1:
                leaf.grad = tg.ones_like(leaf.detach())
            elif how == 2:
                leaf.register_hook(lambda g: g * w.loss.weight)
            else:
                w.leaves[which] = Tensor([3.0, -1.0], requires_grad=True)

        self.both(event)

    @rule(n=SIZES)
    def evaluates_in_a_thread(self, n: int) -> None:
        def event(w: World) -> Any:
            found: list[Any] = []
            call = lambda: found.append(w.evaluate(Tensor(np.ones((n, 3)))))  # noqa: E731
            thread = threading.Thread(target=call)
            thread.start()
            thread.join()
            return found[0]

        self.both(event)

    @rule()
    def evaluates_with_a_wrong_shape(self) -> None:
        self.both(lambda w: w.evaluate(Tensor(np.ones((2, 5)))))

    @rule(how=st.integers(0, 7))
    def writes_in_place(self, how: int) -> None:
        def event(w: World) -> Any:
            a, b = Tensor(np.ones(3)), Tensor(np.full(3, 2.0))
            outside = w.outside
            pairs = [
                (a, b), (a, a), (outside[:3], b), (outside[:3], outside[3:]), (a, outside[1:4]),
                (outside[0:4], outside[0:4]), (w.extra[1], b), (a, w.extra[1]),
            ]  # fmt: skip
            if how == 3 and a.dtype != outside.dtype:
                return None
            return w.in_place(*pairs[how])

        self.both(event)

    @rule(how=st.integers(0, 8))
    def takes_containers(self, how: int) -> None:
        def event(w: World) -> Any:
            x, y = Tensor([1.0, 2.0]), Tensor([3.0, 4.0])
            given: list[Any] = [
                [x, y], (x, y), [x, x], [x, 2.0], [x, 2], (x, 2.0, y), {"x": x}, {"x": x, "k": 2.0},
                {"k": 2, "x": y},
            ]  # fmt: skip
            return w.nested(given[how])

        self.both(event)

    @rule(how=st.integers(0, 2))
    def writes_into_a_result(self, how: int) -> None:
        def event(w: World) -> Any:
            with tg.no_grad():
                first = w.evaluate(Tensor(np.ones((1, 3))))
                before = first.numpy().copy()
                if how == 1:
                    first.copy_(first * 0)
                second = w.evaluate(Tensor(np.full((1, 3), 2.0)))
                return first * 1, second, Tensor(before)

        self.both(event)

    # --- what is around them ---

    @rule(name=st.sampled_from(["lr", "momentum", "weight_decay", "dampening"]),
          value=st.sampled_from([0.0, 0.01, 0.1]))  # fmt: skip
    def sets_an_option(self, name: str, value: float) -> None:
        def event(w: World) -> None:
            for group in w.optimizer.param_groups:
                if name in group:
                    group[name] = value

        self.both(event)

    @rule()
    def sets_nesterov(self) -> None:
        def event(w: World) -> None:
            for group in w.optimizer.param_groups:
                if "nesterov" in group:
                    group.update(nesterov=not group["nesterov"], momentum=0.5, dampening=0.0)

        self.both(event)

    @rule(kind=st.sampled_from(["SGD", "Adagrad", "RMSprop", "less", "groups"]))
    def takes_another_optimizer(self, kind: str) -> None:
        def event(w: World) -> None:
            parameters = list(w.model.parameters())
            if kind == "less":
                w.optimizer = optim.SGD(parameters[:2], lr=0.1)
            elif kind == "groups":
                w.optimizer = optim.SGD(
                    [{"params": parameters[:2]}, {"params": parameters[2:], "lr": 0.01}], lr=0.1
                )
            else:
                w.optimizer = getattr(optim, kind)(parameters, lr=0.01)

        self.both(event)

    @precondition(lambda self: sum(len(g["params"]) for g in self.plain.optimizer.param_groups) < 4)
    @rule()
    def adds_a_group(self) -> None:
        def event(w: World) -> None:
            known = {id(p) for g in w.optimizer.param_groups for p in g["params"]}
            rest = [p for p in w.model.parameters() if id(p) not in known]
            w.optimizer.add_param_group({"params": rest, "lr": 0.05})

        self.both(event)

    @rule()
    def replaces_the_groups(self) -> None:
        def event(w: World) -> None:
            w.optimizer.param_groups = [dict(g) for g in w.optimizer.param_groups]

        self.both(event)

    @rule()
    def reloads_the_optimizer(self) -> None:
        self.both(lambda w: w.optimizer.load_state_dict(w.optimizer.state_dict()))

    @rule(name=NAMES, wanted=st.booleans())
    def freezes(self, name: str, wanted: bool) -> None:
        self.both(lambda w: setattr(w.parameters()[name], "requires_grad", wanted))

    @rule(name=NAMES, empty=st.booleans())
    def sets_a_gradient(self, name: str, empty: bool) -> None:
        def event(w: World) -> None:
            p = w.parameters()[name]
            if p.requires_grad:
                p.grad = None if empty else tg.ones_like(p.detach())

        self.both(event)

    @rule(name=NAMES)
    def keeps_a_gradient(self, name: str) -> None:
        self.both(lambda w: w.kept.append(w.parameters()[name].grad))

    @rule(zero=st.booleans(), record=st.booleans())
    def sets_flags(self, zero: bool, record: bool) -> None:
        def event(w: World) -> None:
            w.zero, w.record = zero, record

        self.both(event)

    @rule(where=st.integers(0, 3), value=st.sampled_from([0.0, 0.5, 2.0]))
    def changes_the_loss(self, where: int, value: float) -> None:
        def event(w: World) -> None:
            if where == 0:
                w.loss.weight = value
            elif where == 1:
                w.loss.options["l1"] = value
            elif where == 2:
                w.loss.options["labels"][-1] = value
            else:
                w.loss = Loss()

        self.both(event)

    @rule(which=st.integers(0, 1), how=st.integers(0, 4))
    def changes_an_outside_tensor(self, which: int, how: int) -> None:
        def event(w: World) -> None:
            t = w.extra[which]
            if how == 0:
                w.extra[which] = Tensor([1.0, 0.0, 2.0])
            elif how == 1:
                t.data[:] = 0.5
            elif how == 2:
                t.data = np.array([1.0, 2.0, 3.0], t.data.dtype)
            elif how == 3:
                w.extra.reverse()
            else:
                t.data = np.repeat(t.data, 2)[::2]

        self.both(event)

    @rule(training=st.booleans())
    def sets_the_mode(self, training: bool) -> None:
        self.both(lambda w: w.model.train(training))

    @rule(kind=st.sampled_from(["Tanh", "ReLU", "Dropout", "Identity"]))
    def replaces_the_activation(self, kind: str) -> None:
        def event(w: World) -> None:
            made = (
                nn.Dropout(0.5, generator=Generator(3))
                if kind == "Dropout"
                else getattr(nn, kind)()
            )
            setattr(w.model, "1", made)

        self.both(event)

    @rule(name=NAMES)
    def replaces_a_parameter(self, name: str) -> None:
        def event(w: World) -> None:
            layer, _, attribute = name.partition(".")
            old = w.parameters()[name]
            setattr(getattr(w.model, layer), attribute, nn.Parameter(old.detach() * 0.5))

        self.both(event)

    @rule()
    def loads_a_state(self) -> None:
        def event(w: World) -> None:
            state = {k: v * 0.5 for k, v in w.model.state_dict().items()}
            w.model.load_state_dict(state)

        self.both(event)

    @rule(scale=st.sampled_from([0.5, 2.0]))
    def hooks(self, scale: float) -> None:
        def event(w: World) -> None:
            if w.handles:
                w.handles.pop().remove()
            else:
                w.handles.append(
                    w.model[0].register_forward_hook(lambda m, i, output: output * scale)
                )

        self.both(event)

    @rule()
    def copies_the_model(self) -> None:
        def event(w: World) -> None:
            w.model = copy.deepcopy(w.model)
            w.optimizer = optim.SGD(w.model.parameters(), lr=0.1)
            w.handles.clear()

        self.both(event)

    @rule(wide=st.booleans())
    def sets_the_default_dtype(self, wide: bool) -> None:
        tg.set_default_dtype(tg.float64 if wide else tg.float32)


pytestmark = pytest.mark.usefixtures("defaults")


def explored(executor: str, examples: int, steps: int, derandomize: bool) -> None:
    machine = type("Machine", (Histories,), {"executor": executor})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, derandomize=derandomize,
            deadline=None, database=None, suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip


@pytest.mark.parametrize(("executor", "examples"), [("numpy", 100), ("native", 20)])
def test_histories(executor: str, examples: int) -> None:
    if executor not in EXECUTORS:
        pytest.skip(f"there is no {executor} executor here")
    explored(executor, examples, 40, True)


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.parametrize("executor", EXECUTORS)
def test_other_histories_each_time(executor: str) -> None:
    explored(executor, 1000, 50, False)
