"""The same functions in every framework that differentiates, for the small sections."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

Function = Callable[..., Any]

_SHARED = ("abs", "exp", "log", "maximum", "reciprocal", "sin", "sqrt", "square", "tanh", "where")


class Framework(NamedTuple):
    """A framework as the sections use it.

    functions: elementwise functions by NumPy's names, and sigmoid and relu.
    constant: an array of the framework made from a NumPy array.
    differentiated: ``differentiated(f, x)`` is a call that returns f(x), a number, and its
        gradient with respect to x, as the framework's own objects.
    """

    functions: Any
    constant: Callable[[Any], Any]
    differentiated: Callable[[Function, Any], Callable[[], tuple[Any, Any]]]


def load(framework: str) -> Framework:
    """The framework of that name; imports it."""
    return _LOADERS[framework]()


def _functions(module: Any, **others: Function) -> SimpleNamespace:
    return SimpleNamespace(**{name: getattr(module, name) for name in _SHARED}, **others)


def _load_tensorgrad(executor: str | None = None) -> Framework:
    import tensorgrad as tg

    def differentiated(f: Function, x: Any) -> Callable[[], tuple[Any, Any]]:
        leaf = tg.Tensor(x, requires_grad=True)

        def call() -> tuple[Any, Any]:
            leaf.grad = None
            loss = f(leaf)
            loss.backward()
            return loss, leaf.grad

        return call

    def program(f: Function, x: Any) -> Callable[[], tuple[Any, Any]]:
        return tg.compile(differentiated(f, x), executor=executor or "auto")

    functions = _functions(tg, sigmoid=tg.sigmoid, relu=tg.relu)
    return Framework(functions, tg.Tensor, program if executor else differentiated)


def _load_torch() -> Framework:
    import torch

    def differentiated(f: Function, x: Any) -> Callable[[], tuple[Any, Any]]:
        leaf = torch.tensor(x, requires_grad=True)

        def call() -> tuple[Any, Any]:
            leaf.grad = None
            loss = f(leaf)
            loss.backward()
            return loss.detach(), leaf.grad

        return call

    functions = _functions(torch, sigmoid=torch.sigmoid, relu=torch.relu)
    return Framework(functions, torch.tensor, differentiated)


def _load_jax() -> Framework:
    import jax
    import jax.numpy as jnp

    def differentiated(f: Function, x: Any) -> Callable[[], tuple[Any, Any]]:
        compiled = jax.jit(jax.value_and_grad(f))
        array = jnp.asarray(x)
        wait: Function = jax.block_until_ready
        return lambda: wait(compiled(array))

    functions = _functions(jnp, sigmoid=jax.nn.sigmoid, relu=jax.nn.relu)
    return Framework(functions, jnp.asarray, differentiated)


def _load_autograd() -> Framework:
    import autograd
    import autograd.numpy as anp

    def differentiated(f: Function, x: Any) -> Callable[[], tuple[Any, Any]]:
        module: Any = autograd  # whose names are not declared
        both = module.value_and_grad(f)
        return lambda: both(x)

    functions = _functions(
        anp, sigmoid=lambda x: 1 / (1 + anp.exp(-x)), relu=lambda x: anp.maximum(x, 0)
    )
    return Framework(functions, lambda x: x, differentiated)


_LOADERS: dict[str, Callable[[], Framework]] = {
    "tensorgrad": _load_tensorgrad,
    "tensorgrad native": _load_tensorgrad,  # the section switches native execution on
    "tensorgrad compiled": partial(_load_tensorgrad, executor="auto"),
    "tensorgrad numpy": partial(_load_tensorgrad, executor="numpy"),
    "torch": _load_torch,
    "jax": _load_jax,
    "autograd": _load_autograd,
}
