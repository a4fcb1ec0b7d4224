"""Pictures: plots are drawn of what they are given, and graphs of what the tape holds."""

from __future__ import annotations

import itertools
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import Tensor, nn, viz
from tensorgrad.errors import GradientError, ShapeError, TensorgradError
from tensorgrad.nn import functional

HISTORY = [
    {"epoch": e, "lr": 0.1, "train_loss": 1 / e, "validation_loss": 1.1 / e, "train_f1": e / 9}
    for e in range(1, 9)
]


@pytest.fixture
def _matplotlib() -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib")


def saved(figure: Any, tmp_path: Path) -> bytes:
    figure.savefig(tmp_path / "x.png")
    return (tmp_path / "x.png").read_bytes()


@pytest.mark.usefixtures("_matplotlib")
def test_history(tmp_path: Path) -> None:
    """A panel for each figure, a line for each part that has it."""
    figure = viz.plot_history(HISTORY)
    assert [ax.get_title() for ax in figure.axes] == ["loss", "f1"]
    assert [len(ax.lines) for ax in figure.axes] == [2, 1]
    assert figure.axes[0].lines[0].get_ydata()[3] == 0.25
    assert saved(figure, tmp_path).startswith(b"\x89PNG")
    with pytest.raises(TensorgradError, match="train first"):
        viz.plot_history([])


@pytest.mark.usefixtures("_matplotlib")
def test_gradient_norms(tmp_path: Path) -> None:
    """Side by side on one scale; a norm of 0 is drawn too."""
    rows = [{"step": s, "0.weight": 10.0**-s, "0.bias": 1.0, "2.weight": 0.0} for s in range(1, 5)]
    figure = viz.plot_gradient_norms({"sigmoid": rows, "ReLU": rows})
    assert [ax.get_title() for ax in figure.axes] == ["sigmoid", "ReLU"]
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()
    assert len(figure.axes[0].lines) == 2
    saved(figure, tmp_path)
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    assert viz.plot_gradient_norms(rows, ax=ax) is ax.figure
    with pytest.raises(TensorgradError, match="no ax="):
        viz.plot_gradient_norms({"a": rows, "b": rows}, ax=ax)


@pytest.mark.usefixtures("_matplotlib")
def test_weights(tmp_path: Path) -> None:
    """One picture for each unit (E2), with one scale for all."""
    weight = Tensor(np.arange(5 * 12, dtype=np.float32).reshape(5, 12), requires_grad=True)
    figure = viz.plot_weights(weight, (3, 4), columns=3)
    pictures = [ax.images[0].get_array() for ax in figure.axes if ax.images]
    assert len(pictures) == 5
    assert pictures[1].shape == (3, 4)
    assert pictures[1][0, 0] == 12
    saved(figure, tmp_path)
    with pytest.raises(ShapeError, match=r"must have shape \(units, 12\)"):
        viz.plot_weights(np.zeros((5, 13)), (3, 4))


@pytest.mark.usefixtures("_matplotlib")
def test_activations(tmp_path: Path) -> None:
    """A panel for each module that computes; the model is left as it was."""
    tg.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 50), nn.Sequential(nn.ReLU(), nn.Linear(50, 2)))
    figure = viz.plot_activations(model, np.random.default_rng(0).normal(size=(40, 4)))
    titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
    assert [t.partition(":")[0] for t in titles] == ["0", "1.0", "1.1"]
    share = float(titles[1].split()[1])
    assert 30 < share < 70
    assert all(m._hooks is None for m in model.modules())
    saved(figure, tmp_path)


@pytest.mark.usefixtures("_matplotlib")
def test_regions_and_confusion(tmp_path: Path) -> None:
    """E3 and D11: regions of the plane; counts with the names of the classes."""
    points = np.array([[0, 0], [0, 1], [1, 0], [1, 1.0]])

    def model(x: Tensor) -> Tensor:
        return tg.stack([x[:, 0], x[:, 1]], axis=1)

    figure = viz.plot_regions(model, points, [0, 1, 0, 1], ["right", "upper"], resolution=20)
    regions = figure.axes[0].images[0].get_array()
    assert regions.shape == (20, 20)
    assert regions[0, 19] == 0
    assert regions[19, 0] == 1
    saved(figure, tmp_path)
    with pytest.raises(ShapeError, match="plot_regions"):
        viz.plot_regions(model, points[:, :1], [0, 1, 0, 1])
    figure = viz.plot_confusion([[3, 1], [0, 5]], ["cat", "dog"])
    assert [text.get_text() for text in figure.axes[0].texts] == ["3", "1", "5"]
    saved(figure, tmp_path)
    with pytest.raises(ShapeError, match="square"):
        viz.plot_confusion([[1, 2]])


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names what to install; importing viz needs nothing."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(TensorgradError, match="pip install matplotlib"):
        viz.plot_history(HISTORY)


