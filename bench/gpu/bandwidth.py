"""The bandwidth of each memory-bound kernel, against a copy of the same size in the same run."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

import numpy as np

import tensorgrad as tg
from tensorgrad import backend, nn, optim
from tensorgrad.nn import functional

ELEMENTS = 1 << 26
BAR = 0.85
ROUNDS = 15
#: launches between two events: enough for the queue never to run dry
BATCH = 8


class Case(NamedTuple):
    """Some work on the GPU. moved: bytes that it has to read and write, each once."""

    name: str
    run: Callable[[], object]
    moved: int


def _tensor(*shape: int, requires_grad: bool = False) -> tg.Tensor:
    generator = tg.Generator(1)
    return generator.normal(shape, device="cuda", requires_grad=requires_grad)


def _backward(y: tg.Tensor, gradient: tg.Tensor, *inputs: tg.Tensor) -> Callable[[], object]:
    """The reverse replay of ``y`` alone, over and over."""
    return lambda: tg.autograd.grad(y, inputs, gradient, retain_graph=True)


def cases(n: int = ELEMENTS) -> list[Case]:
    """All cases on about ``n`` float32 elements, a power of two."""
    columns = min(1024, n // 4)
    rows = n // columns
    size = 4 * n
    x, g = _tensor(rows, columns, requires_grad=True), _tensor(rows, columns)
    bias = _tensor(columns, requires_grad=True)
    weight = _tensor(columns, requires_grad=True)
    labels = tg.tensor(np.arange(rows) % columns, device="cuda")
    found = []

    def both(name: str, function: Callable[[], tg.Tensor], *inputs: tg.Tensor, saved: int = 1,
             gradient: tg.Tensor = g, forward: int = 2) -> None:  # fmt: skip
        """Forward: reads and writes ``forward`` arrays; backward: g and ``saved``, writes one."""
        y = function()
        with_no_tape = tg.no_grad()(function)
        found.append(Case(f"{name} forward", with_no_tape, forward * size))
        found.append(
            Case(f"{name} backward", _backward(y, gradient, *inputs), (gradient.size > 1) * size
                 + (saved + 1) * size)
        )  # fmt: skip

    for name in ("sigmoid", "tanh", "relu", "leaky_relu", "elu", "gelu", "silu", "softplus"):
        function = getattr(tg, name)
        both(name, lambda f=function: f(x), x)  # type: ignore[misc]
    both("softmax", lambda: tg.softmax(x), x)
    both("log_softmax", lambda: tg.log_softmax(x), x)
    both("layer_norm", lambda: functional.layer_norm(x, (columns,), weight, bias), x, weight, bias)
    both("rms_norm", lambda: functional.rms_norm(x, (columns,), weight), x, weight)
    one = tg.ones((), device="cuda")
    both("cross_entropy", lambda: functional.cross_entropy(x, labels), x, gradient=one, forward=1)
    both("dropout", lambda: tg.dropout(x, 0.1), x, saved=0)
    order = tg.tensor(np.random.default_rng(0).permutation(rows), device="cuda")
    both("take rows", lambda: tg.take(x, order, axis=0), x, saved=0)
    generator = tg.Generator(2)
    found.append(Case("uniform", lambda: generator.uniform((n,), device="cuda"), size))
    found.append(Case("normal", lambda: generator.normal((n,), device="cuda"), size))
    return found


def fused_cases(n: int = ELEMENTS) -> list[Case]:
    """Bias and activation in one pass, with the bias gradient reduced in the same pass."""
    columns = min(1024, n // 4)
    z, g = _tensor(n // columns, columns, requires_grad=True), _tensor(n // columns, columns)
    bias = _tensor(columns, requires_grad=True)
    found = []
    for name in ("relu", "sigmoid", "gelu"):
        y = tg.bias_activation(z, bias, name)
        found.append(
            Case(
                f"bias + {name} forward",
                tg.no_grad()(lambda name=name: tg.bias_activation(z, bias, name)),
                8 * n,
            )
        )
        found.append(Case(f"bias + {name} backward", _backward(y, g, z, bias), 12 * n))
    return found


def update_cases(n: int = ELEMENTS, parameters: int = 200) -> list[Case]:
    """The optimizers over 200 parameters, and the norm of all their gradients."""
    found = []
    each = n // parameters
    for name, make, moved in (
        ("SGD momentum", lambda p: optim.SGD(p, lr=0.1, momentum=0.9), 5),
        ("Adam", lambda p: optim.Adam(p), 7),
        ("AdamW", lambda p: optim.AdamW(p), 7),
    ):
        params = [nn.Parameter(_tensor(each)) for _ in range(parameters)]
        for p in params:
            p.grad = _tensor(each)
        found.append(Case(f"{name}, {parameters} parameters", make(params).step, moved * 4 * n))
    found.append(
        Case(
            f"clip_grad_norm_, {parameters} parameters",
            lambda: optim.clip_grad_norm_(params, 1e30),
            3 * 4 * n,
        )
    )
    return found


def copied(n: int) -> Case:
    """The device's own copy: what the others are compared with."""
    xp = backend.cuda_backend().xp
    source, target = xp.ones(n, xp.float32), xp.empty(n, xp.float32)
    runtime = xp.cuda.runtime

    def copy() -> None:
        runtime.memcpyAsync(
            target.data.ptr, source.data.ptr, source.nbytes, runtime.memcpyDeviceToDevice,
            xp.cuda.get_current_stream().ptr,
        )  # fmt: skip

    return Case("copy", copy, 8 * n)


def seconds(case: Case) -> float:
    """The time of one run, by events on the device around a batch of them."""
    xp = backend.cuda_backend().xp
    begin, end = xp.cuda.Event(), xp.cuda.Event()
    begin.record()
    for _ in range(BATCH):
        case.run()
    end.record()
    end.synchronize()
    return float(xp.cuda.get_elapsed_time(begin, end)) / 1e3 / BATCH


def run(n: int = ELEMENTS, rounds: int = ROUNDS) -> dict[str, Any]:
    """The table: bytes per second of each case, and its ratio to the copy's in the same round."""
    copy = copied(n)
    rates: dict[str, Any] = {}
    seconds(copy)
    for make in (cases, fused_cases, update_cases):
        for case in make(n):
            case.run()
            seconds(case)
            ratios, times = [], []
            for _ in range(rounds):
                reference = copy.moved / seconds(copy)
                times.append(seconds(case))
                ratios.append(case.moved / times[-1] / reference)
            rate = case.moved / median(times)
            rates[case.name] = {"bytes_per_second": rate, "ratio_to_copy": median(ratios)}
            verdict = "PASS" if median(ratios) >= BAR else "FAIL"
            print(
                f"{case.name:34} {rate / 1e9:8.0f} GB/s  {median(ratios):5.2f} of copy  {verdict}"
            )
    rates["copy"] = {"bytes_per_second": copy.moved / seconds(copy), "ratio_to_copy": 1.0}
    return rates
