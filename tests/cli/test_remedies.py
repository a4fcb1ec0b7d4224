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
