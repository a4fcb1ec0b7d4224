"""Arrays as safetensors files hold them, bfloat16 included."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy import ndarray

from tensorgrad import backend, dtypes
from tensorgrad.tensor import Tensor

# safetensors' own NumPy reader does not know BF16.
_DTYPES = {
    "BOOL": dtypes.bool, "I8": dtypes.int8, "I16": dtypes.int16, "I32": dtypes.int32,
    "I64": dtypes.int64, "U8": dtypes.uint8, "U16": dtypes.uint16, "U32": dtypes.uint32,
    "U64": dtypes.uint64, "F16": dtypes.float16, "BF16": dtypes.bfloat16, "F32": dtypes.float32,
    "F64": dtypes.float64,
}  # fmt: skip


def file_array(view: Mapping[str, Any]) -> ndarray[Any, Any]:
    """The array that ``safetensors.deserialize`` describes. Raises KeyError for its dtype."""
    dtype = _DTYPES[view["dtype"]]
    array = np.frombuffer(view["data"], dtype.newbyteorder("<")).reshape(view["shape"])
    return array.astype(dtype, copy=False)


def host_array(value: Any) -> ndarray[Any, Any]:
    """A tensor or array as safetensors takes it: on the host, of a known dtype, in order.

    Raises DtypeError for a dtype that tensors do not have.
    """
    array = value.data if isinstance(value, Tensor) else value
    dtype = dtypes.as_dtype(array.dtype)
    # It takes the memory as it lies.
    found: ndarray[Any, Any] = np.array(
        backend.of(array).to_host(array), dtype, order="C", copy=None
    )
    return found
