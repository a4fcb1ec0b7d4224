"""The state machine of the playground: commands go in, frames come out. No HTTP, no threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from tensorgrad.playground import lesson
from tensorgrad.playground.datasets import RANGE, Data, Table, make_data
from tensorgrad.playground.errors import PlaygroundError, shown
from tensorgrad.playground.network import Learner, racer
from tensorgrad.playground.pictures import (
    feature_pictures,
    finite,
    finite_list,
    pictures,
    unit_picture,
)
from tensorgrad.playground.settings import (
    CHOICES,
    LIMITS,
    MOST_DRAWN,
    OF_DATA,
    OF_NETWORK,
    OF_TRAINING,
    OPTIMIZERS,
    Settings,
    from_fragment,
    of_lesson,
    point,
)
from tensorgrad.playground.tables import read_table

_MOST_STEPS = 10_000  # of one command
_MOST_RACERS = 6


class Session:
    """A run: settings, data, a network, and how far it has come.

    Everything follows from the settings, the commands, and after how many steps they came.
    ``settings_version`` and ``data_version`` rise with what ``settings_message`` and
    ``data_message`` give. ``running`` is whether ``play`` was asked for.

    table: what ``data=csv`` takes.
    """

    def __init__(self, settings: Settings | None = None, table: Table | None = None) -> None:
        self.table = table
        self.settings = self._of_table(Settings() if settings is None else settings)
        self.data = make_data(self.settings, table)
        self.settings_version = self.data_version = 0
        self.running = False
        #: how long a step takes, lately, without those in which it is compiled; None before that
        self.microseconds: float | None = None
        self._begin()

    def _begin(self) -> None:
        self.learner = Learner(self.settings, self.data)
        self.racers: dict[str, Learner] = {}

    # --- training ---------------------------------------------------------------------------------

    @property
    def state(self) -> str:
        """Running, paused, stopped (a condition was met) or nan."""
        return self.learner.state or ("running" if self.running else "paused")

    def step(self, count: int = 1) -> int:
        """Train for up to ``count`` steps, racers too; how many of them there were."""
        began, done = time.perf_counter(), 0
        settled = self.learner.is_settled
        learner, racers = self.learner, list(self.racers.values())
        with np.errstate(all="ignore"):
            while done < count and learner.step():
                done += 1
                for other in racers:
                    other.step()
        if settled and done:
            each = (time.perf_counter() - began) / done * 1e6
            before = self.microseconds
            self.microseconds = each if before is None else before + (each - before) / 5
        if not done or learner.state:
            self.running = False
        return done

    # --- commands ---------------------------------------------------------------------------------

    def command(self, message: Any) -> dict[str, Any]:
        """Carry out a command, as ``{"type": "play"}``; returns what there is to answer.

        Raises PlaygroundError, changing nothing, for what cannot be carried out.
        """
        kind = message.get("type") if isinstance(message, Mapping) else None
        if not isinstance(kind, str) or kind not in _COMMANDS:
            raise PlaygroundError(
                f'a command must be {{"type": one of {", ".join(_COMMANDS)}}}; got {shown(message)}'
            )
        known = _COMMANDS[kind][1]
        unknown = sorted(str(name) for name in message if name != "type" and name not in known)
        if unknown and known != ("*",):
            raise PlaygroundError(
                f"{kind} takes {', '.join(known) or 'nothing'}; got {shown(unknown[0])}"
            )
        with np.errstate(all="ignore"):
            return {"ok": True, **(_COMMANDS[kind][0](self, message) or {})}

    def _play(self, message: Mapping[str, Any]) -> None:
        if not len(self.data.points):
            raise PlaygroundError("there are no training points; draw some, or choose other data")
        if self.learner.state == "stopped":
            raise PlaygroundError(
                f"training has stopped: {self.learner.reason}; reset it, or change the condition"
            )
        if self.learner.state == "nan":
            raise PlaygroundError("the loss is not finite any more; lower the rate, or reset")
        self.running = True

    def _pause(self, message: Mapping[str, Any]) -> None:
        self.running = False

    def _step(self, message: Mapping[str, Any]) -> dict[str, Any]:
        count = _integer("count", message.get("count", 1), 1, _MOST_STEPS)
        self.running = False
        return {"done": self.step(count)}

    def _reset(self, message: Mapping[str, Any]) -> None:
        if message.get("new"):
            other = (self.settings.init_seed + 1) % 2**32
            self._take(replace(self.settings, init_seed=other))
        self.running = False
        self._begin()

    def _regenerate(self, message: Mapping[str, Any]) -> None:
        self._take(replace(self.settings, seed=(self.settings.seed + 1) % 2**32))

    def _set(self, message: Mapping[str, Any]) -> None:
        values = {name: value for name, value in message.items() if name != "type"}
        number = values.get("lesson")
        found = self.settings
        if number not in (None, 0, "0", self.settings.lesson, str(self.settings.lesson)):
            found = of_lesson(found.changed({"lesson": number}).lesson)
        self._take(found.changed(values))

    def _lesson(self, message: Mapping[str, Any]) -> None:
        number = _integer("number", message.get("number"), 0, len(lesson.STEPS))
        self._open(of_lesson(number) if number else replace(self.settings, lesson=0))

    def _address(self, message: Mapping[str, Any]) -> None:
        fragment = message.get("fragment")
        if not isinstance(fragment, str):
            raise PlaygroundError(f"fragment must be a text; got {shown(fragment)}")
        self._open(from_fragment(fragment))

    def _open(self, settings: Settings) -> None:
        self._take(settings)
        self.running = False
        self._begin()

    def _weight(self, message: Mapping[str, Any]) -> None:
        layer, unit = self._place(message)
        linear = self.learner.linears()[layer]
        place = _integer("input", message.get("input"), 0, linear.in_features - 1)
        self.learner.set_parameter(layer, unit, place, _value(message.get("value")))

    def _bias(self, message: Mapping[str, Any]) -> None:
        layer, unit = self._place(message)
        self.learner.set_parameter(layer, unit, None, _value(message.get("value")))

    def _place(self, message: Mapping[str, Any]) -> tuple[int, int]:
        linears = self.learner.linears()
        layer = _integer("layer", message.get("layer"), 0, len(linears) - 1)
        unit = _integer("unit", message.get("unit"), 0, linears[layer].out_features - 1)
        return layer, unit

    def _points(self, message: Mapping[str, Any]) -> None:
        points = () if message.get("clear") else self.settings.points
        added = message.get("add", [])
        if not isinstance(added, list) or len(points) + len(added) > MOST_DRAWN:
            raise PlaygroundError(
                f"add must be a list, and drawn points at most {MOST_DRAWN}; there are "
                f"{len(points)}, and {len(added) if isinstance(added, list) else 'none'} came"
            )
        more = tuple(point("a point", one) for one in added)
        self._take(replace(self.settings, points=points + more))

    def _csv(self, message: Mapping[str, Any]) -> None:
        text = message.get("text")
        if text is None and self.table is not None:
            text = self.table.text
        table = read_table(text, message.get("columns"), message.get("target"))
        before, self.table = self.table, table
        try:
            self._take(replace(self.settings, data="csv"), anew=True)
        except PlaygroundError:
            self.table = before
            raise

    def _race(self, message: Mapping[str, Any]) -> None:
        if message.get("stop"):
            self.racers = {}
            return
        names = message.get("optimizers")
        if not isinstance(names, list) or not 1 <= len(names) <= _MOST_RACERS:
            raise PlaygroundError(
                f"optimizers must be a list of 1 to {_MOST_RACERS}; got {shown(names)}"
            )
        entries = dict(_entry(name) for name in names)
        self.running = False
        self._begin()
        for name, rate in entries.items():
            self.racers[name] = racer(self.settings, name, rate, self.data)

    def _take(self, settings: Settings, anew: bool = False) -> None:
        """Go on with other settings; ``anew`` says that the data is another in any case."""
        before, settings = self.settings, self._of_table(settings)

        def differs(names: tuple[str, ...]) -> bool:
            return any(getattr(before, name) != getattr(settings, name) for name in names)

        data = make_data(settings, self.table) if anew or differs(OF_DATA) else None
        self.settings = settings
        self.settings_version += 1
        if data is not None:
            self.data = data
            self.data_version += 1
        if anew or differs(OF_NETWORK):
            self._begin()
            return
        if data is None and not differs(OF_TRAINING):
            return
        learners = [self.learner, *self.racers.values()]
        for learner in learners:
            own = learner is self.learner
            if own:
                learner.follow(settings)
            else:
                kept = learner.settings
                learner.follow(replace(settings, optimizer=kept.optimizer, rate=kept.rate))
            if data is not None:
                learner.give(data)

    def _of_table(self, settings: Settings) -> Settings:
        """The settings with the task and the classes of the table, where that is the data."""
        if settings.data != "csv" or self.table is None:
            return settings
        classes = self.table.classes
        task = "regression" if classes == 1 else "classification"
        return replace(settings, task=task, classes=max(2, classes))

    # --- messages ---------------------------------------------------------------------------------

    def settings_message(self) -> dict[str, Any]:
        """All settings, their limits and choices, the fragment, and the lesson."""
        return {
            "type": "settings",
            **self.settings.to_dict(),
            "fragment": self.settings.fragment(),
            "limits": LIMITS,
            "choices": CHOICES,
            "rates": {name: rule.rate for name, rule in OPTIMIZERS.items()},
            "lessons": lesson.summary(),
            "has_table": self.table is not None,
        }

    def data_message(self) -> dict[str, Any]:
        """The points with their labels, and what each feature looks like."""
        data = self.data
        return {
            "type": "data",
            "train": _rows(data.points, data.labels),
            "test": _rows(data.test_points, data.test_labels),
            "classes": data.classes,
            "task": data.task,
            "range": [-RANGE, RANGE],
            "columns": _columns(self.table) if self.settings.data == "csv" else None,
            "names": data.names,
            "features": feature_pictures(),
        }

    def frame(self) -> dict[str, Any]:
        """How things stand, with pictures; without the curve, of which each reader has a part."""
        learner = self.learner
        with np.errstate(all="ignore"):
            train, test = learner.losses()
            frame = {
                "type": "frame",
                "step": learner.steps,
                "epoch": learner.epoch,
                "state": self.state,
                "reason": learner.reason,
                "train_loss": _number(train),
                "test_loss": _number(test),
                "microseconds": None if self.microseconds is None else round(self.microseconds, 2),
                "weights": [finite_list(one.weight.tolist()) for one in learner.linears()],
                "biases": [finite_list(one.bias.tolist()) for one in learner.linears()
                           if one.bias is not None],
                "gradient_norms": [finite(norm) for norm in learner.gradient_norms()],
                **pictures(learner),
                "race": [
                    {"optimizer": name, "rate": other.settings.rate, "state": other.state,
                     "curve": other.curve.rows[:: 1 + len(other.curve.rows) // 200]}
                    for name, other in self.racers.items()
                ],
            }  # fmt: skip
            return {**frame, **_figures(learner, self.data)}

    def unit(self, layer: Any, unit: Any) -> dict[str, Any]:
        """A large picture of what a unit sees. Raises PlaygroundError for one that is not there."""
        place = self._place({"layer": layer, "unit": unit})
        return unit_picture(self.learner, *place)


_COMMANDS: dict[str, tuple[Callable[[Session, Mapping[str, Any]], Any], tuple[str, ...]]] = {
    "play": (Session._play, ()),
    "pause": (Session._pause, ()),
    "step": (Session._step, ("count",)),
    "reset": (Session._reset, ("new",)),
    "regenerate": (Session._regenerate, ()),
    "set": (Session._set, ("*",)),
    "weight": (Session._weight, ("layer", "unit", "input", "value")),
    "bias": (Session._bias, ("layer", "unit", "value")),
    "points": (Session._points, ("add", "clear")),
    "csv": (Session._csv, ("text", "columns", "target")),
    "race": (Session._race, ("optimizers", "stop")),
    "address": (Session._address, ("fragment",)),
    "lesson": (Session._lesson, ("number",)),
}


def _integer(name: str, value: Any, low: int, high: int) -> int:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if isinstance(value, str) and value.isdecimal() and len(value) < 10:
        value, whole = int(value), True
    if not whole or not low <= value <= high:
        raise PlaygroundError(
            f"{name} must be a whole number from {low} to {high}; got {shown(value)}"
        )
    return int(value)


def _value(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= 1e6:
        raise PlaygroundError(f"value must be a number from -1e6 to 1e6; got {shown(value)}")
    return float(value)


def _entry(entry: Any) -> tuple[str, float]:
    """A racer: "adam", with its usual rate, or "adam:0.1"."""
    name, _, rate = entry.partition(":") if isinstance(entry, str) else ("", "", "")
    if name not in OPTIMIZERS:
        raise PlaygroundError(
            f"an optimizer must be one of {', '.join(OPTIMIZERS)}; got {shown(entry)}"
        )
    if not rate:
        return name, OPTIMIZERS[name].rate
    return name, Settings().changed({"rate": rate}).rate


def _columns(table: Table | None) -> dict[str, Any] | None:
    if table is None:
        return None
    return {"names": table.every, "chosen": table.columns[:2], "target": table.columns[2]}


def _rows(points: Any, labels: Any) -> list[list[float]]:
    """Points and labels, rounded to what a picture shows."""
    rows: list[list[float]] = np.column_stack([points, labels]).round(4).tolist()
    return rows


def _number(value: float | None) -> float | None:
    return None if value is None else finite(value)


def _figures(learner: Learner, data: Data) -> dict[str, Any]:
    """Accuracy and, of the test data, confusion (row: the class it is; column: the answer)."""
    if data.classes == 1:
        return {"accuracy": None, "confusion": None}
    true = [
        (labels > 0 if data.classes == 2 else labels).astype(np.int64)
        for labels in (data.labels, data.test_labels)
    ]
    told = learner.answers()
    shares = [finite((a == b).mean()) if len(a) else None for a, b in zip(true, told)]
    matrix = np.zeros((data.classes, data.classes), np.int64)
    np.add.at(matrix, (true[1], told[1]), 1)
    return {
        "accuracy": {"train": shares[0], "test": shares[1]},
        "confusion": matrix.tolist(),
    }
