"""Callbacks: checkpoints on the way, NaN stop, gradient norms, TensorBoard, the live page."""

from __future__ import annotations

import csv
import os
import random
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tensorgrad import nn
from tensorgrad.data import DataLoader, TensorDataset
from tensorgrad.errors import TensorgradError
from tensorgrad.nn import functional
from tensorgrad.ops.random import default_generator
from tensorgrad.optim import SGD, Adam
from tensorgrad.tensor import Tensor
from tensorgrad.training import (
    Callback,
    CheckpointError,
    Checkpointing,
    Curves,
    GradientNorms,
    History,
    LivePlot,
    NanStop,
    Progress,
    TensorBoard,
    Trainer,
    TrainingError,
    load_checkpoint,
    load_newest,
)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 5)).astype(np.float32)
T = (X[:, 0] + X[:, 1] > 0).astype(np.int64)


pytestmark = pytest.mark.usefixtures("own_random_numbers")


def loaders() -> tuple[DataLoader, DataLoader]:
    return (
        DataLoader(TensorDataset(X[:45], T[:45]), 8, True, seed=1),  # 6 batches
        DataLoader(TensorDataset(X[45:], T[45:]), 10),
    )


def trainer_with(*callbacks: Callback, layers: Any = None, **options: Any) -> Trainer:
    default_generator.seed(3)
    model = nn.Sequential(*(layers or [nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 2)]))
    optimizer = Adam(model.parameters(), lr=0.02)
    return Trainer(model, optimizer, functional.cross_entropy, callbacks=callbacks, **options)


# --- checkpoints ----------------------------------------------------------------------------------


def test_every_so_many_steps_and_the_last_ones_kept(tmp_path: Path) -> None:
    """The newest and those before it, in order; resumed from any with the same bits."""
    path = tmp_path / "c.safetensors"
    trainer = trainer_with(Checkpointing(path, every=100, steps=4, keep=3))
    trainer.fit(*loaders(), epochs=3)  # 18 steps, and a checkpoint at the end
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["c.1.safetensors", "c.2.safetensors", "c.safetensors"]
    steps = [load_checkpoint(tmp_path / name).state["steps"] for name in reversed(names)]
    assert steps == [18, 12, 16]
    expected = [p.data.tobytes() for p in trainer.model.parameters()]
    for name in names[:2]:
        resumed = trainer_with()
        resumed.load_state_dict(load_checkpoint(tmp_path / name).state)
        resumed.fit(*loaders(), epochs=3)
        assert [p.data.tobytes() for p in resumed.model.parameters()] == expected


def test_every_so_many_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the clock of the process."""
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])

    class Clock(Callback):
        def on_batch_end(self, trainer: Trainer, done: int) -> None:
            now[0] += 25.0

    saved: list[int] = []

    class Noted(Checkpointing):
        def save(self, trainer: Trainer) -> None:
            super().save(trainer)
            saved.append(trainer.steps)

    trainer_with(Clock(), Noted(tmp_path / "c", every=9, minutes=1)).fit(loaders()[0], epochs=2)
    assert saved == [3, 6, 9, 12, 12]


def test_short_epochs_are_not_nothing_but_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checkpoints and pictures have a distance; the history has every epoch at every moment."""
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    saved: list[int] = []
    drawn: list[int] = []
    lines: list[int] = []

    class Noted(Checkpointing):
        def save(self, trainer: Trainer) -> None:
            super().save(trainer)
            saved.append(trainer.epoch)

    class Drawn(Curves):
        def _draw(self, trainer: Trainer) -> None:
            super()._draw(trainer)
            drawn.append(trainer.epoch)

    class Reader(Callback):
        def on_epoch_end(self, trainer: Trainer, record: dict[str, float]) -> None:
            now[0] += 0.4
            lines.append(len((tmp_path / "h.csv").read_text().splitlines()))

    callbacks = [
        History(tmp_path / "h.csv"), Reader(), Drawn(tmp_path / "c.svg"),
        Noted(tmp_path / "c", apart=1.0),
    ]  # fmt: skip
    trainer = trainer_with(*callbacks)
    trainer.fit(*loaders(), epochs=8)
    assert lines == [2, 3, 4, 5, 6, 7, 8, 9]
    assert saved == [3, 6, 8]
    assert drawn == [1, 4, 7, 8]
    other = trainer_with(History(tmp_path / "whole.csv"))
    other.history = trainer.history
    other.callbacks[0].on_fit_end(other)
    assert (tmp_path / "whole.csv").read_bytes() == (tmp_path / "h.csv").read_bytes()


