"""Initial values: functions that fill a tensor in place and return it.

All take ``generator``, the source of random numbers; left out, it is the library's default one.
A seeded run repeats bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad.autograd.modes import no_grad
from tensorgrad.errors import ShapeError
from tensorgrad.hints import unknown_names as _unknown_names
from tensorgrad.ops.random import Generator, default_generator
from tensorgrad.tensor import Tensor

if not TYPE_CHECKING:
    __getattr__ = _unknown_names(__name__)


def _fill(tensor: Tensor, values: Any) -> Tensor:
    with no_grad():
        return tensor.copy_(values)


def uniform_(
    tensor: Tensor, a: float = -0.05, b: float = 0.05, *, generator: Generator | None = None
) -> Tensor:
    """Fill with numbers spread evenly over [a, b)."""
    source = default_generator if generator is None else generator
    drawn = source.uniform(tensor.shape, a, b, dtype=tensor.dtype, device=tensor.device)
    return _fill(tensor, drawn)


def normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Generator | None = None
) -> Tensor:
    """Fill with numbers of a normal distribution."""
    source = default_generator if generator is None else generator
    drawn = source.normal(tensor.shape, mean, std, dtype=tensor.dtype, device=tensor.device)
    return _fill(tensor, drawn)


def constant_(tensor: Tensor, val: float, *, generator: Generator | None = None) -> Tensor:
    """Fill with ``val``. The generator is not used."""
    return _fill(tensor, val)


def zeros_(tensor: Tensor, *, generator: Generator | None = None) -> Tensor:
    """Fill with 0. The generator is not used."""
    return _fill(tensor, 0.0)


def ones_(tensor: Tensor, *, generator: Generator | None = None) -> Tensor:
    """Fill with 1. The generator is not used."""
    return _fill(tensor, 1.0)


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """By how much the weights before a ``nonlinearity`` should be larger than for none.

    nonlinearity: "linear", "sigmoid", "tanh", "relu", "leaky_relu" or "selu".
    param: the negative slope of "leaky_relu", 0.01 by default.

    The figures are PyTorch's: sqrt(2) for ReLU (He et al., 2015), 5/3 for tanh, 3/4 for SELU.
    Raises ValueError for another name.
    """
    if nonlinearity == "leaky_relu":
        return math.sqrt(2.0 / (1 + (0.01 if param is None else param) ** 2))
    if nonlinearity not in _GAINS:
        raise ValueError(
            f"calculate_gain: nonlinearity must be one of leaky_relu, {', '.join(_GAINS)}; got "
            f"{nonlinearity!r}"
        )
    return _GAINS[nonlinearity]


_GAINS = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2.0), "selu": 0.75}


def _fans(name: str, tensor: Tensor) -> tuple[int, int]:
    """How many inputs each output of a weight has, and how many outputs each input."""
    if tensor.ndim < 2:
        raise ShapeError(
            f"{name}: a weight needs two axes or more, (out, in, ...), for its numbers of inputs "
            f"and outputs; got shape {tensor.shape}. Use uniform_, normal_ or zeros_ for a bias"
        )
    field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * field, tensor.shape[0] * field


def _xavier_std(name: str, tensor: Tensor, gain: float) -> float:
    fan_in, fan_out = _fans(name, tensor)
    return gain * math.sqrt(2.0 / max(1, fan_in + fan_out))


def xavier_uniform_(
    tensor: Tensor, gain: float = 1.0, *, generator: Generator | None = None
) -> Tensor:
    """Fill evenly over ``gain * sqrt(6 / (fan_in + fan_out))`` to both sides of 0.

    Glorot and Bengio, 2010: the variance stays about equal from layer to layer, forwards and
    backwards. Raises ShapeError for a tensor of less than two axes.
    """
    limit = math.sqrt(3.0) * _xavier_std("xavier_uniform_", tensor, gain)
    return uniform_(tensor, -limit, limit, generator=generator)


def xavier_normal_(
    tensor: Tensor, gain: float = 1.0, *, generator: Generator | None = None
) -> Tensor:
    """Fill normally, with standard deviation ``gain * sqrt(2 / (fan_in + fan_out))``.

    Glorot and Bengio, 2010. Raises ShapeError for a tensor of less than two axes.
    """
    std = _xavier_std("xavier_normal_", tensor, gain)
    return normal_(tensor, 0.0, std, generator=generator)


def _kaiming_std(name: str, tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f'{name}: mode must be "fan_in" or "fan_out", got {mode!r}')
    fan = _fans(name, tensor)[mode == "fan_out"]
    return calculate_gain(nonlinearity, a) / math.sqrt(max(1, fan))


def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    *,
    generator: Generator | None = None,
) -> Tensor:
    """Fill evenly over ``gain * sqrt(3 / fan)`` to both sides of 0 (He et al., 2015).

    a: the negative slope of the leaky ReLU that follows; 0 for ReLU.
    mode: "fan_in" keeps the variance of the values, "fan_out" that of the gradients.
    nonlinearity: see ``calculate_gain``.

    Raises ShapeError for a tensor of less than two axes, ValueError for another mode.
    """
    std = _kaiming_std("kaiming_uniform_", tensor, a, mode, nonlinearity)
    limit = math.sqrt(3.0) * std
    return uniform_(tensor, -limit, limit, generator=generator)


def kaiming_normal_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    *,
    generator: Generator | None = None,
) -> Tensor:
    """Fill normally, with standard deviation ``gain / sqrt(fan)``; see ``kaiming_uniform_``."""
    std = _kaiming_std("kaiming_normal_", tensor, a, mode, nonlinearity)
    return normal_(tensor, 0.0, std, generator=generator)


def lecun_uniform_(tensor: Tensor, *, generator: Generator | None = None) -> Tensor:
    """Fill evenly over ``sqrt(3 / fan_in)`` to both sides of 0 (LeCun et al., 1998).

    Raises ShapeError for a tensor of less than two axes.
    """
    limit = math.sqrt(3.0 / max(1, _fans("lecun_uniform_", tensor)[0]))
    return uniform_(tensor, -limit, limit, generator=generator)


def lecun_normal_(tensor: Tensor, *, generator: Generator | None = None) -> Tensor:
    """Fill normally, with standard deviation ``1 / sqrt(fan_in)``: for SELU and tanh.

    LeCun et al., 1998. Raises ShapeError for a tensor of less than two axes.
    """
    std = math.sqrt(1.0 / max(1, _fans("lecun_normal_", tensor)[0]))
    return normal_(tensor, 0.0, std, generator=generator)


def trunc_normal_(
    tensor: Tensor,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    *,
    generator: Generator | None = None,
) -> Tensor:
    """Fill normally, with what lies outside [a, b] drawn again.

    By the inverse of the distribution function, from one even number each. Raises ValueError unless
    a < b and std > 0.
    """
    if not a < b or std <= 0:
        raise ValueError(
            f"trunc_normal_: a must be below b and std above 0, got a={a!r}, b={b!r}, std={std!r}"
        )
    from statistics import NormalDist

    normal = NormalDist()
    low, high = (normal.cdf((x - mean) / std) for x in (a, b))
    uniform_(tensor, 0.0, 1.0, generator=generator)
    host = np.asarray(tensor.detach().cpu().numpy(), np.float64)
    # Away from 0 and 1, where the inverse is infinite.
    even = np.clip(low + (high - low) * host, 1e-12, 1 - 1e-12)
    drawn = np.vectorize(normal.inv_cdf, otypes=[np.float64])(even) if even.size else even
    return _fill(tensor, Tensor(np.clip(mean + std * drawn, a, b), tensor.dtype, tensor.device))


def orthogonal_(tensor: Tensor, gain: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Fill with rows, or columns where they are fewer, that are orthogonal, of length ``gain``.

    The axes but the first count as one. Saxe, McClelland and Ganguli, 2014.
    Raises ShapeError for a tensor of less than two axes.
    """
    _fans("orthogonal_", tensor)
    normal_(tensor, generator=generator)
    rows = np.asarray(tensor.detach().cpu().numpy(), np.float64).reshape(tensor.shape[0], -1)
    tall = rows if rows.shape[0] >= rows.shape[1] else rows.T
    q, r = np.linalg.qr(tall)
    q = q * np.where(np.diagonal(r) < 0, -1.0, 1.0)  # so that every such matrix is as likely
    q = q if rows.shape[0] >= rows.shape[1] else q.T
    return _fill(tensor, Tensor(gain * q.reshape(tensor.shape), tensor.dtype, tensor.device))


_BY_NAME: dict[str, Callable[..., Tensor]] = {
    "uniform": uniform_,
    "normal": normal_,
    "zeros": zeros_,
    "ones": ones_,
    "constant": constant_,
    "xavier_uniform": xavier_uniform_,
    "xavier_normal": xavier_normal_,
    "glorot_uniform": xavier_uniform_,
    "glorot_normal": xavier_normal_,
    "kaiming_uniform": kaiming_uniform_,
    "kaiming_normal": kaiming_normal_,
    "he_uniform": kaiming_uniform_,
    "he_normal": kaiming_normal_,
    "lecun_uniform": lecun_uniform_,
    "lecun_normal": lecun_normal_,
    "trunc_normal": trunc_normal_,
    "orthogonal": orthogonal_,
}


def by_name(name: str) -> Callable[..., Tensor]:
    """The function of this module for "xavier_uniform" (or "glorot_uniform"), "he_normal", ...

    Raises ValueError, listing the names, for another one.
    """
    key = name.removesuffix("_")
    if key not in _BY_NAME:
        raise ValueError(f"unknown initialisation {name!r}; known are {', '.join(_BY_NAME)}")
    return _BY_NAME[key]
