"""Small networks whose steps bench/host.py counts beside those of layers that are linear.

Their sizes say nothing of speed: kernels are run by an emulator, and what is counted depends on
the layers alone. They are large enough for the kernels of convolutions, of recurrence and of
attention to be used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
#: A network, a batch of its inputs and the classes that are wanted.
Made = tuple[Any, Array, Array]


def convnet() -> Made:
    """Convolutions with batch norms, pools whose windows lie apart, overlap, and are means."""
    from tensorgrad import nn

    draw = np.random.default_rng(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(16, 16, 1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip
    return network, draw.normal(size=(4, 3, 16, 16)).astype(np.float32), draw.integers(0, 10, 4)


def lstm() -> Made:
    """Two layers of an LSTM; what its last step gives is classified."""
    from tensorgrad import nn

    class Classifier(nn.Module):
        """A recurrent network and a layer for its last output."""

        def __init__(self) -> None:
            super().__init__()
            self.recurrent = nn.LSTM(6, 8, num_layers=2, batch_first=True)
            self.head = nn.Linear(8, 4)

        def forward(self, x: Any) -> Any:
            """The scores of the classes."""
            return self.head(self.recurrent(x)[0][:, -1])

    draw = np.random.default_rng(0)
    return Classifier(), draw.normal(size=(3, 5, 6)).astype(np.float32), draw.integers(0, 4, 3)


def gpt() -> Made:
    """Two blocks of a transformer, with its embeddings."""
    from tensorgrad import nn
    from tensorgrad.nn.models import GPT

    class Tokens(nn.Module):
        """What follows each token of all sequences, in one row of scores for each."""

        def __init__(self) -> None:
            super().__init__()
            self.network = GPT(40, 24, n_layer=2, n_head=2, n_embd=16)

        def forward(self, x: Any) -> Any:
            """The scores of the tokens."""
            return self.network(x).reshape((-1, 40))

    draw = np.random.default_rng(0)
    return Tokens(), draw.integers(0, 40, (2, 24)), draw.integers(0, 40, 48)


NETWORKS: dict[str, Callable[[], Made]] = {"ConvNet": convnet, "LSTM": lstm, "GPT": gpt}
