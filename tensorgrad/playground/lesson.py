"""A lesson in five steps: what to look at, and the settings that show it."""

from __future__ import annotations

from typing import Any, NamedTuple


class Step(NamedTuple):
    """A step of the lesson: its title, what to do and to see, and its settings."""

    title: str
    text: str
    settings: dict[str, Any]


STEPS = (
    Step(
        "A perceptron cannot learn XOR",
        "There is no hidden layer: the output is a weighted sum of x and y, and so the boundary is "
        "a straight line. Press play: the loss stays near 0.5 and half of the points are wrong, "
        "whatever the learning rate. Add the feature xy, and one weight is enough.",
        {"data": "xor", "layers": [], "rate": 0.03, "speed": 250},
    ),
    Step(
        "A hidden layer can",
        "Four hidden units cut the plane by four lines, and the output puts the halves together. "
        "Press play and point at the units: each sees one line. Take two units, and press reset: "
        "two lines are not enough here, and the loss stops near 0.2.",
        {"data": "xor", "layers": [4], "rate": 0.1, "init_seed": 3, "speed": 1000},
    ),
    Step(
        "Too many units over-fit",
        "Few training points, much noise, many units: the training loss falls while the test loss "
        "rises, as the boundary winds around single points. Show the test data. Take fewer units, "
        "or more of the points for training, and the curves come together.",
        {"data": "circle", "noise": 50, "train_share": 10, "layers": [8, 8], "rate": 0.03,
         "optimizer": "momentum", "features": ["x", "y", "xy", "sinx", "siny"], "show_test": True,
         "speed": 1000},
    ),
    Step(
        "L2 helps",
        "The same data and the same network, but large weights cost something. The boundary is "
        "smoother and the test loss ends lower. Change the regularization rate while it runs: with "
        "too much of it the network learns nothing at all.",
        {"data": "circle", "noise": 50, "train_share": 10, "layers": [8, 8], "rate": 0.03,
         "optimizer": "momentum", "features": ["x", "y", "xy", "sinx", "siny"], "show_test": True,
         "regularization": "l2", "regularization_rate": 0.03, "speed": 1000},
    ),
    Step(
        "Sigmoid layers starve the first one",
        "Five layers of sigmoid units: look at the gradient norms. Each layer hands back at most a "
        "quarter of what it gets, so the first one hardly learns. Choose tanh or relu for the "
        "layers: the bars become equal, and the circle is learned.",
        {"data": "circle", "layers": [6, 6, 6, 6, 6], "activation": ["sigmoid"], "rate": 0.1,
         "speed": 1000},
    ),
)  # fmt: skip


def summary() -> list[dict[str, Any]]:
    """Number, title and text of each step, for the page."""
    return [
        {"number": k, "title": step.title, "text": step.text, "fragment": f"lesson={k}"}
        for k, step in enumerate(STEPS, 1)
    ]
