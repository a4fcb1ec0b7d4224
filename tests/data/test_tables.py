"""CSV tables: columns, classes and numbers, and errors that name the line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorgrad.data import DataFileError, read_csv, read_npz, table_examples

VOWELS = Path(__file__).parents[3] / "shared/data/vowels"


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "table.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_columns(tmp_path: Path, separator: str) -> None:
    """Numbers and texts, quotes, spaces, a byte order mark, empty lines."""
    text = '\ufeffa, b ,"the name"\r\n1,2.5,"x y"\n\n-3,1e3,z\n'.replace(",", separator)
    found = read_csv(write(tmp_path, text))
    assert list(found) == ["a", "b", "the name"]
    assert found["a"].tolist() == [1, -3]
    assert found["b"].dtype == np.float64
    assert found["the name"].tolist() == ["x y", "z"]


def test_header_is_recognised_or_told(tmp_path: Path) -> None:
    """A first line without a number holds the names."""
    path = write(tmp_path, "1,cat\n2,dog\n")
    assert list(read_csv(path)) == ["0", "1"]
    path = write(tmp_path, "x,y\nred,cat\n")
    assert read_csv(path)["y"].tolist() == ["cat"]
    assert read_csv(path, header=False)["1"].tolist() == ["y", "cat"]
    assert read_csv(path, separator=";")["x,y"].tolist() == ["red,cat"]


TABLES: dict[str, tuple[str, dict[str, list[Any]]]] = {
    "separator in a quoted name": ('"a;b;c","d"\n1,2\n', {"a;b;c": [1], "d": [2]}),
    "other separator in a quoted name": ('"price, net";n\n1;2\n', {"price, net": [1], "n": [2]}),
    "separator in quoted cells": ('"a, b",c\n"x, y",1\n', {"a, b": ["x, y"], "c": [1]}),
    "line break in a quoted name": ('"a\n;;;",b\n1,2\n', {"a\n;;;": [1], "b": [2]}),
    "underscores": ("a,b\n1_0,2\n2_1,3\n", {"a": ["1_0", "2_1"], "b": [2, 3]}),
    "digits of another script": ("a\n١\n٢\n", {"a": ["١", "٢"]}),
    "names of no numbers": ("a\ninf\ninf\nfinite\n", {"a": ["inf", "inf", "finite"]}),
    "forms of numbers": ("a\n1.\n.5\n+2E1\n-3e-1\n", {"a": [1, 0.5, 20, -0.3]}),
    "labels 0 to F": ("a\n" + "\n".join("0123456789ABCDEF"), {"a": list("0123456789ABCDEF")}),
    "labels of digits and x": ("a\n" + "0\n1\n1\n2\nx\nx\n", {"a": ["0", "1", "1", "2", "x", "x"]}),
    "hexadecimal": ("a\n1E5\n10\n3F\nAA\n2B\n77\n", {"a": ["1E5", "10", "3F", "AA", "2B", "77"]}),
    "years": ("2019,2020,2021\n.1,.2,.3\n.4,.5,.6\n",
              {"2019": [0.1, 0.4], "2020": [0.2, 0.5], "2021": [0.3, 0.6]}),
    "years and a name": ("land,2019,2020\nA,1,2\nB,3,4\n",
                         {"land": ["A", "B"], "2019": [1, 3], "2020": [2, 4]}),
    "numbered columns and a name": ("id,1,2\n7,3,4\n8,5,6\n",
                                    {"id": [7, 8], "1": [3, 5], "2": [4, 6]}),
    "numbered columns": ("0,1,2\n.3,.4,.5\n", {"0": [0.3], "1": [0.4], "2": [0.5]}),
    "wavelengths": (",".join(f"{400 + i / 2}" for i in range(8)) + "\n" + ",".join("31415926"),
                    {f"{400 + i / 2}": [int("31415926"[i])] for i in range(8)}),
    "years as data": ("2019,2020\n2018,2017\n", {"0": [2019, 2018], "1": [2020, 2017]}),
    "counted data": ("0,1,2\n3,4,5\n", {"0": [0, 3], "1": [1, 4], "2": [2, 5]}),
    "index of pandas": (",a,b\n0,1,2\n1,3,4\n", {"a": [1, 3], "b": [2, 4]}),
    "index of a part": (",a,b\n57,1,2\n3,3,4\n", {"a": [1, 3], "b": [2, 4]}),
    "index and numbered columns": (",0,1\n0,5,6\n1,8,9\n", {"0": [5, 8], "1": [6, 9]}),
    "index read and written again": ("Unnamed: 0,a\n0,1\n1,3\n", {"a": [1, 3]}),
    "row names of R": ('"","a"\n"x",1\n"y",2\n', {"a": [1, 2]}),
    "separator at every end": ("a,b,\n1,2,\n3,4,\n", {"a": [1, 3], "b": [2, 4]}),
    "separators at the end of names": ("a,b,,\n1,2\n3,4\n", {"a": [1, 3], "b": [2, 4]}),
    "separator at the end of rows": ("a,b\n1,2,\n3,4,\n", {"a": [1, 3], "b": [2, 4]}),
    "empty column": ("a,,b\n1,,2\n3,,4\n", {"a": [1, 3], "b": [2, 4]}),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLES)
def test_what_is_in_a_table(tmp_path: Path, case: str) -> None:
    """Separators, numbers, labels, names and row numbers are told apart."""
    text, expected = TABLES[case]
    found = read_csv(write(tmp_path, text))
    assert {name: column.tolist() for name, column in found.items()} == expected


def test_columns_that_are_not_used_may_hold_anything(tmp_path: Path) -> None:
    """By name or position; what is named shows which line is the header."""
    path = write(tmp_path, "a,rooms,b,note\n1,,2,\n3,4,x,nan\n5,6,7,8\n")
    found = read_csv(path, columns=["a"])
    assert {name: column.tolist() for name, column in found.items()} == {"a": [1, 3, 5]}
    for columns, message in (
        (["rooms"], "line 2, column rooms: the cell is empty"),
        (["b"], "line 3, column b: 'x' is not"),
        ([-1], "line 2, column note"),
        (["c"], "no column 'c'; take one of a, rooms, b, note"),
        ([4], "no column 4"),
    ):
        with pytest.raises(DataFileError, match=message):
            read_csv(path, columns=columns)
    years = write(tmp_path, "1999,2005\n1,2\n1998,2001\n")
    assert list(read_csv(years)) == ["0", "1"]
    assert read_csv(years, columns=["2005"])["2005"].tolist() == [2, 2001]
    assert list(read_csv(write(tmp_path, "0,1,cat\n5,6,dog\n"), columns=["0", "1"])) == ["0", "1"]
    assert read_csv(path, columns=["0"], texts=["0"])["0"].tolist() == ["0", "5"]
    twice = write(tmp_path, "a,b,a\n1,2,3\n")
    assert read_csv(twice, columns=["b"])["b"].tolist() == [2]
    with pytest.raises(DataFileError, match="must differ"):
        read_csv(twice, columns=["a"])


@given(
    st.lists(
        st.tuples(st.floats(allow_nan=False, allow_infinity=False), st.integers(-5, 5)),
        min_size=1, max_size=8,
    )
)  # fmt: skip
def test_numbers_come_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[float, int]]
) -> None:
    """Python's shortest form of a float is read as the same float."""
    path = write(tmp_path_factory.mktemp("csv"), "a,b\n" + "\n".join(f"{a!r},{b}" for a, b in rows))
    found = read_csv(path)
    assert found["a"].tolist() == [a for a, _ in rows]
    assert found["b"].tolist() == [b for _, b in rows]


