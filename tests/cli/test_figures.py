"""Numbers that the commands print, against figures computed here."""

from __future__ import annotations

import csv
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tensorgrad import Tensor, nn
from tensorgrad.cli import cross_validate, main, report, settings
from tensorgrad.cli.build import build_loss, build_penalty, build_schedule, load_run
from tensorgrad.cli.data import Problem
from tensorgrad.cli.settings import DEFAULTS
from tensorgrad.optim import SGD
from tensorgrad.optim.lr_scheduler import LRScheduler

pytestmark = pytest.mark.usefixtures("empty_folder")


class Classes:
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
    loss = build_loss(Classes(), {**DEFAULTS, "loss": "squared-error"})  # type: ignore[arg-type]
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
        problem = Classes()

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
    assert isinstance(schedule, LRScheduler)
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        for _ in range(5 if every == "batch" else 1):
            schedule.step()
    assert rates[0] == pytest.approx(first)
    assert rates[-1] == pytest.approx(last, rel=1e-3)


def test_numbers_come_back_in_the_units_of_the_data() -> None:
    """What the network is to give, and what it gives, are the reverse of each other."""
    problem = Problem(
        name="x", shape=[1], classes=None, features=["a"], mean=[0.0], std=[1.0],
        target_mean=[3.0, -200.0], target_std=[0.5, 40.0],
    )  # fmt: skip
    targets = np.array([[3.5, -160.0], [2.0, -200.0]], np.float32)
    np.testing.assert_allclose(problem.wanted(targets), [[1, 1], [-2, 0]])
    np.testing.assert_allclose(problem.given(problem.wanted(targets)), targets)


def test_penalties_of_commands_are_on_weights_alone() -> None:
    model = nn.Linear(2, 2)
    model.weight.detach().copy_(Tensor([[1.0, -2.0], [0.5, 0.0]]))
    assert model.bias is not None
    model.bias.detach().copy_(Tensor([7.0, 7.0]))
    for l1, l2 in ((0.1, 0.0), (0.0, 0.2), (0.1, 0.2)):
        penalty = build_penalty(model, {"l1": l1, "l2": l2})
        assert penalty is not None
        assert float(penalty().item()) == pytest.approx(l1 * 3.5 + l2 * 5.25)
    assert build_penalty(model, {"l1": 0.0, "l2": 0.0}) is None


def test_shares_of_sigmoid_outputs(capsys: pytest.CaptureFixture[str]) -> None:
    """Brought from .1 to .9 to 0 to 1, and to a sum of 1."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((90, 3)).round(3)
    lines = [f"{a},{b},{c},{'pqr'[int(np.argmax([a, b, c]))]}" for a, b, c in x.tolist()]
    Path("t.csv").write_text("a,b,c,class\n" + "\n".join(lines) + "\n")
    command = ["train", "--data", "t.csv", "--epochs", "2", "--out", "run", "--hidden", "none"]
    assert main([*command, "--loss", "squared-error"]) == 0
    Path("q.csv").write_text("a,b,c\n" + "\n".join(f"{a},{b},{c}" for a, b, c in x[:5].tolist()))
    capsys.readouterr()
    assert main(["predict", "run", "q.csv"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    run = load_run("run", "cpu")
    outputs = run.model(Tensor(run.problem.rows(x[:5].astype(np.float32)))).detach().numpy()
    shares = np.clip((outputs - 0.1) / 0.8, 1e-6, 1)
    shares /= shares.sum(1, keepdims=True)
    assert [row["class"] for row in rows] == ["pqr"[k] for k in outputs.argmax(1)]
    found = [float(row["probability"]) for row in rows]
    np.testing.assert_allclose(found, shares.max(1), atol=2e-4)
