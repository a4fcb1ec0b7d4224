"""Calls of every primitive of the library, collected by an observer."""

from __future__ import annotations

import functools
import importlib
import pkgutil
import types
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from ops.matrix_calls import CALLS
from sampler import draw, outputs

import tensorgrad as tg
from tensorgrad import Tensor, fft, linalg, nn, optim
from tensorgrad.autograd import grad
from tensorgrad.nn import functional as F  # noqa: N812
from tensorgrad.observers import MODE, Observer, current_mode
from tensorgrad.ops import (
    attention,
    convolution_pooling,
    convolution_scaling,
    eigenvalues,
    masked_products,
    recurrence,
    recurrence_loops,
    tiled_pooling,
    transposed_rows,
)
from tensorgrad.ops.numpy_forms import plain
from tensorgrad.ops.shaping import RecordedPart, sum_of_recorded
from tensorgrad.ops.table import OPERATIONS
from tensorgrad.ops.windows import strided
from tensorgrad.tape import LEAF, Primitive, apply

#: of one primitive, at most
MOST = 60


@dataclass
class PrimitiveCall:
    """A primitive, its inputs (arrays, numbers and ``None``) and its attributes."""

    op: Primitive
    inputs: tuple[Any, ...]
    attrs: dict[str, Any]

    def of(self, *inputs: Any, **attrs: Any) -> Any:
        """What the primitive makes of other inputs, as an array."""
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            y = self.op.cpu(*(inputs or self.inputs), **{**self.attrs, **attrs})
        return np.asarray(y if self.op.residual is None else y[0])

    def arrays(self) -> list[Any]:
        """The inputs that are arrays."""
        return [x for x in self.inputs if isinstance(x, np.ndarray)]


class _Calls(Observer):
    def __init__(self) -> None:
        self.found: dict[Primitive, list[PrimitiveCall]] = {}

    def computed(self, op: Primitive, inputs: Any, attrs: Any, out: Tensor) -> None:
        calls = self.found.setdefault(op, [])
        if len(calls) < MOST:
            given = tuple(x.data.copy() if isinstance(x, Tensor) else x for x in inputs)
            attrs = {k: v for k, v in attrs.items() if op.residual is None or k != "r"}
            calls.append(PrimitiveCall(op, given, attrs))


def every_primitive() -> list[Primitive]:
    """All that the modules of the library hold, but the one that stands for leaves."""
    found: dict[Primitive, None] = {}
    for module in pkgutil.walk_packages(tg.__path__, "tensorgrad."):
        if not module.name.startswith(("tensorgrad.backend", "tensorgrad.__main__")):
            for value in vars(importlib.import_module(module.name)).values():
                found.update(dict.fromkeys(_primitives_in(value)))
    return sorted(set(found) - {LEAF}, key=lambda op: (op.name, op.inputs))


def _primitives_in(value: Any) -> Iterator[Primitive]:
    """Those that a name, a table, a class or a function made for a primitive refers to."""
    if isinstance(value, Primitive):
        yield value
    elif isinstance(value, dict):
        for x in list(value.values()):
            yield from _primitives_in(x) if isinstance(x, Primitive) else ()
    elif isinstance(value, type):
        yield from _primitives_in(vars(value).get("primitive"))
        yield from _primitives_in(vars(value).get("primitive_of_rows"))
    elif isinstance(value, types.FunctionType):
        for cell in value.__closure__ or ():
            x = cell.cell_contents
            yield from _primitives_in(x) if isinstance(x, Primitive) else ()


@functools.cache
def calls() -> dict[Primitive, list[PrimitiveCall]]:
    """The calls by primitive: of all rows and their gradients, and of what has no row."""
    seen = _Calls()
    token = MODE.set(current_mode()._replace(observers=(seen,)))
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            _others()
            _updates()
            _rows()
    finally:
        MODE.reset(token)
    return seen.found


def _rows() -> None:
    for row in OPERATIONS.values():
        for number in range(len(row.cases)):
            call = draw(row, number)
            inputs, leaves = call.tensors("cpu", requires_grad=row.gradient)
            results = [y for y in outputs(inputs.of(row.function)) if isinstance(y, Tensor)]
            _differentiated([y for y in results if y.node is not None], leaves)


def _differentiated(results: list[Tensor], leaves: list[Tensor]) -> None:
    """The first and second gradients, whose rules are recorded."""
    if not results or not leaves:
        return
    weights = [Tensor(np.linspace(0.5, 1.5, y.size).reshape(y.shape)) for y in results]
    first = [g for g in grad(results, leaves, weights, create_graph=True) if g.node is not None]
    if first:
        grad(sum([(g * g).sum() for g in first[1:]], (first[0] * first[0]).sum()), leaves)


