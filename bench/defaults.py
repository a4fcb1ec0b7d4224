"""What ``tensorgrad train`` reaches without an option, beside scikit-learn with its defaults.

    python -m bench.defaults                     # all data sets, 5 seeds, some minutes
    python -m bench.defaults --only iris --seeds 20

Each seed divides the data anew, three quarters to train on, stratified; both contestants get the
same two parts. Ours runs as a person calls it, in a process of its own, and puts its validation
part aside from what it is given; the peer is StandardScaler and MLPClassifier, for numbers
StandardScaler and RidgeCV, which train on all of it. Needs scikit-learn, and for the vowels and the
faces a folder that holds them: --folder, or the variable TENSORGRAD_TEST_DATA. Exit code 1 if ours
is below a bar.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.machine import ROOT
from tensorgrad.data import image_folder

Array = np.ndarray[Any, Any]
BELOW_RIDGE = 0.02  # how far R² may be below the peer's
SECONDS = 20.0  # of processor time for a run, start of the process and compilation included


class Table(NamedTuple):
    """Rows of numbers, and a class (a text) or a number for each."""

    inputs: Array
    targets: Array

    def write(self, folder: Path, rows: dict[str, Array]) -> list[str]:
        """Both parts as CSV files; returns the options that name them."""
        for part, where in rows.items():
            with (folder / f"{part}.csv").open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow([*(f"x{i}" for i in range(self.inputs.shape[1])), "y"])
                for x, y in zip(self.inputs[where].tolist(), self.targets[where].tolist()):
                    writer.writerow([*x, y])
        return ["--data", str(folder / "train.csv"), "--test", str(folder / "test.csv")]


class Images(NamedTuple):
    """Images by their files, and a class for each."""

    inputs: Array
    targets: Array
    files: list[Path]

    def write(self, folder: Path, rows: dict[str, Array]) -> list[str]:
        """Both parts as folders, with a folder for each class; returns the option for them."""
        for part, where in rows.items():
            for i in where.tolist():
                place = folder / "images" / part / str(self.targets[i])
                place.mkdir(parents=True, exist_ok=True)
                shutil.copy(self.files[i], place)
        return ["--data", str(folder / "images")]


Data = Table | Images


def _of_sklearn(name: str) -> Table:
    from sklearn import datasets

    inputs, targets = getattr(datasets, f"load_{name}")(return_X_y=True)
    if targets.dtype.kind == "i":
        targets = np.array([f"c{y}" for y in targets])
    return Table(inputs, targets)


def _vowels(folder: Path) -> Table:
    """Pitch and formants of American vowels (Peterson and Barney)."""
    with (folder / "vowels" / "pb52.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    inputs = [[float(row[name]) for name in ("f0", "f1", "f2", "f3")] for row in rows]
    return Table(np.array(inputs), np.array([row["vowel"] for row in rows]))


def _british_vowels(folder: Path) -> Table:
    """Ten features of steady vowels (Deterding and Robinson)."""
    rows = np.loadtxt(folder / "vowels" / "vowel-context.data", delimiter=",")
    return Table(rows[:, 3:-1], np.array([f"c{y:.0f}" for y in rows[:, -1]]))


def _faces(folder: Path) -> Images:
    """Which way a face looks."""
    files = sorted((folder / "cmu-faces" / "faces_4").glob("*/*.pgm"))
    with tempfile.TemporaryDirectory() as place:
        for file in files:
            (Path(place) / file.name.split("_")[1]).mkdir(exist_ok=True)
            shutil.copy(file, Path(place) / file.name.split("_")[1])
        found = image_folder(place)
        pixels, labels = found.load()
        order = sorted(files, key=lambda file: (file.name.split("_")[1], file.name))
    classes = np.array([found.classes[i] for i in labels.tolist()])
    assert classes.tolist() == [file.name.split("_")[1] for file in order]
    return Images(pixels.reshape(len(pixels), -1), classes, order)


DATA: dict[str, Callable[[Path], Data]] = {
    "iris": lambda folder: _of_sklearn("iris"),
    "wine": lambda folder: _of_sklearn("wine"),
    "breast cancer": lambda folder: _of_sklearn("breast_cancer"),
    "digits": lambda folder: _of_sklearn("digits"),
    "diabetes": lambda folder: _of_sklearn("diabetes"),
    "vowels": _vowels,
    "british vowels": _british_vowels,
    "faces": _faces,
}


def peer(data: Data, rows: dict[str, Array], seed: int) -> float:
    """Accuracy of scikit-learn on the test part, or R²."""
    from sklearn.linear_model import RidgeCV
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    numbers = data.targets.dtype.kind == "f"
    last = RidgeCV() if numbers else MLPClassifier(random_state=seed)
    model = make_pipeline(StandardScaler(), last)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 200 epochs are not enough, says its default
        model.fit(data.inputs[rows["train"]], data.targets[rows["train"]])
    return float(model.score(data.inputs[rows["test"]], data.targets[rows["test"]]))


def parts(data: Data, seed: int) -> dict[str, Array]:
    """The rows to train and those to test with."""
    from sklearn.model_selection import train_test_split

    labels = None if data.targets.dtype.kind == "f" else data.targets
    train, test = train_test_split(
        np.arange(len(data.targets)), random_state=seed, test_size=0.25, stratify=labels
    )
    return {"train": train, "test": test}


def ours(options: list[str], seed: int, folder: Path) -> tuple[float, float]:
    """Accuracy (or R²) of a run with the options that name the data, and its processor seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "tensorgrad", "train", *options, "--seed", str(seed)]
    subprocess.run(
        [*command, "--out", str(folder / "run")],
        cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=600,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)  # of the compiler too
    taken = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    result = json.loads((folder / "run" / "result.json").read_text())
    return float(result["test_accuracy" if "test_accuracy" in result else "test_r2"]), taken


def measured(data: Data, seeds: int) -> Iterator[tuple[float, float, float]]:
    """For each seed our figure, the peer's, and our seconds."""
    for seed in range(seeds):
        rows = parts(data, seed)
        with tempfile.TemporaryDirectory() as place:
            found, seconds = ours(data.write(Path(place), rows), seed, Path(place))
        yield found, peer(data, rows, seed), seconds


def main(argv: list[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="bench.defaults", description=__doc__)
    parser.add_argument("--only", action="append", choices=tuple(DATA), help="some of them")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=os.environ.get("TENSORGRAD_TEST_DATA"))
    given = parser.parse_args(argv)
    folder = Path(given.folder or ROOT / "data")
    failed = False
    print(f"{'data':<15}{'ours':>8}{'peer':>8}{'bar':>8}{'slowest':>10}")
    for name in given.only or DATA:
        try:
            data = DATA[name](folder)
        except FileNotFoundError as error:
            print(f"{name:<15}left out: {error}")
            continue
        figures = np.array(list(measured(data, given.seeds)))
        own, theirs = figures[:, :2].mean(0)
        bar = theirs - (BELOW_RIDGE if data.targets.dtype.kind == "f" else 0)
        good = own >= bar and figures[:, 2].max() < SECONDS
        failed |= not good
        print(
            f"{name:<15}{own:>8.4f}{theirs:>8.4f}{bar:>8.4f}{figures[:, 2].max():>8.1f} s"
            + ("" if good else "  below the bar"),
            flush=True,
        )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
