"""Functions as one primitive."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from program.executors import EXECUTORS
from sampler import host

import tensorgrad as tg
from tensorgrad import Tensor
from tensorgrad.autograd import gradcheck, gradgradcheck
from tensorgrad.errors import CompileError


def swish(x: Any, beta: Any) -> Any:
    return x * tg.sigmoid(beta * x)


def gate(x: Any, y: Any, sharpness: float = 1.0) -> Any:
    return tg.tanh(x * sharpness) * tg.exp(-y * y) + tg.where(x > y, x, 0.0)


CASES: list[tuple[Any, list[tuple[int, ...]], dict[str, Any]]] = [
    (swish, [(3, 4), (4,)], {}),
    (swish, [(3, 4), ()], {}),
    (swish, [(0, 4), (4,)], {}),
    (gate, [(2, 1, 4), (3, 1)], {"sharpness": 2.0}),
    (gate, [(5,), (5,)], {}),
]


EVERY_CASE = pytest.mark.parametrize(("function", "shapes", "constants"), CASES)


def check(
    function: Any, shapes: Any, constants: Any, dtype: Any, rng: np.random.Generator, device: str
) -> Any:
    """The fused function, which gave what the plain one gives, forward and backward."""
    fused = tg.fuse(function)
    for _ in range(3):
        arrays = [rng.standard_normal(s) for s in shapes]
        found = []
        for f in (function, fused):
            xs = [Tensor(a, dtype=dtype, device=device, requires_grad=True) for a in arrays]
            y = f(*xs, **constants)
            (y * y).sum().backward()
            found.append([host(y), *[host(x.grad) for x in xs]])
        for a, b in zip(*found, strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_allclose(a, b, rtol=1e-10 if dtype == tg.float64 else 1e-4, atol=1e-6)
        plain = [Tensor(a, dtype=dtype, device=device) for a in arrays]
        np.testing.assert_allclose(
            host(fused(*plain, **constants)), host(function(*plain, **constants)), rtol=1e-4
        )
    return fused


@EVERY_CASE
@pytest.mark.parametrize("dtype", [tg.float64, tg.float32])
def test_like_the_plain_function(
    function: Any, shapes: Any, constants: Any, dtype: Any, rng: np.random.Generator, device: str
) -> None:
    check(function, shapes, constants, dtype, rng, device)


def test_derivatives_to_second_order(rng: np.random.Generator) -> None:
    fused = tg.fuse(swish)
    x = Tensor(rng.standard_normal((2, 3)), requires_grad=True)
    beta = Tensor(rng.standard_normal(3), requires_grad=True)
    assert gradcheck(fused, (x, beta))
    assert gradgradcheck(fused, (x, beta))


def test_inside_a_compiled_step() -> None:
    fused = tg.fuse(swish)

    def step(x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        fused(x, 2.0).sum().backward()
        assert x.grad is not None
        return x.grad

    call = tg.compile(step)
    x = Tensor(np.linspace(-2, 2, 9))
    np.testing.assert_allclose(call(x).numpy(), step(x).numpy(), rtol=1e-10)
    assert "fuse" not in str(call.program())


@pytest.mark.skipif("native" not in EXECUTORS, reason="there is no C compiler")
def test_one_loop_each_way() -> None:
    fused = tg.fuse(swish)
    with pytest.raises(CompileError, match="call the function first"):
        fused.source()
    x = Tensor(np.ones(5, np.float32), requires_grad=True)
    fused(x, Tensor(np.ones(5, np.float32))).sum().backward()
    text = fused.source("c")
    assert text.count("for (long c") == 2
    assert "tg_sigmoid_f" in text
    kernels = fused.source("cuda")
    assert kernels.count("__global__") == 2
    assert "tg_sigmoid_f" in kernels
    with pytest.raises(ValueError, match='must be "c"'):
        fused.source("fortran")


def test_wrong_use() -> None:
    with pytest.raises(TypeError, match="must be a tensor"):
        tg.fuse(swish)(1.0, 2.0)
    with pytest.raises(CompileError, match="must return one tensor"):
        tg.fuse(lambda x: (x, x))(Tensor(1.0))


def test_it_keeps_name_and_documentation() -> None:
    @tg.fuse
    def half(x: Tensor) -> Tensor:
        """Half of it."""
        return x * 0.5

    assert half.__name__ == "half"
    assert half.__doc__ == "Half of it."
