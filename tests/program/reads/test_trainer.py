"""The Trainer compiles unasked: whatever changes around it, it trains as without compiling."""

from __future__ import annotations

import contextvars
import enum
import itertools
import os
import random
import types
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from tensorgrad import Tensor, nn, no_grad, optim
from tensorgrad.data import DataLoader, TensorDataset
from tensorgrad.nn import functional
from tensorgrad.ops.random import Generator, default_generator
from tensorgrad.program import Compiled, compiler
from tensorgrad.training import Callback, Trainer

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 4)).astype(np.float32)
TARGETS = RNG.normal(size=(24, 3)).astype(np.float32)

pytestmark = pytest.mark.usefixtures("own_random_numbers")


def network(seed: int = 0, inputs: int = 4) -> nn.Sequential:
    generator = Generator(seed)
    model = nn.Sequential(nn.Linear(inputs, 5), nn.Tanh(), nn.Linear(5, 3))
    for layer in (model[0], model[2]):
        assert isinstance(layer, nn.Linear)
        layer.reset_parameters(generator)
    return model


@dataclass
class Plan:
    """What is trained, and what somebody changes in the middle of it."""

    loss: Any = functional.mse_loss
    change: Callable[[Trainer], None] = lambda trainer: None
    model: nn.Module = field(default_factory=network)
    options: dict[str, Any] = field(default_factory=dict)
    optimizer: Callable[[Any], optim.Optimizer] = lambda p: optim.SGD(p, lr=0.1, momentum=0.5)
    watched: Callable[[], Any] = lambda: ()
    before: Callable[[Trainer, int], None] = lambda trainer, step: None


def model_of(trainer: Trainer) -> Any:
    return trainer.model


PLANS: dict[str, Callable[[], Plan]] = {}


def plan(make: Callable[[], Plan]) -> Callable[[], Plan]:
    PLANS[make.__name__] = make
    return make


# --- the loss -------------------------------------------------------------------------------------


@plan
def annealed_weight_in_a_dict() -> Plan:
    weights = {"mse": 1.0, "l1": 0.0}

    def loss(output: Tensor, target: Tensor) -> Tensor:
        return weights["mse"] * functional.mse_loss(output, target) + weights[
            "l1"
        ] * functional.l1_loss(output, target)

    return Plan(loss, lambda t: weights.update(l1=2.0))


@plan
def weights_in_a_list_of_an_object() -> Plan:
    class Loss:
        def __init__(self) -> None:
            self.weights = [1.0, 0.5]

        def __call__(self, output: Tensor, target: Tensor) -> Tensor:
            parts = [functional.mse_loss(output, target), functional.l1_loss(output, target)]
            return sum((w * p for w, p in zip(self.weights, parts)), Tensor(0.0))

    loss = Loss()

    def change(trainer: Trainer) -> None:
        loss.weights[1] = 3.0

    return Plan(loss, change)


@plan
def loss_object_below_an_object() -> Plan:
    class Loss:
        def __init__(self) -> None:
            self.options = types.SimpleNamespace(inner=types.SimpleNamespace(scale=1.0))

        def __call__(self, output: Tensor, target: Tensor) -> Tensor:
            return functional.mse_loss(output, target) * self.options.inner.scale

    loss = Loss()
    return Plan(loss, lambda t: setattr(loss.options.inner, "scale", 4.0))


@plan
def loss_of_the_library_with_an_attribute() -> Plan:
    loss = nn.HuberLoss(delta=1.0)
    return Plan(loss, lambda t: setattr(loss, "delta", 0.1))


@plan
def loss_that_counts_its_calls() -> Plan:
    class WarmUp:
        calls = 0

        def __call__(self, output: Tensor, target: Tensor) -> Tensor:
            self.calls += 1
            return functional.mse_loss(output, target) * min(1.0, self.calls / 6)

    loss = WarmUp()
    return Plan(loss, watched=lambda: loss.calls)


@plan
def loss_with_a_counter_that_nobody_reads() -> Plan:
    class Counted:
        calls = 0

        def __call__(self, output: Tensor, target: Tensor) -> Tensor:
            self.calls += 1
            return functional.mse_loss(output, target)

    loss = Counted()
    return Plan(loss, watched=lambda: loss.calls)


@plan
def loss_that_keeps_its_values() -> Plan:
    kept: list[Tensor] = []

    def loss(output: Tensor, target: Tensor) -> Tensor:
        value = functional.mse_loss(output, target)
        kept.append(value.detach())
        return value

    return Plan(loss, watched=lambda: [len(kept), *[v.numpy() for v in kept]])


