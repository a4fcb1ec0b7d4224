"""What else a Trainer can do: schedules, accumulation, clipping, mixed precision, averages."""

from __future__ import annotations

import os
import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tensorgrad import nn, optim
from tensorgrad.data import DataLoader, TensorDataset
from tensorgrad.errors import TensorgradError
from tensorgrad.nn import functional
from tensorgrad.ops.random import default_generator
from tensorgrad.optim import lr_scheduler
from tensorgrad.tensor import Tensor
from tensorgrad.training import Callback, EarlyStopping, Trainer, load_checkpoint, save_checkpoint

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 5)).astype(np.float32)
T = (X[:, 0] + X[:, 1] > 0).astype(np.int64)


pytestmark = pytest.mark.usefixtures("own_random_numbers")


def loaders(size: Any = 8) -> tuple[DataLoader, DataLoader]:
    return (
        DataLoader(TensorDataset(X[:45], T[:45]), size, True, seed=1),
        DataLoader(TensorDataset(X[45:], T[45:]), 10),
    )


def trainer_with(optimizer: str = "SGD", scheduler: Any = None, **options: Any) -> Trainer:
    default_generator.seed(3)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Dropout(0.1), nn.Linear(8, 2))
    updates = getattr(optim, optimizer)(model.parameters(), lr=0.1)
    if scheduler is not None:
        options["scheduler"] = scheduler(updates)
    if "average" in options:
        options["average"] = optim.ExponentialMovingAverage(model, 0.9)
    return Trainer(model, updates, functional.cross_entropy, **options)


def weights(trainer: Trainer) -> list[bytes]:
    return [p.data.tobytes() for p in trainer.model.state_dict().values()]


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("accumulate", [2, 3, 100])
def test_accumulation_gives_the_gradient_of_the_whole_batch(accumulate: int, compile: bool) -> None:
    """With the last, smaller batch too; more parts than examples are as many as examples."""

    def trained(parts: int) -> Trainer:
        trainer = trainer_with(accumulate=parts, compile=compile)
        trainer.model[2].p = 0.0  # type: ignore[index]  # dropout draws by the shape
        trainer.fit(loaders()[0], epochs=3)
        return trainer

    one, several = trained(1), trained(accumulate)
    for p, q in zip(one.model.parameters(), several.model.parameters(), strict=True):
        np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), rtol=2e-4, atol=1e-5)
    assert several.history[-1]["train_loss"] == pytest.approx(
        one.history[-1]["train_loss"], rel=1e-4
    )
    assert several.history[-1]["train_accuracy"] == pytest.approx(
        one.history[-1]["train_accuracy"], abs=0.03
    )


CLASS_WEIGHTS = Tensor(np.array([1.0, 5.0, 0.2], np.float32))
#: Losses that are means over something else than the number of examples, or no means.
WEIGHTED: dict[str, Any] = {
    "weights of classes": nn.CrossEntropyLoss(weight=CLASS_WEIGHTS),
    "a class that counts for nothing": nn.CrossEntropyLoss(ignore_index=2),
    "both, smoothed": nn.CrossEntropyLoss(
        weight=CLASS_WEIGHTS, ignore_index=0, label_smoothing=0.1
    ),
    "a function around it": lambda y, t: functional.cross_entropy(y, t, weight=CLASS_WEIGHTS),
    "an argument given": partial(functional.cross_entropy, ignore_index=2),
    "a sum": lambda y, t: functional.cross_entropy(y, t, "sum") * 0.1,
    "logarithms": lambda y, t: (y.softmax(1).log() * -functional.one_hot(t, 3)).sum() / len(t),
    "a plain mean": nn.CrossEntropyLoss(),
}


@pytest.mark.parametrize("how", ["eager", "compiled", "float16", "bfloat16"])
@pytest.mark.parametrize(
    ("case", "penalty"), [*((case, False) for case in WEIGHTED), ("both, smoothed", True)]
)
def test_accumulation_of_what_is_no_mean_over_examples(case: str, how: str, penalty: bool) -> None:
    """Also where all examples of a part count for nothing; a penalty counts once."""
    x = RNG.normal(size=(12, 5)).astype(np.float32)
    labels = np.array([2, 2, 2, 2, 0, 1, 0, 0, 1, 2, 1, 0])
    precision = how if how.endswith("16") else None

    def trained(parts: int) -> tuple[Any, float]:
        default_generator.seed(4)
        model = nn.Linear(5, 3)
        options: dict[str, Any] = {"precision": precision, "compile": how == "compiled"}
        if penalty:
            options["penalty"] = lambda: (model.weight**2).sum() * 2.0
        updates = optim.SGD(model.parameters(), lr=0.1)
        trainer = Trainer(model, updates, WEIGHTED[case], accumulate=parts, **options)
        for _ in range(3):
            loss, output = trainer.step(Tensor(x), Tensor(labels))
        assert output.shape == (12, 3)
        return model.weight.detach().numpy(), float(loss.item())

    weight, loss = trained(1)
    tolerance = 1e-5 if precision is None else 2e-2
    for parts in (2, 3, 12):
        found, value = trained(parts)
        np.testing.assert_allclose(found, weight, rtol=tolerance, atol=tolerance)
        assert value == pytest.approx(loss, rel=tolerance)


