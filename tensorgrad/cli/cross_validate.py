"""``tensorgrad cross-validate``: how many hidden units? (Lectures, D8.)"""

from __future__ import annotations

import csv
import io
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tensorgrad import backend
from tensorgrad.cli.amounts import settle_amounts
from tensorgrad.cli.data import Data, load
from tensorgrad.cli.folder import new_results
from tensorgrad.cli.settings import DEFAULTS, read_toml
from tensorgrad.cli.train import check, loader_of, new_trainer, settle
from tensorgrad.data import k_fold, write_atomically
from tensorgrad.errors import TensorgradError
from tensorgrad.training.curves import draw_bars

_SIZES = ([2], [4], [8], [16], [32], [64])


class Row(NamedTuple):
    """A network, and its figure in each fold."""

    hidden: list[int]
    parameters: int
    figures: list[float]

    @property
    def mean(self) -> float:
        """The mean over the folds."""
        return float(np.mean(self.figures))

    @property
    def error(self) -> float:
        """The standard error of the mean."""
        return float(np.std(self.figures, ddof=1) / math.sqrt(len(self.figures)))

    @property
    def name(self) -> str:
        """The sizes of the hidden layers."""
        return ",".join(map(str, self.hidden)) or "none"


def cross_validate(folds: int, **given: Any) -> None:
    """Compare networks as the options ``given`` say; print the table, leave it in a folder.

    folds: into how many parts the data is cut. Raises TensorgradError or OSError for wrong input.
    """
    networks = given.pop("hidden", None)
    config = given.pop("config", None)
    base = {} if config is None else read_toml(config)
    if networks is None:
        networks = [base["hidden"]] if "hidden" in base else list(_SIZES)
    deepest = max(networks, key=len)  # options of hidden layers act if one has some
    settings = {**DEFAULTS, "model": "mlp", **base, **given, "hidden": deepest}
    if settings["model"] != "mlp":
        raise TensorgradError(
            f"cross-validate compares fully connected networks; {config} is of --model "
            f"{settings['model']}"
        )
    check(settings, given)
    if folds < 2:
        raise TensorgradError("--folds must be a whole number from 2")
    if settings["schedule"] == "plateau":
        raise TensorgradError(
            "--schedule plateau watches the validation loss, which is not measured while a fold is "
            "trained; take another"
        )
    settings["device"] = device = backend.normalize(settings["device"])
    data = load(settings, device)
    dropout = settings["dropout"]
    settle(settings, data, given)
    with new_results(settings["out"], f"{data.problem.name}-folds", "folds.csv") as folder:
        rows = []
        for hidden in networks:
            own = {**settings, "hidden": hidden, "dropout": dropout}
            settle_amounts(own, len(data.train), data.problem.kind)
            rows.append(_measured(data, own, folds))
            print(f"{rows[-1].name}: {rows[-1].mean:.4f}", file=sys.stderr, flush=True)
        figure = "accuracy" if data.problem.classes is not None else "r2"
        best = max(rows, key=lambda row: row.mean)
        print(_table(rows, figure, folds))
        print(f"best: {best.name}")
        # The one-standard-error rule (Breiman and others, 1984).
        enough = min(
            (row for row in rows if row.mean >= best.mean - best.error),
            key=lambda row: row.parameters,
        )
        print(f"the smallest within one standard error of it: {enough.name}")
        _write(folder, rows, figure)
        print(f"written to {folder}: folds.csv, folds.svg")


def _measured(data: Data, settings: dict[str, Any], folds: int) -> Row:
    """Train on all folds but one, k times; the test part is not looked at."""
    together = np.sort(np.concatenate([data.train.indices, data.validation.indices]))
    labels = None if data.labels is None else data.labels[together]
    figures = []
    parameters = 0
    name = "accuracy" if data.problem.classes is not None else "r2"
    settings["metrics"] = [name]
    for train, validation in k_fold(range(len(together)), folds, settings["seed"], stratify=labels):
        part = data._replace(
            train=type(data.train)(data.whole, together[train.indices]),
            validation=type(data.train)(data.whole, together[validation.indices]),
        )
        loader = loader_of(part.train, settings, training=True)
        trainer = new_trainer(part, settings, (), len(loader))
        parameters = sum(p.size for p in trainer.model.parameters())
        trainer.fit(loader, None, settings["epochs"])
        figures.append(trainer.evaluate(loader_of(part.validation, settings))[name])
        if not math.isfinite(figures[-1]):
            raise TensorgradError(
                f"{name} of fold {len(figures)} is {figures[-1]}, as the target does not vary in "
                f"its {len(part.validation)} examples; take fewer --folds, or more data"
            )
    return Row(settings["hidden"], parameters, figures)


def _table(rows: Sequence[Row], figure: str, folds: int) -> str:
    head = f"{'hidden':<12}{'parameters':>12}{figure:>12}{'std. error':>12}  of {folds} folds"
    lines = [
        f"{row.name:<12}{row.parameters:>12,}{row.mean:>12.4f}{row.error:>12.4f}  "
        + " ".join(f"{x:.3f}" for x in row.figures)
        for row in rows
    ]
    return "\n".join([head, *lines])


def _write(folder: Path, rows: Sequence[Row], figure: str) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    folds = [f"fold{i + 1}" for i in range(len(rows[0].figures))]
    writer.writerow(["hidden", "parameters", figure, "standard_error", *folds])
    for row in rows:
        writer.writerow([row.name, row.parameters, row.mean, row.error, *row.figures])
    write_atomically(folder / "folds.csv", text.getvalue().encode())
    picture = draw_bars(
        [row.name for row in rows],
        [row.mean for row in rows],
        [row.error for row in rows],
        figure,
        "hidden units",
    )
    write_atomically(folder / "folds.svg", picture.encode())
