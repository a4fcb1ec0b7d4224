"""``tensorgrad report``: one HTML page about a run, with everything it shows inside."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from tensorgrad import nn
from tensorgrad.cli.build import Run, load_run
from tensorgrad.cli.data import Data, expect, load, located
from tensorgrad.cli.folder import read_json
from tensorgrad.cli.report_examples import mistakes, predicted_against_true
from tensorgrad.cli.settings import DEFAULTS, OPTIMIZERS
from tensorgrad.cli.terminal import printable
from tensorgrad.data import write_atomically
from tensorgrad.errors import TensorgradError
from tensorgrad.files import DataFileError, read_whole
from tensorgrad.training.curves import draw_curves, draw_norms
from tensorgrad.training.regions import colour_of, draw_regions
from tensorgrad.viz.pictures import png

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:60em;padding:0 1em;"
    "color:#1e293b}h1{font-size:1.6em}h2{margin-top:2em;font-size:1.2em}"
    "table{border-collapse:collapse}td,th{padding:.15em .7em;text-align:right}"
    "th:first-child,td:first-child{text-align:left}.scroll{overflow-x:auto}"
    ".units img{width:84px;image-rendering:pixelated;margin:2px}svg{max-width:100%;height:auto}"
)
_MOST_UNITS, _MOST_POINTS = 64, 2000
Array = np.ndarray[Any, Any]


def report(run: str, out: str | None = None) -> None:
    """Write the page about the run in the folder ``run``.

    Raises TensorgradError or OSError if it is no finished run.
    """
    found = load_run(run, "cpu")
    result = _figures(found.folder / "result.json")
    history = _numbers(found.folder / "history.csv", "epoch")
    sections = [
        ("Result", _result(found, result)),
        ("Curves", f'<div class="scroll">{draw_curves(history)}</div>'),
        ("Confusion", _confusion(found, result)),
        *_of_examples(found),
        ("First layer", _units(found)),
        ("Gradient norms", _norms(found.folder / "gradients.csv")),
        ("Network", f"<pre>{escape(_network(found))}</pre>"),
        ("Settings", _settings(found)),
    ]
    body = "".join(f"<h2>{title}</h2>{content}" for title, content in sections if content)
    name = _text(found.folder.name)
    page = (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{name}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{name}: {_text(found.problem.name)}</h1>"
        f"{body}</body></html>\n"
    )
    path = Path(out) if out is not None else found.folder / "report.html"
    write_atomically(path, page.encode())
    print(f"written to {path}")


def _network(run: Run) -> str:
    """Its layers."""
    if run.problem.is_text:  # what they give depends on which tokens there are
        return str(run.model)
    return str(run.model.summary((1, run.problem.inputs)))


def _numbers(path: Path, count: str) -> list[dict[str, float]]:
    """The rows of a CSV file of numbers that a run left; the column ``count`` counts something."""
    rows = []
    try:
        text = io.StringIO(read_whole(path).decode("utf-8-sig"), newline="")
        for row in csv.DictReader(text):
            rows.append({name: float(value) for name, value in row.items() if value})
            if not 0 <= rows[-1][count] <= 1e15:
                raise ValueError(f"{count} {rows[-1][count]:g}")
    except DataFileError:
        raise
    except (ValueError, TypeError, KeyError, csv.Error) as error:
        raise TensorgradError(f"{path}: damaged ({str(error)[:100]}); train again") from error
    return rows


def _text(value: Any) -> str:
    """For the page: without tags, and without what UTF-8 does not have."""
    return escape(printable(str(value)))


def _table(rows: Iterable[tuple[str, Any]]) -> str:
    lines = [
        f"<tr><td>{_text(name)}</td><td>{_text(value)}</td></tr>"
        for name, value in rows
        if value is not None
    ]
    return f"<table>{''.join(lines)}</table>"


def _figures(path: Path) -> dict[str, Any]:
    """What ``train`` left in result.json: figures, and a confusion matrix of counts."""
    found = read_json(path)
    matrix = found.get("confusion", [])
    counts = isinstance(matrix, list) and all(
        isinstance(row, list)
        and len(row) == len(matrix)
        and all(type(count) is int and 0 <= count < 1 << 53 for count in row)
        for row in matrix
    )
    if not counts:
        raise TensorgradError(f"{path}: damaged (confusion is no matrix of counts); train again")
    for name, value in found.items():
        if name != "confusion" and not isinstance(value, int | float | str | None):
            raise TensorgradError(f"{path}: damaged ({name[:100]} is no figure); train again")
    return found


def _result(run: Run, result: Mapping[str, Any]) -> str:
    return _table(
        (name.replace("_", " "), f"{value:.6g}" if isinstance(value, float) else value)
        for name, value in result.items()
        if name != "confusion"
    )


def _confusion(run: Run, result: Mapping[str, Any]) -> str:
    matrix, classes = result.get("confusion"), run.problem.classes
    if not matrix or classes is None or len(matrix) > 50:
        return ""
    names = [*classes, *map(str, range(len(classes), len(matrix)))]
    head = "".join(f"<th>{_text(name)}</th>" for name in names)
    lines = []
    for name, row in zip(names, matrix):
        total = max(sum(row), 1)
        cells = "".join(
            f'<td style="background:rgba(29,78,216,{count / total:.2f});'
            f'color:{"#fff" if count / total > 0.5 else "inherit"}">{count or ""}</td>'
            for count in row
        )
        lines.append(f"<tr><td>{_text(name)}</td>{cells}</tr>")
    return (
        "<p>Rows: the right class; columns: the predicted one. Test data.</p>"
        f'<div class="scroll"><table><tr><th></th>{head}</tr>{"".join(lines)}</table></div>'
    )


def _settings(run: Run) -> str:
    """All settings, with the learning rate that was used if none was chosen."""
    used = dict(run.settings)
    if used["lr"] is None:
        used["lr"] = OPTIMIZERS[used["optimizer"]][1]
    return _table((name, used[name]) for name in sorted(DEFAULTS))


def _of_examples(run: Run) -> list[tuple[str, str]]:
    """What shows examples of the data, where it is still there and the same."""
    if run.problem.is_text:
        return []
    try:
        where = located(run.settings, run.folder)
        data = load({**run.settings, **where, "device": "cpu"}, "cpu")
        data = expect(data, run.problem, run.settings, run.folder, where.get("data"))
    except (TensorgradError, OSError):
        return [("Examples", "<p>The data is no longer there, or is not the same.</p>")]
    return [
        ("Predicted against true", predicted_against_true(run, data)),
        ("Mistakes", mistakes(run, data, png)),
        ("Decision regions", _regions(run, data)),
    ]


def _regions(run: Run, data: Data) -> str:
    """For two features: which class goes where."""
    problem = run.problem
    if problem.inputs != 2 or problem.classes is None:
        return ""
    places, labels = data.whole.take(np.arange(min(len(data.whole), _MOST_POINTS)))
    picture = draw_regions(run.model, places, labels, title="Decision regions")
    names = problem.input_names or ["first", "second"]
    legend = "".join(
        f'<span style="margin-right:1em"><span style="color:{colour_of(i)}">&#9679;</span> '
        f"{_text(name)}</span>"
        for i, name in enumerate(problem.classes)
    )
    return (
        f"<p>Across: {_text(names[0])}, up: {_text(names[1])}, both scaled. Points: the data.</p>"
        f"<p>{legend}</p>{picture}"
    )


def _units(run: Run) -> str:
    """The weights of the first layer as pictures, where the inputs are images."""
    shape = run.problem.shape
    first = next(m for m in run.model.modules() if isinstance(m, nn.Linear | nn.Conv2d))
    weight = first.weight.detach().numpy()[:_MOST_UNITS]
    if len(shape) < 2 or (isinstance(first, nn.Linear) and not run.settings["hidden"]):
        return ""
    pictures = weight if weight.ndim == 4 else weight.reshape(-1, *shape)
    if pictures.ndim == 4:
        pictures = pictures.mean(1)
    limit = float(np.abs(pictures).max()) or 1.0
    images = [
        f'<img alt="unit {i}" src="data:image/png;base64,'
        f'{base64.b64encode(png((127.5 + 127.5 * p / limit).astype(np.uint8))).decode()}">'
        for i, p in enumerate(pictures)
    ]
    return (
        "<p>The weights of each unit of the first layer: dark below 0, bright above.</p>"
        f'<div class="units">{"".join(images)}</div>'
    )


def _norms(path: Path) -> str:
    rows = _numbers(path, "step") if path.is_file() else []
    return f'<div class="scroll">{draw_norms(rows)}</div>' if rows else ""
