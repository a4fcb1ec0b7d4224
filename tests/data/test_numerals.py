"""The convention of a table's numbers is one for all its columns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tensorgrad.data import read_csv
from tensorgrad.data.numerals import with_points


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("a;b\n1.234;8,5", (1234, 8.5)),  # a decimal comma elsewhere
        ("a;b\n1.234;8.000,50", (1234, 8000.5)),
        ("a;b\n1.234;1.000.000", (1234, 1e6)),  # points between thousands elsewhere
        ("a;b\n1,234;8.5", (1234, 8.5)),  # a decimal point elsewhere
        ("a;b\n1,234;0.125", (1234, 0.125)),
        ("a;b\n1.234;5", (1.234, 5)),  # nothing shows it
        ("a;b\n1,234;5", (1.234, 5)),
        ("a;b\n1.234;5,678", (1234, 5.678)),
        ("a;b;c\n1.234;5.5;7,5", (1.234, 5.5, 7.5)),  # contradiction
        ("a,b\n1.234,8.5", (1.234, 8.5)),
        ("a;b\n-1.234;+0,5", (-1234, 0.5)),
    ],
)
def test_the_sign_is_that_of_the_table(
    tmp_path: Path, lines: str, expected: tuple[float, ...]
) -> None:
    (tmp_path / "t.csv").write_text(lines + "\n")
    found = read_csv(tmp_path / "t.csv")
    np.testing.assert_array_equal([column[0] for column in found.values()], expected)


def test_what_is_said() -> None:
    """Of numbers that may be read in two ways; nothing of others."""

    def said(*rows: list[str]) -> str:
        return " ".join(with_points(Path("t"), rows, range(9), ";", None, [0, 1]).notes)

    assert "1.234 in column a is 1234" in said(["a", "b"], ["1.234", "0,5"])
    assert "may be 1.234 or 1234: nothing in the table shows it; taken as 1.234" in said(
        ["a", "b"], ["1.234", "5"]
    )
    assert "columns contradict" in said(["a", "b", "c"], ["1.234", "5,5", "7.5"])
    assert not said(["a", "b"], ["1.234,5", "0,5"])
    assert not said(["a", "b"], ["1234", "0.5"])
