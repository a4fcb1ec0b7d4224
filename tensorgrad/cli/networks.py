"""Which network a run trains: its kind, its sizes, and how long it learns by default."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from tensorgrad import nn
from tensorgrad.cli.data import Problem
from tensorgrad.cli.language import RecurrentLanguageModel
from tensorgrad.cli.settings import ACTIVATIONS, BY_NAME, DEFAULTS
from tensorgrad.cli.text import TEXT_MODELS
from tensorgrad.errors import TensorgradError
from tensorgrad.nn import models
from tensorgrad.tensor import Tensor

Settings = dict[str, Any]


class Kind(NamedTuple):
    """A kind of network: the options that are its own, and the defaults of options that all have.

    data: "text", "images", or "rows" of any numbers. steps: about how many there are by default,
    whatever the number of examples; None where the number of epochs is fixed.
    """

    build: Callable[[Problem, Mapping[str, Any]], nn.Module]
    options: tuple[str, ...]
    data: str
    defaults: Mapping[str, Any] = {}
    steps: int | None = None


def name_kind(settings: Settings, chosen: Collection[str]) -> None:
    """Where sizes of hidden layers are chosen and no network, it is mlp, but not for text."""
    if settings["model"] == "auto" and "hidden" in chosen and settings["context"] is None:
        settings["model"] = "mlp"


def settle_network(
    settings: Settings, problem: Problem, examples: int, chosen: Mapping[str, Any]
) -> None:
    """Set the kind of network, its sizes, and the length of training, where they are left open.

    examples: to train on. chosen: the settings that somebody chose, here or in a file.

    Raises TensorgradError for a network that is not for such data, or an option of another one.
    """
    images = image_shape(problem)
    if settings["model"] == "auto":
        other = "mlp" if images is None else "cnn"
        settings["model"] = "transformer" if problem.is_text else other
    name = settings["model"]
    kind = KINDS[name]
    _refuse_other_data(name, problem, images)
    for option in _OWN:
        if option in kind.options:
            continue
        if option in chosen and chosen[option] not in (DEFAULTS[option], 0.0):
            fit = ", ".join(other for other in KINDS if option in KINDS[other].options)
            raise TensorgradError(
                f"{BY_NAME[option].flag} is for --model {fit}; the network here is {name}"
            )
        settings[option] = 0.0 if option == "dropout" else None
    open_ = {k: v for k, v in kind.defaults.items() if k not in chosen}
    if "optimizer" in chosen:  # whose own learning rate counts
        open_.pop("lr", None)
    settings.update(open_)
    if images is not None and kind.data == "images":
        _settle_channels(settings, images)
    if name == "transformer" and settings["width"] % settings["heads"]:
        raise TensorgradError(
            f"--heads must divide --width; {settings['heads']} does not divide {settings['width']}"
        )
    if kind.steps is not None:
        _settle_length(settings, examples, chosen, kind.steps)


def _refuse_other_data(name: str, problem: Problem, images: tuple[int, int, int] | None) -> None:
    """Raise TensorgradError where the data is not what the network is for."""
    data = KINDS[name].data
    if problem.is_text != (data == "text"):
        raise TensorgradError(
            f"--model {name} is not for text; take one of {', '.join(TEXT_MODELS)}"
            if problem.is_text
            else f"--model {name} is for text, a .txt file or a folder of such; take auto"
        )
    if data == "images" and images is None:
        raise TensorgradError(
            f"--model {name} is for images, with sides of {_LEAST} pixels at least; inputs have "
            f"shape {tuple(problem.shape)}. Take --model mlp"
        )


def _settle_channels(settings: Settings, images: tuple[int, int, int]) -> None:
    """As many stages as bring the smaller side to 8 or below, and two at least."""
    side = min(images[1:])
    if settings["model"] == "resnet":
        settings["channels"] = settings["channels"] or [16]
        settings["depth"] = settings["depth"] or 20
        if len(settings["channels"]) != 1:
            raise TensorgradError("--channels of a resnet are those of its first stage, as 16")
        return
    if settings["channels"] is None:
        count = max(2, math.ceil(math.log2(side / 8)))
        settings["channels"] = [min(16 << k, 128) for k in range(count)]
    if side >> len(settings["channels"]) < 1:
        raise TensorgradError(
            f"--channels has {len(settings['channels'])} stages, and each halves the images, whose "
            f"smaller side is {side}; take at most {int(math.log2(side))}"
        )


def _settle_length(settings: Settings, examples: int, chosen: Collection[str], steps: int) -> None:
    """About so many steps, and batches that leave some of them for an epoch of little data."""
    if "batch_size" not in chosen and settings["context"] is None:
        settings["batch_size"] = next(n for n in (64, 32, 16, 8) if examples >= 20 * n or n == 8)
    batch = examples if settings["batch_size"] == "full" else settings["batch_size"]
    if "epochs" not in chosen:
        settings["epochs"] = min(max(round(steps * batch / examples), 3), _MOST_EPOCHS)
    if "patience" not in chosen:
        settings["patience"] = max(10, settings["epochs"] // 4)


_MOST_EPOCHS = 100
_LEAST = 8  # pixels of a side of what is taken for an image


def image_shape(problem: Problem) -> tuple[int, int, int] | None:
    """Channels, height and width, if the inputs are images; their channels may come last."""
    shape = tuple(problem.shape)
    if len(shape) == 2:
        shape = (1, *shape)
    if len(shape) != 3:
        return None
    channels, height, width = shape if shape[0] <= 4 else (shape[2], *shape[:2])
    if channels > 4 or min(height, width) < _LEAST:
        return None
    return channels, height, width


class ChannelsFirst(nn.Module):
    """(N, H, W, C) -> (N, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """The same numbers in another order."""
        return x.permute(0, 3, 1, 2)


def _image_layers(problem: Problem) -> tuple[list[nn.Module], tuple[int, int, int]]:
    """What makes images of rows, and their shape."""
    images = image_shape(problem)
    if images is None:
        raise TensorgradError(f"inputs of shape {tuple(problem.shape)} are no images")
    if len(problem.shape) == 3 and tuple(problem.shape) != images:
        return [nn.Unflatten(1, (*images[1:], images[0])), ChannelsFirst()], images
    return [nn.Unflatten(1, images)], images


def build_model(problem: Problem, settings: Mapping[str, Any]) -> nn.Sequential:
    """A network from rows to a score for each class, or to numbers."""
    found = KINDS[settings["model"]].build(problem, settings)
    layers = list(found) if isinstance(found, nn.Sequential) else [found]
    if settings["loss"] == "squared-error" and problem.classes is not None:
        layers.append(nn.Sigmoid())
    return nn.Sequential(*layers)


def described(model: nn.Module, problem: Problem, settings: Mapping[str, Any]) -> str:
    """The network in a few words: the widths of a dense one, else its kind and what it has."""
    if settings["model"] == "mlp":
        return "-".join(map(str, (problem.inputs, *settings["hidden"], problem.outputs)))
    sizes = [
        f"{BY_NAME[name].name} {'-'.join(map(str, value if isinstance(value, list) else [value]))}"
        for name in _SIZES
        if (value := settings[name])
    ]
    count = sum(p.size for p in model.parameters())
    return f"{settings['model']} ({', '.join(sizes)}; {count:,} weights)"


def _dense(size: int, problem: Problem, settings: Mapping[str, Any]) -> list[nn.Module]:
    """The hidden layers, and that of the outputs."""
    layers: list[nn.Module] = []
    for width in settings["hidden"]:
        layers += [nn.Linear(size, width), _activation(settings)]
        if settings["dropout"]:
            layers.append(nn.Dropout(settings["dropout"]))
        size = width
    return [*layers, nn.Linear(size, problem.outputs)]


def _activation(settings: Mapping[str, Any]) -> nn.Module:
    found: nn.Module = getattr(nn, ACTIVATIONS[settings["activation"]])()
    return found


def _initialised(layers: list[nn.Module], init: str) -> nn.Sequential:
    for layer in layers:
        if isinstance(layer, nn.Linear | nn.Conv2d):
            _initialise(layer, init)
    return nn.Sequential(*layers)


def _initialise(layer: nn.Linear | nn.Conv2d, init: str) -> None:
    if init == "he":
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    elif init == "xavier":
        nn.init.xavier_uniform_(layer.weight)
    elif init == "small-uniform":
        nn.init.uniform_(layer.weight, -0.05, 0.05)
    elif init == "trunc-normal":
        inputs = math.prod(layer.weight.shape[1:])
        nn.init.trunc_normal_(layer.weight, std=inputs**-0.5)
    else:
        nn.init.by_name(init.replace("-", "_"))(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _mlp(problem: Problem, settings: Mapping[str, Any]) -> nn.Module:
    """Fully connected layers."""
    return _initialised(_dense(problem.inputs, problem, settings), settings["init"])


def _cnn(problem: Problem, settings: Mapping[str, Any]) -> nn.Module:
    """Stages of a convolution of 3 x 3 and the largest of each 2 x 2; then dense layers."""
    layers, (before, height, width) = _image_layers(problem)
    for channels in settings["channels"]:
        layers += [nn.Conv2d(before, channels, 3, padding=1), _activation(settings)]
        layers.append(nn.MaxPool2d(2))
        before, height, width = channels, height // 2, width // 2
    layers.append(nn.Flatten())
    layers += _dense(before * height * width, problem, settings)
    return _initialised(layers, settings["init"])


def _resnet(problem: Problem, settings: Mapping[str, Any]) -> nn.Module:
    """The residual network of small images, of any depth."""
    layers, (channels, _, _) = _image_layers(problem)
    try:
        network = models.CifarResNet(
            settings["depth"], problem.outputs, channels, settings["channels"][0]
        )
    except ValueError as error:
        raise TensorgradError(f"--depth: {error}") from error
    return nn.Sequential(*layers, network)


def _transformer(problem: Problem, settings: Mapping[str, Any]) -> nn.Module:
    """GPT: blocks of attention to what came before."""
    return models.GPT(
        problem.outputs, problem.shape[0], settings["layers"], settings["heads"],
        settings["width"], settings["dropout"],
    )  # fmt: skip


def _recurrent(problem: Problem, settings: Mapping[str, Any]) -> nn.Module:
    """A state that goes from token to token."""
    core = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[settings["model"]]
    return RecurrentLanguageModel(
        core, problem.outputs, settings["width"], settings["layers"], settings["dropout"]
    )


_OF_IMAGES = {"schedule": "one-cycle", "lr": 3e-3}
_OF_TEXT = {
    "optimizer": "adamw", "lr": 3e-3, "schedule": "warmup", "clip_norm": 1.0, "batch_size": 32,
    "dropout": 0.0,
}  # fmt: skip
_RECURRENT = Kind(
    _recurrent, ("width", "layers", "dropout"), "text",
    {**_OF_TEXT, "width": 256, "layers": 1}, steps=2000,
)  # fmt: skip
#: Name on the command line -> the network.
KINDS = {
    "mlp": Kind(_mlp, ("hidden", "activation", "init", "dropout"), "rows"),
    "cnn": Kind(
        _cnn, ("channels", "hidden", "activation", "init", "dropout"), "images", _OF_IMAGES,
        steps=3000,
    ),
    "resnet": Kind(_resnet, ("channels", "depth"), "images", _OF_IMAGES, steps=4000),
    "rnn": _RECURRENT,
    "lstm": _RECURRENT,
    "gru": _RECURRENT,
    "transformer": Kind(
        _transformer, ("width", "layers", "heads", "dropout"), "text",
        {**_OF_TEXT, "width": 128, "layers": 4, "heads": 4}, steps=2000,
    ),
}  # fmt: skip
_SIZES = ("depth", "channels", "hidden", "layers", "heads", "width", "context")
_OWN = tuple(dict.fromkeys(name for kind in KINDS.values() for name in kind.options))
