"""Tables as people have them: which columns the commands use, and how these are prepared."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tensorgrad.cli import table_notes
from tensorgrad.data import DataFileError, table_examples
from tensorgrad.data.numerals import unlike
from tensorgrad.data.preparation import Column, coded, columns_of
from tensorgrad.data.spreadsheets import read_any
from tensorgrad.data.tables import in_float32, is_affixed
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
    complete: Sequence[str] = (),
) -> Table:
    """The table at ``path``.

    classes: as for ``cli.data.read``. features: the names of the columns to predict from; all that
    serve if None. known: how they were coded, where that is known. decimal: the decimal sign, where
    it is known. complete: those in which nothing may be missing.

    Raises DataFileError, or TensorgradError naming the option that helps.
    """
    target = settings["target"]
    asked = classes is not None or settings["task"] is not None
    place = -1 if target is None else target
    impute = settings["missing"] == "impute" and (not features or bool(known) or classes is None)
    try:
        reading = read_any(
            path,
            columns=None if features is None else [*features, place],
            texts=[place] if classes else (),
            missing=impute,
            complete=[place, *complete],
            decimal=decimal,
        )
        columns = reading.columns
        target = list(columns)[-1] if target is None else target
        if target not in columns:
            table_examples(columns, target, features, classes)  # says what there is
        values = {target: columns[target]}
        rest = {name: column for name, column in columns.items() if name != target}
        notes = reading.notes
        if classes is None:
            notes += table_notes.on_names(path, columns)
        if features is None:
            rest, left_out = _that_serve(rest)
            notes += left_out
        else:
            rest = {name: rest[name] for name in features if name in rest}
        if not known and _is_plain(rest):
            found = table_examples(
                {**rest, **values}, target, features, classes, task=settings["task"]
            )
            notes += table_notes.on_classes(values, target, found.classes, asked)
            return Table(
                *found[:2], found.classes, found.features, target, (), notes, reading.decimal
            )
        columns_now, inputs, said = _coded(rest, known)
        notes += said
        one = table_examples(
            {"": np.zeros(len(inputs)), **values}, target, [""], classes, task=settings["task"]
        )
        notes += table_notes.on_classes(values, target, one.classes, asked)
    except DataFileError:
        raise
    except ValueError as error:
        raise TensorgradError(f"{path}: {error} (--target, --features)") from error
    return Table(
        inputs, one.targets, one.classes, tuple(rest), target, columns_now, notes, reading.decimal
    )


def _coded(
    columns: Mapping[str, Array], known: Sequence[Column]
) -> tuple[tuple[Column, ...], Array, tuple[str, ...]]:
    """How columns are coded, as ``known`` where that is known; their codes; and notes.

    Raises ValueError for numbers with a unit, or that float32 cannot hold.
    """
    found = tuple(known) or columns_of(columns)
    _refuse_units(columns, found if not known else ())
    codes = coded(columns, found)
    for i, column in enumerate(found):
        if column.kind == "number":
            in_float32(column.name, codes[:, i], gaps=True)
    if known:
        return found, codes, table_notes.on_levels(known, columns, codes)
    return found, codes, table_notes.on_dates(found)


def rows_of(
    path: Path, features: Sequence[str], known: Sequence[Column], decimal: str | None
) -> tuple[Array, tuple[str, ...]]:
    """The rows to predict from in a file like the one that was trained on, and notes on them.

    decimal: the sign in the numbers of that one.

    Raises DataFileError for one that is not.
    """
    columns, _, notes = read_any(path, features, (), bool(known), complete_of(known), decimal)
    try:
        if known:
            codes = coded(columns, known)
            return codes, (*notes, *table_notes.on_levels(known, columns, codes))
    except ValueError as error:
        raise DataFileError(path, str(error), "write it as in the table trained on") from error
    for name in features:
        if columns[name].dtype.kind != "f":
            cell = str(columns[name][0])
            raise DataFileError(
                path,
                f"column {name} must hold numbers, not {cell[:20]!r}"
                + (", which has a comma" if unlike(cell) == "a comma" else ""),
                "write them as in the table trained on",
            )
    rows = np.stack([columns[name] for name in features], axis=1)
    with np.errstate(over="ignore"):  # an infinity is refused with what is too far from the rest
        found: Array = rows.astype(np.float32)
    return found, notes


def complete_of(known: Sequence[Column]) -> list[str]:
    """The columns in which nothing may be missing, as nothing was in those to train on."""
    return [c.name for c in known if c.kind != "category" and not c.missing]


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
            if is_affixed([text for text in values.tolist() if text]):
                why += f", numbers with {unlike(values[0])}, as {values[0][:20]}"
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
                f"column {name!r} holds numbers with {unlike(levels[0])}, as {levels[0][:20]!r}; "
                "write them without"
            )
