"""The Trainer and its callbacks: one code path, best weights, and resumption with the same bits."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import signal
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tensorgrad import nn
from tensorgrad.data import DataLoader, TensorDataset
from tensorgrad.errors import CompileError, ShapeError, TensorgradError
from tensorgrad.nn import functional
from tensorgrad.ops.random import Generator, default_generator
from tensorgrad.optim import SGD, Adam
from tensorgrad.tensor import Tensor
from tensorgrad.training import (
    Callback,
    Checkpointing,
    Curves,
    EarlyStopping,
    History,
    Progress,
    Trainer,
    TrainingError,
    accuracy,
    load_checkpoint,
    metrics,
)
from tensorgrad.training.metrics import mode_of

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 5)).astype(np.float32)
LABELS = (X[:, 0] + X[:, 1] * X[:, 2] > 0).astype(np.int64)


pytestmark = pytest.mark.usefixtures("own_random_numbers", "interruptible")


def loaders(batch_size: Any = 8, shuffle: bool = True) -> tuple[DataLoader, DataLoader]:
    """Training and validation data."""
    return (
        DataLoader(TensorDataset(X[:45], LABELS[:45]), batch_size, shuffle, seed=1),
        DataLoader(TensorDataset(X[45:], LABELS[45:]), 10),
    )


def new_trainer(callbacks: Sequence[Callback] = (), **options: Any) -> Trainer:
    """A small network with dropout, whose two layers draw from two generators."""
    default_generator.seed(3)
    model = nn.Sequential(
        nn.Linear(5, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 8), nn.ReLU(),
        nn.Dropout(0.1, generator=Generator(5)), nn.Linear(8, 2),
    )  # fmt: skip
    optimizer = Adam(model.parameters(), lr=0.02)
    return Trainer(model, optimizer, functional.cross_entropy, callbacks=callbacks, **options)


def bits(trainer: Trainer) -> dict[str, bytes]:
    """The parameters, bit by bit."""
    return {name: p.data.tobytes() for name, p in trainer.model.state_dict().items()}


def figures(trainer: Trainer) -> list[dict[str, float]]:
    """The history without the time."""
    return [{k: v for k, v in r.items() if k != "seconds"} for r in trainer.history]


def test_learns_and_keeps_a_history() -> None:
    """The loss falls; the history has a row for each epoch with all figures."""
    trainer = new_trainer()
    history = trainer.fit(*loaders(), epochs=40)
    assert trainer.epoch == len(history) == 40
    assert [record["epoch"] for record in history] == list(range(1, 41))
    assert set(history[0]) == {
        "epoch", "lr", "seconds", "train_loss", "train_accuracy", "validation_loss",
        "validation_accuracy",
    }  # fmt: skip
    assert history[-1]["train_loss"] < 0.5 * history[0]["train_loss"]
    assert history[-1]["train_accuracy"] > 0.85


def test_the_code_of_a_step_is_there_once_it_is_compiled() -> None:
    batch = Tensor(X[:8]), Tensor(LABELS[:8])
    for compile in (True, False):
        trainer = new_trainer(compile=compile)
        with pytest.raises(CompileError, match="not run yet"):
            trainer.source()
        trainer.step(*batch)
        if not compile:
            with pytest.raises(CompileError, match="runs as it is"):
                trainer.source()
        elif trainer._step.executor == "native":
            assert "float *restrict" in trainer.source()
        elif trainer._step.executor == "numpy":
            assert trainer.source().startswith("def run(")


def test_figures_are_means_over_the_examples() -> None:
    """A last batch that is smaller counts for less."""
    trainer = new_trainer()
    found = trainer.evaluate(loaders()[1])  # batches of 10 and 5
    output = trainer.model.eval()(Tensor(X[45:]))
    target = Tensor(LABELS[45:])
    assert found["loss"] == pytest.approx(float(functional.cross_entropy(output, target)), rel=1e-6)
    assert found["accuracy"] == pytest.approx(float(accuracy(output, target)))


def test_evaluation_leaves_no_trace() -> None:
    """No gradients, no random numbers, the same mode as before."""
    trainer = new_trainer()
    state, before = default_generator.state(), bits(trainer)
    for mode in (True, False):
        trainer.model.train(mode)
        trainer.evaluate(loaders()[1])
        assert trainer.model.training is mode
    assert default_generator.state() == state
    assert bits(trainer) == before
    assert all(p.grad is None for p in trainer.model.parameters())


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("frozen", [(), (1,), (1, 4), (3,)])
def test_modules_in_evaluation_mode_stay_so(frozen: tuple[int, ...], compile: bool) -> None:
    """A frozen batch normalization keeps its statistics, a dropout switched off stays off."""
    model = nn.Sequential(
        nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.5), nn.BatchNorm1d(8),
        nn.Linear(8, 2),
    )  # fmt: skip
    for i in frozen:
        model[i].eval()
    trainer = Trainer(model, SGD(model.parameters(), lr=0.1), functional.cross_entropy)
    trainer._step.compile = compile
    modes = [i not in frozen for i in range(6)]

    class Watch(Callback):
        def on_batch_end(self, trainer: Trainer, done: int) -> None:
            assert [m.training for m in model] == modes

    trainer.callbacks = (Watch(),)
    before = default_generator.state()
    trainer.evaluate(loaders()[1])
    assert [m.training for m in model] == modes
    trainer.fit(*loaders(), epochs=2)
    assert [m.training for m in model] == modes
    for i in (1, 4):
        batches = model[i].num_batches_tracked.item()  # type: ignore[attr-defined]
        assert batches == (0 if i in frozen else 2 * 6)
    assert (default_generator.state() == before) is (3 in frozen)
    model.check((4, 5))
    model.summary((4, 5))
    assert [m.training for m in model] == modes


def test_a_model_in_evaluation_mode_is_trained_all_the_same() -> None:
    trainer = new_trainer()
    trainer.model.eval()
    trainer.fit(*loaders(), epochs=1)
    assert all(m.training for m in trainer.model.modules())
    trainer.model.eval()
    trainer.evaluate(loaders()[1])
    assert not any(m.training for m in trainer.model.modules())


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("batch_size", [1, 7, "full"])
def test_step_is_what_one_would_write(batch_size: Any, compile: bool) -> None:
    """On-line, mini-batch, full-batch: the Trainer and the loop below give the same bits (D2).

    Compiled, the same numbers up to rounding.
    """

    def model() -> tuple[nn.Module, SGD]:
        default_generator.seed(0)
        net = nn.Sequential(nn.Linear(5, 4), nn.Sigmoid(), nn.Linear(4, 2))
        return net, SGD(net.parameters(), lr=0.1, momentum=0.5)

    net, optimizer = model()
    loader = loaders(batch_size)[0]
    for _ in range(2):
        for x, t in loader:
            optimizer.zero_grad()
            functional.cross_entropy(net(x), t).backward()
            optimizer.step()
    other, its_optimizer = model()
    trainer = Trainer(other, its_optimizer, functional.cross_entropy, compile=compile)
    trainer.fit(loaders(batch_size)[0], epochs=2)
    for p, q in zip(net.parameters(), other.parameters(), strict=True):
        if compile:
            np.testing.assert_allclose(p.data, q.data, rtol=1e-4, atol=1e-6)
        else:
            assert p.data.tobytes() == q.data.tobytes()


def test_penalty_pulls_on_the_weights_but_is_not_reported() -> None:
    """The loss of a step is the data's alone; the weights end smaller."""
    free, held = new_trainer(), new_trainer()
    weights = [p for p in held.model.parameters() if p.ndim > 1]
    held.penalty = lambda: functional.l2_penalty(weights, 0.1)
    batch = next(iter(loaders("full")[0]))
    default_generator.seed(1)
    first, _ = free.step(*batch)
    for module in held.model.modules():
        if isinstance(module, nn.Dropout) and module.generator:
            module.generator.seed(5)
    default_generator.seed(1)
    second, _ = held.step(*batch)
    assert first.item() == second.item()
    free.fit(loaders()[0], epochs=10)
    held.fit(loaders()[0], epochs=10)

    def size(trainer: Trainer) -> float:
        return sum(float((p * p).sum()) for p in trainer.model.parameters() if p.ndim > 1)

    assert size(held) < 0.5 * size(free)