class Rows(nn.Module):
    """A row for each word of an example, and so many more."""

    def __init__(self, more: int) -> None:
        self.layer, self.more = nn.Linear(5, 3), more

    def forward(self, x: Tensor) -> Tensor:
        rows: Tensor = self.layer(x.reshape(-1, 5))
        return rows[: len(rows) - self.more]


def test_accumulation_of_several_rows_for_an_example() -> None:
    """Such as the words of a sentence; another number of rows cannot be cut."""
    labels = RNG.integers(0, 3, (6, 4))
    x = RNG.normal(size=(6, 4, 5)).astype(np.float32)

    def loss(y: Tensor, t: Tensor) -> Tensor:
        return functional.cross_entropy(y, t.reshape(-1), weight=CLASS_WEIGHTS)

    def trained(parts: int, more: int = 0) -> Any:
        default_generator.seed(4)
        model = Rows(more)
        updates = optim.SGD(model.parameters(), lr=0.1)
        Trainer(model, updates, loss, accumulate=parts).step(Tensor(x), Tensor(labels))
        return model.layer.weight.detach().numpy()

    np.testing.assert_allclose(trained(4), trained(1), rtol=1e-5)
    with pytest.raises(TensorgradError, match="as many rows for each example; got 11 for 3"):
        trained(2, more=1)


def test_clipping() -> None:
    """No step is longer than the rate times the norm."""
    lengths: list[float] = []

    class Lengths(Callback):
        def on_fit_start(self, trainer: Trainer, *_: Any) -> None:
            self.before = [p.detach().numpy().copy() for p in trainer.model.parameters()]

        def on_batch_end(self, trainer: Trainer, done: int) -> None:
            now = [p.detach().numpy().copy() for p in trainer.model.parameters()]
            squares = sum(((a - b) ** 2).sum() for a, b in zip(now, self.before, strict=True))
            lengths.append(float(np.sqrt(squares)))
            self.before = now

    trainer_with(clip_norm=0.2, callbacks=[Lengths()]).fit(loaders()[0], epochs=2)
    assert max(lengths) <= 0.1 * 0.2 * 1.001
    assert max(lengths) > 0.019


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("precision", [None, "float16"])
def test_clipping_counts_parameters_that_were_added_later(
    compile: bool, precision: str | None
) -> None:
    """The step is as long as is allowed, with all parameters of the optimizer."""
    default_generator.seed(3)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 2))
    first, last = model[0], model[2]
    assert isinstance(first, nn.Module)
    assert isinstance(last, nn.Module)
    optimizer = optim.SGD(last.parameters(), lr=1.0)
    trainer = Trainer(
        model,
        optimizer,
        functional.cross_entropy,
        clip_norm=0.01,
        compile=compile,
        precision=precision,
    )
    batch = Tensor(X[:8]), Tensor(T[:8])
    for step in range(4):
        if step == 2:
            optimizer.add_param_group({"params": list(first.parameters())})
        before = [p.detach().numpy().copy() for p in model.parameters()]
        trainer.step(*batch)
        after = [p.detach().numpy() for p in model.parameters()]
        squares = [((a - b) ** 2).sum() for a, b in zip(after, before, strict=True)]
        assert np.sqrt(sum(squares)) == pytest.approx(0.01, rel=1e-3)
        assert (squares[0] > 0) == (step >= 2)


def test_schedules_by_epoch_and_by_batch() -> None:
    """The rate in the history is the one of the epoch's first step."""
    trainer = trainer_with(scheduler=lambda o: lr_scheduler.StepLR(o, 2, 0.5))
    history = trainer.fit(loaders()[0], epochs=5)
    assert [round(r["lr"], 6) for r in history] == [0.1, 0.1, 0.05, 0.05, 0.025]
    trainer = trainer_with(
        scheduler=lambda o: lr_scheduler.LinearLR(o, 0.01, 1.0, 12), schedule_every="batch"
    )
    history = trainer.fit(loaders()[0], epochs=3)  # of 6 batches
    assert [round(r["lr"], 6) for r in history] == [0.001, 0.0505, 0.1]


def test_reduction_on_a_plateau_watches_a_column() -> None:
    """Which must be there."""
    plateau: dict[str, Any] = {
        "scheduler": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0, threshold=9)
    }
    history = trainer_with(**plateau).fit(*loaders(), epochs=3)
    assert history[2]["lr"] < history[0]["lr"]
    with pytest.raises(TensorgradError, match="is to watch 'validation_loss'"):
        trainer_with(**plateau).fit(loaders()[0], epochs=1)


@pytest.mark.parametrize(
    ("monitor", "right"),
    [("validation_accuracy", "max"), ("validation_loss", "min"), ("train_top_5", "max")],
)
def test_a_plateau_of_the_wrong_direction_is_refused(monitor: str, right: str) -> None:
    for mode in ("min", "max"):
        options: dict[str, Any] = {
            "scheduler": lambda o, mode=mode: lr_scheduler.ReduceLROnPlateau(o, mode),
            "monitor": monitor,
        }
        if mode == right:
            trainer_with(**options)
            continue
        with pytest.raises(TensorgradError, match=f"the {right} is best, .* mode='{mode}'"):
            trainer_with(**options)
    trainer_with(scheduler=lr_scheduler.ReduceLROnPlateau, monitor="train_of_my_own")