@plan
def loss_with_random_numbers_of_python() -> Plan:
    draw = random.Random(3)

    def loss(output: Tensor, target: Tensor) -> Tensor:
        return functional.mse_loss(output, target) * draw.uniform(0.5, 1.5)

    return Plan(loss, watched=draw.getstate)


@plan
def loss_with_noise_of_numpy() -> Plan:
    draw = np.random.default_rng(3)

    def loss(output: Tensor, target: Tensor) -> Tensor:
        noise = draw.normal(size=output.shape).astype(np.float32)
        return functional.mse_loss(output, target + Tensor(noise))

    return Plan(loss, watched=lambda: draw.bit_generator.state["state"]["state"])


@plan
def loss_with_an_iterator() -> Plan:
    weights = itertools.cycle([1.0, 0.5, 2.0])
    return Plan(lambda output, target: functional.mse_loss(output, target) * next(weights))


@plan
def loss_with_a_clock_of_its_own() -> Plan:
    class Clock:
        time = 0.0

        def now(self) -> float:
            self.time += 0.125
            return self.time

    clock = Clock()
    return Plan(lambda output, target: functional.mse_loss(output, target) * clock.now())


@plan
def loss_by_the_value_of_the_last_one() -> Plan:
    state = {"last": 1.0}

    def loss(output: Tensor, target: Tensor) -> Tensor:
        value = functional.mse_loss(output, target)
        scaled = value * (2.0 if state["last"] > 0.9 else 1.0)
        state["last"] = float(value.detach().numpy())
        return scaled

    return Plan(loss, watched=lambda: round(state["last"], 4))


@plan
def loss_that_raises_once() -> Plan:
    state = {"calls": 0}

    def loss(output: Tensor, target: Tensor) -> Tensor:
        state["calls"] += 1
        if state["calls"] == 4:
            raise ValueError("a bad batch")
        return functional.mse_loss(output, target)

    return Plan(loss, watched=lambda: state["calls"])


@plan
def class_weights_replaced() -> Plan:
    state = {"weights": Tensor([1.0, 1.0, 1.0])}

    def change(trainer: Trainer) -> None:
        state["weights"] = Tensor([5.0, 0.0, 0.5])

    return Plan(
        lambda output, target: ((output - target) ** 2 * state["weights"]).mean(),
        change,
    )


@plan
def class_weights_written_through_numpy() -> Plan:
    weights = Tensor([1.0, 1.0, 1.0])

    def change(trainer: Trainer) -> None:
        weights.data[:] = [5.0, 0.0, 0.5]

    return Plan(lambda output, target: ((output - target) ** 2 * weights).mean(), change)


@plan
def class_weights_of_numpy() -> Plan:
    weights = np.ones(3, np.float32)

    def change(trainer: Trainer) -> None:
        weights[:] = [5.0, 0.0, 0.5]

    return Plan(
        lambda output, target: ((output - target) ** 2 * Tensor(weights)).mean(),
        change,
    )


@plan
def loss_replaced() -> Plan:
    return Plan(change=lambda t: setattr(t, "loss", functional.l1_loss))


@plan
def loss_chosen_from_a_registry() -> Plan:
    losses = {"a": functional.mse_loss}

    def change(trainer: Trainer) -> None:
        losses["a"] = functional.l1_loss

    return Plan(lambda output, target: losses["a"](output, target), change)


@plan
def loss_that_is_a_method() -> Plan:
    class Task:
        temperature = 1.0

        def loss(self, output: Tensor, target: Tensor) -> Tensor:
            return functional.mse_loss(output / self.temperature, target)

    task = Task()
    return Plan(task.loss, lambda t: setattr(task, "temperature", 4.0))


@plan
def loss_by_an_enum() -> Plan:
    class Phase(enum.Enum):
        FIRST = 1
        SECOND = 2

    class State:
        phase = Phase.FIRST

    def loss(output: Tensor, target: Tensor) -> Tensor:
        match State.phase:
            case Phase.FIRST:
                return functional.mse_loss(output, target)
            case _:
                return functional.l1_loss(output, target)

    return Plan(loss, lambda t: setattr(State, "phase", Phase.SECOND))


@plan
def loss_by_the_environment() -> Plan:
    def change(trainer: Trainer) -> None:
        os.environ["SCENARIO_SCALE"] = "3"

    def loss(output: Tensor, target: Tensor) -> Tensor:
        return functional.mse_loss(output, target) * float(os.environ.get("SCENARIO_SCALE", "1"))

    return Plan(loss, change)


