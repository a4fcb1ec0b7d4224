"""Pictures: curves, gradient norms, weights, activations, regions, confusion, graphs.

The plots are matplotlib figures, which is imported when the first is made; pass ``ax=`` to draw
into axes of your own. What begins with ``draw_`` needs no library. Everything saves with
``figure.savefig(path)`` or ``graph.save(path)``.
"""

from tensorgrad.training.curves import draw_curves, draw_lines
from tensorgrad.training.regions import draw_regions
from tensorgrad.viz.graph import Graph, draw_graph, noted_values
from tensorgrad.viz.pictures import draw_pictures
from tensorgrad.viz.plots import (
    plot_activations,
    plot_confusion,
    plot_gradient_norms,
    plot_history,
    plot_regions,
    plot_weights,
)

__all__ = [
    "Graph", "draw_curves", "draw_graph", "draw_lines", "draw_pictures", "draw_regions",
    "noted_values", "plot_activations", "plot_confusion", "plot_gradient_norms", "plot_history",
    "plot_regions", "plot_weights",
]  # fmt: skip
