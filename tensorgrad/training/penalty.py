"""Penalty: the regularizer of J = L + lambda * Omega, L1 and L2."""

from __future__ import annotations

from tensorgrad.errors import TensorgradError
from tensorgrad.nn import Module
from tensorgrad.tensor import Tensor


class Penalty:
    """``l1 * sum(|w|) + l2 / 2 * sum(w**2)`` over the weights of a model, as a tensor.

    model: the weights are its parameters with two axes or more.
    l1, l2: the factors, not negative and not both 0. The gradient of the second part is
        ``l2 * w``, what SGD calls weight decay.
    biases: penalise the parameters with one axis too.

    Raises TensorgradError for other factors, or a model without such parameters.
    """

    def __init__(
        self, model: Module, l1: float = 0.0, l2: float = 0.0, biases: bool = False
    ) -> None:
        if l1 < 0 or l2 < 0 or not l1 + l2 > 0:
            raise TensorgradError(
                f"Penalty: l1 and l2 must be at least 0, and one of them more; got {l1} and {l2}"
            )
        self.l1 = l1
        self.l2 = l2
        self.weights = [p for p in model.parameters() if biases or p.ndim > 1]
        if not self.weights:
            raise TensorgradError("Penalty: the model has no weights to penalise")

    def __call__(self) -> Tensor:
        """The penalty now, a tensor without axes."""
        parts = [self.l1 * abs(w).sum() for w in self.weights] if self.l1 else []
        if self.l2:
            parts += [self.l2 / 2 * (w * w).sum() for w in self.weights]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total