def test_own_metrics() -> None:
    """Functions go by their names; without metrics, regression works."""

    def worst(output: Tensor, target: Tensor) -> Tensor:
        return abs(output - target).max()

    model = nn.Sequential(nn.Linear(5, 1))
    data = TensorDataset(X, X @ np.ones((5, 1), np.float32))
    trainer = Trainer(model, SGD(model.parameters(), lr=0.1), functional.mse_loss, metrics=[worst])
    history = trainer.fit(DataLoader(data, 20, seed=0), epochs=30)
    assert history[-1]["train_worst"] < 0.1
    assert "train_accuracy" not in history[0]
    with pytest.raises(TensorgradError, match="known are accuracy"):
        Trainer(model, trainer.optimizer, functional.mse_loss, metrics=["f7"])


def test_accuracy() -> None:
    """Labels, one-hot targets (also of .1 and .9), and what it refuses."""
    output = Tensor([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])
    assert float(accuracy(output, Tensor([1, 0, 0]))) == pytest.approx(2 / 3)
    assert float(accuracy(output, Tensor([[0.1, 0.9], [0.9, 0.1], [0.1, 0.9]]))) == 1
    for bad in (Tensor([[1], [0], [0]]), Tensor([1, 0])):
        with pytest.raises(ShapeError, match="accuracy"):
            accuracy(output, bad)
    with pytest.raises(ShapeError, match="two classes"):
        accuracy(Tensor([[0.1], [0.2]]), Tensor([[0], [1]]))


