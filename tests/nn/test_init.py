"""Initial values: their spread, their names, and that seeded runs repeat."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

from tensorgrad import Tensor, nn
from tensorgrad.errors import ShapeError
from tensorgrad.nn import init
from tensorgrad.ops.random import Generator, seed

OUT, IN = 300, 200
FIELD = 3  # a third axis, as of a convolution


def weight(*more: int, dtype: Any = "float64") -> Tensor:
    return Tensor(np.zeros((OUT, IN, *more)), dtype=dtype)


def filled(name: str, shape: tuple[int, ...] = (), **options: Any) -> Any:
    t = weight(*shape)
    assert getattr(init, name)(t, generator=Generator(7), **options) is t
    return t.numpy()


@pytest.mark.parametrize(
    ("name", "options", "std"),
    [
        ("uniform_", {}, 0.05 / math.sqrt(3)),
        ("uniform_", {"a": 0.0, "b": 1.0}, 1 / math.sqrt(12)),
        ("normal_", {}, 1.0),
        ("normal_", {"mean": 2.0, "std": 0.1}, 0.1),
        ("xavier_uniform_", {}, math.sqrt(2 / (IN + OUT))),
        ("xavier_normal_", {"gain": 3.0}, 3 * math.sqrt(2 / (IN + OUT))),
        ("kaiming_uniform_", {}, math.sqrt(2 / IN)),
        ("kaiming_uniform_", {"a": math.sqrt(5)}, math.sqrt(1 / 3 / IN)),
        ("kaiming_normal_", {"mode": "fan_out"}, math.sqrt(2 / OUT)),
        ("kaiming_normal_", {"nonlinearity": "tanh"}, 5 / 3 / math.sqrt(IN)),
        ("lecun_uniform_", {}, math.sqrt(1 / IN)),
        ("lecun_normal_", {}, math.sqrt(1 / IN)),
        ("trunc_normal_", {}, 0.8796256610342398),
        ("trunc_normal_", {"mean": 1.0, "std": 0.1, "a": -9.0, "b": 9.0}, 0.1),
    ],
)
def test_spread(name: str, options: dict[str, Any], std: float) -> None:
    values = filled(name, **options)
    assert values.std() == pytest.approx(std, rel=0.02)
    if "uniform" in name:
        middle = (options.get("a", 0) + options["b"]) / 2 if "b" in options else 0
        assert np.abs(values - middle).max() <= math.sqrt(3) * std * (1 + 1e-12)
        assert np.abs(values - middle).max() > math.sqrt(3) * std * 0.999
    else:
        assert values.mean() == pytest.approx(options.get("mean", 0), abs=0.02 * std)


def test_cut_normal_numbers() -> None:
    """They lie within the limits, and as the distribution function says."""
    values = filled("trunc_normal_", mean=0.5, std=2.0, a=0.0, b=1.0)
    assert values.min() >= 0.0
    assert values.max() <= 1.0
    normal = NormalDist(0.5, 2.0)
    share = (normal.cdf(0.25) - normal.cdf(0.0)) / (normal.cdf(1.0) - normal.cdf(0.0))
    assert (values < 0.25).mean() == pytest.approx(share, abs=0.01)
    with pytest.raises(ValueError, match="a must be below b"):
        init.trunc_normal_(weight(), a=1.0, b=1.0)


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 2, 3), (3, 3)])
def test_orthogonal(shape: tuple[int, ...]) -> None:
    t = Tensor(np.zeros(shape), dtype="float64")
    m = init.orthogonal_(t, gain=2.0, generator=Generator(1)).numpy().reshape(shape[0], -1)
    small = m @ m.T if m.shape[0] <= m.shape[1] else m.T @ m
    np.testing.assert_allclose(small, 4.0 * np.eye(len(small)), atol=1e-12)


@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (2, 4), (4, 2)])
def test_every_orthogonal_matrix_is_as_likely(shape: tuple[int, ...]) -> None:
    """No entry prefers a sign or a size, and so neither does the determinant."""
    generator = Generator(3)
    drawn = np.array(
        [
            init.orthogonal_(Tensor(np.zeros(shape)), generator=generator).numpy()
            for _ in range(2000)
        ]
    )
    assert np.abs(drawn.mean(0)).max() < 0.15
    np.testing.assert_allclose((drawn**2).mean(0), 1 / max(shape), atol=0.07)
    if shape == (3, 3):
        assert abs(np.linalg.det(drawn).mean()) < 0.2


def test_fans_of_a_convolution() -> None:
    assert filled("xavier_normal_", (FIELD,)).std() == pytest.approx(
        math.sqrt(2 / (FIELD * (IN + OUT))), rel=0.02
    )
    assert filled("kaiming_normal_", (FIELD,), mode="fan_in").std() == pytest.approx(
        math.sqrt(2 / (FIELD * IN)), rel=0.02
    )


def test_constants() -> None:
    assert set(filled("zeros_").ravel()) == {0}
    assert set(filled("ones_").ravel()) == {1}
    assert set(filled("constant_", val=0.5).ravel()) == {0.5}


@pytest.mark.parametrize("name", ["linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu"])
def test_gains_are_those_of_torch(name: str) -> None:
    torch = pytest.importorskip("torch")
    assert init.calculate_gain(name) == pytest.approx(torch.nn.init.calculate_gain(name))
    if name == "leaky_relu":
        gain = torch.nn.init.calculate_gain(name, 0.3)
        assert init.calculate_gain(name, 0.3) == pytest.approx(gain)


def test_by_name() -> None:
    assert init.by_name("glorot_uniform") is init.by_name("xavier_uniform_") is init.xavier_uniform_
    assert init.by_name("he_normal") is init.kaiming_normal_
    with pytest.raises(ValueError, match="unknown initialisation 'magic'; known are uniform, nor"):
        init.by_name("magic")


def test_a_trained_tensor_keeps_its_place_on_the_tape() -> None:
    p = nn.Parameter(np.zeros((2, 2)))
    init.ones_(p)
    assert p.is_leaf
    assert p.requires_grad
    assert p.tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("name", ["uniform_", "normal_", "xavier_uniform_", "kaiming_normal_"])
def test_seeded_runs_repeat_bit_for_bit(name: str, dtype: str) -> None:
    runs = []
    for _ in range(2):
        seed(11)
        runs.append([getattr(init, name)(weight(dtype=dtype)).numpy().tobytes() for _ in range(2)])
    assert runs[0] == runs[1]
    assert runs[0][0] != runs[0][1]


def test_errors() -> None:
    bias = Tensor(np.zeros(3))
    for name in ("xavier_uniform_", "xavier_normal_", "kaiming_uniform_", "kaiming_normal_"):
        with pytest.raises(ShapeError, match=rf"{name}: .*two axes.* got shape \(3,\)"):
            getattr(init, name)(bias)
    with pytest.raises(ValueError, match=r"mode must be .*, got 'both'"):
        init.kaiming_normal_(weight(), mode="both")
    with pytest.raises(ValueError, match=r"nonlinearity must be one of .* got 'swish'"):
        init.calculate_gain("swish")
