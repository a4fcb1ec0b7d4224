"""Numbers that the commands print, against figures computed here."""

from __future__ import annotations

import csv
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tensorgrad import Tensor
from tensorgrad.cli import cross_validate, main, report, settings
from tensorgrad.cli.build import build_loss, build_schedule
from tensorgrad.cli.settings import DEFAULTS
from tensorgrad.optim import SGD

pytestmark = pytest.mark.usefixtures("empty_folder")


class Problem:
    """What the functions below ask of one."""

    classes = ("a", "b", "c")
    outputs = 3


def test_standard_errors_and_the_smallest_network_that_is_good_enough(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a sample: divided by one less than the folds. 16 units are within one of the best."""
    figures = {4: [0.6, 0.5, 0.7], 16: [0.90, 0.86, 0.88], 32: [0.93, 0.88, 0.89], 64: [0.89] * 3}

    def measured(data: Any, chosen: dict[str, Any], folds: int) -> Any:
        (size,) = chosen["hidden"]
        return cross_validate.Row([size], size * 10, figures[size])

    monkeypatch.setattr(cross_validate, "_measured", measured)
    command = ["cross-validate", "--folds", "3", "--epochs", "1", "--out", "cv"]
    sizes = [word for size in figures for word in ("--hidden", str(size))]
    assert main([*command, *sizes]) == 0
    printed = capsys.readouterr().out
    assert "best: 32" in printed
    assert "within one standard error of it: 64" not in printed
    rows = list(csv.DictReader(Path("cv/folds.csv").read_text().splitlines()))
    for row, values in zip(rows, figures.values(), strict=True):
        wanted = np.std(values, ddof=1) / math.sqrt(3)
        assert float(row["standard_error"]) == pytest.approx(wanted)
    # The mean of 32 units is 0.9, its error 0.0153; that of 16 is 0.88, that of 64 is 0.89.
    enough = [
        k for k, v in figures.items() if np.mean(v) >= 0.9 - np.std(figures[32], ddof=1) / 3**0.5
    ]
    assert f"within one standard error of it: {min(enough)}" in printed


def test_targets_of_sigmoid_outputs() -> None:
    """.9 for the right class and .1 for the others, half of the squared error an example."""
    loss = build_loss(Problem(), {**DEFAULTS, "loss": "squared-error"})  # type: ignore[arg-type]
    output = np.array([[0.9, 0.1, 0.1], [0.5, 0.4, 0.1]], np.float32)
    found = float(loss(Tensor(output), Tensor(np.array([0, 1]))).item())
    assert found == pytest.approx((0.4**2 + 0.5**2) / 4, rel=1e-5)


@pytest.mark.parametrize(
    ("convert", "good", "bad"),
    [
        (settings.share, ("0", "0.999"), ("1", "-0.1", "nan")),
        (settings.positive, ("1e-9",), ("0", "-1", "inf")),
        (settings.not_negative, ("0",), ("-1e-9", "nan")),
        (settings.count, ("1",), ("0", "1.5", "-2")),
        (settings.seed, ("0", str(2**64 - 1)), (str(2**64), "-1")),
    ],
)
def test_limits_of_settings(convert: Any, good: tuple[str, ...], bad: tuple[str, ...]) -> None:
    for text in good:
        assert float(convert(text)) == float(text)
    for text in bad:
        with pytest.raises(Exception, match="must be"):
            convert(text)


def test_shades_of_a_matrix_are_shares_of_its_rows() -> None:
    class Run:
        problem = Problem()

    matrix = [[6, 2, 0], [1, 3, 0], [0, 0, 0]]
    page = report._confusion(Run(), {"confusion": matrix})  # type: ignore[arg-type]
    shades = [float(x) for x in re.findall(r"rgba\(29,78,216,([0-9.]+)\)", page)]
    assert shades == [0.75, 0.25, 0, 0.25, 0.75, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("step", 1.0, 0.01),
        ("exponential", 1.0, 0.01 ** (9 / 10)),
        ("cosine", 1.0, (1 + math.cos(math.pi * 0.9)) / 2),
        ("polynomial", 1.0, 0.1),
    ],
)
def test_schedules_end_with_the_last_epoch(name: str, first: float, last: float) -> None:
    """The rates of the first and of the tenth epoch of ten, of 5 batches each."""
    optimizer = SGD([Tensor(np.zeros(1), requires_grad=True)], lr=1.0)
    schedule, every = build_schedule(optimizer, {**DEFAULTS, "schedule": name, "epochs": 10}, 5)
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        for _ in range(5 if every == "batch" else 1):
            schedule.step()
    assert rates[0] == pytest.approx(first)
    assert rates[-1] == pytest.approx(last, rel=1e-3)
