"""The settings of a training run: what may be chosen, and what is taken if nothing is.

One table: the options of the command line, the keys of a TOML file, and the defaults.
"""

from __future__ import annotations

import argparse
import math
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tensorgrad.cli.terminal import printable
from tensorgrad.errors import TensorgradError
from tensorgrad.files import DataFileError, read_whole


def number(
    kind: Callable[[str], Any], what: str, test: Callable[[Any], bool]
) -> Callable[[str], Any]:
    """A converter for argparse that also checks the range; ``what`` names it in the error."""

    def convert(text: str) -> Any:
        """The number in a text; ArgumentTypeError for another."""
        try:
            # int() and float() take 1_0 and the digits of any script too.
            value = kind(text) if text.isascii() and "_" not in text else None
        except ValueError:
            value = None
        if value is None or not -math.inf < value < math.inf or not test(value):
            raise argparse.ArgumentTypeError(f"must be {what}, not {_short(text)}")
        return value

    return convert


def _short(text: str) -> str:
    return repr(text) if len(text) <= 100 else f"{text[:100]!r}..."


count = number(int, "a whole number from 1 to 2**31 - 1", lambda n: 1 <= n < 1 << 31)
seed = number(int, "a whole number from 0 to 2**64 - 1", lambda n: 0 <= n < 1 << 64)
port = number(int, "a whole number from 0 to 65535", lambda n: 0 <= n < 1 << 16)
positive = number(float, "a number above 0", lambda x: x > 0)
not_negative = number(float, "a number from 0", lambda x: x >= 0)
share = number(float, "a number from 0 to below 1", lambda x: 0 <= x < 1)


def batch_size(text: str) -> int | str:
    """A whole number from 1, or "full"."""
    return text if text == "full" else int(count(text))


def sizes(text: str) -> list[int]:
    """ "64,32" as [64, 32]; "none" as no hidden layer."""
    if text == "none":
        return []
    try:
        return [count(part) for part in text.split(",")]
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f'must be the sizes of the hidden layers, as 64 or 64,32, or "none"; not {_short(text)}'
        ) from None


def channels(text: str) -> list[int]:
    """ "16,32" as [16, 32]."""
    try:
        return [count(part) for part in text.split(",")]
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f"must be numbers of channels, as 16 or 16,32; not {_short(text)}"
        ) from None


def line(text: str) -> str:
    """A text that a settings file can hold: UTF-8, without NUL."""
    if any(c == "\0" or 0xD800 <= ord(c) < 0xE000 for c in text):  # bytes that are no UTF-8
        raise argparse.ArgumentTypeError(
            "must be UTF-8 without NUL, as it is kept with the run; rename "
            + _short(printable(text))
        )
    return text


def place(text: str) -> str:
    """A name that a folder can have, in UTF-8 or not."""
    if "\0" in text:
        raise argparse.ArgumentTypeError("must be a name without NUL")
    return text


def words(text: str) -> list[str]:
    """ "a,b" as ["a", "b"]."""
    found = [part.strip() for part in line(text).split(",")]
    if not all(found):
        raise argparse.ArgumentTypeError(f"must be names separated by commas, not {_short(text)}")
    if len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"must be different names, not {_short(text)}")
    return found


def image_size(text: str) -> list[int]:
    """ "28x28" as [28, 28]: height and width; one number for both."""
    try:
        parts = [count(part) for part in text.lower().split("x")]
    except argparse.ArgumentTypeError:
        parts = []
    if len(parts) not in (1, 2) or max(parts) > 4096:
        raise argparse.ArgumentTypeError(
            f"must be height x width in pixels, as 28x28, up to 4096; not {_short(text)}"
        )
    return parts * 2 if len(parts) == 1 else parts


#: Name on the command line -> class in tensorgrad.nn.
ACTIVATIONS = {
    "relu": "ReLU",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "gelu": "GELU",
    "leaky-relu": "LeakyReLU",
    "elu": "ELU",
    "silu": "SiLU",
    "mish": "Mish",
}

#: Name on the command line -> class in tensorgrad.optim, and its learning rate if none is given.
OPTIMIZERS = {
    "sgd": ("SGD", 0.1),
    "adam": ("Adam", 2e-3),
    "adamw": ("AdamW", 2e-3),
    "rmsprop": ("RMSprop", 1e-3),
    "adagrad": ("Adagrad", 2e-2),
    "adadelta": ("Adadelta", 1.0),
    "adamax": ("Adamax", 4e-3),
    "nadam": ("NAdam", 2e-3),
    "radam": ("RAdam", 2e-3),
    "lion": ("Lion", 3e-4),
    "adafactor": ("Adafactor", 2e-2),
    "lamb": ("LAMB", 1e-2),
}

