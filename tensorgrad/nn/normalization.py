"""Normalization: layer, RMS, group, batch and instance norm, local response."""

from __future__ import annotations

from typing import Any, ClassVar

from tensorgrad.autograd.modes import is_recomputing, no_grad
from tensorgrad.dtypes import float32, float64, int64
from tensorgrad.errors import ShapeError
from tensorgrad.nn.fit import Misfit, channels, normalized
from tensorgrad.nn.module import Module, Parameter, check_sizes
from tensorgrad.ops.channel_norms import (
    batch_norm,
    check_batch,
    group_norm,
    instance_norm,
    local_response_norm,
    standardized_batch,
)
from tensorgrad.ops.creation import ones, zeros
from tensorgrad.ops.normalization import layer_norm, rms_norm
from tensorgrad.tensor import Tensor

__all__ = [
    "BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "GroupNorm", "InstanceNorm1d", "InstanceNorm2d",
    "InstanceNorm3d", "LayerNorm", "LocalResponseNorm", "RMSNorm",
]  # fmt: skip


def _sizes(name: str, normalized_shape: Any) -> tuple[int, ...]:
    sizes = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not sizes or not all(isinstance(n, int) and n > 0 for n in sizes):
        raise ValueError(
            f"{name}: normalized_shape must be one or more positive integers, got "
            f"{normalized_shape!r}"
        )
    return sizes


class _Norm(Module):
    """A norm that shows which of its parameters are left out; _option: what decides on both."""

    _option: ClassVar[str] = "affine"
    weight: Parameter | None
    bias: Parameter | None

    def extra_repr(self) -> str:
        """The sizes and numbers, and the parameters that are left out."""
        said = super().extra_repr()
        if self.weight is None:
            return said if self._option in self._shown else f"{said}, {self._option}=False"
        return said if self.bias is not None else f"{said}, bias=False"


