"""Tables of text: CSV files and their relatives, read as columns of numbers or of texts."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy import ndarray

from tensorgrad.files import DataFileError

Columns = dict[str, ndarray[Any, Any]]

_SEPARATORS = ",;\t"


class Examples(NamedTuple):
    """What ``table_examples`` makes of a table."""

    inputs: ndarray[Any, Any]  #: float32 [n, features]
    targets: ndarray[Any, Any]  #: int64 [n] classes, or float32 [n, 1] numbers
    features: tuple[str, ...]  #: the names of the columns of ``inputs``
    classes: tuple[str, ...] | None  #: the name of each class; None if the target is a number


def read_csv(
    path: str | os.PathLike[str],
    separator: str | None = None,
    header: bool | None = None,
) -> Columns:
    """The columns of a CSV file by name, as arrays [rows].

    separator: between two cells; left out, the one of comma, semicolon and tab that the first
        line has most of.
    header: whether the first line holds the names. Left out, it does if none of its cells is a
        number. Without a header, columns are called "0", "1", and so on.

    A column of numbers becomes float64, any other a column of texts. Cells may be quoted; spaces
    around them, a byte order mark and empty lines are passed over. The text is UTF-8.

    Raises OSError if the file cannot be read, and DataFileError, naming the line, for rows of
    different lengths, no rows, equal names, a cell that is empty, or one that is neither a
    finite number nor in a column of texts.
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataFileError(
            path, f"not a text in UTF-8 (byte {error.start})", "save the table as CSV in UTF-8"
        ) from error
    if separator is None:
        first = next((line for line in text.splitlines() if line.strip()), "")
        separator = max(_SEPARATORS, key=first.count)
    rows: list[list[str]] = []
    lines: list[int] = []
    reader = csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True, strict=True)
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            if rows and len(cells) != len(rows[0]):
                raise DataFileError(
                    path,
                    f"line {reader.line_num} has {len(cells)} cells and line {lines[0]} has "
                    f"{len(rows[0])}",
                    "give every line the same number of cells, or name another separator",
                )
            rows.append(cells)
            lines.append(reader.line_num)
    except csv.Error as error:
        raise DataFileError(
            path, f"line {reader.line_num}: {error}", "repair the line, or save the table anew"
        ) from error
    if header is None:
        header = bool(rows) and not any(_is_number(cell) for cell in rows[0])
    names = [str(i) for i in range(len(rows[0]))] if rows else []
    if header:
        names, rows, lines = rows[0], rows[1:], lines[1:]
    if not rows:
        raise DataFileError(path, "there are no rows", "put a line for each example into it")
    if len(set(names)) < len(names) or not all(names):
        raise DataFileError(
            path,
            f"the names of the columns must differ and not be empty; got {', '.join(names)}",
            "rename them in the first line, or say header=False if it is a row of data",
        )
    found = {}
    for number, name in enumerate(names):
        found[name] = _column(path, name, [row[number] for row in rows], lines)
    return found


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _column(path: Path, name: str, cells: Sequence[str], lines: Sequence[int]) -> Any:
    """Numbers if most cells are numbers, else texts."""
    for cell, line in zip(cells, lines):
        if not cell:
            raise DataFileError(
                path,
                f"line {line}, column {name}: the cell is empty",
                "fill it, or leave the line out",
            )
    numeric = [_is_number(cell) for cell in cells]
    if sum(numeric) * 2 <= len(cells):
        return np.array(cells)
    for cell, line, number in zip(cells, lines, numeric):
        if not number or not math.isfinite(float(cell)):
            raise DataFileError(
                path,
                f"line {line}, column {name}: {cell[:40]!r} is not a finite number, as most of "
                "the column is",
                "correct it, or leave the line out",
            )
    return np.array([float(cell) for cell in cells])


def table_examples(
    columns: Mapping[str, Any],
    target: str | None = None,
    features: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
) -> Examples:
    """Inputs and targets out of the columns of a table.

    target: the column to be predicted; the last one if left out.
    features: the columns to predict it from, which must hold numbers; if left out, all others.
    classes: the names of the classes in order; if left out, those in the column, sorted. Give
        those of the training data when reading data for the same network.

    A target column of texts, or of whole numbers from 0 below 1,000 of which few differ (at most
    a quarter of the rows, and 100), is one of classes; any other is one of numbers.

    Raises ValueError, naming what there is, for a column that is missing or unfit.
    """
    names = list(columns)
    target = names[-1] if target is None else target
    chosen = [name for name in names if name != target] if features is None else list(features)
    missing = [name for name in (target, *chosen) if name not in columns]
    if missing or target in chosen or not chosen:
        raise ValueError(
            f"a table needs a target column and other columns as features; got target {target!r} "
            f"and features {', '.join(chosen) or 'none'}"
            + (f", but there is no {', '.join(map(repr, missing))}" if missing else "")
            + f"; the columns are {', '.join(names)}"
        )
    texts = [name for name in chosen if np.asarray(columns[name]).dtype.kind not in "fiub"]
    if texts:
        raise ValueError(
            f"features must be numbers, but {', '.join(texts)} hold texts, as "
            f"{str(columns[texts[0]][0])[:20]!r}; "
            + (
                f"name the columns to use, as {','.join(n for n in chosen if n not in texts)}"
                if len(texts) < len(chosen)
                else "write numbers with a decimal point, not a comma"
            )
        )
    inputs = np.stack([np.asarray(columns[name], np.float32) for name in chosen], axis=1)
    values = np.asarray(columns[target])
    if values.dtype.kind not in "U" and not _looks_like_classes(values) and classes is None:
        return Examples(inputs, values.astype(np.float32)[:, None], tuple(chosen), None)
    texts_of = [str(v) if values.dtype.kind == "U" else f"{v:g}" for v in values.tolist()]
    if classes is None:
        different = sorted(set(texts_of), key=lambda text: (len(text), text))
        order = different if values.dtype.kind != "U" else sorted(set(texts_of))
    else:
        order = list(classes)
    number = {name: i for i, name in enumerate(order)}
    unknown = sorted(set(texts_of) - set(number))
    if unknown:
        raise ValueError(
            f"column {target!r} holds {', '.join(map(repr, unknown[:5]))}, which is none of the "
            f"classes {', '.join(order)}"
        )
    labels = np.array([number[text] for text in texts_of], np.int64)
    return Examples(inputs, labels, tuple(chosen), tuple(order))


def _looks_like_classes(values: ndarray[Any, Any]) -> bool:
    if not len(values) or (values != np.floor(values)).any():
        return False
    different = len(np.unique(values))
    inside = bool(values.min() >= 0 and values.max() < 1000)
    return inside and different <= min(100, max(2, len(values) // 4))
