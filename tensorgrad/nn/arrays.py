"""Arrays as safetensors files hold them, bfloat16 and complex64 included."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy import ndarray
from safetensors import SafetensorError, deserialize

from tensorgrad import backend, dtypes
from tensorgrad.errors import DtypeError
from tensorgrad.files import DataFileError, read_whole
from tensorgrad.tensor import Tensor

METADATA = "__metadata__"  # the name in a file's header under which no array can be

# safetensors' own NumPy reader does not know BF16. The format has no name for complex128.
_DTYPES = {
    "BOOL": dtypes.bool, "I8": dtypes.int8, "I16": dtypes.int16, "I32": dtypes.int32,
    "I64": dtypes.int64, "U8": dtypes.uint8, "U16": dtypes.uint16, "U32": dtypes.uint32,
    "U64": dtypes.uint64, "F16": dtypes.float16, "BF16": dtypes.bfloat16, "F32": dtypes.float32,
    "F64": dtypes.float64, "C64": dtypes.complex64,
}  # fmt: skip


def read_safetensors(
    path: str | os.PathLike[str], remedy: str
) -> tuple[dict[str, ndarray[Any, Any]], dict[str, str]]:
    """The arrays in a safetensors file under their names, and the texts that lie beside them.

    Raises OSError if the file cannot be read, DataFileError, with ``remedy``, if it is no
    safetensors file, is torn, or holds arrays of a dtype that tensors do not have.
    """
    content = read_whole(path)
    try:
        found = deserialize(content)  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        _refuse_unknown_dtypes(path, _header(content))  # it may be whole, but newer
        raise DataFileError(path, f"torn, or not a safetensors file ({error})", remedy) from error
    header = _header(content)
    _refuse_unknown_dtypes(path, header)
    arrays = {name: _array(view) for name, view in sorted(found)}  # it has no order of its own
    return arrays, header.get(METADATA) or {}


def _header(content: bytes) -> dict[str, Any]:
    """The JSON at the beginning of a safetensors file, or nothing where there is none."""
    try:
        found = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _refuse_unknown_dtypes(path: str | os.PathLike[str], header: Mapping[str, Any]) -> None:
    for name, entry in header.items():
        dtype = entry.get("dtype") if isinstance(entry, dict) and name != METADATA else None
        if isinstance(dtype, str) and dtype not in _DTYPES:
            raise DataFileError(
                path,
                f"{name!r} is of dtype {dtype!r}, which tensors do not have; known are "
                + ", ".join(_DTYPES),
                "convert it where it was saved, as to F32",
            )


def _array(view: Mapping[str, Any]) -> ndarray[Any, Any]:
    """The array that ``safetensors.deserialize`` describes."""
    dtype = _DTYPES[view["dtype"]]
    array = np.frombuffer(view["data"], dtype.newbyteorder("<")).reshape(view["shape"])
    return array.astype(dtype, copy=False)


def host_array(value: Any) -> ndarray[Any, Any]:
    """A tensor or array as safetensors takes it: on the host, of a known dtype, in order.

    Raises DtypeError for a dtype that tensors do not have, or the format: complex128.
    """
    array = value.data if isinstance(value, Tensor) else value
    dtype = dtypes.as_dtype(array.dtype)
    if dtype == dtypes.complex128:
        raise DtypeError(
            "safetensors files hold complex numbers as complex64 alone; convert complex128 with "
            ".astype(tg.complex64), or save its two parts"
        )
    # It takes the memory as it lies.
    found: ndarray[Any, Any] = np.array(
        backend.of(array).to_host(array), dtype, order="C", copy=None
    )
    return found
