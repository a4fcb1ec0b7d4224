"""The commands beside train: what they print, what they leave, what they refuse."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tensorgrad.cli import main
from tensorgrad.cli.folder import locked
from tensorgrad.cli.main import build_parser
from tensorgrad.cli.settings import DEFAULTS, OPTIONS, read_toml, write_toml
from tensorgrad.errors import TensorgradError
from tensorgrad.ops.random import default_generator

RNG = np.random.default_rng(0)


pytestmark = pytest.mark.usefixtures("empty_folder")


def bars(n: int, seed: int = 0) -> tuple[Any, Any]:
    """Images of 6 x 5 pixels with a bright column at one of three places, and the place."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    pictures = rng.integers(0, 90, (n, 6, 5)).astype(np.uint8)
    pictures[np.arange(n), :, labels * 2] += 150
    return pictures, labels


@pytest.fixture
def pictures() -> str:
    """A folder with a folder of PNG files for each class."""
    image = pytest.importorskip("PIL.Image", reason="needs Pillow")
    for i, (picture, label) in enumerate(zip(*bars(120), strict=True)):
        place = Path("bars", ("left", "middle", "right")[label])
        place.mkdir(parents=True, exist_ok=True)
        image.fromarray(picture).save(place / f"{i}.png")
    return "bars"


@pytest.fixture
def table() -> str:
    """Two classes of points in the plane, apart by a line."""
    points = RNG.normal(size=(150, 2))
    lines = [f"{x:.4f},{y:.4f},{'above' if y > x else 'below'}" for x, y in points]
    Path("points.csv").write_text("\n".join(["x,y,side", *lines]))
    return "points.csv"


@pytest.fixture
def numbers() -> str:
    """A linear function with noise, in units of its own."""
    x = RNG.normal(size=(200, 2))
    t = 5000 + 300 * x[:, 0] - 200 * x[:, 1] + RNG.normal(size=200)
    lines = [f"{a:.4f},{b:.4f},{c:.3f}" for (a, b), c in zip(x, t, strict=True)]
    Path("prices.csv").write_text("\n".join(["size,age,price", *lines]))
    return "prices.csv"


def trained(data: str, *more: str) -> str:
    assert main(["train", "--data", data, "--out", "run", "--hidden", "12", "--dropout", "0",
                 "--epochs", "40", *more]) == 0  # fmt: skip
    return "run"


def test_images_of_ones_own(pictures: str, capsys: pytest.CaptureFixture[str]) -> None:
    """From a folder of images to a network that knows the next ones: train, evaluate, predict."""
    run = trained(pictures)
    assert "network 30-12-3" in capsys.readouterr().out
    assert main(["evaluate", run]) == 0
    out = capsys.readouterr().out
    assert re.search(r"accuracy +(1\.0000|0\.9)", out)
    assert all(name in out for name in ("left", "middle", "right", "f1", "roc_auc"))
    files = sorted(Path(pictures, "right").glob("*.png"))[:3]
    assert main(["predict", run, *map(str, files)]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["class"] for row in rows] == ["right"] * 3
    assert all(float(row["probability"]) > 0.5 for row in rows)
    assert main(["predict", run, str(files[0]), "--out", "answers.csv"]) == 0
    assert capsys.readouterr().out == ""
    assert Path("answers.csv").read_text().startswith("example,class,probability\n")


