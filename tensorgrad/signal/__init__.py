"""Signals: short-time Fourier transforms, and the ``windows`` that they go through."""

from tensorgrad.signal import windows as windows
from tensorgrad.signal.transforms import istft, stft

__all__ = ["istft", "stft", "windows"]
