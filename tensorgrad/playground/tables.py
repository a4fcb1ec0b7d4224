"""A table of one's own: two of its columns become the plane, a third one the labels."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tensorgrad.data.tables import read_csv, table_examples
from tensorgrad.files import DataFileError
from tensorgrad.playground.datasets import Array, Table
from tensorgrad.playground.errors import PlaygroundError, shown

MOST_ROWS = 10_000
MOST_CLASSES = 8


def read_table(text: Any, columns: Any = None, target: Any = None) -> Table:
    """The table that a CSV text holds.

    columns: the names of two columns of numbers, or their positions; left out, the first two.
    target: the name or position of that of the labels; left out, the last. Each of the two columns
    is scaled so that it reaches from -5 to 5, labels that are numbers from -1 to 1.

    Raises PlaygroundError for what is no such table, has more than 10,000 rows or 8 classes.
    """
    if not isinstance(text, str) or not text.strip():
        raise PlaygroundError(f"text must be that of a CSV table; got {shown(text)}")
    rows = text.count("\n") + (not text.endswith("\n")) - 1  # without the header
    if rows > MOST_ROWS:
        raise PlaygroundError(f"a table may have up to {MOST_ROWS:,} rows; got {rows:,}")
    chosen = None if columns is None else _pair(columns)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        path.write_text(text, encoding="utf-8")
        try:
            return _table(path, text, chosen, target)
        except (DataFileError, ValueError) as error:
            said = str(error).replace(f"{path}", "the table")
            raise PlaygroundError(" ".join(said.split())) from error


def _pair(columns: Any) -> list[str | int]:
    if isinstance(columns, str):
        columns = columns.split(",")
    if not isinstance(columns, list) or len(columns) != 2 or columns[0] == columns[1]:
        raise PlaygroundError(f"columns must be two names or positions; got {shown(columns)}")
    return [_name(one) for one in columns]


def _name(one: Any) -> str | int:
    if isinstance(one, bool) or not isinstance(one, str | int):
        raise PlaygroundError(f"a column is given by name or position; got {shown(one)}")
    return one


def _table(path: Path, text: str, chosen: list[str | int] | None, target: Any) -> Table:
    aimed = None if target in (None, "") else _name(target)
    columns = read_csv(path)
    names = list(columns)
    every, last = tuple(names), _among(names, aimed)
    if chosen is None:
        numbers = [n for n in names if n != last and columns[n].dtype.kind == "f"]
        if len(numbers) < 2:
            raise PlaygroundError(
                f"a table needs two columns of numbers beside the labels; got {', '.join(names)}"
            )
        chosen = list(numbers[:2])
    names = [*(_among(names, one) for one in chosen), last]
    if len(set(names)) != 3:
        raise PlaygroundError("the two columns and the target must be three different ones")
    found = table_examples({name: columns[name] for name in names}, names[2], names[:2])
    if found.classes is not None and not 2 <= len(found.classes) <= MOST_CLASSES:
        raise PlaygroundError(
            f"a table may have 2 to {MOST_CLASSES} classes; {names[2]} has {len(found.classes)}"
        )
    points = np.stack([_scaled(column, 5.0) for column in found.inputs.T], axis=1)
    if found.classes is None:
        marks = _scaled(found.targets[:, 0], 1.0)
        return Table(points, marks, 1, tuple(names), (), text, every)
    labels = found.targets.astype(np.float32)
    if len(found.classes) == 2:
        labels = 2 * labels - 1
    return Table(points, labels, len(found.classes), tuple(names), found.classes, text, every)


def _among(names: list[str], wanted: str | int | None) -> str:
    """The name of the column that is wanted, the last one if none is said."""
    if isinstance(wanted, str) and wanted in names:
        return wanted
    place = -1 if wanted is None else wanted
    if not isinstance(place, int) or not -len(names) <= place < len(names):
        raise PlaygroundError(f"there is no column {shown(wanted)}; there are {', '.join(names)}")
    return names[place]


def _scaled(column: Array, reach: float) -> Array:
    """A column moved and stretched so that it reaches from ``-reach`` to ``reach``."""
    wide = column.astype(np.float64)
    low, high = wide.min(), wide.max()
    if low == high:
        raise PlaygroundError(f"a column holds {low:g} alone; take another")
    return ((wide - low) / (high - low) * 2 * reach - reach).astype(np.float32)
