"""Plots with matplotlib, which is imported on use."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tensorgrad.autograd.modes import no_grad
from tensorgrad.errors import ShapeError, TensorgradError
from tensorgrad.nn import Module
from tensorgrad.tensor import Tensor

Record = Mapping[str, float]


def _new_figure(rows: int, columns: int, width: float, height: float) -> tuple[Any, Any]:
    """A figure that belongs to nobody's window, and its axes [rows, columns]."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise TensorgradError(
            "plots are drawn by matplotlib, which is not installed; pip install matplotlib"
        ) from error
    figure = Figure((width * columns, height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _axes(ax: Any, width: float = 6.0, height: float = 4.0) -> tuple[Any, Any]:
    if ax is not None:
        return ax.figure, ax
    figure, axes = _new_figure(1, 1, width, height)
    return figure, axes[0, 0]


def plot_history(history: Sequence[Record]) -> Any:
    """The loss and every metric over the epochs, training and validation; a matplotlib Figure.

    history: that of a Trainer. Raises TensorgradError if it is empty, or without matplotlib.
    """
    names = list(
        dict.fromkeys(
            key.partition("_")[2]
            for record in history
            for key in record
            if key.startswith(("train_", "validation_"))
        )
    )
    if not names:
        raise TensorgradError("plot_history: the history is empty; train first")
    figure, axes = _new_figure(1, len(names), 5.0, 3.6)
    for ax, name in zip(axes[0], names):
        for part in ("train", "validation"):
            points = [(r["epoch"], r[f"{part}_{name}"]) for r in history if f"{part}_{name}" in r]
            if points:
                ax.plot(*zip(*points), label=part)
        ax.set(title=name, xlabel="epoch")
        ax.grid(alpha=0.3)
        ax.legend()
    return figure


def plot_gradient_norms(
    rows: Sequence[Record] | Mapping[str, Sequence[Record]], ax: Any = None
) -> Any:
    """The norms that ``GradientNorms`` noted, one line for each weight; a matplotlib Figure.

    rows: ``GradientNorms.rows``; or several of them by name, as {"sigmoid": ..., "ReLU": ...},
        which are drawn side by side with one scale (lectures, D10).
    """
    groups = rows if isinstance(rows, Mapping) else {"": rows}
    if ax is not None and len(groups) > 1:
        raise TensorgradError("plot_gradient_norms: several groups need axes of their own; no ax=")
    if ax is None:
        figure, axes = _new_figure(1, len(groups), 5.0, 3.8)
    else:
        figure, axes = ax.figure, np.array([[ax]])
    for place, (title, own) in zip(axes[0], groups.items()):
        names = [n for n in (own[0] if own else ()) if n != "step" and not n.endswith("bias")]
        for i, name in enumerate(names):
            shade = 0.15 + 0.8 * i / max(len(names) - 1, 1)
            place.plot(
                [r["step"] for r in own], [max(r[name], 1e-30) for r in own], label=name,
                color=(0.1, 0.2 + 0.5 * shade, 1 - 0.8 * shade),
            )  # fmt: skip
        place.set(title=title, xlabel="step", ylabel="norm of the gradient", yscale="log")
        place.grid(alpha=0.3)
        place.legend(fontsize="x-small", ncols=1 + len(names) // 12)
    low = min(ax.get_ylim()[0] for ax in axes[0])
    high = max(ax.get_ylim()[1] for ax in axes[0])
    for place in axes[0]:
        place.set_ylim(low, high)
    return figure


def plot_weights(weight: Any, shape: tuple[int, int], columns: int = 8, most: int = 64) -> Any:
    """The weights of each unit as a picture, dark below 0 and bright above; a matplotlib Figure.

    weight: [units, inputs], as ``Linear.weight``. shape: (height, width) of a picture, of
    ``inputs`` pixels together. most: units that are drawn.

    Raises ShapeError if the inputs do not fill the shape.
    """
    values = np.asarray(weight.detach().cpu().numpy() if isinstance(weight, Tensor) else weight)
    if values.ndim != 2 or values.shape[1] != math.prod(shape):
        raise ShapeError(
            f"plot_weights: the weight must have shape (units, {math.prod(shape)}) to give "
            f"pictures of {shape}; got {values.shape}"
        )
    values = values[:most]
    columns = min(columns, len(values))
    figure, axes = _new_figure(-(-len(values) // columns), columns, 1.5, 1.6)
    limit = float(np.abs(values).max()) or 1.0
    for ax in axes.flat:
        ax.set_axis_off()
    for i, (ax, row) in enumerate(zip(axes.flat, values)):
        ax.imshow(row.reshape(shape), cmap="gray", vmin=-limit, vmax=limit)
        ax.set_title(str(i), fontsize="small")
    return figure


def plot_activations(model: Module, x: Any, bins: int = 50) -> Any:
    """How the outputs of each module are distributed for the inputs ``x``; a matplotlib Figure.

    One panel for each module without modules in it, in the order in which they are called, with
    the share of outputs that are 0. The model is run once, in the mode it is in.
    """
    found: list[tuple[str, np.ndarray[Any, Any]]] = []
    names = {id(module): name for name, module in model.named_modules()}

    def note(module: Module, args: Any, output: Any) -> None:
        """Keep the output of a module."""
        if isinstance(output, Tensor):
            found.append((names[id(module)], output.detach().cpu().float().numpy().ravel()))

    leaves = [module for module in model.modules() if not any(True for _ in module.children())]
    handles = [module.register_forward_hook(note) for module in leaves]
    try:
        with no_grad():
            model(x if isinstance(x, Tensor) else Tensor(x))
    finally:
        for handle in handles:
            handle.remove()
    if not found:
        raise TensorgradError("plot_activations: the model called no module")
    columns = min(4, len(found))
    figure, axes = _new_figure(-(-len(found) // columns), columns, 3.2, 2.4)
    for ax in axes.flat[len(found) :]:
        ax.set_axis_off()
    for ax, (name, values) in zip(axes.flat, found):
        ax.hist(values, bins=bins)
        ax.set_title(f"{name or 'model'}: {(values == 0).mean() * 100:.0f} % are 0", fontsize=9)
        ax.set_yticks([])
    return figure


def plot_regions(
    model: Callable[[Tensor], Tensor],
    points: Any,
    labels: Any,
    classes: Sequence[str] | None = None,
    resolution: int = 200,
    ax: Any = None,
) -> Any:
    """Which class ``model`` gives to each place in the plane, with the points; a Figure.

    model: from a float32 tensor (n, 2) to scores (n, classes), or one logit (n, 1).
    points: [n, 2]. labels: their classes, [n]. Raises ShapeError for other shapes.
    """
    from tensorgrad.training.regions import decisions

    places, kinds = np.asarray(points, np.float64), np.asarray(labels)
    if places.ndim != 2 or places.shape[1] != 2 or kinds.shape != places.shape[:1]:
        raise ShapeError(
            "plot_regions: points must have shape (n, 2) and labels (n,); got "
            f"{places.shape} and {kinds.shape}"
        )
    low, high = places.min(0), places.max(0)
    room = 0.1 * np.where(high > low, high - low, 1.0)
    low, high = low - room, high + room
    across, up = (np.linspace(low[k], high[k], resolution) for k in range(2))
    grid = np.stack(np.meshgrid(across, up), axis=2).reshape(-1, 2)
    regions = decisions(model, grid).reshape(resolution, resolution)
    figure, ax = _axes(ax, 6.0, 5.0)
    count = int(max(regions.max(), kinds.max())) + 1
    ax.imshow(
        regions, origin="lower", extent=(low[0], high[0], low[1], high[1]), aspect="auto",
        cmap="tab20" if count > 10 else "tab10", alpha=0.35, vmin=-0.5, vmax=max(count, 10) - 0.5,
    )  # fmt: skip
    for k in range(count):
        own = places[kinds == k]
        if len(own):
            name = str(k) if classes is None else classes[k]
            ax.scatter(own[:, 0], own[:, 1], s=12, label=name, edgecolors="white", linewidths=0.3,
                       cmap=None, color=_colour(k, count))  # fmt: skip
    ax.legend(fontsize="small", loc="upper right", ncols=1 + count // 8)
    return figure


def _colour(k: int, count: int) -> Any:
    from matplotlib import colormaps

    return colormaps["tab20" if count > 10 else "tab10"](k)


def plot_confusion(matrix: Any, classes: Sequence[str] | None = None, ax: Any = None) -> Any:
    """A confusion matrix [classes, classes], rows the right classes; a matplotlib Figure.

    Shaded by the share of each row. Raises ShapeError unless it is square.
    """
    counts = np.asarray(matrix)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise ShapeError(f"plot_confusion: the matrix must be square; got shape {counts.shape}")
    n = len(counts)
    names = [str(k) for k in range(n)] if classes is None else list(classes)
    side = max(3.5, 0.5 * n + 1.5)
    figure, ax = _axes(ax, side, side)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    ax.set_xticks(range(n), names, rotation=90 if max(map(len, names)) > 3 else 0)
    ax.set_yticks(range(n), names)
    ax.set(xlabel="predicted", ylabel="right")
    for i in range(n):
        for j in range(n):
            if counts[i, j]:
                colour = "white" if shares[i, j] > 0.5 else "black"
                text = str(int(counts[i, j]))
                ax.text(j, i, text, ha="center", va="center", fontsize="small", color=colour)
    return figure
