"""The bandwidth of each memory-bound kernel, against a copy of the same size in the same round."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import numpy as np

import tensorgrad as tg
from bench.gpu.common import Say, Settings
from bench.gpu.timing import seconds
from tensorgrad import backend, nn, optim
from tensorgrad.backend.kernels import arithmetic
from tensorgrad.backend.launch import convolution
from tensorgrad.nn import functional

ELEMENTS = 1 << 26
BAR = 0.85
ROUNDS = 15
DTYPES = ("float32", "float16", "bfloat16")

ACTIVATIONS: dict[str, Callable[[tg.Tensor], tg.Tensor]] = {
    "sigmoid": tg.sigmoid, "tanh": tg.tanh, "relu": tg.relu, "leaky_relu": tg.leaky_relu,
    "elu": tg.elu, "gelu": tg.gelu, "gelu_tanh": partial(tg.gelu, approximate="tanh"),
    "silu": tg.silu, "softplus": tg.softplus,
}  # fmt: skip
#: rows by several to a warp, by a block each, with one tile to a thread and with several
WIDTHS = (128, 1024, 8192, 16384)
UPDATES = ("SGD momentum", "Adam", "AdamW", "clip_grad_norm_", "clip_grad_value_")


class Case(NamedTuple):
    """Some work on the GPU. moved: bytes that it has to read and write, each once."""

    run: Callable[[], object]
    moved: int


class _Sizes(NamedTuple):
    n: int
    dtype: str
    parameters: int

    @property
    def item(self) -> int:
        return tg.zeros((), dtype=self.dtype).data.dtype.itemsize

    def tensor(self, *shape: int, requires_grad: bool = False) -> tg.Tensor:
        return tg.Generator(1).normal(
            shape, device="cuda", dtype=self.dtype, requires_grad=requires_grad
        )

    def matrix(self, columns: int) -> tuple[tg.Tensor, tg.Tensor, int]:
        """Of about n elements, with a gradient of the same shape; and their bytes."""
        rows = max(2, self.n // columns)
        x = self.tensor(rows, columns, requires_grad=True)
        return x, self.tensor(rows, columns), rows * columns * self.item


#: what makes a case: called with sizes and whether the backward pass is meant
_Maker = Callable[[_Sizes, bool], Case]


def _case(
    backward: bool,
    function: Callable[[], tg.Tensor],
    inputs: tuple[tg.Tensor, ...],
    gradient: tg.Tensor,
    forward_bytes: int,
    backward_bytes: int,
) -> Case:
    """The value without a tape, or the backward pass alone, over and over."""
    if not backward:
        return Case(tg.no_grad()(function), forward_bytes)
    y = function()
    return Case(lambda: tg.autograd.grad(y, inputs, gradient, retain_graph=True), backward_bytes)


def _activation(function: Callable[[tg.Tensor], tg.Tensor], s: _Sizes, backward: bool) -> Case:
    x, g, size = s.matrix(1024)
    return _case(backward, lambda: function(x), (x,), g, 2 * size, 3 * size)


def _with_bias(name: str, s: _Sizes, backward: bool) -> Case:
    """In one pass, with the bias gradient reduced in the same pass."""
    x, g, size = s.matrix(1024)
    bias = s.tensor(1024, requires_grad=True)
    function = partial(tg.bias_activation, x, bias, name)
    return _case(backward, function, (x, bias), g, 2 * size, 3 * size)


def _linear(s: _Sizes, backward: bool) -> Case:
    """A product of few features that is added to its bias; and the gradient of that alone."""
    rows = max(2, s.n // 1024)
    x, w = s.tensor(rows, 8), s.tensor(1024, 8)
    bias, size = s.tensor(1024, requires_grad=True), rows * 1024 * s.item
    function = partial(functional.linear, x, w, bias)
    return _case(backward, function, (bias,), s.tensor(rows, 1024), 3 * size, size)


def _rows(function: Any, columns: int, s: _Sizes, backward: bool) -> Case:
    x, g, size = s.matrix(columns)
    return _case(backward, lambda: function(x), (x,), g, 2 * size, 3 * size)


def _few_rows(function: Any, s: _Sizes, backward: bool) -> Case:
    """Of 64 long rows, which are read twice."""
    return _rows(function, max(s.n // 64, 1 << 14), s, backward)


def _pool(function: Any, s: _Sizes, backward: bool) -> Case:
    """Of windows of 2 x 2; a maximum's gradient reads input and result besides."""
    planes = max(1, s.n // 1024)
    x = s.tensor(1, planes, 32, 32, requires_grad=True)
    g, size = s.tensor(1, planes, 16, 16), planes * 1024 * s.item
    more = 5 * size // 4 if function is functional.max_pool2d else 0
    return _case(backward, lambda: function(x, 2), (x,), g, 5 * size // 4, 5 * size // 4 + more)


def _places(s: _Sizes, backward: bool) -> Case:
    """Where the largest elements are, besides these."""
    planes = max(1, s.n // 1024)
    x, n = s.tensor(1, planes, 32, 32), planes * 1024
    moved = (2 * n + n // 2) * s.item + 8 * n // 4
    return Case(tg.no_grad()(lambda: functional.max_pool2d(x, 2, return_indices=True)), moved)


_FIVE = convolution.Axis(32, 5, 1, 2, 1, 32)


def _columns(s: _Sizes, backward: bool) -> Case:
    """The columns of windows of 5 x 5, and what they give back, in float32: 154 numbers of 160
    along an axis, as no window reaches the corners of the padding."""
    planes = max(1, s.n // (25 * 1024))
    x, xp = s.tensor(1, planes, 32, 32).data, backend.cuda_backend().xp
    piece = convolution.Piece(0, 1, 0, 1024)
    if not backward:
        made = partial(convolution.to_columns, xp, (_FIVE, _FIVE), x, piece, False)
        return Case(made, 26 * x.size * s.item)
    columns = xp.ones((1, 25 * planes, 1024), arithmetic(x.dtype))
    given = partial(convolution.from_columns, xp, (_FIVE, _FIVE), columns, None, x, False)
    inside = planes * 154**2 * columns.itemsize
    return Case(given, inside + x.size * s.item)


def _three(s: _Sizes, backward: bool) -> Case:
    """Windows of 3 x 3 of up to 64 channels, bound by arithmetic."""
    channels = min(64, max(16, s.n // 1024))
    shape = max(1, s.n // (1024 * channels)), channels, 32, 32
    x = s.tensor(*shape, requires_grad=True)
    w = s.tensor(channels, channels, 3, 3, requires_grad=True)
    g, size = s.tensor(*shape), 2 * x.size * s.item
    function = partial(functional.conv2d, x, w, padding=1)
    return _case(backward, function, (x, w), g, size, 2 * size)


def _channels(s: _Sizes, backward: bool) -> Case:
    """Sums of a product of all examples, in float32, put in their places; a bias in all places."""
    channels = max(1, s.n // 4096)
    y, xp = s.tensor(4, channels, 1024).data, backend.cuda_backend().xp
    bias = s.tensor(channels).data
    if not backward:
        return Case(partial(convolution.spread_channels, xp, bias, y), y.size * s.item)
    sums = xp.ones((channels, 4096), arithmetic(y.dtype))
    piece = convolution.Piece(0, 4, 0, 1024)
    put = partial(convolution.examples_apart, xp, sums, bias, y, piece)
    return Case(put, sums.nbytes + y.size * s.item)


def _recurrent(kind: str, s: _Sizes, backward: bool) -> Case:
    """Two steps of 64 units, with their products, whose operands count as they are read."""
    gates = 4 if kind == "lstm" else 3
    batch = max(2, s.n // 128)
    x = s.tensor(2, batch, 64, requires_grad=True)
    w_ih, w_hh = (s.tensor(64 * gates, 64, requires_grad=True) for _ in range(2))
    size = 2 * batch * 64 * s.item
    function = getattr(functional, kind)
    return _case(
        backward, lambda: function(x, w_ih, w_hh)[0], (x, w_ih, w_hh), s.tensor(2, batch, 64),
        (5 * gates + 5) * size, (5 * gates + 9) * size,
    )  # fmt: skip


def _attention(features: int, s: _Sizes, backward: bool) -> Case:
    """Heads of 64 queries and keys, which lie in one tile: so few that memory counts. Backward a
    first kernel reads g and y, one makes the gradient of queries, one those of keys and values."""
    shape = 1, max(1, s.n // (64 * features)), 64, features
    q, k, v = (s.tensor(*shape, requires_grad=True) for _ in range(3))
    size = q.size * s.item
    function = partial(functional.scaled_dot_product_attention, q, k, v)
    return _case(backward, function, (q, k, v), s.tensor(*shape), 4 * size, 13 * size)


def _norm(name: str, columns: int, s: _Sizes, backward: bool) -> Case:
    x, g, size = s.matrix(columns)
    more = [s.tensor(columns, requires_grad=True) for _ in range(2 if name == "layer_norm" else 1)]
    function = partial(getattr(functional, name), x, (columns,), *more)
    return _case(backward, function, (x, *more), g, 2 * size, 3 * size)


def _cross_entropy(columns: int, labels: str, s: _Sizes, backward: bool) -> Case:
    x, _, size = s.matrix(columns)
    target = tg.tensor(np.arange(x.shape[0]) % columns, device="cuda", dtype=getattr(tg, labels))
    one = tg.ones((), device="cuda", dtype=s.dtype)
    function = partial(functional.cross_entropy, x, target)
    return _case(backward, function, (x,), one, size, 2 * size)


def _dropout(s: _Sizes, backward: bool) -> Case:
    x, g, size = s.matrix(1024)
    return _case(backward, lambda: tg.dropout(x, 0.1), (x,), g, 2 * size, 2 * size)


def _taken(indices: str, s: _Sizes, backward: bool) -> Case:
    x, g, size = s.matrix(1024)
    order = np.random.default_rng(0).permutation(x.shape[0])
    rows = tg.tensor(order, device="cuda", dtype=getattr(tg, indices))
    return _case(backward, lambda: tg.take(x, rows, axis=0), (x,), g, 2 * size, 2 * size)


def _drawn(kind: str, s: _Sizes, backward: bool) -> Case:
    generator = tg.Generator(2)
    if kind == "randint":
        return Case(lambda: generator.randint(0, 10, (s.n,), device="cuda"), 8 * s.n)
    if kind == "permutation":  # words written, read by a sort, and the order written
        return Case(lambda: generator.permutation(s.n, device="cuda"), 24 * s.n)
    draw = getattr(generator, kind)
    return Case(lambda: draw((s.n,), device="cuda", dtype=s.dtype), s.item * s.n)


def _updated(name: str, s: _Sizes, backward: bool) -> Case:
    """An optimizer over many parameters, or what is done to all their gradients."""
    each = max(1, s.n // s.parameters)
    params = [nn.Parameter(s.tensor(each)) for _ in range(s.parameters)]
    for p in params:
        p.grad = s.tensor(each)
    size = each * s.parameters * s.item
    if name == "clip_grad_norm_":
        return Case(lambda: optim.clip_grad_norm_(params, 1e30), 3 * size)
    if name == "clip_grad_value_":
        return Case(lambda: optim.clip_grad_value_(params, 1e30), 2 * size)
    if name == "SGD momentum":
        return Case(optim.SGD(params, lr=0.1, momentum=0.9).step, 5 * size)
    return Case(getattr(optim, name)(params).step, 7 * size)


def _makers() -> dict[str, tuple[_Maker, bool]]:
    found: dict[str, tuple[_Maker, bool]] = {}

    def both(name: str, maker: _Maker) -> None:
        found[f"{name} forward"] = maker, False
        found[f"{name} backward"] = maker, True

    for name, function in ACTIVATIONS.items():
        both(name, partial(_activation, function))
        both(f"bias + {name}", partial(_with_bias, name))
    for columns in WIDTHS:
        both(f"softmax {columns}", partial(_rows, tg.softmax, columns))
        both(f"log_softmax {columns}", partial(_rows, tg.log_softmax, columns))
        both(f"layer_norm {columns}", partial(_norm, "layer_norm", columns))
        both(f"rms_norm {columns}", partial(_norm, "rms_norm", columns))
        if columns < 8192:
            for labels in ("int32", "int64"):
                maker = partial(_cross_entropy, columns, labels)
                both(f"cross_entropy {columns} {labels}", maker)
    both("linear", _linear)
    both("softmax of few rows", partial(_few_rows, tg.softmax))
    both("log_softmax of few rows", partial(_few_rows, tg.log_softmax))
    both("max_pool2d", partial(_pool, functional.max_pool2d))
    both("avg_pool2d", partial(_pool, functional.avg_pool2d))
    found["max_pool2d places"] = _places, False
    both("conv2d 3 x 3", _three)
    found["columns of windows"] = _columns, False
    found["sums of columns"] = _columns, True
    found["bias of channels"] = _channels, False
    found["examples apart"] = _channels, True
    for kind in ("lstm", "gru"):
        both(kind, partial(_recurrent, kind))
    for features in (64, 128):
        both(f"attention {features}", partial(_attention, features))
    both("dropout", _dropout)
    for indices in ("int32", "int64"):
        both(f"take rows {indices}", partial(_taken, indices))
    for kind in ("uniform", "normal", "randint", "permutation"):
        found[kind] = partial(_drawn, kind), False
    for name in UPDATES:
        found[name] = partial(_updated, name), False
    return found


_MAKERS = _makers()
NAMES = tuple(_MAKERS)
#: they are of one dtype
_ONCE = ("randint", "permutation")


def case(name: str, n: int = ELEMENTS, dtype: str = "float32", parameters: int = 200) -> Case:
    """A case on about ``n`` elements, a power of two."""
    maker, backward = _MAKERS[name]
    return maker(_Sizes(n, dtype, parameters), backward)


def copied(size: int) -> Case:
    """The device's own copy of so many bytes: what the others are compared with."""
    xp = backend.cuda_backend().xp
    source, target = xp.ones(size, xp.uint8), xp.empty(size, xp.uint8)
    runtime = xp.cuda.runtime

    def copy() -> None:
        runtime.memcpyAsync(
            target.data.ptr, source.data.ptr, size, runtime.memcpyDeviceToDevice,
            xp.cuda.get_current_stream().ptr,
        )  # fmt: skip

    return Case(copy, 2 * size)


def cases(settings: Settings) -> tuple[str, ...]:
    """A name for each kernel and dtype; in a rehearsal float32 alone."""
    dtypes = DTYPES[: settings.sized(len(DTYPES), 1)]
    return tuple(
        [f"{name} {t}" for t in dtypes for name in NAMES if t == "float32" or name not in _ONCE]
    )


def run(case_: str, settings: Settings, say: Say) -> dict[str, Any]:
    """Bytes per second, and the ratio to the copy's in the same round."""
    name, _, dtype = case_.rpartition(" ")
    n = settings.sized(ELEMENTS, 1 << 12)
    work = case(name, n, dtype, settings.sized(200, 7))
    copy = copied(n * (2 if dtype in ("float16", "bfloat16") else 4))
    work.run()
    seconds(work.run)
    seconds(copy.run)
    ratios, times = [], []
    for _ in range(settings.turns(ROUNDS)):
        reference = copy.moved / seconds(copy.run)
        times.append(seconds(work.run))
        ratios.append(work.moved / times[-1] / reference)
    rate, ratio = work.moved / median(times), median(ratios)
    below = "" if ratio >= BAR else f", below {BAR}"
    return {
        "bytes_per_second": rate, "ratio_to_copy": ratio,
        "figure": f"{rate / 1e9:.0f} GB/s, {ratio:.2f} of copy{below}",
    }  # fmt: skip