def _masked(x: Tensor) -> None:
    """What programs on a GPU make of linear layers."""
    weight, bias = (Tensor(np.linspace(-1.0, 1.5, 5 * n).reshape(5, n)) for n in (4, 1))
    y = apply(masked_products.LINEAR_RELU, (x, weight, bias.reshape((5,))), {})
    mask = Tensor(np.zeros(3 * masked_products.row_of(5) // 8, np.uint8))
    behind = Tensor(np.linspace(1.0, 2.0, 6).reshape(3, 2)), Tensor(np.eye(2, 5) + 0.5)
    apply(masked_products.RELU_GRADIENT, (*behind, mask, y), {})
    apply(masked_products.WEIGHTS_AND_BIAS, (y, x), {})


def _others() -> None:
    """What no row calls, or not with everything that matters."""
    x = Tensor(np.linspace(-2.0, 2.0, 12).reshape(3, 4), requires_grad=True)
    rows, mask = Tensor([0, 2, 2]), x.detach() > 1
    for y in (x[rows], x[mask], x[rows, Tensor([1, 1, 1])], tg.index_put(x, mask, 2.5)):
        _differentiated([y], [x])
    for y in (x**2.5, 2.5**x, x.float().double(), (x.T @ x).reshape(-1), tg.norm(x, 3, axis=1)):
        _differentiated([y], [x])
    _differentiated([tg.dropout(x, 0.5)], [x])
    tg.imag(tg.complex(x.detach(), x.detach()))
    tg.unique_all(x.detach())
    _masked(x.detach())
    for name in ("fft", "rfft", "irfft"):
        _differentiated([tg.abs(getattr(fft, name)(x))], [x])
    for activation in ("none", "tanh"):
        _differentiated([tg.gelu(x, approximate=activation)], [x])
    for activation in ("leaky_relu", "elu", "gelu", "gelu_tanh", "silu", "softplus", "tanh"):
        _differentiated([tg.bias_activation(x, x[0].detach(), activation)], [x])
    _differentiated([F.embedding(rows, x, padding_idx=1)], [x])
    _differentiated([F.embedding(Tensor([2, 0, 2]), x, scale_grad_by_freq=True)], [x])
    z = x.detach().clone()
    F.embedding(rows, z, max_norm=0.5)
    z[rows] = 1.5
    z[mask] = -1.5
    z[0, 1:3] = x.detach()[1, :2]
    z += 1.0
    z.copy_(x.detach()[0])
    nn.BatchNorm1d(4)(x.detach())
    for draws in (tg.random.uniform, tg.random.normal):
        draws((3, 4))
    tg.random.randint(0, 1000, (3, 4))
    tg.random.permutation(9)
    for places in (range(8), [3] * 8):  # apart, and all at one
        sum_of_recorded([RecordedPart(Tensor(0.5), (k, ...), (5000,)) for k in places])
    _differentiated([tg.convolve(x[0], x[1, :2])], [x])
    plain("argpartition", [x], kth=1)
    x.detach().to("cpu")
    tg.ops.transfer.to_device(x, "cpu")
    _differentiated([F.nll_loss(x, Tensor([1, 0, 3]), reduction="none")], [x])
    _attention(x)
    _matrices()
    _recurrence()
    a = Tensor(np.array([[0.5, 1.5], [2.5, 3.5]]), requires_grad=True)
    (slope,) = grad(tg.special.gammainc(a, a * 2.0).sum(), a, create_graph=True)
    grad(slope.sum(), a, create_graph=True)
    y = tg.special.i1e(a)
    for _ in range(4):
        (y,) = grad(y.sum(), a, create_graph=True)
    _pools_of_programs(x.detach())


def _matrices() -> None:
    apply(eigenvalues.EIG, (Tensor(np.eye(2)),), {})
    linalg.geqrf(Tensor(np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 7.0]])))
    for name, call in CALLS.items():
        if name in ("eig", "eigvals"):
            continue
        given = [Tensor(a, requires_grad=True) for a in call.arrays(name)]
        found = outputs(call.prepared(lambda *x: call.call(linalg, *x), *given))  # noqa: B023
        _differentiated([y for y in found if y.node is not None], given)
    x = Tensor(CALLS["det"].arrays("det")[0][0], requires_grad=True)
    _differentiated(list(grad(linalg.det(x), x, create_graph=True)), [x])


def _pools_of_programs(x: Tensor) -> None:
    windows = strided("pool", x.reshape(1, 3, 4), 1, 2, None, 0, 1, False)
    number = Tensor(np.array([[[0, 1], [1, 1], [0, 0]]], np.uint8))
    apply(tiled_pooling.MAX_POOL_TILES, (x.reshape(1, 3, 4),), {"windows": windows})
    apply(
        tiled_pooling.SPREAD_TILES,
        (x[:, :2].reshape(1, 3, 2), number),
        {"size": (4,), "windows": windows},
    )
    _pooled_convolution()
    apply(transposed_rows.TRANSPOSED_ROWS, (x.reshape(3, 4),), {"high": 2})


