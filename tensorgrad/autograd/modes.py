"""Switching the recording of gradients off and on."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextvars import ContextVar, Token
from typing import Any, TypeVar

from tensorgrad.tape import MODE, Mode, current_mode

F = TypeVar("F", bound=Callable[..., Any])


class _SetMode:
    """A context manager and decorator that changes the mode of the seam while it is active."""

    def __init__(self) -> None:
        self._tokens: list[Token[Mode]] = []

    def _wanted(self, mode: Mode) -> Mode:
        raise NotImplementedError

    def __enter__(self) -> _SetMode:
        self._tokens.append(MODE.set(self._wanted(current_mode())))
        return self

    def __exit__(self, *exc: object) -> None:
        MODE.reset(self._tokens.pop())

    def __call__(self, function: F) -> F:
        make = type(self)

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with make():
                return function(*args, **kwargs)

        return wrapped  # type: ignore[return-value]


class no_grad(_SetMode):
    """Record nothing for gradients: ``with tg.no_grad(): ...`` or ``@tg.no_grad()``."""

    def _wanted(self, mode: Mode) -> Mode:
        return mode._replace(grad=False)


class enable_grad(_SetMode):
    """Record for gradients again, inside ``no_grad``."""

    def _wanted(self, mode: Mode) -> Mode:
        return mode._replace(grad=True)


def is_grad_enabled() -> bool:
    """Whether operations are recorded for gradients here."""
    return current_mode().grad


RECOMPUTING: ContextVar[bool] = ContextVar("recomputing", default=False)


def is_recomputing() -> bool:
    """Whether this is ``checkpoint`` computing a segment again, for the backward pass.

    What a module counts or averages over its calls is not to be changed then: it was the first
    time.
    """
    return RECOMPUTING.get()
