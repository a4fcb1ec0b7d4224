"""What happens while it learns: races, conditions to stop, NaN, changes by hand, the lesson."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tensorgrad.playground import PlaygroundError, Session, Settings, from_fragment
from tensorgrad.playground.curve import Curve


def session(**values: Any) -> Session:
    return Session(Settings().changed(values))


def do(own: Session, **command: Any) -> dict[str, Any]:
    return own.command(command)


def test_optimizers_race_from_the_same_weights_over_the_same_batches() -> None:
    own = session(layers=[2])
    own.step(10)
    do(own, type="race", optimizers=["sgd:0.03", "adam"])
    assert own.learner.steps == 0
    own.step(50)
    alike, other = own.racers["sgd"], own.racers["adam"]
    assert alike.curve.rows == own.learner.curve.rows
    assert other.curve.rows[0] == own.learner.curve.rows[0]
    assert other.curve.rows[1:] != own.learner.curve.rows[1:]
    race = own.frame()["race"]
    assert [(one["optimizer"], one["rate"]) for one in race] == [("sgd", 0.03), ("adam", 0.01)]
    do(own, type="set", rate=0.1)  # of the network that is shown alone
    assert other.trainer.optimizer.param_groups[0]["lr"] == 0.01
    do(own, type="race", stop=True)
    assert own.frame()["race"] == []
    assert own.learner.steps == 50


def test_training_stops_when_the_condition_holds_and_goes_on_without_it() -> None:
    own = session(layers=[], stop_epochs=3)
    do(own, type="play")
    assert own.step(1000) == 75
    assert (own.state, own.running) == ("stopped", False)
    assert "3 epochs" in own.frame()["reason"]
    with pytest.raises(PlaygroundError, match="3 epochs are done"):
        do(own, type="play")
    do(own, type="set", show_test=True)
    assert own.state == "stopped"
    do(own, type="set", stop_epochs=0, stop_loss=0.55, data="gauss")
    do(own, type="play")
    own.step(1000)
    assert own.state == "stopped"
    assert own.learner.losses()[0] <= 0.55  # type: ignore[operator]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"data": "plane", "rate": 900, "layers": [3], "activation": "relu"}, "in the loss"),
        ({"data": "plane", "rate": 1000, "layers": [3, 3], "activation": "linear",
          "features": ["x2", "y2"]}, "layer"),
    ],
)  # fmt: skip
def test_a_nan_is_reported_with_its_origin(values: dict[str, Any], said: str) -> None:
    own = session(**values)
    do(own, type="play")
    own.step(500)
    frame = own.frame()
    assert (frame["state"], own.running) == ("nan", False)
    assert said in frame["reason"]
    assert "the first NaN or Inf" in frame["reason"] or "the first with NaN" in frame["reason"]
    assert ".py" not in frame["reason"]
    json.dumps(frame, allow_nan=False)
    assert all(w is not None for layer in frame["weights"] for row in layer for w in row)
    with pytest.raises(PlaygroundError, match="not finite"):
        do(own, type="play")
    do(own, type="reset")
    assert own.state == "paused"


def test_a_reset_gives_the_same_first_weights_and_others_if_asked() -> None:
    own = session(layers=[2])
    first = own.frame()["weights"]
    own.step(3)
    assert own.frame()["weights"] != first
    do(own, type="reset")
    assert own.frame()["weights"] == first
    do(own, type="reset", new=True)
    assert own.frame()["weights"] != first
    assert own.settings.init_seed == 1
    points = own.data.points
    do(own, type="regenerate")
    assert (own.data.points != points).any()


def test_changes_while_it_runs_keep_what_was_learned() -> None:
    own = session(layers=[2])
    own.step(30)
    learner = own.learner
    do(own, type="set", rate=0.1, noise=20, batch=5, optimizer="momentum", train_share=80)
    do(own, type="points", add=[[1, 1, 1]])
    assert own.learner is learner
    assert learner.trainer.optimizer.param_groups[0]["lr"] == 0.1
    assert own.step(5) == 5
    assert own.learner.steps == 35
    do(own, type="weight", layer=1, unit=0, input=1, value=0.75)
    do(own, type="bias", layer=0, unit=1, value=-0.5)
    frame = own.frame()
    assert (frame["weights"][1][0][1], frame["biases"][0][1]) == (0.75, -0.5)
    do(own, type="set", layers=[2, 2])
    assert own.learner.steps == 0


def test_points_are_drawn_until_there_are_too_many_and_cleared() -> None:
    own = session(data="points", layers=[])
    with pytest.raises(PlaygroundError, match="no training points"):
        do(own, type="play")
    assert own.frame()["train_loss"] is None
    do(own, type="points", add=[[k % 5, k % 7, k % 2] for k in range(20)])
    do(own, type="play")
    assert own.step(5) == 5
    with pytest.raises(PlaygroundError, match="at most 500"):
        do(own, type="points", add=[[0, 0, 1]] * 481)
    do(own, type="points", clear=True)
    assert own.step(1) == 0
    assert own.settings.points == ()


def test_a_table_decides_on_task_and_classes() -> None:
    own = session()
    rows = "".join(f"{k},{k * k % 11},{'abc'[k % 3]}\n" for k in range(60))
    do(own, type="csv", text=f"p,q,kind\n{rows}")
    message = own.data_message()
    assert (own.settings.data, own.settings.classes, message["classes"]) == ("csv", 3, 3)
    assert message["names"] == ("a", "b", "c")
    assert message["columns"]["chosen"] == ("p", "q")
    with pytest.raises(PlaygroundError, match="must be numbers"):
        do(own, type="csv", columns=["q", "kind"], target="p")
    assert own.table is not None
    assert own.table.columns == ("p", "q", "kind")
    do(own, type="set", task="regression")
    assert own.settings.task == "classification" or own.settings.data != "csv"


@pytest.mark.parametrize("number", range(1, 6))
def test_a_lesson_shows_what_it_says(number: int) -> None:
    own = Session(from_fragment(f"lesson={number}"))
    own.step(4000 if number != 5 else 1500)
    frame = own.frame()
    train, test, norms = frame["train_loss"], frame["test_loss"], frame["gradient_norms"]
    if number == 1:
        assert 0.4 < train < 0.6
    elif number == 2:
        assert train < 0.05
    elif number == 3:
        assert train < 0.15
        assert test > 0.5
    elif number == 4:
        assert test < 0.45
    else:
        assert norms[0] < norms[-1] / 100


@pytest.mark.parametrize(
    ("fragment", "steps", "least", "most"),
    [
        ("lesson=1&features=x,y,xy", 2000, 0.0, 0.05),
        ("lesson=2&layers=2", 3000, 0.15, 0.35),
        ("lesson=5&activation=tanh", 3000, 0.0, 0.05),
    ],
)
def test_what_a_lesson_tells_to_change_does_what_it_says(
    fragment: str, steps: int, least: float, most: float
) -> None:
    own = Session(from_fragment(fragment))
    own.step(steps)
    assert least <= own.frame()["train_loss"] <= most


def test_curves_stay_within_a_bound_and_depend_on_the_epochs_alone() -> None:
    curve = Curve()
    curve.note(0, 2.0, None)
    for epoch in range(1, 10_001):
        if curve.is_due(epoch):
            curve.note(epoch * 25, 1.0 / epoch, float("nan"))
    assert 500 <= len(curve.rows) <= 1000
    assert [row[0] for row in curve.rows] == list(range(0, 250_001, 25 * curve.every))
    assert curve.rows[1] == (25 * curve.every, 1 / curve.every, None)
