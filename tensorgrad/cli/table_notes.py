"""What a person should know of how a table was taken, each in a line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tensorgrad.cli.terminal import counted, printable
from tensorgrad.data.preparation import Column, columns_of, may_be_dates

Array = np.ndarray[Any, Any]
Notes = tuple[str, ...]

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_FEW = 10  # whole numbers that are classes beyond doubt


def on_names(path: Path, columns: Mapping[str, Array]) -> Notes:
    """Of a first line that was taken as names and looks like the rows below it."""
    names = list(columns)
    if names == [str(i) for i in range(len(names))]:  # there is no line of names
        return ()
    for (name, values), column in zip(columns.items(), columns_of(columns)):
        if column.kind == "number":
            like = _NUMBER.fullmatch(name) is not None
        elif column.kind == "date":
            like = columns_of({"": np.array([name, *values.tolist()])})[0].order == column.order
        else:
            like = name in column.levels
        if not like:
            return ()
    return (
        f"the first line of {path} was taken as names, and looks like data: "
        f"{printable(', '.join(names)[:60])}; if it is, put a line of names above it",
    )


def on_dates(columns: Sequence[Column]) -> Notes:
    """Of categories that are dates in which day and month cannot be told apart."""
    return tuple(
        f"column {column.name} is taken as categories, as its dates do not show which number is "
        f"the day: {column.levels[0]}; write them as 2026-11-30"
        for column in columns
        if column.kind == "category" and may_be_dates(column.levels)
    )


def on_classes(
    columns: Mapping[str, Array],
    target: str,
    classes: Sequence[str] | None,
    asked: bool,
) -> Notes:
    """Of many whole numbers that were taken as classes without being asked for."""
    numbers = columns[target].dtype.kind != "U"
    if not numbers or not classes or len(classes) <= _FEW or asked:
        return ()
    return (
        f"column {target} holds {len(classes)} different whole numbers, which are taken as "
        "classes; --task regression takes them as numbers",
    )


def on_levels(known: Sequence[Column], columns: Mapping[str, Array], codes: Array) -> Notes:
    """Of texts in categories that were not learnt, and of gaps where there were none."""
    notes = []
    for column, values in zip(known, codes.T):
        if column.kind != "category":
            continue
        other, gone = int((values == -1).sum()), int(np.isnan(values).sum())
        if other:
            texts = sorted(set(map(str, columns[column.name][values == -1].tolist())))
            shown = ", ".join(text[:20] for text in texts[:5]) + (", ..." if texts[5:] else "")
            notes.append(
                f"column {column.name}: {counted(other, 'row')} of {len(values):,} with what was "
                f"not among those to train on, taken as none of them: {printable(shown)}"
            )
        if gone and not column.missing:
            notes.append(
                f"column {column.name}: {counted(gone, 'row')} of {len(values):,} with nothing, "
                "where all to train on had something; taken as none of them"
            )
    return tuple(notes)
