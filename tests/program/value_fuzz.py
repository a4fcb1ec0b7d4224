"""Random value functions: arithmetic, views, aliases, and overwriting by every way there is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

#: The inputs: three that are read, and two that are overwritten, of which one is a flat state.
SHAPES = ((3, 4), (4,), (3, 1), (3, 4), (12,))
MUTATED = (3, 4)
_NAMES = ("a", "b", "c", "m", "s")
_UNARY = ("tanh", "abs", "negative", "square", "sin", "exp")
_BINARY = ("add", "subtract", "multiply", "maximum", "minimum")
_OPERATORS = ("+", "-", "*")


def inputs(rng: np.random.Generator) -> list[Any]:
    """Arrays for a function that ``draw`` gives."""
    return [rng.normal(size=shape).astype(np.float32) for shape in SHAPES]


class _Writer:
    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.env: dict[str, Any] = dict(zip(_NAMES, inputs(rng)))
        self.lines: list[str] = []
        self.temporary: list[str] = []

    def pick(self, names: Any) -> str:
        names = list(names)
        return str(names[self.rng.integers(len(names))])

    def array(self) -> str:
        return self.pick(self.env)

    def target(self) -> str:
        return self.pick(["m", "s", *self.temporary])

    def line(self) -> tuple[str, str]:
        """A statement, and the name that it gives a new value, if it does."""
        new, x, y, z = f"t{len(self.lines)}", self.array(), self.array(), self.target()
        f, g = self.pick(_UNARY), self.pick(_BINARY)
        axis = self.pick(["0", "-1", "None"])
        part = self.pick(["[1:]", "[::-1]", "[:2]", "[-1]", "[..., 1:]"])
        forms = [
            (f"{new} = xp.{f}({x})", new),
            (f"{new} = {x} {self.pick(_OPERATORS)} {y}", new),
            (f"{new} = xp.{g}({x}, {y})", new),
            (f"{new} = xp.where({x} > 0, {x}, {y})", new),
            (f"{new} = {x}.{self.pick(['sum', 'max', 'mean'])}({axis}, keepdims=True)", new),
            (f"{new} = xp.tanh({x} @ {y})", new),
            (f"{new} = {x}{self.pick(['.T', part, '.reshape(-1)', '[None]', '.copy()'])}", new),
            (f"{new} = {x}.astype(xp.float64)", new),
            (f"{new} = xp.full({x}.shape, 0.5, {x}.dtype)", new),
            (f"{new} = {z}", new),
            (f"xp.{g}({x}, {y}, out={z})", ""),
            (f"xp.{f}({x}, out={z})", ""),
            (f"{z} {self.pick(_OPERATORS)}= {y}", ""),
            (f"{z}[...] = {x}", ""),
            (f"{z}{part} = {x}", ""),
            (f"{new} = {x}.sum()", new),
            (f"{new} = xp.square(a)", new),  # what is computed twice is shared
            (f"{self.pick(['m.T', 's[::2]', 'm[:, 1]'])}[...] = {x}", ""),
            (f"{z}.T[...] = {x}", ""),
        ]
        return forms[self.rng.integers(len(forms))]

    def write(self, count: int) -> None:
        while len(self.lines) < count:
            text, new = self.line()
            try:
                with np.errstate(all="ignore"):
                    exec(text, {"xp": np}, self.env)
            except (ValueError, TypeError, IndexError):
                continue  # shapes that do not fit, or float64 into float32
            if new and not np.size(self.env[new]):
                del self.env[new]
                continue
            self.lines.append(text)
            if new and not any(np.shares_memory(self.env[new], self.env[n]) for n in "abcms"):
                self.temporary.append(new)
            if any(np.abs(v).max(initial=0) > 1e3 for v in self.env.values()):
                self.lines.pop()
                raise OverflowError


def draw(rng: np.random.Generator, count: int = 12) -> tuple[Callable[..., Any], str]:
    """A value function ``f(xp, a, b, c, m, s)`` that overwrites ``m`` and ``s``, and its text."""
    while True:
        writer = _Writer(rng)
        try:
            writer.write(count)
        except OverflowError:
            continue
        result = writer.pick([*writer.temporary, "m", "b"])
        body = "\n    ".join([*writer.lines, f"return xp.add({result}, 0)"])
        text = f"def f(xp, a, b, c, m, s):\n    {body}\n"
        space: dict[str, Any] = {}
        exec(text, space)
        return space["f"], text
