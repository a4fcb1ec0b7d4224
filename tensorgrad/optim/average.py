"""Moving averages of weights, which often do better than the last ones."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tensorgrad.dtypes import HALVES
from tensorgrad.tape import Primitive, apply_update
from tensorgrad.tensor import Tensor

if TYPE_CHECKING:
    from tensorgrad.nn import Module


def _average_value(xp: Any, count: Any, *arrays: Any, decay: float, warm: bool) -> Any:
    n = len(arrays) // 2
    count += 1
    # As arrays, so that a GPU need not be waited for.
    keep = xp.minimum((1 + count) / (10 + count), decay) if warm else xp.asarray(decay)
    for mean, value in zip(arrays[:n], arrays[n:]):
        # mean + (1 - keep) * (value - mean), in which nothing drifts where nothing changes
        change = value.astype(mean.dtype) - mean
        change *= (1 - keep).astype(mean.dtype)
        mean += change
    return count


_AVERAGE = Primitive(
    "average",
    _average_value,
    {"count": None, "*arrays": None},
    mutates=lambda count: range(1 + (count - 1) // 2),
)


class ExponentialMovingAverage:
    """``mean <- decay * mean + (1 - decay) * weight`` for every parameter, after each step.

    model: whose parameters are followed, those that are trained; buffers are taken as they are.
    decay: how much is kept. warm_up: begin with a smaller one, min(decay, (1 + n) / (10 + n))
        after n steps, so that the first weights are soon forgotten.

    After Polyak and Juditsky (1992), in the form of TensorFlow's ExponentialMovingAverage.
    Raises ValueError for a decay outside [0, 1).
    """

    def __init__(self, model: Module, decay: float = 0.999, warm_up: bool = True) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"ExponentialMovingAverage: decay must lie in [0, 1), got {decay!r}")
        self.model = model
        self.decay, self.warm_up = decay, warm_up
        self._names = [name for name, p in model.named_parameters() if p.requires_grad]
        self._params = [p for p in model.parameters() if p.requires_grad]
        # In 16 bits the small steps of a mean would be rounded away.
        self._means = [
            (p.float() if p.dtype in HALVES else p).detach().clone() for p in self._params
        ]
        device = self._params[0].device if self._params else "cpu"
        self._count = Tensor(0, dtype="int64", device=device)

    def update(self) -> None:
        """Take in the weights as they are now; call it after ``optimizer.step()``."""
        means = [mean.data for mean in self._means]
        values = [p.data for p in self._params]
        attrs = {"decay": self.decay, "warm": self.warm_up}
        apply_update(_AVERAGE, [self._count.data, *means, *values], attrs, 1 + len(means))

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the model has the means for its weights."""
        kept = [p.detach().clone() for p in self._params]
        self.copy_to_model()
        try:
            yield
        finally:
            for p, weight in zip(self._params, kept):
                p.detach().copy_(weight)

    def copy_to_model(self) -> None:
        """Make the means the weights of the model, for good."""
        for p, mean in zip(self._params, self._means):
            p.detach().copy_(mean)

    def state_dict(self) -> dict[str, Any]:
        """The means by the names of the parameters, and the number of steps."""
        means = {name: mean.detach().clone() for name, mean in zip(self._names, self._means)}
        return {"means": means, "steps": int(self._count.item())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` gave. Raises ValueError for other parameters."""
        if set(state["means"]) != set(self._names):
            raise ValueError(
                "ExponentialMovingAverage: the state must have the means of "
                f"{', '.join(self._names)}; it has {', '.join(state['means'])}"
            )
        for name, mean in zip(self._names, self._means):
            mean.copy_(state["means"][name])
        self._count.copy_(int(state["steps"]))
