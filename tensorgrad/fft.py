"""Discrete Fourier transforms: the array API standard's extension, with NumPy's functions."""

from tensorgrad.ops import fourier
from tensorgrad.ops.fourier import *

__all__ = fourier.__all__
