"""Formulas in x and y that somebody typed: parsed, looked through and computed, never executed."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tensorgrad.playground.errors import PlaygroundError, shown

Array = np.ndarray[Any, Any]

_LONGEST, _DEEPEST = 200, 20
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "sin": np.sin, "cos": np.cos, "tan": np.tan, "tanh": np.tanh, "exp": np.exp, "log": np.log,
    "sqrt": np.sqrt, "abs": np.abs, "sign": np.sign, "floor": np.floor, "atan2": np.arctan2,
    "hypot": np.hypot, "min": np.minimum, "max": np.maximum,
}  # fmt: skip
_OF_TWO = ("atan2", "hypot", "min", "max")
_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: np.add, ast.Sub: np.subtract, ast.Mult: np.multiply, ast.Div: np.divide,
    ast.Mod: np.mod, ast.Pow: np.power,
}  # fmt: skip
_NAMES = {"pi": math.pi, "e": math.e}
_KNOWN = f"x, y, numbers, pi, e, + - * / % ** ( ) and {', '.join(_FUNCTIONS)}"

Formula = Callable[[Array, Array], Array]


def parse_formula(text: Any) -> Formula:
    """The function of x and y that ``text`` writes down, as "sin(x) * y"; "^" stands for "**".

    Its value is float64, in the shape of x. Raises PlaygroundError for what is no such formula.
    """
    if not isinstance(text, str) or not text.strip() or len(text) > _LONGEST:
        raise PlaygroundError(
            f"a formula must be a text of 1 to {_LONGEST} characters; got {shown(text)}"
        )
    source = text.strip().replace("^", "**")
    try:
        tree = ast.parse(source, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise PlaygroundError(f"a formula may have {_KNOWN}; got {shown(text)}") from error
    _check(tree, source, 0)

    def formula(x: Array, y: Array) -> Array:
        """The value."""
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        with np.errstate(all="ignore"):
            value = _value(tree, {**_NAMES, "x": x, "y": y})
        return np.broadcast_to(np.asarray(value, np.float64), x.shape)

    return formula


def _check(node: ast.AST, text: str, depth: int) -> None:
    """Raise for anything but arithmetic."""
    if depth > _DEEPEST:
        raise PlaygroundError(f"a formula may be nested {_DEEPEST} deep; got {shown(text)}")
    inner: list[ast.AST] = []
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        inner = [node.left, node.right]
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        inner = [node.operand]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        name, count = node.func.id, len(node.args)
        if name not in _FUNCTIONS or node.keywords or count != (2 if name in _OF_TWO else 1):
            raise PlaygroundError(f"a formula may have {_KNOWN}; got {_written(node, text)}")
        inner = list(node.args)
    elif not _is_plain(node):
        raise PlaygroundError(f"a formula may have {_KNOWN}; got {_written(node, text)}")
    for one in inner:
        _check(one, text, depth + 1)


def _written(node: ast.AST, text: str) -> str:
    """A part of a formula as it stands there; ``ast.unparse`` makes 1e309 of 1e400."""
    return shown(ast.get_source_segment(text, node) or ast.unparse(node))


def _is_plain(node: ast.AST) -> bool:
    """Whether it is x, y, a constant with a name, or a number of usual size."""
    if isinstance(node, ast.Name):
        return node.id in ("x", "y", *_NAMES)
    if not isinstance(node, ast.Constant) or type(node.value) not in (int, float):
        return False
    assert isinstance(node.value, int | float)
    return abs(node.value) < 1e30


def _value(node: ast.AST, names: dict[str, Any]) -> Any:
    if isinstance(node, ast.BinOp):
        return _BINARY[type(node.op)](_value(node.left, names), _value(node.right, names))
    if isinstance(node, ast.UnaryOp):
        value = _value(node.operand, names)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.Call):
        assert isinstance(node.func, ast.Name)
        return _FUNCTIONS[node.func.id](*(_value(one, names) for one in node.args))
    if isinstance(node, ast.Name):
        return names[node.id]
    assert isinstance(node, ast.Constant)
    assert isinstance(node.value, int | float)
    return np.float64(node.value)
