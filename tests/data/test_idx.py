"""IDX files: what is written is read back, and nothing that is not one is read."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorgrad.data import IdxError, read_idx, write_idx

TYPES = ["uint8", "int8", "int16", "int32", "float32", "float64"]


def header(code: int, *shape: int) -> bytes:
    """The header of an IDX file."""
    return bytes((0, 0, code, len(shape))) + struct.pack(f">{len(shape)}I", *shape)


@pytest.mark.parametrize("name", ["a.idx", "a.idx.gz"])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(), (5,), (3, 4), (2, 3, 4), (0, 4), (1,) * 7])
def test_round_trip(tmp_path: Path, dtype: str, shape: tuple[int, ...], name: str) -> None:
    """Every element type and any number of axes, plain and compressed."""
    array = (np.arange(np.prod(shape, dtype=int)) - 3).astype(dtype).reshape(shape)
    write_idx(tmp_path / name, array)
    found = read_idx(tmp_path / name)
    assert found.dtype == array.dtype
    assert found.dtype.isnative
    np.testing.assert_array_equal(found, array)
    found[...] = 0  # in memory of its own
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_bytes_are_those_of_the_format(tmp_path: Path) -> None:
    """Big-endian sizes and elements, the last axis fastest."""
    write_idx(tmp_path / "a", np.array([[1, 2, 3], [4, 5, -6]], np.int16))
    assert (tmp_path / "a").read_bytes() == header(0x0B, 2, 3) + struct.pack(
        ">6h", 1, 2, 3, 4, 5, -6
    )


def test_same_array_same_bytes(tmp_path: Path) -> None:
    """No time and no name of a file goes into a compressed file."""
    write_idx(tmp_path / "a.gz", np.arange(100, dtype=np.int32))
    write_idx(tmp_path / "b.gz", np.arange(100, dtype=np.int32)[::-1][::-1])
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()


def test_compression_is_told_by_content(tmp_path: Path) -> None:
    """A file keeps its compression when it loses the ending, and the other way round."""
    (tmp_path / "a").write_bytes(gzip.compress(header(8, 2) + b"\x01\x02"))
    (tmp_path / "b.gz").write_bytes(header(8, 2) + b"\x01\x02")
    assert read_idx(tmp_path / "a").tolist() == read_idx(tmp_path / "b.gz").tolist() == [1, 2]


WRONG = {
    "empty": (b"", "not an IDX file"),
    "short magic": (b"\x00\x00\x08", "not an IDX file"),
    "text": (b"hello, world", "68 65 6c 6c"),
    "unknown type": (header(0x0A, 1) + b"1", "type code"),
    "little endian": (b"\x01\x08\x00\x00" + b"1" * 9, "not an IDX file"),
    "too many axes": (b"\x00\x00\x08\xff" + b"\x00" * 1020, "255 axes"),
    "torn header": (header(8, 2, 3)[:-1], "inside its header"),
    "truncated": (header(8, 2, 3) + b"12345", "truncated|cannot hold"),
    "over-long": (header(8, 2, 3) + b"1234567", "more bytes follow"),
    "huge": (header(8, 4_000_000_000, 4_000_000_000) + b"1", "cannot hold"),
    "huge and empty": (header(8, 0, 4_000_000_000, 4_000_000_000) + b"", "cannot hold"),
    "wide type": (header(0x0E, 3) + b"1" * 23, "truncated|cannot hold"),
}


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("case", WRONG)
def test_refuses(tmp_path: Path, case: str, packed: bool) -> None:
    """The message names the file, the reason and the remedy."""
    content, reason = WRONG[case]
    path = tmp_path / "wrong-ubyte"
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(IdxError, match=reason) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)
    assert "download" in str(caught.value) or "check" in str(caught.value)


@pytest.mark.parametrize("cut", [3, 12, -9, -5, -1])
def test_refuses_torn_gzip(tmp_path: Path, cut: int) -> None:
    """A download that broke off, wherever."""
    path = tmp_path / "a.gz"
    write_idx(path, np.arange(1000, dtype=np.int32))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(IdxError, match="gzip compression is damaged"):
        read_idx(path)


def test_refuses_altered_gzip(tmp_path: Path) -> None:
    """A flipped bit in the data is found by gzip's own checksum."""
    path = tmp_path / "a.gz"
    write_idx(path, np.random.default_rng(0).integers(0, 255, 1000).astype(np.uint8))
    content = bytearray(path.read_bytes())
    content[500] ^= 1
    path.write_bytes(content)
    with pytest.raises(IdxError):
        read_idx(path)


def test_memory_follows_the_file_not_the_header(tmp_path: Path) -> None:
    """A compressed file that claims 900 MB takes no more than it holds."""
    path = tmp_path / "claims.gz"
    path.write_bytes(gzip.compress(header(8, 900_000_000) + bytes(2_000_000), 1) + b"\0" * 900_000)
    tracemalloc.start()
    try:
        with pytest.raises(IdxError, match=r"only 2,000,000 follow"):
            read_idx(path)
        assert tracemalloc.get_traced_memory()[1] < 30_000_000
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=40))
def test_never_another_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """Whatever the bytes, it is an array of exactly that size, or an IdxError."""
    path = tmp_path_factory.getbasetemp() / "any"
    for start in (b"", b"\x00\x00\x08", b"\x00\x00\x0b\x01\x00\x00\x00", b"\x1f\x8b"):
        path.write_bytes(start + content)
        try:
            found = read_idx(path)
        except IdxError:
            continue
        assert 4 + 4 * found.ndim + found.nbytes == len(start + content)


def test_missing_file(tmp_path: Path) -> None:
    """The error of the system, with the name."""
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_idx(tmp_path / "nowhere")


@pytest.mark.parametrize("array", [np.zeros(3, bool), np.zeros(3, np.int64), np.zeros(3, complex)])
def test_writer_refuses_types(tmp_path: Path, array: Any) -> None:
    """What the format does not know is refused before anything is written."""
    with pytest.raises(TypeError, match="uint8, int8"):
        write_idx(tmp_path / "a", array)
    assert not list(tmp_path.iterdir())


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk, or whatever it is, loses nothing and leaves nothing behind."""
    write_idx(tmp_path / "a", np.arange(3, dtype=np.uint8))

    def fail(*_: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="no space"):
        write_idx(tmp_path / "a", np.arange(9, dtype=np.uint8))
    monkeypatch.undo()
    assert read_idx(tmp_path / "a").tolist() == [0, 1, 2]
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]
