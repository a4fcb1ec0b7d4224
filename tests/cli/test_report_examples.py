"""The report's examples: mistakes, predicted against true, a colour for each class; resuming."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from tensorgrad.cli import main
from tensorgrad.training.regions import colour_of

pytestmark = pytest.mark.usefixtures("empty_folder")

RNG = np.random.default_rng(0)
TRAIN = ["train", "--epochs", "2", "--hidden", "8", "--out"]


def page(run: str) -> str:
    assert main(["report", run]) == 0
    return Path(run, "report.html").read_text()


def test_mistakes_and_a_legend() -> None:
    """Of targets that follow from nothing some are wrong, in the units of the table."""
    rows = [
        f"{a:.3f},{1000 + b:.3f},k{i % 7}" for i, (a, b) in enumerate(RNG.normal(size=(140, 2)))
    ]
    Path("t.csv").write_text("\n".join(["one,two,kind", *rows]))
    assert main([*TRAIN, "run", "--data", "t.csv"]) == 0
    text = page("run")
    assert "<h2>Mistakes</h2>" in text
    assert "Predicted against true" not in text
    found = re.search(r"<td>(k\d) as (k\d)</td><td>0\.\d\d</td><td>[-.\de]+</td><td>(\d+)", text)
    assert found is not None
    assert found[1] != found[2]
    assert 990 <= int(found[3]) <= 1010
    legend = re.findall(r'color:(#\w{6})">&#9679;</span> (k\d)', text)
    assert [name for _, name in legend] == [f"k{i}" for i in range(7)]
    assert len({colour for colour, _ in legend}) == 7
    assert "<td>lr</td><td>0.002</td>" in text
    Path("t.csv").unlink()
    assert "The data is no longer there" in page("run")


def test_mistakes_among_images_are_shown() -> None:
    np.savez("d.npz", x=RNG.integers(0, 255, (90, 4, 5)).astype(np.uint8), y=np.arange(90) % 3)
    assert main([*TRAIN, "run", "--data", "d.npz"]) == 0
    assert re.search(r"<figcaption>\d as \d<br>0\.\d\d</figcaption>", page("run"))


def test_predicted_against_true() -> None:
    x = RNG.normal(size=(80, 2))
    rows = [f"{a:.4f},{b:.4f},{50 + 3 * a:.4f}" for a, b in x]
    Path("t.csv").write_text("\n".join(["one,two,price", *rows]))
    assert main([*TRAIN, "run", "--data", "t.csv"]) == 0
    text = page("run")
    assert "<h2>Predicted against true</h2>" in text
    assert "Mistakes" not in text
    assert text.count('fill-opacity="0.5"') == 12  # the test part


def test_classes_have_colours_of_their_own() -> None:
    assert len({colour_of(i) for i in range(50)}) == 50


def test_a_resumed_run_says_where_it_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TRAIN, "run", "--batch-size", "400"]) == 0
    capsys.readouterr()
    assert main(["resume", "run", "--epochs", "3"]) == 0
    assert "goes on after epoch 2 of 3, 8 steps" in capsys.readouterr().out
