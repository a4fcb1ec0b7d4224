"""The networks that ``train --model`` has: what each learns, keeps, resumes and refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tensorgrad.cli import main
from tensorgrad.cli.settings import read_toml
from tensorgrad.training import load_checkpoint

pytestmark = pytest.mark.usefixtures("empty_folder")

SMALL = ["--model", "cnn", "--channels", "4,8", "--hidden", "16", "--batch-size", "16"]
QUICK = [*SMALL, "--epochs", "12", "--lr", "0.01", "--dropout", "0", "--no-compile"]


def bars(shape: tuple[int, ...] = (12, 12), n: int = 400, name: str = "bars.npz") -> str:
    """Noise with a bar that lies (class 0) or stands (1), anywhere: no pixel alone tells which."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, n)
    images = rng.integers(0, 100, (n, 12, 12))
    for image, stands, place, start in zip(
        images, y, rng.integers(0, 12, n), rng.integers(0, 6, n), strict=True
    ):
        (image.T if stands else image)[place, start : start + 6] += 120
    x = images if len(shape) == 2 else np.repeat(images[..., None], 3, -1)
    if shape[0] == 3:
        x = np.moveaxis(x, -1, 1)
    np.savez(name, x=x.astype(np.uint8), y=y)
    return name


def result(run: str) -> dict[str, Any]:
    """The figures that a run left."""
    found: dict[str, Any] = json.loads(Path(run, "result.json").read_text())
    return found