class LayerNorm(_Norm):
    """Each example less its mean, by its standard deviation (Ba, Kiros and Hinton, 2016).

    normalized_shape: the sizes of the last axes, over which mean and deviation are taken.
    eps: added to the variance.
    elementwise_affine: scale by ``weight`` and shift by ``bias``, which begin at 1 and 0.
    bias: False for a weight alone.
    device, dtype: of the parameters; the defaults if ``None``.

    Raises ValueError for sizes that are not positive integers.
    """

    _shown = ("normalized_shape", "eps")
    _option = "elementwise_affine"

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
        self.eps, self.elementwise_affine = eps, elementwise_affine
        self.weight, self.bias = None, None
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

    _shown = ("normalized_shape", "eps", "elementwise_affine")

    def __init__(
        self,
        normalized_shape: int | tuple[int, ...],
        eps: float | None = None,
        elementwise_affine: bool = True,
        device: str | None = None,
        dtype: Any = None,
    ) -> None:
        self.normalized_shape = _sizes("RMSNorm", normalized_shape)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        self.weight: Parameter | None = None
        if elementwise_affine:
            self.weight = Parameter(ones(self.normalized_shape, dtype=dtype, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (..., *normalized_shape), in its shape."""
        return rms_norm(x, self.normalized_shape, self.weight, self.eps)

    def _misfit(self, x: Tensor, *others: Any) -> Misfit | None:
        return normalized(x, self.normalized_shape)


class GroupNorm(_Norm):
    """Each group of channels of each example less its mean, by its standard deviation.

    num_groups: into how many groups the channels fall, one after the other.
    num_channels: the size of axis 1. eps: added to the variance.
    affine: scale each channel by ``weight`` and shift it by ``bias``, which begin at 1 and 0.
    device, dtype: of the parameters; the defaults if ``None``. bias: False for a weight alone.

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
        *,
        bias: bool = True,
    ) -> None:
        check_sizes("GroupNorm", num_groups=num_groups, num_channels=num_channels)
        if num_channels % num_groups:
            raise ValueError(
                f"GroupNorm: {num_channels} channels do not fall into {num_groups} equal groups"
            )
        self.num_groups, self.num_channels, self.eps = num_groups, num_channels, eps
        self.affine = affine
        self.weight, self.bias = None, None
        if affine:
            self.weight = Parameter(ones((num_channels,), dtype=dtype, device=device))
            if bias:
                self.bias = Parameter(zeros((num_channels,), dtype=dtype, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (N, num_channels, ...), in its shape."""
        if len(x.shape) < 2 or x.shape[1] != self.num_channels:
            raise ShapeError(
                f"GroupNorm: the input must have shape (N, {self.num_channels}, ...), got {x.shape}"
            )
        return group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    def _misfit(self, x: Tensor, *others: Any) -> Misfit | None:
        return channels(x, "num_channels", self.num_channels, range(2, 65), "(N, {}, ...)")


class _ChannelNorm(_Norm):
    """What batch and instance norm have in common; see BatchNorm1d.

    _ranks: the numbers of axes that the input may have; _alone: the one of an example without a
    batch. _form: its shape, in words.
    """

    _shown = ("num_features", "eps", "momentum", "affine", "track_running_stats")
    _ranks: ClassVar[tuple[int, ...]]
    _form: ClassVar[str]
    _alone: ClassVar[int] = 0
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
        *,
        bias: bool = True,
    ) -> None:
        check_sizes(type(self).__name__, num_features=num_features)
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        self.weight, self.bias = None, None
        size = (num_features,)
        if affine:
            self.weight = Parameter(ones(size, dtype=dtype, device=device))
            if bias:
                self.bias = Parameter(zeros(size, dtype=dtype, device=device))
        if track_running_stats:
            self.register_buffer("running_mean", zeros(size, dtype=dtype, device=device))
            self.register_buffer("running_var", ones(size, dtype=dtype, device=device))
            self.register_buffer("num_batches_tracked", zeros((), dtype=int64, device=device))

    def reset_running_stats(self) -> None:
        """Begin the running statistics again, if there are any: 0, 1, and no batch counted."""
        if self.track_running_stats:
            with no_grad():
                self.running_mean[...] = 0
                self.running_var[...] = 1
                self.num_batches_tracked[...] = 0

    def _check(self, x: Tensor) -> None:
        axis = 0 if len(x.shape) == self._alone else 1
        if len(x.shape) not in self._ranks or x.shape[axis] != self.num_features:
            form = self._form.replace("{}", str(self.num_features))
            raise ShapeError(
                f"{type(self).__name__}: the input must have shape {form}, got {x.shape}"
            )

    def _misfit(self, x: Tensor, *others: Any) -> Misfit | None:
        return channels(x, "num_features", self.num_features, self._ranks, self._form)


class _BatchNorm(_ChannelNorm):
    def forward(self, x: Tensor) -> Tensor:
        """``x``, in its shape.

        Raises ShapeError for another shape, and in training for one number a channel.
        """
        self._check(x)
        running = (self.running_mean, self.running_var) if self.track_running_stats else None
        if running is not None and not self.training:
            mean, var = running
            return batch_norm(x, mean, var, self.weight, self.bias, eps=self.eps)
        check_batch(type(self).__name__, x.shape)
        momentum = self.momentum
        if running is not None and not is_recomputing():
            momentum = self._counted(x)
        return standardized_batch(x, running, self.weight, self.bias, momentum, self.eps)

    def _counted(self, x: Tensor) -> Any:
        """The part of this batch, which is counted, in the running statistics."""
        with no_grad():
            self.num_batches_tracked.copy_(self.num_batches_tracked + 1)
            part: Any = self.momentum
            if part is None:
                wide = float64 if x.dtype == float64 else float32
                part = 1.0 / self.num_batches_tracked.astype(wide)
            return part


class BatchNorm1d(_BatchNorm):
    """Each channel less its mean over the batch, by its standard deviation: (N, C) or (N, C, L).

    num_features: the size of axis 1. eps: added to the variance.
    momentum: the part of a batch in the running statistics; ``None`` for a plain average.
    affine: scale each channel by ``weight`` and shift it by ``bias``, which begin at 1 and 0.
    track_running_stats: keep running statistics, which take the batch's place after ``eval()``.
    device, dtype: of parameters and statistics; the defaults if ``None``.
    bias: False for a weight alone.

    Source: Ioffe and Szegedy, 2015. Raises ValueError for a size that is no positive integer.
    """

    _ranks, _form = (2, 3), "(N, {}) or (N, {}, L)"


class BatchNorm2d(_BatchNorm):
    """Batch norm of images, (N, C, H, W); the arguments are those of BatchNorm1d."""

    _ranks, _form = (4,), "(N, {}, H, W)"


class BatchNorm3d(_BatchNorm):
    """Batch norm of volumes, (N, C, D, H, W); the arguments are those of BatchNorm1d."""

    _ranks, _form = (5,), "(N, {}, D, H, W)"


class _InstanceNorm(_ChannelNorm):
    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        device: str | None = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias
        )

    def forward(self, x: Tensor) -> Tensor:
        """``x``, in its shape.

        Raises ShapeError for another shape, and where a channel of an example has one number.
        """
        self._check(x)
        alone = len(x.shape) == self._alone
        batch = x.reshape((1, *x.shape)) if alone else x
        mean = self.running_mean if self.track_running_stats else None
        var = self.running_var if self.track_running_stats else None
        own = self.training or mean is None
        momentum = self.momentum or 0.0
        y = instance_norm(batch, mean, var, self.weight, self.bias, own, momentum, self.eps)
        return y.reshape(x.shape) if alone else y

    def _misfit(self, x: Tensor, *others: Any) -> Misfit | None:
        if len(x.shape) == self._alone and x.shape[0] == self.num_features:
            return None
        return super()._misfit(x)


class InstanceNorm1d(_InstanceNorm):
    """Each channel of each example less its mean, by its standard deviation: (N, C, L) or (C, L).

    num_features: the number of channels. eps: added to the variance.
    momentum: the part of a batch in the running statistics; ``None`` leaves these as they are.
    affine: scale each channel by ``weight`` and shift it by ``bias``, which begin at 1 and 0.
    track_running_stats: keep means over examples, which take their places after ``eval()``.
    device, dtype, bias: as in BatchNorm1d.

    Source: Ulyanov, Vedaldi and Lempitsky, 2016. Raises ValueError for a size that is no positive
    integer.
    """

    _alone, _ranks, _form = 2, (2, 3), "(N, {}, L) or ({}, L)"


class InstanceNorm2d(_InstanceNorm):
    """Instance norm of images, (N, C, H, W) or (C, H, W); arguments as in InstanceNorm1d."""

    _alone, _ranks, _form = 3, (3, 4), "(N, {}, H, W) or ({}, H, W)"


class InstanceNorm3d(_InstanceNorm):
    """Instance norm of volumes, (N, C, D, H, W) or (C, D, H, W); arguments as in InstanceNorm1d."""

    _alone, _ranks, _form = 4, (4, 5), "(N, {}, D, H, W) or ({}, D, H, W)"


class LocalResponseNorm(Module):
    """``x / (k + alpha * mean)**beta``, of the squares of ``size`` channels around each.

    Source: Krizhevsky, Sutskever and Hinton, 2012. Raises ValueError for a size that is no positive
    integer.
    """

    _shown = ("size", "alpha", "beta", "k")

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        check_sizes("LocalResponseNorm", size=size)
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (N, C, L, ...), in its shape. Raises ShapeError for another."""
        return local_response_norm(x, self.size, self.alpha, self.beta, self.k)
