"""A stand-in for nvmath-python's binding of cublasLt, computed on the host.

It checks what the cuBLAS reference says of cublasLtMatmul: sizes of attributes, leading dimensions,
shapes that fit, types that have an epilogue, the auxiliary matrix's rows, the workspace, and that
addresses are aligned as the heuristics were told. Which bit of a mask belongs to what is the
library's own affair; whoever reads one otherwise gets nonsense.
"""

from __future__ import annotations

import ctypes
import enum
from functools import partial
from itertools import count
from types import ModuleType
from typing import Any

import numpy as np

from standin import cublas, cupy_standin
from standin.cublas import TYPES, matrix, multiplied

INVALID_VALUE, NOT_SUPPORTED = 7, 15
#: What the algorithms here want of workspace, as some of the library's do.
WANTED = 4096
#: Epilogues that there are no algorithms for; tests put names here.
MISSING: set[str] = set()


class MatmulDescAttribute(enum.IntEnum):
    COMPUTE_TYPE = 0
    SCALE_TYPE = 1
    POINTER_MODE = 2
    TRANSA = 3
    TRANSB = 4
    EPILOGUE = 7
    BIAS_POINTER = 8
    EPILOGUE_AUX_POINTER = 11
    EPILOGUE_AUX_LD = 12


class MatmulPreferenceAttribute(enum.IntEnum):
    SEARCH_MODE = 0
    MAX_WORKSPACE_BYTES = 1
    MIN_ALIGNMENT_A_BYTES = 5
    MIN_ALIGNMENT_B_BYTES = 6
    MIN_ALIGNMENT_C_BYTES = 7
    MIN_ALIGNMENT_D_BYTES = 8


class Epilogue(enum.IntEnum):
    DEFAULT = 1
    RELU = 2
    RELU_AUX = 130
    BIAS = 4
    RELU_BIAS = 6
    RELU_AUX_BIAS = 134
    DRELU = 136
    DRELU_BGRAD = 152
    GELU = 32
    GELU_AUX = 160
    GELU_BIAS = 36
    GELU_AUX_BIAS = 164
    DGELU = 192
    DGELU_BGRAD = 208
    BGRADA = 256
    BGRADB = 512


class cuBLASLtError(Exception):  # the binding's name
    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


_SIZES = {
    **dict.fromkeys(MatmulDescAttribute, 4),
    MatmulDescAttribute.BIAS_POINTER: 8,
    MatmulDescAttribute.EPILOGUE_AUX_POINTER: 8,
    MatmulDescAttribute.EPILOGUE_AUX_LD: 8,
}
_PREFERENCES = {
    **dict.fromkeys(MatmulPreferenceAttribute, 4),
    MatmulPreferenceAttribute.MAX_WORKSPACE_BYTES: 8,
}

_handles = count(0x700, 0x10)
_objects: dict[int, Any] = {}
_algorithms: dict[int, tuple[Any, ...]] = {}
#: heuristics asked for, and products: epilogue and sizes, columns first
asked: list[str] = []
computed: list[tuple[str, int, int, int]] = []


def _made(value: Any) -> int:
    handle = next(_handles)
    _objects[handle] = value
    return handle


#: Why the library cannot be loaded; tests put a text here.
absent: list[str] = []


def create() -> int:
    if absent:
        raise RuntimeError(absent[0])
    return _made("handle")


def matmul_desc_create(compute: int, scale: int) -> int:
    return _made({"compute": int(compute), "scale": int(scale)})


def matrix_layout_create(kind: int, rows: int, columns: int, ld: int) -> int:
    return _made((int(kind), int(rows), int(columns), int(ld)))


def matmul_preference_create() -> int:
    return _made({})


def matmul_preference_destroy(preference: int) -> None:
    del _objects[preference]


def _set(handle: int, sizes: dict[Any, int], attr: Any, buf: int, size: int) -> None:
    if not buf or size != sizes[attr]:
        raise cuBLASLtError(INVALID_VALUE)
    kind = ctypes.c_uint32 if size == 4 else ctypes.c_uint64
    _objects[handle][attr] = kind.from_address(buf).value


def matmul_desc_set_attribute(desc: int, attr: Any, buf: int, size: int) -> None:
    _set(desc, _SIZES, MatmulDescAttribute(attr), buf, size)


