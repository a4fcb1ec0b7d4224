"""What is trained, how, and on what: the settings, as a dict and as the fragment of an address."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

from tensorgrad.playground.errors import PlaygroundError, shown
from tensorgrad.playground.lesson import STEPS

CLASSIFICATION = ("circle", "xor", "gauss", "spiral", "points", "csv")
REGRESSION = ("plane", "multi-gauss", "function", "points", "csv")
FEATURES = ("x", "y", "x2", "y2", "xy", "sinx", "siny")
#: Name -> the class of ``tensorgrad.nn``.
ACTIVATIONS = {
    "tanh": "Tanh", "relu": "ReLU", "sigmoid": "Sigmoid", "linear": "Identity",
    "leaky_relu": "LeakyReLU", "elu": "ELU", "selu": "SELU", "gelu": "GELU", "silu": "SiLU",
    "softplus": "Softplus", "softsign": "Softsign", "mish": "Mish",
}  # fmt: skip


class Rule(NamedTuple):
    """An update rule: the class of ``tensorgrad.optim``, its options, and a usual rate."""

    name: str
    options: Mapping[str, Any]
    rate: float


OPTIMIZERS = {
    "sgd": Rule("SGD", {}, 0.03),
    "momentum": Rule("SGD", {"momentum": 0.9}, 0.01),
    "nesterov": Rule("SGD", {"momentum": 0.9, "nesterov": True}, 0.01),
    "adam": Rule("Adam", {}, 0.01),
    "adamw": Rule("AdamW", {}, 0.01),
    "rmsprop": Rule("RMSprop", {}, 0.003),
    "adagrad": Rule("Adagrad", {}, 0.1),
    "adadelta": Rule("Adadelta", {}, 1.0),
    "adamax": Rule("Adamax", {}, 0.01),
    "nadam": Rule("NAdam", {}, 0.01),
    "radam": Rule("RAdam", {}, 0.01),
    "lion": Rule("Lion", {}, 0.001),
}
REGULARIZATIONS = ("none", "l1", "l2")
#: What a page need not show: settings by name, and buttons and panels.
HIDABLE = (
    "lessons", "step", "reset", "rate", "optimizer", "activation", "regularization",
    "regularization_rate", "dropout", "task", "data", "draw", "csv", "classes", "train_share",
    "noise", "batch", "seed", "init_seed", "regenerate", "new_weights", "features", "layers",
    "show_test", "discretize", "stop_loss", "stop_epochs", "speed", "confusion", "race", "tape",
    "source",
)  # fmt: skip
MOST_LAYERS, MOST_UNITS, MOST_DRAWN = 12, 32, 500
Point = tuple[float, float, float]


@dataclass(frozen=True)
class Settings:
    """The state of a playground but for what training has made of it.

    Names are those of the fragment. layers: units of each hidden layer. activation: one for all
    hidden layers, or one for each. rate, regularization_rate, speed: may change while it runs.
    seed, init_seed: of the data and the order of the batches, and of the first weights and dropout.
    stop_loss: training stops once the loss on the training data is not above it; 0: it does not.
    stop_epochs: or after so many epochs. speed: steps a second at most; 0: as many as there can be.
    points: drawn by hand, (x, y, label). lesson: whose text is shown, from 1; 0: none. hide: what
    the page does not show.
    """

    task: str = "classification"
    data: str = "circle"
    classes: int = 2
    noise: int = 0
    train_share: int = 50
    batch: int = 10
    seed: int = 0
    features: tuple[str, ...] = ("x", "y")
    layers: tuple[int, ...] = (4, 2)
    activation: tuple[str, ...] = ("tanh",)
    dropout: float = 0.0
    optimizer: str = "sgd"
    rate: float = 0.03
    regularization: str = "none"
    regularization_rate: float = 0.0
    init_seed: int = 0
    discretize: bool = False
    show_test: bool = False
    stop_loss: float = 0.0
    stop_epochs: int = 0
    speed: int = 0
    function: str = "sin(x) * y"
    points: tuple[Point, ...] = ()
    lesson: int = 0
    hide: tuple[str, ...] = ()

    def changed(self, values: Mapping[str, Any]) -> Settings:
        """These settings with other ``values``, given as they are or as texts of a fragment.

        What does not go together any more is mended: a task gets data of its own, data its task.
        Raises PlaygroundError for an unknown name or a value that cannot be.
        """
        if not isinstance(values, Mapping):
            raise PlaygroundError(f"settings must be names and values; got {shown(values)}")
        for name in values:
            if name not in PARSERS:
                raise PlaygroundError(
                    f"there is no setting {shown(name)}; there are {', '.join(PARSERS)}"
                )
        found = replace(self, **{name: PARSERS[name](name, v) for name, v in values.items()})
        return _mended(found, values)

    def to_dict(self) -> dict[str, Any]:
        """Names and values, as JSON has them."""
        return asdict(self)

    def fragment(self) -> str:
        """What stands behind the ``#`` of an address: what differs from the usual or the lesson."""
        usual = replace(of_lesson(self.lesson), lesson=0)
        return "&".join(
            f"{f.name}={quote(_text(getattr(self, f.name)), safe=',:*-/().')}"
            for f in fields(self)
            if getattr(self, f.name) != getattr(usual, f.name)
        )

    def activations(self) -> tuple[str, ...]:
        """The activation of each hidden layer."""
        if len(self.activation) == 1:
            return self.activation * len(self.layers)
        return self.activation


