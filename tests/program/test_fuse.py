"""Functions as one primitive."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from program.executors import EXECUTORS
from sampler import host

import tensorgrad as tg
from tensorgrad import Tensor, dtypes
from tensorgrad.autograd import grad, gradcheck, gradgradcheck
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


# --- what its gradients are computed from ---------------------------------------------------------


def product(x: Any, y: Any) -> Any:
    return tg.exp(x * 0.5) * y


def test_every_backward_pass_has_its_own_gradient(rng: np.random.Generator) -> None:
    """Two passes through one entry; what comes in was overwritten in between, in place."""
    x, y = (Tensor(rng.standard_normal(4), requires_grad=True) for _ in range(2))
    z = tg.fuse(product)(x, y)
    g = Tensor(np.ones(4))
    z.backward(g, retain_graph=True)
    first = [host(x.grad).copy(), host(y.grad).copy()]
    for change in (lambda: g.copy_(g * 3.0), lambda: np.multiply(g.data, 3.0, out=g.data)):
        x.grad = y.grad = None
        change()
        z.backward(g, retain_graph=True)
    np.testing.assert_allclose(host(x.grad), first[0] * 9.0, rtol=1e-12)
    np.testing.assert_allclose(host(y.grad), first[1] * 9.0, rtol=1e-12)
    # One input now, the other one later.
    (only,) = grad(z, x, g, retain_graph=True)
    g *= 2.0
    (other,) = grad(z, y, g)
    np.testing.assert_allclose(host(only), first[0] * 9.0, rtol=1e-12)
    np.testing.assert_allclose(host(other), first[1] * 18.0, rtol=1e-12)


def test_a_tensor_that_is_given_twice(rng: np.random.Generator) -> None:
    """In the first call, and in a later one; to the second order."""
    for order in ((True, False), (False, True), (True, False, True)):
        fused = tg.fuse(product)
        for twice in order:
            found = []
            numbers = rng.standard_normal((2, 3))
            for f in (product, fused):
                x, y = (Tensor(a, requires_grad=True) for a in numbers)
                y = x if twice else y
                z = f(x, y)
                (gradient,) = grad(z.sum(), x, create_graph=True)
                (second,) = grad((gradient * gradient).sum(), x)
                f(x, y).sum().backward()
                found.append([host(t) for t in (z, gradient, second, x.grad)])
                plain = [x.detach(), x.detach() if twice else y.detach()]
                found[-1].append(host(f(*plain)))
            for a, b in zip(*found, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-10)


def test_the_gradient_that_comes_in_may_be_an_input() -> None:
    """In memory it is the input, and at the next call it is not."""
    fused = tg.fuse(product)
    for same in (True, False, True):
        x, y = (Tensor(np.linspace(0.5, 2.0, 4) * k, requires_grad=True) for k in (1.0, 2.0))
        g = x.detach() if same else Tensor(np.full(4, 3.0))
        fused(x, y).backward(g)
        np.testing.assert_allclose(host(y.grad), np.exp(host(x) / 2) * host(g), rtol=1e-10)


@pytest.mark.parametrize("backward_inside", [False, True])
def test_gradients_in_the_precision_of_the_call(
    backward_inside: bool, rng: np.random.Generator
) -> None:
    """autocast around the call counts, and not the one around the backward pass, as on the tape."""
    fused = tg.fuse(lambda x, w: tg.tanh(x @ w))
    for precision in (None, tg.bfloat16, None, tg.float16, tg.bfloat16, None):
        arrays = [rng.standard_normal((2, 5)), rng.standard_normal((5, 3))]
        found = []
        for f in (fused.function, fused):
            x, w = (Tensor(a, dtype=tg.float32, requires_grad=True) for a in arrays)
            with tg.autocast(precision or tg.bfloat16, enabled=precision is not None):
                y = f(x, w)
            with tg.autocast("bfloat16", enabled=backward_inside):
                y.sum().backward()
            found.append([host(t) for t in (y, x.grad, w.grad)])
        for a, b in zip(*found, strict=True):
            assert a.dtype == b.dtype
            rtol = 1e-5 if precision is None else 2e-2
            np.testing.assert_allclose(a.astype(float), b.astype(float), rtol=rtol, atol=rtol)
            as_computed = a.astype(precision or tg.float32)
            assert (as_computed.astype(a.dtype) == a).all()


@pytest.mark.usefixtures("defaults")
def test_gradients_with_the_default_dtype_of_the_call() -> None:
    fused = tg.fuse(lambda x: x * tg.full((3,), 0.1))
    for default in (tg.float32, tg.float64, tg.float32, tg.float64):
        x = Tensor(np.ones(3), dtype=tg.float32, requires_grad=True)
        dtypes.set_default_dtype(default)
        y = fused(x)
        dtypes.set_default_dtype(tg.float32)
        assert y.dtype == default
        y.backward(Tensor(np.full(3, 9.0), dtype=default))
        np.testing.assert_array_equal(
            host(x.grad), np.float32(default.type(0.1) * default.type(9.0))
        )
        assert dtypes.get_default_dtype() == tg.float32


def test_an_entry_from_before_a_compiled_step(rng: np.random.Generator) -> None:
    x, y = (Tensor(rng.standard_normal(4), requires_grad=True) for _ in range(2))
    z = tg.fuse(product)(x, y)

    def step(g: Tensor) -> None:
        x.grad = y.grad = None
        z.backward(g, retain_graph=True)

    compiled = tg.compile(step)
    for k in range(4):
        g = Tensor(rng.standard_normal(4) + k)
        compiled(g)
        np.testing.assert_allclose(host(y.grad), np.exp(host(x) / 2) * host(g), rtol=1e-10)
        np.testing.assert_allclose(
            host(x.grad), host(y) * np.exp(host(x) / 2) / 2 * host(g), rtol=1e-10
        )


def test_a_result_that_depends_on_no_input() -> None:
    fused = tg.fuse(lambda x: tg.ones(x.shape))
    x = Tensor(np.ones(3), requires_grad=True)
    (fused(x) * 2.0 + x).sum().backward()
    np.testing.assert_array_equal(host(x.grad), 1.0)


def test_a_number_is_what_it_is_without_fuse() -> None:
    def product(x: Any, factor: Any) -> Any:
        return x * factor

    fused = tg.fuse(product)
    half = Tensor(np.ones(2, np.float16))
    for x in (Tensor([1, 2]), Tensor([True, False]), Tensor([1.0, 2.0]), half):
        for factor in (1.5, 3):
            right, came = product(x, factor), fused(x, factor)
            assert (came.dtype, came.tolist()) == (right.dtype, right.tolist())


def test_what_would_not_get_a_gradient_is_refused() -> None:
    w = Tensor([1.0, 2.0], requires_grad=True)
    fused = tg.fuse(lambda x: x * w)
    x = Tensor([1.0, 2.0], requires_grad=True)
    for _ in range(2):
        with pytest.raises(CompileError, match="pass it as an argument"):
            fused(x)
    w.requires_grad_(False)
    fused(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1.0, 2.0]


def test_random_numbers_are_refused_where_the_gradient_would_draw_others() -> None:
    fused = tg.fuse(lambda x: tg.dropout(x, 0.5))
    with pytest.raises(CompileError, match="draws no random numbers"):
        fused(Tensor([1.0, 2.0], requires_grad=True))
    assert fused(Tensor([1.0, 2.0])).shape == (2,)