def matmul_preference_set_attribute(preference: int, attr: Any, buf: int, size: int) -> None:
    _set(preference, _PREFERENCES, MatmulPreferenceAttribute(attr), buf, size)


def _shape(layout: Any, transposed: int) -> tuple[int, int]:
    _, rows, columns, ld = layout
    if ld < rows:
        raise cuBLASLtError(INVALID_VALUE)
    return (columns, rows) if transposed else (rows, columns)


def _checked(desc: Any, a: Any, b: Any, c: Any, d: Any) -> tuple[str, int, int, int]:
    """The epilogue and the sizes of a product that the library would do."""
    names = MatmulDescAttribute
    m, k = _shape(a, desc.get(names.TRANSA, 0))
    inner, n = _shape(b, desc.get(names.TRANSB, 0))
    if k != inner or _shape(d, 0) != (m, n) or c != d:
        raise cuBLASLtError(INVALID_VALUE)
    compute, kinds = desc["compute"], (a[0], d[0])
    if a[0] != b[0] or kinds not in cublas.SUPPORTED.get(compute, ()):
        raise cuBLASLtError(NOT_SUPPORTED)
    if desc["scale"] != (1 if compute == cublas.DOUBLE else 0):
        raise cuBLASLtError(NOT_SUPPORTED)
    epilogue = Epilogue(desc.get(names.EPILOGUE, 1)).name
    if epilogue in MISSING or (compute == cublas.DOUBLE and epilogue != "DEFAULT"):
        raise cuBLASLtError(NOT_SUPPORTED)
    if ("BIAS" in epilogue or "BGRAD" in epilogue) and not desc.get(names.BIAS_POINTER):
        raise cuBLASLtError(INVALID_VALUE)
    if "AUX" in epilogue or epilogue.startswith(("DRELU", "DGELU")):
        row = desc.get(names.EPILOGUE_AUX_LD, 0)
        if row < m or row % (128 if "RELU" in epilogue else 8):
            raise cuBLASLtError(INVALID_VALUE)
        if not desc.get(names.EPILOGUE_AUX_POINTER):
            raise cuBLASLtError(INVALID_VALUE)
    return epilogue, m, n, k


def _vectors(desc: Any) -> tuple[int, int]:
    """How far the bias and the auxiliary matrix are aligned, which the heuristics look at."""
    names = MatmulDescAttribute
    found = (desc.get(name, 0) for name in (names.BIAS_POINTER, names.EPILOGUE_AUX_POINTER))
    bias, aux = (min(256, at & -at) or 256 for at in found)
    return bias, aux


def matmul_algo_get_heuristic(
    handle: int, desc: int, a: int, b: int, c: int, d: int, preference: int, requested: int,
    results: int, returned: int,
) -> None:  # fmt: skip
    assert _objects[handle] == "handle"
    assert requested >= 1
    epilogue, *_ = _checked(_objects[desc], *(_objects[x] for x in (a, b, c, d)))
    asked.append(epilogue)
    given, names = _objects[preference], MatmulPreferenceAttribute
    if given.get(names.MAX_WORKSPACE_BYTES, 0) < WANTED:
        raise cuBLASLtError(NOT_SUPPORTED)
    number = next(_handles)
    promised = tuple(given.get(getattr(names, f"MIN_ALIGNMENT_{x}_BYTES"), 256) for x in "ABCD")
    _algorithms[number] = (desc, a, b, c, d, (*promised, *_vectors(_objects[desc])))
    found = (ctypes.c_uint64 * 9).from_address(results)
    found[0], found[8] = number, WANTED
    ctypes.c_int32.from_address(returned).value = 1


def matmul(
    handle: int, desc: int, alpha: int, a: int, a_layout: int, b: int, b_layout: int, beta: int,
    c: int, c_layout: int, d: int, d_layout: int, algo: int, workspace: int, size: int, stream: int,
) -> None:  # fmt: skip
    assert _objects[handle] == "handle"
    described = _objects[desc]
    layouts = [_objects[x] for x in (a_layout, b_layout, c_layout, d_layout)]
    epilogue, m, n, k = _checked(described, *layouts)
    *known, promised = _algorithms[ctypes.c_uint64.from_address(algo).value]
    assert known == [desc, a_layout, b_layout, c_layout, d_layout], "another product's algorithm"
    assert min(a, b, c, d), "no address"
    for at, least in zip((a, b, c, d, *_vectors(described)), promised, strict=True):
        assert at % least == 0, "less aligned than the heuristics were told"
    if workspace % 256 or size < WANTED or not workspace:
        raise cuBLASLtError(INVALID_VALUE)
    assert stream == cupy_standin.current_stream().ptr
    kind = cublas.SCALARS[described["compute"]]
    assert (kind.from_address(alpha).value, kind.from_address(beta).value) == (1, 0)
    cupy_standin.log.launched(f"matmul_{epilogue}")
    computed.append((epilogue, m, n, k))
    # The description is read now; it may be another one when a graph is launched.
    work = partial(_multiply, epilogue, dict(described), layouts, a, b, d)
    if not cupy_standin._queued(work):
        work()


