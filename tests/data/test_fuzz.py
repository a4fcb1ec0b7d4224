"""Hundreds of damaged files for every reader: refused in words, within bounds of time and memory.

The damage follows from seeds: fixed ones, and those that hypothesis draws (with ``-m nightly``
thousands that nobody has tried). Whatever a reader does with a damaged file, it must either return
what it holds or raise TensorgradError or OSError; any other error fails the test. Where a format
checks itself (the CRC of archives, gzip, the chunks of PNG), damage is also put below the check.
"""

from __future__ import annotations

import gzip
import io
import os
import random
import re
import resource
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorgrad.cli import report
from tensorgrad.cli.settings import DEFAULTS, read_toml, write_toml
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
from tensorgrad.errors import TensorgradError
from tensorgrad.training import draw_curves, load_checkpoint, save_checkpoint

CASES = 300  # damaged files for each kind


TEXTS = (
    b"[" * 100_000, b"(" * 3000, b"{" * 3000, b'{"a":' * 3000, b"a." * 3000, b"-" * 3000,
    b"\0", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\x1b[2J", b"\r", b"\\u0000", b'"', b"'",
    b"#", b"null", b"None", b"True", b"__import__", b"lambda:0", b"*", b"\\N{DIGIT ONE}", b"'" * 3,
)  # fmt: skip
NUMBERS = (
    b"0", b"-1", b"1_0", b"9" * 5000, b"1e400", b"-1e400", b"nan", b"0x10", b"1L", b"4294967296",
    b"18446744073709551615", b"1j", b"1e9999999999", b"'1'", b"[1]", b"",
)  # fmt: skip


def damaged(content: bytes, seed: int) -> bytes:
    """One of many kinds of damage: bits, bytes, cuts, repeats, swaps, and lies in the header."""
    rng = random.Random(seed)
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        n = len(data)
        at = rng.randrange(n) if n else 0
        start = rng.randrange(min(n, 64)) if n else 0
        kind = rng.randrange(12)
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
        elif kind == 9:  # what parsers of text stumble over
            data[at:at] = rng.choice(TEXTS)
        elif kind == 10:  # a number of another size, or none
            numbers = list(re.finditer(rb"[0-9]+", data))
            if numbers:
                found = rng.choice(numbers)
                data[found.start() : found.end()] = rng.choice(NUMBERS)
        elif kind == 11:  # a word or sign for another
            words = [match.span() for match in re.finditer(rb"[A-Za-z_]+|[^\w\s]", data)]
            if words:
                (a, b), (c, d) = rng.choice(words), rng.choice(words)
                data[a:b] = data[c:d]
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


def npy(folder: Path) -> bytes:
    out = io.BytesIO()
    np.save(out, np.arange(12.0).reshape(4, 3))
    return out.getvalue()


def read_packed_npy(path: Path) -> Any:
    """A member of an archive that is whole, whatever is in it."""
    content = path.read_bytes()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", content)
    return read_npz(path)


def read_packed_idx(path: Path) -> Any:
    path.write_bytes(gzip.compress(path.read_bytes(), 1, mtime=0))
    return read_idx(path)


def png_parts(folder: Path) -> bytes:
    """The head and the rows of a PNG, neither compressed nor checked."""
    rows = b"".join(bytes([i % 5, *range(7 * 3)]) for i in range(9))
    return struct.pack(">IIBBBBB", 7, 9, 8, 2, 0, 0, 0) + rows


def read_packed_png(path: Path) -> Any:
    content = path.read_bytes()
    parts = [(b"IHDR", content[:13]), (b"tRNS", content[13:19]),
             (b"IDAT", zlib.compress(content[13:], 1)), (b"IEND", b"")]  # fmt: skip
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in parts
    ))  # fmt: skip
    return read_image(path)


def toml(folder: Path) -> bytes:
    return write_toml({**DEFAULTS, "features": ["a", "b"], "lr": 1e-3}, {"python": "3"}).encode()


