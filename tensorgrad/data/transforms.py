"""Changes to batches on their way to the network: scaling, random variations, targets.

A transform changes one part of a batch, all its examples at once. It draws its random numbers from
a NumPy generator that the DataLoader makes for each batch out of its seed, the epoch and the number
of the batch; so a resumed run, and one with more workers, sees the same variations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy import ndarray

from tensorgrad import backend
from tensorgrad.data.batches import like
from tensorgrad.errors import ShapeError, TensorgradError

Random = np.random.Generator


class Transform:
    """Base: ``apply(x, random)`` gives the new form of one part of a batch.

    part: which part of the batch is changed; 0 is the input, -1 the target. Of a batch that is a
        dict, the key.
    """

    def __init__(self, part: Any = 0) -> None:
        self.part = part

    def apply(self, x: Any, random: Random) -> Any:
        """The new form of ``x``, an array [batch, ...] that must not be overwritten."""
        raise NotImplementedError(f"{type(self).__name__} does not define apply()")

    def __call__(self, batch: Any, random: Random) -> Any:
        """The batch with this part changed. Raises TensorgradError if it has no such part."""
        parts: Any = dict(batch) if isinstance(batch, dict) else list(batch)
        try:
            old = parts[self.part]
        except (IndexError, KeyError, TypeError) as error:
            raise TensorgradError(
                f"{type(self).__name__}: a batch has the parts "
                f"{', '.join(map(repr, parts if isinstance(batch, dict) else range(len(parts))))}, "
                f"but part={self.part!r} is to be changed; name one of them"
            ) from error
        parts[self.part] = self.apply(old, random)
        return parts if isinstance(batch, dict) else like(batch, parts)


class Compose(Transform):
    """Several transforms, one after the other.

    Plain functions may stand among them: they are given the parts of the batch (a dict whole) and
    return the new ones.
    """

    def __init__(self, *transforms: Transform | Callable[..., Any]) -> None:
        super().__init__()
        self.transforms = transforms

    def __call__(self, batch: Any, random: Random) -> Any:
        """The batch after all of them."""
        for transform in self.transforms:
            batch = apply(transform, batch, random)
        return batch


def apply(transform: Transform | Callable[..., Any], batch: Any, random: Random) -> Any:
    """The batch after a transform, or after a plain function of its parts (of a dict as it is)."""
    if isinstance(transform, Transform):
        return transform(batch, random)
    changed = transform(batch) if isinstance(batch, dict) else transform(*batch)
    if isinstance(changed, tuple | dict):
        return changed
    return tuple(changed) if isinstance(changed, list) else (changed,)


class Normalize(Transform):
    """``(x - mean) / std``, as float32 (or float64 where x is).

    mean, std: numbers, or arrays that broadcast against the examples. ``Normalize.of(x)`` takes
        them from data, for each feature.

    Raises TensorgradError if a std is not above 0.
    """

    def __init__(self, mean: Any, std: Any, part: Any = 0) -> None:
        super().__init__(part)
        self.mean: ndarray[Any, Any] = np.asarray(mean, np.float64)
        self.std: ndarray[Any, Any] = np.asarray(std, np.float64)
        if not (self.std > 0).all():
            raise TensorgradError(
                f"Normalize: every std must be above 0; got {self.std.min()}. Normalize.of(x) "
                "takes 1 for features that do not vary"
            )

    @classmethod
    def of(cls, x: Any, axis: Any = 0, part: Any = 0) -> Normalize:
        """From data [n, ...]: mean and standard deviation over ``axis``; 1 where nothing varies."""
        values = np.asarray(x, np.float64)
        std = values.std(axis)
        return cls(values.mean(axis), np.where(std > 0, std, 1.0), part)

    def apply(self, x: Any, random: Random) -> Any:
        """Scaled and shifted."""
        xp = backend.of(x).xp
        dtype = x.dtype if x.dtype in (np.float32, np.float64) else np.dtype(np.float32)
        mean, scale = self.mean.astype(dtype), (1 / self.std).astype(dtype)
        return (x.astype(dtype, copy=False) - xp.asarray(mean)) * xp.asarray(scale)


class RandomFlip(Transform):
    """Mirrors each example with probability ``p`` along ``axis`` (-1: left and right)."""

    def __init__(self, p: float = 0.5, axis: int = -1, part: Any = 0) -> None:
        super().__init__(part)
        if not 0 <= p <= 1:
            raise TensorgradError(f"RandomFlip: p must lie between 0 and 1; got {p}")
        self.p, self.axis = p, axis

    def apply(self, x: Any, random: Random) -> Any:
        """Some of the examples mirrored."""
        xp = backend.of(x).xp
        axis = self.axis if self.axis < 0 else self.axis + 1
        if not axis % x.ndim > 0:
            raise ShapeError(
                f"RandomFlip: examples of shape {x.shape[1:]} have no axis {self.axis}"
            )
        chosen = random.random(len(x)) < self.p
        mask = xp.asarray(chosen.reshape(-1, *[1] * (x.ndim - 1)))
        return xp.where(mask, xp.flip(x, axis), x)


class RandomShift(Transform):
    """Moves each image by up to ``pixels`` up or down and left or right, whole pixels.

    fill: the value of what comes in at the edges. Images are [batch, ..., height, width].
    """

    def __init__(self, pixels: int, fill: float = 0, part: Any = 0) -> None:
        super().__init__(part)
        if pixels < 0:
            raise TensorgradError(
                f"RandomShift: pixels must be a whole number from 0; got {pixels}"
            )
        self.pixels, self.fill = pixels, fill

    def apply(self, x: Any, random: Random) -> Any:
        """Each image at its new place."""
        if x.ndim < 3:
            raise ShapeError(
                f"RandomShift: images must have shape (batch, ..., height, width); got {x.shape}. "
                "Shift before they are made into rows"
            )
        xp = backend.of(x).xp
        n, (height, width) = len(x), x.shape[-2:]
        room = self.pixels
        padded = xp.full((*x.shape[:-2], height + 2 * room, width + 2 * room), self.fill, x.dtype)
        padded[..., room : room + height, room : room + width] = x
        moved = xp.asarray(random.integers(0, 2 * room + 1, (2, n)))
        rows = (moved[0][:, None] + xp.arange(height))[:, :, None]
        columns = (moved[1][:, None] + xp.arange(width))[:, None, :]
        between = (1,) * (x.ndim - 3)
        index: list[Any] = [xp.arange(n).reshape(n, *between, 1, 1)]
        for axis in range(1, x.ndim - 2):
            sizes = [1] * x.ndim
            sizes[axis] = x.shape[axis]
            index.append(xp.arange(x.shape[axis]).reshape(sizes))
        index += [rows.reshape(n, *between, height, 1), columns.reshape(n, *between, 1, width)]
        return padded[tuple(index)]


class GaussianNoise(Transform):
    """Adds normal noise of standard deviation ``std`` to every number."""

    def __init__(self, std: float, part: Any = 0) -> None:
        super().__init__(part)
        if std < 0:
            raise TensorgradError(f"GaussianNoise: std must be from 0; got {std}")
        self.std = std

    def apply(self, x: Any, random: Random) -> Any:
        """With the noise."""
        noise = random.standard_normal(x.shape, np.float32)
        return x + backend.of(x).xp.asarray((noise * np.float32(self.std)).astype(x.dtype))


class OneHot(Transform):
    """Classes [batch] as rows [batch, classes] that are 1 at the class and 0 elsewhere.

    low, high: other values than 0 and 1, as .1 and .9, which a sigmoid unit can reach.
    """

    def __init__(self, classes: int, low: float = 0.0, high: float = 1.0, part: Any = -1) -> None:
        super().__init__(part)
        self.classes, self.low, self.high = classes, low, high

    def apply(self, x: Any, random: Random) -> Any:
        """float32 rows. Raises ShapeError unless x holds integers [batch], and below classes."""
        xp = backend.of(x).xp
        if x.ndim != 1 or x.dtype.kind not in "iu":
            raise ShapeError(
                f"OneHot: targets must be integers of shape (batch,); got {x.dtype} {x.shape}"
            )
        if type(x) is ndarray and x.size and not (x.min() >= 0 and x.max() < self.classes):
            raise ShapeError(
                f"OneHot: classes must lie from 0 to {self.classes - 1}; got {x.min()} to {x.max()}"
            )
        rows = xp.full((len(x), self.classes), self.low, np.float32)
        rows[xp.arange(len(x)), x] = self.high
        return rows


class TargetRange(OneHot):
    """Classes as rows of .1 and .9, the targets of the textbooks for sigmoid units."""

    def __init__(self, classes: int, low: float = 0.1, high: float = 0.9, part: Any = -1) -> None:
        super().__init__(classes, low, high, part)
