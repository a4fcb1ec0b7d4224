"""Input that is wrong, strange or hostile: one line, exit code 2, nothing left behind."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensorgrad
from tensorgrad.cli import main
from tensorgrad.cli.settings import read_toml
from tensorgrad.cli.terminal import Terminal, cell, printable
from tensorgrad.training import draw_curves, load_checkpoint
from tensorgrad.training.curves import draw_norms

pytestmark = pytest.mark.usefixtures("empty_folder")
SHORT = ["train", "--epochs", "1", "--hidden", "4"]


def table(name: str = "t.csv", target: str = "{c}") -> str:
    """60 rows of two features and a target: a class or a number."""
    rng = np.random.default_rng(0)
    lines = ["a,b,t"]
    for i in range(60):
        a, b = rng.normal(size=2)
        lines.append(f"{a:.4f},{b:.4f},{target.format(i=i, a=a, b=b, c='pq'[int(a > 0)])}")
    Path(name).write_text("\n".join(lines))
    return name


def one_line(capsys: pytest.CaptureFixture[str], argv: list[str], code: int = 2) -> str:
    """What a command says that fails."""
    capsys.readouterr()
    assert main(argv) == code
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "Errno" not in err
    return err


# --- what goes to the terminal and into CSV files -------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("naïve α 猫 🐈", "naïve α 猫 🐈"),
        ("\x1b]0;x\x07", r"\x1b]0;x\x07"),
        ("\x9b2J\x7f", r"\x9b2J\x7f"),
        ("a\r\nb\tc", r"a\x0d\x0ab\x09c"),
        ("gr\udcf6\udcdfe", r"gr\xf6\xdfe"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
    ],
)
def test_printable(text: str, expected: str) -> None:
    assert printable(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("=1+cmd", "'=1+cmd"), ("+cmd", "'+cmd"), ("-cmd", "'-cmd"), ("@sum", "'@sum"),
        ("＝1", "'＝1"), ("-1", "-1"), ("+2.5e-3", "+2.5e-3"), ("a=b", "a=b"), ("", ""),
        ("\t=1", r"\x09=1"), ("--1", "'--1"),
    ],
)  # fmt: skip
def test_cells_are_no_formulas(text: str, expected: str) -> None:
    assert cell(text) == expected


def test_terminal() -> None:
    """Only harmless text, in the encoding that it has; lines and tabs stay."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, "ascii", newline="")
    out = Terminal(stream)
    assert out.write("a\tb\r\n") == 5
    out.write("é\x1b[2J\udcff")
    out.flush()
    assert raw.getvalue() == b"a\tb\r\n\\xe9\\x1b[2J\\xff"
    assert not out.isatty()
    assert out.encoding == "ascii"
    nobody = Terminal(None)
    assert nobody.write("x") == 1
    nobody.flush()
    assert not nobody.isatty()


def process(*argv: str | bytes, **options: Any) -> subprocess.CompletedProcess[bytes]:
    root = str(Path(__file__).parents[2])
    env = {**os.environ, "PYTHONPATH": root, **options.pop("env", {})}
    return subprocess.run(
        [sys.executable, "-m", "tensorgrad", *argv], stderr=subprocess.PIPE, env=env, check=False,
        timeout=300, **options,
    )  # fmt: skip


def test_nobody_reads_the_output() -> None:
    """A run goes on to its end when the reader of a pipe has gone: its folder is what counts."""
    reading, writing = os.pipe()
    os.close(reading)
    done = process(*SHORT, "--out", "run", stdout=writing)
    os.close(writing)
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr
    assert b"BrokenPipe" not in done.stderr
    assert Path("run/result.json").is_file()


@pytest.mark.skipif(os.name != "posix", reason="closes descriptors as shells do")
@pytest.mark.parametrize("descriptor", [1, 2])
def test_closed_output(descriptor: int) -> None:
    """As after ``>&-`` in a shell."""
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {descriptor}>&-', "sh", sys.executable, "-m", "tensorgrad",
         *SHORT, "--out", "run"],
        capture_output=True, check=False, timeout=300,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert done.returncode == 0
    assert Path("run/result.json").is_file()
    assert b"Traceback" not in done.stderr
    assert (b"test accuracy" in done.stdout) == (descriptor == 2)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_output_that_cannot_be_written() -> None:
    """Said in one line, once."""
    with open("/dev/full", "wb") as full:
        done = process("info", stdout=full)
    assert done.returncode == 2
    assert done.stderr.decode() == (
        "tensorgrad info: error: No space left on device; make room on the disk\n"
    )


