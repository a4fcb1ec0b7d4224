"""A model in evaluation mode for a while, and observed in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tensorgrad.nn.module import Module


@contextmanager
def evaluating(model: Module) -> Iterator[None]:
    """Inside, ``model.eval()``; afterwards each module inside is in the mode it was in before."""
    parts = list(model.modules())
    modes = [part.training for part in parts]
    try:
        model.eval()
        yield
    finally:
        for part, mode in zip(parts, modes, strict=True):
            part.training = mode


@contextmanager
def observing(model: Module, observed: Callable[[Module], Callable[..., Any]]) -> Iterator[None]:
    """As ``evaluating``, with ``observed(part)`` in the place of each part's ``forward``."""
    parts = list(model.modules())
    with evaluating(model):
        try:
            for part in parts:
                vars(part)["forward"] = observed(part)
            yield
        finally:
            for part in parts:
                vars(part).pop("forward", None)
