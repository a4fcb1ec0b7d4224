"""The computation graph of a tensor: as DOT, and as SVG laid out here."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from tensorgrad.autograd import grad
from tensorgrad.autograd.modes import _SetMode
from tensorgrad.autograd.walk import nodes_of
from tensorgrad.dtypes import COMPLEX
from tensorgrad.errors import GradientError, TensorgradError
from tensorgrad.files import write_atomically
from tensorgrad.observers import Mode, Observer
from tensorgrad.tape import Leaf, Node, Primitive
from tensorgrad.tensor import Tensor

if TYPE_CHECKING:
    from tensorgrad.nn import Module

_MOST = 2000  # entries that are drawn
_BOX, _ROW, _GAP = 150, 64, 24  # width of a box, distance of rows and of boxes, in pixels
_HEIGHT, _LINE = 40, 15  # of a box, and of a line more in it


@dataclass
class Vertex:
    """An entry of the tape, or a leaf: its name, the shape of its value, its gradient's norm.

    value: the number that it holds, or the least and the greatest; None if that was not noted.
    """

    name: str
    shape: tuple[int, ...]
    leaf: bool
    gradient: float | None = None  # the Euclidean norm; None if it is not known
    inputs: list[int] = field(default_factory=list)  # positions in Graph.vertices
    value: tuple[float, ...] | None = None


@dataclass
class Graph:
    """A computation graph: ``vertices`` in the order in which they were computed."""

    vertices: list[Vertex]

    def _text(self, vertex: Vertex) -> list[str]:
        shape = "x".join(map(str, vertex.shape)) or "scalar"
        lines = [vertex.name, shape]
        if vertex.gradient is not None:
            lines[1] += f"   |grad| {vertex.gradient:.3g}"
        if vertex.value is not None:
            lines.append(" to ".join(f"{number:.4g}" for number in vertex.value))
        return lines

    @property
    def dot(self) -> str:
        """The graph in Graphviz's language."""
        lines = ["digraph tape {", '  node [shape=box, fontname="Helvetica"];']
        for i, vertex in enumerate(self.vertices):
            text = "\\n".join(self._text(vertex)).replace('"', '\\"')
            style = ', style=filled, fillcolor="#dbe7ff"' if vertex.leaf else ""
            lines.append(f'  n{i} [label="{text}"{style}];')
        for i, vertex in enumerate(self.vertices):
            lines += [f"  n{k} -> n{i};" for k in vertex.inputs]
        return "\n".join([*lines, "}"]) + "\n"

    @property
    def svg(self) -> str:
        """The graph as a picture: inputs above, in rows by their distance from the leaves."""
        rows = self._rows()
        valued = any(vertex.value is not None for vertex in self.vertices)
        box, row_height = (_HEIGHT + _LINE, _ROW + _LINE) if valued else (_HEIGHT, _ROW)
        places: dict[int, tuple[float, float]] = {}
        width = max(len(row) for row in rows) * (_BOX + _GAP) + _GAP
        for depth, row in enumerate(rows):
            start = (width - len(row) * (_BOX + _GAP) + _GAP) / 2
            for k, i in enumerate(row):
                places[i] = start + k * (_BOX + _GAP), _GAP + depth * row_height
        height = len(rows) * row_height + _GAP
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" font-family="Helvetica, Arial, sans-serif" '
            'font-size="11" fill="#334155">',
            f"<title>Computation graph of {len(self.vertices)} entries</title>",
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        ]
        for i, vertex in enumerate(self.vertices):
            x, y = places[i]
            for k in vertex.inputs:
                a, b = places[k]
                parts.append(
                    f'<path d="M{a + _BOX / 2:.1f} {b + box}C{a + _BOX / 2:.1f} '
                    f"{b + row_height:.1f} {x + _BOX / 2:.1f} {y - row_height + box:.1f} "
                    f'{x + _BOX / 2:.1f} {y}" fill="none" stroke="#94a3b8"/>'
                )
        for i, vertex in enumerate(self.vertices):
            x, y = places[i]
            name, *others = self._text(vertex)
            colour = "#dbe7ff" if vertex.leaf else "#f8fafc"
            parts += [
                f'<rect x="{x:.1f}" y="{y}" width="{_BOX}" height="{box}" rx="4" '
                f'fill="{colour}" stroke="#64748b"/>',
                f'<text x="{x + _BOX / 2:.1f}" y="{y + 16}" text-anchor="middle" '
                f'font-weight="bold">{escape(name)}</text>',
                *(
                    f'<text x="{x + _BOX / 2:.1f}" y="{y + 16 + _LINE * k}" text-anchor="middle">'
                    f"{escape(text)}</text>"
                    for k, text in enumerate(others, 1)
                ),
            ]
        return "\n".join([*parts, "</svg>"]) + "\n"

    def _repr_svg_(self) -> str:
        return self.svg  # what a notebook shows

    def _rows(self) -> list[list[int]]:
        """Which vertices stand side by side, from left to right."""
        depth: list[int] = []
        users: list[list[int]] = [[] for _ in self.vertices]
        for i, vertex in enumerate(self.vertices):
            depth.append(1 + max((depth[k] for k in vertex.inputs), default=-1))
            for k in vertex.inputs:
                users[k].append(i)
        for i, vertex in enumerate(self.vertices):  # a leaf stands right above its first use
            if vertex.leaf and users[i]:
                depth[i] = min(depth[k] for k in users[i]) - 1
        rows: list[list[int]] = [[] for _ in range(max(depth) + 1)]
        for i, d in enumerate(depth):
            rows[d].append(i)
        # Below the middle of what they are computed from (Sugiyama, Tagawa and Toda, 1981).
        place = {i: float(k) for row in rows for k, i in enumerate(row)}
        for _ in range(4):
            for row in rows:
                row.sort(key=lambda i: _middle(place, self.vertices[i].inputs, i))
                place.update({i: float(k) for k, i in enumerate(row)})
            for row in reversed(rows):
                row.sort(key=lambda i: _middle(place, users[i], i))
                place.update({i: float(k) for k, i in enumerate(row)})
        return rows

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file ``path``, ``*.svg`` or ``*.dot``, in one step."""
        ending = Path(path).suffix
        if ending not in (".svg", ".dot"):
            raise TensorgradError(f"a graph is saved as .svg or .dot, not {Path(path).name!r}")
        write_atomically(path, (self.svg if ending == ".svg" else self.dot).encode())


def _middle(place: Mapping[int, float], neighbours: list[int], own: int) -> float:
    """Where a vertex should stand: in the middle of its neighbours."""
    if not neighbours:
        return place[own]
    return sum(place[k] for k in neighbours) / len(neighbours)


class _Gradients(Observer):
    """Notes the norm of the gradient that arrives at each entry."""

    def __init__(self) -> None:
        self.norms: dict[Node, float] = {}

    def differentiated(self, node: Node, rule: Any, saved: Any, g: Any, gradient: Any) -> None:
        """See Observer."""
        if node not in self.norms:
            self.norms[node] = _norm(g)


class _Values(Observer):
    """Notes the least and the greatest number of each result."""

    def __init__(self) -> None:
        self.found: dict[Node, tuple[float, ...]] = {}

    def computed(
        self, op: Primitive, inputs: Sequence[Any], attrs: Mapping[str, Any], out: Tensor
    ) -> None:
        """See Observer."""
        if out.node is not None:
            self.found[out.node] = _ends(out.data)


def _ends(data: Any) -> tuple[float, ...]:
    if data.dtype in COMPLEX or not data.size:
        return ()
    return (data.item(),) if data.size == 1 else (float(data.min()), float(data.max()))


class noted_values(_SetMode):
    """What is computed inside is noted, for ``draw_graph(..., values=...)`` to show it.

    Of each result the number, or the least and the greatest, are kept, and not the array.
    """

    def __init__(self) -> None:
        super().__init__()
        self._observer = _Values()

    def __enter__(self) -> noted_values:
        super().__enter__()
        return self

    def of(self, node: Node) -> tuple[float, ...] | None:
        """What an entry of the tape gave; None if it was not computed inside."""
        return self._observer.found.get(node) or None

    def _wanted(self, mode: Mode) -> Mode:
        return mode._replace(observers=(*mode.observers, self._observer))


def _norm(g: Any) -> float:
    data = getattr(g, "data", g) if isinstance(g, Tensor) else g
    return float((data.astype("float64") ** 2).sum() ** 0.5)


class _observed(_SetMode):
    def __init__(self, observer: Observer) -> None:
        super().__init__()
        self.observer = observer

    def _wanted(self, mode: Mode) -> Mode:
        return mode._replace(observers=(*mode.observers, self.observer))


def draw_graph(
    tensor: Tensor,
    model: Module | None = None,
    names: Mapping[str, Tensor] | None = None,
    gradients: bool = True,
    values: noted_values | None = None,
) -> Graph:
    """The graph that led to ``tensor``: what ``backward()`` would go through.

    model: whose parameters get their paths as names. names: further names of leaves.
    gradients: compute the gradient of the (summed) tensor by every entry, and show their norms;
        ``.grad`` is not touched.
    values: of ``with noted_values() as values:``, in which the tensor was computed: each entry
        shows its number, or its least and greatest.

    Call it before ``backward()``, which uses the graph up. ``graph.svg`` and ``graph.dot`` are
    texts, ``graph.save("step.svg")`` writes one.

    Raises GradientError for a tensor without a graph, or one that is used up; TensorgradError for
    more than 2,000 entries.
    """
    root = tensor.node
    if root is None:
        raise GradientError(
            "draw_graph: the tensor does not require a gradient, so it has no graph"
        )
    named = {**(names or {}), **({} if model is None else dict(model.named_parameters()))}
    known = {leaf.node: name for name, leaf in named.items() if leaf.node is not None}
    found = nodes_of([root], _MOST)
    if len(found) > _MOST:
        raise TensorgradError(f"draw_graph: more than {_MOST:,} entries; draw a part of them")
    if any(node.edges is None for node in found):
        raise GradientError(
            "draw_graph: backward() has used the graph up; draw it before, or pass "
            "retain_graph=True"
        )
    norms: dict[Node, float] = {}
    if gradients:
        norms = _norms(tensor, found)
    # Positions count downwards. Leaves come first.
    order = sorted(found, key=lambda n: (type(n) is not Leaf, -n.position))
    place = {node: i for i, node in enumerate(order)}
    vertices = []
    for node in order:
        is_leaf = type(node) is Leaf
        name = known.get(node, "leaf") if is_leaf else node.op.name
        inputs = [place[parent] for _, _, parent in node.edges or ()]
        value = None
        if values is not None:
            value = _ends(named[name].data) if node in known else values.of(node)
        vertices.append(Vertex(name, node.shape, is_leaf, norms.get(node), inputs, value or None))
    return Graph(vertices)


def _norms(tensor: Tensor, found: set[Node]) -> dict[Node, float]:
    observer = _Gradients()
    leaves = [node for node in found if type(node) is Leaf]
    stand_ins = []
    for leaf in leaves:  # grad() wants tensors, of which the tape knows the entries only
        stand_in = Tensor(0.0)
        stand_in.node = leaf
        stand_ins.append(stand_in)
    if not leaves:
        return {}
    with _observed(observer):
        total = tensor if tensor.size == 1 else tensor.sum()
        results = grad(total, stand_ins, retain_graph=True)
    norms = dict(observer.norms)
    for leaf, result in zip(leaves, results):
        norms[leaf] = _norm(result)
    if tensor.node is not None:
        norms.setdefault(tensor.node, 1.0)
    return norms
