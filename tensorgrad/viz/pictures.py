"""Pictures of pixels as PNG files, written without a library of images."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from tensorgrad.errors import ShapeError

Array = np.ndarray[Any, Any]


def png(pixels: Array) -> bytes:
    """An image in shades of grey, uint8 [height, width], as a PNG file (RFC 2083)."""
    height, width = pixels.shape

    def chunk(kind: bytes, data: bytes) -> bytes:
        """A part of the file: length, kind, data and checksum."""
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    rows: Sequence[bytes] = [b"\0" + row.tobytes() for row in np.ascontiguousarray(pixels)]
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(b"".join(rows), 9))
        + chunk(b"IEND", b"")
    )


def draw_pictures(pictures: Any, zoom: int = 5) -> bytes:
    """Pictures in shades of grey side by side, a white line between them; returns a PNG file.

    pictures: numbers from 0 (black) to 1 (white), shape (rows, columns, height, width), or without
    rows; what lies beyond is cut off. zoom: how many pixels wide one of theirs is drawn. Raises
    ShapeError for another shape.
    """
    sheet = np.asarray(pictures, np.float64)
    if sheet.ndim not in (3, 4):
        raise ShapeError(
            "draw_pictures: pictures must have shape (rows, columns, height, width) or (columns, "
            f"height, width); got {sheet.shape}"
        )
    sheet = sheet.reshape(-1, *sheet.shape[-3:])
    rows, columns, height, width = sheet.shape
    framed = np.ones((rows, columns, height + 1, width + 1))
    framed[:, :, :-1, :-1] = np.clip(sheet, 0, 1)
    whole = framed.swapaxes(1, 2).reshape(rows * (height + 1), columns * (width + 1))[:-1, :-1]
    return png(np.kron(np.round(whole * 255), np.ones((zoom, zoom))).astype(np.uint8))
