"""The table that ``Module.summary()`` gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tensorgrad import backend, dtypes
from tensorgrad.autograd.walk import nodes_of, saved_bytes
from tensorgrad.nn.evaluating import observing
from tensorgrad.observers import MODE, Observer, current_mode
from tensorgrad.ops.creation import zeros
from tensorgrad.tape import Primitive
from tensorgrad.tensor import Tensor

if TYPE_CHECKING:
    from tensorgrad.nn.module import Module


@dataclass(frozen=True)
class Row:
    """One module: its path, type, output shape (if it was seen), and parameters of its own.

    flops: floating-point operations of its own in a forward pass; None if it was not seen.
    """

    name: str
    type: str
    output_shape: tuple[int, ...] | None
    parameters: int
    flops: int | None = None


@dataclass(frozen=True)
class Summary:
    """All modules of a model; ``str()`` makes a table of it.

    parameters, trainable: how many numbers there are, and how many of them are trained.
    bytes: what the parameters and buffers take.
    flops: floating-point operations of a forward pass: 2 m n k for a matrix product, one for
        each element that is computed or added up otherwise. None without an input shape.
    saved_bytes: what the tape keeps between forward and backward pass, besides the parameters.
    """

    rows: tuple[Row, ...]
    parameters: int
    trainable: int
    bytes: int
    flops: int | None = None
    saved_bytes: int | None = None

    def __str__(self) -> str:
        seen = any(row.output_shape is not None for row in self.rows)
        head = ["module", "type", *(["output shape", "FLOPs"] if seen else []), "parameters"]
        table = [head]
        for row in self.rows:
            shape = "-" if row.output_shape is None else str(row.output_shape)
            count = f"{row.parameters:,}" if row.parameters else "-"
            work = f"{row.flops:,}" if row.flops else "-"
            middle = [shape, work] if seen else []
            table.append([row.name or "(all)", row.type, *middle, count])
        widths = [max(len(line[i]) for line in table) for i in range(len(head))]
        lines = [
            "  ".join(
                cell.ljust(width) if k < 2 or (seen and k == 2) else cell.rjust(width)
                for k, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            for line in table
        ]
        rule = "-" * len(lines[0])
        total = (
            f"{self.parameters:,} parameters, {self.trainable:,} of them trainable, "
            f"{self.bytes:,} bytes"
        )
        if self.flops is not None and self.saved_bytes is not None:
            total += (
                f"\nforward pass: {self.flops:,} FLOPs; "
                f"{self.saved_bytes:,} bytes are kept for the backward pass"
            )
        return "\n".join([lines[0], rule, *lines[1:], rule, total])

    __repr__ = __str__


def summarize(module: Module, input_shape: Any = None, dtype: Any = None) -> Summary:
    """The Summary of ``module``; see ``Module.summary``."""
    seen = None if input_shape is None else _Forward(module, input_shape, dtype)
    counted: set[int] = set()
    rows = []
    for name, part in module.named_modules():
        count = 0
        for p in part.parameters(recurse=False):
            if id(p) not in counted:  # one that is shared counts where it appears first
                counted.add(id(p))
                count += p.size
        shape = None if seen is None else seen.shapes.get(id(part))
        work = None if seen is None else seen.flops.get(id(part), 0)
        rows.append(Row(name, type(part).__name__, shape, count, work))
    parameters = list(module.parameters())
    return Summary(
        rows=tuple(rows),
        parameters=sum(p.size for p in parameters),
        trainable=sum(p.size for p in parameters if p.requires_grad),
        bytes=sum(t.nbytes for t in (*parameters, *module.buffers())),
        flops=None if seen is None else sum(seen.flops.values()),
        saved_bytes=None if seen is None else seen.saved_bytes,
    )


class _Forward(Observer):
    """One forward pass on zeros: what each module returned and computed, and what is kept."""

    def __init__(self, module: Module, input_shape: Any, dtype: Any) -> None:
        self.shapes: dict[int, tuple[int, ...]] = {}
        self.flops: dict[int, int] = {}
        self._running = [id(module)]
        first = next(module.parameters(), None)
        if dtype is None:
            dtype = dtypes.get_default_dtype() if first is None else first.dtype
        one = not input_shape or isinstance(input_shape[0], int)
        device = None if first is None else first.device
        inputs = [
            zeros(tuple(shape), dtype=dtype, device=device)
            for shape in ([input_shape] if one else input_shape)
        ]
        token = MODE.set(current_mode()._replace(grad=True, observers=(self,)))
        try:
            with observing(module, self._observed):
                output = module(*inputs)
        finally:
            MODE.reset(token)
        outputs = output if isinstance(output, tuple | list) else [output]
        roots = [y.node for y in outputs if isinstance(y, Tensor) and y.node is not None]
        own = {id(backend.of(p.data).memory_owner(p.data)) for p in module.parameters()}
        self.saved_bytes = saved_bytes(nodes_of(roots), own)

    def _observed(self, part: Module) -> Callable[..., Any]:
        forward = part.forward

        def call(*args: Any, **kwargs: Any) -> Any:
            """``forward``; the output's shape is noted."""
            self._running.append(id(part))
            out = forward(*args, **kwargs)
            self._running.pop()
            first_out = out[0] if isinstance(out, tuple | list) and out else out
            if isinstance(first_out, Tensor):
                self.shapes[id(part)] = first_out.shape
            return out

        return call

    def computed(
        self, op: Primitive, inputs: Sequence[Any], attrs: Mapping[str, Any], out: Tensor
    ) -> None:
        """Count; see Observer."""
        where = self._running[-1]
        self.flops[where] = self.flops.get(where, 0) + op.flops(inputs, out)
