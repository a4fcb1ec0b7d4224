"""Convolutional layers, in one, two and three dimensions, and windows as columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from tensorgrad.nn import init
from tensorgrad.nn.borders import MODES, pad
from tensorgrad.nn.fit import Misfit
from tensorgrad.nn.module import Module, Parameter, check_sizes
from tensorgrad.ops import convolution
from tensorgrad.ops.creation import empty
from tensorgrad.ops.random import Generator
from tensorgrad.ops.unfolding import fold, unfold
from tensorgrad.ops.windows import numbers
from tensorgrad.tensor import Tensor

__all__ = [
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "Fold",
    "Unfold",
]

Sizes = int | Sequence[int]
_PADDING_MODES = {"zeros": "constant", **{name: name for name in MODES if name != "constant"}}


class _Convolution(Module):
    """What convolutions and transposed ones have in common: options, parameters, messages."""

    _n: ClassVar[int]
    _output_argument = "out_channels"

    def _set(
        self, in_channels: int, out_channels: int, kernel_size: Sizes, stride: Sizes,
        padding: str | Sizes, dilation: Sizes, groups: int,
    ) -> None:  # fmt: skip
        """Check the options and keep them."""
        name, n = type(self).__name__, self._n
        check_sizes(name, in_channels=in_channels, out_channels=out_channels, groups=groups)
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                f"{name}: in_channels and out_channels must be divisible by groups={groups}; got "
                f"{in_channels} and {out_channels}"
            )
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = numbers(name, "kernel_size", kernel_size, n, 1)
        self.stride = numbers(name, "stride", stride, n, 1)
        self.dilation = numbers(name, "dilation", dilation, n, 1)
        self.padding: Any = padding
        if not isinstance(padding, str):
            self.padding = numbers(name, "padding", padding, n, 0)

    def _make(
        self, shape: tuple[int, ...], bias: bool, device: str | None, dtype: Any,
        generator: Generator | None,
    ) -> None:  # fmt: skip
        """The parameters, with initial values."""
        self.weight = Parameter(empty((*shape, *self.kernel_size), device=device, dtype=dtype))
        size = (self.out_channels,)
        self.bias = Parameter(empty(size, device=device, dtype=dtype)) if bias else None
        self.reset_parameters(generator)

    def reset_parameters(self, generator: Generator | None = None) -> None:
        """Draw new initial values."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5), generator=generator)
        if self.bias is not None:
            limit = 1 / math.sqrt(math.prod(self.weight.shape[1:]))
            init.uniform_(self.bias, -limit, limit, generator=generator)

    def _output_size(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """The sizes of the result's last axes."""
        raise NotImplementedError

    def _misfit(self, x: Tensor, *others: Any) -> Misfit | None:
        n, wanted = self._n, self.in_channels
        rank = len(x.shape)
        axes = ("L", "H, W", "D, H, W")[n - 1]
        text = (
            f"the input has shape {x.shape}; it must have shape (N, {wanted}, {axes}) or "
            f"({wanted}, {axes})"
        )
        if rank - n not in (1, 2):
            kind = type(self).__name__[:-2]
            return Misfit(None, text, f"nn.{kind}{rank - 2}d here" if rank in (3, 4, 5) else "")
        axis = rank - n - 1
        if x.shape[axis] == wanted:
            return None
        sizes = self._output_size(x.shape[axis + 1 :])
        given = (*x.shape[:axis], self.out_channels, *sizes) if min(sizes) > 0 else None
        return Misfit(axis, text, f"in_channels={x.shape[axis]} here", wanted, given)

    def extra_repr(self) -> str:
        """The sizes, and the options that differ from the defaults."""
        shown = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"
        for name, plain in self._plain().items():
            if getattr(self, name) != plain:
                shown += f", {name}={getattr(self, name)!r}"
        return shown if self.bias is not None else f"{shown}, bias=False"

    def _plain(self) -> dict[str, Any]:
        """The defaults of the options."""
        zeros, ones = (0,) * self._n, (1,) * self._n
        return {"stride": ones, "padding": zeros, "dilation": ones, "groups": 1}


class _Conv(_Convolution):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: str | Sizes = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: str | None = None,
        dtype: Any = None,
        generator: Generator | None = None,
    ) -> None:
        name = type(self).__name__
        self._set(in_channels, out_channels, kernel_size, stride, padding, dilation, groups)
        if isinstance(padding, str) and padding not in ("same", "valid"):
            raise ValueError(
                f'{name}: padding must be "same", "valid", or how many zeros; got {padding!r}'
            )
        if padding == "same" and any(s != 1 for s in self.stride):
            raise ValueError(f'{name}: padding="same" needs stride 1; got {self.stride}')
        if padding_mode not in _PADDING_MODES:
            raise ValueError(
                f"{name}: padding_mode must be one of {', '.join(_PADDING_MODES)}; got "
                f"{padding_mode!r}"
            )
        self.padding_mode = padding_mode
        self._make((out_channels, in_channels // groups), bias, device, dtype, generator)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (N, in_channels, ...) or (in_channels, ...), to ``out_channels``."""
        padding = self.padding
        if self.padding_mode != "zeros":
            x, padding = self._padded(x), 0
        function = getattr(convolution, f"conv{self._n}d")
        found: Tensor = function(
            x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups
        )
        return found

    def _pairs(self) -> list[tuple[int, int]]:
        """How much each axis is padded before and behind."""
        if self.padding == "valid":
            return [(0, 0)] * self._n
        if self.padding == "same":
            spans = [d * (k - 1) for k, d in zip(self.kernel_size, self.dilation, strict=True)]
            return [(n // 2, n - n // 2) for n in spans]
        return [(n, n) for n in self.padding]

    def _padded(self, x: Tensor) -> Tensor:
        ends = [n for pair in reversed(self._pairs()) for n in pair]
        return pad(x, ends, _PADDING_MODES[self.padding_mode])

    def _output_size(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        return tuple([
            (n + a + b - d * (k - 1) - 1) // s + 1
            for n, (a, b), k, s, d in zip(
                sizes, self._pairs(), self.kernel_size, self.stride, self.dilation, strict=True
            )
        ])  # fmt: skip

    def _plain(self) -> dict[str, Any]:
        return {**super()._plain(), "padding_mode": "zeros"}


class _ConvTranspose(_Convolution):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Sizes = 0,
        output_padding: Sizes = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Sizes = 1,
        padding_mode: str = "zeros",
        device: str | None = None,
        dtype: Any = None,
        generator: Generator | None = None,
    ) -> None:
        name = type(self).__name__
        if isinstance(padding, str):
            raise ValueError(f"{name}: padding must be how much is cut off; got {padding!r}")
        self._set(in_channels, out_channels, kernel_size, stride, padding, dilation, groups)
        self.output_padding = numbers(name, "output_padding", output_padding, self._n, 0)
        most = [max(s, d) for s, d in zip(self.stride, self.dilation, strict=True)]
        if any(n >= m for n, m in zip(self.output_padding, most, strict=True)):
            raise ValueError(
                f"{name}: output_padding must be smaller than the stride or the dilation; got "
                f"{self.output_padding} with stride={self.stride}, dilation={self.dilation}"
            )
        if padding_mode != "zeros":
            raise ValueError(f'{name}: padding_mode must be "zeros"; got {padding_mode!r}')
        self._make((in_channels, out_channels // groups), bias, device, dtype, generator)

    def forward(self, x: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """``x`` (N, in_channels, ...) or (in_channels, ...), to ``out_channels``.

        output_size: of the last axes, in place of ``output_padding``; of all axes with those of
            batch and channels.

        Raises ValueError for a size that no convolution with this stride comes from.
        """
        function = getattr(convolution, f"conv_transpose{self._n}d")
        more = self.output_padding if output_size is None else self._more(x, tuple(output_size))
        found: Tensor = function(
            x, self.weight, self.bias, self.stride, self.padding, more, self.groups, self.dilation
        )
        return found

    def _more(self, x: Tensor, output_size: tuple[int, ...]) -> tuple[int, ...]:
        """The padding of the output that gives ``output_size``."""
        n = self._n
        sizes = output_size[-n:] if len(output_size) == len(x.shape) else output_size
        least = self._output_size(x.shape[-n:], False)
        most = [low + max(s, d) - 1 for low, s, d in zip(
            least, self.stride, self.dilation, strict=True)]  # fmt: skip
        if len(sizes) != n or any(
            not low <= k <= high for low, k, high in zip(least, sizes, most, strict=True)
        ):
            raise ValueError(
                f"{type(self).__name__}: output_size must lie between {least} and {tuple(most)} "
                f"for an input of shape {x.shape}; got {output_size}"
            )
        return tuple([k - low for k, low in zip(sizes, least, strict=True)])

    def _output_size(self, sizes: tuple[int, ...], padded: bool = True) -> tuple[int, ...]:
        return tuple([
            (n - 1) * s - 2 * p + d * (k - 1) + 1 + (more if padded else 0)
            for n, s, p, d, k, more in zip(
                sizes, self.stride, self.padding, self.dilation, self.kernel_size,
                self.output_padding, strict=True,
            )
        ])  # fmt: skip

    def _plain(self) -> dict[str, Any]:
        return {**super()._plain(), "output_padding": (0,) * self._n}


class Conv1d(_Conv):
    """The convolution of (N, in_channels, L) or (in_channels, L) with kernels.

    Arguments, parameters and errors: as in Conv2d.
    """

    _n = 1


class Conv2d(_Conv):
    """The convolution of (N, in_channels, H, W) or (in_channels, H, W) with kernels.

    kernel_size, stride, padding, dilation, groups: see ``functional.conv2d``.
    bias: False for a layer without.
    padding_mode: what is added at the borders: "zeros", "reflect", "replicate" or "circular".
    device, dtype: of the parameters; the defaults if ``None``.
    generator: the source of the initial values; the default one if ``None``.

    weight (out_channels, in_channels / groups, *kernel_size) and bias (out_channels,) begin spread
    evenly over ``1 / sqrt(fan_in)`` to both sides of 0, as in PyTorch.

    Raises ValueError for options that make no sense.
    """

    _n = 2


class Conv3d(_Conv):
    """The convolution of (N, in_channels, D, H, W) or (in_channels, D, H, W) with kernels.

    Arguments, parameters and errors: as in Conv2d.
    """

    _n = 3


class ConvTranspose1d(_ConvTranspose):
    """The transposed convolution of (N, in_channels, L) or (in_channels, L).

    Arguments, parameters and errors: as in ConvTranspose2d.
    """

    _n = 1


class ConvTranspose2d(_ConvTranspose):
    """The transposed convolution of (N, in_channels, H, W) or (in_channels, H, W).

    kernel_size, stride, padding, output_padding, groups, dilation: see
        ``functional.conv_transpose2d``.
    bias, device, dtype, generator: as in Conv2d. padding_mode: "zeros" alone.

    weight (in_channels, out_channels / groups, *kernel_size) and bias (out_channels,) begin spread
    evenly over ``1 / sqrt(out_channels / groups * prod(kernel_size))`` to both sides of 0, as in
    PyTorch. Raises ValueError for options that make no sense.
    """

    _n = 2


class ConvTranspose3d(_ConvTranspose):
    """The transposed convolution of (N, in_channels, D, H, W) or (in_channels, D, H, W).

    Arguments, parameters and errors: as in ConvTranspose2d.
    """

    _n = 3


class Unfold(Module):
    """The windows of images (N, C, H, W) as columns (N, C * taps, windows).

    Arguments and errors: those of ``functional.unfold``.
    """

    _shown = ("kernel_size", "dilation", "padding", "stride")

    def __init__(
        self, kernel_size: Sizes, dilation: Sizes = 1, padding: Sizes = 0, stride: Sizes = 1
    ) -> None:
        _check_windows("Unfold", kernel_size, dilation, padding, stride)
        self.kernel_size, self.dilation = kernel_size, dilation
        self.padding, self.stride = padding, stride

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (N, C, H, W) -> (N, C * taps, windows)."""
        return unfold(x, self.kernel_size, self.dilation, self.padding, self.stride)


class Fold(Module):
    """Images (N, C, *output_size) as sums of columns (N, C * taps, windows).

    Arguments and errors: those of ``functional.fold``.
    """

    _shown = ("output_size", "kernel_size", "dilation", "padding", "stride")

    def __init__(
        self,
        output_size: Sizes,
        kernel_size: Sizes,
        dilation: Sizes = 1,
        padding: Sizes = 0,
        stride: Sizes = 1,
    ) -> None:
        numbers("Fold", "output_size", output_size, 2, 1)
        _check_windows("Fold", kernel_size, dilation, padding, stride)
        self.output_size, self.kernel_size = output_size, kernel_size
        self.dilation, self.padding, self.stride = dilation, padding, stride

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (N, C * taps, windows) -> (N, C, *output_size)."""
        return fold(x, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride)


def _check_windows(name: str, kernel: Any, dilation: Any, padding: Any, stride: Any) -> None:
    numbers(name, "kernel_size", kernel, 2, 1)
    numbers(name, "dilation", dilation, 2, 1)
    numbers(name, "padding", padding, 2, 0)
    numbers(name, "stride", stride, 2, 1)