INITS = (
    "he", "xavier", "small-uniform", "lecun-normal", "lecun-uniform", "orthogonal", "trunc-normal",
    "he-uniform", "xavier-normal",
)  # fmt: skip
MODELS = ("auto", "mlp", "cnn", "resnet", "rnn", "lstm", "gru", "transformer")
TOKENS = ("characters", "bytes")
SCHEDULES = (
    "constant",
    "step",
    "exponential",
    "cosine",
    "polynomial",
    "warmup",
    "one-cycle",
    "plateau",
)
MISSING = ("impute", "refuse")
TASKS = ("classification", "regression")
LOSSES = ("cross-entropy", "squared-error")
PRECISIONS = ("float32", "float16", "bfloat16")


class Option(NamedTuple):
    """A setting: its name in Python and TOML; the option has hyphens for the underscores."""

    group: str
    name: str
    default: Any  # None: not used, or decided by the data or the optimizer
    metavar: str
    kind: Callable[[str], Any] | None  # None: a switch
    help: str
    choices: tuple[str, ...] | None = None

    @property
    def flag(self) -> str:
        """The option of the command line."""
        return f"--{self.name.replace('_', '-')}"


OPTIONS = (
    Option("data", "data", None, "PATH", line,
           "a folder with a folder of images for each class, the four IDX files of MNIST or a "
           "relative, an .npz file, a table (.csv, .parquet, .xlsx), a .txt list of images, a text "
           "(.txt) or a folder of such; in place of the digits"),
    Option("data", "test", None, "PATH", line, "data to test with, of the same kind; else a part"),
    Option("data", "validation_share", 0.15, "P", share, "part of the data to validate with"),
    Option("data", "image_size", None, "HxW", image_size, "resize images to so many pixels"),
    Option("data", "grey", None, "", None,
           "images in shades of grey, or all in colours (default: as they are)"),
    Option("data", "image_root", None, "DIR", line, "where the images of a list are"),
    Option("data", "label_pattern", None, "REGEX", line,
           "finds the class in the file names of a list, as _(left|right)_"),
    Option("data", "target", None, "COLUMN", line, "what to predict of a table (default the last)"),
    Option("data", "features", None, "A,B", words, "what to predict it from (default all others)"),
    Option("data", "task", None, "", str,
           "what the target of a table is (default: classes if it holds texts or few whole "
           "numbers)", TASKS),
    Option("data", "missing", "impute", "", str,
           "what is missing in a table gets the median, and an input that says so; or is refused",
           MISSING),
    Option("data", "tokens", None, "", str, "what a text is made of (default characters)", TOKENS),
    Option("data", "context", None, "N", count,
           "how many tokens of a text are learnt from at a time (default 64)"),
    Option("data", "batch_size", None, "N", batch_size,
           'examples per step, or "full" (default 32; 16 below 500 examples; 8 to 64 of images)'),
    Option("network", "model", "auto", "", str,
           "mlp has fully connected layers, cnn convolutions, resnet many of them; transformer "
           "(GPT), rnn, lstm and gru are for text; auto: transformer for text, cnn for images, "
           "else mlp, as where --hidden is given", MODELS),
    Option("network", "hidden", [128], "SIZES", sizes,
           'sizes of the hidden layers of mlp, and of cnn behind its convolutions, as 64,32, or '
           '"none"'),
    Option("network", "channels", None, "SIZES", channels,
           "of the stages of cnn, each of which halves the images (default 16,32, and more for "
           "large images); of the first stage of resnet (default 16)"),
    Option("network", "depth", None, "N", count, "layers of resnet, 6 n + 2 (default 20)"),
    Option("network", "width", None, "N", count,
           "numbers that stand for a token in transformer (default 128), rnn, lstm and gru (256)"),
    Option("network", "layers", None, "N", count,
           "of transformer (default 4), rnn, lstm and gru (1)"),
    Option("network", "heads", None, "N", count, "of attention in transformer (default 4)"),
    Option("network", "activation", "relu", "", str, "of the hidden layers", tuple(ACTIVATIONS)),
    Option("network", "init", "he", "", str, "distribution of the first weights", INITS),
    Option("network", "dropout", None, "P", share,
           "share of hidden units left out in each step (default 0.2; of rows of numbers 0.1, "
           "and 0.5 below 500; 0 of layers below 32 units)"),
    Option("learning", "epochs", None, "N", count,
           "passes over the training data, in total (default 20, and 4,000 steps at least)"),
    Option("learning", "loss", "cross-entropy", "", str,
           "for classes; squared-error is that of sigmoid outputs and targets .1 and .9", LOSSES),
    Option("learning", "optimizer", "adam", "", str, "update rule", tuple(OPTIMIZERS)),
    Option("learning", "lr", None, "RATE", positive,
           "learning rate (default " + ", ".join(
               f"{name} {rate:g}" for name, (_, rate) in OPTIMIZERS.items())
           + "; 0.003 for images and text where no optimizer is chosen)"),
    Option("learning", "momentum", None, "A", share, "for sgd and rmsprop"),
    Option("learning", "schedule", None, "", str,
           "of the learning rate (default one-cycle for images, warmup for text, else constant)",
           SCHEDULES),
    Option("learning", "l1", 0.0, "FACTOR", not_negative, "penalty on the size of the weights"),
    Option("learning", "l2", None, "FACTOR", not_negative,
           "penalty on the squares of the weights (default 0; 0.01 for rows of numbers, if fewer "
           "than 500 are trained on)"),
    Option("learning", "clip_norm", None, "N", positive, "largest norm of all gradients together"),
    Option("learning", "accumulate", 1, "N", count, "parts in which a batch is computed"),
    Option("learning", "precision", "float32", "", str, "of matrix products", PRECISIONS),
    Option("learning", "average", None, "DECAY", share,
           "use a moving average of the weights (default 0.98 for rows of numbers, and for images "
           "if at most 2,000 are trained on, but with --schedule plateau; 0: none)"),
    Option("learning", "patience", None, "N", count,
           "stop after N epochs without a lower validation loss (default 5, and 600 steps at "
           "least)"),
    Option("learning", "refit", None, "", None,
           "train once more on the validation part too, for as many epochs as were best (default: "
           "on for rows of numbers, up to 2,000)"),
    Option("learning", "metrics", None, "A,B", words,
           "figures to report besides the loss, as accuracy,f1"),
    Option("learning", "seed", 0, "N", seed, "what all random numbers follow from"),
    Option("run", "device", None, "NAME", line, '"cpu", "cuda", "cuda:1" or "auto"'),
    Option("run", "compile", True, "", None,
           "run each step as a compiled program, or in Python"),
    Option("run", "checkpoint_steps", None, "N", count,
           "save a checkpoint after every N steps too, not only after each epoch"),
    Option("run", "checkpoint_minutes", 5.0, "N", positive, "and after N minutes"),
    Option("run", "keep", 2, "N", count, "how many checkpoints there are"),
    Option("run", "gradient_norms", False, "", None, "note them, for the report"),
    Option("run", "tensorboard", False, "", None, "write event files for TensorBoard"),
    Option("run", "live", False, "", None, "keep a page live.html up to date in the folder"),
    Option("run", "out", None, "DIR", place,
           "new folder for the results (default runs/<data>-<n>)"),
)  # fmt: skip

