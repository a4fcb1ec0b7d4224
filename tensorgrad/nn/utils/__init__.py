"""Helpers around layers; ``rnn`` has those for sequences of different lengths."""

from tensorgrad.nn.utils import rnn as rnn

__all__ = ["rnn"]