class Scripted(Callback):
    """Writes validation losses of its own into the records, before other callbacks see them."""

    def __init__(self, losses: Sequence[float]) -> None:
        self.losses = losses
        self.seen: list[dict[str, bytes]] = []

    def on_epoch_end(self, trainer: Trainer, record: dict[str, float]) -> None:
        record["validation_loss"] = self.losses[trainer.epoch - 1]
        self.seen.append(bits(trainer))


def test_early_stopping() -> None:
    """Stops after so many epochs without improvement and puts the best weights back (D7)."""
    script = Scripted([5, 4, 3, 3.5, 3, 3.2, 1, 1])
    stop = EarlyStopping(patience=3)
    trainer = new_trainer([script, stop])
    trainer.fit(*loaders(), epochs=8)
    assert trainer.epoch == 6
    assert stop.best_epoch == 3
    assert stop.best == 3
    assert bits(trainer) == script.seen[2] != script.seen[5]


def test_early_stopping_variants() -> None:
    """Larger may be better, a change may be too small, and the last weights may be kept."""
    script = Scripted([5.0, 4.95, 4.8, 4.75, 4.7])
    stop = EarlyStopping(patience=2, min_delta=0.5, restore_best=False)
    trainer = new_trainer([script, stop])
    trainer.fit(*loaders(), epochs=5)
    assert trainer.epoch == 3
    assert stop.best_epoch == 1
    assert bits(trainer) == script.seen[-1]

    script = Scripted([1, 2, 3, 2, 1])
    stop = EarlyStopping(patience=None, mode="max")
    trainer = new_trainer([script, stop])
    trainer.fit(*loaders(), epochs=5)
    assert trainer.epoch == 5
    assert stop.best_epoch == 3
    assert bits(trainer) == script.seen[2]
    assert EarlyStopping(monitor="validation_accuracy").sign == -1
    with pytest.raises(TensorgradError, match="validation loader"):
        new_trainer([EarlyStopping()]).fit(loaders()[0], epochs=1)
    for wrong in ({"patience": 0}, {"mode": "best"}):
        with pytest.raises(TensorgradError, match="EarlyStopping"):
            EarlyStopping(**wrong)


