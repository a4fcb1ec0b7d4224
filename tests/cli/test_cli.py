"""The command line: what a run leaves, how it is resumed, and one line for every wrong input."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tensorgrad.cli import main
from tensorgrad.cli.info import operations_table
from tensorgrad.cli.settings import DEFAULTS, read_toml
from tensorgrad.data import write_idx
from tensorgrad.ops.random import default_generator
from tensorgrad.ops.table import OPERATIONS
from tensorgrad.program import pool
from tensorgrad.training import load_checkpoint

SMALL = ["train", "--epochs", "2", "--hidden", "16", "--batch-size", "64"]
FILES = {
    ".lock", "checkpoint.safetensors", "checkpoint.1.safetensors", "config.toml", "curves.svg",
    "history.csv", "model.safetensors", "result.json",
}  # fmt: skip


pytestmark = pytest.mark.usefixtures("empty_folder")


def test_train_leaves_everything(capsys: pytest.CaptureFixture[str]) -> None:
    """All files in a new folder, the accuracy on standard output, the progress on the other."""
    assert main(SMALL) == 0
    out, err = capsys.readouterr()
    folder = Path("runs/digits-1")
    assert {entry.name for entry in folder.iterdir()} == FILES
    assert "1,258 training, 269 validation and 270 test examples; network 64-16-10 on cpu" in out
    assert "test accuracy " in out
    assert str(folder) in out
    assert len(err.splitlines()) == 2
    config = read_toml(folder / "config.toml")
    in_use = {name for name, value in DEFAULTS.items() if value is not None}
    by_the_data = {"batch_size", "epochs", "patience", "dropout", "l2", "average", "refit"}
    assert set(config) == {*in_use, *by_the_data, "device"}
    assert config["hidden"] == [16]
    rows = list(csv.DictReader((folder / "history.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    ElementTree.parse(folder / "curves.svg")
    result = json.loads((folder / "result.json").read_text())
    assert f"{result['test_accuracy'] * 100:.2f} %" in out
    assert result["epochs"] == 2
    model = load_checkpoint(folder / "model.safetensors")
    assert model.state["0.weight"].shape == (16, 64)
    assert model.config["activation"] == "relu"


def test_default_settings_reach_96_percent() -> None:
    """With a third of the epochs already."""
    accuracies = []
    for seed in ("1", "2"):
        assert main(["train", "--epochs", "20", "--seed", seed, "--out", seed]) == 0
        accuracies.append(json.loads(Path(seed, "result.json").read_text())["test_accuracy"])
    assert min(accuracies) >= 0.96


def test_runs_never_overwrite_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    """The default takes the next number; a folder that has something in it is refused."""
    for _ in range(2):
        assert main([*SMALL[:1], "--epochs", "1", "--hidden", "none"]) == 0
    assert {entry.name for entry in Path("runs").iterdir()} == {"digits-1", "digits-2"}
    before = Path("runs/digits-1/checkpoint.safetensors").read_bytes()
    assert main([*SMALL, "--out", "runs/digits-1"]) == 2
    assert "exists already" in capsys.readouterr().err
    assert Path("runs/digits-1/checkpoint.safetensors").read_bytes() == before


def test_resumed_run_ends_as_an_uninterrupted_one() -> None:
    """The files are the same, but for the time in them."""
    options = ["--hidden", "12", "--dropout", "0.3", "--optimizer", "rmsprop", "--momentum", "0.5"]
    assert main(["train", "--epochs", "4", "--out", "whole", *options]) == 0
    assert main(["train", "--epochs", "2", "--out", "parts", *options]) == 0
    default_generator.seed(123)
    assert main(["train", "--resume", "parts", "--epochs", "4"]) == 0
    whole, parts = (
        load_checkpoint(Path(name, "model.safetensors")).state for name in ("whole", "parts")
    )
    assert all(whole[k].data.tobytes() == parts[k].data.tobytes() for k in whole)
    for name in ("result.json", "history.csv"):
        rows = [
            [line.rpartition(",")[0] for line in Path(folder, name).read_text().splitlines()]
            for folder in ("whole", "parts")
        ]
        assert rows[0] == rows[1]


def test_interrupted_run_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 130, one line, and the line works."""
    from tensorgrad.training import Trainer

    usual = Trainer.evaluate

    def interrupted(self: Trainer, loader: Any) -> Any:
        if self.epoch == 1:
            raise KeyboardInterrupt
        return usual(self, loader)

    monkeypatch.setattr(Trainer, "evaluate", interrupted)
    assert main(SMALL) == 130
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.endswith("go on with: tensorgrad resume runs/digits-1")
    monkeypatch.setattr(Trainer, "evaluate", usual)
    assert main(last.partition("go on with: ")[2].split()[1:]) == 0
    rows = Path("runs/digits-1/history.csv").read_text().splitlines()
    assert [row.partition(",")[0] for row in rows] == ["epoch", "1", "2"]


