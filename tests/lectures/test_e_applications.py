"""Rows E1 to E4, D7, D8 and D10 of the lectures: the applications, as the commands run them.

Those that need data from outside run where it is there, E1 in a reduced form (tests/test_mnist.py
has the full one).
"""

from __future__ import annotations

import csv
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

from tensorgrad.cli import demos, main

DATA = Path(os.environ.get("TENSORGRAD_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))


pytestmark = pytest.mark.usefixtures("empty_folder")


def needs(name: str) -> Path:
    if not (DATA / name).is_dir():
        pytest.skip(f"no {name} in $TENSORGRAD_TEST_DATA")
    return DATA / name


def accuracy(run: str) -> float:
    return float(json.loads(Path(run, "result.json").read_text())["test_accuracy"])


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_E1_digits_in_one_command(name: str) -> None:
    """One epoch: above 93 %, and 80 % of the clothes."""
    folder = needs(name)
    assert main(["train", "--data", str(folder), "--hidden", "64", "--epochs", "1", "--dropout",
                 "0", "--batch-size", "64", "--out", "run"]) == 0  # fmt: skip
    assert accuracy("run") > (0.93 if name == "mnist" else 0.8)


def test_E2_direction_of_faces(capsys: pytest.CaptureFixture[str]) -> None:
    """960-3-4 sigmoid units, targets .1 and .9, eta = alpha = .3, 100 epochs: 88 % over 5 seeds."""
    folder = needs("cmu-faces")
    found = []
    for seed in range(5):
        assert main([
            "train", "--data", str(folder / "splits/all_train.list"),
            "--test", str(folder / "splits/all_test2.list"),
            "--image-root", str(folder / "faces_4"),
            "--label-pattern", "_(left|right|straight|up)_", "--hidden", "3",
            "--activation", "sigmoid", "--loss", "squared-error", "--optimizer", "sgd",
            "--lr", "0.3", "--momentum", "0.3", "--batch-size", "1", "--epochs", "100",
            "--patience", "100", "--init", "small-uniform", "--dropout", "0",
            "--seed", str(seed), "--out", f"run{seed}",
        ]) == 0  # fmt: skip
        found.append(accuracy(f"run{seed}"))
    assert "network 960-3-4" in capsys.readouterr().out
    assert np.mean(found) >= 0.88
    assert main(["report", "run0"]) == 0
    assert Path("run0/report.html").read_text().count('alt="unit') == 3


def test_E3_vowels_with_regions() -> None:
    """Ten vowels from two formants, and where each is heard."""
    table = needs("vowels") / "pb52.csv"
    assert main(["train", "--data", str(table), "--features", "f1,f2", "--target", "vowel",
                 "--hidden", "24", "--dropout", "0", "--epochs", "60",
                 "--out", "run"]) == 0  # fmt: skip
    assert accuracy("run") > 0.7
    assert main(["report", "run"]) == 0
    page = Path("run/report.html").read_text()
    assert "Decision regions" in page
    assert page.count("<circle") > 1000


def test_E4_steering(capsys: pytest.CaptureFixture[str]) -> None:
    """Learned from synthetic roads: far better than driving straight on."""
    assert main(["demo", "steering", "--out", "run"]) == 0
    out = capsys.readouterr().out
    error, straight = (float(x) for x in re.findall(r"(0\.\d+)", out)[:2])
    assert error < 0.25 * straight
    assert {"roads.png", "hidden-units.png"} <= {p.name for p in Path("run").iterdir()}


def test_E4_roads_and_targets() -> None:
    """A hill of .9 around the direction, from which the direction is read again."""
    rng = np.random.default_rng(0)
    pictures, directions = demos.road(rng, 50)
    assert pictures.shape == (50, 30, 32)
    assert pictures.min() >= 0
    assert pictures.max() <= 1
    targets = demos.steering_targets(directions)
    assert targets.shape == (50, 30)
    assert 0.1 <= targets.min() <= targets.max() <= 0.9 + 1e-6
    np.testing.assert_allclose(demos.steering_of(targets), directions, atol=0.02)
    mirrored = pictures[:, :, ::-1]
    brighter_left = pictures[:, :15, :16].mean((1, 2)) - mirrored[:, :15, :16].mean((1, 2))
    assert np.corrcoef(brighter_left, directions)[0, 1] < -0.7


def test_D7_overfitting_and_early_stopping(capsys: pytest.CaptureFixture[str]) -> None:
    """Training goes on to fall, validation turns, the weights of the turn are kept."""
    assert main(["demo", "overfitting", "--out", "run"]) == 0
    rows = re.findall(r"^(\d+) +(\d\.\d+) +(\d\.\d+)(.*)$", capsys.readouterr().out, re.M)
    figures = {int(epoch): (float(a), float(b)) for epoch, a, b, _ in rows}
    (best,) = (int(epoch) for epoch, _, _, note in rows if "lowest" in note)
    last = max(figures)
    assert 1 < best < last
    assert figures[last][0] < figures[best][0]
    assert figures[last][1] > 1.1 * figures[best][1]


def test_D8_number_of_hidden_units() -> None:
    """One command, a table: too few units are worse."""
    assert main(["cross-validate", "--hidden", "1", "--hidden", "16", "--folds", "3", "--epochs",
                 "6", "--out", "run"]) == 0  # fmt: skip
    rows = list(csv.DictReader(Path("run/folds.csv").read_text().splitlines()))
    assert float(rows[1]["accuracy"]) > float(rows[0]["accuracy"]) + 0.2


def test_D10_vanishing_gradients(capsys: pytest.CaptureFixture[str]) -> None:
    """The sigmoid network's first layer gets orders of magnitude less; a table and pictures."""
    assert main(["demo", "vanishing-gradients", "--out", "run"]) == 0
    rows = re.findall(r"^(\d+) +(\S+e\S+) +(\S+e\S+)$", capsys.readouterr().out, re.M)
    assert len(rows) == 11
    sigmoid = [float(row[1]) for row in rows]
    relu = [float(row[2]) for row in rows]
    assert sigmoid[0] < 1e-4 * relu[0]
    assert sigmoid[0] < 1e-4 * sigmoid[-1]
    assert min(relu) > 0.05 * max(relu)
    assert "<polyline" in Path("run/sigmoid.svg").read_text()


def test_D11_as_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    """Both networks and both pictures."""
    assert main(["demo", "xor", "--out", "run"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"perceptron: [123] of 4 right", out)
    assert "two-layers: 4 of 4 right" in out
    assert {"perceptron.svg", "two-layers.svg"} <= {p.name for p in Path("run").iterdir()}
