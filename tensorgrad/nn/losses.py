"""The losses of ``nn.functional`` as modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from tensorgrad.nn import functional
from tensorgrad.nn.module import Module
from tensorgrad.tensor import Tensor


class _Loss(Module):
    _shown = ("reduction",)
    function: ClassVar[Callable[..., Tensor]]

    def __init__(self, reduction: str = "mean") -> None:
        self.reduction = reduction

    def forward(self, input: Any, target: Any) -> Tensor:
        """The loss of ``input`` against ``target``."""
        return type(self).function(input, target, self.reduction)


class CrossEntropyLoss(_Loss):
    """``functional.cross_entropy``: logits (N, C, ...) against integer labels (N, ...)."""

    function = staticmethod(functional.cross_entropy)


class NLLLoss(_Loss):
    """``functional.nll_loss``: log-probabilities (N, C, ...) against integer labels (N, ...)."""

    function = staticmethod(functional.nll_loss)


class MSELoss(_Loss):
    """``functional.mse_loss``: the squared error, with the lectures' reductions besides."""

    function = staticmethod(functional.mse_loss)


class L1Loss(_Loss):
    """``functional.l1_loss``: the absolute error."""

    function = staticmethod(functional.l1_loss)


class BCEWithLogitsLoss(_Loss):
    """``functional.binary_cross_entropy_with_logits``: logits against probabilities."""

    function = staticmethod(functional.binary_cross_entropy_with_logits)
