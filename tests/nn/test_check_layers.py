"""Module.check on the layers people train: what does not fit is found, with the nearest fix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tensorgrad import nn


class First(nn.Module):
    """The outputs of a recurrent layer, without its states."""

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer

    def forward(self, x: Any) -> Any:
        return self.layer(x)[0]


def after(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers)


#: The model, the shapes it is tried with, the path, the axis, and the fix.
MISTAKES: dict[str, tuple[Callable[[], nn.Module], list[Any], str, int | None, str]] = {
    "channels of the layer before": (
        lambda: after(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(4, 8, 3)),
        [(2, 3, 9, 9)], "2", 1, "in_channels=8 here or out_channels=4 in 0",
    ),
    "channels last": (
        lambda: after(nn.Conv2d(3, 8, 3)), [(2, 9, 9, 3)], "0", 1, "x.swapaxes(3, 1)",
    ),
    "images for a layer of sequences": (
        lambda: after(nn.Conv1d(3, 8, 3)), [(2, 3, 9, 9)], "0", None, "nn.Conv2d here",
    ),
    "a kernel larger than the image": (
        lambda: after(nn.Conv2d(3, 8, 5)), [(2, 3, 4, 4)], "0", None, "a larger input",
    ),
    "a window larger than the image": (
        lambda: after(nn.MaxPool2d(4)), [(2, 3, 3, 3)], "0", None, "a smaller kernel_size",
    ),
    "channels of a transposed one": (
        lambda: nn.ConvTranspose2d(3, 8, 3), [(2, 4, 9, 9)], "", 1, "in_channels=4 here",
    ),
    "channels of a norm": (
        lambda: after(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(4)),
        [(2, 3, 9, 9)], "1", 1, "num_features=8 here or out_channels=4 in 0",
    ),
    "channels of groups": (
        lambda: nn.GroupNorm(2, 6), [(2, 4, 5, 5)], "", 1, "num_channels=4 here",
    ),
    "features after flattening": (
        lambda: after(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(648, 3)),
        [(2, 3, 9, 9)], "2", 1, "in_features=392 here",
    ),
    "features of a recurrent layer": (
        lambda: First(nn.LSTM(4, 8)), [(5, 2, 3)], "layer", 2, "input_size=3 here",
    ),
    "features after a recurrent layer": (
        lambda: after(First(nn.GRU(4, 8)), nn.Linear(4, 3)),
        [(5, 2, 4)], "1", 2, "in_features=8 here or hidden_size=4 in 0.layer",
    ),
    "features of a cell": (
        lambda: nn.GRUCell(3, 4), [(2, 5)], "", 1, "input_size=5 here",
    ),
    "features of attention": (
        lambda: nn.MultiheadAttention(8, 2), [(5, 2, 6)] * 3, "", 2, "embed_dim=6 here",
    ),
    "features of a transformer": (
        lambda: after(nn.Linear(6, 4), nn.TransformerEncoderLayer(8, 2, 16)),
        [(5, 3, 6)], "1", 2, "d_model=4 here or out_features=8 in 0",
    ),
    "factors of a product": (
        lambda: nn.Bilinear(3, 4, 2), [(2, 3), (2, 5)], "", 1, "in2_features=5 here",
    ),
    "slopes": (lambda: nn.PReLU(3), [(2, 4, 5)], "", 1, "num_parameters=4 here"),
}  # fmt: skip


@pytest.mark.parametrize("what", MISTAKES)
def test_planted_mistake(what: str) -> None:
    """The path of the module, the axis and the nearest fix."""
    make, shapes, path, axis, fix = MISTAKES[what]
    with pytest.raises(nn.ModelError) as caught:
        make().check(*shapes)
    problem = caught.value.problems[0]
    assert (problem.path, problem.axis) == (path, axis)
    assert fix in problem.fix


def test_no_fix_is_given_that_would_not_help() -> None:
    """Where another module lies between that makes another size of it."""
    model = after(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(648, 3))
    with pytest.raises(nn.ModelError) as caught:
        model.check((2, 3, 9, 9))
    assert "out_channels" not in caught.value.problems[0].fix


def test_summary_counts_the_work_of_each_layer() -> None:
    """Twice the products of the convolutions, gates and heads."""
    model = after(nn.Conv2d(3, 8, 3, bias=False), nn.Flatten(2))
    assert model.summary((2, 3, 10, 10)).rows[1].flops == 2 * 2 * 8 * 64 * 27
    gates = 2 * 5 * 2 * 4 * 8 * (4 + 8)
    table = nn.LSTM(4, 8, bias=False).summary((5, 2, 4))
    assert table.flops is not None
    assert gates <= table.flops <= 1.5 * gates
    heads = 2 * 2 * 5 * (4 * 8 * 8 + 2 * 5 * 8)
    table = nn.TransformerEncoderLayer(8, 2, 16).summary((5, 2, 8))
    flops = [row.flops for row in table.rows if row.type in ("MultiheadAttention", "Linear")]
    assert all(flops), table
    assert table.flops is not None
    assert table.flops > heads + 2 * 2 * 5 * 2 * 8 * 16
