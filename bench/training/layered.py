"""Networks of the layers that people train, and a training step of each, here and in PyTorch.

One is evaluated besides: then a step is the loss alone, with batch norms by running statistics.

A model is written once: the layers have the same names in both.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from bench.training.networks import MOMENTUM, Array

Forward = Callable[[Any], Any]


class Case(NamedTuple):
    """What is trained.

    model: from a framework to a module, and to the function that makes the output of the input.
    batch: draws input and target; targets that are integers are classes.
    optimizer: its name in ``optim``, and its options; ``None`` where nothing is trained.
    sparse: whether gradients are.
    """

    model: Callable[[Any], tuple[Any, Forward]]
    batch: Callable[[np.random.Generator], tuple[Array, Array]]
    optimizer: tuple[str, dict[str, float]] | None
    sparse: bool = False


# --- models ---------------------------------------------------------------------------------------


def _convolutional(framework: Any) -> tuple[Any, Forward]:
    nn = framework.nn
    module = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * 7 * 7, 10),
    )  # fmt: skip
    return module, module


#: Channels in and out, and the stride, of the first convolution of each block of ResNet-20.
BLOCKS = [
    (16, 16, 1), (16, 16, 1), (16, 16, 1), (16, 32, 2), (32, 32, 1), (32, 32, 1),
    (32, 64, 2), (64, 64, 1), (64, 64, 1),
]  # fmt: skip


def _residual(framework: Any) -> tuple[Any, Forward]:
    """He and others, 2016, section 4.2: shortcuts take every second place and add zeros."""
    nn = framework.nn

    def convolution(before: int, after: int, stride: int = 1) -> Any:
        return nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after)
        )

    first = nn.Sequential(convolution(3, 16), nn.ReLU())
    blocks = nn.ModuleList(
        nn.Sequential(convolution(before, after, stride), nn.ReLU(), convolution(after, after))
        for before, after, stride in BLOCKS
    )
    last = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))

    def output(x: Any) -> Any:
        x = first(x)
        for block, (before, after, stride) in zip(blocks, BLOCKS):
            way = x
            if stride == 2:
                added = (after - before) // 2
                way = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, added, added))
            x = nn.functional.relu(block(x) + way)
        return last(x)

    return nn.ModuleList([first, blocks, last]), output


def _recurrent(framework: Any, kind: str) -> tuple[Any, Forward]:
    layer = getattr(framework.nn, kind)(64, 128)
    return layer, lambda x: layer(x)[0][-1]


def _cell(framework: Any) -> tuple[Any, Forward]:
    """An LSTM as a Python loop here, against PyTorch's own layer."""
    if framework.__name__ == "torch":
        return _recurrent(framework, "LSTM")
    layer = framework.nn.LSTM(64, 128)
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    w, u, b, c = (getattr(layer, name) for name in names)

    def output(x: Any) -> Any:
        h = state = framework.zeros((x.shape[1], 128))
        for t in range(x.shape[0]):
            gates = x[t] @ w.T + b + h @ u.T + c
            i, f, g, o = (gates[:, k * 128 : k * 128 + 128] for k in range(4))
            state = framework.sigmoid(f) * state + framework.sigmoid(i) * framework.tanh(g)
            h = framework.sigmoid(o) * framework.tanh(state)
        return h

    return layer, output


