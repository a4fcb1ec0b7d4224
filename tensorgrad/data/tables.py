"""Tables of text: CSV files and their relatives, read as columns of numbers or of texts."""

from __future__ import annotations

import csv
import io
import itertools
import math
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy import ndarray

from tensorgrad.data.numerals import MISSING, is_missing, unlike, with_points
from tensorgrad.files import DataFileError, read_whole

Columns = dict[str, ndarray[Any, Any]]

_SEPARATORS = ",;\t"
# Narrower than float(), which takes 1_0, nan and the digits of any script.
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_CODE = re.compile(r"[0-9]+(?:[eE][0-9]+)?")  # what may be a number or a label
_YEAR = re.compile(r"1[5-9][0-9]{2}|2[01][0-9]{2}")
_UNNAMED = re.compile(r"(?:Unnamed: [0-9]+)?")  # the second form is how pandas reads the first
_EXACT = 2**53  # up to which float64 holds every whole number
_LOOKED_AT = 1000  # rows, to find out what a table is like
_AFFIXED = re.compile(r"([^\w.+-]*)[+-]?[0-9][0-9., ']*(\D*)")  # a number, a sign and a unit


class Reading(NamedTuple):
    """The columns of a table, and what was found out about how it writes numbers."""

    columns: Columns
    decimal: str | None = None  #: the sign "." or ","; None if no number shows it
    notes: tuple[str, ...] = ()  #: what was concluded of numbers that may be read in two ways


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
    columns: Sequence[str | int] | None = None,
    texts: Sequence[str | int] = (),
    missing: bool = False,
    complete: Sequence[str | int] = (),
) -> Columns:
    """The columns of a CSV file by name, as arrays [rows].

    separator: between two cells; left out, the one of comma, semicolon and tab that cuts all lines
        into equally many cells, and into most.
    header: whether the first line holds the names. Left out, it does if none of its cells is a
        number; if a text in it stands above numbers; if it holds all ``columns``; and if its
        numbers are names: years in order where none is below, or numbers in equal steps (eight
        and more; fewer if they count from 0 or 1 and none below is whole). Without a header,
        columns are called "0", "1", and so on.
    columns: the names of those to read, or their positions (-1: the last); the others may hold
        anything. All if left out.
    texts: those of them to read as texts whatever they hold, as the classes of a network.
    missing: whether something may be missing: an empty cell, or NA, n/a, nan, null, none, "?", "-"
        or ".", is NaN among numbers and the empty text among texts.
    complete: those of them in which nothing may be missing all the same.

    A column of numbers becomes float64, any other a column of texts; so does one of labels of
    which most are whole numbers, as 0 to 9 and A to F, if two cells or more, and one in twenty,
    are none. Where it does not part cells, a comma may stand for the decimal point, and points
    between thousands; which of the two is one for the whole table, so that 1.234 is 1234 where
    another column holds 8622,5. Where nothing shows it, 1.234 has a decimal point, and 1,234 a
    decimal comma. Passed over are spaces around cells, a byte order mark, empty lines, empty
    cells at the end of lines, and a first column without a name whose cells all differ: the row
    numbers of pandas and R. Cells may be quoted. The text is UTF-8.

    Raises OSError if the file cannot be read, and DataFileError if it is a FIFO or a device, or,
    naming the line, for rows of different lengths, no rows, equal names, a column that is not
    there, a cell that is empty, or one that is neither a finite number nor in a column of texts.
    """
    return read_text(Path(path), separator, header, columns, texts, missing, complete).columns


