"""Tables as people have them: which columns the commands use, and how these are prepared."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tensorgrad.data import DataFileError, table_examples
from tensorgrad.data.preparation import Column, coded, columns_of
from tensorgrad.data.spreadsheets import read_any
from tensorgrad.data.tables import is_affixed
from tensorgrad.errors import TensorgradError

Array = np.ndarray[Any, Any]

_MANY = 50  # different texts, which say little of one another if they are most of the rows
_COUNTER = re.compile(r"(?:.*[^A-Za-z])?(?:id|index|row|no|nr|number|#)|.*Id|.*ID", re.IGNORECASE)


class Table(NamedTuple):
    """A table to train on, or like one that was."""

    inputs: Array  # [rows, columns]: numbers, or codes of ``columns``
    targets: Array
    classes: tuple[str, ...] | None
    features: tuple[str, ...]
    target: str
    columns: tuple[Column, ...]  # () where all are numbers and nothing is missing
    notes: tuple[str, ...]  # what the person should know
    decimal: str | None  # the sign in its numbers, as ``Reading`` has it


def read(
    path: Path,
    settings: Mapping[str, Any],
    classes: tuple[str, ...] | None,
    features: Sequence[str] | None,
    known: Sequence[Column],
    decimal: str | None = None,
) -> Table:
    """The table at ``path``.

    classes: as for ``cli.data.read``. features: the names of the columns to predict from; all that
    serve if None. known: how they were coded, where that is known. decimal: the decimal sign, where
    it is known.

    Raises DataFileError, or TensorgradError naming the option that helps.
    """
    target = settings["target"]
    place = -1 if target is None else target
    impute = settings["missing"] == "impute" and (not features or bool(known) or classes is None)
    try:
        reading = read_any(
            path,
            columns=None if features is None else [*features, place],
            texts=[place] if classes else (),
            missing=impute,
            complete=[place],
            decimal=decimal,
        )
        columns = reading.columns
        target = list(columns)[-1] if target is None else target
        if target not in columns:
            table_examples(columns, target, features, classes)  # says what there is
        values = {target: columns[target]}
        rest = {name: column for name, column in columns.items() if name != target}
        notes = reading.notes
        if features is None:
            rest, left_out = _that_serve(rest)
            notes += left_out
        else:
            rest = {name: rest[name] for name in features if name in rest}
        if not known and _is_plain(rest):
            found = table_examples(
                {**rest, **values}, target, features, classes, task=settings["task"]
            )
            return Table(
                *found[:2], found.classes, found.features, target, (), notes, reading.decimal
            )
        columns_now = tuple(known) or columns_of(rest)
        _refuse_units(rest, columns_now if not known else ())
        inputs = coded(rest, columns_now)
        one = table_examples(
            {"": np.zeros(len(inputs)), **values}, target, [""], classes, task=settings["task"]
        )
    except DataFileError:
        raise
    except ValueError as error:
        raise TensorgradError(f"{path}: {error} (--target, --features)") from error
    return Table(
        inputs, one.targets, one.classes, tuple(rest), target, columns_now, notes, reading.decimal
    )


def rows_of(
    path: Path, features: Sequence[str], known: Sequence[Column], decimal: str | None
) -> tuple[Array, tuple[str, ...]]:
    """The rows to predict from in a file like the one that was trained on, and notes on them.

    decimal: the sign in the numbers of that one.

    Raises DataFileError for one that is not.
    """
    columns, _, notes = read_any(path, features, (), bool(known), (), decimal)
    try:
        if known:
            return coded(columns, known), notes
    except ValueError as error:
        raise DataFileError(path, str(error), "write it as in the table trained on") from error
    rows = np.stack([columns[name] for name in features], axis=1)
    if rows.dtype.kind != "f":
        raise DataFileError(path, "the features must be numbers", "correct the columns")
    with np.errstate(over="ignore"):  # an infinity is refused with what is too far from the rest
        found: Array = rows.astype(np.float32)
    return found, notes


def _is_plain(columns: Mapping[str, Array]) -> bool:
    return all(c.dtype.kind == "f" and not np.isnan(c).any() for c in columns.values())


def _that_serve(columns: Mapping[str, Array]) -> tuple[dict[str, Array], tuple[str, ...]]:
    """The columns that can say something of rows not seen, and a note on each other."""
    kept, notes = {}, []
    kinds = {column.name: column.kind for column in columns_of(columns)}
    for name, values in columns.items():
        texts = values.dtype.kind == "U"
        different = len(set(values.tolist()) - {""})
        why = ""
        if not different or (not texts and np.isnan(values).all()):
            why = "nothing is in it"
        elif kinds[name] == "category" and different > max(_MANY, len(values) // 2):
            why = f"it holds {different:,} different texts in {len(values):,} rows"
        elif not texts and _COUNTER.fullmatch(name) and _counts(values):
            why = "it numbers the rows"
        if why and len(columns) > 1:
            notes.append(f"column {name} is left out: {why} (--features takes it all the same)")
        else:
            kept[name] = values
    return (kept, tuple(notes)) if kept else (dict(columns), ())


def _counts(values: Array) -> bool:
    return values[0] in (0, 1) and bool((np.diff(values) == 1).all()) and len(values) > 2


def _refuse_units(columns: Mapping[str, Array], known: Sequence[Column]) -> None:
    """Raise ValueError for numbers with a sign or unit, which are no category."""
    for name in (column.name for column in known if column.kind == "category"):
        levels = sorted(set(columns[name].tolist()) - {""})
        if len(levels) > 10 and is_affixed(levels):
            raise ValueError(
                f"column {name!r} holds numbers with a sign or unit, as {levels[0][:20]!r}; write "
                "them without"
            )