@plan
def loss_by_a_context_variable() -> Plan:
    scale: contextvars.ContextVar[float] = contextvars.ContextVar("scale", default=1.0)

    def change(trainer: Trainer) -> None:
        scale.set(3.0)

    return Plan(lambda output, target: functional.mse_loss(output, target) * scale.get(), change)


@plan
def loss_with_a_default_that_collects() -> Plan:
    def loss(output: Tensor, target: Tensor, weights: list[float] = [1.0]) -> Tensor:  # noqa: B006
        return functional.mse_loss(output, target) * weights[0]

    def change(trainer: Trainer) -> None:
        assert loss.__defaults__ is not None
        loss.__defaults__[0][0] = 3.0

    return Plan(loss, change)


# --- penalty, prepare, average --------------------------------------------------------------------


@plan
def penalty_with_a_dict() -> Plan:
    model, options = network(), {"l2": 0.0}
    penalty = lambda: functional.l2_penalty(list(model.parameters()), options["l2"])  # noqa: E731
    return Plan(model=model, options={"penalty": penalty}, change=lambda t: options.update(l2=0.5))


@plan
def penalty_over_a_list_that_grows() -> Plan:
    model = network()
    parameters = list(model.parameters())
    held = parameters[:1]
    penalty = lambda: functional.l2_penalty(held, 0.5)  # noqa: E731
    return Plan(
        model=model, options={"penalty": penalty}, change=lambda t: held.extend(parameters[2:])
    )


@plan
def penalty_appears() -> Plan:
    model = network()

    def change(trainer: Trainer) -> None:
        trainer.penalty = lambda: functional.l2_penalty(list(model.parameters()), 0.5)

    return Plan(model=model, change=change)


@plan
def prepare_with_an_attribute() -> Plan:
    class Prepare:
        shift = 0.0

        def __call__(self, x: Tensor) -> Tensor:
            return x + self.shift

    prepare = Prepare()
    return Plan(options={"prepare": prepare}, change=lambda t: setattr(prepare, "shift", 1.0))


@plan
def prepare_replaced() -> Plan:
    return Plan(
        options={"prepare": lambda x: x * 2},
        change=lambda t: setattr(t, "prepare", lambda x: x * 3),
    )


@plan
def average_with_another_decay() -> Plan:
    model = network()
    average = optim.ExponentialMovingAverage(model, 0.5)
    return Plan(
        model=model,
        options={"average": average},
        change=lambda t: setattr(average, "decay", 0.9),
        watched=lambda: [p.numpy() for p in average.state_dict().values() if type(p) is Tensor],
    )


@plan
def accumulated_steps_with_a_dict() -> Plan:
    scale = {"a": 1.0}
    return Plan(
        lambda output, target: functional.mse_loss(output, target) * scale["a"],
        lambda t: scale.update(a=3.0),
        options={"accumulate": 2},
    )


@plan
def clipped_steps_with_a_dict() -> Plan:
    scale = {"a": 1.0}
    return Plan(
        lambda output, target: functional.mse_loss(output, target) * scale["a"],
        lambda t: scale.update(a=0.01),
        options={"clip_norm": 0.5},
    )


@plan
def half_precision_with_a_dict() -> Plan:
    scale = {"a": 1.0}
    return Plan(
        lambda output, target: functional.mse_loss(output, target) * scale["a"],
        lambda t: scale.update(a=3.0),
        options={"precision": "float16"},
    )


# --- the model ------------------------------------------------------------------------------------


class Gated(nn.Module):
    """A network with all that people hang onto modules."""

    flag = True

    def __init__(self) -> None:
        super().__init__()
        self.net = network()
        self.options: dict[str, Any] = {"scale": 1.0, "mask": Tensor([1.0, 1.0, 1.0])}
        self.scales = [1.0]
        self.depth = 1
        self.kept: Any = None

    def forward(self, x: Tensor) -> Tensor:
        y = self.net(x)
        for _ in range(self.depth):
            y = y * self.options["scale"] + self.scales[0]
        if not self.flag:
            y = y * 2
        return y * self.options["mask"]


@plan
def number_in_a_dict_of_the_model() -> Plan:
    return Plan(model=Gated(), change=lambda t: model_of(t).options.update(scale=2.0))


