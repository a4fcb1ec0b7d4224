"""GradScaler: losses scaled up so that float16 gradients do not vanish."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tensorgrad.optim.optimizer import Optimizer
from tensorgrad.tape import Primitive, apply
from tensorgrad.tensor import Tensor


def _unscale_value(xp: Any, found: Any, scale: Any, *grads: Any) -> Any:
    found[()] = 0
    factor = 1 / scale
    for g in grads:
        xp.multiply(g, factor.astype(g.dtype), out=g)
        found[()] = xp.maximum(found, ~xp.isfinite(g).all())
    return found


_UNSCALE = Primitive(
    "unscale_",
    _unscale_value,
    {"found": None, "scale": None, "*grads": None},
    types="any",
    overwrites=lambda count: (0, *range(2, count)),
)


def unscale(optimizer: Optimizer, scale: Tensor, found: Tensor) -> None:
    """Divide the gradients of ``optimizer`` by ``scale``; ``found`` is 1 if one is not finite."""
    grads = [
        p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None
    ]
    if grads:
        apply(_UNSCALE, (found, scale, *grads))


class GradScaler:
    """Dynamic loss scaling (Micikevicius and others, 2018, "Mixed precision training").

    ::

        scaler = GradScaler()
        with autocast("float16"):
            loss = loss_fn(model(x), t)
        scaler.scale(loss).backward()
        scaler.step(optimizer)  # divides the gradients; leaves the step out if one is not finite
        scaler.update()

    init_scale: the first factor. growth_factor: by which it grows after ``growth_interval`` steps
    in a row with finite gradients. backoff_factor: by which it shrinks after one without.

    ``skipped`` counts the steps left out.

    Its numbers lie on the device of the losses, where they move at the first one.

    Raises ValueError for factors that would not grow or shrink.
    """

    def __init__(
        self,
        init_scale: float = 65536.0,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
    ) -> None:
        if not (init_scale > 0 and growth_factor > 1 > backoff_factor > 0 < growth_interval):
            raise ValueError(
                "GradScaler: init_scale must be above 0, growth_factor above 1, backoff_factor "
                f"between 0 and 1, growth_interval from 1; got {init_scale}, {growth_factor}, "
                f"{backoff_factor}, {growth_interval}"
            )
        self.growth_factor, self.backoff_factor = growth_factor, backoff_factor
        self.growth_interval = growth_interval
        self.skipped = 0
        self._steps = 0  # since the scale was last changed
        #: The factor, and 1 if the last gradients were not finite: 0-d float32 tensors that are
        #: overwritten. A compiled step refers to them and not to the scaler, which counts.
        self.scale_tensor = Tensor(init_scale, dtype="float32", device="cpu")
        self.found = Tensor(0.0, dtype="float32", device="cpu")
        self._unscaled = False

    def get_scale(self) -> float:
        """The factor of the losses now."""
        return float(self.scale_tensor.item())

    def to(self, device: str) -> GradScaler:
        """Move the numbers to a device; returns the scaler."""
        if self.scale_tensor.device != device:
            self.scale_tensor = self.scale_tensor.to(device)
            self.found = self.found.to(device)
        return self

    def scale(self, loss: Tensor) -> Tensor:
        """The loss times the factor, in float32."""
        self.to(loss.device)
        return loss * self.scale_tensor

    def unscale_(self, optimizer: Optimizer) -> None:
        """Divide the gradients of ``optimizer`` by the factor; for clipping before ``step``."""
        grads = [
            p.grad
            for group in optimizer.param_groups
            for p in group["params"]
            if p.grad is not None
        ]
        if grads:
            apply(_UNSCALE, (self.found, self.scale_tensor, *grads))
        self._unscaled = True

    def finite(self) -> bool:
        """Whether all gradients were finite when they were unscaled; waits for a GPU."""
        return not self.found.item()

    def step(self, optimizer: Optimizer) -> bool:
        """``optimizer.step()`` if all gradients are finite, else nothing; says which."""
        if not self._unscaled:
            self.unscale_(optimizer)
        finite = self.finite()
        if finite:
            optimizer.step()
        return finite

    def update(self) -> None:
        """Set the factor for the next step."""
        self._unscaled = False
        if not self.finite():
            self.scale_tensor.copy_(self.scale_tensor.item() * self.backoff_factor)
            self.skipped += 1
            self._steps = 0
            return
        self._steps += 1
        if self._steps == self.growth_interval:
            self.scale_tensor.copy_(self.scale_tensor.item() * self.growth_factor)
            self._steps = 0

    def state_dict(self) -> dict[str, Any]:
        """The factor, and what the next change of it depends on."""
        return {"scale": self.get_scale(), "steps": self._steps, "skipped": self.skipped}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` gave."""
        self.scale_tensor.copy_(float(state["scale"]))
        self._steps, self.skipped = int(state["steps"]), int(state["skipped"])
