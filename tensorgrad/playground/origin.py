"""Where the first NaN of a run arose: the steps before it are repeated and looked through."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from tensorgrad import nn
from tensorgrad.autograd import detect_anomaly
from tensorgrad.errors import AnomalyError
from tensorgrad.tensor import Tensor
from tensorgrad.training import Trainer

_EVERY = 100  # steps from one copy of the state to the next


class Origin:
    """Keeps a copy of the state and the batches since, for when a loss is not finite."""

    def __init__(self) -> None:
        self._state: dict[str, Any] | None = None
        self._batches: list[tuple[Tensor, ...]] = []

    def begin(self, trainer: Trainer) -> None:
        """Take a new copy before the next step: the state was changed by hand."""
        self._state = None

    def watch(self, trainer: Trainer) -> None:
        """Take a copy, if it is time."""
        if self._state is None or len(self._batches) >= _EVERY:
            self._state = trainer.training_state()
            self._batches.clear()

    def is_finite(self, batch: tuple[Tensor, ...], loss: Tensor) -> bool:
        """Whether the loss of a step on ``batch`` is a finite number."""
        self._batches.append(batch)
        return math.isfinite(loss.data)

    def found(self, trainer: Trainer, steps: int) -> str:
        """Where the first NaN or infinity since the copy arose; ``steps`` are done.

        The network is left with its last finite weights: those before the step that spoiled them.
        """
        assert self._state is not None
        trainer.restore_training_state(self._state)
        step, first = trainer.uncompiled_step(), steps - len(self._batches)
        for number, batch in enumerate(self._batches, first + 1):
            before = trainer.training_state()
            where = _Where(trainer.model)
            try:
                with np.errstate(all="ignore"), detect_anomaly():
                    step(*batch)
            except AnomalyError as error:
                trainer.restore_training_state(before)
                return f"step {number}, {where}: {_without_line(str(error))}"
            finally:
                where.remove()
        return f"step {steps}: the loss is not finite, and repeated step by step it was"


def _without_line(text: str) -> str:
    """The report without the line of the code, which is the playground's own."""
    return re.sub(r"( The operation was computed)? [Aa]t [^ ]*:\d+.*$", "", text).rstrip(". ")


class _Where:
    """Notes how far a step has come: which layer computes, and where gradients have arrived."""

    def __init__(self, model: nn.Module) -> None:
        self._text = "before the first layer"
        self._removed = []
        number, layers = 0, list(model.children())
        for layer in layers:
            number += isinstance(layer, nn.Linear)
            name = f"layer {number} ({type(layer).__name__})"
            ahead = "in the loss" if layer is layers[-1] else f"after {name}"
            self._removed.append(layer.register_forward_pre_hook(self._entered(name)))
            self._removed.append(layer.register_forward_hook(self._left(name, ahead)))

    def _entered(self, name: str) -> Any:
        def hook(module: nn.Module, inputs: Any) -> None:
            """Forward, before a layer."""
            self._text = f"in {name}"

        return hook

    def _left(self, name: str, ahead: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            """Forward, after a layer."""
            self._text = ahead
            if output.requires_grad:
                output.register_hook(arrived)

        def arrived(gradient: Tensor) -> None:
            """Backward, when the gradient of a layer's result is known."""
            self._text = f"in the gradients of {name}"

        return hook

    def remove(self) -> None:
        """Take the hooks off again."""
        for handle in self._removed:
            handle.remove()

    def __str__(self) -> str:
        return self._text