def refused(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """What ``train`` says in the one line with which it refuses."""
    assert main(["train", *options, "--out", "refused"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert not Path("refused").exists()
    return err


@pytest.mark.parametrize("shape", [(12, 12), (3, 12, 12), (12, 12, 3)], ids=str)
def test_images_take_a_convolutional_network(
    shape: tuple[int, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """By default; grey or in colours, which may come first or last. It learns what it is to see."""
    data = bars(shape)
    assert main(["train", "--data", data, "--out", "run", *QUICK]) == 0
    assert result("run")["test_accuracy"] >= 0.9
    first = load_checkpoint("run/model.safetensors").state
    weight = next(value for value in first.values() if value.ndim == 4)
    assert weight.shape == (4, 1 if len(shape) == 2 else 3, 3, 3)
    assert "network cnn (channels 4-8, hidden 16; " in capsys.readouterr().out
    for command in (["evaluate", "run"], ["predict", "run", data], ["report", "run"]):
        assert main(command) == 0
    answers = capsys.readouterr().out
    assert f"accuracy   {result('run')['test_accuracy']:.4f}" in answers
    assert f"{data}:399," in answers
    assert Path("run/report.html").read_text().count('<img alt="unit') == 4


def test_what_is_taken_by_itself() -> None:
    """Convolutions for images, layers for tables, arrays of few numbers and where --hidden is."""
    bars()
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(60, 5, 3)).astype(np.float32), rng.integers(0, 2, 60)
    np.savez("series.npz", x=x, y=y)
    expected = {
        "cnn": ["--data", "bars.npz"],
        "mlp": ["--data", "series.npz"],
        "cnn2": [],
        "mlp2": ["--data", "bars.npz", "--hidden", "8"],
    }
    for name, options in expected.items():
        assert main(["train", "--epochs", "1", "--no-compile", *options, "--out", name]) == 0
        assert read_toml(f"{name}/config.toml")["model"] == name[:3]
    config = read_toml("cnn/config.toml")
    assert (config["channels"], config["hidden"]) == ([16, 32], [128])
    assert (config["schedule"], config["batch_size"]) == ("one-cycle", 8)
    assert read_toml("mlp/config.toml")["batch_size"] == 16


def test_epochs_follow_the_number_of_steps() -> None:
    """The fewer examples there are the more epochs, up to a hundred; what is given stands."""
    from tensorgrad.cli.networks import settle_network
    from tensorgrad.cli.settings import DEFAULTS

    class Images:
        shape = (28, 28)
        is_text = False

    def settled(examples: int, **chosen: Any) -> dict[str, Any]:
        settings = {**DEFAULTS, **chosen}
        settle_network(settings, Images(), examples, chosen)  # type: ignore[arg-type]
        return settings

    long = settled(51_000)
    assert (long["epochs"], long["batch_size"], long["patience"]) == (4, 64, 10)
    short = settled(100)
    assert (short["epochs"], short["batch_size"], short["patience"]) == (100, 8, 25)
    own = settled(100, epochs=7, batch_size=50, schedule="constant")
    assert (own["epochs"], own["batch_size"], own["schedule"]) == (7, 50, "constant")


@pytest.mark.parametrize(
    "options",
    [
        [*SMALL, "--no-compile"],
        ["--model", "resnet", "--depth", "8", "--channels", "4", "--no-compile"],
    ],
    ids=["cnn", "resnet"],
)
def test_a_resumed_run_has_the_bits_of_a_whole_one(options: list[str]) -> None:
    """Convolutions, statistics of norms and dropout included."""
    bars(n=80)
    base = ["train", "--data", "bars.npz", *options, "--schedule", "constant"]
    assert main([*base, "--epochs", "4", "--out", "whole"]) == 0
    assert main([*base, "--epochs", "2", "--out", "parts"]) == 0
    assert main(["resume", "parts", "--epochs", "4"]) == 0
    whole, parts = (
        load_checkpoint(f"{name}/model.safetensors").state for name in ("whole", "parts")
    )
    assert all(whole[k].data.tobytes() == parts[k].data.tobytes() for k in whole)
    assert result("whole") == result("parts")


def test_a_residual_network(capsys: pytest.CaptureFixture[str]) -> None:
    """Of the depth that is asked for; a run repeats from its settings."""
    data = bars((3, 12, 12))
    options = ["--model", "resnet", "--depth", "8", "--channels", "4", "--epochs", "6"]
    options += ["--lr", "0.01", "--no-compile"]
    assert main(["train", "--data", data, "--out", "run", *options]) == 0
    assert "network resnet (depth 8, channels 4; " in capsys.readouterr().out
    assert result("run")["test_accuracy"] >= 0.9
    assert main(["evaluate", "run"]) == 0
    assert f"accuracy   {result('run')['test_accuracy']:.4f}" in capsys.readouterr().out
    assert main(["train", "--config", "run/config.toml", "--out", "again"]) == 0
    assert result("again") == result("run")


def test_numbers_from_images(capsys: pytest.CaptureFixture[str]) -> None:
    """Where a bar begins, as a regression."""
    rng = np.random.default_rng(2)
    x, y = rng.integers(0, 50, (200, 12, 12)).astype(np.uint8), rng.integers(0, 6, 200)
    for image, start in zip(x, y, strict=True):
        image[start : start + 6] += 150
    np.savez("n.npz", x=x, y=y * 2.5)
    assert main(["train", "--data", "n.npz", "--out", "run", *QUICK]) == 0
    assert result("run")["test_r2"] > 0.8
    assert main(["predict", "run", "n.npz"]) == 0
    assert "example,value" in capsys.readouterr().out


def test_what_does_not_fit_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Options of another network, images for none, sizes that cannot be."""
    bars()
    Path("t.csv").write_text("a,b,k\n" + "".join(f"{i},{i % 7},{'xy'[i % 2]}\n" for i in range(60)))
    for options, message in (
        (["--data", "t.csv", "--model", "cnn"], "--model cnn is for images"),
        (["--model", "mlp", "--channels", "4"], "--channels is for --model cnn, resnet"),
        (["--model", "cnn", "--depth", "8"], "--depth is for --model resnet"),
        (["--model", "resnet", "--hidden", "8"], "--hidden is for --model mlp, cnn"),
        (["--model", "resnet", "--dropout", "0.1"], "--dropout is for --model mlp, cnn"),
        (["--model", "resnet", "--depth", "9"], "--depth: CifarResNet: depth must be 6 n + 2"),
        (["--model", "resnet", "--channels", "4,8"], "those of its first stage"),
        (["--model", "cnn", "--channels", "4,8,8,8"], "take at most 3"),
        (["--channels", "4,x"], "must be numbers of channels"),
    ):
        data = [] if "--data" in options else ["--data", "bars.npz"]
        assert message in refused(capsys, *data, *options)


def test_folds_are_of_layers_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """The settings of another network are refused; those of an mlp count."""
    Path("c.toml").write_text('model = "cnn"\n')
    assert main(["cross-validate", "--config", "c.toml"]) == 2
    assert "compares fully connected networks" in capsys.readouterr().err
