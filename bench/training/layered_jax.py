"""The networks of ``layered`` in JAX: the whole step in one ``jit``, the old state given up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench.training import layered
from bench.training.networks import BETA1, BETA2, EPSILON

#: A loss of parameters in PyTorch's order, input and target.
Loss = Callable[[Iterator[Any], Any, Any], Any]
DECAY = 0.01  # AdamW's, by default


def _cross_entropy(y: Any, target: Any) -> Any:
    return -jnp.take_along_axis(jax.nn.log_softmax(y), target[:, None], 1).mean()


def _squares(y: Any, target: Any) -> Any:
    return jnp.mean((y - target) ** 2)


def _convolved(x: Any, weight: Any, stride: int = 1) -> Any:
    return jax.lax.conv_general_dilated(
        x, weight, (stride, stride), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "OIHW", "NHWC")
    )


def _pooled(x: Any) -> Any:
    n, height, width, channels = x.shape
    return x.reshape(n, height // 2, 2, width // 2, 2, channels).max((2, 4))


def _convolutional(p: Iterator[Any], x: Any, target: Any) -> Any:
    x = x.transpose(0, 2, 3, 1)
    for _ in range(2):
        x = _pooled(jax.nn.relu(_convolved(x, next(p)) + next(p)))
    x = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
    return _cross_entropy(x @ next(p).T + next(p), target)


def _normed(x: Any, p: Iterator[Any]) -> Any:
    """Batch norm; the running statistics are left out, to their advantage."""
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    return (x - mean) * (jax.lax.rsqrt(variance + 1e-5) * next(p)) + next(p)


def _residual(p: Iterator[Any], x: Any, target: Any) -> Any:
    x = jax.nn.relu(_normed(_convolved(x.transpose(0, 2, 3, 1), next(p)), p))
    for before, after, stride in layered.BLOCKS:
        y = jax.nn.relu(_normed(_convolved(x, next(p), stride), p))
        y = _normed(_convolved(y, next(p)), p)
        if stride == 2:
            added = (after - before) // 2
            x = jnp.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (added, added)))
        x = jax.nn.relu(y + x)
    return _cross_entropy(x.mean((1, 2)) @ next(p).T + next(p), target)


def _scanned(cell: Callable[..., Any], states: int, p: Iterator[Any], x: Any, target: Any) -> Any:
    w, u, b, c = p
    inputs = x @ w.T + b
    zeros = (jnp.zeros((x.shape[1], u.shape[1])),) * states

    def turn(state: Any, given: Any) -> tuple[Any, None]:
        return cell(state, given, state[0] @ u.T + c), None

    return _squares(jax.lax.scan(turn, zeros, inputs)[0][0], target)


def _lstm(state: Any, given: Any, recurrent: Any) -> tuple[Any, Any]:
    i, f, g, o = jnp.split(given + recurrent, 4, -1)
    c = jax.nn.sigmoid(f) * state[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def _gru(state: Any, given: Any, recurrent: Any) -> tuple[Any]:
    (r, z, n), (s, y, m) = jnp.split(given, 3, -1), jnp.split(recurrent, 3, -1)
    z = jax.nn.sigmoid(z + y)
    n = jnp.tanh(n + jax.nn.sigmoid(r + s) * m)
    return ((1 - z) * n + z * state[0],)


def _layer_norm(x: Any, p: Iterator[Any]) -> Any:
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(variance + 1e-5) * next(p) + next(p)


def _linear(x: Any, p: Iterator[Any]) -> Any:
    return x @ next(p).T + next(p)


def _block(p: Iterator[Any], x: Any, causal: bool) -> Any:
    shape = (*x.shape[:2], layered.HEADS, layered.WIDTH // layered.HEADS)
    parts = jnp.split(_linear(_layer_norm(x, p), p), 3, -1)
    y = jax.nn.dot_product_attention(*(part.reshape(shape) for part in parts), is_causal=causal)
    x = x + _linear(y.reshape(x.shape), p)
    y = jax.nn.gelu(_linear(_layer_norm(x, p), p), approximate=False)
    return x + _linear(y, p)


def _transformer(p: Iterator[Any], x: Any, target: Any) -> Any:
    return _squares(_block(p, x, False), target)


def _gpt(p: Iterator[Any], x: Any, target: Any) -> Any:
    y = next(p)[x] + next(p)
    for _ in range(layered.LAYERS):
        y = _block(p, y, True)
    y = _layer_norm(y, p) @ next(p).T
    return _cross_entropy(y.reshape(-1, layered.VOCABULARY), target)


def _embedding(p: Iterator[Any], x: Any, target: Any) -> Any:
    return _squares(next(p)[x], target)


LOSSES: dict[str, Loss] = {
    layered.CONVNET: _convolutional,
    layered.RESNET: _residual,
    layered.LSTM: partial(_scanned, _lstm, 2),
    layered.GRU: partial(_scanned, _gru, 1),
    layered.CELL: partial(_scanned, _lstm, 2),
    layered.BLOCK: _transformer,
    layered.GPT: _gpt,
    layered.EMBEDDING: _embedding,
}


def _sgd(p: Any, gradients: Any, state: Any, lr: float, momentum: float = 0) -> tuple[Any, Any]:
    if momentum:
        state = jax.tree.map(lambda v, g: momentum * v + g, state, gradients)
        gradients = state
    return jax.tree.map(lambda p, g: p - lr * g, p, gradients), state


def _adam(p: Any, gradients: Any, state: Any, lr: float, decay: float = 0) -> tuple[Any, Any]:
    count, m, v = state
    count = count + 1
    m = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, m, gradients)
    v = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, v, gradients)
    root = jnp.sqrt(1 - BETA2**count)
    rate = lr * root / (1 - BETA1**count)
    p = jax.tree.map(
        lambda p, m, v: p * (1 - lr * decay) - rate * m / (jnp.sqrt(v) + EPSILON * root), p, m, v
    )
    return p, (count, m, v)


def training_step(name: str) -> Callable[[], Any]:
    """A call that makes one step of a case and returns the loss, when it is there.

    Shapes and values of the parameters are those of tensorgrad's module.
    """
    import tensorgrad as tg

    case, draw = layered.CASES[name], np.random.default_rng(0)
    values: Any = [jnp.asarray(a) for a in layered.parameters(case.model(tg)[0], draw)]
    x, target = (jnp.asarray(a) for a in case.batch(draw))
    assert case.optimizer is not None
    kind, options = case.optimizer
    zeros: Any = [jnp.zeros_like(a) for a in values]
    update: Any
    if kind == "SGD":
        update, state = partial(_sgd, **options), zeros if "momentum" in options else ()
    else:
        decay = DECAY if kind == "AdamW" else 0.0
        update = partial(_adam, decay=decay, **options)
        state = (jnp.float32(0), zeros, [jnp.zeros_like(a) for a in values])

    def whole(values: Any, state: Any, x: Any, target: Any) -> tuple[Any, Any, Any]:
        loss, gradients = jax.value_and_grad(lambda p: LOSSES[name](iter(p), x, target))(values)
        return *update(values, gradients, state), loss

    compiled = jax.jit(whole, donate_argnums=(0, 1))
    wait: Callable[[Any], Any] = jax.block_until_ready

    def step() -> Any:
        nonlocal values, state
        values, state, loss = wait(compiled(values, state, x, target))
        return loss

    return step
