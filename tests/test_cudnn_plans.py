"""The graphs that cuDNN is given, planned by the library itself for cards that are described to it.

Its planner needs no GPU, where the library can be loaded: it is asked for a plan, and nothing runs.
Skipped where frontend or library are missing.
"""

from __future__ import annotations

import importlib
import itertools
import json
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.backend import cudnn
from tensorgrad.backend.cudnn import Convolution
from tensorgrad.backend.cudnn_attention import Attention, attention_graph
from tensorgrad.backend.gemm import row_major

#: What the library wants to know of a card, by compute capability: here an H200's, where it is not
#: said otherwise.
_CARD = {
    "driverVer": 13000, "cudaDeviceId": 0, "maxGridSize": [2**31 - 1, 65535, 65535],
    "maxBlockSize": [1024, 1024, 64], "regsPerBlock": 65536, "multiProcessorCount": 132,
    "smCountOrigin": 0, "warpSize": 32, "maxSharedMemoryPerBlock": 49152,
    "oversizedSharedMemoryPerBlock": 0, "reservedSharedMemoryPerBlock": 1024,
    "maxRegistersPerSM": 65536, "maxCtasPerSM": 32, "maxThreadsPerBlock": 1024,
    "maxThreadsPerSM": 2048, "pciDeviceId": 0, "isTccDriver": 0, "supportCoopLaunch": 1,
    "smClockRateKHz": 1980000, "memClockRateKHz": 3201000, "memoryBusWidth": 6144,
    "l2CacheSize": 62914560, "deviceName": "NVIDIA H200", "totalGlobalMem": 150000000000,
}  # fmt: skip
_SHARED = {750: 65536, 800: 166912, 900: 232448, 1000: 232448, 1200: 101376}


@pytest.fixture(scope="module")
def library() -> Any:
    try:
        found: Any = importlib.import_module("cudnn")
        found.backend_version()
        _card(found, 900)
    except Exception as error:
        pytest.skip(f"cuDNN plans nothing here: {error}")
    return found


def _card(library: Any, capability: int) -> Any:
    shared = {"deviceVer": capability, "maxSharedMemoryPerBlockOptin": _SHARED[capability]}
    return library.create_device_properties(json.dumps({**_CARD, **shared}))


