"""Settings, their limits, and the fragment of the address that holds them."""

from __future__ import annotations

from typing import Any

import pytest

from tensorgrad.playground import PlaygroundError, Settings, from_fragment
from tensorgrad.playground.settings import CLASSIFICATION, LIMITS, PARSERS, REGRESSION

CHANGES: list[dict[str, Any]] = [
    {},
    {"data": "spiral", "classes": 8, "noise": 50, "train_share": 90, "batch": 1, "seed": 2**32 - 1},
    {"layers": [1] * 12, "features": ["siny", "x"], "dropout": 0.35, "optimizer": "adamax"},
    {"layers": [], "rate": 1e-5, "regularization": "l1", "regularization_rate": 0.003},
    {"layers": [3, 2], "activation": ["relu", "sigmoid"], "discretize": True, "show_test": True},
    {"data": "function", "function": "sin(x)^2 + 3 % (y*y + 1)", "speed": 100},
    {"data": "points", "points": [[1.25, -3, 1], [0, 0.5, -1]], "stop_loss": 0.01},
    {"task": "regression", "data": "multi-gauss", "stop_epochs": 10**9, "init_seed": 4},
    {"hide": ["noise", "race", "layers"]},
]  # fmt: skip


@pytest.mark.parametrize("values", CHANGES)
def test_a_fragment_stands_for_the_settings(values: dict[str, Any]) -> None:
    settings = Settings().changed(values)
    text = settings.fragment()
    assert from_fragment(f"#{text}") == settings
    assert all(33 <= ord(c) < 127 for c in text)
    assert text.count("&") == max(len(values) - 1 + ("task" not in values and "task=" in text), 0)


@pytest.mark.parametrize("name", PARSERS)
def test_every_setting_refuses_in_a_line_what_it_is_not(name: str) -> None:
    wrong: list[Any] = [None, {}, [[]], "\n", "x" * 10_000, float("nan"), float("inf"), 10**400, -1]
    for value in wrong:
        with pytest.raises(PlaygroundError) as error:
            Settings().changed({name: value})
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 400
        assert name in str(error.value) or name == "function"


def test_limits_are_those_that_hold() -> None:
    for name, (low, high) in LIMITS.items():
        if name in ("layers", "units", "points"):
            continue
        for value in (low, high):
            if name != "rate" or value:
                Settings().changed({name: value})
        with pytest.raises(PlaygroundError):
            Settings().changed({name: high + 1})
    most, widest = LIMITS["layers"][1], LIMITS["units"][1]
    assert len(Settings().changed({"layers": [widest] * int(most)}).layers) == most


def test_task_and_data_follow_each_other() -> None:
    for name in (*CLASSIFICATION, *REGRESSION):
        for task in ("classification", "regression"):
            found = Settings().changed({"task": task}).changed({"data": name})
            assert found.data in (CLASSIFICATION if found.task[0] == "c" else REGRESSION)
            assert found.data == name
    assert Settings().changed({"task": "regression"}).data == "plane"
    assert (
        Settings().changed({"data": "plane"}).changed({"task": "classification"}).data == "circle"
    )


def test_activations_of_layers_that_stay_are_kept() -> None:
    settings = Settings().changed({"layers": [3, 2], "activation": ["relu", "sigmoid"]})
    assert settings.changed({"layers": [3, 2, 2]}).activation == ("relu", "sigmoid", "sigmoid")
    assert settings.changed({"layers": [3]}).activations() == ("relu",)
    assert settings.changed({"activation": "elu"}).activations() == ("elu", "elu")
    assert settings.changed({"layers": []}).activations() == ()


@pytest.mark.parametrize(
    "text", ["rate", "nothing=1", "rate=", "rate=0x1", "layers=4,,2", "lesson=6"]
)
def test_what_is_no_fragment_is_refused(text: str) -> None:
    with pytest.raises(PlaygroundError):
        from_fragment(text)