@pytest.mark.parametrize(
    "options",
    [
        ["--optimizer", "sgd", "--lr", "0.5", "--momentum", "0.9", "--activation", "sigmoid"],
        ["--optimizer", "adamw", "--init", "xavier", "--activation", "tanh"],
        ["--optimizer", "adagrad", "--init", "small-uniform", "--activation", "gelu"],
        ["--l1", "1e-5", "--activation", "leaky-relu", "--hidden", "16,8"],
        ["--l1", "1e-5", "--l2", "1e-4", "--activation", "elu", "--dropout", "0"],
        ["--l2", "1e-4", "--activation", "silu", "--batch-size", "full", "--patience", "1"],
        ["--device", "auto", "--seed", "18446744073709551615"],
    ],
    ids=lambda options: " ".join(options),
)
def test_every_option_works(options: list[str]) -> None:
    """And finds its way into the settings of the run."""
    assert main([*SMALL, "--out", "out", *options]) == 0
    config = read_toml("out/config.toml")
    for name, value in zip(options[::2], options[1::2], strict=True):
        found = config[name[2:].replace("-", "_")]
        if name == "--hidden":
            assert found == [int(size) for size in value.split(",")]
        elif name == "--device":
            assert found == "cpu" or found.startswith("cuda:")
        else:
            assert str(found) == value or float(found) == float(value)


def test_options_change_the_outcome() -> None:
    """No option does nothing."""
    variants = [
        [], ["--seed", "1"], ["--l1", "1e-3"], ["--l2", "1e-3"], ["--dropout", "0.5"],
        ["--init", "xavier"], ["--activation", "tanh"], ["--lr", "0.1"], ["--hidden", "17"],
        ["--optimizer", "sgd"], ["--optimizer", "sgd", "--momentum", "0.9"],
    ]  # fmt: skip
    losses = set()
    for i, options in enumerate(variants):
        assert main(["train", "--epochs", "1", "--hidden", "16", "--out", str(i), *options]) == 0
        losses.add(json.loads(Path(str(i), "result.json").read_text())["test_loss"])
    assert len(losses) == len(variants)


@pytest.fixture
def images(tmp_path: Path) -> str:
    """A folder of IDX files: bars in one of three places, 4 x 3 pixels."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "bars"
    folder.mkdir()
    for name, n in (("train", 200), ("t10k", 50)):
        labels = rng.integers(0, 3, n)
        pictures = rng.integers(0, 100, (n, 4, 3))
        pictures[np.arange(n), :, labels] += 100
        write_idx(folder / f"{name}-images-idx3-ubyte.gz", pictures.astype(np.uint8))
        write_idx(folder / f"{name}-labels-idx1-ubyte", labels.astype(np.uint8))
    return str(folder)


def test_trains_on_a_folder(images: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The sizes of the network follow from the data, the folder gives the run its name."""
    assert main(["train", "--data", images, "--epochs", "15", "--hidden", "8"]) == 0
    out = capsys.readouterr().out
    assert "bars: 170 training, 30 validation and 50 test examples; network 12-8-3" in out
    assert json.loads(Path("runs/bars-1/result.json").read_text())["test_accuracy"] > 0.9


