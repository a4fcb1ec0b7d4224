"""``tensorgrad evaluate`` and ``predict``: a trained network at work."""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tensorgrad import backend
from tensorgrad.autograd.modes import no_grad
from tensorgrad.cli import tables
from tensorgrad.cli.build import Run, Settings, build_loss, load_run, metrics_of
from tensorgrad.cli.data import PLACES, Problem, arrays_of, dataset_of, expect, located, read
from tensorgrad.cli.folder import json_text
from tensorgrad.cli.terminal import cell, printable
from tensorgrad.cli.text import Windows, decoded, encoded, figures, load, read_text
from tensorgrad.cli.train import check_kind, loader_of
from tensorgrad.data import (
    DataFileError,
    Subset,
    read_image,
    write_atomically,
)
from tensorgrad.data.images import SUFFIXES
from tensorgrad.errors import TensorgradError
from tensorgrad.nn.functional import softmax
from tensorgrad.optim import SGD
from tensorgrad.tensor import Tensor
from tensorgrad.training import ConfusionMatrix, Trainer

_FIGURES = ("accuracy", "precision", "recall", "f1", "roc_auc")
_SAVE_SO = "save it so: the network was trained on characters"
_MOST_CLASSES = 20  # whose confusion matrix is printed
Array = np.ndarray[Any, Any]


def evaluate(
    run: str,
    part: str | None = None,
    data: str | None = None,
    json: bool = False,
    device: str | None = None,
    **how: Any,
) -> None:
    """Print figures of the network in the folder ``run``.

    part: "train", "validation" or "test" of the run's own data ("test" if None), where ``data`` is
        not given.
    json: as one JSON object. how: image_size, image_root, label_pattern in place of the run's.

    Raises TensorgradError or OSError for wrong input.
    """
    place = backend.normalize(device)
    found = load_run(run, place)
    if part is not None and data is not None:
        raise TensorgradError("--part is of the run's own data; it cannot be given with --data")
    check_kind(how, found.settings["data"] if data is None else data)
    where = located(found.settings, found.folder)
    settings = {**found.settings, **where, **how, "device": place}
    problem = found.problem
    if data is None:
        _require_there(settings, found.folder)
        parts = expect(load(settings, place), problem, found.settings, run, settings["data"])
        examples = getattr(parts, part or "test")
    elif problem.is_text:
        examples = _windows(problem, settings, Path(data))
    else:
        raw = read(data, settings, tuple(problem.classes or ()), problem)
        for note in raw.notes:
            print(note, file=sys.stderr)
        examples = dataset_of(problem, raw, place)
    usual = ("r2", "mae", "mse") if problem.classes is None else _FIGURES
    trainer = Trainer(
        found.model,
        SGD(found.model.parameters()),
        build_loss(problem, settings),
        prepare=None if problem.is_text else problem.prepare(),
        metrics=metrics_of(problem, settings, ("accuracy",) if problem.is_text else usual),
        precision=settings["precision"],
    )
    if problem.classes is not None:
        trainer.metrics["confusion"] = ConfusionMatrix()
    measured = trainer.evaluated(loader_of(examples, settings))
    values = measured.compute()
    values.pop("confusion", None)
    if problem.is_text:
        values.update(figures(problem, values["loss"], examples))
    matrix = None
    if problem.classes is not None:
        confusion = measured.metric("confusion")
        assert isinstance(confusion, ConfusionMatrix)
        matrix = confusion.matrix()
    _print(values, matrix, problem, len(examples), json)


def _require_there(settings: Settings, folder: Path) -> None:
    """Refuse to look for data of a run that has been moved away from it."""
    for name in PLACES:
        place = settings[name]
        if place is None or os.path.exists(place):
            continue
        remedy = "put it back, or name what to evaluate on with --data"
        if name == "image_root":
            remedy = "say where it is now with --image-root"
        raise TensorgradError(
            f"{place}: there is no such file or folder, nor beside {folder}; {remedy}"
        )


def _print(
    values: dict[str, float], matrix: Array | None, problem: Problem, n: int, as_json: bool
) -> None:
    if as_json:
        content: dict[str, Any] = {"examples": n, **values}
        if matrix is not None:
            content.update(confusion=matrix.tolist(), classes=problem.classes)
        print(json_text(content))
        return
    print(f"{n:,} examples")
    for name, value in values.items():
        print(f"{name:<10} {value:.4f}")
    if matrix is not None and problem.classes is not None and len(matrix) <= _MOST_CLASSES:
        print("\nright class below, predicted class across")
        print(confusion_table(matrix, problem.classes))


def confusion_table(matrix: Any, classes: Sequence[str]) -> str:
    """The confusion matrix [classes, classes] with names, as text."""
    names = [printable(name)[:12] for name in classes] + [""] * (len(matrix) - len(classes))
    width = max(len(str(n)) for n in [*np.ravel(matrix).tolist(), *names]) + 2
    head = " " * width + "".join(name.rjust(width) for name in names)
    lines = [
        name.ljust(width) + "".join(str(int(n)).rjust(width) for n in row)
        for name, row in zip(names, matrix)
    ]
    return "\n".join([head, *lines])


