"""What a run takes where nobody says: by the amount of data; and training on all of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tensorgrad.cli import cross_validate, main, train
from tensorgrad.cli.amounts import settle_amounts
from tensorgrad.cli.settings import DEFAULTS, read_toml
from tensorgrad.errors import TensorgradError
from tensorgrad.training import load_checkpoint

pytestmark = pytest.mark.usefixtures("empty_folder")


def settled(examples: int, kind: str = "row", **given: Any) -> dict[str, Any]:
    settings = {**DEFAULTS, **given}
    settle_amounts(settings, examples, kind)
    return settings


def table(rows: int = 120) -> str:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(rows, 2))
    lines = [f"{x:.4f},{y:.4f},{'pq'[int(y > x)]}" for x, y in points]
    Path("t.csv").write_text("\n".join(["x,y,side", *lines]))
    return "t.csv"


def test_length_and_patience_are_told_in_steps() -> None:
    """Of a small table thousands of epochs, of a large one few."""
    small, large = settled(64, batch_size=64), settled(320_000, batch_size=32)
    assert (small["epochs"], small["patience"]) == (4000, 600)
    assert (large["epochs"], large["patience"]) == (20, 5)
    assert settled(100, batch_size="full")["epochs"] == 4000
    chosen = settled(100, epochs=3, patience=2, batch_size=7)
    assert (chosen["epochs"], chosen["patience"], chosen["batch_size"]) == (3, 2, 7)


def test_what_holds_a_network_back_follows_the_number_of_examples() -> None:
    few, more = settled(100), settled(5000)
    assert (few["dropout"], few["batch_size"], few["refit"]) == (0.5, 16, True)
    assert (more["dropout"], more["batch_size"], more["refit"]) == (0.1, 32, False)
    assert (few["l2"], more["l2"], settled(100, l2=0.0)["l2"]) == (0.01, 0, 0)
    assert settled(100, hidden=[128, 8])["dropout"] == 0
    assert settled(100, hidden=[])["dropout"] == 0
    assert settled(100, hidden=[8], dropout=0.3)["dropout"] == 0.3
    image = settled(100, "image")
    assert (image["average"], image["refit"], image["l2"]) == (0.98, False, 0)
    assert settled(5000, "image")["average"] is settled(100, "text")["average"] is None
    assert settled(100, average=0.0)["average"] == 0


def test_refitting_does_not_go_with_a_schedule_that_needs_the_part() -> None:
    watching = settled(100, schedule="plateau")
    assert (watching["refit"], watching["average"]) == (False, None)
    with pytest.raises(TensorgradError, match="--refit trains on the validation part too"):
        settled(100, schedule="plateau", refit=True)


def test_a_small_table_is_trained_on_as_a_whole(capsys: pytest.CaptureFixture[str]) -> None:
    """As many epochs as were best; the settings tell what was taken, and give the same again."""
    assert main(["train", "--data", table(), "--epochs", "6", "--out", "one"]) == 0
    out, err = capsys.readouterr()
    best = json.loads(Path("one/result.json").read_text())["best_epoch"]
    assert f"once more for {best} epochs, with the 18 validation examples" in err
    assert f"weights of {best} epochs on training and validation part" in out
    config = read_toml("one/config.toml")
    assert (config["refit"], config["dropout"], config["average"]) == (True, 0.5, 0.98)
    assert main(["train", "--config", "one/config.toml", "--out", "two"]) == 0
    assert main(["train", "--config", "one/config.toml", "--no-refit", "--out", "without"]) == 0
    one, two, without = (
        load_checkpoint(Path(run, "model.safetensors")).state["0.weight"].data
        for run in ("one", "two", "without")
    )
    assert np.array_equal(one, two)
    assert not np.array_equal(one, without)


def test_a_run_interrupted_while_it_trains_on_the_whole_ends_with_the_same_bits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "--data", table(), "--epochs", "4", "--out"]
    assert main([*command, "whole"]) == 0
    usual = train._refit

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "_refit", interrupted)
    assert main([*command, "parts"]) == 130
    assert "go on with: tensorgrad resume parts" in capsys.readouterr().err
    monkeypatch.setattr(train, "_refit", usual)
    assert main(["resume", "parts"]) == 0
    whole, parts = (
        load_checkpoint(Path(run, "model.safetensors")).state for run in ("whole", "parts")
    )
    assert all(np.array_equal(whole[k].data, parts[k].data) for k in whole)


def test_folds_are_trained_for_enough_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few an epoch has."""
    seen = []

    def measured(data: Any, settings: dict[str, Any], folds: int) -> Any:
        seen.append(settings["epochs"] * -(-len(data.train) // settings["batch_size"]))
        return cross_validate.Row(settings["hidden"], 1, [0.5, 0.6])

    monkeypatch.setattr(cross_validate, "_measured", measured)
    assert main(["cross-validate", "--data", table(), "--out", "cv"]) == 0
    assert min(seen) >= 4000
