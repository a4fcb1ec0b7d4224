"""ARCHITECTURE.md's way from a call to its gradient is the whole way."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg

#: The files that a computation runs through, and the folder of the rows.
WAY = {"tensor.py", "tape.py", "backward.py", "ops"}


def leaf(*shape: int) -> tg.Tensor:
    return tg.tensor(np.linspace(0.5, 1.5, int(np.prod(shape))).reshape(shape), requires_grad=True)


def entered(function: Callable[[], Any]) -> set[str]:
    """The files and folders of the package in which ``function`` runs Python code.

    Code that was put together as text belongs to the module that did it.
    """
    package = Path(tg.__file__).parent
    found: set[str] = set()

    def note(frame: FrameType, event: str, argument: Any) -> None:
        name = str(frame.f_globals.get("__name__"))
        if event == "call" and name.partition(".")[0] == "tensorgrad":
            file = Path(str(sys.modules[name].__file__)).relative_to(package)
            found.add(file.parts[0])

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(before)
    return found


def network() -> None:
    """The expression that ARCHITECTURE.md follows."""
    tg.relu(leaf(4, 3) @ leaf(3, 5) + leaf(5)).sum().backward()


@pytest.mark.parametrize(
    "function",
    [
        lambda x, w, b: tg.relu(x @ w + b).sum(),
        lambda x, w, b: (tg.tanh(x @ w) * tg.exp(b)).mean(),
        lambda x, w, b: tg.where(x > 1.0, x, 0.0).reshape(-1).sum(),
        lambda x, w, b: tg.softmax(x @ w - b).max(),
        lambda x, w, b: tg.concat([x.T, w], axis=1)[1:].square().sum(),
    ],
    ids=["relu", "tanh", "where", "softmax", "concat"],
)
def test_a_computation_and_its_gradient_run_through_four_places(
    function: Callable[..., tg.Tensor],
) -> None:
    """One row is like another."""
    x, w, b = leaf(4, 3), leaf(3, 5), leaf(5)
    way = entered(lambda: function(x, w, b).backward())
    assert way == WAY
    assert x.grad is not None