def predict(
    run: str,
    inputs: Sequence[str],
    out: str | None = None,
    device: str | None = None,
    **how: Any,
) -> None:
    """Print a line of CSV for each example in the files ``inputs``.

    Raises TensorgradError or OSError, before anything is printed, for files that cannot be used.
    """
    place = backend.normalize(device)
    found = load_run(run, place)
    settings = {**found.settings, **how}
    if "image_size" in how and not any(Path(path).suffix.lower() in SUFFIXES for path in inputs):
        raise TensorgradError("--image-size is for image files, and there is none among the inputs")
    if found.problem.is_text:
        _write([["example", "next", "probability"], *_next(found, inputs, place)], out)
        return
    rows = [row for path in inputs for row in _predicted(found, settings, Path(path), place)]
    problem = found.problem
    head = ["example"]
    if problem.classes is not None:
        head += ["class", "probability"]
    else:
        head += ["value"] if problem.outputs == 1 else [f"value{i}" for i in range(problem.outputs)]
    _write([head, *rows], out)


def _write(rows: Iterable[Sequence[str]], out: str | None) -> None:
    """As CSV, on the screen or into a file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    if out is None:
        sys.stdout.write(text.getvalue())
    else:
        write_atomically(out, text.getvalue().encode())


def _windows(problem: Problem, settings: Settings, path: Path) -> Subset:
    """Another text, for a network that was trained on ``problem``."""
    tokens = encoded(problem, read_text(path, settings["tokens"], _SAVE_SO), path)
    if len(tokens) <= problem.shape[0]:
        raise TensorgradError(
            f"{path}: {len(tokens)} {settings['tokens']} are fewer than the {problem.shape[0] + 1} "
            "that the network looks at"
        )
    return Windows(tokens, problem.shape[0]).one_after_another()


def _next(run: Run, paths: Sequence[str], device: str) -> Iterable[list[str]]:
    """For each text its likeliest next token, and how likely that is."""
    problem = run.problem
    for path in paths:
        tokens = encoded(problem, read_text(Path(path), run.settings["tokens"], _SAVE_SO), path)
        if not len(tokens):
            raise TensorgradError(f"{path}: there is no text; put some there")
        recent = tokens[-problem.shape[0] :].astype(np.int64)
        with no_grad():
            shares = softmax(run.model(Tensor(recent[None], device=device))[0, -1]).cpu().numpy()
        best = int(shares.argmax())
        yield [cell(path), cell(decoded(problem, np.array([best]))), f"{shares[best]:.4f}"]


def _predicted(run: Run, settings: Settings, path: Path, device: str) -> Iterable[list[str]]:
    """The rows of the answer to one file."""
    problem = run.problem
    names, raw = _inputs(problem, settings, path)
    with no_grad():
        output = run.model(problem.prepare()(Tensor(problem.rows(raw), device=device)))
        if problem.classes is None:
            numbers = problem.given(output.cpu().numpy())
            return [[cell(n), *(f"{v:.6g}" for v in row)] for n, row in zip(names, numbers)]
        if settings["loss"] == "cross-entropy":
            output = softmax(output)
        shares = output.cpu().numpy()
    if settings["loss"] != "cross-entropy":  # targets .1 and .9: brought to a sum of 1
        shares = np.clip((shares - 0.1) / 0.8, 1e-6, 1)
        shares = shares / shares.sum(1, keepdims=True)
    best = shares.argmax(1)
    labels = problem.classes
    return [
        [cell(name), cell(labels[k]) if k < len(labels) else str(k), f"{row[k]:.4f}"]
        for name, k, row in zip(names, best.tolist(), shares)
    ]


def _inputs(problem: Problem, settings: Settings, path: Path) -> tuple[list[str], Array]:
    """The names of the examples in a file, and their inputs as they are there."""
    if not path.is_file():
        raise TensorgradError(
            f"{path}: "
            + (
                f"a folder; name the files, as {path}/*.png"
                if path.is_dir()
                else "not a file, but a FIFO or a device"
                if path.exists()
                else "no such file; check the name"
            )
        )
    if path.suffix.lower() in SUFFIXES:
        size = settings["image_size"]
        if size is None and len(problem.shape) >= 2:
            size = problem.shape[-2:]
        return [str(path)], read_image(path, size, grey=len(problem.shape) == 2)[None]
    if path.suffix == ".npz":
        arrays = arrays_of(path)
        found = next((arrays[n] for n in ("x", "x_test", "inputs", "images") if n in arrays), None)
        if found is None or found.ndim < 2 or not len(found) or found.dtype.kind not in "biuf":
            raise DataFileError(
                path,
                f"holds {', '.join(arrays)}, and no array x [n, ...] of numbers with an example",
                "save it as x",
            )
        return [f"{path}:{i}" for i in range(len(found))], found
    if not problem.features:
        raise DataFileError(
            path, "the network wants images or arrays", "give a file of the kind it was trained on"
        )
    rows, notes = tables.rows_of(path, problem.features, problem.prepared, problem.decimal)
    for note in notes:
        print(f"{path}: {note}", file=sys.stderr)
    return [f"{path}:{i + 1}" for i in range(len(rows))], rows
