"""Discrete Fourier transforms: the array API standard's extension, with NumPy's functions."""

from typing import TYPE_CHECKING

from tensorgrad.hints import unknown_names as _unknown_names
from tensorgrad.ops import fourier
from tensorgrad.ops.fourier import *

__all__ = fourier.__all__

if not TYPE_CHECKING:
    __getattr__ = _unknown_names(__name__)
