"""A resumed run has the bits of an uninterrupted one, whenever its loader was made."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.data import DataLoader, TensorDataset
from tensorgrad.training import Callback, Checkpointing, Trainer, load_newest


class _StopAt(Callback):
    """Ctrl-C after so many batches."""

    def __init__(self, batches: int) -> None:
        self.left = batches

    def on_batch_end(self, trainer: Trainer, done: int) -> None:
        """Count."""
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


def _run(path: Path, batches: int, resume: bool = False, late: bool = False) -> dict[str, Any]:
    """The weights and statistics after two epochs, or after ``batches`` batches."""
    values = np.random.default_rng(0).standard_normal((40, 1, 6, 6)).astype(np.float32)
    data = TensorDataset(tg.Tensor(values), tg.Tensor(np.arange(40) % 3))
    tg.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout2d(0.3),
        nn.Flatten(2), nn.LSTM(16, 5, batch_first=True), _Last(), nn.Linear(5, 3),
    )  # fmt: skip
    optimizer = tg.optim.Adam(model.parameters(), lr=0.01)
    loader = None if late else DataLoader(data, 8, shuffle=True)
    trainer = Trainer(
        model, optimizer, nn.functional.cross_entropy,
        callbacks=[Checkpointing(path), _StopAt(batches)], compile=False,
    )  # fmt: skip
    if resume:
        trainer.load_state_dict(load_newest(path).state)
    if batches < 10:
        with pytest.raises(KeyboardInterrupt):
            trainer.fit(loader or DataLoader(data, 8, shuffle=True), epochs=2)
    else:
        trainer.fit(loader or DataLoader(data, 8, shuffle=True), epochs=2)
    return {name: value.numpy().tobytes() for name, value in model.state_dict().items()}


class _Last(nn.Module):
    def forward(self, found: Any) -> Any:
        """The last step of what an LSTM gives."""
        return found[0][:, -1]


@pytest.mark.parametrize("late", [False, True], ids=["loader before the state", "after it"])
def test_a_resumed_run_has_the_same_bits(late: bool, tmp_path: Path) -> None:
    """Dropout goes on where it was, though a loader draws its seed from the same numbers."""
    whole = _run(tmp_path / "a", 100)
    part = _run(tmp_path / "b", 7)
    assert part != whole
    assert _run(tmp_path / "b", 100, resume=True, late=late) == whole
