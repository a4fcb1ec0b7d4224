"""Columns as inputs: what is missing, categories, dates; and tables as spreadsheets write them."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tensorgrad.data import DataFileError, read_csv, table_examples
from tensorgrad.data.preparation import coded, columns_of, expanded, fitted, recoded


def written(folder: Path, text: str) -> Path:
    path = folder / "t.csv"
    path.write_text(text)
    return path


def prepared(columns: dict[str, Any], train: slice = slice(None)) -> tuple[Any, Any]:
    known = columns_of(columns)
    codes = coded(columns, known)
    fit = fitted(known, codes[train])
    return fit, expanded(fit, recoded(codes, known, fit))


def test_what_is_missing(tmp_path: Path) -> None:
    """NaN among numbers, the empty text among texts; infinities stay mistakes."""
    text = "a,b,t\n1,x,1\n,NA,2\nnan,y,3\n?,,4\n5,null,5\n"
    found = read_csv(written(tmp_path, text), missing=True)
    assert np.array_equal(found["a"], [1, np.nan, np.nan, np.nan, 5], equal_nan=True)
    assert found["b"].tolist() == ["x", "", "y", "", ""]
    path = written(tmp_path, "a,t\n1,2\n2,\n")
    with pytest.raises(DataFileError, match="line 3, column t: the cell is empty"):
        read_csv(path, missing=True, complete=["t"])
    with pytest.raises(DataFileError, match="line 4, column a: 'inf' is not a finite number"):
        read_csv(written(tmp_path, "a\n1\n2\ninf\n"), missing=True)


@pytest.mark.parametrize("separator", [";", "\t"])
def test_decimal_commas(tmp_path: Path, separator: str) -> None:
    """And points between thousands; among commas that part cells there are none."""
    text = "a;b;c\n1,5;1.234,5;x,y\n-2;7;z\n,25;1.000.000;z\n".replace(";", separator)
    found = read_csv(written(tmp_path, text))
    assert found["a"].tolist() == [1.5, -2, 0.25]
    assert found["b"].tolist() == [1234.5, 7, 1e6]
    assert found["c"].tolist() == ["x,y", "z", "z"]
    assert read_csv(written(tmp_path, 'a,b\n"1,5",2\n"2,5",3\n'))["a"].tolist() == ["1,5", "2,5"]


def test_lines_are_those_of_an_editor(tmp_path: Path) -> None:
    """That in which the row begins, where a cell before it takes two."""
    path = written(tmp_path, 'a,b\n"x\ny",1\n\nz,\n')
    with pytest.raises(DataFileError, match="line 5, column b"):
        read_csv(path)


def test_numbers_with_gaps_get_the_median_and_an_input_more() -> None:
    values = np.array([1.0, np.nan, 3.0, 100.0])
    (column,), inputs = prepared({"a": values}, slice(0, 3))
    assert (column.fill, column.inputs) == (2.0, ["a", "a missing"])
    assert inputs.tolist() == [[1, 0], [2, 1], [3, 0], [100, 0]]
    (whole,), inputs = prepared({"a": np.array([1.0, 2.0])})
    assert inputs.shape == (2, 1)
    with pytest.raises(ValueError, match="column 'a', row 2: nothing is there"):
        expanded((whole,), np.array([[1.0], [np.nan]]))


def test_categories_have_an_input_for_each_level_that_was_trained_on() -> None:
    """Others and missing ones are none of them."""
    texts = np.array(["red", "", "blue", "red", "green"])
    (column,), inputs = prepared({"c": texts}, slice(0, 4))
    assert column.inputs == ["c=blue", "c=red", "c missing"]
    assert inputs.tolist() == [[0, 1, 0], [0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 0, 0]]
    again = expanded((column,), coded({"c": np.array(["blue", "pink"])}, (column,)))
    assert again.tolist() == [[1, 0, 0], [0, 0, 0]]
    digits = columns_of({"c": np.array(["1", "x"])})
    assert coded({"c": np.array([1.0, 2.0])}, digits).ravel().tolist() == [0, -1]


def test_of_many_levels_the_most_frequent_are_taken() -> None:
    texts = np.array([f"once {i}" for i in range(70)] + ["often"] * 2)
    (column,), inputs = prepared({"c": texts})
    assert len(column.levels) == 50
    assert "often" in column.levels
    assert inputs.shape == (72, 50)


@pytest.mark.parametrize(
    ("texts", "dates"),
    [
        (["2026-11-30", "2025-01-02"], [(2026, 11, 30), (2025, 1, 2)]),
        (["30.11.2026", "2.1.2025"], [(2026, 11, 30), (2025, 1, 2)]),
        (["11/30/2026", "1/2/2025"], [(2026, 11, 30), (2025, 1, 2)]),
        (["30/11/2026", "2/1/2025"], [(2026, 11, 30), (2025, 1, 2)]),
        (["2026/11/30", "2025/1/2"], [(2026, 11, 30), (2025, 1, 2)]),
    ],
)
def test_dates_are_read_as_they_are_written(texts: list[str], dates: list[Any]) -> None:
    (column,), inputs = prepared({"d": np.array(texts)})
    assert column.kind == "date"
    assert column.inputs == ["d year", "d month", "d day", "d weekday"]
    alone = expanded((column,), coded({"d": np.array(texts[1:])}, (column,)))
    assert alone.tolist() == inputs[1:].tolist()  # the order is that of the whole column
    wanted = [[*date, datetime.date(*date).weekday()] for date in dates]
    assert inputs.tolist() == wanted


def test_parts_of_dates_that_vary() -> None:
    """Hours where there are some; a missing date is the median."""
    texts = ["2026-11-30T08:00:00Z", "2026-11-30 17:30", ""]
    (column,), inputs = prepared({"d": np.array(texts)})
    assert column.parts == ("hour", "minute")
    assert inputs[:, 2].tolist() == [0, 0, 1]
    assert inputs[2, 0] == 12
    with pytest.raises(ValueError, match="column 'd' must hold dates"):
        coded({"d": np.array(["soon"])}, (column,))


@pytest.mark.parametrize("texts", [["1/2/2025", "3/4/2025"], ["2026-13-01"], ["1.2.25"], [""]])
def test_no_dates(texts: list[str]) -> None:
    """Where day and month cannot be told apart, either; nor what is no day of a calendar."""
    assert columns_of({"d": np.array(texts)})[0].kind == "category"


def test_the_task_may_be_said() -> None:
    columns = {"a": np.arange(8.0), "t": np.array([0.0, 1, 2, 1] * 2)}
    assert table_examples(columns, task="regression").classes is None
    assert table_examples(columns, task="classification").classes == ("0", "1", "2")
    halves = {"a": np.arange(4.0), "t": np.array([0.5, 1.5, 0.5, 1.5])}
    assert table_examples(halves, task="classification").classes == ("0.5", "1.5")
    with pytest.raises(ValueError, match="must hold numbers"):
        table_examples({"a": np.arange(2.0), "t": np.array(["x", "y"])}, task="regression")
