"""Hundreds of damaged files for every reader: refused in words, within bounds of time and memory.

The damage follows from fixed seeds. Whatever a reader does with a damaged file, it must either
return arrays or raise DataFileError, DatasetError or OSError; any other error fails the test.
"""

from __future__ import annotations

import gzip
import io
import random
import resource
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tensorgrad.data import (
    DataFileError,
    DatasetError,
    image_folder,
    image_list,
    read_csv,
    read_idx,
    read_image,
    read_npz,
    write_idx,
)
from tensorgrad.training import CheckpointError, load_checkpoint, save_checkpoint

CASES = 300  # damaged files for each kind


def damaged(content: bytes, seed: int) -> bytes:
    """One of many kinds of damage: bits, bytes, cuts, repeats, swaps, and lies in the header."""
    rng = random.Random(seed)
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        n = len(data)
        at = rng.randrange(n) if n else 0
        start = rng.randrange(min(n, 64)) if n else 0
        kind = rng.randrange(9)
        if kind == 0:
            del data[at:]
        elif kind == 1 and n:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 2 and n:
            data[start] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif kind == 3:
            data[at:at] = rng.randbytes(rng.choice((1, 4, 100)))
        elif kind == 4:
            del data[at : at + rng.choice((1, 4, 100))]
        elif kind == 5:
            data[at:at] = data[: rng.randrange(200)]
        elif kind == 6 and n >= 4:
            data[start : start + 4] = struct.pack(">I", rng.choice((0, 1, 1 << 16, (1 << 32) - 1)))
        elif kind == 7 and n >= 8:
            data[start : start + 8] = struct.pack("<Q", rng.choice((0, 1 << 31, (1 << 63) - 1)))
        elif kind == 8:
            data = bytearray(rng.randbytes(rng.choice((0, 1, 10, 300))))
    return bytes(data)


def idx(folder: Path) -> bytes:
    path = folder / "x.idx"
    write_idx(path, np.arange(60, dtype=np.uint8).reshape(5, 3, 4))
    return path.read_bytes()


def npz(folder: Path, compressed: bool = False) -> bytes:
    out = io.BytesIO()
    arrays = {"x": np.arange(12.0).reshape(4, 3), "t": np.arange(4), "name": np.array(["a", "bc"])}
    (np.savez_compressed if compressed else np.savez)(out, **arrays)  # type: ignore[arg-type]
    return out.getvalue()


def table(folder: Path) -> bytes:
    rows = [f"{i},{i * 0.5},{'cat' if i % 2 else 'dog'}" for i in range(20)]
    return "\n".join(["a,b,kind", *rows]).encode()


def picture(ending: str) -> Callable[[Path], bytes]:
    def make(folder: Path) -> bytes:
        image = pytest.importorskip("PIL.Image", reason="needs Pillow")
        pixels = np.random.default_rng(0).integers(0, 255, (9, 7, 3)).astype(np.uint8)
        if ending == ".pgm":
            pixels = pixels[..., 0]
        image.fromarray(pixels).save(folder / f"x{ending}")
        return (folder / f"x{ending}").read_bytes()

    return make


def checkpoint(folder: Path) -> bytes:
    state = {"w": np.arange(6.0).reshape(2, 3), "step": 3, "names": ["a", "b"]}
    save_checkpoint(folder / "c.safetensors", state, {"lr": 0.1})
    return (folder / "c.safetensors").read_bytes()


READERS: dict[str, tuple[Callable[[Path], bytes], Callable[[Path], Any]]] = {
    "idx": (idx, read_idx),
    "idx.gz": (lambda folder: gzip.compress(idx(folder), mtime=0), read_idx),
    "npz": (npz, read_npz),
    "npz compressed": (lambda folder: npz(folder, True), read_npz),
    "csv": (table, read_csv),
    "png": (picture(".png"), read_image),
    "jpeg": (picture(".jpg"), read_image),
    "pgm": (picture(".pgm"), read_image),
    "tiff": (picture(".tiff"), read_image),
    "gif": (picture(".gif"), read_image),
    "bmp": (picture(".bmp"), read_image),
    "list": (lambda folder: b"a.png,cat\nb.png,dog\nc.png,cat\n", image_list),
    "checkpoint": (checkpoint, load_checkpoint),
}


@pytest.mark.parametrize("kind", READERS)
def test_damaged_files_are_refused_in_words(kind: str, tmp_path: Path) -> None:
    """No reader crashes, hangs, or takes memory that the file cannot fill."""
    make, read = READERS[kind]
    whole = make(tmp_path)
    path = tmp_path / "damaged.bin"
    refused: list[str] = []
    of_the_system: list[int | None] = []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in range(CASES):
        path.write_bytes(damaged(whole, seed))
        try:
            read(path)
        except (DataFileError, DatasetError, CheckpointError) as error:
            refused.append(str(error))
        except OSError as error:
            of_the_system.append(error.errno)
    assert len(refused) > CASES // 10  # so the damage does reach the reader
    assert all(str(path) in text and len(text) < 2000 for text in refused)
    assert None not in of_the_system  # an OSError without a number comes from a decoder
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 400_000  # KiB; Pillow may hold an image of 2**26 pixels for a moment


def test_headers_that_promise_more_than_the_file_holds(tmp_path: Path) -> None:
    """Nobody allocates what a header says."""
    path = tmp_path / "x"
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776,), }"
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", content)
    with pytest.raises(DataFileError, match="more than the file can hold"):
        read_npz(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", content.replace(b"1099511627776", b"9999999999999"))
    with pytest.raises(DataFileError, match="more than the file can hold"):
        read_npz(path)
    path.write_bytes(b"P5 99999 99999 255\n" + bytes(100))
    with pytest.raises(DataFileError, match=r"2\*\*26|not an image"):
        read_image(path)


def test_objects_in_an_archive_are_not_unpickled(tmp_path: Path) -> None:
    """Reading pickle runs what it reads."""

    class Bomb:
        def __reduce__(self) -> Any:
            return (pytest.fail, ("it was run",))

    np.savez(tmp_path / "x.npz", x=np.array([Bomb()], dtype=object))
    with pytest.raises(DataFileError, match="dtype object"):
        read_npz(tmp_path / "x.npz")


def test_mixed_up_and_empty_files(tmp_path: Path) -> None:
    """One kind of file given for another, and files without content."""
    whole = {kind: make(tmp_path) for kind, (make, _) in READERS.items()}
    path = tmp_path / "mixed"
    for kind, (_, read) in READERS.items():
        for other, content in whole.items():
            if other.split()[0].split(".")[0] == kind.split()[0].split(".")[0]:
                continue
            if {kind, other} <= {"png", "jpeg", "pgm", "tiff", "gif", "bmp"}:
                continue  # an image is known by its content, not by its name
            if kind in ("csv", "list") and other in ("csv", "list"):
                continue
            path.write_bytes(content)
            with pytest.raises((DataFileError, DatasetError, CheckpointError), match="mixed"):
                read(path)
        path.write_bytes(b"")
        with pytest.raises((DataFileError, CheckpointError), match="mixed"):
            read(path)
        with pytest.raises(OSError):
            read(tmp_path / "missing")
    with pytest.raises(DatasetError, match="no such folder"):
        image_folder(tmp_path / "missing")
