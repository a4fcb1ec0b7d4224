"""JAX: the whole step is one ``jit``, and the old state is given up."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench.records.contestants import Adam, Array, Function, Maker, Parameters
from bench.records.graphs import Graph


def _conv2d(x: Any, weight: Any, bias: Any, padding: int = 0) -> Any:
    """Channels last, which XLA is quickest with on a CPU."""
    pads = ((padding, padding), (padding, padding))
    names = ("NHWC", "OIHW", "NHWC")
    return jax.lax.conv_general_dilated(x, weight, (1, 1), pads, dimension_numbers=names) + bias


def _max_pool2d(x: Any, size: int) -> Any:
    n, height, width, channels = x.shape
    return x.reshape(n, height // size, size, width // size, size, channels).max((2, 4))


def _flatten(x: Any) -> Any:
    """In the order of channels first, as the others have it."""
    return x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)


def _linear(x: Any, weight: Any, bias: Any = None) -> Any:
    y = x @ weight.T
    return y if bias is None else y + bias


def _attention(q: Any, k: Any, v: Any, is_causal: bool = False) -> Any:
    """(..., heads, positions, width); its function wants the heads behind the positions."""
    q, k, v = (jnp.atleast_3d(x).swapaxes(-3, -2) for x in (q, k, v))
    return jax.nn.dot_product_attention(q, k, v, is_causal=is_causal).swapaxes(-3, -2)


def _layer_norm(x: Any, shape: Any, weight: Any, bias: Any, eps: float = 1e-5) -> Any:
    """Over the last axis, whatever its ``shape``."""
    x = x - x.mean(-1, keepdims=True)
    return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + eps) * weight + bias


def _cross_entropy(y: Any, target: Any, ignore_index: int = -100) -> Any:
    counts = target != ignore_index
    rows = jnp.where(counts, target, 0)[:, None]
    found = jnp.take_along_axis(jax.nn.log_softmax(y), rows, 1)[:, 0]
    return -jnp.where(counts, found, 0).sum() / counts.sum()


OPS = SimpleNamespace(
    relu=jax.nn.relu,
    tanh=jnp.tanh,
    layer_norm=_layer_norm,
    linear=_linear,
    concat=jnp.concatenate,
    conv2d=_conv2d,
    max_pool2d=_max_pool2d,
    attention=_attention,
    cross_entropy=_cross_entropy,
    images=lambda x: x.transpose(0, 2, 3, 1),
    flatten=_flatten,
    floats=lambda x: x.astype(jnp.float32),
)


def _updated(state: Any, gradients: Any, rate: Any, adam: Adam | None) -> Any:
    """state: the parameters, and what the optimizer remembers: of Adam the steps and both means."""
    p, memory = state
    if adam is None:
        return jax.tree.map(lambda p, g: p - rate * g, p, gradients), memory
    count, m, v = memory
    count = count + 1
    m = jax.tree.map(lambda m, g: adam.beta1 * m + (1 - adam.beta1) * g, m, gradients)
    v = jax.tree.map(lambda v, g: adam.beta2 * v + (1 - adam.beta2) * g * g, v, gradients)
    root = jnp.sqrt(1 - adam.beta2**count)
    rate = rate * root / (1 - adam.beta1**count)
    p = jax.tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(v) + adam.epsilon * root), p, m, v)
    return p, (count, m, v)


class _Training:
    """By ``jit``, which keeps what it makes for all shapes, however many ``programs``."""

    def __init__(
        self,
        parameters: Parameters,
        loss: Function,
        outputs: Function,
        adam: Adam | None = Adam(),  # noqa: B008
        programs: int = 8,
    ) -> None:
        def step(state: Any, rate: Any, *batch: Any) -> Any:
            value, gradients = jax.value_and_grad(lambda p: loss(OPS, p, *batch))(state[0])
            return _updated(state, gradients, rate, adam), value

        self._step = jax.jit(step, donate_argnums=(0,))
        self._outputs = jax.jit(partial(outputs, OPS))
        p = {name: jnp.asarray(a) for name, a in parameters.items()}
        zeros = [{name: jnp.zeros_like(a) for name, a in p.items()} for _ in range(2)]
        self._state = p, (() if adam is None else (jnp.float32(0), *zeros))

    def step(self, rate: float, *batch: Array) -> Any:
        self._state, value = self._step(self._state, rate, *batch)
        return value

    def outputs(self, *inputs: Array) -> Array:
        return np.asarray(self._outputs(self._state[0], *inputs))

    def values(self) -> dict[str, Array]:
        return {name: np.array(a) for name, a in self._state[0].items()}

    def take(self, values: Parameters) -> None:
        self._state = {name: jnp.asarray(a) for name, a in values.items()}, self._state[1]


training = _Training


def graph(make: Maker, of: Graph) -> Callable[[], Any]:
    """A call that computes value and derivatives, and waits for them."""
    settings: Any = jax.config
    settings.update("jax_enable_x64", True)
    wait: Callable[[Any], Any] = jax.block_until_ready

    def value(a: Any, b: Any) -> Any:
        return of.function(a, b, jax.nn.relu)

    both = jax.jit(jax.value_and_grad(value, (0, 1)))
    a, b = jnp.float64(of.a), jnp.float64(of.b)

    def call() -> Any:
        y, (ga, gb) = wait(both(a, b))
        return y, ga, gb

    return call
