"""``tensorgrad demo``: experiments of the lectures, and the applications of ``examples``."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tensorgrad import nn, optim
from tensorgrad.cli.build import Loss
from tensorgrad.cli.folder import MODEL, new_results
from tensorgrad.data import (
    DataLoader,
    Subset,
    TensorDataset,
    digits,
    random_split,
    write_atomically,
)
from tensorgrad.data.datasets import Dataset
from tensorgrad.errors import TensorgradError
from tensorgrad.nn import functional
from tensorgrad.ops.random import default_generator
from tensorgrad.tensor import Tensor
from tensorgrad.training import Callback, EarlyStopping, GradientNorms, Trainer, draw_curves
from tensorgrad.training.curves import draw_norms
from tensorgrad.training.regions import draw_regions
from tensorgrad.viz import draw_pictures

Array = np.ndarray[Any, Any]


def demo(name: str, out: str | None = None, seed: int = 0, data: str | None = None) -> None:
    """Run the experiment ``name``, print what it shows, and leave its pictures in a folder.

    Raises TensorgradError or OSError if the folder or the data cannot be used.
    """
    wanted = APPLICATIONS.get(name, "none")
    if wanted == "none" and data is not None:
        raise TensorgradError(f"demo {name} makes its data itself; leave out --data")
    if wanted == "needed" and data is None:
        raise TensorgradError(f"demo {name} needs --data FILE, a text")
    if name in DEMOS:
        run = DEMOS[name]
    else:
        run = importlib.import_module(f"tensorgrad.examples.{name.replace('-', '_')}").run
    options = {} if wanted == "none" else {"data": data}
    with new_results(out, name, MODEL) as folder:
        run(folder, seed, **options)
        pictures = sorted(path.name for path in folder.iterdir() if path.name[0] != ".")
        print(f"written to {folder}: {', '.join(pictures)}")


def _fitted(
    model: nn.Module,
    optimizer: optim.Optimizer,
    data: Dataset,
    epochs: int,
    loss: Loss = functional.cross_entropy,
    batch_size: int | str = 32,
    metrics: tuple[str, ...] = ("accuracy",),
    validation: Dataset | None = None,
    callbacks: tuple[Callback, ...] = (),
) -> Trainer:
    trainer = Trainer(model, optimizer, loss, metrics=metrics, callbacks=callbacks)
    check = None if validation is None else DataLoader(validation, 1000)
    trainer.fit(DataLoader(data, batch_size, True, seed=0), check, epochs)
    return trainer


def _digit_parts(seed: int, *lengths: int) -> list[Subset]:
    images, labels = digits()
    rows = images.reshape(-1, 64) / np.float32(16)
    rest = len(rows) - sum(lengths)
    return list(random_split(TensorDataset(rows, labels), [*lengths, rest], seed, stratify=labels))


# --- D10 ------------------------------------------------------------------------------------------

_DEPTH, _WIDTH = 10, 32


def vanishing_gradients(folder: Path, seed: int) -> None:
    """Gradient norms, layer by layer, of a deep sigmoid network and a deep ReLU network."""
    (data, _) = _digit_parts(seed, 1200)
    first: dict[str, float] = {}
    rows: dict[str, list[dict[str, float]]] = {}
    for name, activation in (("sigmoid", nn.Sigmoid), ("relu", nn.ReLU)):
        default_generator.seed(seed)
        layers: list[nn.Module] = []
        for size in (64, *[_WIDTH] * (_DEPTH - 1)):
            linear = nn.Linear(size, _WIDTH)
            init = nn.init.xavier_normal_ if name == "sigmoid" else nn.init.kaiming_normal_
            init(linear.weight)
            layers += [linear, activation()]
        model = nn.Sequential(*layers, nn.Linear(_WIDTH, 10))
        norms = GradientNorms(every=4, path=folder / f"{name}.csv")
        _fitted(model, optim.SGD(model.parameters(), lr=0.01), data, 3, callbacks=(norms,))
        rows[name] = norms.rows
        write_atomically(folder / f"{name}.svg", draw_norms(norms.rows).encode())
        first[name] = norms.rows[0]["0.weight"]
    print("norm of the gradient of each layer's weights, first step measured")
    print(f"{'layer':<8}{'sigmoid':>12}{'ReLU':>12}")
    for k in range(_DEPTH + 1):
        column = f"{2 * k}.weight"
        print(f"{k + 1:<8}{rows['sigmoid'][0][column]:>12.2e}{rows['relu'][0][column]:>12.2e}")
    ratio = first["relu"] / first["sigmoid"]
    print(f"the ReLU network's first layer gets {ratio:,.0f} times the gradient of the sigmoid's")


# --- D11 ------------------------------------------------------------------------------------------


def xor(folder: Path, seed: int) -> None:
    """A perceptron cannot learn XOR, a network with a hidden layer can."""
    points = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    labels = np.array([0, 1, 1, 0])
    data = TensorDataset(points, labels)
    for name, hidden in (("perceptron", 0), ("two-layers", 4)):
        default_generator.seed(seed)
        model = nn.Sequential(nn.Linear(2, 2))
        if hidden:
            model = nn.Sequential(nn.Linear(2, hidden), nn.Tanh(), nn.Linear(hidden, 2))
        trainer = _fitted(model, optim.Adam(model.parameters(), lr=0.1), data, 300, batch_size=4)
        right = round(trainer.evaluate(DataLoader(data, 4))["accuracy"] * 4)
        print(f"{name}: {right} of 4 right, loss {trainer.history[-1]['train_loss']:.4f}")
        picture = draw_regions(model, points, labels, title=f"XOR: {name}")
        write_atomically(folder / f"{name}.svg", picture.encode())


# --- D7 -------------------------------------------------------------------------------------------


def overfitting(folder: Path, seed: int) -> None:
    """Too large a network for 120 images: validation turns, and early stopping keeps the best."""
    train, validation, test = _digit_parts(seed, 120, 600)
    default_generator.seed(seed)
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(),
                          nn.Linear(256, 10))  # fmt: skip
    optimizer = optim.Adam(model.parameters(), lr=2e-3)
    stopping = EarlyStopping(patience=None)
    epochs = 150
    history = _fitted(
        model, optimizer, train, epochs, validation=validation, callbacks=(stopping,)
    ).history
    write_atomically(folder / "curves.svg", draw_curves(history).encode())
    best = stopping.best_epoch
    print(f"{'epoch':<8}{'training loss':>16}{'validation loss':>18}")
    for epoch in sorted({1, best, 2 * best, epochs}):
        record = history[min(epoch, epochs) - 1]
        print(
            f"{record['epoch']:<8}{record['train_loss']:>16.4f}{record['validation_loss']:>18.4f}"
            + ("   lowest: here early stopping keeps the weights" if epoch == best else "")
        )
    trainer = Trainer(model, optimizer, functional.cross_entropy)
    kept = trainer.evaluate(DataLoader(test, 1000))
    print(f"test loss with the weights kept: {kept['loss']:.4f}, accuracy {kept['accuracy']:.1%}")


# --- E4 -------------------------------------------------------------------------------------------

_HEIGHT, _ACROSS, _UNITS = 30, 32, 30


def road(rng: np.random.Generator, n: int) -> tuple[Array, Array]:
    """Synthetic pictures of a road from a camera above the hood, and how to steer.

    Returns pictures float32 [n, 30, 32] in [0, 1], and steering directions [n] from -1 (left) to
    1 (right). The road narrows towards the horizon and bends; it has a pale middle line, and light,
    contrast and noise vary. The direction is where its middle lies ahead.
    """
    bend = rng.uniform(-1, 1, n)
    offset = rng.uniform(-0.25, 0.25, n)
    depth = np.linspace(0, 1, _HEIGHT)[None, :, None]  # 0 at the horizon, 1 at the hood
    across = np.linspace(-1, 1, _ACROSS)[None, None, :]
    middle = offset[:, None, None] * depth + 0.75 * bend[:, None, None] * (1 - depth) ** 2
    width = 0.12 + 0.5 * depth
    edge = 1 / (1 + np.exp(-40 * (width - np.abs(across - middle))))
    line = np.exp(-(((across - middle) / (0.02 + 0.04 * depth)) ** 2))
    ground = rng.uniform(0.15, 0.45, (n, 1, 1))
    surface = rng.uniform(0.55, 0.85, (n, 1, 1))
    pictures = ground + (surface - ground) * edge + 0.15 * line * edge
    pictures += rng.normal(0, 0.06, pictures.shape)
    direction = np.clip(offset * 0.3 + 0.75 * bend * 0.49, -1, 1)  # a third of the way ahead
    return np.clip(pictures, 0, 1).astype(np.float32), direction


def steering_targets(direction: Array) -> Array:
    """A hill of activity over the 30 output units, around the unit of the direction (ALVINN)."""
    units = np.linspace(-1, 1, _UNITS)
    hill = np.exp(-(((units[None, :] - direction[:, None]) / 0.15) ** 2) / 2)
    return (0.1 + 0.8 * hill).astype(np.float32)


def steering_of(outputs: Array) -> Array:
    """The direction that 30 outputs stand for: the centre of the hill around the largest."""
    units = np.linspace(-1, 1, _UNITS)
    peak = outputs.argmax(1)
    near = np.abs(np.arange(_UNITS)[None, :] - peak[:, None]) <= 4
    weight = np.where(near, np.clip(outputs - 0.1, 1e-6, None), 0)
    found: Array = (weight * units).sum(1) / weight.sum(1)
    return found


def steering(folder: Path, seed: int) -> None:
    """A network learns to steer from pictures of a road: 960 inputs, 4 hidden units, 30 outputs."""
    rng = np.random.default_rng(seed)
    pictures, directions = road(rng, 3000)
    new_pictures, new_directions = road(rng, 500)
    default_generator.seed(seed)
    model = nn.Sequential(nn.Linear(_HEIGHT * _ACROSS, 4), nn.Sigmoid(), nn.Linear(4, _UNITS),
                          nn.Sigmoid())  # fmt: skip
    data = TensorDataset(pictures.reshape(len(pictures), -1), steering_targets(directions))

    def loss(output: Tensor, target: Tensor) -> Tensor:
        """Half the squared error of each example."""
        return functional.mse_loss(output, target, "half_mean")

    _fitted(model, optim.Adam(model.parameters(), lr=3e-3), data, 40, loss, metrics=())
    outputs = model(Tensor(new_pictures.reshape(len(new_pictures), -1))).detach().numpy()
    found = steering_of(outputs)
    error = np.abs(found - new_directions)
    straight = np.abs(new_directions)
    print(f"mean error on 500 new roads: {error.mean():.3f} (directions go from -1 to 1)")
    print(f"of somebody who always drives straight on: {straight.mean():.3f}")
    print(f"within one of the 30 units: {(error < 2 / (_UNITS - 1)).mean():.1%}")
    write_atomically(folder / "roads.png", draw_pictures(new_pictures[:8]))
    weights = model[0].weight.detach().numpy()  # type: ignore[attr-defined]
    weights = weights.reshape(-1, _HEIGHT, _ACROSS)
    shades = 0.5 + 0.5 * weights / np.abs(weights).max()
    write_atomically(folder / "hidden-units.png", draw_pictures(shades))


DEMOS: dict[str, Callable[..., None]] = {
    "vanishing-gradients": vanishing_gradients,
    "xor": xor,
    "overfitting": overfitting,
    "steering": steering,
}
#: The modules of ``tensorgrad.examples``, and whether they want data: "none", "taken" or "needed".
APPLICATIONS = {
    "cartpole": "none",
    "autoencoder": "taken",
    "names": "needed",
    "word-vectors": "needed",
    "oscillator": "none",
    "neural-ode": "none",
}