WRONG: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "there are no rows"),
    "names only": ("a,b\n", "there are no rows"),
    "ragged": ("a,b\n1,2\n3\n", "line 3 has 1 cells and line 1 has 2"),
    "equal names": ("a,a\n1,2\n", "must differ"),
    "no name": ("a,\nx,2\n", "must differ and not be empty"),
    "empty cell": ("a,b\n1,2\n,4\n", "line 3, column a: the cell is empty"),
    "text among numbers": ("a,b\n1,2\n3,4\nx,6\n", "line 4, column a: 'x' is not a finite number"),
    "mark of a missing number": ("a,b\n1,2\n3,4\nNA,5\nNA,6\n1,2\n", "line 4, column a: 'NA'"),
    "text in the first line": ("?,2\n3,4\n5,6\n", "line 1, column 0: '\\?' is not"),
    "beyond float64": ("a,b\n1,1e400\n2,3\n3,4\n", "line 2, column b: '1e400' is not a finite"),
    "longer than line 1": ("a,b\n1,2\n1,2,3\n", "line 1 has 2 cells and line 3 has 3"),
    "nan": ("a,b\n1,2\nnan,4\n", "line 3, column a: 'nan' is not a finite number"),
    "open quote": ('a,b\n1,"2\n', "line 2"),
    "not text": (b"\xff\xfe\x00a", "not a text in UTF-8"),
}