def _attending(framework: Any, width: int, heads: int, causal: bool) -> tuple[Any, Forward]:
    """A block that normalizes before it attends and computes."""
    nn = framework.nn
    module = nn.ModuleList(
        [
            nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width),
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.Linear(4 * width, width),
        ]
    )  # fmt: skip
    norm_1, queries, out, norm_2, inner, outer = module

    def output(x: Any) -> Any:
        shape = (*x.shape[:2], heads, width // heads)
        made = queries(norm_1(x))
        q, k, v = (
            made[..., n * width : (n + 1) * width].reshape(shape).swapaxes(1, 2) for n in range(3)
        )
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
        x = x + out(y.swapaxes(1, 2).reshape(x.shape))
        return x + outer(nn.functional.gelu(inner(norm_2(x))))

    return module, output


LAYERS, WIDTH, HEADS, POSITIONS, VOCABULARY = 4, 128, 4, 256, 256


def _gpt(framework: Any) -> tuple[Any, Forward]:
    nn = framework.nn
    blocks = [_attending(framework, WIDTH, HEADS, True) for _ in range(LAYERS)]
    tokens, places = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(POSITIONS, WIDTH)
    norm = nn.LayerNorm(WIDTH)
    head = nn.Linear(WIDTH, VOCABULARY, bias=False)

    def output(x: Any) -> Any:
        y = tokens(x) + places(framework.arange(POSITIONS))
        for _, block in blocks:
            y = block(y)
        return head(norm(y)).reshape(-1, VOCABULARY)

    return nn.ModuleList([tokens, places, *(module for module, _ in blocks), norm, head]), output


def _embedding(framework: Any, sparse: bool) -> tuple[Any, Forward]:
    module = framework.nn.Embedding(50_000, 64, sparse=sparse)
    return module, module


# --- batches --------------------------------------------------------------------------------------


def _real(draw: np.random.Generator, *shape: int) -> Any:
    return draw.standard_normal(shape).astype(np.float32)


def _sequence(draw: np.random.Generator) -> tuple[Array, Array]:
    return _real(draw, 50, 32, 64), _real(draw, 32, 128)


def _looked_up(draw: np.random.Generator) -> tuple[Array, Array]:
    return draw.integers(0, 50_000, 4096), _real(draw, 4096, 64)


def _recurrent_case(kind: str) -> Case:
    return Case(partial(_recurrent, kind=kind), _sequence, ("SGD", {"lr": 0.01}))


def _embedding_case(sparse: bool) -> Case:
    return Case(partial(_embedding, sparse=sparse), _looked_up, ("SGD", {"lr": 0.01}), sparse)


CONVNET = "ConvNet 1-16-32, 64 x 28 x 28, Adam"
RESNET = "ResNet-20, 32 x 3 x 32 x 32, momentum"
INFERENCE = "ResNet-20 evaluated, 32 x 3 x 32 x 32"
LSTM, GRU = (f"{kind} 64-128, batch 32, 50 steps, SGD" for kind in ("LSTM", "GRU"))
CELL = "LSTM cell in a Python loop, the same sizes"
BLOCK = "transformer block, 8 x 64 x 128, 4 heads, AdamW"
GPT = "GPT 4 x 128, 8 x 256 tokens, AdamW"
EMBEDDING = "embedding 50,000 x 64, 4,096 look-ups, SGD"
SPARSE = "embedding 50,000 x 64, 4,096 look-ups, sparse, SGD"

CASES = {
    CONVNET: Case(
        _convolutional,
        lambda draw: (_real(draw, 64, 1, 28, 28), draw.integers(0, 10, 64)),
        ("Adam", {"lr": 1e-3}),
    ),
    RESNET: Case(
        _residual,
        lambda draw: (_real(draw, 32, 3, 32, 32), draw.integers(0, 10, 32)),
        ("SGD", {"lr": 0.01, "momentum": MOMENTUM}),
    ),
    INFERENCE: Case(
        _residual, lambda draw: (_real(draw, 32, 3, 32, 32), draw.integers(0, 10, 32)), None
    ),
    LSTM: _recurrent_case("LSTM"),
    GRU: _recurrent_case("GRU"),
    CELL: Case(_cell, _sequence, ("SGD", {"lr": 0.01})),
    BLOCK: Case(
        partial(_attending, width=WIDTH, heads=HEADS, causal=False),
        lambda draw: (_real(draw, 8, 64, WIDTH), _real(draw, 8, 64, WIDTH)),
        ("AdamW", {"lr": 1e-3}),
    ),
    GPT: Case(
        _gpt,
        lambda draw: (
            draw.integers(0, VOCABULARY, (8, POSITIONS)),
            draw.integers(0, VOCABULARY, 8 * POSITIONS),
        ),
        ("AdamW", {"lr": 1e-3}),
    ),
    EMBEDDING: _embedding_case(False),
    SPARSE: _embedding_case(True),
}


# --- training -------------------------------------------------------------------------------------


def parameters(module: Any, draw: np.random.Generator) -> list[Array]:
    """Values for the parameters of a module, in their order: uniform ones, norms around 1."""
    found = []
    for name, p in module.named_parameters():
        limit = 1 / math.sqrt(math.prod(p.shape[1:]))
        if len(p.shape) == 1:
            limit = 0.1
        centre = 1.0 if len(p.shape) == 1 and name.endswith("weight") else 0.0
        found.append((centre + draw.uniform(-limit, limit, tuple(p.shape))).astype(np.float32))
    return found


def training_step(contestant: str, name: str, fused: bool | None = None) -> Callable[[], Any]:
    """A call that makes one step of a case and returns the loss.

    contestant: "tensorgrad", "tensorgrad compiled", "torch", "torch channels last" or
        "torch compiled". fused: of PyTorch's optimizers, whose default is ``None``; those for
        sparse gradients are not fused.
    """
    framework_name, _, how = contestant.partition(" ")
    framework: Any = importlib.import_module(framework_name)
    case, draw = CASES[name], np.random.default_rng(0)
    module, output = case.model(framework)
    with framework.no_grad():
        for p, values in zip(module.parameters(), parameters(module, draw)):
            p.copy_(framework.tensor(values))
    x, target = (framework.tensor(a) for a in case.batch(draw))
    if how == "channels last":
        module.to(memory_format=framework.channels_last)
        x = x.to(memory_format=framework.channels_last)
    labelled = "int" in str(target.dtype)
    functional = framework.nn.functional
    criterion = functional.cross_entropy if labelled else functional.mse_loss
    if case.optimizer is None:
        module.eval()
        return _evaluation(framework, how, lambda: criterion(output(x), target))
    kind, options = case.optimizer[0], dict[str, Any](case.optimizer[1])
    if framework_name == "torch" and not case.sparse:
        options["fused"] = fused
    optimizer = getattr(framework.optim, kind)(module.parameters(), **options)

    def loss_of(x: Any, target: Any) -> Any:
        return criterion(output(x), target)

    update = optimizer.step
    if contestant == "torch compiled":
        framework.compiler.reset()  # one function is compiled a few times at most
        loss_of, update = framework.compile(loss_of), framework.compile(update)

    def step(x: Any, target: Any) -> Any:
        optimizer.zero_grad()
        loss = loss_of(x, target)
        loss.backward()
        update()
        return loss

    call = framework.compile(step) if contestant == "tensorgrad compiled" else step
    return partial(call, x, target)


def _evaluation(framework: Any, how: str, loss: Callable[[], Any]) -> Callable[[], Any]:
    """A call that returns the loss, and keeps nothing for gradients."""
    if how == "compiled":
        loss = framework.compile(loss)

    def step() -> Any:
        with framework.no_grad():
            return loss()

    return step