DEFAULTS: dict[str, Any] = {option.name: option.default for option in OPTIONS}
#: Name -> the setting.
BY_NAME = {option.name: option for option in OPTIONS}


def as_text(value: Any) -> str:
    """A value as it is written on the command line."""
    if isinstance(value, list):
        return ",".join(map(str, value)) or "none"
    return str(value)


def read_toml(path: str | Path) -> dict[str, Any]:
    """The settings in a TOML file: keys as the options, with hyphens or underscores.

    A table ``[versions]``, which a run writes beside its settings, is passed over.

    Raises OSError if it cannot be read, TensorgradError for what is no TOML, an unknown key, or a
    value that the option would refuse.
    """
    try:
        content = tomllib.loads(read_whole(path).decode("utf-8-sig"))
    except DataFileError:
        raise
    except (ValueError, RecursionError) as error:  # also for a number of too many digits
        raise TensorgradError(f"{path}: not a TOML file ({str(error)[:100]})") from error
    content.pop("versions", None)
    found: dict[str, Any] = {}
    for key, value in content.items():
        option = BY_NAME.get(key.replace("-", "_"))
        if option is None:
            raise TensorgradError(
                f"{path}: unknown key {_short(key)}; known are {', '.join(sorted(BY_NAME))}"
            )
        if option.name in found:
            raise TensorgradError(f"{path}: {option.name} is there twice; leave out one")
        found[option.name] = _converted(path, key, option, value)
    return found


def _converted(path: str | Path, key: str, option: Option, value: Any) -> Any:
    if option.kind is None:
        if not isinstance(value, bool):
            raise TensorgradError(f"{path}: {key} must be true or false")
        return value
    items = value if isinstance(value, list) else [value]
    if any(isinstance(item, bool | dict | list) for item in items):
        what = str(value) if isinstance(value, bool) else "a table, or a list of lists or switches"
        raise TensorgradError(f"{path}: {key} cannot be {what}")
    text = as_text(value)
    if option.kind is image_size and isinstance(value, list):
        text = "x".join(map(str, value))
    if option.choices is not None and text not in option.choices:
        raise TensorgradError(
            f"{path}: {key} must be one of {', '.join(option.choices)}, not {_short(text)}"
        )
    try:
        return option.kind(text)
    except argparse.ArgumentTypeError as error:
        raise TensorgradError(f"{path}: {key} {error}") from error


def write_toml(settings: Mapping[str, Any], versions: Mapping[str, str]) -> str:
    """The settings as TOML that ``read_toml`` takes; those that are not used are left out."""
    lines = [
        f"{name} = {_toml(settings[name])}"
        for name in DEFAULTS
        if name != "out" and settings.get(name) is not None
    ]
    own = [f"{name} = {_toml(value)}" for name, value in versions.items()]
    return "\n".join([*lines, "", "[versions]", *own]) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, str):
        escaped = "".join(
            f"\\u{ord(c):04x}" if ord(c) < 32 or ord(c) == 127 or c in '"\\' else c for c in value
        )
        return f'"{escaped}"'
    return repr(value)
