"""Convolution and attention by cuDNN beside kernels of ours, which serve where it is missing."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple
from unittest.mock import patch

import tensorgrad as tg
from bench.gpu.common import Say, Settings, Skipped
from bench.gpu.timing import seconds
from tensorgrad import backend
from tensorgrad.backend import cudnn
from tensorgrad.nn import functional

ROUNDS = 9
#: How far both may be apart, relative to the largest number.
_APART = {"float32": 2e-5, "float16": 4e-3, "bfloat16": 3e-2}


class _Convolution(NamedTuple):
    """Shapes of input and weight; stride, padding, groups; shapes in a rehearsal."""

    x: tuple[int, ...]
    weight: tuple[int, ...]
    options: dict[str, int]
    tiny: tuple[tuple[int, ...], tuple[int, ...]]


_CONVOLUTIONS = {
    "3 x 3": _Convolution(
        (32, 64, 56, 56), (64, 64, 3, 3), {"padding": 1}, ((1, 2, 5, 5), (2, 2, 3, 3))
    ),
    "1 x 1": _Convolution((32, 256, 56, 56), (64, 256, 1, 1), {}, ((1, 4, 3, 3), (2, 4, 1, 1))),
    "7 x 7 by 2": _Convolution(
        (32, 3, 224, 224), (64, 3, 7, 7), {"stride": 2, "padding": 3}, ((1, 1, 9, 9), (2, 1, 7, 7))
    ),
    "each channel": _Convolution(
        (32, 192, 28, 28), (192, 1, 3, 3), {"padding": 1, "groups": 192},
        ((1, 192, 3, 3), (192, 1, 3, 3)),
    ),
}  # fmt: skip
#: Of 16 heads of 64 features: examples, queries, keys, and whether it is causal.
_ATTENTION = {"attention": (8, 1024, 1024, False), "causal attention": (8, 1024, 1024, True)}


def cases(settings: Settings) -> tuple[str, ...]:
    """The names of the cases."""
    return (
        *[f"{name} {dtype}" for name in _CONVOLUTIONS for dtype in ("float32", "bfloat16")],
        *[f"{name} {dtype}" for name in _ATTENTION for dtype in ("float16", "bfloat16")],
    )


def run(case: str, settings: Settings, say: Say) -> dict[str, Any]:
    """Operations per second of both, of the value and of all gradients, in the same rounds."""
    state = cudnn.state(backend.cuda_backend().xp)
    if state.startswith("not used"):
        raise Skipped(state)
    name, _, dtype = case.rpartition(" ")
    if name in _ATTENTION:
        function, inputs, flops = _attention(name, dtype, settings)
    else:
        function, inputs, flops = _convolution(name, dtype, settings)
    y = function(*inputs)
    g = _drawn(y.shape, dtype)

    def gradients(y: tg.Tensor = y) -> Any:
        return tg.autograd.grad(y, inputs, g, retain_graph=True)

    def value() -> tg.Tensor:
        with tg.no_grad():
            return function(*inputs)

    found: dict[str, Any] = {"cudnn": state}
    told = []
    works: dict[str, tuple[Callable[[], Any], int]] = {
        "forward": (value, flops), "backward": (gradients, 2 * flops),
    }  # fmt: skip
    for part, (work, count) in works.items():
        found[part] = _compared(work, settings)
        ours, theirs = found[part]["ours"], found[part]["cudnn"]
        told.append(f"{part} {count / theirs / 1e12:.1f} TFLOPS, ours {ours / theirs:.2f} x")
        if not found[part]["apart"] <= _APART[dtype]:
            found["reason"] = f"{part}: they are {found[part]['apart']:.1e} apart"
    why = cudnn.refused()
    if why:
        found["reason"] = f"refused: {why}"
    return {**found, "figure": "; ".join(told)}


def _drawn(shape: tuple[int, ...], dtype: str, requires_grad: bool = False) -> tg.Tensor:
    return tg.Generator(1).normal(shape, device="cuda", dtype=dtype, requires_grad=requires_grad)


def _convolution(name: str, dtype: str, settings: Settings) -> tuple[Any, Any, int]:
    found = _CONVOLUTIONS[name]
    shapes = found.tiny if settings.rehearse else (found.x, found.weight)
    x, w = (_drawn(shape, dtype, True) for shape in shapes)
    bias = _drawn((shapes[1][0],), dtype, True)

    def function(x: tg.Tensor, w: tg.Tensor, bias: tg.Tensor) -> tg.Tensor:
        return functional.conv2d(x, w, bias, **found.options)

    positions = math.prod(function(x, w, bias).shape)
    return function, (x, w, bias), 2 * positions * math.prod(shapes[1][1:])


def _attention(name: str, dtype: str, settings: Settings) -> tuple[Any, Any, int]:
    examples, rows, columns, causal = _ATTENTION[name]
    heads, size = settings.sized(16, 2), settings.sized(64, 8)
    if settings.rehearse:
        examples, rows, columns = 1, 9, 9
    q, k, v = (_drawn((examples, heads, n, size), dtype, True) for n in (rows, columns, columns))

    def function(q: tg.Tensor, k: tg.Tensor, v: tg.Tensor) -> tg.Tensor:
        return functional.scaled_dot_product_attention(q, k, v, is_causal=causal)

    flops = 4 * examples * heads * rows * columns * size
    return function, (q, k, v), flops // 2 if causal else flops


def _compared(work: Callable[[], Any], settings: Settings) -> dict[str, float]:
    """The median seconds of both, and how far their results are apart."""
    device = backend.cuda_backend().xp.cuda.runtime.getDevice()
    times: dict[str, list[float]] = {"cudnn": [], "ours": []}
    made: dict[str, list[Any]] = {}
    for turn in range(settings.turns(ROUNDS) + 1):
        for who, taken in times.items():
            with patch.dict(cudnn._MADE, {} if who == "cudnn" else {device: "left out"}):
                took = seconds(work)
                if turn:
                    taken.append(took)
                else:
                    results = work()
                    listed = list(results) if isinstance(results, tuple | list) else [results]
                    made[who] = [y.detach().astype(tg.float32) for y in listed]
    apart = max(
        float((a - b).abs().max()) / max(float(b.abs().max()), 1e-30)
        for a, b in zip(made["cudnn"], made["ours"], strict=True)
    )
    return {**{who: median(taken) for who, taken in times.items()}, "apart": apart}