@plan
def number_in_a_list_of_the_model() -> Plan:
    def change(trainer: Trainer) -> None:
        model_of(trainer).scales[0] = 2.0

    return Plan(model=Gated(), change=change)


@plan
def depth_of_the_model() -> Plan:
    return Plan(model=Gated(), change=lambda t: setattr(t.model, "depth", 3))


@plan
def class_attribute_of_the_model() -> Plan:
    class Own(Gated):
        pass

    return Plan(model=Own(), change=lambda t: setattr(Own, "flag", False))


@plan
def mask_replaced() -> Plan:
    return Plan(
        model=Gated(), change=lambda t: model_of(t).options.update(mask=Tensor([0.0, 1.0, 2.0]))
    )


@plan
def mask_written_in_place() -> Plan:
    def change(trainer: Trainer) -> None:
        model_of(trainer).options["mask"].data[:] = [0.0, 1.0, 2.0]

    return Plan(model=Gated(), change=change)


@plan
def model_that_keeps_its_output() -> Plan:
    class Keeping(Gated):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            self.kept = y.detach()
            return y

    model = Keeping()
    return Plan(model=model, watched=lambda: None if model.kept is None else model.kept.numpy())


@plan
def model_with_a_running_mean_by_hand() -> Plan:
    class Running(Gated):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            mean = y.detach().mean(axis=0)
            self.kept = mean if self.kept is None else self.kept * 0.5 + mean * 0.5
            return y - self.kept

    model = Running()
    return Plan(model=model, watched=lambda: None if model.kept is None else model.kept.numpy())


@plan
def model_with_a_state_in_a_dict() -> Plan:
    class Recurrent(Gated):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            mean = y.detach().mean(axis=0).clip(-1, 1)
            self.options["mask"] = (self.options["mask"] * 0.5 + mean).detach()
            return y

    model = Recurrent()
    return Plan(model=model, watched=lambda: model.options["mask"].numpy())


@plan
def layer_replaced() -> Plan:
    def change(trainer: Trainer) -> None:
        setattr(trainer.model, "2", network(7)[2])
        trainer.optimizer = optim.SGD(trainer.model.parameters(), lr=0.1)

    return Plan(change=change)


@plan
def layer_replaced_and_not_told_the_optimizer() -> Plan:
    def change(trainer: Trainer) -> None:
        setattr(trainer.model, "2", network(7)[2])

    return Plan(change=change)


@plan
def activation_replaced() -> Plan:
    def change(trainer: Trainer) -> None:
        setattr(trainer.model, "1", nn.ReLU())

    return Plan(change=change)


@plan
def layer_frozen() -> Plan:
    def change(trainer: Trainer) -> None:
        model_of(trainer)[0].requires_grad_(False)

    return Plan(change=change)


@plan
def layer_thawed() -> Plan:
    model = network()
    model[0].requires_grad_(False)

    def change(trainer: Trainer) -> None:
        model_of(trainer)[0].requires_grad_(True)

    return Plan(model=model, change=change)


@plan
def layer_thawed_and_added_to_the_optimizer() -> Plan:
    model = network()
    model[0].requires_grad_(False)

    def change(trainer: Trainer) -> None:
        model_of(trainer)[0].requires_grad_(True)
        trainer.optimizer.add_param_group({"params": list(model_of(trainer)[0].parameters())})

    return Plan(model=model, change=change, optimizer=lambda p: optim.SGD(list(p)[2:], lr=0.1))


@plan
def weights_tied() -> Plan:
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Linear(4, 3))
    for k, layer in enumerate(model):
        if isinstance(layer, nn.Linear):
            layer.reset_parameters(Generator(k))

    def change(trainer: Trainer) -> None:
        model_of(trainer)[2].weight = model_of(trainer)[0].weight

    return Plan(model=model, change=change)


@plan
def weights_loaded() -> Plan:
    return Plan(change=lambda t: model_of(t).load_state_dict(network(5).state_dict()))


@plan
def weights_put_in_place_of_the_arrays() -> Plan:
    def change(trainer: Trainer) -> None:
        for p in trainer.model.parameters():
            p.data = np.clip(p.data, -0.1, 0.1)

    return Plan(change=change)


@plan
def weights_clipped_after_each_step() -> Plan:
    def before(trainer: Trainer, step: int) -> None:
        with no_grad():
            for p in trainer.model.parameters():
                p.copy_(p.clip(-0.3, 0.3))

    return Plan(before=before)


