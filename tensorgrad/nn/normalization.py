"""Normalization: LayerNorm, RMSNorm, GroupNorm, BatchNorm1d."""

from __future__ import annotations

import math
from typing import Any

from tensorgrad.autograd.modes import is_recomputing, no_grad
from tensorgrad.dtypes import int64, promote
from tensorgrad.errors import ShapeError
from tensorgrad.nn.fit import Misfit, channels, normalized
from tensorgrad.nn.module import Module, Parameter, check_sizes
from tensorgrad.ops.creation import ones, zeros
from tensorgrad.ops.normalization import layer_norm, rms_norm
from tensorgrad.ops.precision import half_to_float32
from tensorgrad.tensor import Tensor

__all__ = ["BatchNorm1d", "GroupNorm", "LayerNorm", "RMSNorm"]


def _sizes(name: str, normalized_shape: Any) -> tuple[int, ...]:
    sizes = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not sizes or not all(isinstance(n, int) and n > 0 for n in sizes):
        raise ValueError(
            f"{name}: normalized_shape must be one or more positive integers, got "
            f"{normalized_shape!r}"
        )
    return sizes


class LayerNorm(Module):
    """Each example less its mean, by its standard deviation (Ba, Kiros and Hinton, 2016).

    normalized_shape: the sizes of the last axes, over which mean and deviation are taken.
    eps: added to the variance.
    elementwise_affine: scale by ``weight`` and shift by ``bias``, which begin at 1 and 0.
    bias: False for a weight alone.
    device, dtype: of the parameters; the defaults if ``None``.

    Raises ValueError for sizes that are not positive integers.
    """

    _shown = ("normalized_shape", "eps")

    def __init__(
        self,
        normalized_shape: int | tuple[int, ...],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: str | None = None,
        dtype: Any = None,
    ) -> None:
        self.normalized_shape = _sizes("LayerNorm", normalized_shape)
        self.eps = eps
        self.weight: Parameter | None = None
        self.bias: Parameter | None = None
        if elementwise_affine:
            self.weight = Parameter(ones(self.normalized_shape, dtype=dtype, device=device))
            if bias:
                self.bias = Parameter(zeros(self.normalized_shape, dtype=dtype, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (..., *normalized_shape), in its shape."""
        return layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def _misfit(self, x: Tensor, *others: Any) -> Misfit | None:
        return normalized(x, self.normalized_shape)


class RMSNorm(Module):
    """Each example by its root mean square (Zhang and Sennrich, 2019).

    normalized_shape, elementwise_affine, device, dtype and errors: as in LayerNorm.
    eps: added to the mean square; the spacing of 1 in the input's dtype if ``None``.
    """

    _shown = ("normalized_shape", "eps")

    def __init__(
        self,
        normalized_shape: int | tuple[int, ...],
        eps: float | None = None,
        elementwise_affine: bool = True,
        device: str | None = None,
        dtype: Any = None,
    ) -> None:
        self.normalized_shape = _sizes("RMSNorm", normalized_shape)
        self.eps = eps
        self.weight: Parameter | None = None
        if elementwise_affine:
            self.weight = Parameter(ones(self.normalized_shape, dtype=dtype, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (..., *normalized_shape), in its shape."""
        return rms_norm(x, self.normalized_shape, self.weight, self.eps)

    def _misfit(self, x: Tensor, *others: Any) -> Misfit | None:
        return normalized(x, self.normalized_shape)


class GroupNorm(Module):
    """Each group of channels of each example less its mean, by its standard deviation.

    num_groups: into how many groups the channels fall, one after the other.
    num_channels: the size of axis 1. eps: added to the variance.
    affine: scale each channel by ``weight`` and shift it by ``bias``, which begin at 1 and 0.
    device, dtype: of the parameters; the defaults if ``None``.

    Source: Wu and He, 2018. Raises ValueError unless the channels fall into equal groups.
    """

    _shown = ("num_groups", "num_channels", "eps")

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: str | None = None,
        dtype: Any = None,
    ) -> None:
        check_sizes("GroupNorm", num_groups=num_groups, num_channels=num_channels)
        if num_channels % num_groups:
            raise ValueError(
                f"GroupNorm: {num_channels} channels do not fall into {num_groups} equal groups"
            )
        self.num_groups, self.num_channels, self.eps = num_groups, num_channels, eps
        self.weight: Parameter | None = None
        self.bias: Parameter | None = None
        if affine:
            self.weight = Parameter(ones((num_channels,), dtype=dtype, device=device))
            self.bias = Parameter(zeros((num_channels,), dtype=dtype, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (N, num_channels, ...), in its shape."""
        if len(x.shape) < 2 or x.shape[1] != self.num_channels:
            raise ShapeError(
                f"GroupNorm: the input must have shape (N, {self.num_channels}, ...), got {x.shape}"
            )
        n, channels, *rest = x.shape
        size = channels // self.num_groups * math.prod(rest)
        y = half_to_float32(x)
        if x.size:  # no numbers have no mean
            rows = y.reshape(n, self.num_groups, size)
            y = layer_norm(rows, (size,), None, None, self.eps).reshape(x.shape)
        return _per_channel(y, self.weight, self.bias, x.dtype)

    def _misfit(self, x: Tensor, *others: Any) -> Misfit | None:
        return channels(x, "num_channels", self.num_channels, range(2, 65), "(N, {}, ...)")


def _per_channel(y: Tensor, weight: Tensor | None, bias: Tensor | None, *dtypes: Any) -> Tensor:
    """``y * weight + bias``, one number for each index of axis 1.

    ``y`` may be wider than what it was made of, ``dtypes``: the result is rounded to what these
    have in common with the parameters.
    """
    shape = (-1, *(1,) * (len(y.shape) - 2))
    common = promote([*dtypes, *(p.dtype for p in (weight, bias) if p is not None)])
    if weight is not None:
        y = y * weight.reshape(shape)
    if bias is not None:
        y = y + bias.reshape(shape)
    return y if y.dtype == common else y.astype(common)


class BatchNorm1d(Module):
    """Each channel less its mean over the batch, by its standard deviation.

    num_features: the size of axis 1. eps: added to the variance.
    momentum: the part of a batch in the running statistics; ``None`` for a plain average.
    affine: scale each channel by ``weight`` and shift it by ``bias``, which begin at 1 and 0.
    track_running_stats: keep running statistics, which take the batch's place after ``eval()``.
    device, dtype: of parameters and statistics; the defaults if ``None``.

    Source: Ioffe and Szegedy, 2015. Raises ValueError for a size that is no positive integer.
    """

    _shown = ("num_features", "eps", "momentum")
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: str | None = None,
        dtype: Any = None,
    ) -> None:
        check_sizes("BatchNorm1d", num_features=num_features)
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.weight: Parameter | None = None
        self.bias: Parameter | None = None
        if affine:
            self.weight = Parameter(ones((num_features,), dtype=dtype, device=device))
            self.bias = Parameter(zeros((num_features,), dtype=dtype, device=device))
        self.track_running_stats = track_running_stats
        if track_running_stats:
            size = (num_features,)
            self.register_buffer("running_mean", zeros(size, dtype=dtype, device=device))
            self.register_buffer("running_var", ones(size, dtype=dtype, device=device))
            self.register_buffer("num_batches_tracked", zeros((), dtype=int64, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (N, num_features) or (N, num_features, L), in its shape.

        Raises ShapeError for another shape, and in training for one number a channel.
        """
        if len(x.shape) not in (2, 3) or x.shape[1] != self.num_features:
            raise ShapeError(
                f"BatchNorm1d: the input must have shape (N, {self.num_features}) or "
                f"(N, {self.num_features}, L), got {x.shape}"
            )
        axes = (0,) if len(x.shape) == 2 else (0, 2)
        wide, kinds = half_to_float32(x), [x.dtype]
        if self.training or not self.track_running_stats:
            count = x.size // self.num_features
            if count < 2:
                raise ShapeError(
                    "BatchNorm1d: in training a batch needs more than one number for each channel, "
                    f"got shape {x.shape}; take larger batches, or call eval()"
                )
            mean = wide.mean(axis=axes, keepdims=True)
            centered = wide - mean
            var = (centered * centered).mean(axis=axes, keepdims=True)
            if self.training and self.track_running_stats and not is_recomputing():
                self._track(mean.reshape(-1), var.reshape(-1) * (count / (count - 1)))
        else:
            shape = (-1, *(1,) * (len(x.shape) - 2))
            centered = wide - half_to_float32(self.running_mean).reshape(shape)
            var = half_to_float32(self.running_var).reshape(shape)
            kinds += [self.running_mean.dtype, self.running_var.dtype]
        y = centered * (var + self.eps).rsqrt()
        return _per_channel(y, self.weight, self.bias, *kinds)

    def _misfit(self, x: Tensor, *others: Any) -> Misfit | None:
        return channels(x, "num_features", self.num_features, (2, 3), "(N, {}) or (N, {}, L)")

    def _track(self, mean: Tensor, var: Tensor) -> None:
        """Take a batch into the running statistics."""
        with no_grad():
            self.num_batches_tracked.copy_(self.num_batches_tracked + 1)
            part: Any = self.momentum
            if part is None:
                part = 1.0 / self.num_batches_tracked.astype(mean.dtype)
            for running, now in ((self.running_mean, mean), (self.running_var, var)):
                running.copy_(running + (now.detach() - running) * part)
