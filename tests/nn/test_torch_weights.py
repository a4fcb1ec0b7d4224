"""Weights of PyTorch's layers and networks load here and give its outputs, and the other way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import nn

pytest.importorskip("torch")

import torch
from safetensors import torch as safetensors


@dataclass(frozen=True)
class Pair:
    """The same network in either library, and shapes of its inputs (or the inputs)."""

    name: str
    ours: Callable[[], Any]
    theirs: Callable[[], Any]
    inputs: tuple[Any, ...]

    def given(self) -> list[Any]:
        """The inputs: normal numbers where only a shape is given."""
        draw = np.random.default_rng(0)
        return [
            draw.normal(size=x).astype(np.float32) if isinstance(x, tuple) else x
            for x in self.inputs
        ]


def same(name: str, *shapes: Any, **options: Any) -> Pair:
    """A layer that has one name and the same arguments in both."""
    *inputs, arguments = shapes
    shown = ", ".join([*map(str, arguments), *(f"{k}={v}" for k, v in options.items())])
    return Pair(
        f"{name}({shown})",
        lambda: getattr(nn, name)(*arguments, **options),
        lambda: getattr(torch.nn, name)(*arguments, **options),
        tuple(inputs),
    )


PAIRS: list[Pair] = [
    same("LayerNorm", (3, 4), (4,)),
    same("BatchNorm1d", (5, 3), (3,)),
    same("BatchNorm2d", (4, 3, 2, 5), (3,), momentum=None),
    same("BatchNorm3d", (2, 3, 2, 3, 2), (3,), affine=False),
    same("InstanceNorm2d", (2, 3, 4, 5), (3,), affine=True, track_running_stats=True),
    same("GroupNorm", (2, 6, 3), (3, 6)),
    same("Embedding", np.array([[1, 0], [2, 3]]), (5, 4), padding_idx=2),
    same("RNN", (5, 2, 3), (3, 4, 2), nonlinearity="relu", bidirectional=True),
    same("LSTM", (5, 2, 3), (3, 4, 2), bidirectional=True),
    same("LSTM", (2, 5, 3), (3, 4), batch_first=True, proj_size=2),
    same("GRU", (5, 2, 3), (3, 4, 2), bidirectional=True, bias=False),
    same("LSTMCell", (2, 3), (3, 4)),
    same("GRUCell", (2, 3), (3, 4)),
    same("RNNCell", (2, 3), (3, 4)),
]


def flat(result: Any) -> list[Any]:
    """The arrays of an output, which may be nested tuples."""
    if isinstance(result, tuple | list):
        return [one for part in result for one in flat(part)]
    return [] if result is None else [result.detach().numpy()]


def close(ours: Any, theirs: Any) -> None:
    a, b = flat(ours), flat(theirs)
    assert len(a) == len(b) > 0
    for one, other in zip(a, b):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")
@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
def test_weights_go_both_ways(pair: Pair, tmp_path: Path) -> None:
    """Under the same names, in the same layout; buffers too. In evaluation and in training."""
    torch.manual_seed(0)
    ours, theirs = pair.ours(), pair.theirs()
    inputs = pair.given()
    a, b = [tg.tensor(x) for x in inputs], [torch.tensor(x) for x in inputs]
    own = {name: value.shape for name, value in ours.state_dict().items()}
    assert own == {name: tuple(value.shape) for name, value in theirs.state_dict().items()}

    start = {name: value.clone() for name, value in theirs.state_dict().items()}
    safetensors.save_file(start, tmp_path / "theirs")
    assert not any(nn.load_safetensors(ours, tmp_path / "theirs"))
    close(ours(*a), theirs(*b))
    close(ours.eval()(*a), theirs.eval()(*b))

    ours = pair.ours()
    nn.save_safetensors(ours, tmp_path / "ours")
    theirs.load_state_dict(safetensors.load_file(tmp_path / "ours"))
    close(ours.eval()(*a), theirs(*b))
    close(ours.train()(*a), theirs.train()(*b))
