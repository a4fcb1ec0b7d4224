"""Text on the command line: networks that say what comes next, and what they write."""

from __future__ import annotations

import csv
import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tensorgrad.cli import main
from tensorgrad.cli.settings import read_toml
from tensorgrad.cli.text import Shifted, Windows, is_text
from tensorgrad.ops.random import Generator
from tensorgrad.training import load_checkpoint

pytestmark = pytest.mark.usefixtures("empty_folder")

WORDS = ("sun ", "moon ", "stars\n")
SIZES = {
    "transformer": ["--width", "16", "--layers", "1", "--heads", "2"],
    "rnn": ["--width", "16"], "lstm": ["--width", "16"], "gru": ["--width", "16"],
}  # fmt: skip
QUICK = ["--context", "16", "--lr", "0.02", "--batch-size", "16", "--no-compile"]


def words(path: str = "words.txt", count: int = 1200, seed: int = 0) -> str:
    """Three words in any order: which comes next is open, how it is spelt is not."""
    Path(path).write_text("".join(random.Random(seed).choices(WORDS, k=count)))
    return path


def result(run: str) -> dict[str, Any]:
    """The figures that a run left."""
    found: dict[str, Any] = json.loads(Path(run, "result.json").read_text())
    return found


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """What is said in the one line of a refusal."""
    capsys.readouterr()
    assert main(list(argv)) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize("model", SIZES)
