"""What a Trainer and a DataLoader cost besides the steps: epochs of 60,000 images of 784 bytes.

The images are random: the time does not depend on what they show. 784-128-10, batch 64, Adam.
"""

from __future__ import annotations

import io
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.contest import Contest
from bench.costs import printed
from bench.measure import summary
from bench.report import Row

NAME = "loop"
TITLE = "what a Trainer and a DataLoader cost besides the steps"
UNIT = "milliseconds of an epoch"
WHO = ("tensorgrad compiled", "tensorgrad")
#: The time of an epoch with a Trainer, to that of a loop that gives the same figures; and the time
#: of fetching all batches of a shuffled epoch, to that of the steps on them.
OVERHEAD, LOADING = 1.05, 0.10
BATCH = 64


def _data(examples: int) -> tuple[Any, Any]:
    import numpy as np

    from tensorgrad.data import TensorDataset

    rng = np.random.default_rng(0)

    def part(n: int) -> TensorDataset:
        return TensorDataset(
            rng.integers(0, 256, (n, 784)).astype(np.uint8), rng.integers(0, 10, n)
        )

    return part(examples), part(examples // 6)


def _network() -> tuple[Any, Any]:
    import tensorgrad as tg
    from tensorgrad import nn, optim

    tg.manual_seed(0)
    model = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    return model, optim.Adam(model.parameters())


def _scaled(x: Any) -> Any:
    return x.float() * (1 / 255)


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def bare_loop(train: Any, validation: Any, compiled: bool) -> Callable[[], Any]:
    """An epoch as one writes it by hand, with loss and accuracy of both parts."""
    import tensorgrad as tg
    from tensorgrad.data import DataLoader
    from tensorgrad.nn.functional import cross_entropy

    model, optimizer = _network()

    def step(x: Any, t: Any) -> Any:
        optimizer.zero_grad()
        y = model(_scaled(x))
        loss = cross_entropy(y, t)
        loss.backward()
        optimizer.step()
        return loss.detach(), y.detach()

    run: Any = tg.compile(step) if compiled else step
    batches = DataLoader(train, BATCH, shuffle=True, seed=0)
    others = DataLoader(validation, 1000)

    def epoch() -> list[float]:
        figures = []
        total = right = 0.0
        for x, t in batches:
            loss, y = run(x, t)
            total += loss.item() * len(t)
            right += (y.numpy().argmax(1) == t.numpy()).sum()
        figures += [total / len(train), right / len(train)]
        total = right = 0.0
        with tg.no_grad():
            for x, t in others:
                y = model(_scaled(x))
                total += cross_entropy(y, t).item() * len(t)
                right += (y.numpy().argmax(1) == t.numpy()).sum()
        return [*figures, total / len(validation), right / len(validation)]

    return epoch


def with_trainer(train: Any, validation: Any, compiled: bool, folder: str) -> Callable[[], Any]:
    """The same with a Trainer, a progress bar on a terminal, and the history in a file."""
    from tensorgrad.data import DataLoader
    from tensorgrad.nn.functional import cross_entropy
    from tensorgrad.training import History, Progress, Trainer

    model, optimizer = _network()
    trainer = Trainer(
        model, optimizer, cross_entropy, prepare=_scaled, compile=compiled,
        callbacks=(Progress(_Terminal()), History(Path(folder) / "history.csv")),
    )  # fmt: skip
    batches = DataLoader(train, BATCH, shuffle=True, seed=0)
    others = DataLoader(validation, 1000)

    def epoch() -> list[float]:
        record = trainer.fit(batches, others, trainer.epoch + 1)[-1]
        return [record[k] for k in ("train_loss", "train_accuracy", "validation_loss",
                                    "validation_accuracy")]  # fmt: skip

    return epoch


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measured(compiled: bool, examples: int, rounds: int) -> dict[str, Any]:
    """Seconds of epochs, in turn: by hand, with a Trainer, steps on batches at hand, fetching."""
    from tensorgrad.data import DataLoader

    train, validation = _data(examples)
    with tempfile.TemporaryDirectory() as folder:
        by_hand = bare_loop(train, validation, compiled)
        trainer = with_trainer(train, validation, compiled, folder)
        first, second = by_hand(), trainer()
        if any(abs(a - b) > 1e-3 * abs(a) for a, b in zip(first, second, strict=True)):
            raise AssertionError(f"the two loops disagree: {first} and {second}")
        step = _step(compiled)
        ready = list(DataLoader(train, BATCH, shuffle=True, seed=0))
        loader = DataLoader(train, BATCH, shuffle=True, seed=0)

        def steps() -> None:
            for batch in ready:
                step(*batch)

        def fetch() -> None:
            for _ in loader:
                pass

        calls = {"by hand": by_hand, "Trainer": trainer, "steps": steps, "fetching": fetch}
        found: dict[str, list[float]] = {name: [] for name in calls}
        shuffled = random.Random(0)
        for _ in range(rounds):
            # In another order each time: what runs before leaves the caches to its neighbour.
            for name in shuffled.sample(list(calls), len(calls)):
                found[name].append(_seconds(calls[name]))
    return found


def _step(compiled: bool) -> Callable[..., Any]:
    import tensorgrad as tg
    from tensorgrad.nn.functional import cross_entropy

    model, optimizer = _network()

    def step(x: Any, t: Any) -> Any:
        optimizer.zero_grad()
        loss = cross_entropy(model(_scaled(x)), t)
        loss.backward()
        optimizer.step()
        return loss

    run: Any = tg.compile(step) if compiled else step
    return run


def run(contest: Contest) -> None:
    """Both, compiled and in eager mode."""
    quick = contest.settings.quick
    for who in contest.taking_part(*WHO):
        compiled = who == "tensorgrad compiled"
        found = printed(
            "import json\nfrom bench.loop import measured\n"
            f"print(json.dumps(measured({compiled}, {6000 if quick else 60000}, "
            f"{3 if quick else 21})))"
        )
        for name, seconds in found.items():
            middle = statistics.median(seconds) * 1e3
            contest.report.rows.append(Row(name, who, middle, min(seconds) * 1e3))
        for what, top, below, limit in (
            ("epoch with a Trainer to one by hand", "Trainer", "by hand", OVERHEAD),
            ("fetching the batches to the steps on them", "fetching", "steps", LOADING),
        ):
            ratios = summary([a / b for a, b in zip(found[top], found[below], strict=True)])
            contest.report.judge(f"{what}, {who}", limit, ratios.middle, ratios)
