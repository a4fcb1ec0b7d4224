"""Refusals name what to do, and doing it works."""

from __future__ import annotations

from pathlib import Path

import pytest

from tensorgrad.cli import main
from tensorgrad.training import load_checkpoint, save_checkpoint

pytestmark = pytest.mark.usefixtures("empty_folder")
SHORT = ["train", "--epochs", "1", "--hidden", "4", "--no-compile"]


def one_line(capsys: pytest.CaptureFixture[str], argv: list[str]) -> str:
    """What a command says that is refused."""
    capsys.readouterr()
    assert main(argv) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    return err


def drawings(*kinds: str) -> None:
    """Folders a and b of ten images each, of these kinds in turn: "L" grey, "RGB" colours."""
    image = pytest.importorskip("PIL.Image", reason="needs Pillow")
    for label, shade in (("a", 40), ("b", 200)):
        Path("photos", label).mkdir(parents=True)
        for i in range(10):
            picture = image.new("L", (8, 8), shade + i).convert(kinds[i % len(kinds)])
            picture.save(f"photos/{label}/{i}.png")


def test_grey_and_colours_together_take_either_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    """Refused with both; with each it can be trained, resumed, evaluated and asked."""
    drawings("L", "RGB")
    argv = [*SHORT, "--data", "photos"]
    err = one_line(capsys, argv)
    assert "--grey" in err
    assert "--no-grey" in err
    images = ["photos/a/0.png", "photos/b/1.png"]
    for option, shape in (("--grey", [8, 8]), ("--no-grey", [3, 8, 8])):
        run = option[2:]
        assert main([*argv, option, "--out", run]) == 0
        assert load_checkpoint(f"{run}/model.safetensors").config["problem"]["shape"] == shape
        assert main(["resume", run, "--epochs", "2"]) == 0
        assert main(["evaluate", run]) == 0
        assert main(["evaluate", run, "--data", "photos"]) == 0
        assert main(["predict", run, *images]) == 0


def test_a_run_that_was_saved_before_no_grey_meant_colours() -> None:
    """Its images are taken as they are."""
    drawings("L")
    assert main([*SHORT, "--data", "photos", "--out", "run"]) == 0
    for name in ("model", "checkpoint"):
        found = load_checkpoint(f"run/{name}.safetensors")
        save_checkpoint(f"run/{name}.safetensors", found.state, {**found.config, "grey": False})
    assert main(["evaluate", "run"]) == 0
    assert main(["resume", "run", "--epochs", "2"]) == 0


def test_a_folder_without_folders_of_classes(capsys: pytest.CaptureFixture[str]) -> None:
    """Says where images go; it may hold some already."""
    Path("empty").mkdir()
    assert "holds nothing, and no folders; put images" in one_line(
        capsys, ["train", "--data", "empty"]
    )
    Path("empty/one.png").write_bytes(b"")
    assert "holds one.png, and no folders" in one_line(capsys, ["train", "--data", "empty"])


def test_data_that_has_moved_is_named_to_evaluate_on_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As it is to resume."""
    Path("d.csv").write_text("a,b,t\n" + "".join(f"{k},{-k},{'pq'[k % 2]}\n" for k in range(60)))
    assert main([*SHORT, "--data", "d.csv", "--out", "run"]) == 0
    Path("d.csv").rename("e.csv")
    assert "name what to evaluate on with --data" in one_line(capsys, ["evaluate", "run"])
    assert main(["evaluate", "run", "--data", "e.csv"]) == 0


def test_a_text_in_another_encoding_is_told_what_helps(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Only train has --tokens; a demonstration refuses it as train does."""
    text = "the cat sat on the mat and " * 60
    Path("good.txt").write_text(text)
    Path("bad.txt").write_bytes(text.encode() + b"\xe4")
    small = ["--width", "8", "--layers", "1", "--heads", "1", "--context", "8", "--no-compile"]
    assert "or take --tokens bytes" in one_line(capsys, ["train", "--data", "bad.txt"])
    argv = ["train", "--data", "good.txt", "--epochs", "1", *small, "--out", "run"]
    assert main(argv) == 0
    for argv in (["evaluate", "run", "--data", "bad.txt"], ["predict", "run", "bad.txt"]):
        err = one_line(capsys, argv)
        assert "bad.txt: not UTF-8 (byte 1,620); save it so" in err
        assert "--tokens" not in err
    for name in ("names", "word-vectors"):
        err = one_line(capsys, ["demo", name, "--data", "bad.txt", "--out", "demo"])
        assert "bad.txt: not UTF-8 (byte 1,620); save it so" in err
    assert not Path("demo").exists()


def test_a_loss_that_is_not_finite_names_no_script(capsys: pytest.CaptureFixture[str]) -> None:
    """No line of a user's led there, but a command."""
    argv = [*SHORT, "--optimizer", "sgd", "--lr", "1e30"]
    assert main(argv) == 1
    err = capsys.readouterr().err
    assert "At a line of tensorgrad itself. The weights" in err
    assert ".py:" not in err


def test_help_names_what_images_and_texts_take(capsys: pytest.CaptureFixture[str]) -> None:
    """Of the learning rate and its schedule, as the kinds of networks have them."""
    from tensorgrad.cli.networks import KINDS

    assert main(["train", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "; 0.003 for images and text where no optimizer is chosen)" in text
    assert "(default one-cycle for images, warmup for text, else constant)" in text
    taken = {kind.defaults.get("lr") for kind in KINDS.values()}
    assert taken == {None, 0.003}
    assert KINDS["cnn"].defaults["schedule"] == "one-cycle"
    assert KINDS["transformer"].defaults["schedule"] == "warmup"
