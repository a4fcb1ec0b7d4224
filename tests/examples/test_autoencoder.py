"""The autoencoder and the VAE learn more than a plane, and draw digits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.cli import main
from tensorgrad.data import write_idx
from tensorgrad.examples import autoencoder


def test_two_numbers_say_more_than_principal_components() -> None:
    """Of digits that were not seen."""
    train, test, _ = autoencoder.load(None)
    train, test = train.reshape(len(train), -1), test.reshape(len(test), -1)
    plane = autoencoder.error_of_pca(train, test)
    for kind in (autoencoder.Autoencoder, autoencoder.VAE):
        tg.manual_seed(0)
        model = kind(64)
        autoencoder.fit(model, train, 60, 0)
        assert autoencoder.error(model, test) < 0.9 * plane
    assert isinstance(model, autoencoder.VAE)
    pixels, told = (part.item() for part in model.parts(tg.tensor(test)))
    assert 1 < told < 8  # the code is used, and is near the standard normal distribution
    assert pixels < autoencoder.pixel_loss(tg.zeros(test.shape), tg.tensor(test)).item() - 15
    drawn = autoencoder.plane(model, 5)
    assert drawn.shape == (5, 5, 64)
    assert np.ptp(drawn.reshape(25, 64), axis=0).max() > 0.5  # not the same picture everywhere


def test_principal_components_lose_nothing_where_pictures_lie_in_a_plane() -> None:
    rng = np.random.default_rng(0)
    pictures = rng.normal(size=(50, 2)) @ rng.normal(size=(2, 9)) + 3
    assert autoencoder.error_of_pca(pictures[:40], pictures[40:]) < 1e-20
    assert autoencoder.error_of_pca(pictures[:40], pictures[40:], 1) > 1e-3


@pytest.mark.usefixtures("empty_folder")
def test_the_command_takes_idx_files(capsys: pytest.CaptureFixture[str]) -> None:
    """And leaves pictures."""
    rng = np.random.default_rng(0)
    Path("data").mkdir()
    for part in ("train", "t10k"):
        write_idx(f"data/{part}-images-idx3-ubyte", rng.integers(0, 256, (200, 8, 8), np.uint8))
        write_idx(f"data/{part}-labels-idx1-ubyte", np.zeros(200, np.uint8))
    assert main(["demo", "autoencoder", "--data", "data", "--out", "run"]) == 0
    assert "200 pictures of 8 x 8 pixels" in capsys.readouterr().out
    for name in ("given-back.png", "plane.png"):
        assert Path("run", name).read_bytes().startswith(b"\x89PNG")
    assert main(["demo", "autoencoder", "--data", "nowhere", "--out", "other"]) == 2
    assert "there is no such folder" in capsys.readouterr().err
    assert not Path("other").exists()
