"""The applications of docs/images.md and of docs/e2-faces.md that convolve, reduced."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tensorgrad.cli import main

DATA = Path(os.environ.get("TENSORGRAD_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))

pytestmark = pytest.mark.usefixtures("empty_folder")


def accuracy_of(*options: str) -> float:
    """The share of the test images that are classified correctly."""
    assert main(["train", *options, "--no-compile", "--out", "run"]) == 0
    return float(json.loads(Path("run", "result.json").read_text())["test_accuracy"])


def test_faces_by_a_convolutional_network() -> None:
    """Few channels and few epochs: more than three of four; by chance it were one."""
    folder = DATA / "cmu-faces"
    if not folder.is_dir():
        pytest.skip("no cmu-faces in $TENSORGRAD_TEST_DATA")
    assert accuracy_of(
        "--data", str(folder / "splits/all_train.list"),
        "--test", str(folder / "splits/all_test2.list"),
        "--image-root", str(folder / "faces_4"), "--label-pattern", "_(left|right|straight|up)_",
        "--model", "cnn", "--channels", "4,8", "--hidden", "32", "--dropout", "0",
        "--epochs", "10", "--lr", "0.005",
    ) > 0.75  # fmt: skip


def test_digits_by_a_residual_network() -> None:
    """The ones that come along, by 14 layers."""
    assert accuracy_of(
        "--model", "resnet", "--depth", "14", "--channels", "4", "--epochs", "3",
        "--lr", "0.01", "--schedule", "one-cycle",
    ) > 0.85  # fmt: skip
