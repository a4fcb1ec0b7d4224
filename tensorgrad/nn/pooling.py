"""Pooling layers, in one, two and three dimensions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar

from tensorgrad.nn.fit import Misfit
from tensorgrad.nn.module import Module
from tensorgrad.ops import index_pooling, pooling
from tensorgrad.ops.numbers import number
from tensorgrad.ops.random import Generator
from tensorgrad.ops.windows import numbers, options_of
from tensorgrad.tensor import Tensor

__all__ = [
    "AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveAvgPool3d", "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d", "AdaptiveMaxPool3d", "AvgPool1d", "AvgPool2d", "AvgPool3d",
    "FractionalMaxPool2d", "FractionalMaxPool3d", "LPPool1d", "LPPool2d", "LPPool3d", "MaxPool1d",
    "MaxPool2d", "MaxPool3d", "MaxUnpool1d", "MaxUnpool2d", "MaxUnpool3d",
]  # fmt: skip

_FUNCTIONS: dict[str, Any] = {
    name: getattr(module, name) for module in (pooling, index_pooling) for name in module.__all__
}
Sizes = int | Sequence[int]
OutputSize = int | Sequence[int | None] | None


class _Pool(Module):
    """What pools have in common: how many axes they go over."""

    _n: ClassVar[int]

    def _function(self, name: str) -> Any:
        return _FUNCTIONS[f"{name}{self._n}d"]

    def _misfit(self, x: Tensor, *others: Any) -> Misfit | None:
        rank = len(x.shape)
        if rank - self._n in (1, 2):
            return None
        axes = ", ".join(["L", "H, W", "D, H, W"][self._n - 1 : self._n])
        kind = type(self).__name__
        other = re.sub(r"\dd$", f"{rank - 2}d", kind) if rank in (3, 4, 5) else ""
        return Misfit(
            None,
            f"the input has shape {x.shape}; it must have shape (N, C, {axes}) or (C, {axes})",
            f"nn.{other} here" if other else "",
        )


class _MaxPool(_Pool):
    _shown = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")

    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        dilation: Sizes = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        options_of(type(self).__name__, self._n, kernel_size, stride, padding, dilation)
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.dilation = dilation
        self.return_indices = return_indices
        self.ceil_mode = ceil_mode

    def forward(self, x: Tensor) -> Any:
        """``x`` (N, C, ...) or (C, ...): the largest elements, or they and their places."""
        return self._function("max_pool")(
            x, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode,
            self.return_indices,
        )  # fmt: skip


class _AvgPool(_Pool):
    _shown = ("kernel_size", "stride", "padding")

    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        options_of(type(self).__name__, self._n, kernel_size, stride, padding)
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (N, C, ...) or (C, ...): the means."""
        y: Tensor = self._function("avg_pool")(x, *self._options())
        return y

    def _options(self) -> tuple[Any, ...]:
        sizes = self.kernel_size, self.stride, self.padding
        return *sizes, self.ceil_mode, self.count_include_pad


class _DividedAvgPool(_AvgPool):
    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode, count_include_pad)
        name = type(self).__name__
        if divisor_override is not None and not number(name, "divisor_override", divisor_override):
            raise ValueError(f"{name}: divisor_override must not be 0")
        self.divisor_override = divisor_override

    def _options(self) -> tuple[Any, ...]:
        return *super()._options(), self.divisor_override