@pytest.mark.parametrize("case", WRONG)
def test_refused(tmp_path: Path, case: str) -> None:
    """With the file and the line."""
    text, message = WRONG[case]
    with pytest.raises(DataFileError, match=message) as caught:
        read_csv(write(tmp_path, text))
    assert str(tmp_path) in str(caught.value)


def test_examples_of_classes_and_numbers() -> None:
    """Texts and small whole numbers are classes; other targets are numbers."""
    columns = {"x": np.array([1.0, 2, 3]), "y": np.array([4.0, 5, 6]),
               "kind": np.array(["b", "a", "b"])}  # fmt: skip
    found = table_examples(columns)
    assert found.features == ("x", "y")
    assert found.classes == ("a", "b")
    assert found.targets.tolist() == [1, 0, 1]
    assert found.inputs.dtype == np.float32
    price = table_examples(columns, target="y", features=["x"])
    assert price.classes is None
    assert price.targets.shape == (3, 1)
    whole = {"x": np.arange(40.0), "digit": np.arange(40.0) % 10}
    assert table_examples(whole).classes == tuple("0123456789")
    assert table_examples({"x": np.arange(3.0), "t": np.array([0.0, 5, 7])}).classes is None
    given_classes = table_examples(columns, classes=["b", "a", "c"])
    assert given_classes.targets.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("values", "names", "labels"),
    [
        ([1234567.0, 7654321.0], ["1234567", "7654321"], [0, 1]),
        ([0.1, 1e-7], ["0.1", "1e-07"], [0, 1]),
        ([2.0**53 - 1, 3.0], ["9007199254740991", "3"], [0, 1]),
        (["1.0", "2"], ["1", "2"], [0, 1]),
        (["01", "1"], ["1", "01"], [1, 0]),
        (np.array(["b", "a"], object), ["a", "b"], [1, 0]),
        ([True, False], ["0", "1"], [1, 0]),
        (np.array([0.1, 0.2], np.float32), ["0.1", "0.2"], [0, 1]),
    ],
)
def test_classes_that_are_numbers_keep_their_digits(
    values: Any, names: list[str], labels: list[int]
) -> None:
    """Whatever their size; the names of the training data say which is which."""
    table = {"a": np.arange(2.0), "t": np.asarray(values)}
    assert table_examples(table, classes=names).targets.tolist() == labels


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": [1e39, 2], "t": [0.5, 1]}, "column 'a', row 1: 1e.39 is not a number that float32"),
        ({"a": [1.0, 2], "t": [0.5, -1e40]}, "column 't', row 2: -1e.40 is not"),
        ({"a": [1.0, np.nan], "t": [0.5, 1]}, "column 'a', row 2: nan is not"),
        ({"a": [1.0, 2, 3], "t": ["1%", "2%", "3.5%"]}, "3 different numbers with a sign or unit"),
        ({"a": [1.0, 2, 3], "t": ["$ 1,000", "$ 20", "$ 3"]}, "as '. 1,000'"),
        ({"a": [1.7e9, 1.7e9 + 30], "t": [0.5, 1]}, "column 'a': float32 cannot tell its numbers"),
        ({"a": [1.0, 2], "t": [1e16, 1e16 + 2]}, "column 't': float32 cannot tell its numbers"),
        ({"a": ["1 kg", "2 kg"], "t": [0.5, 1]}, "without signs or units"),
    ],
)
def test_numbers_that_are_none(columns: dict[str, Any], message: str) -> None:
    """Too large for float32, missing, with a sign or a unit."""
    with pytest.raises(ValueError, match=message):
        table_examples({name: np.array(column) for name, column in columns.items()})