def _multiply(epilogue: str, described: Any, layouts: Any, a: int, b: int, d: int) -> None:
    """The product, with its epilogue."""
    names = MatmulDescAttribute
    _, m, n, k = _checked(described, *layouts)
    x, y = (
        found.T if described.get(flag, 0) else found
        for found, flag in (
            (matrix(a, TYPES[layouts[0][0]], *layouts[0][1:]), names.TRANSA),
            (matrix(b, TYPES[layouts[1][0]], *layouts[1][1:]), names.TRANSB),
        )
    )
    dtype = TYPES[layouts[3][0]]
    vector = described.get(names.BIAS_POINTER, 0)
    assert vector % dtype.itemsize == 0, "a misaligned address"
    length = n if epilogue == "BGRADB" else k if epilogue == "BGRADA" else m
    bias = matrix(vector, dtype, length, 1, length)[:, 0] if vector else np.zeros(length, dtype)
    z = multiplied(x, y, described["compute"])
    with np.errstate(all="ignore"):
        z = _finished(epilogue, z, y, bias, described, dtype)
        matrix(d, dtype, m, n, layouts[3][3])[...] = z


def _finished(epilogue: str, z: Any, y: Any, bias: Any, desc: Any, dtype: Any) -> Any:
    """What the epilogue makes of the product, in the type of the arithmetic."""
    m, n = z.shape
    at = desc.get(MatmulDescAttribute.EPILOGUE_AUX_POINTER, 0)
    row = desc.get(MatmulDescAttribute.EPILOGUE_AUX_LD, 0)
    assert at % 16 == 0, "the auxiliary matrix is misaligned"
    if "BIAS" in epilogue:
        z = z + bias.astype(z.dtype)[:, None]
    if epilogue == "BGRADB":
        bias[...] = y.astype(z.dtype).sum(0)
    if epilogue.startswith("RELU"):
        if "AUX" in epilogue:
            mask = matrix(at, np.dtype(np.uint8), row // 8, n, row // 8)
            bits = np.zeros((row, n), np.uint8)
            bits[:m] = z > 0
            mask[...] = np.packbits(bits, axis=0, bitorder="little")
        z = np.where(z > 0, z, z * (z != z))
    elif epilogue.startswith("GELU"):
        if "AUX" in epilogue:
            matrix(at, dtype, m, n, row)[...] = z
        z = 0.5 * z * (1 + np.tanh(0.7978845608028654 * (z + 0.044715 * z**3)))
    elif epilogue.startswith("DRELU"):
        mask = matrix(at, np.dtype(np.uint8), row // 8, n, row // 8)
        z = z * np.unpackbits(np.ascontiguousarray(mask), axis=0, bitorder="little")[:m]
    elif epilogue.startswith("DGELU"):
        x = matrix(at, dtype, m, n, row).astype(z.dtype)
        t = np.tanh(0.7978845608028654 * (x + 0.044715 * x**3))
        slope = 0.7978845608028654 * (1 + 3 * 0.044715 * x**2)
        z = z * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * slope)
    if epilogue.startswith("D") and epilogue.endswith("BGRAD"):
        bias[...] = z.sum(1)
    return z


def binding() -> ModuleType:
    """``nvmath.bindings.cublasLt``."""
    made = ModuleType("nvmath.bindings.cublasLt")
    names = (
        "create matmul_desc_create matrix_layout_create matmul_preference_create matmul "
        "matmul_preference_destroy matmul_desc_set_attribute matmul_preference_set_attribute "
        "matmul_algo_get_heuristic MatmulDescAttribute MatmulPreferenceAttribute Epilogue "
        "cuBLASLtError"
    )
    made.__dict__.update({name: globals()[name] for name in names.split()})
    return made
