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
from tensorgrad.nn import models

pytest.importorskip("torch")

import torch
from nn import torch_models as twins
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


def encoder(lib: Any) -> Any:
    """Two layers and a norm."""
    layer = lib.TransformerEncoderLayer(8, 2, 16, 0.0)
    return lib.TransformerEncoder(layer, 2, lib.LayerNorm(8))


PAIRS: list[Pair] = [
    same("Conv1d", (2, 4, 9), (4, 6, 3), stride=2, padding=1, groups=2),
    same("Conv2d", (2, 4, 9, 8), (4, 6, 3), padding="same", dilation=2, padding_mode="reflect"),
    same("Conv3d", (2, 2, 5, 6, 7), (2, 3, (1, 2, 3)), bias=False),
    same("ConvTranspose1d", (2, 4, 5), (4, 6, 3), stride=2, output_padding=1),
    same("ConvTranspose2d", (2, 4, 5, 6), (4, 6, (2, 3)), stride=2, padding=1, groups=2),
    same("ConvTranspose3d", (2, 2, 3, 4, 3), (2, 3, 2), dilation=2),
    same("BatchNorm1d", (5, 3), (3,)),
    same("BatchNorm2d", (4, 3, 2, 5), (3,), momentum=None),
    same("BatchNorm3d", (2, 3, 2, 3, 2), (3,), affine=False),
    same("InstanceNorm2d", (2, 3, 4, 5), (3,), affine=True, track_running_stats=True),
    same("GroupNorm", (2, 6, 3), (3, 6)),
    same("PReLU", (2, 3, 4), (3,)),
    same("Bilinear", (5, 3), (5, 4), (3, 4, 2)),
    same("Embedding", np.array([[1, 0], [2, 3]]), (5, 4), padding_idx=2),
    same("EmbeddingBag", np.array([[1, 0], [2, 3]]), (5, 4), mode="sum"),
    same("RNN", (5, 2, 3), (3, 4, 2), nonlinearity="relu", bidirectional=True),
    same("LSTM", (5, 2, 3), (3, 4, 2), bidirectional=True),
    same("LSTM", (2, 5, 3), (3, 4), batch_first=True, proj_size=2),
    same("GRU", (5, 2, 3), (3, 4, 2), bidirectional=True, bias=False),
    same("LSTMCell", (2, 3), (3, 4)),
    same("GRUCell", (2, 3), (3, 4)),
    same("RNNCell", (2, 3), (3, 4)),
    same("MultiheadAttention", (5, 2, 8), (6, 2, 8), (6, 2, 8), (8, 2)),
    same(
        "MultiheadAttention",
        (2, 5, 8),
        (2, 6, 4),
        (2, 6, 3),
        (8, 4),
        kdim=4,
        vdim=3,
        batch_first=True,
        add_bias_kv=True,
    ),
    same("TransformerEncoderLayer", (5, 2, 8), (8, 2, 16, 0.0), activation="gelu"),
    same("TransformerDecoderLayer", (5, 2, 8), (6, 2, 8), (8, 2, 16, 0.0), norm_first=True),
    Pair("TransformerEncoder", lambda: encoder(nn), lambda: encoder(torch.nn), ((5, 2, 8),)),
    same("Transformer", (4, 2, 8), (3, 2, 8), (8, 2, 2, 2, 16, 0.0)),
    Pair(
        "LeNet",
        models.LeNet,
        twins.LeNet,
        ((2, 1, 28, 28),),
    ),
    Pair(
        "ResNet-18",
        lambda: models.resnet18(10, width=16),
        lambda: twins.resnet(18, 16),
        ((2, 3, 40, 33),),
    ),
    Pair(
        "ResNet-34",
        lambda: models.resnet34(10, width=4),
        lambda: twins.resnet(34, 4),
        ((2, 3, 33, 32),),
    ),
    Pair(
        "ResNet-50",
        lambda: models.resnet50(10, width=4),
        lambda: twins.resnet(50, 4),
        ((2, 3, 40, 40),),
    ),
    Pair(
        "ResNet-20 of CIFAR",
        lambda: models.CifarResNet(20),
        lambda: twins.CifarResNet(20),
        ((2, 3, 32, 32),),
    ),
    Pair(
        "VisionTransformer",
        lambda: models.VisionTransformer(8, 4, 2, 2, 16, 16),
        lambda: twins.VisionTransformer(8, 4, 2, 2, 16, 16),
        ((2, 3, 8, 8),),
    ),
    Pair(
        "GPT",
        lambda: models.GPT(11, 8, 2, 2, 16),
        lambda: twins.GPT(11, 8, 2, 2, 16),
        (np.array([[3, 1, 10, 0]]),),
    ),
]


def flat(result: Any) -> list[Any]:
    """The arrays of an output, which may be nested tuples."""
    if isinstance(result, tuple | list):
        return [one for part in result for one in flat(part)]
    return [] if result is None else [result.detach().numpy()]


def close(ours: Any, theirs: Any, inputs: list[Any], double: bool = False) -> None:
    """The outputs are equal to the rounding of float32, or of float64 in twice the precision.

    In training mode that has to be: norms over a few values amplify the rounding of what they get.
    """
    if double:
        ours, theirs = ours.double(), theirs.double()
        inputs = [x.astype(np.float64) if x.dtype.kind == "f" else x for x in inputs]
    a = flat(ours(*map(tg.tensor, inputs)))
    b = flat(theirs(*map(torch.tensor, inputs)))
    assert len(a) == len(b) > 0
    for one, other in zip(a, b):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, *((1e-9, 1e-9) if double else (1e-5, 1e-5)))


@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")
@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True:UserWarning")
@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
def test_weights_go_both_ways(pair: Pair, tmp_path: Path) -> None:
    """Under the same names, in the same layout; buffers too. In evaluation and in training."""
    torch.manual_seed(0)
    ours, theirs, inputs = pair.ours(), pair.theirs(), pair.given()
    own = {name: value.shape for name, value in ours.state_dict().items()}
    assert own == {name: tuple(value.shape) for name, value in theirs.state_dict().items()}

    start = {name: value.clone() for name, value in theirs.state_dict().items()}
    safetensors.save_file(start, tmp_path / "theirs")
    assert not any(nn.load_safetensors(ours, tmp_path / "theirs"))
    close(ours.eval(), theirs.eval(), inputs)
    close(ours.train(), theirs.train(), inputs, double=True)

    ours, theirs = pair.ours(), pair.theirs()
    nn.save_safetensors(ours, tmp_path / "ours")
    theirs.load_state_dict(safetensors.load_file(tmp_path / "ours"))
    close(ours.eval(), theirs.eval(), inputs)
