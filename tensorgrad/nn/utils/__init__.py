"""Helpers around layers; ``rnn`` has those for sequences of different lengths."""

from typing import TYPE_CHECKING

from tensorgrad.hints import unknown_names as _unknown_names
from tensorgrad.nn.utils import rnn as rnn

__all__ = ["rnn"]

if not TYPE_CHECKING:
    __getattr__ = _unknown_names(__name__)
