"""What a network makes of the plane, as bytes that a page can paint."""

from __future__ import annotations

from base64 import b64encode
from functools import lru_cache
from typing import Any

import numpy as np

from tensorgrad.playground.datasets import RANGE, Array
from tensorgrad.playground.network import Learner, features_of
from tensorgrad.playground.settings import FEATURES
from tensorgrad.tensor import Tensor

#: Pixels along a side of the output's picture, and of a thumbnail, which is a third of it.
SIZE, THUMBNAIL = 90, 30
#: What may be painted in thumbnails at once; of wider networks the first units of each layer are.
_MOST_THUMBNAILS = 200


@lru_cache(maxsize=1)
def grid() -> Array:
    """The middles of the pixels [SIZE * SIZE, 2], row by row from the top left corner."""
    line = (np.arange(SIZE) + 0.5) / SIZE * 2 * RANGE - RANGE
    x, y = np.meshgrid(line, -line)
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)


@lru_cache(maxsize=8)
def _inputs(features: tuple[str, ...]) -> Tensor:
    return Tensor(features_of(grid(), features))


def coded(values: Array) -> str:
    """Numbers from -1 to 1 as bytes from 0 to 255 in base64; what lies beyond is cut off."""
    whole = np.nan_to_num(values, nan=0.0).clip(-1, 1) * 127.5 + 127.5
    return b64encode((whole + 0.5).astype(np.uint8).tobytes()).decode()


def _thumbnail(column: Array) -> str:
    return coded(column.reshape(SIZE, SIZE)[1::3, 1::3])


def pictures(learner: Learner) -> dict[str, Any]:
    """``output`` and ``units`` of a frame.

    The network runs on the whole grid at once and eagerly: a page that adds a unit sees it now, and
    not after a compiler has run, and for ten thousand points Python's share is small.
    """
    layers = [one.numpy() for one in learner.outputs(_inputs(learner.settings.features))]
    share = max(1, _MOST_THUMBNAILS // len(layers))
    units = [[_thumbnail(layer[:, k]) for k in range(min(layer.shape[1], share))]
             for layer in layers]  # fmt: skip
    return {"output": _output(layers[-1]), "units": units}


def _output(last: Array) -> dict[str, Any]:
    if last.shape[1] == 1:
        return {"size": SIZE, "channels": 1, "bytes": coded(last)}
    with np.errstate(all="ignore"):
        shares = np.exp(last - last.max(axis=1, keepdims=True))
        certainty = np.nan_to_num(1 / shares.sum(axis=1))
    pair = np.stack([last.argmax(axis=1), (certainty * 255).round()], axis=1).astype(np.uint8)
    return {"size": SIZE, "channels": 2, "bytes": b64encode(pair.tobytes()).decode()}


def unit_picture(learner: Learner, layer: int, unit: int) -> dict[str, Any]:
    """What a unit makes of the plane, large, with its least and greatest value."""
    values = learner.outputs(_inputs(learner.settings.features))[layer][:, unit].numpy()
    linear = learner.linears()[layer]
    assert linear.bias is not None
    return {
        "layer": layer,
        "unit": unit,
        "size": SIZE,
        "bytes": coded(values),
        "least": finite(values.min()),
        "greatest": finite(values.max()),
        "weights": [finite(w) for w in linear.weight[unit].tolist()],
        "bias": finite(linear.bias[unit].item()),
    }


@lru_cache(maxsize=1)
def feature_pictures() -> dict[str, str]:
    """A thumbnail of each feature."""
    columns = features_of(grid(), FEATURES)
    return {name: _thumbnail(columns[:, k]) for k, name in enumerate(FEATURES)}


def finite(value: Any) -> float | None:
    """A number as JSON can hold it: None for NaN and infinities."""
    number = float(value)
    return number if np.isfinite(number) else None


def finite_list(values: list[Any]) -> list[Any]:
    """Numbers in lists in lists, each as ``finite`` gives it."""
    return [finite_list(v) if isinstance(v, list) else finite(v) for v in values]
