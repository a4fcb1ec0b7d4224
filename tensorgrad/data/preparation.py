"""Columns of a table made into inputs of a network: numbers, what is missing, categories, dates."""

from __future__ import annotations

import datetime
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy import ndarray

from tensorgrad.data.numerals import unlike

Array = ndarray[Any, Any]

_MOST_LEVELS = 50  # of a category that have an input of their own
_EPOCH = datetime.datetime(1970, 1, 1)
_ISO = re.compile(
    r"\d{4}-\d\d?-\d\d?(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?(?:Z|[+-]\d\d:?\d\d)?)?"
)
_OTHER = re.compile(r"(\d{1,4})([./-])(\d\d?)\2(\d{1,4})(?:[T ](\d\d?):(\d\d)(?::(\d\d))?)?")
_PARTS = ("year", "month", "day", "weekday", "hour", "minute")  # of a date


class Column(NamedTuple):
    """How a column becomes inputs.

    kind: "number", an input, and "date", an input for each of ``parts``, with ``fill`` where one is
        missing; or "category", an input for each of ``levels``, 1 where the text is that level and
        else 0.
    missing: whether there is an input more, 1 where the column has nothing, else 0.
    order: of year, month and day in a date, as "dmy"; "iso" as in 2026-11-30.
    """

    name: str
    kind: str
    fill: float = 0.0
    missing: bool = False
    levels: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    order: str = ""

    @property
    def inputs(self) -> list[str]:
        """The names of its inputs."""
        own = [f"{self.name}={level}" for level in self.levels]
        own += [f"{self.name} {part}" for part in self.parts]
        if self.kind == "number":
            own = [self.name]
        return [*own, f"{self.name} missing"] if self.missing else own


def columns_of(columns: Mapping[str, Array]) -> tuple[Column, ...]:
    """What kind each column is, with all levels of categories, before anything is known of parts.

    Texts that are all dates, in one way of writing them, make a date. Missing is NaN among numbers
    and the empty text.
    """
    found = []
    for name, values in columns.items():
        if values.dtype.kind != "U":
            found.append(Column(name, "number"))
        elif order := _date_order(values.tolist()):
            found.append(Column(name, "date", order=order))
        else:
            found.append(
                Column(name, "category", levels=tuple(sorted(set(values.tolist()) - {""})))
            )
    return tuple(found)


def coded(columns: Mapping[str, Array], known: Sequence[Column]) -> Array:
    """The columns as float64 [rows, columns], which ``fitted`` and ``expanded`` take.

    A number is itself, a category the position of its level (-1: another), a date its seconds since
    1970; what is missing is NaN. Raises ValueError, naming column and cell, for a text where there
    should be a number or a date.
    """
    found = np.empty((len(next(iter(columns.values()))), len(known)))
    for i, column in enumerate(known):
        values = columns[column.name]
        if column.kind == "category":
            place: dict[str, float] = {level: k for k, level in enumerate(column.levels)}
            place[""] = math.nan
            texts = values if values.dtype.kind == "U" else map(_text, values.tolist())
            found[:, i] = [place.get(str(text), -1) for text in texts]
        elif values.dtype.kind == "U" and (values != "").any():
            if column.kind == "number":
                wrong = next(text for text in values.tolist() if text)
                raise ValueError(
                    f"column {column.name!r} must hold numbers, not {wrong[:20]!r}"
                    + (", which has a comma" if unlike(wrong) == "a comma" else "")
                )
            found[:, i] = _seconds(column, values.tolist())
        else:
            found[:, i] = math.nan if values.dtype.kind == "U" else values
    return found


def fitted(known: Sequence[Column], codes: Array) -> tuple[Column, ...]:
    """The columns with what the rows ``codes``, those to train on, tell.

    The median fills what is missing; an input says so where some are. Levels are those that occur,
    the 50 most frequent; parts of dates are those that vary.
    """
    found = []
    for i, column in enumerate(known):
        values = codes[:, i]
        there = values[~np.isnan(values)]
        missing = len(there) < len(values)
        if column.kind == "category":
            count = Counter(there[there >= 0].astype(int).tolist())
            most = sorted(k for k, _ in count.most_common(_MOST_LEVELS))
            column = column._replace(levels=tuple(column.levels[k] for k in most))
        else:
            column = column._replace(fill=float(np.median(there)) if len(there) else 0.0)
        if column.kind == "date":
            dates = [_part_values(value) for value in there.tolist()]
            varying = [p for p in _PARTS if len({date[p] for date in dates}) > 1]
            column = column._replace(parts=tuple(varying))
        found.append(column._replace(missing=missing))
    return tuple(found)


