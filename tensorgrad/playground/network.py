"""What learns in the playground: a network and the Trainer whose compiled steps fit it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tensorgrad import nn, optim
from tensorgrad.autograd import no_grad
from tensorgrad.data import DataLoader, TensorDataset
from tensorgrad.nn import functional
from tensorgrad.ops.random import Generator
from tensorgrad.playground.curve import Curve
from tensorgrad.playground.datasets import Array, Data
from tensorgrad.playground.errors import PlaygroundError
from tensorgrad.playground.origin import Origin
from tensorgrad.playground.settings import ACTIVATIONS, OPTIMIZERS, Settings
from tensorgrad.tensor import Tensor
from tensorgrad.training import Trainer
from tensorgrad.viz import Graph, draw_graph, noted_values

_MOST_CHANGES = 1000  # that are kept for the script
_FEATURES: dict[str, Callable[[Array, Array], Array]] = {
    "x": lambda x, y: x,
    "y": lambda x, y: y,
    "x2": lambda x, y: x * x,
    "y2": lambda x, y: y * y,
    "xy": lambda x, y: x * y,
    "sinx": lambda x, y: np.sin(x),
    "siny": lambda x, y: np.sin(y),
}


def features_of(points: Array, names: Sequence[str]) -> Array:
    """What a network is given of points [n, 2]: float32 [n, features]."""
    x, y = points[:, 0], points[:, 1]
    return np.stack([_FEATURES[name](x, y) for name in names], axis=1).astype(np.float32)


def targets_of(labels: Array, classes: int) -> Array:
    """Labels as the loss takes them: numbers [n, 1], or of more than two classes int64 [n]."""
    return labels.astype(np.int64) if classes > 2 else labels.astype(np.float32)[:, None]


def build_model(settings: Settings, classes: int, masks: Generator) -> nn.Sequential:
    """Fully connected layers; tanh at the end for two classes, scores for more.

    classes: 1 for a regression. masks: where dropout draws from. Weights begin between -.5 and .5,
    biases at .1, as in TensorFlow Playground.
    """
    weights = Generator(settings.init_seed)
    size = len(settings.features)
    layers: list[nn.Module] = []
    for units, name in zip(settings.layers, settings.activations()):
        layers += [nn.Linear(size, units), getattr(nn, ACTIVATIONS[name])()]
        if settings.dropout:
            layers.append(nn.Dropout(settings.dropout, generator=masks))
        size = units
    layers.append(nn.Linear(size, classes if classes > 2 else 1))
    if classes == 2:
        layers.append(nn.Tanh())
    for layer in layers:
        if isinstance(layer, nn.Linear):
            assert layer.bias is not None
            nn.init.uniform_(layer.weight, -0.5, 0.5, generator=weights)
            nn.init.constant_(layer.bias, 0.1)
    return nn.Sequential(*layers)


def half_squared_error(output: Tensor, target: Tensor) -> Tensor:
    """Half of the mean squared error."""
    return functional.mse_loss(output, target, "half_mean")


def loss_of(classes: int) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss: cross-entropy for more than two classes, else half the squared error."""
    return functional.cross_entropy if classes > 2 else half_squared_error


def build_optimizer(settings: Settings, model: nn.Module) -> optim.Optimizer:
    """The optimizer of the settings."""
    rule = OPTIMIZERS[settings.optimizer]
    made: optim.Optimizer = getattr(optim, rule.name)(
        model.parameters(), lr=settings.rate, **rule.options
    )
    return made


def build_penalty(
    settings: Settings, model: nn.Module, strength: Tensor
) -> Callable[[], Tensor] | None:
    """``strength`` times the sum of the weights' sizes, or of half their squares; or None."""
    weights = [p for p in model.parameters() if p.ndim > 1]
    if settings.regularization == "none":
        return None
    if settings.regularization == "l1":
        return lambda: functional.l1_penalty(weights, 1.0) * strength
    return lambda: functional.l2_penalty(weights, 0.5) * strength


