"""Formulas are arithmetic and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from tensorgrad.playground import PlaygroundError
from tensorgrad.playground.formulas import parse_formula

X, Y = np.array([0.5, -2.0, 3.0]), np.array([1.0, 4.0, -0.25])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", np.ones(3)),
        (" -x + +2 * y ", -X + 2 * Y),
        ("x^2 - y**3 / 4", X**2 - Y**3 / 4),
        ("sin(x) * cos(y) + pi - e", np.sin(X) * np.cos(Y) + np.pi - np.e),
        ("max(abs(x), min(y, 1)) % 2", np.maximum(np.abs(X), np.minimum(Y, 1)) % 2),
        ("atan2(y, x) + hypot(x, y)", np.arctan2(Y, X) + np.hypot(X, Y)),
        ("10 ** 400", np.full(3, np.inf)),
    ],
)
def test_a_formula_is_computed(text: str, value: np.ndarray) -> None:
    np.testing.assert_allclose(parse_formula(text)(X, Y), value, rtol=1e-15)


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "x +", "z", "x.real", "x[0]", "f(x)", "sin", "sin(x, y)", "max(x)", "sin(x=1)",
        "__import__('os').system('true')", "(lambda: 1)()", "[x for x in y]", "x if y else 1",
        "x and y", "x < y", "x; y", "x := 1", "'x'", "b'x'", "1j", "True", "None", "...", "f'{x}'",
        "x @ y", "x // y", "x | y", "~x", "not x", "*x", "sin(*x)", "sin(**x)", "x\0",
        "(" * 150 + "x" + ")" * 150, "-" * 150 + "x", "x" * 201, "9" * 100, "open('a')",
        "x.__class__", "().__class__.__bases__", "exec('1')", "sin.__globals__", "yield x",
        "await x", "{1: x}", "{x}", "x, y",
    ],
)  # fmt: skip
def test_anything_else_is_refused_in_a_line(text: str) -> None:
    with pytest.raises(PlaygroundError) as error:
        parse_formula(text)
    assert "\n" not in str(error.value)


def test_powers_of_powers_are_numbers_of_64_bits() -> None:
    """So that nobody waits for whole numbers without an end."""
    assert np.isinf(parse_formula("9**9**9**9**9")(X, Y)).all()


@pytest.mark.parametrize("value", [None, 3, b"x", ["x"]])
def test_a_formula_is_a_text(value: object) -> None:
    with pytest.raises(PlaygroundError):
        parse_formula(value)


@pytest.mark.parametrize(("text", "part"), [("x + 1e400", "1e400"), ("y * sin(x , 0x1)", "0x1")])
def test_what_is_refused_is_named_as_it_was_written(text: str, part: str) -> None:
    with pytest.raises(PlaygroundError, match=part):
        parse_formula(text)
