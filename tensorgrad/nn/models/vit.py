"""The vision transformer (Dosovitskiy and others, "An image is worth 16x16 words", 2021)."""

from __future__ import annotations

import math
from typing import Any

from tensorgrad.nn import init
from tensorgrad.nn.activations import GELU
from tensorgrad.nn.attention import MultiheadAttention
from tensorgrad.nn.containers import Sequential
from tensorgrad.nn.convolution import Conv2d
from tensorgrad.nn.layers import Dropout, Linear
from tensorgrad.nn.module import Module, Parameter, check_sizes
from tensorgrad.nn.normalization import LayerNorm
from tensorgrad.ops.creation import empty, zeros
from tensorgrad.ops.random import Generator
from tensorgrad.ops.shaping import broadcast_to, concat, flatten
from tensorgrad.tensor import Tensor

__all__ = ["VisionTransformer"]


class VisionTransformer(Module):
    """An image as a sequence of patches, which attend to one another; for classification.

    image_size: height and width of the images. patch_size: of the squares they are cut into.
    num_layers, num_heads, hidden_dim, mlp_dim: of the encoder; the defaults make a small one.
    dropout, attention_dropout: in training. num_classes: how many outputs, which are logits.
    in_channels: of the images. device, dtype, generator: as in Linear.

    Names of parameters and initial values are torchvision's; there, ViT-B/16 has ``image_size=224,
    patch_size=16, num_layers=12, num_heads=12, hidden_dim=768, mlp_dim=3072``. Raises ValueError
    for sizes that are not positive integers, or that do not divide what they are to divide.
    """

    def __init__(
        self,
        image_size: int = 32,
        patch_size: int = 4,
        num_layers: int = 6,
        num_heads: int = 4,
        hidden_dim: int = 128,
        mlp_dim: int = 256,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        num_classes: int = 10,
        in_channels: int = 3,
        device: str | None = None,
        dtype: Any = None,
        generator: Generator | None = None,
    ) -> None:
        check_sizes(
            "VisionTransformer", image_size=image_size, patch_size=patch_size,
            num_layers=num_layers, num_heads=num_heads, hidden_dim=hidden_dim, mlp_dim=mlp_dim,
            num_classes=num_classes, in_channels=in_channels,
        )  # fmt: skip
        if image_size % patch_size:
            raise ValueError(
                f"VisionTransformer: patch_size must divide image_size, got {patch_size} and "
                f"{image_size}"
            )
        how: dict[str, Any] = {"device": device, "dtype": dtype, "generator": generator}
        self.image_size, self.patch_size, self.hidden_dim = image_size, patch_size, hidden_dim
        self.conv_proj = Conv2d(in_channels, hidden_dim, patch_size, patch_size, **how)
        self.class_token = Parameter(zeros((1, 1, hidden_dim), device=device, dtype=dtype))
        length = (image_size // patch_size) ** 2 + 1
        self.encoder = _Encoder(
            length, num_layers, num_heads, hidden_dim, mlp_dim, dropout, attention_dropout, how
        )
        self.heads = Sequential({"head": Linear(hidden_dim, num_classes, **how)})
        self.reset_parameters(generator)

    def reset_parameters(self, generator: Generator | None = None) -> None:
        """New initial values of the patches' projection and of the head, which begins at 0."""
        fan_in = math.prod(self.conv_proj.weight.shape[1:])
        init.trunc_normal_(self.conv_proj.weight, std=math.sqrt(1 / fan_in), generator=generator)
        if self.conv_proj.bias is not None:
            init.zeros_(self.conv_proj.bias)
        for p in self.heads.parameters():
            init.zeros_(p)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, in_channels, image_size, image_size) -> logits (N, num_classes)."""
        n = x.shape[0]
        patches = flatten(self.conv_proj(x), 2).swapaxes(1, 2)
        token = broadcast_to(self.class_token, (n, 1, self.hidden_dim))
        encoded = self.encoder(concat([token, patches], axis=1))
        return self.heads(encoded[:, 0])


class _Encoder(Module):
    """Positions are added, then the blocks, then a norm."""

    def __init__(
        self,
        length: int,
        num_layers: int,
        num_heads: int,
        hidden_dim: int,
        mlp_dim: int,
        dropout: float,
        attention_dropout: float,
        how: dict[str, Any],
    ) -> None:
        place = {name: how[name] for name in ("device", "dtype")}
        self.pos_embedding = Parameter(empty((1, length, hidden_dim), **place))
        init.normal_(self.pos_embedding, std=0.02, generator=how["generator"])
        self.dropout = Dropout(dropout)
        self.layers = Sequential({
            f"encoder_layer_{k}": _Block(
                num_heads, hidden_dim, mlp_dim, dropout, attention_dropout, how
            )
            for k in range(num_layers)
        })  # fmt: skip
        self.ln = LayerNorm(hidden_dim, eps=1e-6, **place)

    def forward(self, x: Tensor) -> Tensor:
        """(N, length, hidden_dim), in its shape."""
        return self.ln(self.layers(self.dropout(x + self.pos_embedding)))


class _Block(Module):
    """Attention and two linear layers, each after a norm and added to what came in."""

    def __init__(
        self,
        num_heads: int,
        hidden_dim: int,
        mlp_dim: int,
        dropout: float,
        attention_dropout: float,
        how: dict[str, Any],
    ) -> None:
        place = {name: how[name] for name in ("device", "dtype")}
        self.ln_1 = LayerNorm(hidden_dim, eps=1e-6, **place)
        self.self_attention = MultiheadAttention(
            hidden_dim, num_heads, dropout=attention_dropout, batch_first=True, **how
        )
        self.dropout = Dropout(dropout)
        self.ln_2 = LayerNorm(hidden_dim, eps=1e-6, **place)
        self.mlp = Sequential(
            Linear(hidden_dim, mlp_dim, **how), GELU(), Dropout(dropout),
            Linear(mlp_dim, hidden_dim, **how), Dropout(dropout),
        )  # fmt: skip
        for name, p in self.mlp.named_parameters():
            if name.endswith("weight"):
                init.xavier_uniform_(p, generator=how["generator"])
            else:
                init.normal_(p, std=1e-6, generator=how["generator"])

    def forward(self, x: Tensor) -> Tensor:
        """(N, length, hidden_dim), in its shape."""
        y = self.ln_1(x)
        attended, _ = self.self_attention(y, y, y, need_weights=False)
        x = x + self.dropout(attended)
        return x + self.mlp(self.ln_2(x))