@pytest.mark.parametrize(
    ("monitor", "mode"),
    [
        ("validation_loss", "min"), ("train_mae", "min"), ("validation_mse", "min"),
        ("validation_rmse", "min"), ("validation_MeanSquaredError", "min"),
        ("validation_error_rate", "min"), ("validation_perplexity", "min"),
        ("validation_negative_log_likelihood", "min"), ("validation_neg_mean_squared_error", "max"),
        ("validation_accuracy", "max"), ("validation_top_5", "max"), ("train_f1", "max"),
        ("validation_r2", "max"), ("validation_roc_auc", "max"), ("validation_R2Score", "max"),
        ("validation_precision", "max"), ("validation_recall", "max"), ("my_scores", "max"),
    ],
)  # fmt: skip
def test_whether_less_is_better_follows_from_the_name(
    monitor: str, mode: str, tmp_path: Path
) -> None:
    assert EarlyStopping(monitor=monitor).sign == (1 if mode == "min" else -1)
    assert Checkpointing(tmp_path / "c", best=monitor).mode == mode
    other = "max" if mode == "min" else "min"  # what one says goes first
    assert EarlyStopping(monitor=monitor, mode=other).sign == (1 if other == "min" else -1)
    assert Checkpointing(tmp_path / "c", best=monitor, mode=other).mode == other


def test_every_metric_has_a_direction() -> None:
    for name in metrics.NAMES:
        assert mode_of(name) == ("min" if name in ("mae", "mse") else "max")


@pytest.mark.parametrize("make", [EarlyStopping, partial(Checkpointing, "c")])
def test_a_name_that_does_not_say_it(make: Any) -> None:
    key = "monitor" if make is EarlyStopping else "best"
    with pytest.raises(TensorgradError, match=r"'validation_own' is better.*say mode="):
        make(**{key: "validation_own"})
    with pytest.raises(TensorgradError, match='mode must be "min" or "max"'):
        make(**{key: "validation_loss"}, mode="least")
    make(**{key: "validation_own"}, mode="max")
    with pytest.raises(TensorgradError, match="min_delta must be at least 0"):
        EarlyStopping(min_delta=-0.1)


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize(
    ("values", "best"),
    [
        ([math.nan, 5, 4, 6], 3), ([math.nan, math.nan, 5, math.nan], 3), ([5, math.nan, 4], 3),
        ([math.nan] * 4, 0), ([math.inf, 5, math.inf], 2), ([5, -math.inf, math.nan], 2),
        ([-1, -2, -1.5], 2),
    ],
)  # fmt: skip
def test_a_figure_that_is_nan_is_never_the_best(
    values: list[float], best: int, mode: str, tmp_path: Path
) -> None:
    sign = 1 if mode == "min" else -1
    stop = EarlyStopping(patience=None, mode=mode)
    keep = Checkpointing(tmp_path / "c", best="validation_loss", mode=mode)
    script = Scripted([sign * value for value in values])
    trainer = new_trainer([script, stop, keep])
    trainer.fit(*loaders(), epochs=len(values))
    assert stop.best_epoch == best
    assert keep.best_path.exists() == (best > 0)
    if best:
        assert stop.best == sign * values[best - 1]
        assert load_checkpoint(keep.best_path).state["epoch"] == best
    assert bits(trainer) == script.seen[best - 1]


def test_patience_counts_from_the_start_where_there_is_no_figure() -> None:
    stop = EarlyStopping(patience=2)
    trainer = new_trainer([Scripted([math.nan] * 5), stop])
    trainer.fit(*loaders(), epochs=5)
    assert (trainer.epoch, stop.best_epoch) == (2, 0)


def test_fit_again_after_stopping(tmp_path: Path) -> None:
    """It waits anew; a resumed run that was to stop stops."""
    script = Scripted([3, 4, 5, 6, 7, 8, 1, 2, 3, 4])
    path = tmp_path / "c"
    trainer = new_trainer([script, EarlyStopping(patience=2), Checkpointing(path)])
    trainer.fit(*loaders(), epochs=10)
    assert (trainer.epoch, trainer.should_stop) == (3, True)
    resumed = new_trainer([Scripted(script.losses), EarlyStopping(patience=2)])
    resumed.load_state_dict(load_checkpoint(path).state)
    resumed.fit(*loaders(), epochs=10)
    assert (resumed.epoch, resumed.should_stop) == (3, True)
    for again in (trainer, resumed):
        again.fit(*loaders(), epochs=10)
        assert (again.epoch, again.should_stop) == (5, True)
        again.fit(*loaders(), epochs=10)
        assert again.epoch == 9  # the best so far was in the seventh
        again.fit(*loaders(), epochs=10)
        assert (again.epoch, again.should_stop) == (10, False)
        assert len(again.history) == 10