def test_one_failing_callback_does_not_cost_the_checkpoint(tmp_path: Path) -> None:
    """What went wrong besides is noted at the error."""

    class Full(Callback):
        def on_batch_end(self, trainer: Trainer, done: int) -> None:
            if trainer.steps == 4:
                raise KeyboardInterrupt

        def on_abort(self, trainer: Trainer, error: BaseException) -> None:
            raise OSError("the disk is full")

    trainer = trainer_with(Full(), Checkpointing(tmp_path / "c"))
    with pytest.raises(KeyboardInterrupt) as caught:
        trainer.fit(*loaders(), epochs=3)
    assert caught.value.__notes__ == ["Full failed besides: the disk is full"]
    assert load_checkpoint(tmp_path / "c").state["steps"] == 4


def test_the_best_is_kept(tmp_path: Path) -> None:
    """By a loss, or by a figure that is better when it is larger; resuming knows it still."""
    path = tmp_path / "c.safetensors"
    for column, choose in (("validation_loss", min), ("validation_accuracy", max)):
        trainer = trainer_with(Checkpointing(path, every=50, best=column))
        history = trainer.fit(*loaders(), epochs=6)
        found = load_checkpoint(tmp_path / "c.best.safetensors").state
        best = choose(record[column] for record in history)
        first = next(r["epoch"] for r in history if r[column] == best)
        assert found["epoch"] == first
        resumed = trainer_with(Checkpointing(path, every=50, best=column))
        resumed.load_state_dict(found)
        assert resumed.callbacks[0]._best_figure == best  # type: ignore[attr-defined]
    with pytest.raises(TensorgradError, match="keeps the best by 'validation_f1'"):
        trainer_with(Checkpointing(path, best="validation_f1")).fit(*loaders(), epochs=1)


def test_a_damaged_checkpoint_is_replaced_by_the_one_before(tmp_path: Path) -> None:
    """With a warning that says so; if none is whole, with what is wrong with each."""
    path = tmp_path / "c.safetensors"
    trainer_with(Checkpointing(path, steps=2, keep=3)).fit(loaders()[0], epochs=1)
    assert load_newest(path).state["steps"] == 6
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.warns(UserWarning, match=r"c\.safetensors: torn.*Going on from the one before"):
        assert load_newest(path).state["steps"] == 6  # saved in the step and at the epoch's end
    path.unlink()
    with pytest.warns(UserWarning, match="missing"):
        load_newest(path)
    for name in ("c.1.safetensors", "c.2.safetensors"):
        (tmp_path / name).write_bytes(b"x" * 100)
    with pytest.raises(CheckpointError, match=r"no checkpoint is whole: .*missing.*1.*torn.*2"):
        load_newest(path)
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        load_newest(tmp_path / "other")


def test_no_damaged_checkpoint_is_loaded_silently(tmp_path: Path) -> None:
    """A thousand kinds of damage: refused, or of no effect on what is read."""
    path = tmp_path / "c.safetensors"
    trainer_with(Checkpointing(path)).fit(loaders()[0], epochs=1)
    whole = path.read_bytes()

    def content() -> Any:
        state = load_checkpoint(path).state
        return repr(state), [p.data.tobytes() for p in state["model"].values()]

    expected = content()
    rng = random.Random(0)
    refused = 0
    for number in range(1000):
        data = bytearray(whole)
        at = rng.randrange(len(data))
        if number % 4 == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif number % 4 == 1:
            del data[at:]
        elif number % 4 == 2:
            end = min(len(data), at + 4096)  # a block of the disk that never arrived
            data[at:end] = bytes(end - at)
        else:
            other = rng.randrange(len(data))
            data[at : at + 64], data[other : other + 64] = (
                data[other : other + 64], data[at : at + 64],
            )  # fmt: skip
        path.write_bytes(data)
        try:
            found = content()
        except CheckpointError:
            refused += 1
        else:
            assert found == expected
    assert refused > 950


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    """Temporary files of the same checkpoint, and no others."""
    (tmp_path / ".c.safetensors.0123abcd.part").write_bytes(b"half")
    (tmp_path / ".other.part").write_bytes(b"half")
    trainer_with(Checkpointing(tmp_path / "c.safetensors")).fit(loaders()[0], epochs=1)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".other.part", "c.safetensors"]


