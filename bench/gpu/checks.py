"""Compiled steps against eager ones on the GPU, and what may happen between replays.

Each check raises AssertionError with what came and what was right, and returns the report of the
compiled function. Any way around the one graph is a failure: on a GPU it would only look slow.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np

import tensorgrad as tg
from bench.gpu.common import Skipped
from bench.training.with_tensorgrad import Attention
from tensorgrad import backend, nn, optim
from tensorgrad.errors import DeviceError

Array = np.ndarray[Any, Any]


def no_fallback(call: Any) -> str:
    """The report of a compiled function, all of which runs as one CUDA graph.

    Raises AssertionError with the reason if anything of it does not.
    """
    assert not call.dropped, f"it runs as it is: {call.dropped}"
    assert not call.reasons, f"some calls run as they are: {'; '.join(call.reasons)}"
    executor = call._last().executor
    assert executor.name == "cuda", f"the {executor.name} executor runs it: {executor.reason}"
    assert not executor.reason, executor.reason
    report = str(call.report())
    segments = [line for line in report.splitlines() if line.startswith("segment")]
    assert segments, report
    assert all(line.endswith("one graph") for line in segments), report
    return report


def _close(found: Any, wanted: Any, tolerance: float, what: str) -> None:
    np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance, err_msg=what)


# --- networks -------------------------------------------------------------------------------------


class Training(NamedTuple):
    """A step of training, and what it trains."""

    step: Callable[..., tg.Tensor]
    data: tuple[tg.Tensor, ...]
    parameters: list[nn.Parameter]
    update: Any


class _Words(nn.Module):
    """The mean of the embeddings of some words, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 32)
        self.out = nn.Linear(32, 10)

    def forward(self, words: tg.Tensor) -> tg.Tensor:
        return self.out(self.embedding(words).mean(axis=1))


class _Net(NamedTuple):
    model: Callable[[], nn.Module]
    shape: tuple[int, ...]
    optimizer: str
    words: int = 0  # inputs are integers below it
    classes: int = 10  # 0: the mean squared error to numbers


def _dense() -> nn.Module:
    return nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.Tanh(), nn.Linear(128, 10)
    )


def _normalized() -> nn.Module:
    return nn.Sequential(nn.Linear(32, 64), nn.LayerNorm(64), nn.GELU(), nn.Linear(64, 10))


def _attention() -> nn.Module:
    return Attention([nn.Linear(32, 32) for _ in range(4)], 4)


def _dropout() -> nn.Module:
    return nn.Sequential(
        nn.Linear(32, 64), nn.GELU(), nn.Dropout(0.2), nn.Linear(64, 32), nn.SiLU(),
        nn.Dropout(0.1), nn.Linear(32, 10),
    )  # fmt: skip


NETWORKS = {
    "dense": _Net(_dense, (64,), "SGD"),
    "layer norm + GELU": _Net(_normalized, (32,), "SGD"),
    "attention": _Net(_attention, (12, 32), "AdamW", classes=0),
    "dropout + Adam": _Net(_dropout, (32,), "Adam"),
    "embedding": _Net(_Words, (7,), "Adam", words=50),
}


def training(name: str, device: str, batch: int = 16, seed: int = 0) -> Training:
    """A network with its data, made anew: the same for the same seed."""
    net = NETWORKS[name]
    tg.manual_seed(seed)
    model = net.model().to(device)
    draw = np.random.default_rng(seed)
    x: Any
    if net.words:
        x = draw.integers(0, net.words, (batch, *net.shape))
    else:
        x = draw.standard_normal((batch, *net.shape)).astype(np.float32)
    target = (
        draw.integers(0, net.classes, batch)
        if net.classes
        else draw.standard_normal(x.shape).astype(np.float32)
    )
    criterion = nn.CrossEntropyLoss() if net.classes else nn.MSELoss()
    parameters = list(model.parameters())
    update: Any
    if net.optimizer == "SGD":
        update = optim.SGD(parameters, lr=0.05, momentum=0.9)
    else:
        # Some gradients are 0 but for rounding (of the bias of attention's keys): a larger eps than
        # usual keeps these from becoming steps of any size.
        update = getattr(optim, net.optimizer)(parameters, lr=1e-2, eps=1e-5)

    def step(x: tg.Tensor, target: tg.Tensor) -> tg.Tensor:
        update.zero_grad()
        loss = criterion(model(x), target)
        loss.backward()
        optim.clip_grad_norm_(parameters, 10.0)
        update.step()
        return loss

    data = (tg.Tensor(x, device=device), tg.Tensor(target, device=device))
    return Training(step, data, parameters, update)