class Learner:
    """A network that learns from some data, one batch after another.

    ``steps`` and ``epoch`` are those done, ``curve`` the losses as training went. An epoch has as
    many whole batches as there are; what is left over comes in others, as each is shuffled anew.
    ``reason`` says why it does not go on: a stop condition, or where the first NaN arose.
    """

    def __init__(self, settings: Settings, data: Data) -> None:
        self.classes = data.classes
        self._masks = Generator(settings.init_seed + 1)
        self.model = build_model(settings, data.classes, self._masks)
        self.loss = loss_of(data.classes)
        self.curve = Curve()
        self.steps = 0
        self.epoch = 0
        #: what was changed by hand: (after how many steps, what, value, and where it is)
        self.changes: list[tuple[Any, ...]] = []
        self.mended: list[str] = []  # settings that changed on the way, besides
        self.first = settings
        self.state = ""  # "stopped" or "nan" once it does not go on
        self.reason = ""
        self._rate = Tensor(0.0, dtype="float32")
        self._fresh = 0
        self.settings = settings
        self.trainer = self._new_trainer()
        self._origin = Origin()
        self.give(data)

    def _new_trainer(self) -> Trainer:
        self._fresh = 0  # steps of this trainer
        with no_grad():
            self._rate.copy_(self.settings.regularization_rate)
        return Trainer(
            self.model,
            build_optimizer(self.settings, self.model),
            self.loss,
            penalty=build_penalty(self.settings, self.model, self._rate),
            metrics=(),
        )

    # --- what may change while it learns ----------------------------------------------------------

    @property
    def is_settled(self) -> bool:
        """Whether the step is compiled and was compared with what it was made from."""
        return self._fresh > 2

    def give(self, data: Data) -> None:
        """Learn from ``data``, of as many classes, from the next epoch's first batch on."""
        self.data = data
        names, classes = self.settings.features, self.classes
        self.inputs = features_of(data.points, names)
        self.targets = targets_of(data.labels, classes)
        self._sets = [
            (Tensor(features_of(points, names)), Tensor(targets_of(labels, classes)))
            for points, labels in (
                (data.points, data.labels),
                (data.test_points, data.test_labels),
            )
        ]
        self._mended("the data")
        self._new_batches()
        self.curve.note(self.steps, *self.losses())

    def _new_batches(self) -> None:
        self._loader: DataLoader | None = None
        self._batches: Iterator[tuple[Tensor, ...]] = iter(())
        self._done = 0  # batches of the epoch
        n = len(self.inputs)
        if n:
            self._loader = DataLoader(
                TensorDataset(self.inputs, self.targets),
                min(self.settings.batch, n),
                shuffle=True,
                drop_last=True,
                seed=self.settings.seed,
            )
            self._loader.load_state_dict({**self._loader.state_dict(), "epoch": self.epoch})

    def follow(self, settings: Settings) -> None:
        """Go on with other rates, another optimizer, penalty, batch or stop condition."""
        before, self.settings = self.settings, settings
        if (before.optimizer, before.regularization) != (
            settings.optimizer,
            settings.regularization,
        ):
            self._mended("optimizer and regularization")
            self.trainer = self._new_trainer()
        if before.rate != settings.rate:
            self._note("rate", settings.rate)
            for group in self.trainer.optimizer.param_groups:
                group["lr"] = settings.rate
        if before.regularization_rate != settings.regularization_rate:
            self._note("strength", settings.regularization_rate)
            with no_grad():
                self._rate.copy_(settings.regularization_rate)
        if before.batch != settings.batch:
            self._mended("the batch size")
            self._new_batches()
        if not self.steps:  # it is as if it had begun so
            self.first = settings
            self.changes = [row for row in self.changes if row[1] not in ("rate", "strength")]
        self.changed()

    def _note(self, *row: Any) -> None:
        """Keep what was changed by hand now; what it was before at the same step is forgotten."""
        rows, place = self.changes, (self.steps, row[0], *row[2:])
        if rows and (rows[-1][0], rows[-1][1], *rows[-1][3:]) == place:
            rows.pop()
        rows.append((self.steps, *row))
        if len(rows) > _MOST_CHANGES:
            del rows[0]
            self._mended("weights and rates, many times")

    def _mended(self, what: str) -> None:
        if self.steps and what not in self.mended:
            self.mended.append(what)

    def set_parameter(self, layer: int, unit: int, place: int | None, value: float) -> None:
        """Write a weight, or where ``place`` is None the bias, of a unit."""
        linear = self.linears()[layer]
        kind = "bias" if place is None else "weight"
        self._note(kind, value, layer, unit, place or 0)
        with no_grad():
            if place is None:
                assert linear.bias is not None
                linear.bias[unit] = value
            else:
                linear.weight[unit, place] = value
        self.changed()

    def changed(self) -> None:
        """Somebody changed what training goes on from: a reason to stop need no longer hold."""
        self.state = self.reason = ""
        self._origin.begin(self.trainer)

    # --- learning ---------------------------------------------------------------------------------

    def step(self) -> bool:
        """One training step; False if there is none to be done, and ``state`` says why."""
        if self.state or self._loader is None:
            return False
        if not self._done:
            self._batches = iter(self._loader)
        self._origin.watch(self.trainer)
        batch = next(self._batches)
        loss, _ = self.trainer.step(*batch)
        self.steps += 1
        self._fresh += 1
        self._done += 1
        if not self._origin.is_finite(batch, loss):
            self.state = "nan"
            self.reason = self._origin.found(self.trainer, self.steps)
            return False
        if self._done == len(self._loader):
            self._done = 0
            self.epoch += 1
            self._end_epoch()
        return True

    def _end_epoch(self) -> None:
        settings = self.settings
        due = self.curve.is_due(self.epoch)
        if due or settings.stop_loss:
            losses = self.losses()
            if due:
                self.curve.note(self.steps, *losses)
            if settings.stop_loss and losses[0] is not None and losses[0] <= settings.stop_loss:
                self._stop(f"the training loss is {losses[0]:.4g}, at most {settings.stop_loss:g}")
        if settings.stop_epochs and self.epoch >= settings.stop_epochs and not self.state:
            self._stop(f"{self.epoch:,} epochs are done")

    def _stop(self, reason: str) -> None:
        self.state, self.reason = "stopped", reason

    # --- looking at it ----------------------------------------------------------------------------

    def linears(self) -> list[nn.Linear]:
        """The layers with weights: the hidden ones, then that of the output."""
        return [layer for layer in self.model if isinstance(layer, nn.Linear)]

    def outputs(self, inputs: Tensor) -> list[Tensor]:
        """What each layer gives, its activation included, without dropout: [n, units] each."""
        found: list[Tensor] = []
        value = inputs
        with no_grad():
            for layer in self.model:
                if isinstance(layer, nn.Dropout):
                    continue
                value = layer(value)
                if isinstance(layer, nn.Linear):
                    found.append(value)
                else:
                    found[-1] = value
        return found

    def losses(self) -> tuple[float | None, float | None]:
        """The mean loss on the training and on the test data; None where there is none."""
        train, test = (self._loss(*one) for one in self._sets)
        return train, test

    def _loss(self, inputs: Tensor, targets: Tensor) -> float | None:
        if not len(inputs):
            return None
        with no_grad():
            return self.loss(self.outputs(inputs)[-1], targets).item()

    def answers(self) -> tuple[Array, Array]:
        """The class told for each example of the training and of the test data, from 0."""
        train, test = (self._told(inputs) for inputs, _ in self._sets)
        return train, test

    def _told(self, inputs: Tensor) -> Array:
        if not len(inputs):
            return np.zeros(0, np.int64)
        return classes_told(self.outputs(inputs)[-1].numpy())

    def tape(self) -> Graph:
        """What one step records of the first batch, with values and gradients; no step is done."""
        count = min(self.settings.batch, len(self.inputs))
        if not count:
            raise PlaygroundError("there are no training points, so there is no step to be drawn")
        drawn, penalty = self._masks.state(), self.trainer.penalty
        with noted_values() as values:
            output = self.model(Tensor(self.inputs[:count]))
            total = self.loss(output, Tensor(self.targets[:count]))
            if penalty is not None:
                total = total + penalty()
        self._masks.set_state(drawn)  # the masks of the next step are what they would have been
        return draw_graph(total, self.model, values=values)

    def gradient_norms(self) -> list[float]:
        """Of each layer, the Euclidean norm of its weights' gradient in the last step."""
        found = []
        for layer in self.linears():
            gradient = layer.weight.grad
            wide = np.zeros(1) if gradient is None else gradient.numpy().astype(np.float64)
            found.append(math.sqrt(float((wide * wide).sum())))
        return found


def classes_told(output: Array) -> Array:
    """The class that outputs [n, 1] (below 0 the first, as its label is) or scores stand for."""
    if output.shape[1] == 1:
        return (output[:, 0] > 0).astype(np.int64)
    return output.argmax(axis=1)


def racer(settings: Settings, optimizer: str, rate: float, data: Data) -> Learner:
    """A learner with the same first weights and the same batches, but another optimizer."""
    return Learner(replace(settings, optimizer=optimizer, rate=rate), data)