# --- the computation graph ------------------------------------------------------------------------


def network() -> tuple[nn.Sequential, Tensor]:
    tg.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    x = Tensor(np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32))
    return model, functional.cross_entropy(model(x), Tensor(np.array([0, 1, 1, 0, 1])))


def test_graph() -> None:
    """Names, shapes, edges, and the gradients that backward would give."""
    model, loss = network()
    graph = viz.draw_graph(loss, model)
    names = [v.name for v in graph.vertices]
    assert names == ["0.weight", "0.bias", "2.weight", "2.bias", "linear", "tanh", "linear",
                     "cross_entropy"]  # fmt: skip
    assert graph.vertices[6].shape == (5, 2)
    assert sorted(graph.vertices[6].inputs) == [2, 3, 5]
    assert all(p.grad is None for p in model.parameters())
    loss.backward()
    for vertex, p in zip(graph.vertices, model.parameters(), strict=False):
        assert p.grad is not None
        assert vertex.gradient == pytest.approx(float(np.linalg.norm(p.grad.numpy())), rel=1e-5)
    assert graph.vertices[7].gradient == 1
    with pytest.raises(GradientError, match="used the graph up"):
        viz.draw_graph(loss)


def test_graph_as_dot_and_svg(tmp_path: Path) -> None:
    """Both name every vertex; the picture has a box for each, none over another."""
    model, loss = network()
    graph = viz.draw_graph(loss, model)
    assert graph.dot.count("->") == 7
    assert 'label="tanh\\n5x3' in graph.dot
    root = ElementTree.fromstring(graph.svg)
    space = "{http://www.w3.org/2000/svg}"
    boxes = [
        (float(r.get("x", 0)), float(r.get("y", 0)))
        for r in root.iter(f"{space}rect")
        if r.get("rx")
    ]
    assert len(boxes) == len(set(boxes)) == 8
    for i, (x, y) in enumerate(boxes):
        for a, b in boxes[:i]:
            assert abs(x - a) >= 150 or abs(y - b) >= 40
    texts = [t.text for t in root.iter(f"{space}text")]
    assert "cross_entropy" in texts
    graph.save(tmp_path / "g.svg")
    graph.save(tmp_path / "g.dot")
    assert (tmp_path / "g.svg").read_text() == graph.svg
    with pytest.raises(TensorgradError, match="a graph is saved as"):
        graph.save(tmp_path / "g.png")


def test_values_that_were_noted_stand_in_the_graph() -> None:
    """A number, or the least and the greatest; none for what was computed before."""
    x = Tensor([1.0, 2.0, 4.0], requires_grad=True)
    early = x * 2.0
    with viz.noted_values() as values:
        late = early + 1.0
        total = late.sum()
    graph = viz.draw_graph(total, names={"x": x}, values=values)
    assert [v.value for v in graph.vertices] == [(1.0, 4.0), None, (3.0, 9.0), (17.0,)]
    assert "3 to 9" in graph.svg
    assert "17" in graph.dot
    root = ElementTree.fromstring(graph.svg)
    boxes = [r for r in root.iter("{http://www.w3.org/2000/svg}rect") if r.get("rx")]
    tops = sorted(float(r.get("y", 0)) for r in boxes)
    assert all(b - a > float(boxes[0].get("height", 0)) for a, b in itertools.pairwise(tops))
    assert [v.value for v in viz.draw_graph(total, names={"x": x}).vertices] == [None] * 4


def test_graph_of_a_fan_and_of_names() -> None:
    """A value used twice is one vertex; leaves have the names they are given."""
    x = Tensor([1.0, 2.0], requires_grad=True)
    y = x.exp()
    graph = viz.draw_graph(y * y + x, names={"input <1>": x}, gradients=False)
    assert [v.name for v in graph.vertices] == ["input <1>", "exp", "multiply", "add"]
    assert graph.vertices[2].inputs == [1, 1]
    assert graph.vertices[0].gradient is None
    assert "input &lt;1&gt;" in graph.svg
    with pytest.raises(GradientError, match="no graph"):
        viz.draw_graph(Tensor(1.0))
    z = x
    for _ in range(2001):
        z = z + 1.0
    with pytest.raises(TensorgradError, match="more than 2,000"):
        viz.draw_graph(z)
