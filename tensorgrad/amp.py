"""Mixed precision: products in 16 bits, parameters and their updates in float32."""

from tensorgrad.ops.precision import autocast
from tensorgrad.optim.scaler import GradScaler

__all__ = ["GradScaler", "autocast"]
