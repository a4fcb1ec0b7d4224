"""Products of square matrices beside CuPy alone, and how much of it rounding costs; convolutions of
3 x 3 beside those by columns."""

from __future__ import annotations

from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np

import tensorgrad as tg
from bench.gpu.common import Say, Settings, Skipped
from bench.gpu.timing import seconds
from tensorgrad import backend
from tensorgrad.backend.launch import convolution
from tensorgrad.errors import DeviceError
from tensorgrad.nn import functional

#: case -> dtype and precision; the error of a product, relative to its terms' size, at most
_CASES: dict[str, tuple[str, str, float]] = {
    "product float32": ("float32", "highest", 5e-5),
    "product TF32": ("float32", "high", 1e-2),
    "product bfloat16": ("bfloat16", "highest", 2e-2),
}
#: case -> dtype and channels of convolutions of about as many operations
_WINDOWS = {
    f"convolution {channels} {dtype}": (dtype, channels)
    for dtype in ("float32", "bfloat16")
    for channels in (64, 256)
}
ROUNDS = 15


def cases(settings: Settings) -> tuple[str, ...]:
    """The names of the cases."""
    return (*_CASES, *_WINDOWS)


def run(case: str, settings: Settings, say: Say) -> dict[str, Any]:
    """Operations per second of ``a @ b``, and the ratio to CuPy's in the same round; of a
    convolution, and the ratio to that by columns."""
    if case in _WINDOWS:
        return _convolved(*_WINDOWS[case], settings)
    dtype, precision, most = _CASES[case]
    n = settings.sized(4096, 16)
    before = tg.get_float32_matmul_precision()
    try:
        tg.set_float32_matmul_precision(precision)
    except DeviceError as error:
        raise Skipped(str(error)) from None
    try:
        return _measured(n, dtype, most, settings)
    finally:
        tg.set_float32_matmul_precision(before)


def _measured(n: int, dtype: str, most: float, settings: Settings) -> dict[str, Any]:
    draw = np.random.default_rng(0)
    hosts = [draw.standard_normal((n, n)).astype(np.float32) for _ in range(2)]
    a, b = (tg.tensor(x, dtype=getattr(tg, dtype), device="cuda") for x in hosts)
    xp = backend.cuda_backend().xp
    rows = [x.cpu().numpy().astype(np.float64) for x in (a[:8], b)]
    wanted = rows[0] @ rows[1]
    error = float(np.abs((a @ b)[:8].cpu().numpy() - wanted).max()) / n**0.5
    times: dict[str, list[float]] = {"tensorgrad": [], "CuPy": []}
    works = {"tensorgrad": lambda: a @ b, "CuPy": lambda: xp.matmul(a.data, b.data)}
    for turn in range(settings.turns(ROUNDS) + 1):
        for name, work in works.items():
            took = seconds(work)
            if turn:
                times[name].append(took)
    ratio = median(x / y for x, y in zip(times["tensorgrad"], times["CuPy"]))
    flops = 2 * n**3 / median(times["tensorgrad"])
    found: dict[str, Any] = {
        "flops": flops, "time_ratio_to_cupy": ratio, "error": error,
        "figure": f"{flops / 1e12:.1f} TFLOPS, {ratio:.2f} times CuPy's time, error {error:.1e}",
    }  # fmt: skip
    if not error <= most:
        found["reason"] = f"the product is off by {error:.1e}, where {most:g} is right"
    return found


def _convolved(dtype: str, channels: int, settings: Settings) -> dict[str, Any]:
    """Value and gradients of the 3 x 3 windows of 32 examples, by two ways."""
    size, examples = settings.sized(3584 // channels, 8), settings.sized(32, 1)
    channels = settings.sized(channels, 16)
    draw = tg.Generator(0)
    x, w = (
        draw.normal(shape, device="cuda", dtype=dtype, requires_grad=True)
        for shape in ((examples, channels, size, 2 * size), (channels, channels, 3, 3))
    )
    g = draw.normal((examples, channels, size, 2 * size), device="cuda", dtype=dtype)

    def work() -> Any:
        return tg.autograd.grad(functional.conv2d(x, w, padding=1), (x, w), g)

    times: dict[str, list[float]] = {"implicit": [], "columns": []}
    made = []
    for turn in range(settings.turns(ROUNDS) + 1):
        for way, taken in times.items():
            with patch.object(convolution, "way", lambda *_, way=way: way):
                took = seconds(work)
                if not turn:
                    made.append([d.astype(tg.float32).cpu().numpy() for d in work()])
            if turn:
                taken.append(took)
    error = max(float(abs(a - b).max() / abs(b).max()) for a, b in zip(*made))
    ratio = median(a / b for a, b in zip(times["implicit"], times["columns"]))
    flops = 3 * 2 * 9 * g.size * channels / median(times["implicit"])
    found: dict[str, Any] = {
        "flops": flops, "time_ratio_to_columns": ratio, "error": error,
        "figure": f"{flops / 1e12:.1f} TFLOPS, {ratio:.2f} times the time by columns",
    }  # fmt: skip
    if not error <= (1e-4 if dtype == "float32" else 2e-2):
        found["reason"] = f"both ways are {error:.1e} apart"
    return found
