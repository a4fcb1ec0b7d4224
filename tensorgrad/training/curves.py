"""The curves of a training run as a picture: SVG text, written without a plotting library."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np

from tensorgrad.errors import ShapeError, TensorgradError
from tensorgrad.files import write_atomically
from tensorgrad.training.trainer import Callback, Trainer

Record = Mapping[str, float]
Points = list[tuple[float, float]]

# The two colours differ in lightness too, so that they can be told apart in any kind of vision.
_LINES = {"train": "#1d4ed8", "validation": "#ea8a1a"}
#: Of several lines: a dark and a light one in turn, none told from its neighbour by hue alone.
_COLOURS = ("#1d4ed8", "#ea8a1a", "#0f766e", "#c084fc", "#7f1d1d", "#94a3b8")
_WIDTH, _HEIGHT = 460, 330  # of a panel, in pixels
_WIDE = 720  # of a panel with lines of any names
_LARGEST = 1e300  # beyond it, differences may be infinite
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 16, 46, 48  # margins around the plotting area


class Curves(Callback):
    """Draws the history so far to ``path``, an SVG file replaced in one step.

    seconds: how often at most, after an epoch; and when training ends. Drawing takes longer the
        more epochs there are.
    """

    def __init__(self, path: str | os.PathLike[str], seconds: float = 1.0) -> None:
        self.path = Path(path)
        self.seconds = seconds
        self._drawn = -math.inf

    def on_epoch_end(self, trainer: Trainer, record: dict[str, float]) -> None:
        """Draw the picture, if it is time."""
        if time.monotonic() - self._drawn >= self.seconds:
            self._draw(trainer)

    def on_fit_end(self, trainer: Trainer) -> None:
        """Draw the picture for the last time."""
        self._draw(trainer)

    def on_abort(self, trainer: Trainer, error: BaseException) -> None:
        """Draw the picture for the last time."""
        self._draw(trainer)

    def _draw(self, trainer: Trainer) -> None:
        write_atomically(self.path, draw_curves(trainer.history).encode())
        self._drawn = time.monotonic()


def draw_curves(history: Sequence[Record]) -> str:
    """The history of a Trainer as SVG: one panel for the loss and one for each metric.

    history: a dict for each epoch with "epoch", and "train_<name>" and "validation_<name>" for
        each figure. Values that are not finite are left out.
    """
    names = list(
        dict.fromkeys(
            key.partition("_")[2]
            for record in history
            for key in record
            if key.partition("_")[0] in _LINES
        )
    )
    width = _WIDTH * max(1, len(names))
    parts = _opening(width, f"Training curves, {len(history)} epoch" + "s" * (len(history) != 1))
    for i, name in enumerate(names):
        lines = {part: _points(history, f"{part}_{name}") for part in _LINES}
        parts += [f'<g transform="translate({i * _WIDTH} 0)">', *_panel(name, lines), "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _opening(width: int, title: str) -> list[str]:
    """How every picture begins."""
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {_HEIGHT}" width="{width}" '
        f'height="{_HEIGHT}" font-family="Helvetica, Arial, sans-serif" font-size="12" '
        'fill="#334155">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{_HEIGHT}" fill="#ffffff"/>',
    ]


def _title(text: str) -> str:
    return f'<text x="{_LEFT}" y="24" font-size="14" font-weight="bold">{escape(text)}</text>'


def _grid(right: float, heights: Mapping[float, str]) -> list[str]:
    """A line across at each height, with its label to the left of it."""
    return [
        part
        for y, label in heights.items()
        for part in (
            f'<path d="M{_LEFT} {y}H{right}" stroke="#e2e8f0"/>',
            f'<text x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">{label}</text>',
        )
    ]


def _axis(right: float) -> str:
    return f'<path d="M{_LEFT} {_HEIGHT - _BOTTOM}H{right}" stroke="#64748b"/>'


def _below(right: float, what: str) -> str:
    """The name of the axis."""
    return (
        f'<text x="{(_LEFT + right) / 2}" y="{_HEIGHT - 9}" text-anchor="middle">'
        f"{escape(what)}</text>"
    )


def _points(history: Sequence[Record], column: str) -> Points:
    """The epochs and values of one column, but for those that are not finite, or nearly not."""
    return [
        (record["epoch"], record[column])
        for record in history
        if column in record and abs(record[column]) <= _LARGEST
    ]


def _panel(name: str, lines: Mapping[str, Points]) -> list[str]:
    """The SVG elements of one panel."""
    points = [point for line in lines.values() for point in line] or [(1.0, 0.0)]
    last = max(x for x, _ in points)
    x_ticks = [x for x in ticks(1, max(last, 2), 8) if x == int(x)]
    y_ticks = ticks(min(y for _, y in points), max(y for _, y in points), 5)
    bottom, top = y_ticks[0], y_ticks[-1]
    right, floor = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def at(x: float, y: float) -> tuple[float, float]:
        """Where a point lies in the picture."""
        across = (x - 1) / max(last - 1, 1)
        return (
            round(_LEFT + across * (right - _LEFT), 2),
            round(floor - (y - bottom) / (top - bottom) * (floor - _TOP), 2),
        )

    parts = [_title(name), *_grid(right, {at(1, y)[1]: _label(y, y_ticks) for y in y_ticks})]
    for x in x_ticks:
        if 1 <= x <= max(last, 2):
            place = at(x, bottom)[0]
            parts += [
                f'<path d="M{place} {floor}v5" stroke="#64748b"/>',
                f'<text x="{place}" y="{floor + 19}" text-anchor="middle">{int(x)}</text>',
            ]
    parts += [_axis(right), _below(right, "epoch")]
    edge = right
    for part, line in reversed(list(lines.items())):
        if not line:
            continue
        colour = _LINES[part]
        path = " ".join(f"{a},{b}" for a, b in (at(x, y) for x, y in line))
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2" '
            'stroke-linejoin="round" stroke-linecap="round"/>'
        )
        if len(line) <= 12:
            parts += [
                f'<circle cx="{a}" cy="{b}" r="3" fill="{colour}"/>'
                for a, b in (at(x, y) for x, y in line)
            ]
        text = f"{part} {_short(line[-1][1])}"
        parts += [
            f'<text x="{edge}" y="24" text-anchor="end">{text}</text>',
            f'<path d="M{edge - 6.5 * len(text) - 22} 20h16" stroke="{colour}" stroke-width="3"/>',
        ]
        edge -= round(6.5 * len(text) + 36)
    return parts


def draw_lines(
    lines: Mapping[str, tuple[Any, Any]],
    title: str,
    across: str,
    dots: Mapping[str, tuple[Any, Any]] | None = None,
) -> str:
    """Lines through points, and points without lines, in one panel; returns SVG.

    lines, dots: of each name the numbers across and those upwards, as many; what is not finite is
    left out. title: what is seen. across: the name of the axis across. Raises TensorgradError if
    no point is finite, ShapeError if there are not as many numbers across as upwards.
    """
    paths = {name: _finite(name, *line) for name, line in lines.items()}
    marks = {name: _finite(name, *line) for name, line in (dots or {}).items()}
    points = [point for line in (*paths.values(), *marks.values()) for point in line]
    if not points:
        raise TensorgradError("draw_lines: there is no finite point to draw")
    x_ticks = ticks(min(x for x, _ in points), max(x for x, _ in points), 8)
    y_ticks = ticks(min(y for _, y in points), max(y for _, y in points), 5)
    right, floor = _WIDE - _RIGHT, _HEIGHT - _BOTTOM

    def at(x: float, y: float) -> tuple[float, float]:
        """Where a point lies in the picture."""
        along, up = ((v - t[0]) / (t[-1] - t[0]) for v, t in ((x, x_ticks), (y, y_ticks)))
        return round(_LEFT + along * (right - _LEFT), 2), round(floor - up * (floor - _TOP), 2)

    parts = [*_opening(_WIDE, title), _title(title)]
    parts += _grid(right, {at(x_ticks[0], y)[1]: _label(y, y_ticks) for y in y_ticks})
    for x in x_ticks:
        place = at(x, y_ticks[0])[0]
        parts += [
            f'<path d="M{place} {floor}v5" stroke="#64748b"/>',
            f'<text x="{place}" y="{floor + 19}" text-anchor="middle">{_label(x, x_ticks)}</text>',
        ]
    parts += [_axis(right), _below(right, across)]
    colours = dict(zip((*paths, *marks), cycle(_COLOURS)))
    for name, line in paths.items():
        path = " ".join(f"{a},{b}" for a, b in (at(x, y) for x, y in line))
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colours[name]}" stroke-width="1.6" '
            'stroke-linejoin="round"/>'
        )
    for name, line in marks.items():
        parts += [
            f'<circle cx="{a}" cy="{b}" r="2.4" fill="{colours[name]}"/>'
            for a, b in (at(x, y) for x, y in line)
        ]
    return "\n".join([*parts, *_legend(right, colours), "</svg>"]) + "\n"


def _finite(name: str, across: Any, up: Any) -> Points:
    x, y = (np.asarray(values, np.float64).ravel() for values in (across, up))
    if len(x) != len(y):
        raise ShapeError(f"draw_lines: {name} has {len(x)} numbers across and {len(y)} upwards")
    points = zip(x.tolist(), y.tolist())
    return [(a, b) for a, b in points if abs(a) <= _LARGEST and abs(b) <= _LARGEST]


def _legend(right: float, colours: Mapping[str, str]) -> list[str]:
    """The names, from the right, above the panel."""
    parts, edge = [], right
    for name, colour in reversed(list(colours.items())):
        parts += [
            f'<text x="{edge}" y="24" text-anchor="end">{escape(name)}</text>',
            f'<path d="M{edge - 6.5 * len(name) - 22} 20h16" stroke="{colour}" stroke-width="3"/>',
        ]
        edge -= round(6.5 * len(name) + 36)
    return parts


def draw_bars(
    names: Sequence[str],
    values: Sequence[float],
    errors: Sequence[float],
    figure: str,
    what: str,
) -> str:
    """Values side by side as SVG: a dot for each with its error bar, named below.

    values, errors: finite numbers, one for each name. figure: the name of the values. what: that
        of the names.
    """
    low = min(v - e for v, e in zip(values, errors))
    high = max(v + e for v, e in zip(values, errors))
    marks = ticks(low, high, 5)
    right, floor = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def height(value: float) -> float:
        """Where a value lies in the picture."""
        return round(floor - (value - marks[0]) / (marks[-1] - marks[0]) * (floor - _TOP), 2)

    parts = [*_opening(_WIDTH, figure), _title(figure)]
    parts += _grid(right, {height(mark): _label(mark, marks) for mark in marks})
    room = (right - _LEFT) / len(names)
    for i, (name, value, error) in enumerate(zip(names, values, errors)):
        x = round(_LEFT + (i + 0.5) * room, 2)
        parts += [
            f'<path d="M{x} {height(value - error)}V{height(value + error)}" '
            'stroke="#64748b" stroke-width="2"/>',
            f'<circle cx="{x}" cy="{height(value)}" r="4" fill="{_LINES["train"]}"/>',
            f'<text x="{x}" y="{floor + 19}" text-anchor="middle">{escape(name)}</text>',
        ]
    return "\n".join([*parts, _axis(right), _below(right, what), "</svg>"]) + "\n"


def draw_norms(rows: Sequence[Record]) -> str:
    """What ``GradientNorms`` noted as SVG: a line for each weight, on a logarithmic scale.

    rows: "step", and the norm of the gradient of each parameter; biases are left out.
    """
    names = [name for name in rows[0] if name != "step" and not name.endswith("bias")]
    lines = {
        name: [
            (row["step"], math.log10(row[name]))
            for row in rows
            if row.get(name, 0) > 0 and math.isfinite(row[name])
        ]
        for name in names
    }
    heights = [y for line in lines.values() for _, y in line] or [0.0]
    low, high = math.floor(min(heights)), math.ceil(max(heights) + 1e-9)
    width = 2 * _WIDTH - 200
    right, floor = width - 150, _HEIGHT - _BOTTOM
    first, last = rows[0]["step"], max(rows[-1]["step"], rows[0]["step"] + 1)

    def at(x: float, y: float) -> tuple[float, float]:
        """Where a point lies in the picture."""
        return (
            round(_LEFT + (x - first) / (last - first) * (right - _LEFT), 2),
            round(floor - (y - low) / max(high - low, 1) * (floor - _TOP), 2),
        )

    parts = [*_opening(width, "Gradient norms"), _title("norm of the gradient")]
    powers = range(low, high + 1, max(1, (high - low) // 8))
    parts += _grid(right, {at(first, power)[1]: f"1e{power}" for power in powers})
    for i, (name, line) in enumerate(lines.items()):
        share = i / max(len(lines) - 1, 1)
        colour = f"hsl({round(230 - 200 * share)} 75% 42%)"
        path = " ".join(f"{a},{b}" for a, b in (at(x, y) for x, y in line))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        if i < 18:
            y = _TOP + 14 * i
            parts += [
                f'<path d="M{right + 10} {y}h16" stroke="{colour}" stroke-width="3"/>',
                f'<text x="{right + 32}" y="{y + 4}">{escape(name)}</text>',
            ]
    parts += [
        _axis(right),
        f'<text x="{_LEFT}" y="{floor + 19}">{first:g}</text>',
        f'<text x="{right}" y="{floor + 19}" text-anchor="end">{last:g}</text>',
        _below(right, "step"),
    ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers, ``about`` as many, that reach from at most ``low`` to at least ``high``.

    They are multiples of 1, 2 or 5 times a power of ten.
    """
    size = max(abs(low), abs(high))
    if high - low <= 1e-9 * size or size < 1e-300:  # one value: room above and below it
        room = 0.1 * size if size >= 1e-300 else 0.5
        low, high = low - room, high + room
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def _label(value: float, values: Sequence[float]) -> str:
    """A tick's number, with as many decimals as the distance to its neighbour needs."""
    step = values[1] - values[0]
    if step >= 1e5 or step < 1e-4:
        return f"{value:.3g}"
    return f"{value:.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"


def _short(value: float) -> str:
    return f"{value:.4f}" if 1e-3 <= abs(value) < 1e3 else f"{value:.3g}"