def test_where_the_disk_has_no_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Older checkpoints are copies then."""

    def refused(*_: Any) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refused)
    trainer_with(Checkpointing(tmp_path / "c", steps=3, keep=2)).fit(loaders()[0], epochs=1)
    assert load_checkpoint(tmp_path / "c.1").state["steps"] == 6


@pytest.mark.parametrize("options", [{"steps": 0}, {"minutes": 0}, {"keep": 0}, {"every": 0}])
def test_checkpointing_refuses(options: dict[str, Any], tmp_path: Path) -> None:
    """Numbers that mean nothing."""
    with pytest.raises(TensorgradError, match="must be"):
        Checkpointing(tmp_path / "c", **options)


# --- NaN ------------------------------------------------------------------------------------------


class Breaks(nn.Module):
    """Divides by 0 when it meets an input above 100."""

    def forward(self, x: Tensor) -> Tensor:
        y = x / (x.max() < 100.0).astype("float32")
        return y + 0.0


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("every", [1, 4, 100])
def test_nan_stop_says_where_it_arose(every: int, compile: bool) -> None:
    """The operation, the line, the step; the weights are finite again."""
    x = X.copy()
    x[30] = 1000.0
    loader = DataLoader(TensorDataset(x[:45], T[:45]), 8, True, seed=1)
    step = next(i for i, (b, _) in enumerate(loader, 1) if float(b.max()) > 100)
    loader = DataLoader(TensorDataset(x[:45], T[:45]), 8, True, seed=1)
    trainer = trainer_with(NanStop(every), layers=[Breaks(), nn.Linear(5, 2)], compile=compile)
    with pytest.raises(TrainingError) as caught:
        trainer.fit(loader, epochs=3)
    text = str(caught.value)
    assert f"was not finite in step {step}, epoch 1; step {step}: divide gave the first" in text
    assert "test_callbacks.py" in text
    assert f"The weights are those after step {(step - 1) // every * every}." in text
    assert all(np.isfinite(p.detach().numpy()).all() for p in trainer.model.parameters())


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_nan_stop_where_the_steps_are_too_long() -> None:
    """The gradients or the weights overflow some steps before the loss does."""
    trainer = trainer_with(NanStop(50))
    trainer.optimizer = SGD(trainer.model.parameters(), lr=1e39)
    with pytest.raises(TrainingError, match=r"step \d+: .* the first .*Lower the learning rate"):
        trainer.fit(loaders()[0], epochs=9)


def test_nan_stop_changes_nothing_where_all_is_well() -> None:
    """The same bits with and without it."""
    plain, watched = trainer_with(), trainer_with(NanStop(5))
    for trainer in (plain, watched):
        trainer.fit(*loaders(), epochs=3)
    for p, q in zip(plain.model.parameters(), watched.model.parameters(), strict=True):
        assert p.data.tobytes() == q.data.tobytes()
    with pytest.raises(TensorgradError, match="from 1"):
        NanStop(0)


def test_nan_stop_keeps_few_large_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """By their bytes: a copy of the state is taken earlier then."""
    watching = NanStop(1000)
    most: list[int] = []

    class Seen(Callback):
        def on_batch_end(self, trainer: Trainer, done: int) -> None:
            most.append(len(watching._batches))

    monkeypatch.setattr("tensorgrad.training.nan_stop._MOST_BYTES", 3 * (8 * 5 * 4 + 8 * 8))
    trainer_with(watching, Seen()).fit(loaders()[0], epochs=2)
    assert max(most) == 3


# --- gradient norms, TensorBoard, live page -------------------------------------------------------


def test_gradient_norms(tmp_path: Path) -> None:
    """Of every parameter by name, in a file and after resuming; sigmoid's vanish (D10)."""

    def first_to_last(activation: type[nn.Module]) -> float:
        layers: list[nn.Module] = []
        for size in (5, *[16] * 9):
            layers += [nn.Linear(size, 16), activation()]
        norms = GradientNorms(2)
        trainer_with(norms, layers=[*layers, nn.Linear(16, 2)]).fit(loaders()[0], epochs=2)
        row = norms.rows[-1]
        return row["0.weight"] / row["20.weight"]

    assert first_to_last(nn.Sigmoid) < 1e-3 * first_to_last(nn.ReLU)
    norms = GradientNorms(4, tmp_path / "norms.csv")
    trainer = trainer_with(norms)
    trainer.fit(*loaders(), epochs=2)
    assert [row["step"] for row in norms.rows] == [4, 8, 12]
    grad = trainer.model[2].bias.grad  # type: ignore[index]
    assert norms.rows[-1]["2.bias"] == pytest.approx(float(np.linalg.norm(grad.numpy())), rel=1e-6)
    with (tmp_path / "norms.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["step", "0.weight", "0.bias", "2.weight", "2.bias"]
    assert float(rows[2]["0.weight"]) == norms.rows[2]["0.weight"]
    again = GradientNorms()
    again.load_state_dict(norms.state_dict())
    assert again.rows == norms.rows


def test_tensorboard(tmp_path: Path) -> None:
    """Read back with the library's own description of the format."""
    pytest.importorskip("tensorboardX", reason="needs tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    trainer_with(TensorBoard(tmp_path / "logs", every=3)).fit(*loaders(), epochs=2)
    (file,) = (tmp_path / "logs").iterdir()
    content = file.read_bytes()
    found: dict[str, list[tuple[int, float]]] = {}
    while content:
        length = int.from_bytes(content[:8], "little")
        event = Event.FromString(content[12 : 12 + length])
        content = content[16 + length :]
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, value.simple_value))
    assert [step for step, _ in found["step/loss"]] == [3, 6, 9, 12]
    assert {"loss/train", "loss/validation", "accuracy/train", "lr", "seconds"} <= set(found)
    assert [step for step, _ in found["loss/validation"]] == [1, 2]
    assert found["lr"][0][1] == pytest.approx(0.02)


