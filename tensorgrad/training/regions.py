"""The decision regions of a classifier of points in the plane, as a picture (SVG text)."""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from itertools import groupby
from typing import Any

import numpy as np

from tensorgrad.autograd.modes import no_grad
from tensorgrad.errors import ShapeError
from tensorgrad.tensor import Tensor

#: Of the classes in turn: the region, and the points in it. They differ in lightness too.
_COLOURS = (
    ("#dbe7ff", "#1d4ed8"),
    ("#fde6c8", "#c2620a"),
    ("#d3f0e3", "#0f766e"),
    ("#f0dcf5", "#86198f"),
    ("#eceff3", "#475569"),
)
_SIDE = 400  # of the plotting area, in pixels
_MARGIN = 24


def draw_regions(
    model: Callable[[Tensor], Tensor],
    points: Any,
    labels: Any,
    *,
    resolution: int = 80,
    title: str = "Decision regions",
) -> str:
    """Which class ``model`` gives to each place around ``points``, with the points on top.

    model: from a float32 tensor (n, 2) to scores (n, classes), of which the largest decides, or
        to one logit (n, 1), which decides by its sign. Called once, without gradients.
    points: numbers, shape (n, 2). labels: the integer class of each, shape (n,).
    resolution: cells along each axis.
    Returns the SVG as text. The picture reaches a fifth beyond the points on each side.

    Raises ShapeError if the shapes are others.
    """
    places = np.asarray(points, np.float64)
    classes = np.asarray(labels)
    if places.ndim != 2 or places.shape[1] != 2 or classes.shape != places.shape[:1]:
        raise ShapeError(
            "draw_regions: points must have shape (n, 2) and labels (n,); got "
            f"{places.shape} and {classes.shape}"
        )
    low, high = places.min(axis=0), places.max(axis=0)
    room = 0.2 * np.where(high > low, high - low, 1.0)
    low, high = low - room, high + room
    middles = (np.arange(resolution) + 0.5) / resolution
    across, up = np.meshgrid(middles, middles[::-1])
    cells = low + np.stack([across.ravel(), up.ravel()], axis=1) * (high - low)
    regions = decisions(model, cells).reshape(resolution, resolution)

    total = _SIDE + 2 * _MARGIN
    size = _SIDE / resolution
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total} {total}" width="{total}" '
        f'height="{total}">',
        f"<title>{title}</title>",
        f'<rect width="{total}" height="{total}" fill="#ffffff"/>',
    ]
    for i, row in enumerate(regions):
        start = 0
        for number, run in groupby(row.tolist()):
            length = len(list(run))
            parts.append(
                f'<rect x="{_MARGIN + start * size:g}" y="{_MARGIN + i * size:g}" '
                f'width="{length * size:g}" height="{size:g}" shape-rendering="crispEdges" '
                f'fill="{_colour(number, 0)}"/>'
            )
            start += length
    for (x, y), number in zip((places - low) / (high - low), classes.tolist()):
        parts.append(
            f'<circle cx="{_MARGIN + x * _SIDE:.1f}" cy="{_MARGIN + (1 - y) * _SIDE:.1f}" r="6" '
            f'fill="{colour_of(number)}" stroke="#ffffff" stroke-width="1.5"/>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def decisions(model: Callable[[Tensor], Tensor], places: Any) -> Any:
    """The class that ``model`` gives to each of ``places`` (n, 2): integers (n,)."""
    with no_grad():
        scores = model(Tensor(places, dtype="float32")).cpu().numpy()
    if scores.ndim != 2 or len(scores) != len(places):
        raise ShapeError(
            f"draw_regions: the model must give scores of shape ({len(places)}, classes); got "
            f"{scores.shape}"
        )
    if scores.shape[1] == 1:
        return (scores[:, 0] > 0).astype(np.int64)
    return scores.argmax(axis=1)


def colour_of(number: int) -> str:
    """The colour of the points of a class, as #1d4ed8; each class has its own."""
    return _colour(number, 1)


def _colour(number: int, which: int) -> str:
    if number < len(_COLOURS):
        return _COLOURS[number][which]
    hue = number * 0.381966 % 1  # the golden section: far from those before
    shades = colorsys.hls_to_rgb(hue, (0.9, 0.36)[which], (0.6, 0.65)[which])
    return "#" + "".join(f"{round(255 * shade):02x}" for shade in shades)
