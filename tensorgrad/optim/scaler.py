"""GradScaler: losses scaled up so that float16 gradients do not vanish."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from tensorgrad.dtypes import HALVES
from tensorgrad.errors import GradientError
from tensorgrad.observers import is_captured
from tensorgrad.optim.optimizer import Optimizer
from tensorgrad.sparse import in_memory
from tensorgrad.tape import Primitive, apply
from tensorgrad.tensor import Tensor


def _unscale_value(xp: Any, found: Any, scale: Any, *grads: Any) -> Any:
    found[()] = 0
    factor = 1 / scale
    for g in grads:
        if g.dtype in HALVES:  # in which 1 / scale may be 0
            g[...] = (g.astype(factor.dtype) * factor).astype(g.dtype)
        else:
            xp.multiply(g, factor.astype(g.dtype), out=g)
        found[()] = xp.maximum(found, ~xp.isfinite(g).all())
    return found


# Powers of two beyond which the scale does not go: it stays finite, and so does 1 / scale.
_LEAST, _MOST = 2.0**-126, 2.0**126

_UNSCALE = Primitive(
    "unscale_",
    _unscale_value,
    {"found": None, "scale": None, "*grads": None},
    promotion="any",
    mutates=lambda count: (0, *range(2, count)),
)


def unscale(optimizer: Optimizer, scale: Tensor, found: Tensor) -> None:
    """Divide the gradients of ``optimizer`` by ``scale``; ``found`` is 1 if one is not finite."""
    grads = [
        p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None
    ]
    if grads:
        apply(_UNSCALE, (found, scale, *in_memory(grads)))


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

    Several optimizers share one scaler: ``step`` is called for each and ``update`` once. Each is
    left out only where its own gradients are not finite; the factor shrinks if those of any are.

    ``skipped`` counts the updates after which steps were left out.

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
        if not (
            _LEAST <= init_scale <= _MOST
            and 1 < growth_factor < math.inf
            and 0 < backoff_factor < 1
            and growth_interval > 0
        ):
            raise ValueError(
                "GradScaler: init_scale must be from 2**-126 to 2**126, growth_factor above 1, "
                "backoff_factor between 0 and 1, growth_interval from 1; got "
                f"{init_scale}, {growth_factor}, {backoff_factor}, {growth_interval}"
            )
        self.growth_factor, self.backoff_factor = growth_factor, backoff_factor
        self.growth_interval = growth_interval
        self.skipped = 0
        self._steps = 0  # since the scale was last changed
        #: The factor, a 0-d float32 tensor that is overwritten. A compiled step refers to it and
        #: not to the scaler, which counts.
        self.scale_tensor = Tensor(init_scale, dtype="float32", device="cpu")
        # The optimizers unscaled since the last update, each with 1 if a gradient is not finite;
        # and those of them that were stepped.
        self._found: dict[Optimizer, Tensor] = {}
        # Those that are not in there yet: a program may add to a list, but not look at it before.
        self._unscaled: list[tuple[Optimizer, Tensor]] = []
        self._stepped: set[Optimizer] = set()

    def get_scale(self) -> float:
        """The factor of the losses now."""
        return float(self.scale_tensor.item())

    def to(self, device: str) -> GradScaler:
        """Move the numbers to a device; returns the scaler."""
        if self.scale_tensor.device != device:
            self.scale_tensor = self.scale_tensor.to(device)
        return self

    def scale(self, loss: Tensor) -> Tensor:
        """The loss times the factor, in float32."""
        self.to(loss.device)
        return loss * self.scale_tensor

    def unscale_(self, optimizer: Optimizer) -> None:
        """Divide the gradients of ``optimizer`` by the factor; for clipping before ``step``.

        Raises GradientError if they, or one of them, were divided before since the last ``update``.
        """
        if not is_captured():  # in a program it is step() that finds the mistake
            self._check(optimizer, [*self._found, *(other for other, _ in self._unscaled)])
        found = self.scale_tensor * 0.0
        unscale(optimizer, self.scale_tensor, found)
        self._unscaled.append((optimizer, found))

    @staticmethod
    def _check(optimizer: Optimizer, before: Collection[Optimizer]) -> None:
        """Raise GradientError if a gradient of ``optimizer`` was divided with those ``before``."""
        if optimizer in before:
            raise GradientError(
                "GradScaler: the gradients of this optimizer were divided by the scale already; "
                "call unscale_() at most once and before step(), and update() after the steps of "
                "all optimizers"
            )
        own = set(map(id, optimizer._all_params()))
        if any(id(p) in own for other in before for p in other._all_params()):
            raise GradientError(
                "GradScaler: a parameter belongs to two of the optimizers, and its gradient would "
                "be divided by the scale twice; let one of them have it, or give each a scaler and "
                "a backward pass of its own"
            )

    def _settle(self) -> None:
        """Take what was divided since the last time to what was divided since ``update``."""
        unscaled = self._unscaled[:]
        self._unscaled.clear()
        for optimizer, found in unscaled:
            self._check(optimizer, self._found)
            self._found[optimizer] = found

    def step(self, optimizer: Optimizer) -> bool:
        """``optimizer.step()`` if all its gradients are finite, else nothing; says which.

        Raises GradientError if it was stepped before since the last ``update``.
        """
        self._settle()
        if optimizer in self._stepped:
            raise GradientError(
                "GradScaler: this optimizer was stepped already since the last update(); call "
                "update() once after the steps of all optimizers"
            )
        if optimizer not in self._found:
            self.unscale_(optimizer)
            self._settle()
        self._stepped.add(optimizer)
        finite = not self._found[optimizer].item()
        if finite:
            optimizer.step()
        return finite

    def update(self) -> None:
        """Set the factor for the next step, after the steps of all optimizers.

        Raises GradientError if no optimizer was stepped or unscaled since the last time.
        """
        self._settle()
        if not self._found:
            raise GradientError(
                "GradScaler: update() needs gradients to judge the scale by, and no optimizer was "
                "stepped since the last update(); call step(optimizer) first"
            )
        finite = not any(found.item() for found in self._found.values())
        self._found.clear()
        self._stepped.clear()
        self.adjust(finite)

    def adjust(self, finite: bool) -> None:
        """Shrink the factor unless the gradients were ``finite``, or count a step towards growth.

        It is what ``update`` does with what it finds.
        """
        if not finite:
            self._multiply(self.backoff_factor)
            self.skipped += 1
            return
        self._steps += 1
        if self._steps >= self.growth_interval:
            self._multiply(self.growth_factor)

    def _multiply(self, factor: float) -> None:
        self.scale_tensor.copy_(min(max(self.get_scale() * factor, _LEAST), _MOST))
        self._steps = 0

    def state_dict(self) -> dict[str, Any]:
        """The factor, and what the next change of it depends on."""
        return {"scale": self.get_scale(), "steps": self._steps, "skipped": self.skipped}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` gave. Raises ValueError for a factor out of range."""
        scale = float(state["scale"])
        if not _LEAST <= scale <= _MOST:
            raise ValueError(
                f"GradScaler: the scale must be from 2**-126 to 2**126; the state has {scale}"
            )
        self.scale_tensor.copy_(scale)
        self._steps, self.skipped = int(state["steps"]), int(state["skipped"])
        self._unscaled.clear()
        self._found.clear()
        self._stepped.clear()
