"""What is taken along: run alone, the script ends with the bits of the playground."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from tensorgrad.playground import PlaygroundError, Session, Settings, export

COMMANDS: dict[str, list[dict[str, Any]]] = {
    "changed by hand": [
        {"type": "set", "regularization": "l2", "regularization_rate": 0.01},
        {"type": "weight", "layer": 0, "unit": 1, "input": 0, "value": 0.25},
        {"type": "step", "count": 40},
        {"type": "set", "rate": 0.1, "regularization_rate": 0.003},
        {"type": "bias", "layer": 2, "unit": 0, "value": -0.5},
        {"type": "step", "count": 20},
        {"type": "weight", "layer": 1, "unit": 0, "input": 3, "value": 1.5},
    ],
    "three classes, dropout, two activations, Adam": [
        {"type": "set", "data": "spiral", "classes": 3, "layers": [6, 5], "dropout": 0.2,
         "activation": ["relu", "sigmoid"], "optimizer": "adam", "features": ["x", "sinx", "xy"],
         "regularization": "l1", "regularization_rate": 0.001, "batch": 7},
        {"type": "step", "count": 60},
    ],
    "a function, and drawn points": [
        {"type": "set", "data": "function", "function": "x * y / 9 + sin(x)", "layers": []},
        {"type": "points", "add": [[1, 2, 0.5], [3, -2, 1]]},
        {"type": "step", "count": 30},
    ],
    "a table": [
        {"type": "csv", "text": "a,b,kind\n" + "".join(
            f"{k},{k * k % 7},{'pq'[k % 2]}\n" for k in range(40))},
        {"type": "set", "layers": [2]},
        {"type": "step", "count": 30},
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_the_script_ends_with_the_same_bits(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    session = Session()
    for command in COMMANDS[name]:
        session.command(command)
    (tmp_path / "script.py").write_text(export.script(session))
    monkeypatch.chdir(tmp_path)
    runpy.run_path("script.py")
    train, test = session.learner.losses()
    assert capsys.readouterr().out == f"training loss {train!r}\ntest loss {test!r}\n"
    own = safetensors.numpy.load(export.weights_safetensors(session))
    found = safetensors.numpy.load((tmp_path / "weights.safetensors").read_bytes())
    assert {k: v.tobytes() for k, v in own.items()} == {k: v.tobytes() for k, v in found.items()}


def test_the_script_says_what_it_does_not_repeat() -> None:
    session = Session(Settings(layers=()))
    assert "was changed while it ran" not in export.script(session)
    session.command({"type": "step", "count": 3})
    session.command({"type": "set", "batch": 5, "optimizer": "adam"})
    assert "optimizer and regularization, the batch size" in export.script(session)


def test_weights_as_json_are_the_network() -> None:
    session = Session(Settings(layers=(3,)))
    found = json.loads(export.weights_json(session))
    value = session.learner.inputs
    for layer in found["layers"]:
        value = np.tanh(value @ np.array(layer["weights"]).T + layer["biases"])
    told = session.learner.outputs(session.learner._sets[0][0])[-1].numpy()
    np.testing.assert_allclose(value, told, rtol=1e-5, atol=1e-6)


def test_the_tape_of_a_step_is_drawn_with_values_and_changes_nothing() -> None:
    session = Session(Settings(layers=(3,), dropout=0.5, regularization="l2"))
    session.step(1)
    before = session.frame(), session.learner._masks.state()
    graph = session.learner.tape()
    assert (session.frame(), session.learner._masks.state()) == before
    assert {"0.weight", "0.bias", "3.weight", "3.bias"} <= {v.name for v in graph.vertices}
    assert all(v.value and v.gradient is not None for v in graph.vertices)
    weight = session.learner.linears()[0].weight.detach().numpy()
    (vertex,) = (v for v in graph.vertices if v.name == "0.weight")
    assert vertex.value == (weight.min(), weight.max())
    assert f"{weight.min():.4g} to {weight.max():.4g}" in graph.svg


def test_the_code_of_the_step_is_there_once_it_is_compiled() -> None:
    session = Session(Settings(layers=()))
    with pytest.raises(Exception, match="not run yet"):
        session.learner.trainer.source()
    session.step(1)
    text = session.learner.trainer.source()
    assert "float *restrict" in text or text.startswith("def run(")


def test_nothing_is_drawn_of_no_points() -> None:
    with pytest.raises(PlaygroundError, match="no training points"):
        Session(Settings(data="points")).learner.tape()
