"""The handwritten digits that come along."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from tensorgrad.data.idx import read_idx


def digits() -> tuple[ndarray[Any, Any], ndarray[Any, Any]]:
    """The embedded handwritten digits: images uint8 [1797, 8, 8] of 0 to 16, labels int64 [1797].

    They are the test part of "Optical Recognition of Handwritten Digits" by E. Alpaydin and
    C. Kaynak (1998), UCI Machine Learning Repository, https://doi.org/10.24432/C50P49, licensed
    CC BY 4.0. Split into images and labels and stored as IDX files; nothing else was changed.
    """
    folder = Path(__file__).parent / "uci_digits"
    images = read_idx(folder / "digits-images-idx3-ubyte.gz")
    labels = read_idx(folder / "digits-labels-idx1-ubyte.gz")
    return images, labels.astype(np.int64)
