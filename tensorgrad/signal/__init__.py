"""Signals: short-time Fourier transforms, and the ``windows`` that they go through."""

from typing import TYPE_CHECKING

from tensorgrad.hints import unknown_names as _unknown_names
from tensorgrad.signal import windows as windows
from tensorgrad.signal.transforms import istft, stft

__all__ = ["istft", "stft", "windows"]

if not TYPE_CHECKING:
    __getattr__ = _unknown_names(__name__)
