"""The state machine of the playground, without a server."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tensorgrad import Tensor, nn, optim
from tensorgrad.data import DataLoader, TensorDataset
from tensorgrad.ops.random import Generator
from tensorgrad.playground import PlaygroundError, Session, Settings, from_fragment
from tensorgrad.playground.settings import of_lesson
from tensorgrad.training import Trainer


def session(**values: Any) -> Session:
    return Session(Settings().changed(values))


def engine_alone(own: Session, steps: int) -> tuple[list[Any], dict[int, float]]:
    """The usual network written out and trained: its weights, and training losses by step."""
    generator = Generator(0)
    model = nn.Sequential(
        nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 2), nn.Tanh(), nn.Linear(2, 1), nn.Tanh()
    )
    for layer in (model[0], model[2], model[4]):
        assert isinstance(layer, nn.Linear)
        assert layer.bias is not None
        nn.init.uniform_(layer.weight, -0.5, 0.5, generator=generator)
        nn.init.constant_(layer.bias, 0.1)

    def loss(output: Tensor, target: Tensor) -> Tensor:
        return nn.functional.mse_loss(output, target, "half_mean")

    inputs, targets = own.data.points, own.data.labels[:, None]
    loader = DataLoader(TensorDataset(inputs, targets), 10, shuffle=True, drop_last=True, seed=0)
    trainer = Trainer(model, optim.SGD(model.parameters(), lr=0.03), loss, metrics=())
    losses, done = {}, 0
    while done < steps:
        for batch in loader:
            trainer.step(*batch)
            done += 1
        losses[done] = loss(model(Tensor(inputs)), Tensor(targets)).item()
    return [p.detach().numpy().copy() for p in model.parameters()], losses


def test_weights_and_curve_are_the_bits_of_the_engine_without_the_page() -> None:
    own = session()
    for count in (1, 7, 92, 400):  # however the steps are cut into pieces, and looked at
        assert own.step(count) == count
        own.frame()
    weights, losses = engine_alone(own, 500)
    assert [p.tolist() for p in own.learner.model.parameters()] == [w.tolist() for w in weights]
    curve = {step: train for step, train, _ in own.learner.curve.rows if step}
    assert curve == losses


def test_a_frame_holds_what_the_page_paints() -> None:
    own = session()
    frame = own.frame()
    text = json.dumps(frame, allow_nan=False)
    assert len(text) < 40_000
    assert (frame["type"], frame["step"], frame["state"]) == ("frame", 0, "paused")
    assert [np.shape(w) for w in frame["weights"]] == [(4, 2), (2, 4), (1, 2)]
    assert [len(units) for units in frame["units"]] == [4, 2, 1]
    output = np.frombuffer(base64.b64decode(frame["output"]["bytes"]), np.uint8)
    assert output.size == frame["output"]["size"] ** 2 == 8100
    assert len(base64.b64decode(frame["units"][0][3])) == 900
    middle = own.learner.outputs(Tensor([[-6 + 12 * 0.5 / 90, 6 - 12 * 0.5 / 90]]))[-1].item()
    assert output[0] == int(middle * 127.5 + 128)  # the top left corner
    assert np.sum(frame["confusion"]) == len(own.data.test_points)


def test_more_than_two_classes_are_scores_and_a_softmax() -> None:
    own = session(data="spiral", classes=3, layers=[], noise=5)
    frame = own.frame()
    pairs = np.frombuffer(base64.b64decode(frame["output"]["bytes"]), np.uint8).reshape(-1, 2)
    assert set(pairs[:, 0]) <= {0, 1, 2}
    assert pairs[:, 1].min() >= 84  # the surest of three has a third at least
    assert np.shape(frame["confusion"]) == (3, 3)
    assert own.learner.loss is nn.functional.cross_entropy


@pytest.mark.parametrize(
    "command",
    [
        None, [], {}, {"type": 3}, {"type": "fly"}, {"type": "play", "x": 1},
        {"type": "set", "rate": "fast"}, {"type": "set", "rate": 0}, {"type": "set", "nothing": 1},
        {"type": "set", "layers": [4] * 13}, {"type": "set", "layers": [0]},
        {"type": "set", "noise": 51}, {"type": "set", "noise": 5.5}, {"type": "set", "noise": True},
        {"type": "set", "features": []}, {"type": "set", "activation": ["tanh", "relu", "relu"]},
        {"type": "set", "data": "csv"}, {"type": "set", "data": "function", "function": "1/x"},
        {"type": "step", "count": 0}, {"type": "step", "count": 10**9},
        {"type": "weight", "layer": 3, "unit": 0, "input": 0, "value": 1},
        {"type": "weight", "layer": 0, "unit": 0, "input": 2, "value": 1},
        {"type": "bias", "layer": 0, "unit": 4, "value": 1},
        {"type": "bias", "layer": 0, "unit": 0, "value": float("nan")},
        {"type": "points", "add": [[1, 2]]}, {"type": "points", "add": [[1, 2, 1]] * 501},
        {"type": "race", "optimizers": ["magic"]}, {"type": "race", "optimizers": []},
        {"type": "lesson", "number": 6}, {"type": "csv", "text": "a,b\n1,2\n"},
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_a_line_and_changes_nothing(command: Any) -> None:
    own = session(layers=[4])
    before = own.settings, own.data, own.learner, own.frame()
    with pytest.raises(PlaygroundError) as error:
        own.command(command)
    assert "\n" not in str(error.value)
    assert (own.settings, own.data, own.learner) == before[:3]
    assert own.frame() == before[3]


def test_an_address_gives_all_settings_those_it_does_not_name_as_its_lesson_has_them() -> None:
    session = Session()
    session.command({"type": "set", "noise": 20, "rate": 0.3})
    session.step(3)
    session.command({"type": "address", "fragment": "#lesson=2&rate=0.03"})
    assert session.settings == replace(of_lesson(2), rate=0.03)
    assert session.settings.layers == (4,)
    assert session.learner.steps == 0
    assert session.settings.fragment() == "rate=0.03&lesson=2"
    assert from_fragment(session.settings.fragment()) == session.settings
    before = session.settings
    for wrong in ("lesson=9", "noise", "volume=3", None, 3):
        with pytest.raises(PlaygroundError):
            session.command({"type": "address", "fragment": wrong})
    assert session.settings is before