def test_fit_again_after_stopping_by_hand() -> None:
    class Stop(Callback):
        def on_epoch_end(self, trainer: Trainer, record: dict[str, float]) -> None:
            trainer.should_stop = trainer.epoch == 1

    trainer = new_trainer([Stop()])
    trainer.fit(*loaders(), epochs=4)
    assert trainer.epoch == 1
    trainer.fit(*loaders(), epochs=4)
    assert trainer.epoch == 4


class StopAfter(Callback):
    """Does something after so many training steps."""

    def __init__(self, steps: int, action: Callable[[], None]) -> None:
        self.steps = steps
        self.action = action

    def on_batch_end(self, trainer: Trainer, done: int) -> None:
        self.steps -= 1
        if not self.steps:
            self.action()


def press_ctrl_c() -> None:
    """What the terminal does."""
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("steps", [1, 4, 6, 12, 17])
def test_interrupted_run_ends_with_the_same_bits(tmp_path: Path, steps: int) -> None:
    """Ctrl-C anywhere leaves a checkpoint, from which the run ends as if nothing had been (D3)."""
    whole = new_trainer([EarlyStopping(patience=None)])
    whole.fit(*loaders(), epochs=4)

    path = tmp_path / "c"
    first = new_trainer(
        [EarlyStopping(patience=None), Checkpointing(path), StopAfter(steps, press_ctrl_c)]
    )
    with pytest.raises(KeyboardInterrupt):
        first.fit(*loaders(), epochs=4)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    default_generator.seed(99)  # another process, with random numbers of its own
    resumed = new_trainer([EarlyStopping(patience=None), Checkpointing(path)])
    resumed.load_state_dict(load_checkpoint(path).state)
    resumed.fit(*loaders(), epochs=4)
    assert figures(resumed) == figures(whole)
    assert bits(resumed) == bits(whole)
    assert default_generator.state() != (99, 0)


@pytest.mark.parametrize("every", [1, 2, 3])
def test_longer_run_in_two_parts(tmp_path: Path, every: int) -> None:
    """A finished run made longer gives the bits of one that was longer from the start."""
    whole = new_trainer([EarlyStopping(patience=None)])
    whole.fit(*loaders(), epochs=7)
    path = tmp_path / "c"
    first = new_trainer([EarlyStopping(patience=None), Checkpointing(path, every)])
    first.fit(*loaders(), epochs=4)
    resumed = new_trainer([EarlyStopping(patience=None)])
    resumed.load_state_dict(load_checkpoint(path).state)
    assert resumed.epoch == 4
    resumed.fit(*loaders(), epochs=7)
    assert bits(resumed) == bits(whole)
    assert figures(resumed) == figures(whole)
    again = new_trainer()
    again.fit(*loaders(), epochs=4)
    again.fit(*loaders(), epochs=4)  # nothing more to do
    assert again.epoch == 4


def test_same_seed_same_bits_other_seed_others() -> None:
    """A run can be repeated (D3)."""
    runs = []
    for seed in (1, 1, 2):
        trainer = new_trainer()
        data = TensorDataset(X, LABELS)
        trainer.fit(DataLoader(data, 8, shuffle=True, seed=seed), epochs=2)
        runs.append(bits(trainer))
    assert runs[0] == runs[1] != runs[2]


def test_interrupt_in_the_middle_of_a_step_writes_nothing(tmp_path: Path) -> None:
    """A state that is half updated is no checkpoint; the one of the last epoch stays."""
    trainer = new_trainer([Checkpointing(tmp_path / "c")])
    trainer.fit(*loaders(), epochs=1)
    before = (tmp_path / "c").read_bytes()

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    trainer.optimizer.step = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(*loaders(), epochs=2)
    assert (tmp_path / "c").read_bytes() == before


