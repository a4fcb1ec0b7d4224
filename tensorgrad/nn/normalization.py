"""LayerNorm and RMSNorm."""

from __future__ import annotations

from typing import Any

from tensorgrad.nn.module import Module, Parameter
from tensorgrad.ops.creation import ones, zeros
from tensorgrad.ops.normalization import layer_norm, rms_norm
from tensorgrad.tensor import Tensor


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