def _last(shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return shape, cudnn._channels_last(shape)


def _laid(shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return shape, row_major(shape)


#: Input, weight and result; stride, padding and dilation.
_SHAPES: dict[str, tuple[Any, ...]] = {
    "3 x 3": ((32, 64, 28, 28), (128, 64, 3, 3), (32, 128, 28, 28), (1, 1), (1, 1), (1, 1)),
    "1 x 1": ((32, 64, 28, 28), (128, 64, 1, 1), (32, 128, 28, 28), (1, 1), (0, 0), (1, 1)),
    "strided": ((8, 16, 33, 33), (24, 16, 3, 3), (8, 24, 15, 15), (2, 2), (0, 0), (2, 2)),
    "same": ((8, 16, 28, 28), (24, 16, 2, 2), (8, 24, 28, 28), (1, 1), (0, 0), (1, 1)),
    "each channel": ((32, 64, 28, 28), (64, 1, 3, 3), (32, 64, 28, 28), (1, 1), (1, 1), (1, 1)),
    "odd": ((8, 3, 27, 29), (5, 3, 3, 3), (8, 5, 27, 29), (1, 1), (1, 1), (1, 1)),
    "1d": ((8, 16, 100), (32, 8, 5), (8, 32, 100), (1,), (2,), (1,)),
    "3d": ((2, 8, 9, 8, 7), (16, 8, 3, 3, 3), (2, 16, 9, 8, 7), (1, 1, 1), (1, 1, 1), (1, 1, 1)),
}


def _key(case: str, kind: str, dtype: Any, last: bool, tf32: bool) -> Convolution:
    x, w, y, stride, padding, dilation = _SHAPES[case]
    lay = _last if last else _laid
    a, b, out = {
        "fprop": (lay(x), _laid(w), lay(y)),
        "dgrad": (lay(y), _laid(w), lay(x)),
        "wgrad": (lay(y), lay(x), _laid(w)),
    }[kind]
    bias = kind == "fprop"
    return Convolution(kind, np.dtype(dtype), a, b, out, bias, stride, padding, dilation, tf32)


def _described(library: Any, key: Any, capability: int) -> Any:
    """A graph that the library has checked, for a card."""
    describe = attention_graph if type(key) is Attention else cudnn.convolution_graph
    card = _card(library, capability)
    return cudnn.described(
        library, key, describe, device_property=card, sm_version=capability // 10
    )


def _planned(library: Any, key: Convolution, capability: int = 900) -> int:
    """The workspace of the plan that is chosen for a card."""
    return cudnn.planned(library, _described(library, key, capability), key.dtype, key.tf32)


@pytest.mark.parametrize("capability", sorted(_SHARED))
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_convolutions_have_plans(library: Any, dtype: str, capability: int) -> None:
    """As they are used: in fixed order, in float32, without FFT and Winograd, in either layout."""
    if (dtype, capability) == ("bfloat16", 750):
        return
    kind = np.dtype(getattr(tg, dtype))
    for case, part, last in itertools.product(_SHAPES, ("fprop", "dgrad", "wgrad"), (False, True)):
        key = _key(case, part, kind, last, False)
        assert 0 <= _planned(library, key, capability) <= cudnn.WORKSPACE


def test_what_the_library_refuses_is_refused(library: Any) -> None:
    """A bias on a gradient, bfloat16 on a card that has none, a size that is wrong."""
    good = _key("3 x 3", "dgrad", tg.float32, False, False)
    assert _planned(library, good) >= 0
    half = _key("3 x 3", "fprop", tg.bfloat16, False, False)
    wrong = good._replace(out=_laid((32, 64, 40, 28)))
    for key, capability in ((good._replace(bias=True), 900), (half, 750), (wrong, 900)):
        with pytest.raises(Exception, match=r"no engine|No valid|gives|dgrad"):
            _planned(library, key, capability)


def _attention(kind: str, dtype: Any, q: tuple[int, ...], k: tuple[int, ...], **more: Any) -> Any:
    """Attention of heads behind the length, as projections leave them."""

    def lay(shape: tuple[int, ...]) -> Any:
        _, heads, length, size = shape
        return shape, (length * heads * size, size, heads * size, 1)

    sums = _laid((*q[:3], 1))
    given: tuple[Any, ...]
    into: tuple[Any, ...]
    if kind == "sdpa":
        given, into = (lay(q), lay(k), lay(k)), (lay(q), sums)
    else:
        given, into = (lay(q), lay(k), lay(k), lay(q), sums, lay(q)), (lay(q), lay(k), lay(k))
    return Attention(kind, np.dtype(dtype), given, into, more.get("causal", False), 0.125)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("kind", ["sdpa", "sdpa_backward"])
def test_attention_is_described_as_the_library_wants_it(
    library: Any, kind: str, dtype: str
) -> None:
    """How it is computed, it plans where it can compile alone: not without a GPU."""
    shapes: list[Any] = [((2, 8, 256, 64), (2, 8, 256, 64)), ((2, 8, 17, 64), (2, 2, 129, 64))]
    for (q, k), causal, card in itertools.product(shapes, (False, True), (800, 900, 1000, 1200)):
        key = _attention(kind, getattr(tg, dtype), q, k, causal=causal)
        _described(library, key, card)


def test_attention_that_is_described_wrongly_is_refused(library: Any) -> None:
    """Features that are no multiple of 8, heads that do not divide, a layout without rows."""
    good = _attention("sdpa", tg.float16, (2, 8, 32, 64), (2, 8, 32, 64))
    _described(library, good, 900)
    odd = _attention("sdpa", tg.float16, (2, 8, 32, 36), (2, 8, 32, 36))
    heads = _attention("sdpa", tg.float16, (2, 8, 32, 64), (2, 3, 32, 64))
    shape, strides = good.given[0]
    turned = good._replace(given=((shape, (*strides[:2], 1, 512)), *good.given[1:]))
    for key in (odd, heads, turned):
        with pytest.raises(Exception, match=r"hidden_dim|head|stride|STRIDE"):
            _described(library, key, 900)
