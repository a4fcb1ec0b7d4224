"""Finding where the first NaN or Inf arose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tensorgrad import backend
from tensorgrad.autograd.modes import _SetMode
from tensorgrad.dtypes import COMPLEX, INEXACT
from tensorgrad.errors import AnomalyError, user_line
from tensorgrad.observers import Mode, Observer
from tensorgrad.tape import Node, Primitive, Rule


def _bad(x: Any) -> str | None:
    """What is wrong with the numbers in ``x``: "2 of 6 are NaN"."""
    a = getattr(x, "data", x) if hasattr(x, "node") else x
    if not backend.is_array(a) or a.dtype not in INEXACT or not a.size:
        return None
    xp = backend.of(a).xp
    nans = int(xp.isnan(a).sum())
    if nans:
        return f"{nans} of {a.size} values are NaN"
    infs = int(xp.isinf(a).sum())
    return f"{infs} of {a.size} values are infinite" if infs else None


def _range(name: str, x: Any) -> str:
    """Shape, dtype and extremes of an operand, for the report."""
    a = getattr(x, "data", x) if hasattr(x, "node") else x
    if not backend.is_array(a):
        return f"{name} = {a!r}"
    text = f"{name}: shape {a.shape} {a.dtype}"
    if a.dtype not in INEXACT or not a.size:
        return text
    xp = backend.of(a).xp
    if a.dtype in COMPLEX:
        a, text = xp.abs(a), text + ", of absolute values"
    wide = a.astype("float64")
    finite = wide[xp.isfinite(wide)]
    if finite.size:
        text += f", from {float(finite.min()):.6g} to {float(finite.max()):.6g}"
    bad = _bad(a)
    return text + (f", {bad}" if bad else "")


class _Watch(Observer):
    def computed(
        self, op: Primitive, inputs: Sequence[Any], attrs: Mapping[str, Any], out: Any
    ) -> None:
        """Raise if the result of an operation is not finite; see Observer."""
        bad = _bad(out)
        where = user_line()
        if out.node is not None:
            out.node.where = where
        if bad is not None:
            names = [n.lstrip("*") for n in op.inputs]
            names += [names[-1]] * (len(inputs) - len(names)) if names else []
            operands = "; ".join(_range(n, x) for n, x in zip(names, inputs))
            raise AnomalyError(
                f"{op.name} gave the first NaN or Inf: {bad} in its result of shape {out.shape}. "
                f"Operands: {operands}. At {where}"
            )

    def differentiated(
        self, node: Node, rule: Rule, saved: Sequence[Any], g: Any, gradient: Any
    ) -> None:
        """Raise if what a gradient rule gave is not finite; see Observer."""
        bad = _bad(gradient)
        if bad is None:
            return
        name = node.op.inputs[rule.index].lstrip("*")
        operands = [_range(n, x) for n, x in zip(rule.names, saved)]
        operands.insert(0, _range("incoming gradient", g))
        raise AnomalyError(
            f"the gradient of {node.op.name} with respect to {name} is the first with NaN or Inf: "
            f"{bad}. {'; '.join(operands)}. The operation was computed at "
            f"{getattr(node, 'where', 'an unknown line (before detect_anomaly began)')}"
        )


class detect_anomaly(_SetMode):
    """Stop at the first NaN or Inf, in forward or backward computations, and say where it arose.

    The AnomalyError names the operation, the line of the user's code, shapes and ranges of the
    operands. Every result is looked at, which is slow: for debugging.
    """

    def _wanted(self, mode: Mode) -> Mode:
        return mode._replace(observers=(*mode.observers, _Watch()))