def test_refuses_a_loss_that_is_not_finite(tmp_path: Path) -> None:
    """It says so, and the checkpoint before is kept."""
    trainer = new_trainer([Checkpointing(tmp_path / "c")])
    trainer.fit(*loaders(), epochs=1)
    next(trainer.model.parameters()).data[0, 0] = math.nan
    with pytest.raises(TrainingError, match=r"nan in epoch 2; lower the learning rate"):
        trainer.fit(*loaders(), epochs=2)
    assert load_checkpoint(tmp_path / "c").state["epoch"] == 1


def test_history_files(tmp_path: Path) -> None:
    """CSV and JSON hold the same, in full precision, after each epoch."""
    trainer = new_trainer([History(tmp_path / "h.csv"), History(tmp_path / "h.json")])
    trainer.fit(*loaders(), epochs=3)
    assert json.loads((tmp_path / "h.json").read_text()) == trainer.history
    rows = list(csv.DictReader(io.StringIO((tmp_path / "h.csv").read_text())))
    assert [{k: float(v) for k, v in row.items()} for row in rows] == trainer.history
    with pytest.raises(TensorgradError, match="csv"):
        History("history.txt")


def test_curves_file(tmp_path: Path) -> None:
    """The picture grows with the epochs."""
    trainer = new_trainer([Curves(tmp_path / "c.svg")])
    trainer.fit(*loaders(), epochs=3)
    assert "3 epochs" in (tmp_path / "c.svg").read_text()


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_progress_without_a_terminal() -> None:
    """One plain line for each epoch."""
    out = io.StringIO()
    new_trainer([Progress(out)]).fit(*loaders(), epochs=3)
    lines = out.getvalue().splitlines()
    assert len(lines) == 3
    assert "\r" not in out.getvalue()
    assert lines[1].startswith("epoch 2/3  train: loss ")
    assert "validation: loss" in lines[1]


def test_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line drawn anew with loss, metric, rate and time; nothing of it stays but the summary."""
    monkeypatch.setattr("tensorgrad.training.progress._INTERVAL", 0.0)
    monkeypatch.setenv("COLUMNS", "120")
    out = Terminal()
    new_trainer([Progress(out)]).fit(*loaders(), epochs=2)
    drawn = out.getvalue().split("\r")
    live = [line for line in drawn if "examples/s" in line]
    assert len(live) == 12
    assert all("loss" in line and "left" in line for line in live)
    assert "[" + "=" * 20 + "]" in live[5]
    assert "0:00 left" in live[-1]
    assert drawn[-1].count("\n") == 1
    assert drawn[-1].startswith("epoch 2/2")
    assert all(len(line) < 120 for line in live)


def test_progress_leaves_a_clean_line_on_abort(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the error does not begin in the middle of one."""
    monkeypatch.setattr("tensorgrad.training.progress._INTERVAL", 0.0)
    out = Terminal()
    with pytest.raises(KeyboardInterrupt):
        new_trainer([Progress(out), StopAfter(2, press_ctrl_c)]).fit(*loaders(), epochs=2)
    assert out.getvalue().endswith("\r")


def test_order_of_calls() -> None:
    """Every moment comes when the documentation says."""
    calls: list[str] = []

    class Spy(Callback):
        def on_fit_start(self, trainer: Trainer, loader: DataLoader, epochs: int) -> None:
            calls.append(f"start {epochs}")

        def on_batch_end(self, trainer: Trainer, done: int) -> None:
            calls.append(f"batch {done} {sorted(trainer.running)}")

        def on_epoch_end(self, trainer: Trainer, record: dict[str, float]) -> None:
            calls.append(f"epoch {record['epoch']} {trainer.epoch}")

        def on_epoch_complete(self, trainer: Trainer) -> None:
            calls.append("complete")

        def on_fit_end(self, trainer: Trainer) -> None:
            calls.append("end")

    new_trainer([Spy()]).fit(*loaders(45), epochs=2)
    batch = "batch 1 ['accuracy', 'loss']"
    assert calls == [
        "start 2", batch, "epoch 1 1", "complete", batch, "epoch 2 2", "complete", "end",
    ]  # fmt: skip
