"""Forty mistakes in models, planted: what ``Module.check`` says of them, and what PyTorch says.

Each is written once, for both libraries. As a program this file prints the table in docs:
``python tests/nn/shape_mistakes.py > docs/shape-errors.md``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

if __name__ == "__main__":  # as a program it is run from anywhere
    sys.path.insert(0, str(Path(__file__).parents[2]))

from tensorgrad import nn as own_nn
from tensorgrad import ops
from tensorgrad.nn import ModelError


class Library(NamedTuple):
    """What the mistakes are made with."""

    nn: Any
    concat: Callable[..., Any]
    stack: Callable[..., Any]


class Mistake(NamedTuple):
    """A model, the shapes to try it with, and what has to be found."""

    what: str
    build: Callable[[Library], Any]
    shapes: tuple[tuple[int, ...], ...]
    path: str
    axis: int | None
    fix: str


OURS = Library(own_nn, lambda parts, axis: ops.concat(parts, axis=axis), ops.stack)


def seq(*layers: Callable[[Any], Any]) -> Callable[[Library], Any]:
    """A Sequential of layers."""
    return lambda lib: lib.nn.Sequential(*[layer(lib.nn) for layer in layers])


def custom(forward: Callable[..., Any], **layers: Callable[[Any], Any]) -> Callable[[Library], Any]:
    """A model with a forward of its own."""

    def build(lib: Library) -> Any:
        base: Any = lib.nn.Module

        class Model(base):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                for name, layer in layers.items():
                    setattr(self, name, layer(lib.nn))

            def forward(self, *args: Any) -> Any:
                return forward(self, lib, *args)

        return Model()

    return build


def linear(a: int, b: int) -> Callable[[Any], Any]:
    return lambda nn: nn.Linear(a, b)


def relu(nn: Any) -> Any:
    return nn.ReLU()


def flatten(nn: Any) -> Any:
    return nn.Flatten()


def deep(nn: Any) -> Any:
    layers = [nn.Linear(16, 16) for _ in range(9)]
    layers[6] = nn.Linear(17, 16)
    return nn.Sequential(*layers)


def residual(inner: Callable[[Any], Any]) -> Callable[[Library], Any]:
    def forward(self: Any, lib: Library, x: Any) -> Any:
        return x + self.inner(x)

    return custom(forward, inner=inner)


MISTAKES = [
    Mistake("first layer", seq(linear(100, 10)), ((8, 784),), "0", 1, "in_features=784 here"),
    Mistake("hidden layer", seq(linear(784, 128), relu, linear(100, 10)), ((8, 784),), "2", 1,
            "out_features=100 in 0"),
    Mistake("hidden layer, the other way", seq(linear(784, 100), relu, linear(128, 10)),
            ((8, 784),), "2", 1, "in_features=100 here"),
    Mistake("images not flattened", seq(linear(784, 10)), ((8, 28, 28),), "0", 2,
            "nn.Flatten() before it"),
    Mistake("images with a channel not flattened", seq(linear(784, 10)), ((8, 1, 28, 28),), "0", 3,
            "nn.Flatten() before it"),
    Mistake("colour images, size of grey ones", seq(flatten, linear(784, 10)), ((8, 3, 28, 28),),
            "1", 1, "in_features=2352 here"),
    Mistake("batch and features swapped", seq(linear(784, 10)), ((784, 8),), "0", 1,
            "transpose the input"),
    Mistake("sequence with features first", seq(linear(16, 10)), ((8, 16, 20),), "0", 2,
            "x.swapaxes(1, 2)"),
    Mistake("no batch, a number", seq(linear(1, 10)), ((),), "0", None, "of that shape"),
    Mistake("deep in a stack", seq(deep), ((8, 16),), "0.6", 1, "in_features=16 here"),
    Mistake("in a nested Sequential",
            seq(lambda nn: nn.Sequential(nn.Linear(8, 6), nn.Sequential(nn.Linear(5, 4)))),
            ((2, 8),), "0.1.0", 1, "out_features=5 in 0.0"),
    Mistake("layer norm of another size", seq(linear(8, 6), lambda nn: nn.LayerNorm(8)), ((2, 8),),
            "1", 1, "out_features=8 in 0"),
    Mistake("layer norm over two axes", seq(lambda nn: nn.LayerNorm((5, 6))), ((2, 5, 7),), "0", 2,
            "normalized_shape=(5, 7) here"),
    Mistake("layer norm, first of two axes", seq(lambda nn: nn.LayerNorm((4, 7))), ((2, 5, 7),),
            "0", 1, "normalized_shape=(5, 7) here"),
    Mistake("layer norm of too few axes", seq(lambda nn: nn.LayerNorm((2, 5, 7))), ((5, 7),), "0",
            None, "fewer axes"),
    Mistake("RMS norm of another size", seq(lambda nn: nn.RMSNorm(9)), ((2, 8),), "0", 1,
            "normalized_shape=8 here"),
    Mistake("batch norm of another size", seq(linear(8, 6), lambda nn: nn.BatchNorm1d(8)),
            ((4, 8),), "1", 1, "num_features=6 here"),
    Mistake("batch norm of images", seq(lambda nn: nn.BatchNorm1d(3)), ((4, 3, 8, 8),), "0", None,
            "nn.Flatten() before it"),
    Mistake("batch norm with channels last", seq(lambda nn: nn.BatchNorm1d(16)), ((4, 20, 16),),
            "0", 1, "x.swapaxes(2, 1)"),
    Mistake("group norm of another size", seq(lambda nn: nn.GroupNorm(2, 8)), ((4, 6, 5),), "0", 1,
            "num_channels=6 here"),
    Mistake("group norm without channels", seq(lambda nn: nn.GroupNorm(1, 5)), ((5,),), "0", None,
            "of that shape"),
    Mistake("embedding of floats", seq(lambda nn: nn.Embedding(50, 8)), ((4, 7),), "0", None,
            "dtype=tg.int64"),
    Mistake("layer after an embedding",
            custom(lambda self, lib, x: self.head(self.table.weight[:4]),
                   table=lambda nn: nn.Embedding(50, 8), head=linear(9, 2)), ((4, 7),), "head", 1,
            "in_features=8 here"),
    Mistake("bilinear, first input",
            custom(lambda self, lib, a, b: self.pair(a, b), pair=lambda nn: nn.Bilinear(4, 5, 3)),
            ((2, 6), (2, 5)), "pair", 1, "in1_features=6 here"),
    Mistake("bilinear, second input",
            custom(lambda self, lib, a, b: self.pair(a, b), pair=lambda nn: nn.Bilinear(4, 5, 3)),
            ((2, 4), (2, 6)), "pair", 1, "in2_features=6 here"),
    Mistake("residual branch of another size", residual(linear(8, 6)), ((4, 8),), "", None,
            "make the sizes equal"),
    Mistake("residual branch inside a stack",
            seq(linear(8, 8), lambda nn: residual(linear(8, 4))(OURS._replace(nn=nn))),
            ((4, 8),), "1", None, "make the sizes equal"),
    Mistake("matrix product in forward",
            custom(lambda self, lib, x: self.a(x) @ self.b(x), a=linear(4, 3), b=linear(4, 5)),
            ((7, 4),), "", None, "transpose the first factor"),
    Mistake("attention scores without a transpose",
            custom(lambda self, lib, x: self.q(x) @ self.k(x), q=linear(16, 8), k=linear(16, 8)),
            ((2, 5, 16),), "", None, "transpose the second factor"),
    Mistake("sum of two branches",
            custom(lambda self, lib, x: self.a(x) + self.b(x), a=linear(4, 3), b=linear(4, 5)),
            ((7, 4),), "", None, "make the sizes equal"),
    Mistake("concatenation along the wrong axis",
            custom(lambda self, lib, x: lib.concat([self.a(x), self.b(x)], 0),
                   a=linear(4, 3), b=linear(4, 5)), ((7, 4),), "", None, "another axis"),
    Mistake("layer after a concatenation",
            custom(lambda self, lib, x: self.head(lib.concat([self.a(x), self.b(x)], 1)),
                   a=linear(4, 3), b=linear(4, 5), head=linear(3, 2)), ((7, 4),), "head", 1,
            "in_features=8 here"),
    Mistake("stack of unequal branches",
            custom(lambda self, lib, x: lib.stack([self.a(x), self.b(x)]),
                   a=linear(4, 3), b=linear(4, 5)), ((7, 4),), "", None, "another axis"),
    Mistake("heads that do not divide",
            custom(lambda self, lib, x: self.qkv(x).reshape(x.shape[0], -1, 3, 7),
                   qkv=linear(16, 48)), ((2, 5, 16),), "", None, "their product"),
    Mistake("reshape to a fixed batch",
            custom(lambda self, lib, x: self.head(x.reshape(32, 16)), head=linear(16, 2)),
            ((8, 16),), "", None, "-1"),
    Mistake("weight per feature of another size",
            custom(lambda self, lib, x: x * self.scale.weight[0], scale=linear(5, 1)), ((8, 6),),
            "", None, "make the sizes equal"),
    Mistake("a second input forgotten",
            custom(lambda self, lib, a, b: self.head(a) + b, head=linear(4, 2)), ((3, 4),), "",
            None, "argument of forward()"),
    Mistake("an input too many", seq(linear(4, 2)), ((3, 4), (3, 4)), "", None,
            "argument of forward()"),
    Mistake("a layer that was never made",
            custom(lambda self, lib, x: self.body(self.steam(x)), body=linear(4, 2)), ((3, 4),),
            "", None, "assign the module in __init__"),
    Mistake("in a module list",
            custom(lambda self, lib, x: self.blocks[1](self.blocks[0](x)),
                   blocks=lambda nn: nn.ModuleList([nn.Linear(4, 5), nn.Linear(6, 2)])), ((3, 4),),
            "blocks.1", 1, "out_features=6 in blocks.0"),
]  # fmt: skip


def found(mistake: Mistake) -> ModelError | None:
    """What ``check`` raises."""
    try:
        mistake.build(OURS).check(*mistake.shapes)
    except ModelError as error:
        return error
    return None


def of_torch(mistake: Mistake) -> str:
    """The last line of what PyTorch raises for the same model."""
    import torch

    model = mistake.build(Library(torch.nn, torch.concat, torch.stack))
    try:
        model.eval()(*[torch.zeros(shape) for shape in mistake.shapes])
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    return "(no error)"


def main() -> None:
    """Print the table."""
    print("# Forty mistakes of shape\n")
    print(
        "What `model.check(...)` says of each, and what PyTorch says when the model is called. "
        "Printed by `python tests/nn/shape_mistakes.py`.\n"
    )
    print("| mistake | `Module.check` | PyTorch |\n| --- | --- | --- |")
    for mistake in MISTAKES:
        error = found(mistake)
        assert error is not None
        ours = "; ".join(str(problem) for problem in error.problems)
        cells = [mistake.what, ours, of_torch(mistake)]
        print("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")


if __name__ == "__main__":
    main()
