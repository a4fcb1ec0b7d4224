"""The records: what is to be reached, by whom, and what tensorgrad holds itself to."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from bench.records import burtorch, cartpole, graphs, images, microgpt, shakespeare
from bench.records.contestants import CONTESTANTS


class Bar(NamedTuple):
    """part: of which the limit speaks; empty for the way to the goal with empty caches.

    seconds: of processors. best, eager: the largest ratio to the best peer, and to PyTorch eager.
    """

    part: str = ""
    seconds: float | None = None
    best: float | None = None
    eager: float | None = None


class Record(NamedTuple):
    """goal: in words.

    run: trains, given a maker, the folder of all data, a seed and a clock; see ``turns.run``.
    folder: the data set it needs, or empty.
    agree: how far apart the first losses may be, relatively.
    """

    goal: str
    run: Callable[..., dict[str, Any]]
    folder: str
    bars: tuple[Bar, ...] = ()
    who: tuple[str, ...] = CONTESTANTS
    agree: float = 1e-4


#: Where nothing is optimized.
_PLAIN = tuple(who for who in CONTESTANTS if who != "torch fused")
FURTHER = "1,000 further steps"
#: Of images: at most a third of the best peer's time, by processors.
_THIRD = 1 / 3
_MICROGPT = (Bar(FURTHER, seconds=0.5, eager=1 / 50),)


def _mlp(units: int, batch: int) -> Record:
    return Record(
        f"1,000 steps of BurTorch's MLP on names, {1_755 + 1_052 * units:,} parameters",
        partial(burtorch.mlp, units=units, batch=batch), "names",
    )  # fmt: skip


def _gpt(batch: int) -> Record:
    return Record(
        "1,000 steps of its GPT of 46,337 parameters on Tiny Shakespeare",
        partial(burtorch.gpt, batch=batch), "tinyshakespeare",
    )  # fmt: skip


RECORDS: dict[str, Record] = {
    "MNIST dense": Record(
        "98 % of the test images, by 784-256-10",
        partial(images.run, recipe=images.Recipe("mnist", "dense", 0.98, 128, 3e-3, 5)), "mnist",
    ),
    "Fashion ConvNet": Record(
        "90 % of the test images of Fashion-MNIST, by two convolutions and two dense layers",
        partial(
            images.run, recipe=images.Recipe("fashion-mnist", "convolutional", 0.9, 128, 5e-3, 3)
        ),
        "fashion-mnist",
    ),
    "MNIST ConvNet": Record(
        "99 % of the test images, by two convolutions and two dense layers",
        partial(images.run, recipe=images.Recipe("mnist", "convolutional", 0.99, 128, 5e-3, 4)),
        "mnist", (Bar(seconds=30, best=_THIRD),),
    ),
    "microgpt": Record(
        "1,000 names, each in its own length",
        partial(microgpt.run, padded=False), "names", _MICROGPT,
    ),
    "microgpt padded": Record(
        "1,000 names, all as 16 tokens, of which those after the end count nothing",
        partial(microgpt.run, padded=True), "names", _MICROGPT,
    ),
    "tiny graph": Record(
        "100,000 gradients of the ten scalars of BurTorch's first table",
        partial(graphs.run, name="tiny"), "", who=_PLAIN,
    ),
    "small graph": Record(
        "20,000 gradients of the 32 scalars of its second one",
        partial(graphs.run, name="small"), "", who=_PLAIN,
    ),
    **{
        f"names MLP {units}, batch {batch}": _mlp(units, batch)
        for units in (4, 64, 1024) for batch in (1, 64)
    },
    **{f"small GPT, batch {batch}": _gpt(batch) for batch in (1, 64)},
    "Shakespeare": Record(
        "1.6 nats for a character of Tiny Shakespeare, by a GPT; scores are in bits",
        shakespeare.run, "tinyshakespeare",
    ),
    "CartPole": Record(
        "a pole that is balanced over 475 of 500 steps, by deep Q-learning", cartpole.run, "",
        agree=1e-3,
    ),
}  # fmt: skip
