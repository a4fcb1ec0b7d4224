"""Switching the recording of gradients off and on."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from contextvars import Token
from typing import Any, TypeVar

from tensorgrad.observers import MODE, RECOMPUTING, Mode, current_mode

F = TypeVar("F", bound=Callable[..., Any])


class _SetMode:
    """A context manager and decorator that changes the mode while it is active."""

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
        """``function`` (a generator, a coroutine) with the mode wherever its own code runs.

        Raises TypeError for a class, and for what cannot be called.
        """
        make, of = type(self), f"@{type(self).__name__}()"
        if isinstance(function, type):
            raise TypeError(
                f"{of} is for functions and methods, not for a class; put it before each"
            )
        if not callable(function):
            raise TypeError(f"{of} is for functions and methods; got {function!r}")
        wrapped: Any
        if inspect.isgeneratorfunction(function):

            def wrapped(*args: Any, **kwargs: Any) -> Any:
                return _resumed(make, function(*args, **kwargs))

        elif inspect.isasyncgenfunction(function):

            def wrapped(*args: Any, **kwargs: Any) -> Any:
                return _resumed_async(make, function(*args, **kwargs))

        elif inspect.iscoroutinefunction(function):

            async def wrapped(*args: Any, **kwargs: Any) -> Any:
                with make():
                    return await function(*args, **kwargs)

        else:

            def wrapped(*args: Any, **kwargs: Any) -> Any:
                with make():
                    return function(*args, **kwargs)

        found: Any = functools.wraps(function)(wrapped)
        return found


def _resumed(make: type[_SetMode], inner: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """``inner``, in the mode while it runs and not while it waits: that is its caller's time."""
    step: Callable[[], Any] = functools.partial(inner.send, None)
    try:
        while True:
            with make():
                found = step()
            try:
                sent = yield found
            except GeneratorExit:
                with make():
                    inner.close()
                raise
            except BaseException as error:
                step = functools.partial(inner.throw, error)
            else:
                step = functools.partial(inner.send, sent)
    except StopIteration as end:
        return end.value


async def _resumed_async(
    make: type[_SetMode], inner: AsyncGenerator[Any, Any]
) -> AsyncGenerator[Any, Any]:
    """``_resumed`` for an asynchronous generator."""
    step: Callable[[], Any] = functools.partial(inner.asend, None)
    try:
        while True:
            with make():
                found = await step()
            try:
                sent = yield found
            except GeneratorExit:
                with make():
                    await inner.aclose()
                raise
            except BaseException as error:
                step = functools.partial(inner.athrow, error)
            else:
                step = functools.partial(inner.asend, sent)
    except StopAsyncIteration:
        return


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


def is_recomputing() -> bool:
    """Whether this is ``checkpoint`` computing a segment again, for the backward pass.

    What a module counts or averages over its calls is not to be changed then: it was the first
    time.
    """
    return RECOMPUTING.get()