def test_every_network_learns_to_spell(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Near the entropy of the text, and what it writes consists of the words."""
    data = words()
    options = ["--model", model, *SIZES[model], *QUICK, "--epochs", "8"]
    assert main(["train", "--data", data, "--out", "run", *options]) == 0
    assert f"network {model} (layers 1" in capsys.readouterr().out
    # log2(3) bits a word of 5 characters on average; more where a stretch begins within one.
    figures = result("run")
    assert 0.28 < figures["test_bits_per_character"] < 0.6
    assert figures["test_perplexity"] == pytest.approx(math.exp(figures["test_loss"]))
    command = ["generate", "run", "--length", "200"]
    written = {}
    for name, more in (
        ("plain", ["--prompt", "moon "]), ("again", ["--prompt", "moon "]),
        ("seed", ["--prompt", "moon ", "--seed", "1"]), ("sure", ["--temperature", "0"]),
        ("one", ["--top-k", "1"]),
    ):  # fmt: skip
        assert main([*command, *more]) == 0
        written[name] = capsys.readouterr().out
    assert written["plain"] == written["again"] != written["seed"]
    assert written["sure"] == written["one"]
    assert written["plain"].startswith("moon ")
    assert len(written["plain"]) == 5 + 200 + 1
    known = {word.strip() for word in WORDS}
    assert sum(word in known for word in written["plain"].split()) >= 35


def test_figures_and_answers_of_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    """By itself a GPT; evaluated on its parts and on another text, asked what comes next."""
    data, other = words(), words("other.txt", 100, 1)
    options = [*SIZES["transformer"], *QUICK, "--epochs", "2", "--metrics", "accuracy"]
    assert main(["train", "--data", data, "--out", "run", *options]) == 0
    config = read_toml("run/config.toml")
    chosen = {"model": "transformer", "tokens": "characters", "schedule": "warmup"}
    assert {name: config[name] for name in chosen} == chosen
    capsys.readouterr()
    losses = []
    for more in ([], ["--part", "train"], ["--data", other]):
        assert main(["evaluate", "run", "--json", *more]) == 0
        losses.append(json.loads(capsys.readouterr().out))
    assert losses[0]["loss"] == pytest.approx(result("run")["test_loss"])
    assert losses[0]["bits_per_character"] == pytest.approx(losses[0]["loss"] / math.log(2))
    assert len({found["loss"] for found in losses}) == 3
    Path("half.txt").write_text("moo")
    assert main(["predict", "run", "half.txt"]) == 0
    (row,) = csv.DictReader(capsys.readouterr().out.splitlines())
    assert row["next"] == "n"
    assert main(["report", "run"]) == 0
    assert "Embedding" in Path("run/report.html").read_text()


@pytest.mark.parametrize("model", ["transformer", "lstm"])
def test_a_resumed_run_has_the_bits_of_a_whole_one(model: str) -> None:
    """In the middle of an epoch, whose stretches are shuffled and begin anywhere."""
    data = words()
    base = ["train", "--data", data, "--model", model, *SIZES[model], *QUICK, "--dropout", "0.1"]
    base += ["--schedule", "constant"]
    assert main([*base, "--epochs", "3", "--out", "whole"]) == 0
    assert main([*base, "--epochs", "1", "--out", "parts"]) == 0
    assert main(["resume", "parts", "--epochs", "3"]) == 0
    whole, parts = (
        load_checkpoint(f"{name}/model.safetensors").state for name in ("whole", "parts")
    )
    assert all(whole[k].data.tobytes() == parts[k].data.tobytes() for k in whole)
    assert main(["train", "--config", "whole/config.toml", "--out", "again"]) == 0
    assert result("again") == result("whole") == result("parts")


def test_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    """Any file can be learnt from; bits count by character, of which some have two bytes."""
    Path("u.txt").write_bytes("äö\n".encode() * 600)
    options = [*SIZES["gru"], *QUICK, "--model", "gru", "--tokens", "bytes", "--epochs", "12"]
    assert main(["train", "--data", "u.txt", "--out", "run", *options]) == 0
    figures = result("run")
    each = figures["test_bits_per_character"] / figures["test_bits_per_byte"]
    assert each == pytest.approx(5 / 3, rel=0.03)
    capsys.readouterr()
    assert main(["generate", "run", "--prompt", "ä", "--length", "13", "--temperature", "0"]) == 0
    assert capsys.readouterr().out == "äö\näö\näö\n\n"


def test_a_folder_of_texts_and_a_text_to_test_with(capsys: pytest.CaptureFixture[str]) -> None:
    """Files in the order of their names, in one row; the test part is the other text."""
    Path("books").mkdir()
    words("books/a.txt"), words("books/b.txt", seed=1), words("test.txt", 200, 2)
    options = [*SIZES["rnn"], *QUICK, "--model", "rnn", "--epochs", "1"]
    base = ["train", "--data", "books", "--out", "run", "--validation-share", "0.1"]
    assert main([*base, "--test", "test.txt", *options]) == 0
    length = sum(len(Path("books", name).read_text()) for name in ("a.txt", "b.txt")) + 1
    expected = (length - round(0.1 * length) - 1) // 16 * 16
    test = (len(Path("test.txt").read_text()) - 1) // 16 * 16
    out = capsys.readouterr().out
    assert f"books: {expected:,} training, " in out
    assert f" {test:,} test characters" in out


def test_what_is_a_text() -> None:
    """A .txt file, unless its first line names an image or there is an option of lists."""
    none = {"image_root": None, "label_pattern": None, "tokens": None, "model": "auto"}
    Path("text.txt").write_text("# To be, or not to be\nthat is")
    Path("list.txt").write_text("\n# images\nfaces/a.pgm left\n")
    Path("names.txt").write_text("a_left.PNG\n")
    Path("pictures/cat").mkdir(parents=True)
    Path("pictures/notes.txt").write_text("mine")
    Path("books").mkdir()
    Path("books/a.txt").write_text("a")
    found = {
        name: is_text({**none, "data": name})
        for name in ("text.txt", "list.txt", "names.txt", "pictures", "books", "x.csv")
    }
    assert [name for name, text in found.items() if text] == ["text.txt", "books"]
    assert not is_text({**none, "data": "text.txt", "label_pattern": "_(a|b)"})
    assert is_text({**none, "data": "list.txt", "tokens": "bytes"})


def test_an_epoch_goes_through_a_text_once() -> None:
    """Stretches do not overlap and begin elsewhere in each epoch; each token has its next."""
    windows = Windows(np.arange(103, dtype=np.uint8), 10)
    order = Shifted(windows)
    firsts = set()
    for seed in range(20):
        starts = np.sort(order.order(Generator(seed)))
        assert len(starts) == len(order) == 9
        assert (np.diff(starts) == 10).all()
        assert starts[-1] < len(windows)
        firsts.add(int(starts[0]))
    assert len(firsts) > 5
    x, y = windows.take([3, 92])
    assert x.tolist() == [list(range(3, 13)), list(range(92, 102))]
    assert (y == x + 1).all()
    assert len(windows.one_after_another()) == 10


def test_what_does_not_fit_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Options of other data and networks, texts too short, letters that are not known."""
    data = words(count=300)
    Path("latin.txt").write_bytes(b"caf\xe9 " * 99)
    Path("short.txt").write_text("abc")
    Path("t.csv").write_text("a,k\n" + "".join(f"{i},{'xy'[i % 2]}\n" for i in range(60)))
    train = ["train", "--data", data]
    for argv, message in (
        ([*train, "--model", "cnn"], "--model cnn is not for text; take one of rnn, lstm, gru"),
        ([*train, "--hidden", "8"], "--hidden is for --model mlp, cnn; the network here is"),
        ([*train, "--model", "gru", "--heads", "2"], "--heads is for --model transformer"),
        ([*train, "--heads", "3"], "--heads must divide --width; 3 does not divide 128"),
        ([*train, "--target", "a"], "--target is not for text"),
        ([*train, "--grey"], "--grey is not for text"),
        ([*train, "--refit"], "--refit is not for text"),
        ([*train, "--batch-size", "full"], "--batch-size full is not for text"),
        ([*train, "--loss", "squared-error"], "--loss squared-error is not for text"),
        ([*train, "--metrics", "f1"], "for a target of tokens there are accuracy, top_5"),
        (["train", "--data", "t.csv", "--model", "lstm"], "--model lstm is for text"),
        (["train", "--data", "t.csv", "--context", "8"], "--context is for text"),
        (["train", "--tokens", "bytes"], "got --data (the digits)"),
        (["train", "--data", "latin.txt"], "not UTF-8 (byte 3); save it so, or take --tokens"),
        (["train", "--data", "short.txt"], "3 characters are too few"),
    ):
        assert message in refused(capsys, *argv)
    assert not Path("runs").exists()
    assert main([*train, *SIZES["rnn"], *QUICK, "--model", "rnn", "--epochs", "1"]) == 0
    assert main(["train", "--epochs", "1", "--hidden", "4", "--out", "digits"]) == 0
    Path("empty.txt").touch()
    for argv, message in (
        (["generate", "runs/words-1", "--prompt", "Moon"], "--prompt: holds 'M', which is not"),
        (["generate", "digits"], "was not trained on text"),
        (["evaluate", "runs/words-1", "--data", "short.txt"], "holds 'b', which is not among"),
        (["evaluate", "runs/words-1", "--data", "empty.txt"], "0 characters are fewer than the 17"),
        (["predict", "runs/words-1", "empty.txt"], "there is no text"),
        (["cross-validate", "--data", data], "words.txt"),
    ):
        assert message in refused(capsys, *argv)