@plan
def module_in_evaluation_mode() -> Plan:
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
    for layer in (model[0], model[2]):
        assert isinstance(layer, nn.Linear)
        layer.reset_parameters(Generator(1))

    def change(trainer: Trainer) -> None:
        model_of(trainer)[1].eval()

    return Plan(model=model, change=change)


@plan
def momentum_of_a_norm() -> Plan:
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
    for layer in (model[0], model[2]):
        assert isinstance(layer, nn.Linear)
        layer.reset_parameters(Generator(1))

    def change(trainer: Trainer) -> None:
        model_of(trainer)[1].momentum = 0.9

    return Plan(model=model, change=change, watched=lambda: [b.numpy() for b in model.buffers()])


@plan
def dropout_with_another_p() -> Plan:
    model = nn.Sequential(nn.Linear(4, 5), nn.Dropout(0.5, generator=Generator(4)), nn.Linear(5, 3))
    for layer in (model[0], model[2]):
        assert isinstance(layer, nn.Linear)
        layer.reset_parameters(Generator(1))
    return Plan(model=model, change=lambda t: setattr(model_of(t)[1], "p", 0.1))


@plan
def forward_hook_registered() -> Plan:
    def change(trainer: Trainer) -> None:
        model_of(trainer)[0].register_forward_hook(lambda module, inputs, output: output * 2)

    return Plan(change=change)


