"""What is said to whoever asks the playground for something that cannot be."""

from __future__ import annotations

from tensorgrad.errors import TensorgradError


class PlaygroundError(TensorgradError, ValueError):
    """A request that cannot be carried out: one line, what must hold and what came."""


def shown(value: object, most: int = 60) -> str:
    """``value`` as it is quoted in an error, on one line and not long."""
    text = " ".join(repr(value).split())
    return text if len(text) <= most else f"{text[:most]}..."
