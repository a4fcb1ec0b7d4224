"""The data of the playground: points of the plane with a class or a number each.

The shapes are those of TensorFlow Playground (Smilkov et al., 2017), for any number of classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tensorgrad.playground.errors import PlaygroundError
from tensorgrad.playground.formulas import parse_formula
from tensorgrad.playground.settings import Settings

Array = np.ndarray[Any, Any]

#: The plane reaches from -RANGE to RANGE in both directions.
RANGE = 6.0
_CLASSIFIED, _REGRESSED = 500, 1200  # how many points are made
_RADIUS = 5.0


class Data(NamedTuple):
    """Points [n, 2] and labels [n], float32, in two parts.

    Labels are -1 and 1 where there are two classes, 0, 1, 2, ... where there are more, and any
    numbers in a regression, for which ``classes`` is 1. names: those of the classes.
    """

    points: Array
    labels: Array
    test_points: Array
    test_labels: Array
    classes: int
    names: tuple[str, ...] = ()

    @property
    def task(self) -> str:
        """Classification or regression."""
        return "regression" if self.classes == 1 else "classification"


class Table(NamedTuple):
    """Two columns and a target of a table of one's own, scaled to the plane.

    text: the whole table as it came. every: the names of all of its columns.
    """

    points: Array
    labels: Array
    classes: int
    columns: tuple[str, ...]
    names: tuple[str, ...]
    text: str
    every: tuple[str, ...]


def make_data(settings: Settings, table: Table | None = None) -> Data:
    """The data that the settings ask for; the same for the same settings.

    table: what ``data="csv"`` takes. Drawn points are added to whatever else there is; some of
    them are test data, as the share of training data says.

    Raises PlaygroundError where there is no table, or the function has no finite values.
    """
    drawn, classes = settings.points, settings.classes
    names: tuple[str, ...] = ()
    if settings.data == "csv":
        if table is None:
            raise PlaygroundError(
                "data=csv needs a table: load one, or start tensorgrad playground --data FILE"
            )
        points, labels, classes, names = table.points, table.labels, table.classes, table.names
    elif settings.data == "points":
        points, labels = np.zeros((0, 2), np.float32), np.zeros(0, np.float32)
    else:
        points, labels = _generated(settings)
    if settings.task == "regression" and settings.data != "csv":
        classes = 1
    random = np.random.default_rng([settings.seed, 1])
    order = random.permutation(len(points))
    split = len(points) * settings.train_share // 100
    train, test = order[:split], order[split:]
    by_hand = np.array(drawn, np.float32).reshape(-1, 3)
    # Multiples of the golden ratio spread evenly whatever rhythm somebody draws in, and a point
    # keeps its part when more are drawn.
    kept = np.arange(len(by_hand)) * (5**0.5 - 1) / 2 % 1 < settings.train_share / 100
    marks = _as_labels(by_hand[:, 2], classes)
    return Data(
        np.concatenate([points[train], by_hand[kept, :2]]),
        np.concatenate([labels[train], marks[kept]]),
        np.concatenate([points[test], by_hand[~kept, :2]]),
        np.concatenate([labels[test], marks[~kept]]),
        classes,
        names,
    )


def _as_labels(marks: Array, classes: int) -> Array:
    """What was drawn as the labels of so many classes; 1: numbers."""
    if classes == 1:
        return marks
    if classes == 2:
        return np.where(marks > 0, 1, -1).astype(np.float32)
    return np.clip(np.round(marks), 0, classes - 1).astype(np.float32)


def _generated(settings: Settings) -> tuple[Array, Array]:
    random = np.random.default_rng([settings.seed, 0])
    noise = settings.noise / 100
    if settings.task == "classification":
        points, labels = SHAPES[settings.data](random, settings.classes, noise)
        if settings.classes == 2:
            labels = 1.0 - 2.0 * labels  # the first class is the positive one
    else:
        function = _function(settings.function) if settings.data == "function" else None
        points, labels = _surface(settings.data, function, random, noise)
    return points.astype(np.float32), labels.astype(np.float32)


def _circle(random: np.random.Generator, classes: int, noise: float) -> tuple[Array, Array]:
    """A disc and rings around it; noise moves a point only when it is told its class."""
    own = np.arange(_CLASSIFIED) % classes
    width = _RADIUS / (classes - 0.4)  # half a gap is a fifth of a ring
    distance = width * (own + 0.6 * random.random(_CLASSIFIED))
    angle = random.uniform(0, 2 * np.pi, _CLASSIFIED)
    points = np.stack([distance * np.sin(angle), distance * np.cos(angle)], axis=1)
    moved = points + random.uniform(-_RADIUS, _RADIUS, points.shape) * noise
    told = np.floor(np.hypot(*moved.T) / width + 0.2).clip(0, classes - 1)
    return points, told


def _xor(random: np.random.Generator, classes: int, noise: float) -> tuple[Array, Array]:
    """Quarters of the plane whose classes alternate; of more classes, narrower sectors."""
    points = random.uniform(-_RADIUS, _RADIUS, (_CLASSIFIED, 2))
    points += np.where(points > 0, 0.3, -0.3)
    moved = points + random.uniform(-_RADIUS, _RADIUS, points.shape) * noise
    angle = np.arctan2(moved[:, 1], moved[:, 0]) % (2 * np.pi)
    sector = np.floor(angle / np.pi * classes).astype(int)
    return points, sector % classes


def _gauss(random: np.random.Generator, classes: int, noise: float) -> tuple[Array, Array]:
    """A cloud for each class."""
    own = np.arange(_CLASSIFIED) % classes
    angle = np.pi / 4 + 2 * np.pi * own / classes
    spread = np.sqrt(0.5 + 7 * noise)
    middle = np.stack([np.cos(angle), np.sin(angle)], axis=1) * np.sqrt(8)
    return middle + random.normal(0, spread, (_CLASSIFIED, 2)), own


def _spiral(random: np.random.Generator, classes: int, noise: float) -> tuple[Array, Array]:
    """An arm for each class."""
    own = np.arange(_CLASSIFIED) % classes
    along = np.arange(_CLASSIFIED) // classes / (_CLASSIFIED // classes)
    angle = 1.75 * along * 2 * np.pi + 2 * np.pi * own / classes
    points = np.stack([np.sin(angle), np.cos(angle)], axis=1) * (_RADIUS * along)[:, None]
    return points + random.uniform(-1, 1, points.shape) * noise, own


SHAPES: dict[str, Callable[[np.random.Generator, int, float], tuple[Array, Array]]] = {
    "circle": _circle, "xor": _xor, "gauss": _gauss, "spiral": _spiral,
}  # fmt: skip


def _surface(
    name: str,
    function: Callable[[Array, Array], Array] | None,
    random: np.random.Generator,
    noise: float,
) -> tuple[Array, Array]:
    """Points spread evenly, and a number from -1 to 1 for each."""
    points = random.uniform(-RANGE, RANGE, (_REGRESSED, 2))
    moved = points + random.uniform(-RANGE, RANGE, points.shape) * noise
    x, y = moved.T
    if function is not None:
        return points, function(x, y)
    if name == "plane":
        return points, ((x + y) / 10).clip(-1, 1)
    middles = [(-4, 2.5, 1), (0, 2.5, -1), (4, 2.5, 1), (-4, -2.5, -1), (0, -2.5, 1), (4, -2.5, -1)]
    heights = [sign * (1 - np.hypot(x - a, y - b) / 2).clip(0, 1) for a, b, sign in middles]
    largest = np.argmax(np.abs(heights), axis=0)
    return points, np.array(heights)[largest, np.arange(len(x))]


def _function(text: str) -> Callable[[Array, Array], Array]:
    """A typed formula, divided by its largest absolute value on the plane if that is above 1."""
    formula = parse_formula(text)
    line = np.linspace(-1.5 * RANGE, 1.5 * RANGE, 97)
    x, y = (axis.ravel() for axis in np.meshgrid(line, line))
    values = formula(x, y)
    if not np.isfinite(values).all():
        k = int(np.argmin(np.isfinite(values)))
        raise PlaygroundError(
            f"the function must be finite from -9 to 9; {text} is {values[k]} at x = {x[k]:g}, "
            f"y = {y[k]:g}"
        )
    inside = (np.abs(x) <= RANGE) & (np.abs(y) <= RANGE)
    scale = max(1.0, float(np.abs(values[inside]).max()))
    return lambda x, y: np.nan_to_num(formula(x, y) / scale).clip(-4, 4)
