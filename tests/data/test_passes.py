"""Several passes over one loader: each an epoch of its own; where training stands among them."""

from __future__ import annotations

import copy
import itertools
import os
import pickle
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tensorgrad import nn
from tensorgrad.data import DataLoader, TensorDataset, transforms
from tensorgrad.nn import functional
from tensorgrad.ops.random import default_generator
from tensorgrad.optim import Adam
from tensorgrad.training import Callback, Checkpointing, Trainer, load_checkpoint, save_checkpoint

OPTIONS: list[dict[str, Any]] = [
    {}, {"workers": 2}, {"workers": 2, "prefetch": 0}, {"workers": 1, "processes": True},
]  # fmt: skip


def made(n: int = 12, seed: int = 3, **options: Any) -> DataLoader:
    """Batches of three noisy numbers, from whose noise the epoch can be told."""
    data = TensorDataset(np.arange(n, dtype=np.float32), np.arange(n))
    noise = transforms.GaussianNoise(0.1)
    return DataLoader(data, 3, shuffle=True, seed=seed, transform=noise, **options)


def listed(batch: Any) -> list[Any]:
    """A batch as lists."""
    return [part.tolist() for part in batch]


def epochs(count: int, **options: Any) -> list[list[Any]]:
    """What the first epochs consist of, one after the other."""
    loader = made(**options)
    return [[listed(batch) for batch in loader] for _ in range(count)]


@pytest.mark.parametrize("options", OPTIONS)
def test_two_passes_side_by_side(options: dict[str, Any]) -> None:
    """Each goes through an epoch of its own, from its beginning to its end."""
    first, second, third = epochs(3)
    loader = made(**options)
    pairs = [(listed(a), listed(b)) for a, b in zip(loader, loader, strict=True)]
    assert [a for a, _ in pairs] == first
    assert [b for _, b in pairs] == second
    assert [listed(batch) for batch in loader] == third


@pytest.mark.parametrize("options", OPTIONS[:2])
def test_a_pass_within_a_pass(options: dict[str, Any]) -> None:
    """The outer one goes on where it was, whether the inner one ends or is broken off."""
    orders = epochs(9)
    loader = made(**options)
    outer = []
    for number, batch in enumerate(loader):
        outer.append(listed(batch))
        inner = [listed(b) for b in itertools.islice(loader, 4 if number % 2 else 2)]
        assert inner == orders[number + 1][: 4 if number % 2 else 2]
    assert outer == orders[0]
    assert [listed(batch) for batch in loader] == orders[5]


def test_passes_of_several_ages() -> None:
    """One begun long ago goes on with its own epoch; the state is that of the one used last."""
    first, second, third = epochs(3)
    loader = made()
    old = iter(loader)
    unused = iter(loader)
    begun = [listed(next(old))]
    assert [listed(batch) for batch in loader] == second
    assert (loader.epoch, loader.next_place()) == (2, (2, 0))
    begun.append(listed(next(old)))
    assert loader.state_dict()["epoch"] == 0
    assert loader.state_dict()["position"] == 2
    assert loader.next_place() == (2, 0)
    resumed = made(seed=99)
    resumed.load_state_dict(loader.state_dict())
    assert [listed(batch) for batch in resumed] == first[2:]
    assert [listed(batch) for batch in resumed] == third  # the second epoch was had
    assert [*begun, *map(listed, old)] == first
    assert [listed(batch) for batch in unused] == third


def test_a_state_of_before_passes_were_counted() -> None:
    """States without that count are those of one pass at a time."""
    orders = epochs(3)
    for position in (0, 2):
        loader = made(seed=1)
        state = {**made().state_dict(), "epoch": 1, "position": position}
        del state["begun"]
        loader.load_state_dict(state)
        assert loader.next_place() == (1, position)
        assert [listed(batch) for batch in loader] == orders[1][position:]
        assert [listed(batch) for batch in loader] == orders[2]


@pytest.mark.parametrize("options", OPTIONS)
def test_a_resumed_loader_has_the_other_key(options: dict[str, Any]) -> None:
    """Orders and variations are those of the saved one, also of workers that run already."""
    orders = epochs(2)
    saved = made()
    next(iter(saved))
    loader = made(seed=77, **options)
    assert [listed(batch) for batch in loader] != orders[0]
    loader.load_state_dict(saved.state_dict())
    assert [listed(batch) for batch in loader] == orders[0][1:]
    assert [listed(batch) for batch in loader] == orders[1]


def test_copies_have_workers_of_their_own() -> None:
    """A loader whose workers run can be copied and pickled."""
    loader = made(workers=2)
    first, second, third = epochs(3)
    assert [listed(batch) for batch in loader] == first
    for other in (copy.deepcopy(loader), pickle.loads(pickle.dumps(loader))):
        assert [listed(batch) for batch in other] == second
    assert [listed(batch) for batch in loader] == second
    assert [listed(batch) for batch in loader] == third