def test_targets_that_are_known_to_be_numbers() -> None:
    """Even if few differ, as in a small test part."""
    table = {"a": np.arange(4.0), "t": np.array([1.0, 2, 1, 2])}
    assert table_examples(table).classes == ("1", "2")
    found = table_examples(table, classes=())
    assert found.classes is None
    assert found.targets.tolist() == [[1], [2], [1], [2]]
    with pytest.raises(ValueError, match="'t' must hold numbers, not texts, as 'x'"):
        table_examples({"a": np.arange(2.0), "t": np.array(["x", "y"])}, classes=())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "z"}, "there is no 'z'; the columns are x, kind"),
        ({"features": ["x", "w"]}, "there is no 'w'"),
        ({"features": ["kind"]}, "got target 'kind' and features kind"),
        ({"target": "x"}, "features must be numbers, but kind hold texts"),
        ({"classes": ["a"]}, "holds 'b', which is none of the classes a"),
    ],
)
def test_examples_refused(options: dict[str, list[str]], message: str) -> None:
    """With the columns that there are."""
    columns = {"x": np.array([1.0, 2, 3]), "kind": np.array(["b", "a", "b"])}
    with pytest.raises(ValueError, match=message):
        table_examples(columns, **options)  # type: ignore[arg-type]


@pytest.mark.skipif(not VOWELS.is_dir(), reason="the vowels are not there")
def test_vowels() -> None:
    """Real tables, with and without names in the first line."""
    found = table_examples(read_csv(VOWELS / "pb52.csv"), "vowel", ["f1", "f2"])
    assert found.inputs.shape == (1520, 2)
    assert found.classes is not None
    assert len(found.classes) == 10
    other = read_csv(VOWELS / "vowel-context.data")
    assert len(other) == 14
    assert len(other["0"]) == 990


def test_npz(tmp_path: Path) -> None:
    """Every layout and dtype comes back as it was."""
    arrays = {
        "c": np.arange(6.0).reshape(2, 3), "f": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "scalar": np.array(3.5, np.float32), "empty": np.zeros((0, 4), np.int8),
        "big": np.arange(3, dtype=">i4"), "text": np.array(["a", "long"]),
        "flag": np.array([True, False]),
    }  # fmt: skip
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "x.npz", **arrays)  # type: ignore[arg-type]
        found = read_npz(tmp_path / "x.npz")
        assert list(found) == list(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array)
            assert found[name].shape == array.shape
            assert found[name].dtype == array.dtype.newbyteorder("=")
            assert found[name].flags.writeable


def test_whole_numbers_that_floats_cannot_tell_apart(tmp_path: Path) -> None:
    """Are refused where that leaves one number of a column; equal ones are not."""
    path = tmp_path / "t.csv"
    path.write_text(f"a,b\n{10**25 + 75},1\n{10**25 + 56},2\n")
    with pytest.raises(DataFileError, match=r"line 3, column a: .* cannot be told from"):
        read_csv(path)
    path.write_text(f"a,b\n{10**25},1\n{10**25},2\n")
    assert read_csv(path)["a"].tolist() == [1e25, 1e25]
