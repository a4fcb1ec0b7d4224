"""Tables in any file: CSV, Parquet, Feather, and the sheets of Excel and LibreOffice."""

from __future__ import annotations

import datetime
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tensorgrad.data.tables import Columns, Reading, columns_of_cells, read_text
from tensorgrad.errors import TensorgradError
from tensorgrad.files import DataFileError

_ARROW = (".parquet", ".feather", ".arrow")
_SHEETS = (".xlsx", ".xls", ".xlsb", ".ods")
#: The endings of the files that ``read_table`` takes.
TABLES = (".csv", ".tsv", ".data", *_ARROW, *_SHEETS)


def read_table(
    path: str | os.PathLike[str],
    columns: Sequence[str | int] | None = None,
    texts: Sequence[str | int] = (),
    missing: bool = False,
    complete: Sequence[str | int] = (),
) -> Columns:
    """The columns of a table by name, as ``read_csv`` gives them, whatever the file's format.

    The ending tells it: .parquet, .feather and .arrow are read by pyarrow; .xlsx, .xls, .xlsb and
    .ods, of which the first sheet counts, by python-calamine; anything else is text. Dates become
    texts as 2026-11-30, true and false 1 and 0, nothing and NaN an empty cell.

    Raises as ``read_csv``, DataFileError for a file that its library cannot read, and
    TensorgradError if the library is not installed.
    """
    return read_any(Path(path), columns, texts, missing, complete).columns


def read_any(
    path: Path,
    columns: Sequence[str | int] | None,
    texts: Sequence[str | int],
    missing: bool,
    complete: Sequence[str | int],
    decimal: str | None = None,
) -> Reading:
    """As ``read_table``, with what was concluded of a text; decimal: as for ``read_text``."""
    if path.suffix not in (*_ARROW, *_SHEETS):
        return read_text(path, None, None, columns, texts, missing, complete, decimal)
    if not path.is_file():
        raise DataFileError(path, "there is no such file", "check the name")
    header = True if path.suffix in _ARROW else None
    rows = _of_arrow(path) if path.suffix in _ARROW else _of_sheet(path)
    cells = [[_text(path, value).strip() for value in row] for row in rows]
    lines = [i + 1 for i, row in enumerate(cells) if any(row)]
    cells = [row for row in cells if any(row)]
    found = columns_of_cells(path, cells, lines, header, columns, texts, missing, complete)
    return Reading(found)


def _of_arrow(path: Path) -> list[list[Any]]:
    """The names, and the rows; the index that pandas writes is left out."""
    try:
        from pyarrow import feather, parquet
    except ImportError as error:
        raise _not_installed("Parquet and Feather files", "pyarrow") from error
    try:
        read = parquet.read_table if path.suffix == ".parquet" else feather.read_table
        table = read(str(path))
    except (ValueError, OSError) as error:  # ArrowInvalid is a ValueError
        raise DataFileError(
            path, f"not a {path.suffix[1:]} file, or damaged ({str(error)[:100]})", "write it anew"
        ) from error
    names = [name for name in table.column_names if not name.startswith("__index_level_")]
    values = [table.column(name).to_pylist() for name in names]
    return [names, *map(list, zip(*values))]


def _of_sheet(path: Path) -> list[list[Any]]:
    """The rows of the first sheet."""
    try:
        import python_calamine
    except ImportError as error:
        raise _not_installed("sheets", "python-calamine") from error
    try:
        book = python_calamine.CalamineWorkbook.from_path(str(path))
        found: list[list[Any]] = book.get_sheet_by_index(0).to_python(skip_empty_area=False)
    except (python_calamine.CalamineError, OSError, IndexError) as error:
        raise DataFileError(
            path, f"no sheet can be read from it ({str(error)[:100]})", "save it anew"
        ) from error
    return found


def _not_installed(what: str, package: str) -> TensorgradError:
    return TensorgradError(
        f"{what} are read by {package}, which is not installed; pip install {package}, or "
        "'tensorgrad[tables]'"
    )


def _text(path: Path, value: Any) -> str:
    """A cell as it would be written in a CSV file."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, datetime.datetime):
        value = value.replace(tzinfo=None)
        at_midnight = value.time() == datetime.time()
        return value.date().isoformat() if at_midnight else value.isoformat(" ")
    if isinstance(value, bytes | list | dict):
        raise DataFileError(
            path, f"a cell holds {type(value).__name__}, as {str(value)[:40]}",
            "keep numbers, texts and dates alone",
        )  # fmt: skip
    return str(value)