def result(folder: Path) -> bytes:
    return b'{"test_loss": 0.5, "confusion": [[3, 1], [0, 7]], "best_epoch": 2, "name": null}'


def history(folder: Path) -> bytes:
    return b"epoch,train_loss,validation_loss\n1,0.5,0.75\n2,0.25,\n3,1e-9,nan\n"


def read_history(path: Path) -> Any:
    return draw_curves(report._numbers(path, "epoch"))


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
    "npy in an archive": (npy, read_packed_npy),
    "idx in gzip": (idx, read_packed_idx),
    "csv": (table, read_csv),
    "parts of a png": (png_parts, read_packed_png),
    "png": (picture(".png"), read_image),
    "jpeg": (picture(".jpg"), read_image),
    "pgm": (picture(".pgm"), read_image),
    "tiff": (picture(".tiff"), read_image),
    "gif": (picture(".gif"), read_image),
    "bmp": (picture(".bmp"), read_image),
    "list": (lambda folder: b"a.png,cat\nb.png,dog\nc.png,cat\n", image_list),
    "checkpoint": (checkpoint, load_checkpoint),
    "settings": (toml, read_toml),
    "result": (result, report._figures),
    "history": (history, read_history),
}


#: Parts of files, which are packed before they are read.
BELOW = {"npy in an archive", "idx in gzip", "parts of a png"}
WHOLE: dict[str, bytes] = {}  # undamaged files by kind


def refusal(read: Callable[[Path], Any], path: Path) -> str | None:
    """What ``read`` says against the file; None if it takes it. Any other error goes on."""
    try:
        read(path)
    except TensorgradError as error:
        text = str(error)
        assert str(path) in text
        assert len(text) < 2000
        return text
    except OSError as error:
        if error.errno is None:  # it comes from a decoder
            raise
    return None


def ready(kind: str, folder: Path) -> tuple[bytes, Callable[[Path], Any]]:
    """An undamaged file, and what reads it."""
    if kind == "parts of a png":
        pytest.importorskip("PIL.Image", reason="needs Pillow")
    make, read = READERS[kind]
    if kind not in WHOLE:
        WHOLE[kind] = make(folder)
    return WHOLE[kind], read


@pytest.mark.parametrize("kind", READERS)
def test_damaged_files_are_refused_in_words(kind: str, tmp_path: Path) -> None:
    """No reader crashes, hangs, or takes memory that the file cannot fill."""
    whole, read = ready(kind, tmp_path)
    path = tmp_path / "damaged.bin"
    refused = 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in range(CASES):
        path.write_bytes(damaged(whole, seed))
        refused += refusal(read, path) is not None
    assert refused > CASES // 10  # so the damage does reach the reader
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 400_000  # KiB; Pillow may hold an image of 2**26 pixels for a moment


@pytest.mark.parametrize("kind", READERS)
@given(seed=st.integers(CASES, (1 << 64) - 1))
def test_damage_that_nobody_has_tried(
    kind: str, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Other seeds; with ``-m nightly`` others each time."""
    folder = tmp_path_factory.getbasetemp()
    whole, read = ready(kind, folder)
    path = folder / f"damaged {os.getpid()}.bin"
    path.write_bytes(damaged(whole, seed))
    refusal(read, path)


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
            if {kind, other} & BELOW:
                continue
            if {kind, other} <= {"png", "jpeg", "pgm", "tiff", "gif", "bmp"}:
                continue  # an image is known by its content, not by its name
            if {kind, other} <= {"csv", "list", "settings", "result", "history"}:
                continue  # texts of lines
            path.write_bytes(content)
            with pytest.raises(TensorgradError, match="mixed"):
                read(path)
        if kind not in ("settings", "history"):  # without content they say nothing
            path.write_bytes(b"")
            with pytest.raises(TensorgradError, match="mixed"):
                read(path)
        with pytest.raises(OSError):
            read(tmp_path / "missing")
    with pytest.raises(DatasetError, match="no such folder"):
        image_folder(tmp_path / "missing")