def recoded(codes: Array, known: Sequence[Column], other: Sequence[Column]) -> Array:
    """``codes`` by the levels of ``known`` as codes by those of ``other``."""
    found = codes.copy()
    for i, (before, after) in enumerate(zip(known, other)):
        if before.levels == after.levels:
            continue
        place = {level: k for k, level in enumerate(after.levels)}
        new = np.array([*(place.get(level, -1) for level in before.levels), -1.0])
        there = ~np.isnan(codes[:, i])
        found[there, i] = new[codes[there, i].astype(int)]
    return found


def expanded(columns: Sequence[Column], codes: Array) -> Array:
    """The inputs, float64 [rows, all inputs], of ``codes``.

    Raises ValueError for a number or a date that is missing in a column that had them all before.
    """
    found: list[Array] = []
    for i, column in enumerate(columns):
        values = codes[:, i]
        gone = np.isnan(values)
        if column.kind == "category":
            found += [(values == k).astype(np.float64) for k in range(len(column.levels))]
        else:
            if gone.any() and not column.missing:
                raise ValueError(
                    f"column {column.name!r}, row {np.flatnonzero(gone)[0] + 1}: nothing is there, "
                    "and all rows to train on had something; fill it, or leave the row out"
                )
            filled = np.where(gone, column.fill, values)
            if column.kind == "number":
                found.append(filled)
            else:
                dates = [_part_values(value) for value in filled.tolist()]
                found += [np.array([d[p] for d in dates], np.float64) for p in column.parts]
        if column.missing:
            found.append(gone.astype(np.float64))
    return np.stack(found, axis=1) if found else np.empty((len(codes), 0))


def _part_values(seconds: float) -> dict[str, float]:
    time = _EPOCH + datetime.timedelta(seconds=seconds)
    values = time.year, time.month, time.day, time.weekday(), time.hour, time.minute
    return dict(zip(_PARTS, map(float, values)))


def _text(value: float) -> str:
    """A category that is a number in this file, as it is written in another."""
    if math.isnan(value):
        return ""
    return str(int(value)) if value == int(value) else str(value)


def _date_order(texts: Sequence[str]) -> str | None:
    """In which order texts have year, month and day, as "ymd"; None if they are no dates.

    2026-11-30 has the year first. Of 30.11.2026, and of 30/11/2026 or 11/30/2026, the place of the
    day must show: one of the numbers has to be above 12 somewhere; a full stop puts the day first.
    """
    there = [text for text in texts if text]
    if not there:
        return None
    if all(map(_ISO.fullmatch, there)):
        order = "iso"
    else:
        found = [_OTHER.fullmatch(text) for text in there]
        if not all(found):
            return None
        rows = [match.groups() for match in found if match]
        if all(len(row[0]) == 4 for row in rows):
            order = "ymd"
        elif not all(len(row[3]) == 4 for row in rows):
            return None
        else:
            first, second = max(int(row[0]) for row in rows), max(int(row[2]) for row in rows)
            if first <= 12 and second <= 12 and any(row[1] != "." for row in rows):
                return None
            order = "mdy" if second > 12 else "dmy"
    try:
        for text in set(there):
            _moment(text, order)
    except (ValueError, OverflowError):
        return None
    return order


def may_be_dates(texts: Sequence[str]) -> bool:
    """Whether texts are dates of which the order of day and month does not show."""
    found = [_OTHER.fullmatch(text) for text in texts if text]
    rows = [match.groups() for match in found if match]
    days = all(len(row[3]) == 4 and int(row[0]) <= 12 and int(row[2]) <= 12 for row in rows)
    return bool(rows) and len(rows) == len(found) and days and _date_order(texts) is None


def _moment(text: str, order: str) -> float:
    """Seconds since 1970. Raises ValueError for a text that is no date."""
    if order == "iso":
        if not _ISO.fullmatch(text):
            raise ValueError(text)
        date, _, rest = text.replace("T", " ").partition(" ")
        year, month, day = map(int, date.split("-"))
        time = datetime.datetime.fromisoformat(
            f"{year:04}-{month:02}-{day:02}" + (f" {rest}" if rest else "")
        )
        return (time.replace(tzinfo=None) - _EPOCH).total_seconds()
    match = _OTHER.fullmatch(text)
    if match is None:
        raise ValueError(text)
    numbers = dict(zip(order, (match[1], match[3], match[4])))
    hour, minute, second = (int(match[k] or 0) for k in (5, 6, 7))
    time = datetime.datetime(
        int(numbers["y"]), int(numbers["m"]), int(numbers["d"]), hour, minute, second
    )
    return (time - _EPOCH).total_seconds()


def _seconds(column: Column, texts: Sequence[str]) -> list[float]:
    for text in filter(None, texts):
        try:
            _moment(text, column.order)
        except ValueError as error:
            raise ValueError(
                f"column {column.name!r} must hold dates, written as those to train on; got "
                f"{text[:20]!r}"
            ) from error
    return [_moment(text, column.order) if text else math.nan for text in texts]