def test_evaluation_of_other_data(pictures: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Its classes are those of the network, also if it lacks one."""
    run = trained(pictures)
    Path("more").mkdir()
    Path(pictures, "left").rename("more/left")
    Path(pictures, "middle").rename("more/middle")
    Path(pictures, "elsewhere").mkdir()
    next(Path("more/left").iterdir()).rename(Path(pictures, "elsewhere", "1.png"))
    capsys.readouterr()
    assert main(["evaluate", run, "--data", "more", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["classes"] == ["left", "middle", "right"]
    assert sum(map(sum, found["confusion"])) == found["examples"]
    assert sum(found["confusion"][2]) == 0
    assert main(["evaluate", run]) == 2
    assert "is not what run was trained on; put it back" in capsys.readouterr().err


def test_a_table_of_classes(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Inputs are scaled by the training part; new rows are scaled likewise."""
    run = trained(table)
    assert float(json.loads(Path(run, "result.json").read_text())["test_accuracy"]) > 0.9
    Path("new.csv").write_text("y,x\n5,-5\n-5,5\n")
    capsys.readouterr()
    assert main(["predict", run, "new.csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["class"] for row in rows] == ["above", "below"]
    assert rows[0]["example"] == "new.csv:1"


def test_a_table_of_numbers(numbers: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A regression; errors and predictions are in the units of the data."""
    run = trained(numbers, "--lr", "0.02")
    out = capsys.readouterr().out
    assert "network 2-12-1" in out
    found = re.search(r"test r2 (\S+), mae (\S+)", out)
    assert found is not None
    assert float(found[1].rstrip(",")) > 0.98
    assert main(["evaluate", run, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["mae"] == pytest.approx(float(found[2]), rel=1e-3)
    assert 1 < figures["mae"] < 60
    Path("new.csv").write_text("size,age\n1,1\n0,-1\n")
    assert main(["predict", run, "new.csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert float(rows[0]["value"]) == pytest.approx(5100, abs=60)
    assert float(rows[1]["value"]) == pytest.approx(5200, abs=60)


@pytest.mark.parametrize("named", [False, True])
def test_arrays(named: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """An NPZ file with a test part, labels as numbers or as names."""
    (x, t), (x2, t2) = bars(150), bars(40, 1)
    names = np.array(["a", "b", "c"])
    y, y2 = (names[t], names[t2]) if named else (t, t2)
    np.savez("bars.npz", x_train=x, y_train=y, x_test=x2, y_test=y2)
    trained("bars.npz")
    out = capsys.readouterr().out
    assert "128 training, 22 validation and 40 test examples" in out
    assert main(["predict", "run", "bars.npz"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == 40
    right = sum(row["class"] == str(label) for row, label in zip(rows, y2.tolist(), strict=True))
    assert right > 36


def test_a_list_of_images_and_the_textbooks_loss(
    pictures: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sigmoid outputs, targets .1 and .9; probabilities still sum to at most 1."""
    lines = [str(p.relative_to(pictures)) for p in sorted(Path(pictures).rglob("*.png"))]
    Path("list.txt").write_text("\n".join(lines))
    trained("list.txt", "--image-root", pictures, "--label-pattern", "(left|middle|right)",
            "--loss", "squared-error", "--activation", "sigmoid", "--lr", "0.05")  # fmt: skip
    assert json.loads(Path("run/result.json").read_text())["test_accuracy"] > 0.9
    capsys.readouterr()
    assert main(["predict", "run", f"{pictures}/{lines[0]}"]) == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert row["class"] == "left"
    assert 0.4 < float(row["probability"]) <= 1


def test_train_and_test_folders(pictures: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As many data sets come."""
    Path("data/test/left").mkdir(parents=True)
    Path("data/test/right").mkdir()
    Path(pictures).rename("data/train")
    for part in ("left", "right"):
        file = next(iter(Path("data/train", part).iterdir()))
        file.rename(Path("data/test", part, file.name))
    trained("data", "--epochs", "2")
    assert "and 2 test examples" in capsys.readouterr().out


EVERY = [
    ["--schedule", name] for name in ("step", "exponential", "cosine", "polynomial", "warmup",
                                      "one-cycle")
] + [
    ["--optimizer", name] for name in ("adadelta", "adamax", "nadam", "radam", "lion",
                                       "adafactor", "lamb")
] + [["--init", name] for name in ("lecun-normal", "lecun-uniform", "orthogonal", "trunc-normal",
                                   "he-uniform", "xavier-normal")] + [
    ["--precision", "bfloat16"], ["--precision", "float16"],
    ["--average", "0"], ["--average", "0.5"],
    ["--accumulate", "2"], ["--clip-norm", "0.5"], ["--metrics", "f1,top_5"],
    ["--checkpoint-steps", "3"], ["--loss", "squared-error"], ["--activation", "mish"],
    ["--validation-share", "0.3"],
]  # fmt: skip


BASE = ["train", "--epochs", "2", "--hidden", "8", "--batch-size", "200"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without further options."""
    folder = tmp_path_factory.mktemp("runs") / "plain"
    before = default_generator.state()
    assert main([*BASE, "--out", str(folder)]) == 0
    default_generator.set_state(before)
    return folder


@pytest.mark.parametrize("options", EVERY, ids=lambda options: " ".join(options))
def test_every_option_has_an_effect(options: list[str], plain: Path) -> None:
    """The weights or the history differ from those without it."""
    assert main([*BASE, "--out", "other", *options]) == 0
    runs = plain, Path("other")
    if options[0] == "--checkpoint-steps":
        times = [Path(run, "checkpoint.1.safetensors").read_bytes() for run in runs]
        assert times[0] != times[1]
        return
    rows = [Path(run, "history.csv").read_text() for run in runs]
    without_time = [re.sub(r",[^,]*$", "", text, flags=re.M) for text in rows]
    same_rows = without_time[0] == without_time[1]
    from tensorgrad.training import load_checkpoint

    states = [load_checkpoint(run / "model.safetensors").state for run in runs]
    same_weights = [v.data.tobytes() for v in states[0].values()] == [
        v.data.tobytes() for v in states[1].values()
    ]
    assert not (same_rows and same_weights)


def test_plateau() -> None:
    """A rate that is too high comes down after six epochs without a lower loss."""
    options = ["--schedule", "plateau", "--lr", "3", "--epochs", "20", "--patience", "30"]
    assert main(["train", "--hidden", "8", "--out", "run", *options]) == 0
    lines = Path("run/history.csv").read_text().splitlines()
    rates = [float(row["lr"]) for row in csv.DictReader(lines)]
    assert rates[0] == 3
    assert rates[-1] < 1


def test_files_on_request() -> None:
    """The live page, event files, gradient norms."""
    options = ["--live", "--gradient-norms"]
    try:
        import tensorboardX  # noqa: F401

        options.append("--tensorboard")
    except ImportError:
        pass
    assert main(["train", "--epochs", "1", "--hidden", "8", "--out", "run", *options]) == 0
    assert "ended after epoch 1" in Path("run/live.html").read_text()
    assert Path("run/gradients.csv").read_text().startswith("step,0.weight,0.bias")
    assert len(list(Path("run").glob("tensorboard/*"))) == len(options) - 2


# --- settings in files ----------------------------------------------------------------------------


def test_settings_go_through_toml(tmp_path: Path) -> None:
    """What is written is read back; a run repeats another from its config.toml."""
    settings = {**DEFAULTS, "hidden": [3, 4], "data": 'a "b" \\ \t ü', "features": ["x", "y"],
                "image_size": [28, 30], "batch_size": "full", "lr": 1e-3, "grey": True}  # fmt: skip
    path = tmp_path / "c.toml"
    path.write_text(write_toml(settings, {"python": "3"}))
    assert read_toml(path) == {k: v for k, v in settings.items() if v is not None and k != "out"}
    assert main(["train", "--epochs", "1", "--hidden", "8", "--lr", "0.01", "--out", "a"]) == 0
    assert main(["train", "--config", "a/config.toml", "--out", "b"]) == 0
    assert main(["train", "--config", "a/config.toml", "--lr", "0.1", "--out", "c"]) == 0
    results = [json.loads(Path(run, "result.json").read_text()) for run in "abc"]
    assert results[0] == results[1] != results[2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr = ", "not a TOML file"),
        ("speed = 1", "unknown key 'speed'; known are"),
        ("lr = -1", "lr must be a number above 0"),
        ("lr = true", "lr cannot be True"),
        ("grey = 1", "grey must be true or false"),
        ('optimizer = "magic"', "optimizer must be one of sgd"),
        ("[hidden]\na = 1", "hidden cannot be"),
        ("hidden = [1, 0]", "hidden must be the sizes"),
    ],
)
def test_wrong_toml(text: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, with the file and the key."""
    Path("c.toml").write_text(text)
    assert main(["train", "--config", "c.toml"]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "c.toml" in err
    assert err.count("\n") == 1
    assert not Path("runs").exists()


def test_resuming_for_less_than_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    """Refused, and the run's settings stay as they were."""
    assert main(["train", "--epochs", "3", "--hidden", "8", "--out", "run"]) == 0
    before = Path("run/config.toml").read_text()
    assert main(["resume", "run", "--epochs", "2"]) == 2
    assert "3 epochs of run are done already" in capsys.readouterr().err
    assert Path("run/config.toml").read_text() == before


def test_errors_of_several_outputs_are_in_their_units(capsys: pytest.CaptureFixture[str]) -> None:
    """The mean over outputs of different scales."""
    x = RNG.normal(size=(200, 3))
    np.savez("two.npz", x=x, y=np.stack([x[:, 0] * 1000, x[:, 1]], axis=1))
    trained("two.npz")
    capsys.readouterr()
    assert main(["evaluate", "run", "--data", "two.npz", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert main(["predict", "run", "two.npz"]) == 0
    rows = list(csv.reader(io.StringIO(capsys.readouterr().out)))[1:]
    answers = np.array([row[1:] for row in rows], float)
    error = abs(answers - np.stack([x[:, 0] * 1000, x[:, 1]], axis=1)).mean()
    assert found["mae"] == pytest.approx(error, rel=1e-4)


def test_two_processes_never_write_into_one_folder(capsys: pytest.CaptureFixture[str]) -> None:
    """The second is told to wait; the lock of a killed process is nobody's."""
    assert main(["train", "--epochs", "1", "--hidden", "8", "--out", "run"]) == 0
    root = str(Path(__file__).parents[2])
    holder = subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {root!r})\n"
         "from pathlib import Path\nfrom tensorgrad.cli.folder import locked\n"
         "with locked(Path('run')):\n    print('held', flush=True)\n    sys.stdin.read()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    capsys.readouterr()
    assert main(["resume", "run"]) == 2
    assert f"another process (process {holder.pid})" in capsys.readouterr().err
    holder.kill()
    holder.communicate()
    assert main(["resume", "run"]) == 0
    with (
        locked(Path("run")),
        pytest.raises(TensorgradError, match="another process"),
        locked(Path("run")),
    ):
        pass


# --- the other commands ---------------------------------------------------------------------------


def test_cross_validation(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    """D8: a table, a picture, and the smallest network that is good enough."""
    command = ["cross-validate", "--data", table, "--folds", "4", "--epochs", "15", "--out", "cv"]
    assert main([*command, "--hidden", "none", "--hidden", "8"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^none +6 +0\.[5-9]\d+ +0\.\d+  (0\.\d+ ?|1\.000 ?){4}$", out, re.M)
    assert "best: " in out
    assert "within one standard error of it: none" in out
    rows = list(csv.DictReader(Path("cv/folds.csv").read_text().splitlines()))
    assert [row["hidden"] for row in rows] == ["none", "8"]
    folds = [float(rows[1][f"fold{i}"]) for i in range(1, 5)]
    assert float(rows[1]["accuracy"]) == pytest.approx(np.mean(folds))
    assert "<svg" in Path("cv/folds.svg").read_text()
    Path("c.toml").write_text(f'data = "{table}"\nepochs = 15\n')
    with_file = ["cross-validate", "--config", "c.toml", "--folds", "4", "--hidden", "8"]
    assert main([*with_file, "--dropout", "0", "--out", "cv2"]) == 0
    again = list(csv.DictReader(Path("cv2/folds.csv").read_text().splitlines()))
    assert again == rows[1:]
    assert main(["cross-validate", "--folds", "1"]) == 2


def test_report(table: str, pictures: str) -> None:
    """One file that refers to nothing outside itself."""
    trained(table, "--gradient-norms")
    assert main(["report", "run"]) == 0
    page = Path("run/report.html").read_text()
    for title in ("Result", "Curves", "Confusion", "Decision regions", "Gradient norms",
                  "Network", "Settings"):  # fmt: skip
        assert f"<h2>{title}</h2>" in page
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert main(["train", "--data", pictures, "--epochs", "1", "--out", "two"]) == 0
    assert main(["report", "two", "--out", "page.html"]) == 0
    page = Path("page.html").read_text()
    assert page.count('alt="unit') == 64
    image = pytest.importorskip("PIL.Image", reason="needs Pillow")
    import base64

    encoded = re.search(r"alt=\"unit 0\" src=\"data:image/png;base64,([^\"]+)", page)
    assert encoded is not None
    picture = image.open(io.BytesIO(base64.b64decode(encoded[1])))
    assert picture.size == (5, 6)
    picture.load()


def test_verify_resume(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Two kills, one of them while a checkpoint is being written; equal in the end."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    assert main(["verify-resume", "--kills", "2", "--epochs", "10"]) == 0
    out = capsys.readouterr().out
    assert "2 of 2 equal" in out
    assert out.count("equal") == 3


def test_verify_resume_notices_a_difference(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 1 if the resumed run is another one."""
    from tensorgrad.cli import verify_resume

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    usual = verify_resume._process

    def forgetful(run: Path, *words: str) -> Any:
        if words[0] == "resume":  # the learning rate of the rest is another
            path = run / "checkpoint.safetensors"
            from tensorgrad.training import load_newest, save_checkpoint

            found = load_newest(path)
            found.state["scheduler"]["count"] = 0
            save_checkpoint(path, found.state, found.config)
        return usual(run, *words)

    monkeypatch.setattr(verify_resume, "_process", forgetful)
    assert main(["verify-resume", "--kills", "1", "--epochs", "10"]) == 1
    assert "DIFFERS" in capsys.readouterr().out


def test_verify_resume_of_training_that_fails(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it printed last is told."""
    from tensorgrad.cli import verify_resume

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setattr(verify_resume, "_SETTINGS", ("--lr", "fast"))
    assert main(["verify-resume", "--kills", "1"]) == 2
    assert "--lr: must be a number above 0, not 'fast'" in capsys.readouterr().err


def test_bench(capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each network."""
    assert main(["bench", "--seconds", "0.01"]) == 0
    out = capsys.readouterr().out
    assert "784-512-512-10, batch 128" in out
    assert main(["bench", "--seconds", "0"]) == 2


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A script for the shell."""
    pytest.importorskip("argcomplete", reason="needs argcomplete")
    assert main(["completion", shell]) == 0
    assert "tensorgrad" in capsys.readouterr().out


def test_completion_of_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the shell is offered after "tensorgrad re"."""
    pytest.importorskip("argcomplete", reason="needs argcomplete")
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-m", "tensorgrad"], cwd=tmp_path, check=False, capture_output=True,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": root, "_ARGCOMPLETE": "1",
             "_ARGCOMPLETE_STDOUT_FILENAME": str(tmp_path / "found"), "_ARGCOMPLETE_IFS": "\n",
             "COMP_LINE": "tensorgrad re", "COMP_POINT": "13", "COMP_TYPE": "9"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert sorted((tmp_path / "found").read_text().split()) == ["report", "resume"]


def test_help_of_every_command_teaches_by_example(capsys: pytest.CaptureFixture[str]) -> None:
    """Each example is accepted by the parser."""
    for command in ("train", "resume", "evaluate", "predict", "cross-validate", "verify-resume",
                    "report", "info", "bench", "completion"):  # fmt: skip
        assert main([command, "--help"]) == 0
        text = capsys.readouterr().out
        examples = re.findall(r"^  (?:eval \"\$\()?tensorgrad ([^)\n>]*)", text, re.M)
        assert examples, command
        for example in examples:
            build_parser().parse_args(example.split())
    assert len({option.name for option in OPTIONS}) == len(OPTIONS)


WRONG: dict[str, tuple[list[str], str]] = {
    "no run to evaluate": (["evaluate", "nowhere"], "holds no model.safetensors"),
    "no run to predict": (["predict", "nowhere", "x.png"], "holds no model.safetensors"),
    "no run to report": (["report", "nowhere"], "holds no model.safetensors"),
    "no run to resume": (["resume", "nowhere"], "holds no checkpoint"),
    "unknown kind": (["train", "--data", "x.xyz"], "unknown kind of data"),
    "target of digits": (["train", "--target", "x"], "--target is for tables"),
    "image size": (["train", "--image-size", "3x4x5"], "must be height x width"),
    "share": (["train", "--validation-share", "0.5"], "leaves nothing to train on"),
    "no share": (["train", "--validation-share", "0"], "must be above 0"),
    "metric": (["train", "--metrics", "f7"], "unknown metric 'f7'"),
    "metric of numbers": (
        ["train", "--metrics", "r2"],
        "for a target of classes there are accuracy",
    ),
    "metric of classes": (
        ["train", "--data", "y.npz", "--metrics", "f1"],
        "there are r2, mae, mse",
    ),
    "label beyond memory": (["train", "--data", "big.npz"], "the largest label is 3,000,000,001"),
    "one class": (["train", "--data", "one.npz"], "all 40 examples are of one class, '1'"),
    "target not finite": (["train", "--data", "nan.npz"], "y has values that are not finite"),
    "size of digits": (["train", "--image-size", "9x9"], "--image-size is for image files"),
    "grey table": (["train", "--data", "t.csv", "--grey"], "--grey is for image files"),
    "colours of digits": (["train", "--no-grey"], "--grey is for image files"),
    "gaps of digits": (["train", "--missing", "impute"], "--missing is for tables"),
    "numbers with units": (["train", "--data", "unit.csv"], "numbers with a sign or unit"),
    "config and resume": (["train", "--resume", "x", "--config", "y"], "cannot be given with"),
    "no config": (["train", "--config", "nowhere.toml"], "No such file"),
    "schedule": (["train", "--schedule", "never"], "invalid choice"),
    "empty table": (["train", "--data", "empty.csv"], "empty.csv: there are no rows"),
    "column": (["train", "--data", "t.csv", "--target", "z"], "take one of a, b"),
    "few rows": (["train", "--data", "t.csv"], "too few to be split"),
    "arrays": (["train", "--data", "a.npz"], "there must be arrays x and y"),
    "damaged image": (["train", "--data", "pets"], "not an image, or damaged"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 and one line; nothing is left behind."""
    argv, text = WRONG[case]
    if case == "damaged image":
        pytest.importorskip("PIL", reason="needs Pillow")
    Path("x.xyz").write_text("?")
    Path("empty.csv").write_text("")
    Path("t.csv").write_text("a,b\n1,2.5\n3,4.5\n")
    np.savez("a.npz", z=np.ones(3))
    x = np.arange(80.0).reshape(40, 2)
    np.savez("y.npz", x=x, y=x[:, :1] * 0.5)
    np.savez("big.npz", x=x, y=np.arange(40) % 2 + 3_000_000_000)
    np.savez("one.npz", x=x, y=np.ones(40, int))
    np.savez("nan.npz", x=x, y=np.where(x > 70, np.nan, x))
    Path("unit.csv").write_text("a,b\n" + "".join(f"{i} kg,{i}\n" for i in range(20)))
    for name in ("cat", "dog"):
        Path("pets", name).mkdir(parents=True)
        Path("pets", name, "1.png").write_bytes(b"not a picture")
    assert main(argv) == 2
    err = capsys.readouterr().err
    assert text in err
    assert err.count("\n") == 1
    assert not Path("runs").exists() or not list(Path("runs").rglob("*.safetensors"))
