"""``tensorgrad train``: data, a network and a Trainer, put together from the settings."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tensorgrad import backend, nn, optim
from tensorgrad.cli.settings import ACTIVATIONS, DEFAULTS, OPTIMIZERS
from tensorgrad.data import (
    DataLoader,
    Subset,
    TensorDataset,
    digits,
    idx_folder,
    random_split,
    write_atomically,
)
from tensorgrad.errors import TensorgradError
from tensorgrad.nn import functional
from tensorgrad.ops.random import default_generator
from tensorgrad.tensor import Tensor
from tensorgrad.training import (
    Checkpointing,
    Curves,
    EarlyStopping,
    History,
    LoadedCheckpoint,
    Progress,
    Trainer,
    load_checkpoint,
    save_checkpoint,
)
from tensorgrad.training.checkpoint import versions

CHECKPOINT = "checkpoint.safetensors"
Settings = dict[str, Any]


class Data(NamedTuple):
    """What to train on: three parts, and the sizes the network must have."""

    name: str
    train: Subset
    validation: Subset
    test: Subset | TensorDataset
    inputs: int
    classes: int


def train(given: Mapping[str, Any]) -> None:
    """Train as the options ``given`` on the command line say, and print what came out.

    Raises TensorgradError or OSError for wrong input, KeyboardInterrupt after Ctrl-C.
    """
    given = dict(given)
    resumed = None
    folder = given.pop("resume", None)
    if folder is not None:
        resumed, folder = _resumed(Path(folder), given)
    settings = {**DEFAULTS, **(resumed.config if resumed else {}), **given}
    _check(settings)
    settings["device"] = device = backend.normalize(settings["device"])
    data = load_data(settings)
    default_generator.seed(settings["seed"])
    model = build_model(data.inputs, data.classes, settings)
    model.to(device)
    folder = folder or _new_folder(settings["out"], data.name)
    settings["out"] = str(folder)
    stopping = EarlyStopping(settings["patience"])
    trainer = Trainer(
        model,
        build_optimizer(model, settings),
        functional.cross_entropy,
        penalty=build_penalty(model, settings),
        callbacks=(
            Progress(),
            History(folder / "history.csv"),
            Curves(folder / "curves.svg"),
            stopping,
            Checkpointing(folder / CHECKPOINT, config=settings),
        ),
        compile=settings["compile"],
    )
    if resumed is not None:
        trainer.load_state_dict(resumed.state)
    _write_json(folder / "config.json", {**settings, "versions": versions()})

    def loader(part: Any, size: int | str, shuffle: bool = False) -> DataLoader:
        return DataLoader(part, size, shuffle, seed=settings["seed"], device=device)

    print(
        f"{data.name}: {len(data.train):,} training, {len(data.validation):,} validation and "
        f"{len(data.test):,} test images; network "
        f"{'-'.join(map(str, (data.inputs, *settings['hidden'], data.classes)))} on {device}",
        flush=True,
    )
    try:
        trainer.fit(
            loader(data.train, settings["batch_size"], shuffle=True),
            loader(data.validation, 1000),
            settings["epochs"],
        )
    except KeyboardInterrupt:
        if (folder / CHECKPOINT).exists():
            raise KeyboardInterrupt(
                f"interrupted; go on with: tensorgrad train --resume {folder}"
            ) from None
        raise
    result = {f"test_{k}": v for k, v in trainer.evaluate(loader(data.test, 1000)).items()}
    save_checkpoint(folder / "model.safetensors", model.state_dict(), settings)
    _write_json(
        folder / "result.json",
        {**result, "epochs": trainer.epoch, "best_epoch": stopping.best_epoch},
    )
    right = round(result["test_accuracy"] * len(data.test))
    print(
        f"weights of epoch {stopping.best_epoch} of {trainer.epoch}, where the validation loss was "
        f"lowest\ntest accuracy {result['test_accuracy'] * 100:.2f} % ({right:,} of "
        f"{len(data.test):,} images)\nwritten to {folder}: model.safetensors, {CHECKPOINT}, "
        "history.csv, curves.svg, config.json, result.json"
    )


def _check(settings: Settings) -> None:
    """Refuse options that would do nothing."""
    if settings["momentum"] is not None and settings["optimizer"] not in ("sgd", "rmsprop"):
        raise TensorgradError(
            f"--momentum is an option of sgd and rmsprop; {settings['optimizer']} does not take it"
        )
    if settings["dropout"] and not settings["hidden"]:
        settings["dropout"] = 0.0


def load_data(settings: Settings) -> Data:
    """The images as rows of float32 in [0, 1], and a split that follows from the seed.

    The embedded digits are split 70 : 15 : 15. A folder has its own test images; 15 % of its
    training images become the validation part.
    """
    device, seed = settings["device"], settings["seed"]
    if settings["data"] is None:
        images, labels = digits()
        whole = _dataset(images / np.float32(16), labels, device)
        parts = random_split(whole, (0.7, 0.15, 0.15), seed, stratify=labels)
        return Data("digits", parts[0], parts[1], parts[2], inputs=64, classes=10)
    folder = Path(settings["data"])
    found = idx_folder(folder)
    if found.train_images.shape[1:] != found.test_images.shape[1:]:
        raise TensorgradError(
            f"{folder}: training images have shape {found.train_images.shape[1:]} and test images "
            f"{found.test_images.shape[1:]}; take both from the same data set"
        )
    least = min(found.train_labels.min(initial=0), found.test_labels.min(initial=0))
    if len(found.train_labels) < 2 or not len(found.test_labels) or least < 0:
        raise TensorgradError(
            f"{folder}: there must be two training images, a test image and no label below 0; got "
            f"{len(found.train_labels)} and {len(found.test_labels)} images, least label {least}"
        )
    largest = float(max(found.train_images.max(), 1))
    whole = _dataset(found.train_images / np.float32(largest), found.train_labels, device)
    test = _dataset(found.test_images / np.float32(largest), found.test_labels, device)
    rest, validation = random_split(whole, (0.85, 0.15), seed, stratify=found.train_labels)
    return Data(
        folder.resolve().name or "data",
        rest,
        validation,
        test,
        inputs=math.prod(found.train_images.shape[1:]),
        classes=max(2, 1 + int(max(found.train_labels.max(), found.test_labels.max()))),
    )


def _dataset(images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], device: str) -> Any:
    """Rows of pixels and labels, in the memory of the device that will use them."""
    rows = images.reshape(len(images), -1).astype(np.float32, copy=False)
    return TensorDataset(
        Tensor(rows, device=device, copy=None), Tensor(labels, device=device, copy=None)
    )


def build_model(inputs: int, classes: int, settings: Settings) -> nn.Sequential:
    """A network of fully connected layers that gives a score for each class."""
    layers: list[nn.Module] = []
    for size in settings["hidden"]:
        layers += [nn.Linear(inputs, size), getattr(nn, ACTIVATIONS[settings["activation"]])()]
        if settings["dropout"]:
            layers.append(nn.Dropout(settings["dropout"]))
        inputs = size
    layers.append(nn.Linear(inputs, classes))
    for layer in layers:
        if isinstance(layer, nn.Linear):
            _initialise(layer, settings["init"])
    return nn.Sequential(*layers)


def _initialise(layer: nn.Linear, init: str) -> None:
    if init == "he":
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    elif init == "xavier":
        nn.init.xavier_uniform_(layer.weight)
    else:
        nn.init.uniform_(layer.weight, -0.05, 0.05)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def build_optimizer(model: nn.Module, settings: Settings) -> optim.Optimizer:
    """The optimizer, with its own learning rate if none is set."""
    name, rate = OPTIMIZERS[settings["optimizer"]]
    options = {} if settings["momentum"] is None else {"momentum": settings["momentum"]}
    found: optim.Optimizer = getattr(optim, name)(
        model.parameters(), lr=rate if settings["lr"] is None else settings["lr"], **options
    )
    return found


def build_penalty(model: nn.Module, settings: Settings) -> Callable[[], Tensor] | None:
    """The regularizer: L1, L2, both, or None."""
    l1, l2 = settings["l1"], settings["l2"]
    if not l1 and not l2:
        return None
    weights = [p for p in model.parameters() if p.ndim > 1]

    def penalty() -> Tensor:
        if not l2:
            return functional.l1_penalty(weights, l1)
        squares = functional.l2_penalty(weights, l2)
        return squares if not l1 else squares + functional.l1_penalty(weights, l1)

    return penalty


def _resumed(path: Path, given: Mapping[str, Any]) -> tuple[LoadedCheckpoint, Path]:
    """The checkpoint of the run in the folder ``path``, and the folder."""
    extra = sorted(set(given) - {"epochs", "device"})
    if extra:
        raise TensorgradError(
            f"--resume takes the settings of the saved run, so --{extra[0].replace('_', '-')} "
            "cannot be given with it; only --epochs and --device can"
        )
    folder = path.parent if path.name == CHECKPOINT else path
    if not (folder / CHECKPOINT).is_file():
        raise TensorgradError(
            f"{folder} holds no {CHECKPOINT}; give --resume the folder of an earlier run"
        )
    checkpoint = load_checkpoint(folder / CHECKPOINT)
    if not set(DEFAULTS) <= set(checkpoint.config):
        raise TensorgradError(
            f"{folder / CHECKPOINT} was not written by tensorgrad train; load it with "
            "training.load_checkpoint"
        )
    return checkpoint, folder


def _new_folder(out: str | None, name: str) -> Path:
    """A new folder for the results: ``out``, or runs/<name>-<n> with the first n that is free."""
    if out is not None:
        folder = Path(out)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise TensorgradError(
                f"{folder} exists already; choose another --out, or --resume {folder}"
            )
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    number = 1
    while True:
        folder = Path("runs") / f"{name}-{number}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if not Path("runs").is_dir():
                raise
            number += 1
        else:
            return folder


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())