def read_text(
    path: Path,
    separator: str | None,
    header: bool | None,
    columns: Sequence[str | int] | None,
    texts: Sequence[str | int],
    missing: bool,
    complete: Sequence[str | int],
    decimal: str | None = None,
) -> Reading:
    """As ``read_csv``, with what it concluded; decimal: the decimal sign, where it is known.

    Raises DataFileError besides, naming the cell, for a number that contradicts ``decimal``.
    """
    try:
        text = read_whole(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataFileError(
            path, f"not a text in UTF-8 (byte {error.start})", "save the table as CSV in UTF-8"
        ) from error
    separator = _separator(text) if separator is None else separator
    rows, lines = _rows(path, text, separator)
    notes: tuple[str, ...] = ()
    if rows:
        used = [i for i, name in enumerate(rows[0]) if columns is None or name in columns]
        rows, decimal, notes = with_points(path, rows, lines, separator, decimal, used)
    found = columns_of_cells(path, rows, lines, header, columns, texts, missing, complete)
    return Reading(found, decimal, notes)


def columns_of_cells(
    path: Path,
    rows: list[list[str]],
    lines: list[int],
    header: bool | None,
    columns: Sequence[str | int] | None,
    texts: Sequence[str | int],
    missing: bool,
    complete: Sequence[str | int],
) -> Columns:
    """The columns of a table of cells, as ``read_csv`` describes them; lines: those of the rows."""
    if header is None:
        header = bool(rows) and (_holds(rows[0], columns) or _is_header(rows[0], rows[1:]))
    names = [str(i) for i in range(len(rows[0]))] if rows else []
    if header:
        names, rows, lines = rows[0], rows[1:], lines[1:]
    if not rows:
        raise DataFileError(path, "there are no rows", "put a line for each example into it")
    places = [i for i, name in enumerate(names) if not _is_passed_over(i, name, rows, columns)]
    chosen = places if columns is None else _positions(path, names, places, columns)
    used = [names[i] for i in chosen]
    count = Counter(names)
    if not all(used) or any(count[name] > 1 for name in used):
        raise DataFileError(
            path,
            f"the names of the columns must differ and not be empty; got {', '.join(names)[:200]}",
            "rename them in the first line, or put a line of names above it if it is one of data",
        )
    as_text = _positions(path, names, places, texts)
    whole = _positions(path, names, places, complete) if missing else chosen
    found = {}
    for i in chosen:
        cells = [row[i] for row in rows]
        found[names[i]] = _column(path, names[i], cells, lines, i in as_text, i not in whole)
    return found


def _rows(path: Path, text: str, separator: str) -> tuple[list[list[str]], list[int]]:
    """The cells of each line that is not empty, equally many, and the numbers of the lines."""
    rows: list[list[str]] = []
    lines: list[int] = []
    reader = _reader(text, separator)
    before = 0
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                rows.append(cells)
                lines.append(before + 1)  # where the row begins: cells may hold line breaks
            before = reader.line_num
    except csv.Error as error:
        raise DataFileError(
            path, f"line {reader.line_num}: {error}", "repair the line, or save the table anew"
        ) from error
    if not rows:
        return rows, lines
    lengths = [_length(row) for row in rows]
    width = max(lengths)
    for row, line in zip(rows, lines):
        if len(row) < width:
            raise DataFileError(
                path,
                f"line {line} has {len(row)} cells and line {lines[lengths.index(width)]} has "
                f"{width}",
                "give every line the same number of cells, or name another separator",
            )
    return [row[:width] for row in rows], lines


def _reader(text: str, separator: str) -> Any:
    return csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True, strict=True)


def _length(cells: Sequence[str]) -> int:
    """The number of cells without empty ones at the end."""
    return next((n for n in range(len(cells), 0, -1) if cells[n - 1]), 0)


def _separator(text: str) -> str:
    """The separator that cuts the first lines into equally many cells, and into most."""

    def fit(separator: str) -> tuple[bool, int]:
        """Whether all rows have as many cells, more than one; and how many at most."""
        lengths = []
        try:
            for row in itertools.islice(filter(any, _reader(text, separator)), 20):
                lengths.append(_length([cell.strip() for cell in row]))
        except csv.Error:
            return False, max(lengths, default=0)
        return len(set(lengths)) == 1 and lengths[0] > 1, max(lengths, default=0)

    return max(_SEPARATORS, key=fit)


