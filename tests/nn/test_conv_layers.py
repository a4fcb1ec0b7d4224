"""Convolutional and padding layers against PyTorch's: weights, outputs, initial values, checks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import Tensor, nn

torch: Any = pytest.importorskip("torch", reason="compares with PyTorch")

_SAME: Any = "same"
LAYERS: list[tuple[str, tuple[Any, ...], dict[str, Any], tuple[int, ...]]] = [
    ("Conv1d", (4, 6, 3), {"stride": 2, "padding": 1, "groups": 2}, (2, 4, 9)),
    ("Conv1d", (2, 3, 3), {"padding": "same", "padding_mode": "circular"}, (2, 2, 6)),
    ("Conv2d", (3, 4, 3), {"padding": 1}, (2, 3, 5, 6)),
    ("Conv2d", (3, 4, (3, 2)), {"padding": (2, 1), "padding_mode": "reflect"}, (3, 5, 6)),
    ("Conv2d", (2, 4, 3), {"padding_mode": "replicate", "padding": 2, "bias": False}, (2, 2, 5, 4)),
    ("Conv2d", (2, 2, 3), {"padding": "valid", "padding_mode": "circular"}, (1, 2, 5, 4)),
    ("Conv3d", (2, 3, 2), {"dilation": (1, 2, 1)}, (2, 2, 4, 4, 3)),
    ("ConvTranspose1d", (3, 2, 3), {"stride": 2, "output_padding": 1}, (2, 3, 5)),
    ("ConvTranspose2d", (4, 6, 3, 2, 1, 1, 2), {"dilation": 2}, (2, 4, 3, 4)),
    ("ConvTranspose3d", (2, 2, 2), {"bias": False}, (2, 2, 3, 2)),
    ("Unfold", ((2, 3),), {"padding": 1, "stride": 2}, (2, 3, 5, 6)),
    ("Fold", ((4, 5), (2, 3)), {"dilation": (2, 1)}, (2, 12, 6)),
    ("ConstantPad1d", ((1, 2), 0.5), {}, (2, 3, 4)),
    ("ConstantPad3d", (1, -1.0), {}, (1, 2, 2, 3, 2)),
    ("ZeroPad1d", (2,), {}, (2, 3, 4)),
    ("ZeroPad2d", ((1, -1, 0, 2),), {}, (2, 3, 4, 3)),
    ("ZeroPad3d", (1,), {}, (2, 3, 2, 2)),
    ("ReflectionPad1d", ((2, 1),), {}, (3, 4)),
    ("ReflectionPad2d", (1,), {}, (2, 3, 4, 3)),
    ("ReflectionPad3d", (1,), {}, (2, 3, 4, 3, 2)),
    ("ReplicationPad1d", (3,), {}, (2, 3, 2)),
    ("ReplicationPad2d", ((3, 0, 1, 2),), {}, (2, 3, 2)),
    ("ReplicationPad3d", (1,), {}, (1, 3, 2, 2, 3)),
    ("CircularPad1d", ((2, 1),), {}, (2, 3, 2)),
    ("CircularPad2d", (1,), {}, (2, 3, 2, 3)),
    ("CircularPad3d", (1,), {}, (1, 3, 2, 2, 3)),
    ("ConstantPad2d", (1, 3.0), {}, (2, 2, 2)),
]


@pytest.mark.parametrize(("name", "args", "options", "shape"), LAYERS)
def test_a_layer_with_pytorchs_weights_gives_pytorchs_output(
    name: str, args: Any, options: Any, shape: tuple[int, ...]
) -> None:
    theirs = getattr(torch.nn, name)(*args, **options)
    ours = getattr(nn, name)(*args, **options)
    state = {key: value.numpy() for key, value in theirs.state_dict().items()}
    assert {k: v.shape for k, v in ours.state_dict().items()} == {
        k: v.shape for k, v in state.items()
    }
    ours.load_state_dict(state)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    found, wanted = ours(Tensor(x)), theirs(torch.tensor(x))
    np.testing.assert_allclose(found.detach().numpy(), wanted.detach().numpy(), atol=1e-5)
    assert ours.check(shape) == found.shape
    assert eval(f"nn.{ours!r}", {"nn": nn}).check(shape) == found.shape


def test_initial_values_are_spread_as_pytorchs() -> None:
    tg.manual_seed(0)
    for layer, fan in (
        (nn.Conv2d(8, 64, 3, groups=2), 4 * 9),
        (nn.ConvTranspose1d(8, 64, 3, groups=2), 32 * 3),
    ):
        limit = 1 / np.sqrt(fan)
        for p in layer.state_dict().values():
            assert np.abs(p.numpy()).max() < limit
            assert abs(p.numpy().std() - limit / np.sqrt(3)) < 0.15 * limit


def test_a_transposed_convolution_takes_the_size_of_its_output() -> None:
    layer, theirs = nn.ConvTranspose2d(1, 1, 3, 2, 1), torch.nn.ConvTranspose2d(1, 1, 3, 2, 1)
    for size in ([7, 8], [8, 7], [2, 1, 7, 7]):
        wanted = theirs(torch.ones(2, 1, 4, 4), output_size=size).shape
        assert layer(tg.ones((2, 1, 4, 4)), output_size=size).shape == tuple(wanted)
    for size in ([6, 7], [9, 7], [7]):
        with pytest.raises(ValueError, match="output_size must lie between"):
            layer(tg.ones((2, 1, 4, 4)), output_size=size)


@pytest.mark.parametrize(
    ("layer", "shape", "flops"),
    [
        # twice the multiplications of each window, and the additions of the bias
        (nn.Conv2d(4, 6, 3, groups=2, stride=2), (2, 4, 7, 9), (2 * 18 + 1) * 2 * 6 * 3 * 4),
        (nn.Conv1d(4, 6, 3, bias=False), (2, 4, 7), 2 * 12 * 2 * 6 * 5),
        (nn.ConvTranspose1d(4, 6, 3, 2), (2, 4, 5), 2 * 18 * 2 * 4 * 5 + 2 * 6 * 11),
    ],
)
def test_floating_point_operations(layer: Any, shape: tuple[int, ...], flops: int) -> None:
    assert layer.summary(shape).flops == flops


def test_mistakes_in_a_network_are_found_with_their_fixes() -> None:
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(16, 4, 3), nn.Conv1d(4, 2, 3), nn.Flatten()
    )
    with pytest.raises(ValueError, match="problems") as error:
        net.check((2, 3, 9, 9))
    text = str(error.value)
    assert "0 (Conv2d), axis 1" in text
    assert "in_channels=3 here" in text
    assert "in_channels=8 here or out_channels=16 in 0" in text
    assert "nn.Conv2d here" in text


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Conv2d(0, 2, 3), "in_channels must be a positive integer"),
        (lambda: nn.Conv2d(3, 2, 3, groups=2), "divisible by groups=2"),
        (lambda: nn.Conv2d(2, 2, (3, 3, 3)), "kernel_size must be"),
        (lambda: nn.Conv2d(2, 2, 3, stride=0), "stride must be"),
        (lambda: nn.Conv2d(2, 2, 3, padding="half"), "padding must be"),
        (lambda: nn.Conv2d(2, 2, 3, 2, padding="same"), "needs stride 1"),
        (lambda: nn.Conv2d(2, 2, 3, padding_mode="mirror"), "padding_mode must be one of"),
        (lambda: nn.ConvTranspose2d(2, 2, 3, padding=_SAME), "padding must be"),
        (lambda: nn.ConvTranspose2d(2, 2, 3, output_padding=1), "output_padding must be smaller"),
        (lambda: nn.ConvTranspose2d(2, 2, 3, padding_mode="reflect"), "padding_mode must be"),
        (lambda: nn.ZeroPad2d((1, 2)), "padding must be an integer, or 4"),
        (lambda: nn.Unfold(0), "kernel_size must be"),
        (lambda: nn.Fold((2, 2, 2), 1), "output_size must be"),
        (lambda: nn.Unflatten(1, (-1, -1)), "one may be -1"),
        (lambda: nn.Unflatten(1, (2, 2))(tg.ones((2, 6))), "must be the size of axis 1"),
        (lambda: nn.ZeroPad2d(1)(tg.ones((2, 6))), "must have shape"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_unflatten_undoes_flatten() -> None:
    x = tg.arange(24).reshape(2, 3, 4)
    for sizes in ((3, 4), (-1, 4), (3, -1), (3, 2, -1)):
        y = nn.Unflatten(1, sizes)(nn.Flatten()(x))
        assert y.shape == (2, *(sizes if -1 not in sizes else (3, 4)))[: 1 + len(sizes)] or (
            y.shape == (2, 3, 2, 2)
        )
        np.testing.assert_array_equal(y.numpy().ravel(), np.arange(24))
