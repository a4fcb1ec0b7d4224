"""Figures of merit beside the loss: the mean over a batch of how good each prediction is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from numpy import ndarray

from tensorgrad import backend
from tensorgrad.backend import is_array
from tensorgrad.errors import ShapeError, TensorgradError
from tensorgrad.tensor import Tensor

#: ``metric(output, target)`` is the mean over the batch: a number, 0-d array or 0-d tensor.
Metric = Callable[[Tensor, Tensor], Any]


def accuracy(output: Tensor, target: Tensor) -> Any:
    """The share of examples whose largest output is that of the right class, a 0-d float64 array.

    output: [batch, ..., classes], any increasing function of the probabilities (logits will do).
    target: the classes, integers [batch, ...]; or like ``output``, largest at the right class.

    Raises ShapeError unless the shapes are these and there are two classes or more.
    """
    scores, wanted = output.data, target.data
    if scores.ndim and scores.shape[-1] > 1:
        of = backend.of(scores)
        with of.at(output.device):
            if wanted.shape == scores.shape:
                wanted = wanted.argmax(-1)
            if wanted.shape == scores.shape[:-1]:
                return (scores.argmax(-1) == wanted).mean(dtype=of.xp.float64)
    raise ShapeError(
        "accuracy: the output must have shape (batch, classes), with two classes or more, and the "
        f"target (batch,) or that of the output; got {output.shape} and {target.shape}. For other "
        "tasks pass Trainer(metrics=...) your own function (output, target) -> mean, or ()"
    )


_BY_NAME: dict[str, Metric] = {"accuracy": accuracy}


def resolve(metrics: Sequence[str | Metric]) -> dict[str, Metric]:
    """The metrics by name; a function goes by its own name.

    Raises TensorgradError for a name that is not known.
    """
    found = {}
    for metric in metrics:
        if isinstance(metric, str):
            if metric not in _BY_NAME:
                raise TensorgradError(
                    f"unknown metric {metric!r}; known are {', '.join(_BY_NAME)}, or pass a "
                    "function (output, target) -> mean over the batch"
                )
            found[metric] = _BY_NAME[metric]
        else:
            found[getattr(metric, "__name__", type(metric).__name__)] = metric
    return found


class Averages:
    """Running means over examples, of values that may still be on their way on a GPU.

    Values are read in groups, so that a GPU need not be waited for after each batch.
    """

    _GROUP = 256

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._count = 0
        self._pending: list[tuple[dict[str, Any], int]] = []

    def add(self, values: dict[str, Any], examples: int) -> None:
        """Take in the means (numbers or 0-d arrays) over ``examples`` examples."""
        self._pending.append((values, examples))
        waits = any(is_array(value) and type(value) is not ndarray for value in values.values())
        if not waits or len(self._pending) >= self._GROUP:
            self._read()

    def means(self) -> dict[str, float]:
        """The mean of each value over all examples so far; empty if there were none."""
        self._read()
        return {name: total / self._count for name, total in self._sums.items()}

    def _read(self) -> None:
        for values, examples in self._pending:
            for name, value in values.items():
                self._sums[name] = self._sums.get(name, 0.0) + float(value) * examples
            self._count += examples
        self._pending.clear()

    def state_dict(self) -> dict[str, Any]:
        """The sums so far."""
        self._read()
        return {"sums": dict(self._sums), "count": self._count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what ``state_dict`` gave."""
        self._sums, self._count = dict(state["sums"]), state["count"]
        self._pending.clear()
