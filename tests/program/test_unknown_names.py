"""A step may ask for names that are not there, and import from parts that give hints for them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import tensorgrad as tg


def _imports(x: tg.Tensor) -> tg.Tensor:
    """Importing a name asks a module whether it is a package."""
    from tensorgrad.ops.random import Generator

    return x * (3 if Generator.__name__ else 2)


def _asks_a_tensor(x: tg.Tensor) -> tg.Tensor:
    return x * (2 if hasattr(x, "nonsense") else 3)


def _asks_a_module(x: tg.Tensor) -> tg.Tensor:
    return x * (2 if hasattr(tg.nn.functional, "nonsense") else 3)


@pytest.mark.parametrize("function", [_imports, _asks_a_tensor, _asks_a_module])
def test_names_that_are_not_there(function: Callable[[tg.Tensor], tg.Tensor]) -> None:
    step = tg.compile(function)
    for k in range(3):
        assert step(tg.ones(2) * k).tolist() == [3.0 * k] * 2
    assert "2 replays" in str(step.report()) or "3 replays" in str(step.report())