@plan
def forward_hook_that_reads_and_records() -> Plan:
    model, scale, seen = network(), {"a": 1.0}, []

    def hook(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        seen.append(output.detach().mean())
        return output * scale["a"]

    model[0].register_forward_hook(hook)
    return Plan(
        model=model,
        change=lambda t: scale.update(a=2.0),
        watched=lambda: [v.numpy() for v in seen],
    )


@plan
def gradient_hook_that_reads() -> Plan:
    model, scale = network(), {"a": 1.0}
    next(model.parameters()).register_hook(lambda g: g * scale["a"])
    return Plan(model=model, change=lambda t: scale.update(a=3.0))


@plan
def forward_replaced() -> Plan:
    model = Gated()
    return Plan(
        model=model, change=lambda t: setattr(t.model, "forward", lambda x: model.net(x) * 3)
    )


@plan
def model_replaced() -> Plan:
    def change(trainer: Trainer) -> None:
        trainer.model = network(9)
        trainer.optimizer = optim.SGD(trainer.model.parameters(), lr=0.05)

    return Plan(change=change)


# --- the optimizer --------------------------------------------------------------------------------


def set_option(name: str, value: Any) -> Callable[[Trainer], None]:
    def change(trainer: Trainer) -> None:
        trainer.optimizer.param_groups[0][name] = value

    return change


@plan
def learning_rate() -> Plan:
    return Plan(change=set_option("lr", 0.01))


@plan
def momentum_of_the_optimizer() -> Plan:
    return Plan(change=set_option("momentum", 0.9))


@plan
def nesterov() -> Plan:
    return Plan(change=set_option("nesterov", True))


@plan
def weight_decay_of_adam() -> Plan:
    return Plan(change=set_option("weight_decay", 0.5), optimizer=lambda p: optim.AdamW(p, lr=0.01))


@plan
def betas_of_adam() -> Plan:
    return Plan(change=set_option("betas", (0.5, 0.9)), optimizer=lambda p: optim.Adam(p, lr=0.01))


@plan
def optimizer_replaced() -> Plan:
    def change(trainer: Trainer) -> None:
        trainer.optimizer = optim.SGD(trainer.model.parameters(), lr=0.01)

    return Plan(change=change)


@plan
def param_groups_replaced() -> Plan:
    def change(trainer: Trainer) -> None:
        group = trainer.optimizer.param_groups[0]
        trainer.optimizer.param_groups = [{**group, "params": group["params"][:2]}]

    return Plan(change=change)


@plan
def state_of_the_optimizer_loaded() -> Plan:
    def change(trainer: Trainer) -> None:
        other = optim.SGD(network().parameters(), lr=0.03, momentum=0.5)
        trainer.optimizer.load_state_dict(other.state_dict())

    return Plan(change=change)


@plan
def step_of_the_optimizer_wrapped() -> Plan:
    def change(trainer: Trainer) -> None:
        inner = trainer.optimizer.step

        def step() -> None:
            inner()
            with no_grad():
                for p in trainer.model.parameters():
                    p.copy_(p * 0.5)

        trainer.optimizer.step = step  # type: ignore[method-assign]

    return Plan(change=change)


# --- running --------------------------------------------------------------------------------------


class Changes(Callback):
    """Makes the change after the second epoch, and notes the weights after each."""

    def __init__(self, plan: Plan, found: list[Any]) -> None:
        self.plan, self.found = plan, found

    def on_epoch_end(self, trainer: Trainer, record: dict[str, float]) -> None:
        note(trainer, self.plan, self.found)
        self.found.append({k: v for k, v in record.items() if "loss" in k})
        if trainer.epoch == 2:
            self.plan.change(trainer)


def assert_no_check_was_needed(trainer: Trainer) -> None:
    """What changes is seen by the guards, and not only by the check of a later step."""
    for stage in trainer._step._stages:
        if isinstance(stage, Compiled):
            assert not stage.dropped


def note(trainer: Trainer, plan: Plan, found: list[Any]) -> None:
    found += [p.detach().numpy().copy() for p in trainer.model.parameters()]
    watched = plan.watched()
    found += watched if isinstance(watched, list) else [watched]


def stepped(make: Callable[[], Plan], compile: bool, at: int) -> list[Any]:
    """Nine steps on batches of two sizes, the change before step ``at``."""
    default_generator.seed(1)
    plan, found = make(), list[Any]()
    trainer = Trainer(
        plan.model, plan.optimizer(plan.model.parameters()), plan.loss, compile=compile,
        metrics=(), **plan.options,
    )  # fmt: skip
    for k in range(9):
        if k == at:
            plan.change(trainer)
        plan.before(trainer, k)
        batch = slice(k, k + 8) if k % 4 != 3 else slice(k, k + 6)
        try:
            loss, output = trainer.step(Tensor(X[batch]), Tensor(TARGETS[batch]))
            found += [loss.numpy().copy(), output.numpy().copy()]
        except ValueError as error:
            found.append(str(error))
        note(trainer, plan, found)
    assert_no_check_was_needed(trainer)
    return found


def fitted(make: Callable[[], Plan], compile: bool) -> list[Any]:
    """Four epochs of three batches, the change after the second."""
    default_generator.seed(1)
    plan, found = make(), list[Any]()
    trainer = Trainer(
        plan.model, plan.optimizer(plan.model.parameters()), plan.loss, compile=compile,
        metrics=(), callbacks=[Changes(plan, found)], **plan.options,
    )  # fmt: skip
    data = TensorDataset(X, TARGETS)
    try:
        trainer.fit(DataLoader(data, 8, seed=1), DataLoader(data, 12), epochs=4)
    except ValueError as error:
        found.append(str(error))
    note(trainer, plan, found)
    assert_no_check_was_needed(trainer)
    return found


def assert_alike(found: list[Any], right: list[Any], rtol: float) -> None:
    assert len(found) == len(right)
    for k, (a, b) in enumerate(zip(found, right)):
        if isinstance(b, np.ndarray):
            np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol / 10, err_msg=f"value {k}")
        elif isinstance(b, dict):
            assert a == pytest.approx(b, rel=rtol, abs=rtol / 10), k
        else:
            assert a == b, k


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A step that cannot be compiled runs as it is and says so once: that is no mistake."""
    monkeypatch.delenv("SCENARIO_SCALE", raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    os.environ.pop("SCENARIO_SCALE", None)


def in_a_context(function: Callable[..., list[Any]], *args: Any) -> list[Any]:
    os.environ.pop("SCENARIO_SCALE", None)
    return contextvars.copy_context().run(function, *args)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("name", PLANS)
def test_a_change_between_steps(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the best executor, and its quick entry. What is looked at does not depend on how well the
    compiler optimises, which takes half of its time."""
    plain = tuple("-O0" if flag == "-O3" else flag for flag in compiler.FLAGS)
    monkeypatch.setattr(compiler, "FLAGS", plain)
    right = in_a_context(stepped, PLANS[name], False, 5)
    rtol = 2e-2 if "half" in name else 1e-4
    assert_alike(in_a_context(stepped, PLANS[name], True, 5), right, rtol)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("name", PLANS)
def test_an_early_change_and_one_between_epochs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the NumPy executor, which need not wait for a compiler."""
    monkeypatch.setattr(compiler, "compiler", lambda: None)
    rtol = 2e-2 if "half" in name else 1e-4
    for function, *rest in ((stepped, 1), (fitted,)):
        right = in_a_context(function, PLANS[name], False, *rest)
        assert_alike(in_a_context(function, PLANS[name], True, *rest), right, rtol)