def trained(
    made: Training, step: Callable[..., tg.Tensor], steps: int
) -> tuple[Array, list[Array]]:
    """Losses and weights of some steps, of which the second half has half the learning rate."""
    losses = []
    for k in range(steps):
        if k == steps // 2:
            made.update.param_groups[0]["lr"] /= 2
        losses.append(step(*made.data).item())
    return np.array(losses), [p.detach().cpu().numpy() for p in made.parameters]


def network(name: str, steps: int = 20, batch: int = 16) -> str:
    """Twenty steps compiled, eager and eager on the CPU."""
    found = {}
    for device in ("cpu", "cuda"):
        made = training(name, device, batch)
        found[device] = trained(made, made.step, steps)
    made = training(name, "cuda", batch)
    call: Any = tg.compile(made.step)
    losses, weights = trained(made, call, steps)
    _close(found["cuda"][0], found["cpu"][0], 2e-3, "losses, eager: GPU and CPU")
    _close(losses, found["cuda"][0], 1e-3, "losses on the GPU: compiled and eager")
    for number, pair in enumerate(zip(weights, found["cuda"][1], strict=True)):
        _close(*pair, 5e-3, f"parameter {number} after {steps} steps: compiled and eager")
    assert call.captures == 1, f"captured {call.captures} times"
    return no_fallback(call)


# --- between replays ------------------------------------------------------------------------------


def moved_parameters(steps: int = 12) -> str:
    """Parameters that become other arrays, and gradients that somebody keeps."""
    results = []
    call: Any = None
    for compiled in (False, True):
        made = training("dense", "cuda")
        step: Any = tg.compile(made.step) if compiled else made.step
        call = step
        losses, kept = [], []
        for k in range(steps):
            if k in (3, 7):
                for p in made.parameters:
                    p.data = p.data.copy()
            losses.append(step(*made.data).item())
            if k == 5:
                kept = [p.grad for p in made.parameters]
                values = [g.detach().cpu().numpy().copy() for g in kept]  # type: ignore[union-attr]
        for g, value in zip(kept, values):
            assert g is not None
            np.testing.assert_array_equal(g.cpu().numpy(), value, "a gradient that was kept")
        results.append((losses, values))
    _close(results[1][0], results[0][0], 1e-3, "losses")
    for a, b in zip(results[1][1], results[0][1], strict=True):
        _close(a, b, 1e-3, "gradients of the sixth step")
    return no_fallback(call)


def precision_after_capture(n: int = 256) -> str:
    """A product captured in full precision is in TF32 once that is asked for, and back again."""
    draw = np.random.default_rng(0)
    x = draw.standard_normal((n, n)).astype(np.float32)
    exact = x.astype(np.float64) @ x
    a = tg.tensor(x, device="cuda")
    call: Any = tg.compile(lambda a: a @ a)
    before = tg.get_float32_matmul_precision()
    errors: list[float] = []
    try:
        for precision in ("highest", "high", "highest"):
            try:
                tg.set_float32_matmul_precision(precision)
            except DeviceError as error:  # there is no TF32 on this card
                raise Skipped(str(error)) from None
            for _ in range(3):
                found = call(a).cpu().numpy()
            errors.append(float(np.abs(found - exact).max() / n**0.5))
            no_fallback(call)
    finally:
        tg.set_float32_matmul_precision(before)
    full, rounded, again = errors
    assert full < 1e-5, f"off by {full:.1e} in full precision"
    assert again < 1e-5, f"off by {again:.1e} after going back to full precision"
    assert 1e-5 < rounded < 1e-2, f"off by {rounded:.1e} in TF32, which rounds to 10 bits"
    return no_fallback(call)


def _streams(count: int) -> list[Any]:
    cuda = backend.cuda_backend().xp.cuda
    return [cuda.Stream(non_blocking=True) for _ in range(count)]


