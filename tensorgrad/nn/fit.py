"""What layers say of inputs that do not fit; ``Module.check`` makes problems and fixes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tensorgrad.tensor import Tensor


@dataclass(frozen=True)
class Misfit:
    """What a layer says of an input: the axis and the size it has, and what it should be."""

    axis: int | None
    what: str
    own: str  # how the layer would have to be made, "" if it cannot
    wanted: int | None = None  # the size of the axis that the layer wants
    #: the shape of what it would have given; a list for several
    output: tuple[int, ...] | list[Any] | None = None


def last_axis(x: Tensor, name: str, size: int, outputs: int) -> Misfit | None:
    """For a layer that wants ``size`` features in the last axis."""
    if x.shape and x.shape[-1] == size:
        return None
    if not x.shape:
        return Misfit(None, "the input has no axis", "", size)
    return Misfit(
        len(x.shape) - 1,
        f"the input has shape {x.shape}; its last axis must have size {size}",
        f"{name}={x.shape[-1]} here",
        size,
        (*x.shape[:-1], outputs),
    )


def normalized(x: Tensor, sizes: tuple[int, ...]) -> Misfit | None:
    """For a layer that wants ``sizes`` in the last axes."""
    n = len(sizes)
    if x.shape[-n:] == sizes:
        return None
    if len(x.shape) < n:
        return Misfit(None, f"the input has shape {x.shape}, and {n} axes are to be normalized",
                      "normalized_shape of fewer axes here")  # fmt: skip
    axis = next(k for k in range(1, n + 1) if x.shape[-k] != sizes[-k])
    wanted = sizes[-axis]
    own = x.shape[-n:] if n > 1 else x.shape[-1]
    return Misfit(
        len(x.shape) - axis,
        f"the input has shape {x.shape}; its last axes must be {sizes}",
        f"normalized_shape={own} here", wanted, x.shape,
    )  # fmt: skip


def channels(x: Tensor, name: str, size: int, ranks: Sequence[int], shape: str) -> Misfit | None:
    """For a layer that wants ``size`` channels in axis 1."""
    text = shape.replace("{}", str(size))
    if len(x.shape) not in ranks:
        fix = "nn.Flatten() before it" if len(x.shape) > max(ranks) else ""
        return Misfit(None, f"the input has shape {x.shape}; it must have shape {text}", fix,
                      None, x.shape)  # fmt: skip
    if x.shape[1] == size:
        return None
    return Misfit(
        1, f"the input has shape {x.shape}; it must have shape {text}",
        f"{name}={x.shape[1]} here", size, x.shape,
    )  # fmt: skip
