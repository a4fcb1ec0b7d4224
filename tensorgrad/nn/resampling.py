"""Layers that make more or fewer elements, or move them from channels into space."""

from __future__ import annotations

from collections.abc import Sequence

from tensorgrad.nn.module import Module, check_sizes
from tensorgrad.ops.resampling import (
    channel_shuffle,
    interpolate,
    pixel_shuffle,
    pixel_unshuffle,
)
from tensorgrad.tensor import Tensor

__all__ = [
    "ChannelShuffle", "PixelShuffle", "PixelUnshuffle", "Upsample", "UpsamplingBilinear2d",
    "UpsamplingNearest2d",
]  # fmt: skip


class Upsample(Module):
    """``interpolate`` with these options, on inputs of shape (N, C, ...)."""

    def __init__(
        self,
        size: int | Sequence[int] | None = None,
        scale_factor: float | Sequence[float] | None = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ) -> None:
        if (size is None) == (scale_factor is None):
            raise ValueError(
                f"{type(self).__name__}: give either size or scale_factor; got {size!r} and "
                f"{scale_factor!r}"
            )
        self.size = size
        self.scale_factor = scale_factor
        self.mode = mode
        self.align_corners = align_corners
        self.recompute_scale_factor = recompute_scale_factor

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (N, C, ...), with other sizes of its last axes."""
        return interpolate(
            x, self.size, self.scale_factor, self.mode, self.align_corners,
            self.recompute_scale_factor,
        )  # fmt: skip

    def extra_repr(self) -> str:
        """The size or factor, and the mode."""
        what = "size" if self.scale_factor is None else "scale_factor"
        return f"{what}={getattr(self, what)!r}, mode={self.mode!r}"


class UpsamplingNearest2d(Upsample):
    """``Upsample`` with mode "nearest"."""

    def __init__(
        self,
        size: int | Sequence[int] | None = None,
        scale_factor: float | Sequence[float] | None = None,
    ) -> None:
        super().__init__(size, scale_factor)


class UpsamplingBilinear2d(Upsample):
    """``Upsample`` with mode "bilinear" and aligned corners."""

    def __init__(
        self,
        size: int | Sequence[int] | None = None,
        scale_factor: float | Sequence[float] | None = None,
    ) -> None:
        super().__init__(size, scale_factor, "bilinear", True)


class PixelShuffle(Module):
    """(..., C * r**2, H, W) as (..., C, H * r, W * r), r being ``upscale_factor``."""

    def __init__(self, upscale_factor: int) -> None:
        check_sizes("PixelShuffle", upscale_factor=upscale_factor)
        self.upscale_factor = upscale_factor

    _shown = ("upscale_factor",)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (..., C * r**2, H, W) -> (..., C, H * r, W * r)."""
        return pixel_shuffle(x, self.upscale_factor)


class PixelUnshuffle(Module):
    """(..., C, H * r, W * r) as (..., C * r**2, H, W), r being ``downscale_factor``."""

    _shown = ("downscale_factor",)

    def __init__(self, downscale_factor: int) -> None:
        check_sizes("PixelUnshuffle", downscale_factor=downscale_factor)
        self.downscale_factor = downscale_factor

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (..., C, H * r, W * r) -> (..., C * r**2, H, W)."""
        return pixel_unshuffle(x, self.downscale_factor)


class ChannelShuffle(Module):
    """The first channel of each group first, then the second ones, and so on."""

    _shown = ("groups",)

    def __init__(self, groups: int) -> None:
        check_sizes("ChannelShuffle", groups=groups)
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (N, C, ...), in its shape."""
        return channel_shuffle(x, self.groups)