def _pooled_convolution() -> None:
    rng = np.random.default_rng(0)
    image, weight = (Tensor(rng.standard_normal(n)) for n in ((2, 3, 4, 5), (2, 3, 3, 3)))
    g, number = Tensor(rng.standard_normal((2, 2, 2, 2))), Tensor(np.ones((2, 2, 2, 2), np.uint8))
    one, rest = (1, 1), {"stride": (1, 1), "dilation": (1, 1), "groups": 1}
    apply(
        convolution_pooling.CONVOLUTION_POOLED,
        (image, weight, None),
        {"size": (4, 5), "padding": one, "positive": True, **rest},
    )
    apply(
        convolution_scaling.CONVOLUTION_SCALED,
        (image, weight, None, *[Tensor(rng.standard_normal(2)) for _ in range(3)], None),
        {"size": (4, 5), "padding": one, "positive": True, **rest},
    )
    apply(
        convolution_pooling.CONVOLUTION_WEIGHT_POOLED,
        (g, number, image),
        {"size": (3, 3), "before": (4, 5), "padding": one, **rest},
    )
    apply(
        convolution_pooling.CONVOLUTION_POOLED_GRADIENTS,
        (g, number, image, weight, g * 0.5),
        {"size": (4, 5), "padding": one, "masked": True},
    )


def _attention(x: Tensor) -> None:
    """Where nothing is recorded the gradient is one primitive."""
    rng = np.random.default_rng(0)
    q, k, v = (Tensor(rng.standard_normal((2, 6, 3))) for _ in range(3))
    g, y, r = q * 0.5, q * 0.1, q[..., :1] * 0.2
    mask = Tensor(rng.standard_normal((6, 6)))
    _differentiated([F.scaled_dot_product_attention(x, x, x, dropout_p=0.5)], [x])
    for of_mask in (False, True):
        attrs = {"causal": True, "scale": 0.7, "of_mask": of_mask}
        apply(attention._ATTENTION_GRADIENT, (g, q, k, v, mask, y, r), attrs)
        attrs.update(key=3, position=8, p=0.5)
        apply(attention._DROPPING_GRADIENT, (g, q, k, v, mask, y, r), attrs)


def _recurrence() -> None:
    """Where nothing is recorded the loop backward is a primitive."""
    rng = np.random.default_rng(0)
    for kind, op in recurrence.FORWARD.items():
        rows = {"lstm": 8, "gru": 6}.get(kind, 2)
        x, h, w_ih, w_hh = (
            rng.standard_normal(n) for n in ((3, 2, 2), (2, 2), (rows, 2), (rows, 2))
        )
        for lengths in (None, np.array([1, 3])):
            c = h if kind == "lstm" else None
            given: tuple[Any, ...] = (x, h, c, w_ih, w_hh, None, None, None, lengths)
            y, kept = op.cpu(*given, reverse=False, kind=kind, keep=True)
            attrs = {"sizes": tuple(recurrence_loops.sizes_of(kind, x, w_hh, None, False))}
            arrays = (y * 0.5, y, c, w_hh, None, lengths, *kept)
            apply(recurrence.BACKWARD[kind], [_tensor(a) for a in arrays], attrs)
    d, x = (_tensor(rng.standard_normal((6, n))) for n in (8, 3))
    for given in ((d, x, x), (d, None, x)):
        apply(recurrence.WEIGHTS, given, {})


def _tensor(x: Any) -> Any:
    return None if x is None else Tensor(x)


def _updates() -> None:
    """The steps of all optimizers, and what is done to gradients and parameters besides."""
    named: list[Any] = [getattr(optim, name) for name in optim.__all__]
    for kind in [k for k in named if isinstance(k, type) and hasattr(k, "primitive")]:
        vectors = kind is not optim.Muon
        model = nn.Sequential(nn.Linear(3, 4, vectors), nn.Tanh(), nn.Linear(4, 2, vectors))
        optimizer = kind(model.parameters(), lr=0.01)
        average = optim.ExponentialMovingAverage(model)
        scaler = tg.amp.GradScaler()
        for infinite in (False, False, True):
            scaler.scale(model(tg.ones((5, 3))).square().sum()).backward()
            if infinite:
                next(model.parameters()).grad = tg.full((4, 3), tg.inf)
            scaler.unscale_(optimizer)
            optim.clip_grad_norm_(model.parameters(), 0.5)
            optim.clip_grad_value_(model.parameters(), 0.1)
            scaler.step(optimizer)
            scaler.update()
            average.update()
    for rows in (optim.SGD, optim.Adagrad, optim.SparseAdam):
        table = nn.Embedding(4, 3, sparse=True)
        stepped = rows(table.parameters(), lr=0.1)
        for _ in range(2):
            table(Tensor([2, 0, 2])).square().sum().backward()
            stepped.step()
