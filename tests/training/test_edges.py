"""Training at its edges: penalties, macro averages, patience, the order of checkpoints."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tensorgrad import Tensor, nn
from tensorgrad.data import DataLoader, TensorDataset
from tensorgrad.nn import functional
from tensorgrad.ops.random import default_generator
from tensorgrad.optim import SGD
from tensorgrad.training import (
    F1,
    Callback,
    Checkpointing,
    EarlyStopping,
    Precision,
    Recall,
    RocAuc,
    Trainer,
    draw_regions,
    load_checkpoint,
    load_newest,
)

pytestmark = pytest.mark.usefixtures("own_random_numbers")

X = np.random.default_rng(0).standard_normal((10, 3)).astype(np.float32)
Y = X[:, :1] * 2 - 1


def trainer_of(*callbacks: Callback, **options: Any) -> Trainer:
    default_generator.seed(1)
    model = nn.Linear(3, 1)
    optimizer = SGD(model.parameters(), lr=0.1)
    return Trainer(
        model, optimizer, functional.mse_loss, metrics=(), callbacks=callbacks, **options
    )


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("parts", [1, 2, 3, 4])
def test_a_penalty_counts_once_however_many_parts(parts: int, compile: bool) -> None:
    """The gradient is that of the whole batch and one penalty."""
    trainer = trainer_of(accumulate=parts, compile=compile)
    trainer.penalty = lambda: functional.l2_penalty(trainer.model.parameters(), 0.5)
    layer: Any = trainer.model
    w, b = layer.weight.detach().numpy().astype(np.float64), float(layer.bias.item())
    error = X @ w.T + b - Y
    wanted = w - 0.1 * (2 * error.T @ X / len(X) + 2 * 0.5 * w)
    trainer.step(Tensor(X), Tensor(Y))
    np.testing.assert_allclose(layer.weight.detach().numpy(), wanted, rtol=1e-5)


# --- averages over classes ------------------------------------------------------------------------


def scores(predicted: list[int], classes: int) -> Tensor:
    return Tensor(np.eye(classes, dtype=np.float32)[predicted])


@pytest.mark.parametrize(
    ("metric", "wanted"),
    [
        # Class 2 is predicted and never right; class 3 does not occur at all.
        (Precision, (2 / 3 + 1 + 0) / 3),
        (Recall, (1 + 1 / 3 + 0) / 3),
        (F1, (4 / 5 + 2 / 4 + 0) / 3),
    ],
)
def test_macro_averages_are_over_the_classes_that_occur(metric: Any, wanted: float) -> None:
    """Written out, in one batch and in two."""
    target, predicted = [0, 0, 1, 1, 1], [0, 0, 0, 1, 2]
    for cut in (5, 2):
        figure = metric("macro")
        for part in (slice(0, cut), slice(cut, 5)):
            if target[part]:
                figure.update(scores(predicted[part], 4), Tensor(np.array(target[part])))
        assert figure.compute() == pytest.approx(wanted)
    assert np.isnan(metric("macro").compute())


def test_equal_scores_count_half() -> None:
    """Of the four pairs of a positive and a negative example, one is a tie and three are right."""
    figure = RocAuc()
    figure.update(
        Tensor(np.array([0.5, 0.5, 0.2, 0.8], np.float32)), Tensor(np.array([1, 0, 0, 1]))
    )
    assert figure.compute() == pytest.approx(3.5 / 4)


# --- patience -------------------------------------------------------------------------------------


class Given(Callback):
    """Puts given figures in the place of the validation loss, and moves the weights each epoch."""

    def __init__(self, figures: list[float]) -> None:
        self.figures = figures

    def on_epoch_end(self, trainer: Trainer, record: dict[str, float]) -> None:
        record["validation_loss"] = self.figures[trainer.epoch - 1]
        layer: Any = trainer.model
        layer.weight.detach().copy_(Tensor(np.full((1, 3), trainer.epoch, np.float32)))


@pytest.mark.parametrize("patience", [1, 2, 3])
@pytest.mark.parametrize("delta", [0.0, 0.25])
def test_training_ends_after_so_many_epochs_without_improvement(
    patience: int, delta: float
) -> None:
    """With the weights of the best epoch, whatever was trained since."""
    figures = [3.0, 2.0, 1.0, 0.9, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    best = 4 if delta == 0 else 3
    stop = EarlyStopping(patience, min_delta=delta)
    trainer = trainer_of(Given(figures), stop, compile=False)
    data = DataLoader(TensorDataset(X, Y), 5)
    history = trainer.fit(data, data, epochs=10)
    assert stop.best_epoch == best
    assert len(history) == best + patience
    layer: Any = trainer.model
    np.testing.assert_array_equal(layer.weight.detach().numpy(), np.full((1, 3), best))


# --- the order of checkpoints ---------------------------------------------------------------------


@pytest.mark.parametrize("keep", [1, 2, 3, 4])
def test_checkpoints_are_kept_in_their_order(keep: int, tmp_path: Path) -> None:
    """The newest has the name given, the one before number 1, and so on; none is there twice."""
    path = tmp_path / "c.safetensors"
    trainer = trainer_of(Checkpointing(path, keep=keep), compile=False)
    trainer.fit(DataLoader(TensorDataset(X, Y), 5), epochs=6)
    names = [path, *(tmp_path / f"c.{k}.safetensors" for k in range(1, 8))]
    there = [load_checkpoint(name).state["epoch"] for name in names if name.exists()]
    assert there == list(range(6, 6 - keep, -1))
    assert all(name.exists() for name in names[:keep])
    path.write_bytes(b"torn")
    if keep > 1:
        with pytest.warns(UserWarning, match="Going on from the one before"):
            assert load_newest(path).state["epoch"] == 5


def test_a_checkpoint_with_other_numbers_is_refused(tmp_path: Path) -> None:
    """Each byte of the weights is covered by the checksum."""
    path = tmp_path / "c.safetensors"
    trainer = trainer_of(Checkpointing(path), compile=False)
    trainer.fit(DataLoader(TensorDataset(X, Y), 5), epochs=1)
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="checksum"):
        load_checkpoint(path)


# --- pictures -------------------------------------------------------------------------------------


def test_regions_are_the_right_way_up() -> None:
    """Class 1 above the middle and to the right: its colour fills one quarter, at the top right."""

    def model(x: Tensor) -> Tensor:
        inside = (x.numpy()[:, 0] > 0) & (x.numpy()[:, 1] > 0)
        return Tensor(np.eye(2, dtype=np.float32)[inside.astype(int)])

    places = np.array([[-1.0, -1.0], [1.0, 1.0], [-1.0, 1.0], [1.0, -1.0]])
    svg = draw_regions(model, places, [0, 1, 0, 0], resolution=4)
    found = re.findall(r'<rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)"[^>]*fill="(#\w+)"', svg)
    colours: dict[str, list[tuple[float, float, float]]] = {}
    for x, y, width, colour in found:
        colours.setdefault(colour, []).append((float(x), float(y), float(width)))
    small = min(
        (cells for colour, cells in colours.items() if colour != "#ffffff"),
        key=lambda cells: sum(width for *_, width in cells),
    )
    everything = [cell for cells in colours.values() for cell in cells]
    middle = [(min(c[k] for c in everything) + max(c[k] for c in everything)) / 2 for k in (0, 1)]
    assert all(x > middle[0] - 60 and y < middle[1] for x, y, _ in small), (small, middle)
