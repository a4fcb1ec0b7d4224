"""LeNet-5 in the form it has today."""

from __future__ import annotations

from typing import Any

from tensorgrad.nn.convolution import Conv2d
from tensorgrad.nn.layers import Linear
from tensorgrad.nn.module import Module, check_sizes
from tensorgrad.nn.pooling import MaxPool2d
from tensorgrad.ops.activations import relu
from tensorgrad.ops.random import Generator
from tensorgrad.ops.shaping import flatten
from tensorgrad.tensor import Tensor

__all__ = ["LeNet"]


class LeNet(Module):
    """Two convolutions of 5 x 5 with pools, and three linear layers: for digits.

    num_classes: how many outputs, which are logits. in_channels: 1 for grey images.
    image_size: height and width of the images; those of MNIST are 28, those of the paper 32.
    device, dtype, generator: as in Linear.

    LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition",
    1998, with ReLU in the place of tanh, the largest of each 2 x 2 in the place of their weighted
    sum, and each map of the second convolution connected to all of the first. Images of 28 get a
    border of 2, as in the paper. Raises ValueError for sizes that are not positive integers, or
    images too small for the two convolutions.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        image_size: int = 28,
        device: str | None = None,
        dtype: Any = None,
        generator: Generator | None = None,
    ) -> None:
        check_sizes("LeNet", num_classes=num_classes, in_channels=in_channels)
        padding = 2 if image_size == 28 else 0
        side = ((image_size + 2 * padding - 4) // 2 - 4) // 2
        if side < 1:
            raise ValueError(f"LeNet: image_size must be at least 16, got {image_size}")
        how: dict[str, Any] = {"device": device, "dtype": dtype, "generator": generator}
        self.conv1 = Conv2d(in_channels, 6, 5, padding=padding, **how)
        self.conv2 = Conv2d(6, 16, 5, **how)
        self.pool = MaxPool2d(2)
        self.fc1 = Linear(16 * side * side, 120, **how)
        self.fc2 = Linear(120, 84, **how)
        self.fc3 = Linear(84, num_classes, **how)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, in_channels, image_size, image_size) -> logits (N, num_classes)."""
        x = self.pool(relu(self.conv1(x)))
        x = self.pool(relu(self.conv2(x)))
        x = relu(self.fc1(flatten(x, 1)))
        return self.fc3(relu(self.fc2(x)))