def test_tensorboard_without_its_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The error names what to install."""
    import sys

    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(TensorgradError, match="pip install tensorboardX"):
        trainer_with(TensorBoard(tmp_path)).fit(loaders()[0], epochs=1)


def test_live_page(tmp_path: Path) -> None:
    """Loads itself anew while training goes on, and no longer when it has ended."""
    path = tmp_path / "live.html"
    seen: list[str] = []

    class Reader(Callback):
        def on_batch_end(self, trainer: Trainer, done: int) -> None:
            seen.append(path.read_text())

    trainer_with(LivePlot(path, seconds=0), Reader()).fit(*loaders(), epochs=2)
    assert all('http-equiv="refresh"' in page for page in seen)
    assert "epoch 2 of 2, batch 3 of 6" in seen[8]
    page = path.read_text()
    assert "refresh" not in page
    assert "ended after epoch 2" in page
    assert "<svg" in page
    assert not re.search(r'(src|href)="http', page)

    class Stops(Callback):
        def on_batch_end(self, trainer: Trainer, done: int) -> None:
            raise ValueError("<no more>")

    with pytest.raises(ValueError, match="no more"):
        trainer_with(LivePlot(path), Stops()).fit(*loaders(), epochs=2)
    assert "ended in epoch 1: &lt;no more&gt;" in path.read_text()


def test_progress_without_standard_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where it is closed, as in a program without a window, nothing is said anywhere."""
    monkeypatch.setattr(sys, "stderr", None)
    trainer_with(Progress()).fit(*loaders(), epochs=1)
    assert capsys.readouterr().out == ""