def _holds(first: Sequence[str], columns: Sequence[str | int] | None) -> bool:
    """Whether the first line has all the names wanted, which are not those of positions."""
    wanted = {name for name in columns or () if isinstance(name, str)}
    positions = set(map(str, range(len(first))))
    return bool(wanted - positions) and wanted <= set(first)


def _is_header(first: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first line of a table holds names, as ``read_csv`` describes it."""
    numbers = [i for i, cell in enumerate(first) if _NUMBER.fullmatch(cell)]
    if not numbers:
        return True
    below = [[row[i] for row in rows[:_LOOKED_AT] if row[i]] for i in range(len(first))]
    if not all(map(len, below)):
        return False
    if all(_CODE.fullmatch(first[i]) for i in numbers) and any(
        cell and i not in numbers and not MISSING.fullmatch(cell) and all(map(_is_number, under))
        for i, (cell, under) in enumerate(zip(first, below))
    ):
        return True
    under = [cell for i in numbers for cell in below[i]]
    values = [float(first[i]) for i in numbers]
    steps = {round(b - a, 9) for a, b in itertools.pairwise(values)}
    if len(steps) != 1 or 0 in steps:
        return False
    if all(_YEAR.fullmatch(first[i]) for i in numbers):
        return not any(map(_YEAR.fullmatch, under))
    if len(values) >= 8:
        return not _in_steps(rows[0][i] for i in numbers)
    counts = values[0] in (0, 1) and steps == {1} and all(map(_CODE.fullmatch, first[numbers[0] :]))
    return counts and (not first[0] or (len(values) > 2 and not any(map(_CODE.fullmatch, under))))


def _in_steps(cells: Any) -> bool:
    """Whether cells are numbers in equal steps."""
    numbers = [float(cell) for cell in cells if _NUMBER.fullmatch(cell)]
    return len({round(b - a, 9) for a, b in itertools.pairwise(numbers)} - {0}) == 1


def _is_passed_over(
    i: int, name: str, rows: Sequence[Sequence[str]], wanted: Sequence[str | int] | None
) -> bool:
    """Whether a column is no data: it has no name, and is empty or numbers the rows."""
    if not _UNNAMED.fullmatch(name) or (name and wanted is not None and name in wanted):
        return False
    cells = [row[i] for row in rows]
    return not any(cells) or (i == 0 and all(cells) and len(set(cells)) == len(cells))


def _positions(
    path: Path, names: Sequence[str], places: Sequence[int], wanted: Sequence[str | int]
) -> list[int]:
    """Where the columns ``wanted`` are, in the order of the file; ``places`` count."""
    found = set()
    for column in wanted:
        if isinstance(column, int) and -len(places) <= column < len(places):
            found.add(places[column])
        elif isinstance(column, str) and column in names:
            found.add(names.index(column))
        else:
            raise DataFileError(
                path,
                f"there is no column {column!r}",
                f"take one of {', '.join(names[i] for i in places)[:200]}",
            )
    return sorted(found)


def _is_number(text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None


def _column(
    path: Path, name: str, cells: Sequence[str], lines: Sequence[int], as_text: bool, gaps: bool
) -> Any:
    """Numbers or texts, as ``read_csv`` describes it; gaps: whether something may be missing."""
    if gaps:
        cells = ["" if is_missing(cell) else cell for cell in cells]
        there = [cell for cell in cells if cell]
    else:
        there = list(cells)
        for cell, line in zip(cells, lines):
            if not cell:
                raise DataFileError(
                    path,
                    f"line {line}, column {name}: the cell is empty",
                    "fill it, leave the line out, or do not use the column",
                )
    numeric = [not as_text and _is_number(cell) for cell in there]
    if (as_text or not all(numeric)) and _are_texts(there, numeric):
        return np.array(cells)
    values = [float(cell) if _is_number(cell) else math.nan for cell in cells]
    for cell, line, value in zip(cells, lines, values):
        if not math.isfinite(value) and not (gaps and not cell):
            raise DataFileError(
                path,
                f"line {line}, column {name}: {cell[:40]!r} is not a finite number, as most of "
                "the column is" + (", but has a comma" if unlike(cell) == "a comma" else ""),
                "correct it, leave the line out, or do not use the column",
            )
    _refuse_lost_digits(path, name, cells, lines, values)
    return np.array(values)


def _refuse_lost_digits(
    path: Path, name: str, cells: Sequence[str], lines: Sequence[int], values: Sequence[float]
) -> None:
    """Raise DataFileError for a column of different whole numbers that are equal as floats."""
    if not values or not abs(values[0]) > _EXACT or any(v != values[0] for v in values):
        return
    other = next((i for i, cell in enumerate(cells) if cell != cells[0]), None)
    if other is not None and cells[0].isdecimal() and cells[other].isdecimal():
        raise DataFileError(
            path,
            f"line {lines[other]}, column {name}: {cells[other][:40]} cannot be told from "
            f"{cells[0][:40]}, as floats hold 15 digits",
            "subtract what they have in common, or do not use the column",
        )


def _are_texts(cells: Sequence[str], numeric: Sequence[bool]) -> bool:
    """Whether cells, not all of which are numbers, are texts, and not numbers with a mistake."""
    numbers = sum(numeric)
    others = sum(not number and not MISSING.fullmatch(cell) for cell, number in zip(cells, numeric))
    if not numbers or numbers <= others:
        return True
    codes = all(_CODE.fullmatch(cell) for cell, number in zip(cells, numeric) if number)
    return codes and others > 1 and others * 20 >= len(cells) and numbers + others == len(cells)


def _refuse_columns(columns: Mapping[str, Any], target: str, chosen: Sequence[str]) -> None:
    """Raise ValueError for a target or features that are missing, or hold texts."""
    missing = [name for name in (target, *chosen) if name not in columns]
    if missing or target in chosen or not chosen:
        raise ValueError(
            f"a table needs a target column and other columns as features; got target {target!r} "
            f"and features {', '.join(chosen) or 'none'}"
            + (f", but there is no {', '.join(map(repr, missing))}" if missing else "")
            + f"; the columns are {', '.join(columns)}"
        )
    texts = [name for name in chosen if np.asarray(columns[name]).dtype.kind not in "fiub"]
    if texts:
        raise ValueError(
            f"features must be numbers, but {', '.join(texts)} hold texts, as "
            f"{str(columns[texts[0]][0])[:20]!r}; write numbers with a decimal point, not a comma, "
            "and without signs or units"
            + (
                f", or name the columns to use, as {','.join(n for n in chosen if n not in texts)}"
                if len(texts) < len(chosen)
                else ""
            )
        )


def _numbered(
    target: str, values: Any, classes: Sequence[str] | None
) -> tuple[ndarray[Any, Any], tuple[str, ...]]:
    """The numbers of the classes in the target column, and the names of the classes in order."""
    are_texts = values.dtype.kind == "U"
    different, inverse = np.unique(values, return_inverse=True)
    found = different.tolist() if are_texts else [_digits(value) for value in different]
    if classes is None:
        if are_texts and len(found) > _most_classes(len(values)) and is_affixed(found):
            raise ValueError(
                f"column {target!r} holds {len(found)} different numbers with {unlike(found[0])}, "
                f"as {found[0][:20]!r}, which would be a class each; write them without"
            )
        order = found
    else:
        order = list(classes)
    number = {name: i for i, name in enumerate(order)}
    if classes is not None and are_texts:  # "1.0" is the class "1", if there is no class "1.0"
        found = [
            _digits(np.float64(name)) if name not in number and _is_number(name) else name
            for name in found
        ]
    unknown = sorted(set(found) - set(number))
    if unknown:
        raise ValueError(
            f"column {target!r} holds {', '.join(map(repr, unknown[:5]))}, which is none of the "
            f"classes {', '.join(order)}"
        )
    labels = np.array([number[name] for name in found], np.int64)[inverse.reshape(-1)]
    return labels, tuple(order)


def table_examples(
    columns: Mapping[str, Any],
    target: str | None = None,
    features: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    task: str | None = None,
) -> Examples:
    """Inputs and targets out of the columns of a table.

    target: the column to be predicted; the last one if left out.
    features: the columns to predict it from, which must hold numbers; if left out, all others.
    classes: the names of the classes in order; if left out, those in the column, sorted. Give
        those of the training data when reading data for the same network; () if its targets are
        numbers.
    task: "classification" or "regression", where the column alone does not say it as it is meant.

    A target column of texts, or of whole numbers from 0 below 1,000 of which few differ (at most
    a quarter of the rows, and 100), is one of classes; any other is one of numbers. A class that
    is a number is called by its digits, as "3" or "0.5".

    Raises ValueError, naming what there is, for a column that is missing or unfit: texts among
    the features, numbers that float32 cannot hold or tell apart, or a target of numbers that all
    have a sign or a unit, as "12 %".
    """
    names = list(columns)
    target = names[-1] if target is None else target
    chosen = [name for name in names if name != target] if features is None else list(features)
    _refuse_columns(columns, target, chosen)
    inputs = np.stack([in_float32(name, columns[name]) for name in chosen], axis=1)
    values = np.asarray(columns[target])
    if values.dtype.kind == "O" and all(isinstance(value, str) for value in values):
        values = values.astype(np.str_)
    are_texts = values.dtype.kind == "U"
    if classes is None and task == "regression":
        classes = ()
    if not are_texts:
        numbers = in_float32(target, values)
        as_classes = task == "classification" or _looks_like_classes(values)
        if not (as_classes if classes is None else classes):
            return Examples(inputs, numbers[:, None], tuple(chosen), None)
    elif classes is not None and not classes:
        raise ValueError(f"column {target!r} must hold numbers, not texts, as {values[0][:20]!r}")
    labels, order = _numbered(target, values, classes)
    return Examples(inputs, labels, tuple(chosen), order)


def in_float32(name: str, values: Any, gaps: bool = False) -> ndarray[Any, Any]:
    """A column as float32. Raises ValueError for a number that is none then.

    gaps: whether something may be missing, which is NaN.
    """
    values = np.asarray(values)
    with np.errstate(over="ignore"):
        found: ndarray[Any, Any] = values.astype(np.float32)
    unfit = np.flatnonzero(np.isinf(found) if gaps else ~np.isfinite(found))
    if len(unfit):
        raise ValueError(
            f"column {name!r}, row {unfit[0] + 1}: {values[unfit[0]]} is not a number that float32 "
            "can hold (up to 3.4e38); correct it, or scale the column"
        )
    if len(values) and values.dtype.kind in "fiu":
        there = values[~np.isnan(values)]
        step = np.spacing(abs(found).max(where=~np.isnan(found), initial=0))
        if len(there) and 0 < np.std(there, dtype=np.float64) < step:
            raise ValueError(
                f"column {name!r}: float32 cannot tell its numbers apart, which lie {step:.3g} and "
                f"less around {there[0]}; subtract that from them"
            )
    return found


def _digits(value: Any) -> str:
    """The name of a class that is a number."""
    return str(int(value)) if value == int(value) else str(value)


def is_affixed(texts: Sequence[str]) -> bool:
    """Whether all texts are numbers with the same sign or unit around them."""
    found = [_AFFIXED.fullmatch(text) for text in texts]
    return all(found) and len({match.groups() for match in found if match}) == 1


def _most_classes(rows: int) -> int:
    """How many different numbers may be classes."""
    return min(100, max(2, rows // 4))


def _looks_like_classes(values: ndarray[Any, Any]) -> bool:
    if not len(values) or (values != np.floor(values)).any():
        return False
    inside = bool(values.min() >= 0 and values.max() < 1000)
    return inside and len(np.unique(values)) <= _most_classes(len(values))
