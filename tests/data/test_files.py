"""What every reader of data holds to: regular files only, and folders as deep as they come."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tensorgrad.data import (
    DataFileError,
    image_folder,
    image_list,
    read_csv,
    read_idx,
    read_image,
    read_npz,
)
from tensorgrad.errors import TensorgradError
from tensorgrad.nn.arrays import read_safetensors
from tensorgrad.training import load_checkpoint


def read_tensors(path: Path) -> Any:
    return read_safetensors(path, "save it anew")


READERS: dict[str, Callable[[Path], Any]] = {
    "csv": read_csv,
    "idx": read_idx,
    "npz": read_npz,
    "image": read_image,
    "list": image_list,
    "checkpoint": load_checkpoint,
    "tensors": read_tensors,
}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs on this system")
@pytest.mark.parametrize("kind", ["fifo", "device", "socket", "link to a fifo"])
@pytest.mark.parametrize("reader", READERS)
def test_only_regular_files_are_read(tmp_path: Path, reader: str, kind: str) -> None:
    """A FIFO that nobody writes to would wait for ever, a device might never end."""
    if reader == "image":
        pytest.importorskip("PIL", reason="needs Pillow")
    path = tmp_path / "x"
    holder = None
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "link to a fifo":
        os.mkfifo(tmp_path / "there")
        path.symlink_to("there")
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        holder = socket.socket(socket.AF_UNIX)
        here = Path.cwd()
        os.chdir(tmp_path)  # the address of a socket is at most 108 bytes long
        holder.bind("x")
        os.chdir(here)
    with pytest.raises(TensorgradError, match=r"x: a FIFO, a device or a socket, not a file; copy"):
        READERS[reader](path)
    if holder is not None:
        holder.close()


@pytest.mark.parametrize("reader", READERS)
def test_names_that_no_file_can_have(reader: str) -> None:
    """With a NUL."""
    if reader == "image":
        pytest.importorskip("PIL", reason="needs Pillow")
    with pytest.raises(TensorgradError, match="no name of a file"):
        READERS[reader](Path("a\0b"))


@pytest.mark.parametrize("reader", READERS)
def test_folders_and_missing_files(tmp_path: Path, reader: str) -> None:
    """As Python says it."""
    if reader == "image":
        pytest.importorskip("PIL", reason="needs Pillow")
    with pytest.raises(FileNotFoundError):
        READERS[reader](tmp_path / "missing")
    with pytest.raises(OSError):
        READERS[reader](tmp_path)


@pytest.fixture
def deep_folders(tmp_path: Path) -> Iterator[Path]:
    """Two classes, each 1,500 folders deep; taken away again, as rmtree cannot."""
    places = []
    for label in ("cat", "dog"):
        place = tmp_path / "deep" / label
        for _ in range(1500):
            places.append(place)
            place.mkdir(parents=True)
            place /= "d"
    yield tmp_path / "deep"
    for place in reversed(places):
        for entry in os.scandir(place):
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.path)
        place.rmdir()


def test_folders_in_folders(deep_folders: Path) -> None:
    """Deeper than Python's stack; links to folders are not followed, links to images are."""
    image = pytest.importorskip("PIL.Image", reason="needs Pillow")
    pixels = image.fromarray(np.full((2, 2), 7, np.uint8))
    for label in ("cat", "dog"):
        top = deep_folders / label
        lowest = top.joinpath(*"d" * 1499)
        pixels.save(top / "top.png")
        pixels.save(lowest / "deep.png")
        (lowest / "link.png").symlink_to(top / "top.png")
        (lowest / "round").symlink_to(deep_folders, target_is_directory=True)
    data = image_folder(deep_folders)
    assert [path.name for path in data.paths] == ["deep.png", "link.png", "top.png"] * 2
    assert data.load()[0].shape == (6, 2, 2)
    (deep_folders.parent / "list.txt").write_text("missing.png,cat\n")
    with pytest.raises(DataFileError, match=r"line 1: missing\.png is not in"):
        image_list(deep_folders.parent / "list.txt")


@pytest.mark.parametrize("pattern", ["(" * 5000 + ")" * 5000, "a{99999999999999999999}(b)"])
def test_patterns_beyond_bounds(tmp_path: Path, pattern: str) -> None:
    """The library of regular expressions gives up in several ways."""
    (tmp_path / "list.txt").write_text("a.png\n")
    with pytest.raises(ValueError, match="is not a regular expression"):
        image_list(tmp_path / "list.txt", pattern=pattern)
