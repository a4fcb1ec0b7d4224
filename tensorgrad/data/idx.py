"""IDX files, the format of MNIST and its relatives: a reader that trusts nothing, and a writer.

An IDX file is a magic number (two zero bytes, the element type, the number of axes), the size of
each axis as a big-endian 32-bit number, and then the elements, big-endian, the last axis fastest.
"""

from __future__ import annotations

import gzip
import io
import math
import os
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from tensorgrad.files import (
    DEFLATE_LIMIT,
    DataFileError,
    open_regular,
    read_at_most,
    write_atomically,
)

#: Type code in the magic number -> element type, as it lies in the file.
_TYPES: dict[int, np.dtype[Any]] = {
    0x08: np.dtype(">u1"),
    0x09: np.dtype(">i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}
_NAMES = "uint8, int8, int16, int32, float32, float64"
_GZIP_MAGIC = b"\x1f\x8b"
_MOST_AXES = 64  # what a NumPy array can have


class IdxError(DataFileError):
    """A file is not the IDX file it should be: torn, altered, or of another format."""


def read_idx(path: str | os.PathLike[str]) -> np.ndarray[Any, Any]:
    """The array in an IDX file, which may be compressed with gzip whatever its name.

    Returns an array in memory of its own, of the type in the file (uint8, int8, int16, int32,
    float32 or float64, in the byte order of this machine) and the shape in its header.

    Raises OSError if the file cannot be opened, DataFileError if it is a FIFO or a device, and
    IdxError, saying what is wrong and what to do, unless the file is exactly as long as its header
    says. The header is not believed: no more memory is taken than the file can fill.
    """
    path = Path(path)
    with open_regular(path) as raw:
        size = os.fstat(raw.fileno()).st_size
        compressed = raw.read(2) == _GZIP_MAGIC
        raw.seek(0)
        if not compressed:
            return _parse(path, raw, size, size)
        try:
            with gzip.GzipFile(fileobj=raw) as file:
                return _parse(path, cast(BinaryIO, file), size, size * DEFLATE_LIMIT)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise IdxError(
                path, f"the gzip compression is damaged ({error})", "download the file again"
            ) from error


def _parse(path: Path, file: BinaryIO, size: int, most: int) -> np.ndarray[Any, Any]:
    """The array in ``file``, which takes ``size`` bytes on disk and holds at most ``most``."""
    again = "download the file again"
    head = file.read(4)
    if len(head) < 4 or head[0] or head[1] or head[2] not in _TYPES:
        raise IdxError(
            path,
            f"not an IDX file: the first four bytes must be 00 00, a type code (08, 09 or 0b to "
            f"0e) and the number of axes, but are {head.hex(' ') or 'missing'}",
            "check that this is the right file, and unpacked from any zip or tar archive",
        )
    dtype, axes = _TYPES[head[2]], head[3]
    if axes > _MOST_AXES:
        raise IdxError(
            path, f"the header says {axes} axes; an array has at most {_MOST_AXES}", again
        )
    sizes = file.read(4 * axes)
    if len(sizes) < 4 * axes:
        raise IdxError(
            path, f"the file ends inside its header, which should name {axes} axis sizes", again
        )
    shape = struct.unpack(f">{axes}I", sizes)
    wanted = math.prod(shape) * dtype.itemsize
    header = 4 + 4 * axes
    what = f"the header says shape {shape} of {dtype.name}, which takes {wanted:,} bytes"
    if header + wanted > most or math.prod(n for n in shape if n) * dtype.itemsize >= 1 << 62:
        raise IdxError(path, f"{what}; a file of {size:,} bytes cannot hold that", again)
    content = read_at_most(file, wanted)
    if len(content) < wanted:
        raise IdxError(path, f"{what}, but only {len(content):,} follow: it is truncated", again)
    if file.read(1):
        raise IdxError(path, f"{what}, but more bytes follow", again)
    array = np.frombuffer(content, dtype).reshape(shape)
    return array.astype(dtype.newbyteorder("="), copy=False)


def write_idx(path: str | os.PathLike[str], array: Any) -> None:
    """Write ``array`` (anything NumPy can convert) as an IDX file, compressed if named ``*.gz``.

    The same array always gives the same bytes: no time and no name goes into the compressed file.
    A file of that name is replaced in one step.

    Raises TypeError for an element type the format does not know, ValueError for an axis of
    2**32 or more, OSError if the file cannot be written.
    """
    array = np.asarray(array)
    code = next((c for c, t in _TYPES.items() if t == array.dtype.newbyteorder(">")), None)
    if code is None:
        raise TypeError(
            f"an IDX file holds {_NAMES}, not {array.dtype}; convert with .astype(...) first"
        )
    if any(n >= 1 << 32 for n in array.shape):
        raise ValueError(f"an IDX file holds axes below 2**32, not shape {array.shape}; split it")
    header = bytes((0, 0, code, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    content = header + array.astype(_TYPES[code]).tobytes()
    if str(path).endswith(".gz"):
        packed = io.BytesIO()
        with gzip.GzipFile("", "wb", 9, packed, mtime=0) as file:
            file.write(content)
        content = packed.getvalue()
    write_atomically(path, content)
