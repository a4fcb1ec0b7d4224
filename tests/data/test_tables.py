"""CSV tables: columns, classes and numbers, and errors that name the line."""

from __future__ import annotations

from pathlib import Path

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
