"""The table that ``Module.summary()`` gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tensorgrad import dtypes
from tensorgrad.autograd.modes import no_grad
from tensorgrad.nn.module import Module
from tensorgrad.ops.creation import zeros
from tensorgrad.tensor import Tensor


@dataclass(frozen=True)
class Row:
    """One module: its path, type, output shape (if it was seen), and parameters of its own."""

    name: str
    type: str
    output_shape: tuple[int, ...] | None
    parameters: int


@dataclass(frozen=True)
class Summary:
    """All modules of a model; ``str()`` makes a table of it.

    parameters, trainable: how many numbers there are, and how many of them are trained.
    bytes: what the parameters and buffers take.
    """

    rows: tuple[Row, ...]
    parameters: int
    trainable: int
    bytes: int

    def __str__(self) -> str:
        seen = any(row.output_shape is not None for row in self.rows)
        head = ["module", "type", *(["output shape"] if seen else []), "parameters"]
        table = [head]
        for row in self.rows:
            shape = "-" if row.output_shape is None else str(row.output_shape)
            count = f"{row.parameters:,}" if row.parameters else "-"
            table.append([row.name or "(all)", row.type, *([shape] if seen else []), count])
        widths = [max(len(line[i]) for line in table) for i in range(len(head))]
        lines = [
            "  ".join(
                [cell.ljust(width) for cell, width in zip(line[:-1], widths, strict=False)]
                + [line[-1].rjust(widths[-1])]
            )
            for line in table
        ]
        rule = "-" * len(lines[0])
        total = (
            f"{self.parameters:,} parameters, {self.trainable:,} of them trainable, "
            f"{self.bytes:,} bytes"
        )
        return "\n".join([lines[0], rule, *lines[1:], rule, total])

    __repr__ = __str__


def summarize(module: Module, input_shape: Any = None, dtype: Any = None) -> Summary:
    """The Summary of ``module``; see ``Module.summary``."""
    shapes = {} if input_shape is None else _output_shapes(module, input_shape, dtype)
    counted: set[int] = set()
    rows = []
    for name, part in module.named_modules():
        count = 0
        for p in part.parameters(recurse=False):
            if id(p) not in counted:  # one that is shared counts where it appears first
                counted.add(id(p))
                count += p.size
        rows.append(Row(name, type(part).__name__, shapes.get(id(part)), count))
    parameters = list(module.parameters())
    return Summary(
        rows=tuple(rows),
        parameters=sum(p.size for p in parameters),
        trainable=sum(p.size for p in parameters if p.requires_grad),
        bytes=sum(t.nbytes for t in (*parameters, *module.buffers())),
    )


def _output_shapes(module: Module, input_shape: Any, dtype: Any) -> dict[int, tuple[int, ...]]:
    """id of a module -> the shape of what it returned when zeros were run through the model."""
    first = next(module.parameters(), None)
    if dtype is None:
        dtype = dtypes.get_default_dtype() if first is None else first.dtype
    one = not input_shape or isinstance(input_shape[0], int)
    device = None if first is None else first.device
    inputs = [
        zeros(tuple(shape), dtype=dtype, device=device)
        for shape in ([input_shape] if one else input_shape)
    ]
    found: dict[int, tuple[int, ...]] = {}

    def observed(part: Module) -> Callable[..., Any]:
        forward = part.forward

        def call(*args: Any, **kwargs: Any) -> Any:
            out = forward(*args, **kwargs)
            first_out = out[0] if isinstance(out, tuple | list) and out else out
            if isinstance(first_out, Tensor):
                found[id(part)] = first_out.shape
            return out

        return call

    parts = list(module.modules())
    modes = [part.training for part in parts]
    try:
        for part in parts:
            part.training = False
            vars(part)["forward"] = observed(part)
        with no_grad():
            module(*inputs)
    finally:
        for part, mode in zip(parts, modes, strict=True):
            part.training = mode
            vars(part).pop("forward", None)
    return found
