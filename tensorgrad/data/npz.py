"""NPZ files, NumPy's archives of arrays: a reader that trusts nothing."""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy import ndarray
from numpy.lib import format as npy

from tensorgrad.files import DEFLATE_LIMIT, DataFileError, read_at_most

_LONGEST_HEADER = 10_000  # of an array; NumPy's own bound


def read_npz(path: str | os.PathLike[str]) -> dict[str, ndarray[Any, Any]]:
    """The arrays in an NPZ file by name, as ``numpy.savez`` and ``savez_compressed`` write it.

    Returns arrays in memory of their own: booleans, integers, floats or fixed-width texts.

    Raises OSError if the file cannot be opened, and DataFileError for one that is torn, altered
    or no NPZ file, or holds objects (they would need pickle, which runs what it reads). The
    headers are not believed: no more memory is taken than the file can fill.
    """
    path = Path(path)
    size = path.stat().st_size
    if path.is_dir():
        raise DataFileError(path, "this is a folder", "give an .npz file")
    found: dict[str, ndarray[Any, Any]] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            left = size * DEFLATE_LIMIT  # for all members together: they might share their bytes
            for member in archive.infolist():
                if member.is_dir():
                    continue
                name = member.filename.removesuffix(".npy")
                if not member.filename.endswith(".npy") or name in found:
                    raise DataFileError(
                        path,
                        f"member {member.filename!r} is not an array, or there twice",
                        "save the arrays anew with numpy.savez",
                    )
                with archive.open(member) as file:
                    found[name] = _array(path, name, cast(BinaryIO, file), left)
                left -= found[name].nbytes
    except (
        zipfile.BadZipFile, zlib.error, EOFError, ValueError, OverflowError, NotImplementedError,
        RuntimeError,  # what zipfile has to say of an encrypted member
        SyntaxError, TypeError, KeyError, IndexError,  # NumPy's reader, of a header that is none
        UnicodeError, RecursionError, MemoryError,
    ) as error:  # fmt: skip
        if isinstance(error, DataFileError):
            raise
        raise DataFileError(
            path,
            f"damaged, or not an NPZ file ({type(error).__name__}: {str(error)[:100]})",
            "save the arrays anew with numpy.savez",
        ) from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise DataFileError(path, f"damaged ({error})", "save the arrays anew") from error
    if not found:
        raise DataFileError(
            path, "holds no arrays", "save some with numpy.savez(path, x=..., t=...)"
        )
    return found


def _array(path: Path, name: str, file: BinaryIO, most: int) -> ndarray[Any, Any]:
    """The array in one member, which takes at most ``most`` bytes."""
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"array {name!r} is in format {version}")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(file, max_header_size=_LONGEST_HEADER)
    if dtype.hasobject or dtype.kind not in "biufUS":
        raise DataFileError(
            path,
            f"array {name!r} has dtype {dtype}, which is none of booleans, integers, floats and "
            "texts",
            "save numbers, as np.asarray(x, float)",
        )
    wanted = math.prod(shape) * dtype.itemsize
    if wanted > most or len(shape) > 64 or any(n < 0 for n in shape):
        raise DataFileError(
            path,
            f"array {name!r} is said to have shape {shape}, which is more than the file can hold",
            "save the arrays anew with numpy.savez",
        )
    content = read_at_most(file, wanted)
    if len(content) < wanted or file.read(1):
        raise DataFileError(
            path,
            f"array {name!r} of shape {shape} takes {wanted:,} bytes, but "
            + ("more follow" if len(content) == wanted else f"only {len(content):,} follow"),
            "save the arrays anew with numpy.savez",
        )
    array = np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")
    return np.ascontiguousarray(array.astype(dtype.newbyteorder("="), copy=False)).reshape(shape)
