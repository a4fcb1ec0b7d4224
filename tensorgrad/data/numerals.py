"""How a table writes its numbers: with a decimal point or a decimal comma, and thousands parted."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from tensorgrad.files import DataFileError

_DIGITS = r"[+-]?(?=[.,]?[0-9])(?:[1-9][0-9]{0,2}(?:%s[0-9]{3})+|[0-9]*)"
_EXPONENT = r"(?:[eE][+-]?[0-9]+)?"
_BY = {
    ",": re.compile(_DIGITS % r"\." + r"(?:,[0-9]+)?" + _EXPONENT),
    ".": re.compile(_DIGITS % "," + r"(?:\.[0-9]*)?" + _EXPONENT),
}
_OTHER = {",": ".", ".": ","}
_CALLED = {",": "decimal comma", ".": "decimal point"}
#: Words for what is missing.
MISSING = re.compile(r"[+-]?(?:nan|inf(?:inity)?)|#?n/?a|<na>|null|none|nil|[?.-]", re.IGNORECASE)


class Numerals(NamedTuple):
    """A table whose numbers are written with a decimal point, and how they were before."""

    rows: list[list[str]]
    decimal: str | None  #: "." or ","; None if no number shows it, or columns contradict
    notes: tuple[str, ...]  #: what was concluded or assumed of numbers that may be read in two ways


def is_missing(cell: str) -> bool:
    """Whether nothing is in a cell, or a word for it."""
    if cell[-1:].isdigit():  # most are numbers, and no word ends so
        return False
    return not cell or (MISSING.fullmatch(cell) is not None and "inf" not in cell.lower())


def unlike(text: str) -> str:
    """What a number has that keeps it from being read as one."""
    by_sign = any(pattern.fullmatch(text) for pattern in _BY.values())
    return "a comma" if "," in text and by_sign else "a sign or unit"


def with_points(
    path: Path,
    rows: Sequence[Sequence[str]],
    lines: Sequence[int],
    separator: str,
    decimal: str | None,
    used: Collection[int],
) -> Numerals:
    """The rows, in which numbers with a decimal comma or parted thousands are written plainly.

    decimal: the convention of the table, where it is known; else what its columns show, all
        together: 1.234 is 1234 where another column holds 8622,5. Where nothing shows it, a point
        or comma before three digits is taken for the decimal one, and noted; where columns
        contradict, each is read by itself.
    used: the positions of the columns that count.

    The first row may hold names. Where commas part cells, thousands are not parted by them. Raises
    DataFileError, naming the cell, for a number that contradicts ``decimal``.
    """
    if separator == "," and decimal != ",":
        return Numerals([list(row) for row in rows], decimal or _seen(rows, used), ())
    columns = [list(cells) for cells in zip(*rows)]
    shown = [_shown(cells) for cells in columns]
    notes: tuple[str, ...] = ()
    if decimal is None:
        decimal, notes = _decided(columns, shown)
    else:
        for i in used:
            if shown[i] == _OTHER[decimal]:
                _refuse(path, columns[i], lines, decimal)
    for i, cells in enumerate(columns):
        if shown[i]:
            commas = "," if any("," in cell for cell in cells if _is_open(cell)) else "."
            own = shown[i] if shown[i] in _OTHER else decimal or commas
            if own == "," or any("," in cell for cell in cells):
                columns[i] = [_plain(cell, own) for cell in cells]
    return Numerals(list(map(list, zip(*columns))), decimal, notes)


def _seen(rows: Sequence[Sequence[str]], used: Collection[int]) -> str | None:
    """A point, if some number has one."""
    there = (row[i] for row in rows[1:] for i in used)
    return "." if any("." in cell and _BY["."].fullmatch(cell) for cell in there) else None


def _shown(cells: Sequence[str]) -> str:
    """The decimal sign of a column; "?" if it may be either, "" if there is none, or no numbers."""
    there = [cell for cell in cells[1:] if not is_missing(cell)]
    if any(pattern.fullmatch(cells[0]) for pattern in _BY.values()):
        there.append(cells[0])
    if not any("," in cell or "." in cell for cell in there):
        return ""
    fit = [sign for sign, pattern in _BY.items() if all(map(pattern.fullmatch, there))]
    return "?" if len(fit) == 2 else "".join(fit)


def _is_open(cell: str) -> bool:
    """Whether a cell is a number whose sign may be the decimal one or part thousands."""
    marked = "," in cell or "." in cell
    return marked and all(pattern.fullmatch(cell) for pattern in _BY.values())


def _decided(
    columns: Sequence[Sequence[str]], shown: Sequence[str]
) -> tuple[str | None, tuple[str, ...]]:
    """The convention of a table, and a note where it matters."""
    signs = {sign for sign in shown if sign in _OTHER}
    open_ones = [i for i, sign in enumerate(shown) if sign == "?"]
    if not open_ones:
        return (signs.pop() if len(signs) == 1 else None), ()
    name = f"column {columns[open_ones[0]][0][:40]}"
    cell = next(filter(_is_open, columns[open_ones[0]]))
    if len(signs) == 1:
        (decimal,) = signs
        other = columns[shown.index(decimal)]
        unlike = _BY[_OTHER[decimal]]
        seen = next(c for c in other if _BY[decimal].fullmatch(c) and not unlike.fullmatch(c))
        return decimal, (
            f"numbers are taken with a {_CALLED[decimal]}, as {seen[:20]} in column "
            f"{other[0][:40]} shows: {cell[:20]} in {name} is {_plain(cell, decimal)[:20]}",
        )
    commas = any("," in c for i in open_ones for c in columns[i] if _is_open(c))
    decimal = "," if commas else "."
    why = "columns contradict" if signs else "nothing in the table shows it"
    return None if signs else decimal, (
        f"{cell[:20]} in {name} may be {_plain(cell, '.')[:20]} or {_plain(cell, ',')[:20]}: "
        f"{why}; taken as {_plain(cell, ',' if ',' in cell else decimal)[:20]}. Write numbers "
        "without signs between thousands",
    )


def _refuse(path: Path, cells: Sequence[str], lines: Sequence[int], decimal: str) -> None:
    """Raise DataFileError for the cell of a column that contradicts the convention."""
    wrong = next(
        i for i, cell in enumerate(cells)
        if (i or _BY[_OTHER[decimal]].fullmatch(cell)) and not is_missing(cell)
        and not _BY[decimal].fullmatch(cell)
    )  # fmt: skip
    raise DataFileError(
        path,
        f"line {lines[wrong]}, column {cells[0][:40]}: {cells[wrong][:20]!r} has a "
        f"{_CALLED[_OTHER[decimal]]}, and the numbers of the table trained on a {_CALLED[decimal]}",
        "write them as there",
    )


def _plain(cell: str, decimal: str) -> str:
    """A number as ``float`` takes it; anything else as it is."""
    if is_missing(cell) or not _BY[decimal].fullmatch(cell):
        return cell
    return cell.replace(_OTHER[decimal], "").replace(",", ".")
