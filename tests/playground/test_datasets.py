"""The data of the playground: shapes, classes, shares, noise, drawn points and tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tensorgrad.playground import PlaygroundError, Settings, make_data
from tensorgrad.playground.tables import MOST_ROWS, read_table


def data(**values: Any) -> Any:
    return make_data(Settings().changed(values))


@pytest.mark.parametrize("name", ["circle", "xor", "gauss", "spiral"])
@pytest.mark.parametrize("classes", [2, 3, 8])
def test_all_classes_are_there_about_equally_often(name: str, classes: int) -> None:
    made = data(data=name, classes=classes, train_share=50)
    labels = np.concatenate([made.labels, made.test_labels])
    found, counts = np.unique(labels, return_counts=True)
    assert found.tolist() == ([-1, 1] if classes == 2 else list(range(classes)))
    assert len(labels) == 500
    assert counts.min() > 0.6 * 500 / classes
    assert made.points.dtype == made.labels.dtype == np.float32
    assert np.abs(np.concatenate([made.points, made.test_points])).max() <= 6


def test_what_the_shapes_are() -> None:
    circle, xor = data(), data(data="xor")
    assert ((np.hypot(*circle.points.T) < 2.5) == (circle.labels > 0)).all()
    assert ((xor.points.prod(axis=1) > 0) == (xor.labels > 0)).all()
    plane = data(data="plane")
    np.testing.assert_allclose(plane.labels, (plane.points.sum(axis=1) / 10).clip(-1, 1), atol=1e-6)
    assert np.abs(data(data="multi-gauss").labels).max() <= 1
    gauss = data(data="gauss")
    means = [gauss.points[gauss.labels == k].mean(axis=0) for k in (1, -1)]
    np.testing.assert_allclose(means, [[2, 2], [-2, -2]], atol=0.3)


def test_a_function_is_scaled_to_the_colours() -> None:
    made = data(data="function", function="x * y")
    np.testing.assert_allclose(made.labels, made.points.prod(axis=1) / 36, atol=1e-5)
    small = data(data="function", function="0.1 * x / 6")
    np.testing.assert_allclose(small.labels, small.points[:, 0] / 60, atol=1e-6)
    with pytest.raises(PlaygroundError, match="finite from -9 to 9; log"):
        data(data="function", function="log(x)")


@pytest.mark.parametrize("name", ["circle", "spiral", "plane"])
def test_noise_share_and_seed_mean_what_they_say(name: str) -> None:
    made = data(data=name, train_share=10)
    assert len(made.points) * 9 == len(made.test_points)
    again = data(data=name, train_share=10)
    assert all((a == b).all() for a, b in zip(made[:4], again[:4]))
    assert (data(data=name, train_share=10, seed=1).points != made.points).any()
    noisy = data(data=name, train_share=10, noise=50)
    assert (noisy.points != made.points).any() or (noisy.labels != made.labels).any()


def test_drawn_points_come_besides_and_never_change_their_part() -> None:
    drawn = [[k / 10, -k / 10, k % 2] for k in range(20)]
    whole = data(data="points", points=drawn, train_share=70)
    for count in range(1, 21):
        made = data(data="points", points=drawn[:count], train_share=70)
        assert abs(len(made.points) - count * 0.7) <= 1
        assert (whole.points[: len(made.points)] == made.points).all()
        assert len(data(data="points", points=drawn[:count], train_share=10).points) >= 1
    both = data(points=drawn, train_share=70)
    assert len(both.points) + len(both.test_points) == 520
    assert set(data(data="points", points=drawn, classes=3).labels) == {0, 1}


TABLE = "width,colour,length,weight\n" + "".join(
    f"{k / 4},{('red', 'green', 'blue')[k % 3]},{k * k},{k * 1.5 + 0.25}\n" for k in range(40)
)


def test_two_columns_of_a_table_are_the_plane_and_one_the_labels() -> None:
    table = read_table(TABLE, ["width", "length"], "colour")
    assert (table.classes, table.names) == (3, ("blue", "green", "red"))
    assert table.columns == ("width", "length", "colour")
    assert table.every == ("width", "colour", "length", "weight")
    np.testing.assert_allclose(
        [table.points.min(axis=0), table.points.max(axis=0)], [[-5, -5], [5, 5]]
    )
    numbers = read_table(TABLE)
    assert (numbers.classes, numbers.columns) == (1, ("width", "length", "weight"))
    assert (numbers.labels.min(), numbers.labels.max()) == (-1, 1)
    assert read_table(TABLE, [0, 2], 1).columns == table.columns
    settings = Settings().changed({"data": "csv"})
    with pytest.raises(PlaygroundError, match="needs a table"):
        make_data(settings)
    assert len(make_data(settings, table).points) == 20


@pytest.mark.parametrize(
    ("text", "columns", "target", "said"),
    [
        (None, None, None, "text must be"),
        (" \n", None, None, "text must be"),
        ("a,b\n1,2\n", None, None, "two columns of numbers"),
        ("a,b,c\n1,2,x\n1,2\n", None, None, "line 3 has 2 cells"),
        (TABLE, ["width", "size"], None, "there is no column 'size'"),
        (TABLE, ["width", "colour"], None, "features must be numbers"),
        (TABLE, ["width", "width"], None, "two names"),
        (TABLE, ["width", "weight"], "weight", "three different"),
        (TABLE, "width", None, "two names"),
        (TABLE, [0, 9], None, "there is no column 9"),
        (TABLE, None, "size", "there is no column"),
        (TABLE, [None, 1], None, "by name or position"),
        ("a,b,c\n" + "1,2,x\n1,3,y\n" * 9, None, None, "alone"),
        ("a,b,c\n" + "".join(f"{k},{k},k{k}\n" for k in range(20)), None, None, "2 to 8 classes"),
        ("1,2,3\n" * (MOST_ROWS + 2), None, None, "up to 10,000 rows; got 10,001"),
        ("1,2,3\n" * 1_000_000, None, None, "got 999,999"),
    ],
)
def test_other_tables_are_refused_in_a_line(
    text: Any, columns: Any, target: Any, said: str
) -> None:
    with pytest.raises(PlaygroundError) as error:
        read_table(text, columns, target)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert "/" not in str(error.value)  # no path of a temporary file
