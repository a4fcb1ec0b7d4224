"""Tables in files that libraries read: the columns are those of the same table as CSV."""

from __future__ import annotations

import datetime
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tensorgrad.data import DataFileError, read_csv, read_table
from tensorgrad.errors import TensorgradError

CSV = "size,kind,day,sold\n1.5,a,2026-11-30,1\n,b,2025-01-02,0\n3,,2024-02-29,1\n"
VALUES: dict[str, list[Any]] = {
    "size": [1.5, None, 3.0],
    "kind": ["a", "b", None],
    "day": [datetime.date(2026, 11, 30), datetime.date(2025, 1, 2), datetime.date(2024, 2, 29)],
    "sold": [True, False, True],
}

# A sheet, as small as one may be: texts lie in the cells, so that there are no further parts.
PARTS = {
    "[Content_Types].xml": (
        '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.'
        'relationships+xml"/><Default Extension="xml" ContentType="application/xml"/></Types>'
    ),
    "_rels/.rels": (
        '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
        '<Relationship Id="r1" Type="http://schemas.openxmlformats.org/officeDocument/2006/'
        'relationships/officeDocument" Target="xl/workbook.xml"/></Relationships>'
    ),
    "xl/_rels/workbook.xml.rels": (
        '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
        '<Relationship Id="r1" Type="http://schemas.openxmlformats.org/officeDocument/2006/'
        'relationships/worksheet" Target="worksheets/sheet1.xml"/></Relationships>'
    ),
    "xl/workbook.xml": (
        '<workbook xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main" '
        'xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships">'
        '<sheets><sheet name="one" sheetId="1" r:id="r1"/></sheets></workbook>'
    ),
}


def sheet(path: Path, rows: list[list[Any]]) -> Path:
    lines = []
    for i, row in enumerate(rows):
        cells = ""
        for j, value in enumerate(row):
            place = f"{chr(65 + j)}{i + 1}"
            if isinstance(value, str):
                cells += f'<c r="{place}" t="inlineStr"><is><t>{value}</t></is></c>'
            elif value is not None:
                cells += f'<c r="{place}"><v>{value}</v></c>'
        lines.append(f'<row r="{i + 1}">{cells}</row>')
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    body = f'<worksheet xmlns="{main}"><sheetData>{"".join(lines)}</sheetData></worksheet>'
    with zipfile.ZipFile(path, "w") as file:
        for name, content in {**PARTS, "xl/worksheets/sheet1.xml": body}.items():
            file.writestr(name, content)
    return path


def same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert list(found) == list(wanted)
    for name, values in wanted.items():
        assert found[name].dtype.kind == values.dtype.kind
        np.testing.assert_array_equal(found[name], values)


@pytest.mark.parametrize("ending", [".parquet", ".feather"])
def test_arrow_files(tmp_path: Path, ending: str) -> None:
    """Also with the index that pandas puts beside the columns."""
    pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow")
    from pyarrow import feather, parquet

    write = parquet.write_table if ending == ".parquet" else feather.write_feather
    path = tmp_path / f"t{ending}"
    write(pyarrow.table({**VALUES, "__index_level_0__": [5, 6, 7]}), str(path))
    (tmp_path / "t.csv").write_text(CSV)
    same(read_table(path, missing=True), read_csv(tmp_path / "t.csv", missing=True))
    assert list(read_table(path, columns=["sold", "day"])) == ["day", "sold"]
    with pytest.raises(DataFileError, match="line 3, column size: the cell is empty"):
        read_table(path)
    path.write_bytes(b"PAR1 torn")
    with pytest.raises(DataFileError, match="or damaged"):
        read_table(path)


def test_sheets(tmp_path: Path) -> None:
    """Lines are those that the spreadsheet shows, empty ones included."""
    pytest.importorskip("python_calamine", reason="needs python-calamine")
    rows: list[list[Any]] = [
        ["size", "kind"], [1.5, "a"], [None, None], [2, "b"], [12345678, "c"], [None, "d"],
    ]  # fmt: skip
    path = sheet(tmp_path / "t.xlsx", rows)
    found = read_table(path, missing=True)
    assert found["kind"].tolist() == ["a", "b", "c", "d"]
    assert found["size"].tolist()[:3] == [1.5, 2, 12345678]
    with pytest.raises(DataFileError, match="line 6, column size: the cell is empty"):
        read_table(path)
    path.write_bytes(b"no sheet")
    with pytest.raises(DataFileError, match="no sheet can be read"):
        read_table(path)


@pytest.mark.parametrize(
    ("name", "package"), [("t.parquet", "pyarrow"), ("t.xlsx", "python_calamine")]
)
def test_a_library_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(TensorgradError, match="is not installed; pip install"):
        read_table(tmp_path / name)
    with pytest.raises(DataFileError, match="there is no such file"):
        read_table(tmp_path / f"other{name}")