def test_an_encoding_that_lacks_letters() -> None:
    """What it cannot say is written out."""
    Path("é.csv").write_text(Path(table()).read_text())
    done = process(
        "train", "--data", "é.csv", "--epochs", "1", stdout=subprocess.PIPE,
        env={"PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert rb"\xe9: 42 training" in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file system that takes any bytes")
def test_names_that_are_not_utf8(capsys: pytest.CaptureFixture[str]) -> None:
    """Settings cannot hold them; files to predict, and folders of classes, may have them."""
    data = table(os.fsdecode(b"gr\xf6\xdfe.csv"))
    assert r"rename 'gr\\xf6\\xdfe.csv'" in one_line(capsys, [*SHORT, "--data", data])
    run = os.fsdecode(b"gr\xfcn")
    assert main([*SHORT, "--data", table(), "--out", run]) == 0
    assert main(["resume", run, "--epochs", "2"]) == 0
    assert main(["predict", run, data, "--out", "answers.csv"]) == 0
    assert Path("answers.csv").read_text().splitlines()[1].startswith(r"gr\xf6\xdfe.csv:1,")
    image = pytest.importorskip("PIL.Image", reason="needs Pillow")
    for label in (b"gr\xf6n", b"rot"):
        Path("data", os.fsdecode(label)).mkdir(parents=True)
        for i in range(12):
            pixels = np.full((2, 2), 200 if label == b"rot" else i, np.uint8)
            image.fromarray(pixels).save(Path("data", os.fsdecode(label), f"{i}.png"))
    assert main([*SHORT, "--data", "data", "--out", "two"]) == 0
    assert main(["report", "two"]) == 0
    assert main(["evaluate", "two"]) == 0
    assert r"gr\xf6n" in capsys.readouterr().out
    assert r"gr\xf6n" in Path("two/report.html").read_text()


def test_names_that_would_do_something(capsys: pytest.CaptureFixture[str]) -> None:
    """Escape sequences in names of files and classes, formulas in CSV."""
    assert r"no\x1b]0;x\x07" in one_line(capsys, ["evaluate", "no\x1b]0;x\x07"])
    assert r"\x1b[2J" in one_line(capsys, ["train", "--\x1b[2J"])
    name = table("a\x1b[2J.csv")
    text = Path(name).read_text()
    Path(name).write_text(text.replace(",p", ",=1+cmd").replace(",q", ',"\x1b[31mR\rS"'))
    assert main(["train", "--data", name, "--epochs", "3"]) == 0
    capsys.readouterr()
    (run,) = Path("runs").iterdir()
    assert run.name == r"a\x1b[2J-1"
    for argv in (["evaluate", str(run)], ["predict", str(run), name], ["report", str(run)]):
        assert main(argv) == 0
        out = capsys.readouterr().out
        assert not re.search("[\x00-\x09\x0b-\x1f]", out)
        if argv[0] == "predict":
            found = {row["class"] for row in csv.DictReader(io.StringIO(out))}
            assert found == {"'=1+cmd", r"\x1b[31mR\x0dS"}
    assert main(["predict", str(run), name, "--out", "answers.csv"]) == 0
    assert not re.search(r"\x1b|,=", Path("answers.csv").read_text())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"tensorgrad {tensorgrad.__version__}\n"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["train", "--config", "nosuch.toml"], "nosuch.toml: No such file or directory; check"),
        (["train", "--config", "."], ".: Is a directory; name a file in it"),
        (["train", "--data", "t.csv", "--out", "t.csv/x"], "a part of the path is a file"),
        (["train", "--data", "x" * 300 + ".csv"], "File name too long; take a shorter one"),
        (["train", "--epochs", "1_0"], "must be a whole number from 1 to 2**31 - 1, not '1_0'"),
        (["train", "--lr", "1_0"], "must be a number above 0, not '1_0'"),
        (["train", "--epochs", "٣"], "must be a whole number"),
        (["train", "--epochs", "9" * 400], "must be a whole number"),
        (["train", "--epochs", "9" * 5000], "must be a whole number"),
        (["train", "--hidden", "9" * 20], "must be the sizes"),
        (["bench", "--seconds", "inf"], "must be a number above 0"),
    ],
)
def test_said_in_one_line(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a number of the system, and not longer than a screen."""
    table()
    err = one_line(capsys, argv)
    assert message in err
    assert len(err) < 1200


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"epochs = " + b"9" * 5000, "not a TOML file"),
        (b"hidden = " + b"[" * 1000 + b"]" * 1000, "not a TOML file"),
        (b"hidden = [[3], [4]]", "hidden cannot be a table, or a list of lists"),
        (b"hidden.a" + b".a" * 3000 + b" = 1", "hidden cannot be a table"),
        (b"features = [{a = 1}]", "features cannot be a table"),
        (b"batch-size = 1\nbatch_size = 2", "batch_size is there twice"),
        (b'data = "a\\u0000b"', "data must be UTF-8 without NUL"),
        (b'out = "a\\u0000b"', "out must be a name without NUL"),
        (b"\xff\xfea\0", "not a TOML file"),
        (b"epochs = 1" + b"0" * 400, "epochs must be a whole number from 1 to"),
    ],
)
def test_wrong_toml(text: bytes, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, with the file and the key."""
    Path("c.toml").write_bytes(text)
    err = one_line(capsys, ["train", "--config", "c.toml"])
    assert message in err
    assert "c.toml" in err
    assert not Path("runs").exists()


def test_toml_of_an_editor() -> None:
    """With a byte order mark."""
    Path("c.toml").write_bytes(b"\xef\xbb\xbfepochs = 3\n")
    assert read_toml("c.toml") == {"epochs": 3}


REFUSED: dict[str, tuple[list[str], str]] = {
    "loss of numbers": (["--data", "n.csv", "--loss", "cross-entropy"], "is for classes"),
    "parts of a batch": (["--accumulate", "64"], "--accumulate 64 is for batches of as many"),
    "parts of a small table": (["--data", "t.csv", "--accumulate", "50", "--batch-size", "full"],
                               "there are 42 in one"),
    "activation of nothing": (["--hidden", "none", "--activation", "tanh"],
                              "--activation is for hidden layers"),
    "usual activation of nothing": (["--hidden", "none", "--activation", "relu"],
                                    "--activation is for hidden layers"),
    "dropout of nothing": (["--hidden", "none", "--dropout", "0.2"],
                           "--dropout is for hidden layers"),
    "grey IDX files": (["--data", "idx", "--grey"], "--grey is for image files"),
    "size of IDX files": (["--data", "idx", "--image-size", "8"],
                          "--image-size is for image files"),
    "constant target": (["--data", "constant.csv"], "the target is 2.5 in all 60 examples"),
    "numbers with a sign": (["--data", "percent.csv"],
                            "60 different numbers with a sign or unit, as '0%'"),
    "a class each": (["--data", "each.csv"], "60 examples are of 60 classes"),
    "test of numbers": (["--data", "t.csv", "--test", "n.csv"], "none of the classes"),
    "test of classes": (["--data", "n.csv", "--test", "t.csv"], "must hold numbers, not texts"),
    "arrays x and X": (["--data", "twice.npz"], "must differ in small letters; got x, X, y"),
    "empty inputs": (["--data", "zero.npz"], "must have an element at least"),
    "five best of two": (["--data", "t.csv", "--metrics", "top_5"], "top_5 is always 1"),
    "a figure twice": (["--metrics", "f1,f1"], "must be different names"),
    "no part": (["--validation-share", "1e-9"], "digits: 1797 examples are too few to be split"),
    "no event files": (["--tensorboard"], "pip install tensorboardX"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_options_and_data_that_would_do_nothing(
    case: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused, and no folder is left."""
    table()
    table("n.csv", "{a:.3f}")
    table("constant.csv", "2.5")
    table("percent.csv", "{i}%")
    table("each.csv", "{i}x{a}")
    Path("idx").mkdir()
    Path("idx/train-images-idx3-ubyte").write_bytes(b"")
    np.savez("twice.npz", x=np.ones((4, 1)), X=np.ones((4, 2)), y=np.arange(4) % 2)
    np.savez("zero.npz", x=np.zeros((40, 0)), y=np.arange(40) % 2)
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    argv, message = REFUSED[case]
    assert message in one_line(capsys, ["train", *argv])
    assert not Path("runs").exists()
    Path("there").mkdir()
    assert message in one_line(capsys, ["train", *argv, "--out", "there"])
    assert not list(Path("there").iterdir())


def test_what_is_begun_and_fails_leaves_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the first checkpoint; other runs stay."""
    from tensorgrad.cli import train

    assert main([*SHORT, "--out", "runs/other"]) == 0

    def fails(*args: Any) -> Any:
        raise MemoryError("no room for the network")

    monkeypatch.setattr(train, "new_trainer", fails)
    assert "no room" in one_line(capsys, SHORT)
    assert [path.name for path in Path("runs").iterdir()] == ["other"]

    def interrupted(*args: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "new_trainer", interrupted)
    assert one_line(capsys, SHORT, 130) == "tensorgrad train: interrupted\n"
    assert [path.name for path in Path("runs").iterdir()] == ["other"]


def test_settings_of_a_regression() -> None:
    """The loss is the one that is used, and the target is known by name."""
    table("n.csv", "{a:.3f}")
    assert main([*SHORT, "--data", "n.csv", "--out", "run"]) == 0
    assert not {"loss", "target"} & set(read_toml("run/config.toml"))  # they were not chosen
    saved = load_checkpoint("run/model.safetensors").config
    assert (saved["loss"], saved["target"]) == ("squared-error", "t")
    assert main(["report", "run"]) == 0
    assert "cross-entropy" not in Path("run/report.html").read_text()
    again = ["train", "--config", "run/config.toml", "--data"]
    assert main([*again, "n.csv", "--out", "two"]) == 0
    assert main([*again, table(), "--out", "classes"]) == 0
    assert load_checkpoint("classes/model.safetensors").config["loss"] == "cross-entropy"
    assert main(["train", "--hidden", "none", "--epochs", "1", "--out", "three"]) == 0
    assert main(["report", "three"]) == 0
    assert "relu" not in Path("three/report.html").read_text()


def test_a_test_table_with_its_columns_in_another_order(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """They are known by name, in training and in evaluation."""
    table("n.csv", "{a:.3f}")
    rows = [line.split(",") for line in Path("n.csv").read_text().splitlines()]
    Path("other.csv").write_text("\n".join(f"{t},{b},x,{a}" for a, b, t in rows))
    for test, out in (("n.csv", "one"), ("other.csv", "two")):
        assert (
            main(["train", "--data", "n.csv", "--test", test, "--epochs", "3", "--out", out]) == 0
        )
    one, two = (json.loads(Path(out, "result.json").read_text()) for out in ("one", "two"))
    assert one == two
    capsys.readouterr()
    assert main(["evaluate", "one", "--data", "other.csv", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["loss"] == pytest.approx(one["test_loss"], rel=1e-5)


def test_cells_that_are_not_used(capsys: pytest.CaptureFixture[str]) -> None:
    """A column left out, and the target of rows to predict, may be empty."""
    Path("t.csv").write_text("a,rooms,t\n" + "".join(f"{i},{i or ''},{i}.5\n" for i in range(60)))
    assert main([*SHORT, "--data", "t.csv", "--features", "a", "--out", "run"]) == 0
    Path("new.csv").write_text("t,a\n,1\n,2\n")
    capsys.readouterr()
    assert main(["predict", "run", "new.csv"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    Path("new.csv").write_text("t,a\n,1\n3,\n")
    assert "line 3, column a: the cell is empty" in one_line(capsys, ["predict", "run", "new.csv"])


def test_classes_of_a_part_of_the_data(capsys: pytest.CaptureFixture[str]) -> None:
    """Labels that are numbers in one file and not in another are the same labels."""
    labels = "0123456789ABCDEF"
    Path("t.csv").write_text("a,t\n" + "".join(f"{i},{labels[i % 16]}\n" for i in range(160)))
    assert main([*SHORT, "--data", "t.csv", "--out", "run"]) == 0
    assert "network 1-4-16" in capsys.readouterr().out
    Path("some.csv").write_text("a,t\n1,1\n2,2\n7,7\n")
    assert main(["evaluate", "run", "--data", "some.csv", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [found["confusion"][i] != [0] * 16 for i in (1, 2, 3, 7)] == [True, True, False, True]
    table("n.csv", "{i}.5")
    assert main([*SHORT, "--data", "n.csv", "--out", "two"]) == 0
    Path("few.csv").write_text("a,b,t\n1,2,3\n1,3,4\n2,2,3\n2,2,4\n1,1,3\n1,1,3\n1,1,3\n1,1,3\n")
    assert main(["evaluate", "two", "--data", "few.csv"]) == 0


@pytest.mark.parametrize("kind", ["csv", "npz", "idx", "predict"])
def test_values_that_float32_cannot_hold(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Refused before they train to NaN."""
    x = np.random.default_rng(0).normal(size=(60, 2))
    x[7, 1] = 1e39
    if kind == "csv":
        rows = [f"{a!r},{b!r},{'pq'[i % 2]}" for i, (a, b) in enumerate(x.tolist())]
        Path("t.csv").write_text("\n".join(["a,b,t", *rows]))
        assert "column 'b', row 8: 1e+39 is not" in one_line(capsys, [*SHORT, "--data", "t.csv"])
    elif kind == "npz":
        np.savez("x.npz", x=x, y=np.arange(60) % 2)
        assert "above what float32 can hold" in one_line(capsys, [*SHORT, "--data", "x.npz"])
        np.savez("x.npz", x=x[:, :1], y=x[:, 1])
        assert "above what float32 can hold" in one_line(capsys, [*SHORT, "--data", "x.npz"])
    elif kind == "idx":
        from tensorgrad.data import write_idx

        Path("idx").mkdir()
        for part in ("train", "t10k"):
            write_idx(f"idx/{part}-images-idx3-ubyte", np.where(x > 9, np.nan, x)[:, :, None])
            write_idx(f"idx/{part}-labels-idx1-ubyte", (np.arange(60) % 2).astype(np.uint8))
        assert "all values must be numbers" in one_line(capsys, [*SHORT, "--data", "idx"])
    else:
        assert main([*SHORT, "--data", table(), "--out", "run"]) == 0
        Path("new.csv").write_text("a,b\n1,1e39\n")
        assert "so far from those" in one_line(capsys, ["predict", "run", "new.csv"])
    assert not Path("runs").exists()


def test_options_of_the_other_commands(capsys: pytest.CaptureFixture[str]) -> None:
    """Each acts, or is refused."""
    assert main([*SHORT, "--data", table(), "--out", "run"]) == 0
    np.savez("empty.npz", x=np.ones((0, 2)), y=np.ones(0, int))
    np.savez("text.npz", x=np.array([["a", "b"]]))
    np.savez("nan.npz", x=np.full((3, 2), np.nan))
    for argv, message in (
        (["evaluate", "run", "--data", "t.csv", "--part", "train"], "--part is of the run's own"),
        (["evaluate", "run", "--image-size", "8"], "--image-size is for image files"),
        (["evaluate", "run", "--label-pattern", "(x)"], "--label-pattern is for lists"),
        (["evaluate", "run", "--data", "t.csv", "--image-root", "."], "--image-root is for lists"),
        (["predict", "run", "t.csv", "--image-size", "8"], "--image-size is for image files"),
        (["predict", "run", "t.csv", "--label-pattern", "(x)"], "unrecognized arguments"),
        (["predict", "run", "empty.npz"], "no array x [n, ...] of numbers with an example"),
        (["predict", "run", "text.npz"], "no array x [n, ...] of numbers with an example"),
        (["predict", "run", "nan.npz"], "an input is no number"),
        (["evaluate", "run", "--data", "empty.npz"], "there are no examples"),
        (["cross-validate", "--metrics", "f1"], "unrecognized arguments"),
        (["cross-validate", "--schedule", "plateau"], "--schedule plateau watches"),
        (["cross-validate", "--hidden", "none", "--dropout", ".5"], "--dropout is for hidden"),
    ):
        assert message in one_line(capsys, argv)
    losses = set()
    for part in ("train", "validation", "test"):
        capsys.readouterr()
        assert main(["evaluate", "run", "--part", part, "--json"]) == 0
        losses.add(json.loads(capsys.readouterr().out)["loss"])
    assert len(losses) == 3


def test_defaults_of_cross_validation(capsys: pytest.CaptureFixture[str]) -> None:
    """Those that --help states; the sizes of a settings file count."""
    assert main(["cross-validate", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "in total (default 20, and 4,000 steps at least)" in text
    assert "0 of layers below 32 units)" in text
    table()
    base = ["cross-validate", "--data", "t.csv", "--folds", "2", "--batch-size", "full"]
    assert main([*base, "--hidden", "3", "--out", "one"]) == 0
    given = ["--epochs", "4000", "--dropout", "0", "--hidden", "3"]
    assert main([*base, *given, "--out", "two"]) == 0
    Path("c.toml").write_text("hidden = [3]\npatience = 7\n")
    assert main([*base, "--config", "c.toml", "--out", "three"]) == 0
    results = {Path(out, "folds.csv").read_text() for out in ("one", "two", "three")}
    assert len(results) == 1


def test_figures_that_are_no_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    """R2 of one example: null in JSON, and nothing to compare networks by."""
    Path("t.csv").write_text("a,t\n" + "".join(f"{i},{i}.5\n" for i in range(6)))
    assert main([*SHORT, "--data", "t.csv", "--out", "run"]) == 0
    assert "nan" not in Path("run/result.json").read_text().lower().replace("null", "")
    assert json.loads(Path("run/result.json").read_text())["test_r2"] is None
    capsys.readouterr()
    assert main(["evaluate", "run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["r2"] is None
    assert main(["report", "run"]) == 0
    argv = ["cross-validate", "--data", "t.csv", "--hidden", "2", "--epochs", "1", "--out", "cv"]
    assert "r2 of fold 1 is nan, as the target does not vary in its 1" in one_line(capsys, argv)
    assert not Path("cv").exists()


def test_training_that_overflows(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line says where; what is warned of in training that goes on is a line too."""
    from tensorgrad.training import Progress

    argv = ["train", "--hidden", "4", "--optimizer", "sgd", "--lr", "1e30", "--out", "run"]
    assert "was not finite in step" in one_line(capsys, argv, 1)

    def warns(*_: Any) -> None:
        for _step in range(3):
            warnings.warn("a gradient is large", RuntimeWarning, stacklevel=1)

    monkeypatch.setattr(Progress, "on_batch_end", warns)
    assert main([*SHORT, "--out", "other"]) == 0
    assert capsys.readouterr().err.splitlines()[1:] == ["a gradient is large"]


# --- files that a run left ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of its own, not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    data = Path(table(str(folder / "t.csv")))
    options = ["--data", str(data), "--gradient-norms", "--out", str(folder / "run")]
    assert main(["train", "--epochs", "12", "--hidden", "4", "--batch-size", "8", *options]) == 0
    return folder / "run"


DAMAGED: dict[str, tuple[str, bytes]] = {
    "no JSON": ("result.json", b"{"),
    "too deep": ("result.json", b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "too many digits": ("result.json", b'{"epochs": ' + b"9" * 5000 + b"}"),
    "list": ("result.json", b"[1]"),
    "not a text": ("result.json", b"\xff\xfe\xfa"),
    "confusion of texts": ("result.json", b'{"confusion": [["a", "b"], ["c", "d"]]}'),
    "confusion with a hole": ("result.json", b'{"confusion": [[1, 2], [3]]}'),
    "confusion below 0": ("result.json", b'{"confusion": [[1, 2], [3, -4]]}'),
    "confusion beyond floats": ("result.json", b'{"confusion": [[1%s]]}' % (b"0" * 400)),
    "confusion of switches": ("result.json", b'{"confusion": [[true]]}'),
    "confusion in words": ("result.json", b'{"confusion": "none"}'),
    "figure that is none": ("result.json", b'{"test_loss": {"a": [1]}}'),
    "text among numbers": ("history.csv", b"epoch,train_loss\n1,low\n"),
    "no epochs": ("history.csv", b"train_loss\n1\n"),
    "epoch that is none": ("history.csv", b"epoch,train_loss\nnan,1\n"),
    "epoch without end": ("history.csv", b"epoch,train_loss\n1e300,1\n"),
    "epoch below 0": ("history.csv", b"epoch,train_loss\n-1,1\n"),
    "cells too many": ("history.csv", b"epoch,train_loss\n1,2,3\n"),
    "no text": ("history.csv", b"epoch,train_loss\n1,\xff\n"),
    "no steps": ("gradients.csv", b"0.weight\n1\n"),
    "step that is none": ("gradients.csv", b"step,0.weight\ninf,1\n"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_report_of_damaged_files(
    case: str, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, with the file."""
    name, content = DAMAGED[case]
    run = Path("run")
    run.mkdir()
    for path in finished.iterdir():
        (run / path.name).write_bytes(path.read_bytes())
    (run / name).write_bytes(content)
    assert f"run/{name}: damaged" in one_line(capsys, ["report", "run"])
    assert not (run / "report.html").exists()


@pytest.mark.parametrize("case", ["byte order mark", "extreme figures"])
def test_report_of_strange_files(case: str, finished: Path) -> None:
    """As an editor saves them, and with figures that no picture can hold."""
    run = Path("run")
    run.mkdir()
    for path in finished.iterdir():
        (run / path.name).write_bytes(path.read_bytes())
    if case == "byte order mark":
        for name in ("history.csv", "result.json", "gradients.csv"):
            (run / name).write_bytes(b"\xef\xbb\xbf" + (run / name).read_bytes())
    else:
        (run / "history.csv").write_text("epoch,train_loss\n1,1.7e308\n2,-1.7e308\n3,nan\n4,inf\n")
    assert main(["report", "run"]) == 0


@pytest.mark.parametrize("value", [0.0, 5e-324, 1e-310, 1e-15, 1.0, 1e16, 1e300, 1.7e308, np.nan])
@pytest.mark.parametrize("other", [0.0, -1.7e308, 3e-15, 1 + 1e-15, 1e16 + 2, np.inf])
def test_pictures_of_extreme_figures(value: float, other: float) -> None:
    """Where differences underflow, overflow or vanish."""
    for epoch in (1.0, 2.0, 1e15):
        history = [{"epoch": 1.0, "train_loss": value}, {"epoch": epoch, "train_loss": other}]
        assert draw_curves(history).endswith("</svg>\n")
    norms = [{"step": 0.0, "w": abs(value)}, {"step": 4.0, "w": abs(other)}]
    assert draw_norms(norms).endswith("</svg>\n")


def test_models_that_are_no_runs(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Saved by other programs, with another problem."""
    from tensorgrad.training import save_checkpoint

    found = load_checkpoint(finished / "model.safetensors")
    Path("run").mkdir()
    for problem in (3, {}, {**found.config["problem"], "more": 1}, None):
        config = {**found.config, "problem": problem}
        save_checkpoint("run/model.safetensors", found.state, config)
        assert "was not written by tensorgrad train" in one_line(capsys, ["report", "run"])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs on this system")
def test_fifos_are_not_waited_for(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As data, as settings, as what a run left."""
    os.mkfifo("x.csv")
    os.mkfifo("x.toml")
    os.mkfifo("x.npz")
    os.mkfifo("x.txt")
    run = Path("run")
    run.mkdir()
    (run / "model.safetensors").write_bytes((finished / "model.safetensors").read_bytes())
    os.mkfifo(run / "result.json")
    for argv in (
        ["train", "--data", "x.csv"], ["train", "--data", "x.npz"], ["train", "--data", "x.txt"],
        ["train", "--config", "x.toml"], ["report", "run"],
    ):  # fmt: skip
        assert "a FIFO, a device or a socket, not a file" in one_line(capsys, argv)
    assert "x.csv: not a file" in one_line(capsys, ["predict", "run", "x.csv"])
