"""Moving tensors between devices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tensorgrad import backend
from tensorgrad.tape import Primitive, apply

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor


def _transfer_value(xp: Any, x: Any, source: str, target: str) -> Any:
    return backend.backend_for(target).asarray(x, x.dtype, target, None)


_TRANSFER: Primitive = Primitive(
    "to_device",
    _transfer_value,
    {"x": lambda g, source, target: apply(_TRANSFER, (g,), {"source": target, "target": source})},
    moves=True,
    elementwise=True,
)


def to_device(x: Tensor, device: str) -> Tensor:
    """``x`` on another device, as ``backend.normalize`` names it; the gradient goes back."""
    return apply(_TRANSFER, (x,), {"source": x.device, "target": device})