WRONG: dict[str, tuple[list[str], str]] = {
    "no command": ([], "required"),
    "unknown command": (["fly"], "invalid choice"),
    "unknown option": (["train", "--fast"], "unrecognized arguments: --fast"),
    "not a number": (["train", "--lr", "fast"], "--lr: must be a number above 0, not 'fast'"),
    "not finite": (["train", "--lr", "nan"], "--lr: must be a number above 0"),
    "negative": (["train", "--epochs", "-1"], "--epochs: must be a whole number from 1"),
    "hidden": (["train", "--hidden", "64,,2"], "--hidden: must be the sizes"),
    "dropout": (["train", "--dropout", "1"], "--dropout: must be a number from 0 to below 1"),
    "optimizer": (["train", "--optimizer", "magic"], "choose from"),
    "batch size": (["train", "--batch-size", "0"], "whole number from 1"),
    "seed": (["train", "--seed", str(2**64)], "--seed: must be a whole number"),
    "momentum": (["train", "--momentum", "0.9"], "adam does not take it"),
    "device": (["train", "--device", "gpu"], "unknown device 'gpu'"),
    "no folder": (["train", "--data", "nowhere"], "no such file or folder"),
    "empty folder": (["train", "--data", "."], "images into a folder for each class"),
    "no run": (["train", "--resume", "nowhere"], "holds no checkpoint.safetensors"),
    "resume with": (["train", "--resume", "x", "--lr", "1"], "--lr cannot be given"),
}


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("case", WRONG)
def test_wrong_input(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 and one line, which says what is wrong."""
    argv, text = WRONG[case]
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert text in err
    assert err.count("\n") == 1
    assert err.startswith("tensorgrad")
    assert "test accuracy" not in out


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_training_that_fails(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1 and one line, which says where the first NaN arose."""
    assert main(["train", "--optimizer", "sgd", "--lr", "1e30", "--out", "run"]) == 1
    err = capsys.readouterr().err
    assert "was not finite in step" in err
    assert "Lower the learning rate" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("damage", ["torn", "altered", "other"])
def test_damaged_checkpoint(damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The one before is used, with a line that says so; if that is damaged too, it is refused."""
    assert main([*SMALL, "--out", "run"]) == 0
    path = Path("run/checkpoint.safetensors")
    content = path.read_bytes()
    if damage == "torn":
        content = content[:-100]
    elif damage == "altered":
        content = content[:-100] + bytes([content[-100] ^ 1]) + content[-99:]
    else:
        content = content.replace(b"epochs", b"epochz")
    path.write_bytes(content)
    capsys.readouterr()
    older = Path("run/checkpoint.1.safetensors")
    whole = older.read_bytes()
    older.write_bytes(content)
    assert main(["train", "--resume", "run"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "no checkpoint is whole" in err
    assert path.read_bytes() == content
    older.write_bytes(whole)
    model = Path("run/model.safetensors").read_bytes()
    assert main(["resume", "run"]) == 0
    assert "Going on from the one before, run/checkpoint.1.safetensors" in capsys.readouterr().err
    assert Path("run/model.safetensors").read_bytes() == model


def test_help_teaches_by_example(capsys: pytest.CaptureFixture[str]) -> None:
    """The examples are there, and each of them is accepted by the parser."""
    from tensorgrad.cli.main import build_parser

    assert main(["train", "--help"]) == 0
    text = capsys.readouterr().out
    examples = [line.strip() for line in text.splitlines() if line.startswith("  tensorgrad ")]
    assert len(examples) >= 5
    for example in examples:
        build_parser().parse_args(example.split()[1:])
    for name in DEFAULTS:
        assert f"--{name.replace('_', '-')}" in text
    assert main(["--help"]) == 0
    assert main(["info", "--help"]) == 0


def test_info(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Versions, the machine, and why a GPU is not used."""
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    for word in ("tensorgrad", "numpy", np.__version__, "cores", "BLAS", "cuda", "float32"):
        assert word in out
    assert "usable" in out
    monkeypatch.setenv("TENSORGRAD_DEVICE", "gpu")
    assert main(["info"]) == 0
    assert "unknown device 'gpu'" in capsys.readouterr().out


def test_info_without_a_compiler(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler -O2")
    pool.library.cache_clear()
    assert main(["info"]) == 0
    assert "run by NumPy: CC names the C compiler 'no-such-compiler'" in capsys.readouterr().out


def test_info_operations(capsys: pytest.CaptureFixture[str]) -> None:
    """A Markdown table with a row for each operation."""
    assert main(["info", "--operations"]) == 0
    out = capsys.readouterr().out
    assert out.strip() == operations_table()
    lines = out.splitlines()
    assert len(lines) == len(OPERATIONS) + 2
    assert all(line.replace("\\|", "").count("|") == 6 for line in lines)
    assert any(line.startswith("| `sigmoid` |") for line in lines)


def test_as_a_program(tmp_path: Path) -> None:
    """``python -m tensorgrad`` in a process of its own; a wrong input leaves no traceback."""
    root = str(Path(__file__).parents[2])
    env = {**os.environ, "PYTHONPATH": root}

    def run(*argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tensorgrad", *argv],
            capture_output=True, text=True, cwd=tmp_path, env=env, check=False, timeout=100,
        )  # fmt: skip

    done = run(*SMALL)
    assert done.returncode == 0, done.stderr
    assert "test accuracy" in done.stdout
    assert (tmp_path / "runs/digits-1/curves.svg").exists()
    wrong = run("train", "--data", "nowhere")
    assert wrong.returncode == 2
    assert wrong.stdout == ""
    assert wrong.stderr.startswith(
        "tensorgrad train: error: nowhere: there is no such file or folder"
    )
    assert run("train", "--epochs", "0").returncode == 2
