"""The picture of the curves: well-formed SVG whose lines go where the numbers say."""

from __future__ import annotations

import itertools
import math
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorgrad.errors import ShapeError, TensorgradError
from tensorgrad.training import draw_curves
from tensorgrad.training.curves import draw_lines, ticks

SVG = "{http://www.w3.org/2000/svg}"


def history(n: int) -> list[dict[str, float]]:
    """A run of n epochs."""
    return [
        {
            "epoch": i,
            "lr": 0.1,
            "train_loss": 2 / i,
            "validation_loss": 2.5 / i,
            "train_accuracy": 1 - 1 / (i + 1),
            "validation_accuracy": 0.9 - 0.9 / (i + 1),
            "seconds": 1.0,
        }
        for i in range(1, n + 1)
    ]


def lines(svg: str) -> list[list[tuple[float, float]]]:
    """The points of every curve in the picture."""
    found = []
    for element in ElementTree.fromstring(svg).iter(f"{SVG}polyline"):
        pairs = [point.split(",") for point in element.attrib["points"].split()]
        found.append([(float(x), float(y)) for x, y in pairs])
    return found


def texts(svg: str) -> list[str]:
    """All texts in the picture."""
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_one_panel_for_each_figure() -> None:
    """Loss and accuracy, each with a line for training and one for validation, and a legend."""
    svg = draw_curves(history(20))
    found = lines(svg)
    assert len(found) == 4
    assert all(len(line) == 20 for line in found)
    words = texts(svg)
    assert words.count("epoch") == 2
    assert "loss" in words
    assert "accuracy" in words
    assert "train 0.1000" in words
    assert "validation 0.1250" in words
    assert "seconds" not in svg
    assert "lr" not in words


def test_points_lie_where_the_values_are() -> None:
    """Epochs run from the left edge to the right, large values lie high."""
    validation, train = lines(draw_curves(history(10)))[:2]
    assert train[0][0] == 62
    assert train[-1][0] == 444
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in itertools.pairwise(train))
    assert all(v[1] < t[1] for v, t in zip(validation, train, strict=True))
    # Between two of the ticks 0, 0.5, ..., 2.5: 2 lies at 4/5 of the height from 282 up to 46.
    assert train[0][1] == pytest.approx(282 - 0.8 * (282 - 46))


@pytest.mark.parametrize(
    "records",
    [
        [],
        history(1),
        [{"epoch": 1, "train_loss": math.nan}, {"epoch": 2, "train_loss": 1.0}],
        [{"epoch": 1, "train_loss": math.inf}],
        [{"epoch": i, "train_loss": 0.0} for i in range(1, 4)],
        [{"epoch": 1, "train_a<b&c": 1e-12}, {"epoch": 2, "train_a<b&c": 1e12}],
    ],
    ids=["none", "one epoch", "nan", "only inf", "constant", "odd name and range"],
)
def test_is_well_formed_whatever_comes(records: Any) -> None:
    """No value breaks the picture, and none leaves it."""
    svg = draw_curves(records)
    for line in lines(svg):
        for x, y in line:
            assert 62 <= x <= 444
            assert 46 <= y <= 282
    assert "nan" not in svg
    assert "inf" not in svg


@given(
    st.floats(-1e9, 1e9),
    st.floats(1e-6, 1e9),
    st.integers(3, 9),
)
def test_ticks(low: float, span: float, about: int) -> None:
    """Round numbers that enclose the range, about as many as asked for."""
    high = low + span
    if high - low < 1e-9 * abs(low):
        return
    found = ticks(low, high, about)
    slack = (high - low) * 1e-6 + 1e-11
    assert found[0] <= low + slack
    assert found[-1] >= high - slack
    assert found == sorted(set(found))
    assert 2 <= len(found) <= about + 3
    assert found[0] > low - (found[1] - found[0]) - slack


def test_lines_and_dots_of_any_names() -> None:
    """Each goes through its points; what is not finite is left out, and every name is there."""
    svg = draw_lines(
        {"a": ([0, 1, 2], [0, 2, 4]), "b <": ([0, 1, 2], [1, math.nan, 3])},
        "of two", "time", {"seen": ([0.5, 1.5], [1, 3])},
    )  # fmt: skip
    first, second = lines(svg)
    assert [len(first), len(second)] == [3, 2]
    assert first[0][1] > first[1][1] > first[2][1]
    assert second[0][0] == first[0][0]
    dots = list(ElementTree.fromstring(svg).iter(f"{SVG}circle"))
    assert float(dots[0].attrib["cx"]) == pytest.approx((first[0][0] + first[1][0]) / 2, abs=0.02)
    assert float(dots[0].attrib["cy"]) == pytest.approx((first[0][1] + first[1][1]) / 2, abs=0.02)
    assert {"of two", "time", "a", "b <", "seen"} <= set(texts(svg))
    with pytest.raises(ShapeError, match="3 numbers across and 2"):
        draw_lines({"a": ([0, 1, 2], [0, 1])}, "x", "y")
    with pytest.raises(TensorgradError, match="no finite point"):
        draw_lines({"a": ([0], [math.nan])}, "x", "y")