def from_fragment(text: str) -> Settings:
    """The settings that a fragment, with or without its ``#``, stands for.

    What it does not name is as its lesson has it, or as usual. Raises PlaygroundError for an
    unknown name or a value that cannot be.
    """
    values = read_fragment(text)
    number = Settings().changed({"lesson": values.get("lesson", 0)}).lesson
    return of_lesson(number).changed(values)


def of_lesson(number: int) -> Settings:
    """The settings that a step of the lesson begins with; the usual ones for 0."""
    if not number:
        return Settings()
    return Settings().changed({**STEPS[number - 1].settings, "lesson": number})


def read_fragment(text: str) -> dict[str, str]:
    """Names and values of a fragment, unread. Raises PlaygroundError for a part without ``=``."""
    values = {}
    for part in filter(None, text.removeprefix("#").split("&")):
        name, equals, value = part.partition("=")
        if not equals:
            raise PlaygroundError(f"a part of the address must be name=value; got {shown(part)}")
        values[unquote(name)] = unquote(value)
    return values


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, tuple):
        return ",".join(
            ":".join(f"{x:g}" for x in one) if isinstance(one, tuple) else str(one) for one in value
        )
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _mended(found: Settings, given: Mapping[str, Any]) -> Settings:
    """``found``, of which ``given`` is new, with the rest made to fit that."""
    if found.data not in (CLASSIFICATION if found.task == "classification" else REGRESSION):
        if "data" in given:
            task = "classification" if found.data in CLASSIFICATION else "regression"
            found = replace(found, task=task)
        else:
            found = replace(found, data="circle" if found.task == "classification" else "plane")
    names, count = found.activation, len(found.layers)
    if len(names) > 1 and len(names) != count:
        if "activation" in given and "layers" not in given:
            raise PlaygroundError(
                f"activation must be one, or one for each of {count} hidden layers; got "
                f"{len(names)}"
            )
        names = (*names, *names[-1:] * count)[:count]
    if len(set(names)) == 1 or not names:
        names = (names or found.activation)[:1]
    return replace(found, activation=names)


# --- values, each read by a function of its name and what came -----------------------------------

Parser = Callable[[str, Any], Any]


def _whole(low: int, high: int) -> Parser:
    def parse(name: str, value: Any) -> int:
        """A whole number within the bounds."""
        number = _number(value)
        if number is None or number != int(number) or not low <= number <= high:
            raise PlaygroundError(
                f"{name} must be a whole number from {low} to {high}; got {shown(value)}"
            )
        return int(number)

    return parse


def _real(low: float, high: float, above: bool = False) -> Parser:
    def parse(name: str, value: Any) -> float:
        """A number within the bounds."""
        number = _number(value)
        if number is None or not low <= number <= high or (above and number == low):
            bound = f"above {low:g} and at most" if above else f"from {low:g} to"
            raise PlaygroundError(f"{name} must be a number {bound} {high:g}; got {shown(value)}")
        return float(number)

    return parse


def _number(value: Any) -> float | None:
    """The finite number that ``value`` is or spells; None if it is none."""
    if isinstance(value, str) and len(value) <= 40:
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if -1e300 < value < 1e300 and math.isfinite(value) else None


def _one_of(choices: Sequence[str]) -> Parser:
    def parse(name: str, value: Any) -> str:
        """One of the choices."""
        if not isinstance(value, str) or value not in choices:
            raise PlaygroundError(f"{name} must be one of {', '.join(choices)}; got {shown(value)}")
        return value

    return parse


def _flag(name: str, value: Any) -> bool:
    if value in (True, "1", "true"):
        return True
    if value in (False, "0", "false"):
        return False
    raise PlaygroundError(f"{name} must be 1 or 0; got {shown(value)}")


