"""NPZ files, NumPy's archives of arrays: a reader that trusts nothing."""

from __future__ import annotations

import errno
import math
import os
import warnings
import zipfile
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy import ndarray
from numpy.lib import format as npy

from tensorgrad.files import DEFLATE_LIMIT, DataFileError, open_regular, read_at_most

_LONGEST_HEADER = 10_000  # of an array; NumPy's own bound


def read_npz(path: str | os.PathLike[str]) -> dict[str, ndarray[Any, Any]]:
    """The arrays in an NPZ file by name, as ``numpy.savez`` and ``savez_compressed`` write it.

    Returns arrays in memory of their own: booleans, integers, floats or fixed-width texts.

    Raises OSError if the file cannot be opened, and DataFileError for one that is torn, altered,
    no NPZ file or no file at all (a FIFO, a device), or holds objects (they would need pickle,
    which runs what it reads). The headers are not believed: no more memory is taken than the file
    can fill.
    """
    path = Path(path)
    found: dict[str, ndarray[Any, Any]] = {}
    with open_regular(path) as raw:
        left = os.fstat(raw.fileno()).st_size * DEFLATE_LIMIT  # members may share their bytes
        try:
            with warnings.catch_warnings(), zipfile.ZipFile(raw) as archive:
                warnings.simplefilter("ignore")  # NumPy's, of a header as Python 2 wrote it
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
        except DataFileError:
            raise
        except Exception as error:  # what zipfile and NumPy stumble over in damage is anything
            if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
                raise
            raise DataFileError(
                path,
                f"damaged, or not an NPZ file ({type(error).__name__}: {str(error)[:100]})",
                "save the arrays anew with numpy.savez",
            ) from error
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
