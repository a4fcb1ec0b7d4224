"""JAX: the whole step in one ``jit``, the old state given up (donated)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from bench.training.networks import (
    ADAM_RATE,
    BETA1,
    BETA2,
    EPSILON,
    MOMENTUM,
    MOMENTUM_RATE,
    Network,
    start,
)


def _attention(network: Network, layers: Any, x: Any) -> Any:
    shape = (*x.shape[:2], network.heads, x.shape[2] // network.heads)
    q, k, v = ((x @ weight + bias).reshape(shape) for weight, bias in layers[:3])
    weight, bias = layers[3]
    return jax.nn.dot_product_attention(q, k, v).reshape(x.shape) @ weight + bias


def _loss(network: Network, layers: Any, x: Any, target: Any) -> Any:
    if network.hidden == "attention":
        return jnp.mean((_attention(network, layers, x) - target) ** 2)
    for i, (weight, bias, *norm) in enumerate(layers):
        x = x @ weight + bias
        if network.hidden == "sigmoid":
            x = jax.nn.sigmoid(x)
        elif i < len(layers) - 1:
            if norm:
                x = (x - x.mean(1, keepdims=True)) * jax.lax.rsqrt(x.var(1, keepdims=True) + 1e-5)
                x = jax.nn.gelu(x * norm[0] + norm[1], approximate=False)
            else:
                x = jax.nn.relu(x)
    if network.hidden == "sigmoid":
        return jnp.mean((x - target) ** 2)
    return -jnp.take_along_axis(jax.nn.log_softmax(x), target[:, None], 1).mean()


def _momentum(layers: Any, gradients: Any, state: Any) -> tuple[Any, Any]:
    state = jax.tree.map(lambda v, g: MOMENTUM * v + g, state, gradients)
    return jax.tree.map(lambda p, v: p - MOMENTUM_RATE * v, layers, state), state


def _adam(layers: Any, gradients: Any, state: Any) -> tuple[Any, Any]:
    count, m, v = state
    count = count + 1
    m = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, m, gradients)
    v = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, v, gradients)
    root = jnp.sqrt(1 - BETA2**count)
    rate = ADAM_RATE * root / (1 - BETA1**count)
    layers = jax.tree.map(
        lambda p, m, v: p - rate * m / (jnp.sqrt(v) + EPSILON * root), layers, m, v
    )
    return layers, (count, m, v)


def training_step(network: Network, optimizer: str) -> Callable[[], Any]:
    """A call that makes one step and returns the loss, when it is there."""
    begin = start(network)
    layers: Any = [(jnp.asarray(w), jnp.asarray(b)) for w, b in begin.layers]
    if network.hidden == "gelu":
        layers = [
            (w, b, jnp.ones_like(b), jnp.zeros_like(b)) if i < len(layers) - 1 else (w, b)
            for i, (w, b) in enumerate(layers)
        ]
    x, target = jnp.asarray(begin.x), jnp.asarray(begin.target)
    zeros = jax.tree.map(jnp.zeros_like, layers)
    if optimizer == "momentum":
        update, state = _momentum, zeros
    else:
        update, state = _adam, (jnp.float32(0), zeros, jax.tree.map(jnp.zeros_like, layers))

    def whole(layers: Any, state: Any, x: Any, target: Any) -> tuple[Any, Any, Any]:
        loss, gradients = jax.value_and_grad(lambda p: _loss(network, p, x, target))(layers)
        return *update(layers, gradients, state), loss

    compiled = jax.jit(whole, donate_argnums=(0, 1))
    wait: Callable[[Any], Any] = jax.block_until_ready

    def step() -> Any:
        nonlocal layers, state
        layers, state, loss = wait(compiled(layers, state, x, target))
        return loss

    return step
