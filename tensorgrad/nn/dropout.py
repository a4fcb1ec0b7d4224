"""Dropout of channels, and the dropout that goes with SELU, as modules."""

from __future__ import annotations

from tensorgrad.nn.module import Module
from tensorgrad.ops import dropouts as functions
from tensorgrad.ops.random import Generator
from tensorgrad.tensor import Tensor

__all__ = ["AlphaDropout", "Dropout1d", "Dropout2d", "Dropout3d", "FeatureAlphaDropout"]


class _Dropout(Module):
    _shown = ("p",)

    def __init__(self, p: float = 0.5, generator: Generator | None = None) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"{type(self).__name__}: p must lie in [0, 1], got {p!r}")
        self.p = p
        self.generator = generator


class Dropout1d(_Dropout):
    """In training, sets each channel to 0 with probability ``p`` and scales the others up.

    p: the probability, in [0, 1].
    generator: the source of the masks; the default one if ``None``.

    Source: Tompson et al., 2015. Raises ValueError for another ``p``.
    """

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (N, C, L) or (C, L), in its shape; ``x`` itself after ``eval()``."""
        return functions.dropout1d(x, self.p, self.training, generator=self.generator)


class Dropout2d(_Dropout):
    """Dropout1d for images."""

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (N, C, H, W) or (N, C, L), in its shape; ``x`` itself after ``eval()``."""
        return functions.dropout2d(x, self.p, self.training, generator=self.generator)


class Dropout3d(_Dropout):
    """Dropout1d for volumes."""

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (N, C, D, H, W) or (C, D, H, W), in its shape; ``x`` itself after ``eval()``."""
        return functions.dropout3d(x, self.p, self.training, generator=self.generator)


class AlphaDropout(_Dropout):
    """In training, dropout that keeps mean 0 and variance 1 (Klambauer et al., 2017).

    p: the probability that an element is set to SELU's lowest number. generator: as in Dropout1d.

    Raises ValueError for a ``p`` outside [0, 1].
    """

    def forward(self, x: Tensor) -> Tensor:
        """``alpha_dropout(x, p)``; ``x`` itself after ``eval()``."""
        return functions.alpha_dropout(x, self.p, self.training, generator=self.generator)


class FeatureAlphaDropout(_Dropout):
    """AlphaDropout of whole channels."""

    def forward(self, x: Tensor) -> Tensor:
        """``feature_alpha_dropout(x, p)`` of (N, C, ...); ``x`` itself after ``eval()``."""
        return functions.feature_alpha_dropout(x, self.p, self.training, generator=self.generator)