def _several(each: Parser, least: int, most: int) -> Parser:
    def parse(name: str, value: Any) -> tuple[Any, ...]:
        """Values in a list, or in a text between commas."""
        if isinstance(value, str):
            value = value.split(",") if value else []
        if not isinstance(value, list | tuple) or not least <= len(value) <= most:
            got = f"{len(value)}" if isinstance(value, list | tuple) else shown(value)
            raise PlaygroundError(f"{name} must have {least} to {most} parts; got {got}")
        return tuple(each(f"each part of {name}", one) for one in value)

    return parse


def _features(name: str, value: Any) -> tuple[str, ...]:
    chosen = _several(_one_of(FEATURES), 1, len(FEATURES))(name, value)
    return tuple(one for one in FEATURES if one in chosen)


def _hide(name: str, value: Any) -> tuple[str, ...]:
    chosen = _several(lambda _, one: one, 0, len(HIDABLE))(name, value)
    for one in chosen:
        if one not in HIDABLE:
            raise PlaygroundError(f"hide must have names as noise, race, layers; got {shown(one)}")
    return tuple(one for one in HIDABLE if one in chosen)


def _function(name: str, value: Any) -> str:
    from tensorgrad.playground.formulas import parse_formula

    parse_formula(value)
    return " ".join(value.split())


def point(name: str, value: Any) -> Point:
    """A drawn point, from ``[x, y, label]`` or "x:y:label"; raises PlaygroundError."""
    parts = value.split(":") if isinstance(value, str) else value
    numbers = [_number(p) for p in parts] if isinstance(parts, list | tuple) else []
    if len(numbers) != 3 or any(n is None or abs(n) > 100 for n in numbers):
        raise PlaygroundError(
            f"{name} must be x, y and label, numbers from -100 to 100; got {shown(value)}"
        )
    x, y, label = (round(float(n), 3) for n in numbers if n is not None)
    return x, y, label


PARSERS: dict[str, Parser] = {
    "task": _one_of(("classification", "regression")),
    "data": _one_of(tuple(dict.fromkeys(CLASSIFICATION + REGRESSION))),
    "classes": _whole(2, 8),
    "noise": _whole(0, 50),
    "train_share": _whole(10, 90),
    "batch": _whole(1, 1000),
    "seed": _whole(0, 2**32 - 1),
    "features": _features,
    "layers": _several(_whole(1, MOST_UNITS), 0, MOST_LAYERS),
    "activation": _several(_one_of(tuple(ACTIVATIONS)), 1, MOST_LAYERS),
    "dropout": _real(0, 0.9),
    "optimizer": _one_of(tuple(OPTIMIZERS)),
    "rate": _real(0, 1000, above=True),
    "regularization": _one_of(REGULARIZATIONS),
    "regularization_rate": _real(0, 1000),
    "init_seed": _whole(0, 2**32 - 1),
    "discretize": _flag,
    "show_test": _flag,
    "stop_loss": _real(0, 1000),
    "stop_epochs": _whole(0, 10**9),
    "speed": _whole(0, 10**6),
    "function": _function,
    "points": _several(point, 0, MOST_DRAWN),
    "lesson": _whole(0, len(STEPS)),
    "hide": _hide,
}

#: Name -> least and greatest, of what is a number or has so many parts.
LIMITS = {
    "classes": (2, 8), "noise": (0, 50), "train_share": (10, 90), "batch": (1, 1000),
    "layers": (0, MOST_LAYERS), "units": (1, MOST_UNITS), "dropout": (0, 0.9), "rate": (0, 1000),
    "regularization_rate": (0, 1000), "points": (0, MOST_DRAWN), "speed": (0, 10**6),
}  # fmt: skip
CHOICES = {
    "task": ("classification", "regression"),
    "data": {"classification": CLASSIFICATION, "regression": REGRESSION},
    "features": FEATURES,
    "activation": tuple(ACTIVATIONS),
    "optimizer": tuple(OPTIMIZERS),
    "regularization": REGULARIZATIONS,
    "hide": HIDABLE,
    "noise": tuple(range(0, 51, 5)),
    "train_share": tuple(range(10, 91, 10)),
    "rate": (0.00001, 0.0001, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10),
    "regularization_rate": (0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10),
}
#: Another value of one of these makes other data; of these, another network; and of those, other
#: steps of the same.
OF_DATA = ("task", "data", "classes", "noise", "train_share", "seed", "function", "points")
OF_NETWORK = (
    "task", "data", "classes", "function", "features", "layers", "activation", "dropout",
    "init_seed",
)  # fmt: skip
OF_TRAINING = (
    "batch", "optimizer", "rate", "regularization", "regularization_rate", "stop_loss",
    "stop_epochs",
)  # fmt: skip