OPTIONS: dict[str, dict[str, Any]] = {
    "bfloat16": {"precision": "bfloat16", "optimizer": "Adam"},
    "float16": {"precision": "float16", "optimizer": "Adam"},
    "average": {"average": True},
    "batch schedule": {
        "scheduler": lambda o: lr_scheduler.OneCycleLR(o, 0.5, 40),
        "schedule_every": "batch",
    },
    "everything": {
        "precision": "float16", "optimizer": "AdamW", "average": True, "clip_norm": 1.0,
        "accumulate": 2, "metrics": ["accuracy", "f1", "roc_auc"],
        "scheduler": lambda o: lr_scheduler.CosineAnnealingLR(o, 40), "schedule_every": "batch",
    },
}  # fmt: skip


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("case", OPTIONS)
@pytest.mark.filterwarnings("ignore:the training step runs without")
def test_resumed_in_the_middle_of_an_epoch_with_the_same_bits(
    case: str, compile: bool, tmp_path: Path
) -> None:
    """Scaler, averages, schedules and metrics are part of the state."""

    class StopAt(Callback):
        def __init__(self, step: int) -> None:
            self.step = step

        def on_batch_end(self, trainer: Trainer, done: int) -> None:
            if trainer.steps == self.step:
                save_checkpoint(tmp_path / "c", trainer.state_dict())
                raise KeyboardInterrupt

    options = {**OPTIONS[case], "compile": compile}
    whole = trainer_with(**options)
    whole.fit(*loaders(), epochs=4)
    assert whole.history[-1]["train_loss"] < 0.9 * whole.history[0]["train_loss"]
    broken = trainer_with(**options, callbacks=[StopAt(15)])
    with pytest.raises(KeyboardInterrupt):
        broken.fit(*loaders(), epochs=4)
    default_generator.seed(99)
    resumed = trainer_with(**options)
    resumed.load_state_dict(load_checkpoint(tmp_path / "c").state)
    resumed.fit(*loaders(), epochs=4)
    assert weights(resumed) == weights(whole)
    for a, b in zip(resumed.history, whole.history, strict=True):
        assert {**a, "seconds": 0} == {**b, "seconds": 0}


def test_average_is_what_is_validated_and_kept() -> None:
    """The history speaks of the means, and so do the weights in the end."""
    trainer = trainer_with(average=True)
    train, validation = loaders()
    trainer.fit(train, validation, epochs=3)
    assert trainer.evaluate(validation)["loss"] == pytest.approx(
        trainer.history[-1]["validation_loss"], rel=1e-6
    )


def test_early_stopping_keeps_the_means_that_were_best() -> None:
    """And not the weights they were the means of."""
    trainer = trainer_with(average=True, callbacks=[EarlyStopping(patience=None)])
    train, validation = loaders()
    history = trainer.fit(train, validation, epochs=12)
    best = min(record["validation_loss"] for record in history)
    assert trainer.evaluate(validation)["loss"] == pytest.approx(best, rel=1e-6)


def test_float16_leaves_out_steps_that_overflow() -> None:
    """The scale comes down until gradients are finite; then training goes on."""
    trainer = trainer_with(precision="float16")
    trainer.fit(loaders()[0], epochs=2)
    scaler = trainer._step.scaler
    assert scaler is not None
    scaler.load_state_dict({"scale": 2.0**40, "steps": 0, "skipped": 0})
    trainer.fit(loaders()[0], epochs=8)
    assert scaler.skipped > 10
    assert all(np.isfinite(p.detach().numpy()).all() for p in trainer.model.parameters())


def test_products_in_16_bits_are_used_in_evaluation_too() -> None:
    """The output of the model is rounded."""
    seen: list[str] = []

    def loss(output: Tensor, target: Tensor) -> Tensor:
        seen.append(str(output.dtype))
        return functional.cross_entropy(output, target)

    trainer = trainer_with(precision="bfloat16", compile=False)
    trainer.loss = loss
    trainer.fit(*loaders(), epochs=1)
    assert set(seen) == {"bfloat16"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accumulate": 0}, "accumulate must be a whole number from 1"),
        ({"clip_norm": 0.0}, "clip_norm must be above 0"),
        ({"precision": "int8"}, "precision must be"),
        ({"schedule_every": "week"}, "schedule_every must be"),
    ],
)
def test_refused(options: dict[str, Any], message: str) -> None:
    """With what came."""
    with pytest.raises(TensorgradError, match=message):
        trainer_with(**options)


def test_nothing_is_left_open() -> None:
    """A Trainer leaves no threads or files behind."""
    trainer_with().fit(*loaders(), epochs=1)  # what is loaded once
    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    for _ in range(3):
        trainer_with().fit(*loaders(), epochs=1)
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == before
