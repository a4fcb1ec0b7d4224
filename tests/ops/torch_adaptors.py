"""How the rows of the table are called in PyTorch, where that differs from calling them here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# Rows without a counterpart in PyTorch, each with the reason. A row that gives ``torch=None`` and
# is missing here fails the tests, so that the comparison cannot vanish unnoticed.
WITHOUT: dict[str, str] = {}

# Argument names that differ everywhere.
RENAMED = {"axis": "dim", "keepdims": "keepdim"}

# name of the row -> the call, made with torch tensors in place of arrays
ADAPTORS: dict[str, Callable[..., Any]] = {}


def call(row: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What PyTorch makes of a case of ``row``; the arrays are torch tensors already."""
    import torch

    if row.name in ADAPTORS:
        return ADAPTORS[row.name](*args, **kwargs)
    function: Any = torch
    for name in row.torch.split("."):
        function = getattr(function, name)
    return function(*args, **{RENAMED.get(k, k): v for k, v in kwargs.items()})
