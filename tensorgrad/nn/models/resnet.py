"""Residual networks (He, Zhang, Ren and Sun, "Deep residual learning", 2016)."""

from __future__ import annotations

from typing import Any, ClassVar

from tensorgrad.nn import init
from tensorgrad.nn.activations import ReLU
from tensorgrad.nn.containers import Sequential
from tensorgrad.nn.convolution import Conv2d
from tensorgrad.nn.layers import Linear
from tensorgrad.nn.module import Module, check_sizes
from tensorgrad.nn.normalization import BatchNorm2d
from tensorgrad.nn.pooling import AdaptiveAvgPool2d, MaxPool2d
from tensorgrad.ops.padding import pad
from tensorgrad.ops.random import Generator
from tensorgrad.ops.shaping import flatten
from tensorgrad.tensor import Tensor

__all__ = [
    "BasicBlock", "Bottleneck", "CifarResNet", "ResNet", "resnet18", "resnet34", "resnet50",
]  # fmt: skip


class BasicBlock(Module):
    """Two convolutions of 3 x 3 whose result is added to what came in.

    in_channels, channels: before and after. stride: of the first convolution.
    downsample: what is added to, if not the input itself: a module that gives the result's shape.
    device, dtype, generator: as in Linear.
    """

    expansion: ClassVar[int] = 1

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int = 1,
        downsample: Module | None = None,
        device: str | None = None,
        dtype: Any = None,
        generator: Generator | None = None,
    ) -> None:
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        how: dict[str, Any] = {"bias": False, "generator": generator, **place}
        self.conv1 = Conv2d(in_channels, channels, 3, stride, 1, **how)
        self.bn1 = BatchNorm2d(channels, **place)
        self.relu = ReLU()
        self.conv2 = Conv2d(channels, channels, 3, 1, 1, **how)
        self.bn2 = BatchNorm2d(channels, **place)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, channels, H / stride, W / stride)."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(Module):
    """Convolutions of 1 x 1, 3 x 3 and 1 x 1 whose result is added to what came in.

    in_channels: before. channels: inside; the last convolution makes four times as many.
    stride: of the convolution of 3 x 3, as torchvision has it (in the paper: of the first).
    downsample, device, dtype, generator: as in BasicBlock.
    """

    expansion: ClassVar[int] = 4

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int = 1,
        downsample: Module | None = None,
        device: str | None = None,
        dtype: Any = None,
        generator: Generator | None = None,
    ) -> None:
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        how: dict[str, Any] = {"bias": False, "generator": generator, **place}
        self.conv1 = Conv2d(in_channels, channels, 1, **how)
        self.bn1 = BatchNorm2d(channels, **place)
        self.conv2 = Conv2d(channels, channels, 3, stride, 1, **how)
        self.bn2 = BatchNorm2d(channels, **place)
        self.conv3 = Conv2d(channels, channels * self.expansion, 1, **how)
        self.bn3 = BatchNorm2d(channels * self.expansion, **place)
        self.relu = ReLU()
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, 4 channels, H / stride, W / stride)."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(Module):
    """A residual network for large images, with torchvision's names of parameters.

    block: ``BasicBlock`` or ``Bottleneck``. layers: the number of blocks in each of four stages.
    num_classes: how many outputs, which are logits. in_channels: of the images.
    width: channels of the first stage; each further one has twice as many and half the height.
    zero_init_residual: let the last norm of each block begin at 0, so that blocks begin as the
        identity (Goyal and others, 2017).
    device, dtype, generator: as in Linear.

    Convolutions begin with He's normal values for the variance of the gradients, norms at 1 and 0.
    Raises ValueError unless there are four stages, or for sizes that are not positive integers.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        layers: tuple[int, ...],
        num_classes: int = 1000,
        in_channels: int = 3,
        width: int = 64,
        zero_init_residual: bool = False,
        device: str | None = None,
        dtype: Any = None,
        generator: Generator | None = None,
    ) -> None:
        check_sizes("ResNet", num_classes=num_classes, in_channels=in_channels, width=width)
        if len(layers) != 4:
            raise ValueError(f"ResNet: layers must be the blocks of four stages, got {layers!r}")
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        how: dict[str, Any] = {"generator": generator, **place}
        self.conv1 = Conv2d(in_channels, width, 7, 2, 3, bias=False, **how)
        self.bn1 = BatchNorm2d(width, **place)
        self.relu = ReLU()
        self.maxpool = MaxPool2d(3, 2, 1)
        sizes = [width * 2**k for k in range(4)]
        before = [width, *(n * block.expansion for n in sizes)]
        self.layer1 = _stage(block, before[0], sizes[0], layers[0], 1, how)
        self.layer2 = _stage(block, before[1], sizes[1], layers[1], 2, how)
        self.layer3 = _stage(block, before[2], sizes[2], layers[2], 2, how)
        self.layer4 = _stage(block, before[3], sizes[3], layers[3], 2, how)
        self.avgpool = AdaptiveAvgPool2d(1)
        self.fc = Linear(before[4], num_classes, **how)
        _he_values(self, generator)
        if zero_init_residual:
            for part in self.modules():
                last = {BasicBlock: "bn2", Bottleneck: "bn3"}.get(type(part))
                if last is not None:
                    init.zeros_(getattr(part, last).weight)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, in_channels, H, W) -> logits (N, num_classes)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(flatten(self.avgpool(x), 1))


def resnet18(num_classes: int = 1000, **options: Any) -> ResNet:
    """ResNet-18: 11.7 million parameters; ``options`` as in ResNet."""
    return ResNet(BasicBlock, (2, 2, 2, 2), num_classes, **options)


def resnet34(num_classes: int = 1000, **options: Any) -> ResNet:
    """ResNet-34: 21.8 million parameters; ``options`` as in ResNet."""
    return ResNet(BasicBlock, (3, 4, 6, 3), num_classes, **options)


def resnet50(num_classes: int = 1000, **options: Any) -> ResNet:
    """ResNet-50: 25.6 million parameters; ``options`` as in ResNet."""
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes, **options)


class CifarResNet(Module):
    """The residual network of section 4.2 of the paper, for images of 32 x 32, of any depth.

    depth: layers with weights, 6 n + 2: 20, 32, 44, 56, 110, 152, ...; three stages of n blocks.
    num_classes: how many outputs, which are logits. in_channels: of the images.
    width: channels of the first stage; the others have twice and four times as many.
    device, dtype, generator: as in Linear.

    Where a stage begins, the shortcut takes every second place and adds channels of zeros (the
    paper's option A), so that all weights are in the convolutions, the norms and ``fc``. Raises
    ValueError for another depth, or sizes that are not positive integers.
    """

    _shown = ("depth",)

    def __init__(
        self,
        depth: int,
        num_classes: int = 10,
        in_channels: int = 3,
        width: int = 16,
        device: str | None = None,
        dtype: Any = None,
        generator: Generator | None = None,
    ) -> None:
        check_sizes("CifarResNet", num_classes=num_classes, in_channels=in_channels, width=width)
        blocks, rest = divmod(depth - 2, 6)
        if blocks < 1 or rest:
            raise ValueError(
                f"CifarResNet: depth must be 6 n + 2 (8, 14, 20, 32, 44, 56, 110, 152), got {depth}"
            )
        self.depth = depth
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        how: dict[str, Any] = {"generator": generator, **place}
        self.conv1 = Conv2d(in_channels, width, 3, 1, 1, bias=False, **how)
        self.bn1 = BatchNorm2d(width, **place)
        self.relu = ReLU()
        self.layer1 = _cifar_stage(width, width, blocks, how)
        self.layer2 = _cifar_stage(width, 2 * width, blocks, how)
        self.layer3 = _cifar_stage(2 * width, 4 * width, blocks, how)
        self.avgpool = AdaptiveAvgPool2d(1)
        self.fc = Linear(4 * width, num_classes, **how)
        _he_values(self, generator)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, in_channels, H, W) -> logits (N, num_classes)."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(flatten(self.avgpool(x), 1))


class _Thinned(Module):
    """Every second place, and ``added`` channels of zeros, half of them before the others."""

    def __init__(self, added: int) -> None:
        self.added = added

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C + added, H / 2, W / 2)."""
        before = self.added // 2
        return pad(x[:, :, ::2, ::2], ((0, 0), (before, self.added - before), (0, 0), (0, 0)))


def _stage(
    block: type[BasicBlock] | type[Bottleneck],
    before: int,
    channels: int,
    count: int,
    stride: int,
    how: dict[str, Any],
) -> Sequential:
    after = channels * block.expansion
    downsample = None
    if stride != 1 or before != after:
        place = {name: how[name] for name in ("device", "dtype")}
        convolution = Conv2d(before, after, 1, stride, bias=False, **how)
        downsample = Sequential(convolution, BatchNorm2d(after, **place))
    first = block(before, channels, stride, downsample, **how)
    return Sequential(first, *(block(after, channels, **how) for _ in range(count - 1)))


def _cifar_stage(before: int, channels: int, count: int, how: dict[str, Any]) -> Sequential:
    stride = 1 if before == channels else 2
    shortcut = _Thinned(channels - before) if stride == 2 else None
    first = BasicBlock(before, channels, stride, shortcut, **how)
    return Sequential(first, *(BasicBlock(channels, channels, **how) for _ in range(count - 1)))


def _he_values(model: Module, generator: Generator | None) -> None:
    for part in model.modules():
        if isinstance(part, Conv2d):
            init.kaiming_normal_(
                part.weight, mode="fan_out", nonlinearity="relu", generator=generator
            )