def _alone(names: Iterable[str], steps: int, batch: int) -> list[Array]:
    """The losses of compiled steps that have the GPU to themselves."""
    found = []
    for seed, name in enumerate(names):
        made = training(name, "cuda", batch, seed)
        found.append(trained(made, tg.compile(made.step), steps)[0])
    return found


_PAIR = ("dense", "attention")


def two_streams(steps: int = 20, batch: int = 64) -> str:
    """Two compiled steps replayed by turns, each on a stream of its own, without a wait between."""
    wanted = _alone(_PAIR, steps, batch)
    streams, mades, calls = _streams(2), [], []
    losses: list[list[tg.Tensor]] = [[], []]
    for seed, (name, stream) in enumerate(zip(_PAIR, streams)):
        with stream:
            mades.append(training(name, "cuda", batch, seed))
            calls.append(tg.compile(mades[-1].step))
    for k in range(steps):
        for made, call, stream, found in zip(mades, calls, streams, losses):
            with stream:
                if k == steps // 2:
                    made.update.param_groups[0]["lr"] /= 2
                found.append(call(*made.data))
    reports = []
    for call, stream, found, right in zip(calls, streams, losses, wanted):
        with stream:
            stream.synchronize()
            _close([loss.item() for loss in found], right, 1e-4, "losses: side by side and alone")
        reports.append(no_fallback(call))
    return "\n".join(reports)


def two_threads(
    steps: int = 20, batch: int = 64, turn: AbstractContextManager[Any] | None = None
) -> str:
    """Two threads that replay steps of their own, and one pure function that both call.

    turn: held while a step runs, where only one may at a time.
    """
    turn = nullcontext() if turn is None else turn
    wanted = _alone(_PAIR, steps, batch)
    shared: Any = tg.compile(lambda x: tg.tanh(x @ x) * 2.0)
    found: dict[int, Any] = {}
    draw = np.random.default_rng(0)
    inputs = [draw.standard_normal((24, 24)).astype(np.float32) for _ in _PAIR]
    mades = [training(name, "cuda", batch, seed) for seed, name in enumerate(_PAIR)]
    backend.cuda_backend().synchronize()
    start = threading.Barrier(2)

    def work(number: int) -> None:
        try:
            with _streams(1)[0] as stream:
                made = mades[number]
                with turn:
                    call: Any = tg.compile(made.step)
                    x = tg.tensor(inputs[number], device="cuda")
                losses, values = [], []
                start.wait(60)
                for k in range(steps):
                    if k == steps // 2:
                        made.update.param_groups[0]["lr"] /= 2
                    with turn:
                        losses.append(call(*made.data).item())
                        values.append(shared(x).cpu().numpy())
                stream.synchronize()
            found[number] = losses, values, no_fallback(call)
        except BaseException as error:
            found[number] = error
            start.abort()

    threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for outcome in found.values():
        if isinstance(outcome, BaseException):
            raise outcome
    for number, right in enumerate(wanted):
        losses, values, _ = found[number]
        _close(losses, right, 1e-4, f"losses of thread {number}: side by side and alone")
        x = inputs[number]
        for value in values:
            _close(value, np.tanh(x @ x) * 2, 1e-4, f"thread {number}: the function of both")
    return "\n".join([found[0][2], found[1][2], no_fallback(shared)])


#: name -> the check, and what it is called with on the emulator, which serves one thread at a time
BETWEEN: dict[str, tuple[Callable[..., str], dict[str, Any]]] = {
    "moved parameters": (moved_parameters, {}),
    "precision after capture": (precision_after_capture, {"n": 24}),
    "two streams": (two_streams, {"steps": 6, "batch": 2}),
    "two threads": (two_threads, {"steps": 6, "batch": 2, "turn": threading.Lock()}),
}
NAMES = (*NETWORKS, *BETWEEN)


def run(name: str, tiny: bool = False) -> str:
    """A check by its name. tiny: for the emulator."""
    if name in NETWORKS:
        return network(name, **({"steps": 6, "batch": 5} if tiny else {}))
    check, few = BETWEEN[name]
    return check(**(few if tiny else {}))