# --- training -------------------------------------------------------------------------------------

X = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
LABELS = (X[:, 0] > 0).astype(np.int64)


class Looking(Callback):
    """Goes through the training data itself, in the middle of an epoch and at its end."""

    def __init__(self, loader: DataLoader, whole: bool) -> None:
        self.loader, self.whole = loader, whole

    def look(self, trainer: Trainer) -> None:
        if self.whole:
            trainer.evaluate(self.loader)
        else:
            next(iter(self.loader))

    def on_batch_end(self, trainer: Trainer, done: int) -> None:
        if done == 2:
            self.look(trainer)

    def on_epoch_end(self, trainer: Trainer, record: dict[str, float]) -> None:
        self.look(trainer)


class At(Callback):
    """Does something after so many steps."""

    def __init__(self, steps: int, action: Callable[[], None]) -> None:
        self.steps, self.action = steps, action

    def on_batch_end(self, trainer: Trainer, done: int) -> None:
        if trainer.steps == self.steps:
            self.action()


def training(callbacks: Callable[[DataLoader], list[Callback]]) -> tuple[Trainer, DataLoader]:
    """A trainer and its loader of five batches."""
    default_generator.seed(5)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Dropout(0.2), nn.Linear(6, 2))
    loader = DataLoader(TensorDataset(X, LABELS), 6, shuffle=True, seed=8)
    optimizer = Adam(model.parameters(), lr=0.01)
    trainer = Trainer(model, optimizer, functional.cross_entropy, callbacks=callbacks(loader))
    return trainer, loader


def result(trainer: Trainer) -> Any:
    """Weights and figures, bit by bit."""
    rows = [{k: v for k, v in r.items() if k != "seconds"} for r in trainer.history]
    return [p.data.tobytes() for p in trainer.model.parameters()], rows


@pytest.mark.parametrize("whole", [True, False], ids=["evaluated", "first batch"])
@pytest.mark.parametrize("stop", [1, 2, 4, 5, 7])
def test_callbacks_that_go_through_the_training_data(
    tmp_path: Path, whole: bool, stop: int
) -> None:
    """A checkpoint tells where training stands, not they; also one of an epoch's end."""

    class StopError(Exception):
        pass

    def stopped() -> None:
        raise StopError

    path = tmp_path / "c"
    trainer, loader = training(lambda x: [Looking(x, whole)])
    trainer.fit(loader, epochs=3)
    first, loader = training(
        lambda x: [Looking(x, whole), Checkpointing(path, steps=1), At(stop, stopped)]
    )
    with pytest.raises(StopError):
        first.fit(loader, epochs=3)
    saved = [load_checkpoint(path).state]
    if stop == 7:  # and from the end of the epoch before
        first, loader = training(lambda x: [Looking(x, whole), Checkpointing(path)])
        first.fit(loader, epochs=1)
        saved.append(load_checkpoint(path).state)
    for state in saved:
        resumed, loader = training(lambda x: [Looking(x, whole)])
        resumed.load_state_dict(state)
        resumed.fit(loader, epochs=3)
        assert result(resumed) == result(trainer)


def test_a_batch_looked_at_before_training(tmp_path: Path) -> None:
    """The first checkpoint says that the next epoch begins at its beginning."""
    trainer, loader = training(lambda x: [])
    next(iter(loader))
    trainer.attach(loader)
    save_checkpoint(tmp_path / "c", trainer.state_dict())
    state = load_checkpoint(tmp_path / "c").state
    assert (state["loader"]["epoch"], state["loader"]["position"]) == (1, 0)
    trainer.fit(loader, epochs=2)
    resumed, other = training(lambda x: [])
    resumed.load_state_dict(state)
    resumed.fit(other, epochs=2)
    assert result(resumed) == result(trainer)


def test_interrupted_in_validation(tmp_path: Path, interruptible: None) -> None:
    """Ctrl-C while the validation data is gone through: the epoch is not trained once more."""
    validation = DataLoader(TensorDataset(X, LABELS), 10)
    trainer, loader = training(lambda x: [])
    trainer.fit(loader, validation, epochs=3)
    path = tmp_path / "c"
    first, loader = training(lambda x: [Checkpointing(path)])
    usual, calls = first.evaluated, [0]

    def interrupted(loader: DataLoader) -> Any:
        calls[0] += 1
        if calls[0] == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return usual(loader)

    first.evaluated = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        first.fit(loader, validation, epochs=3)
    assert load_checkpoint(path).state["steps"] == 10
    resumed, loader = training(lambda x: [])
    resumed.load_state_dict(load_checkpoint(path).state)
    resumed.fit(loader, validation, epochs=3)
    assert result(resumed) == result(trainer)