class _LPPool(_Pool):
    _shown = ("norm_type", "kernel_size", "stride", "ceil_mode")

    def __init__(
        self,
        norm_type: float,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        ceil_mode: bool = False,
    ) -> None:
        name = type(self).__name__
        options_of(name, self._n, kernel_size, stride, 0)
        if not number(name, "norm_type", norm_type):
            raise ValueError(f"{name}: norm_type must not be 0")
        self.norm_type = norm_type
        self.kernel_size = kernel_size
        self.stride = stride
        self.ceil_mode = ceil_mode

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (N, C, ...) or (C, ...): the norms."""
        y: Tensor = self._function("lp_pool")(
            x, float(self.norm_type), self.kernel_size, self.stride, self.ceil_mode
        )
        return y


class _AdaptivePool(_Pool):
    _shown = ("output_size",)

    def __init__(self, output_size: OutputSize) -> None:
        given = output_size if isinstance(output_size, Sequence) else (output_size,)
        known = [1 if size is None else size for size in given]
        numbers(type(self).__name__, "output_size", known, self._n, 1)
        self.output_size = output_size


class _AdaptiveAvgPool(_AdaptivePool):
    def forward(self, x: Tensor) -> Tensor:
        """``x`` (N, C, ...) or (C, ...): the means, of the sizes ``output_size``."""
        y: Tensor = self._function("adaptive_avg_pool")(x, self.output_size)
        return y


class _AdaptiveMaxPool(_AdaptivePool):
    def __init__(self, output_size: OutputSize, return_indices: bool = False) -> None:
        super().__init__(output_size)
        self.return_indices = return_indices

    def forward(self, x: Tensor) -> Any:
        """``x`` (N, C, ...) or (C, ...): the largest elements, or they and their places."""
        return self._function("adaptive_max_pool")(x, self.output_size, self.return_indices)


class _MaxUnpool(_Pool):
    _shown = ("kernel_size", "stride", "padding")

    def __init__(self, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0) -> None:
        options_of(type(self).__name__, self._n, kernel_size, stride, padding)
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding

    def forward(
        self, x: Tensor, indices: Tensor, output_size: Sequence[int] | None = None
    ) -> Tensor:
        """``x`` and ``indices`` of one shape: the numbers of ``x`` at their places."""
        y: Tensor = self._function("max_unpool")(
            x, indices, self.kernel_size, self.stride, self.padding, output_size
        )
        return y


class _FractionalMaxPool(_Pool):
    _shown = ("kernel_size", "output_size", "output_ratio")

    def __init__(
        self,
        kernel_size: Sizes,
        output_size: Sizes | None = None,
        output_ratio: float | Sequence[float] | None = None,
        return_indices: bool = False,
        _random_samples: Any = None,
        generator: Generator | None = None,
    ) -> None:
        name = type(self).__name__
        numbers(name, "kernel_size", kernel_size, self._n, 1)
        if (output_size is None) == (output_ratio is None):
            raise ValueError(
                f"{name}: give either output_size or output_ratio; got {output_size!r} and "
                f"{output_ratio!r}"
            )
        self.kernel_size = kernel_size
        self.output_size = output_size
        self.output_ratio = output_ratio
        self.return_indices = return_indices
        self._random_samples = _random_samples
        self.generator = generator

    def forward(self, x: Tensor) -> Any:
        """``x`` (N, C, ...) or (C, ...): the largest elements, or they and their places."""
        return self._function("fractional_max_pool")(
            x, self.kernel_size, self.output_size, self.output_ratio, self.return_indices,
            self._random_samples, generator=self.generator,
        )  # fmt: skip


def _of(base: type[_Pool], name: str) -> type[Any]:
    """The pool of that name; its documentation is that of its function."""
    function = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=LP)", "_", name).lower()
    doc = _FUNCTIONS[function].__doc__
    return type(name, (base,), {"_n": int(name[-2]), "__doc__": doc, "__module__": __name__})


MaxPool1d = _of(_MaxPool, "MaxPool1d")
MaxPool2d = _of(_MaxPool, "MaxPool2d")
MaxPool3d = _of(_MaxPool, "MaxPool3d")
AvgPool1d = _of(_AvgPool, "AvgPool1d")
AvgPool2d = _of(_DividedAvgPool, "AvgPool2d")
AvgPool3d = _of(_DividedAvgPool, "AvgPool3d")
FractionalMaxPool2d = _of(_FractionalMaxPool, "FractionalMaxPool2d")
FractionalMaxPool3d = _of(_FractionalMaxPool, "FractionalMaxPool3d")
LPPool1d = _of(_LPPool, "LPPool1d")
LPPool2d = _of(_LPPool, "LPPool2d")
LPPool3d = _of(_LPPool, "LPPool3d")
AdaptiveAvgPool1d = _of(_AdaptiveAvgPool, "AdaptiveAvgPool1d")
AdaptiveAvgPool2d = _of(_AdaptiveAvgPool, "AdaptiveAvgPool2d")
AdaptiveAvgPool3d = _of(_AdaptiveAvgPool, "AdaptiveAvgPool3d")
AdaptiveMaxPool1d = _of(_AdaptiveMaxPool, "AdaptiveMaxPool1d")
AdaptiveMaxPool2d = _of(_AdaptiveMaxPool, "AdaptiveMaxPool2d")
AdaptiveMaxPool3d = _of(_AdaptiveMaxPool, "AdaptiveMaxPool3d")
MaxUnpool1d = _of(_MaxUnpool, "MaxUnpool1d")
MaxUnpool2d = _of(_MaxUnpool, "MaxUnpool2d")
MaxUnpool3d = _of(_MaxUnpool, "MaxUnpool3d")
