"""grad, vjp, jvp, jacobian, hessian, hvp: closed forms, higher orders, and PyTorch's values."""

from __future__ import annotations

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import Tensor, ops
from tensorgrad.autograd import grad, hessian, hvp, jacobian, jvp, no_grad, vjp
from tensorgrad.errors import GradientError, ShapeError

RNG = np.random.default_rng(3)


def leaf(*shape: int) -> Tensor:
    return Tensor(RNG.standard_normal(shape), requires_grad=True)


def quadratic(x: Tensor) -> Tensor:
    return (x * x * x).sum()


def test_grad_leaves_dot_grad_alone() -> None:
    x = leaf(3)
    (g,) = grad(quadratic(x), x)
    np.testing.assert_allclose(g.numpy(), 3 * x.detach().numpy() ** 2)
    assert x.grad is None
    assert not g.requires_grad


def test_grad_to_the_fifth_order() -> None:
    x = Tensor(0.7, dtype=tg.float64, requires_grad=True)
    y = ops.exp(x * 2.0)
    for order in range(1, 6):
        (y,) = grad(y, x, create_graph=True)
        assert y.item() == pytest.approx(2.0**order * np.exp(1.4), rel=1e-12)


def test_grad_of_an_intermediate_value_and_of_several_outputs() -> None:
    x = leaf(3)
    h = x * 2.0
    a, b = (h * h).sum(), h.sum()
    gx, gh = grad([a, b], [x, h])
    np.testing.assert_allclose(gh.numpy(), 2 * h.detach().numpy() + 1)
    np.testing.assert_allclose(gx.numpy(), 2 * gh.numpy())


def test_grad_weights_the_outputs() -> None:
    x = leaf(3)
    w = Tensor(RNG.standard_normal(3))
    (g,) = grad(x * x, x, w)
    np.testing.assert_allclose(g.numpy(), 2 * x.detach().numpy() * w.numpy())


def test_grad_of_what_does_not_depend_is_zero() -> None:
    x, z = leaf(3), leaf(2)
    _, g = grad(x.sum(), [x, z])
    np.testing.assert_array_equal(g.numpy(), np.zeros(2))


def test_results_do_not_share_memory() -> None:
    x, z = leaf(3), leaf(3)
    seed = Tensor(np.ones(3))
    gx, gz = grad(x + z, [x, z], seed)
    gx.data[0] = 99.0
    assert gz.numpy()[0] == 1.0
    assert seed.numpy()[0] == 1.0


def test_grad_says_what_is_wrong() -> None:
    x = leaf(3)
    plain = Tensor([1.0, 2.0])
    with pytest.raises(GradientError, match="input number 0 does not require a gradient"):
        grad(x.sum(), plain)
    with pytest.raises(GradientError, match="nothing was recorded"):
        grad(plain.sum(), x)
    with pytest.raises(GradientError, match=r"shape \(3,\) needs a gradient"):
        grad(x * 2.0, x)
    with pytest.raises(ShapeError, match=r"shape \(3,\); got \(2,\)"):
        grad(x * 2.0, x, plain)
    with pytest.raises(ShapeError, match="as many grad_outputs"):
        grad([x.sum(), x.sum()], x, [None])


def test_grad_twice_needs_retain_graph() -> None:
    x = leaf(3)
    y = quadratic(x)
    grad(y, x, retain_graph=True)
    grad(y, x)
    with pytest.raises(GradientError, match="retain_graph=True"):
        grad(y, x)


def test_grad_does_not_use_up_what_it_does_not_need() -> None:
    x, z = leaf(3), leaf(3)
    side = ops.exp(z)
    y = (x * x + side).sum()
    grad(y, x)
    side.sum().backward()
    assert z.grad is not None
    np.testing.assert_allclose(z.grad.numpy(), np.exp(z.detach().numpy()))


def f(x: Tensor, y: Tensor) -> Tensor:
    return ops.tanh(x @ y) * x[:, :1]


def test_vjp_and_jvp_agree_with_the_jacobian() -> None:
    x, y = leaf(3, 4), leaf(4, 2)
    jx, jy = jacobian(f, (x, y))
    assert jx.shape == (3, 2, 3, 4)
    assert jy.shape == (3, 2, 4, 2)
    v = Tensor(RNG.standard_normal((3, 2)))
    out, (gx, gy) = vjp(f, (x, y), v)
    np.testing.assert_allclose(out.numpy(), f(x, y).detach().numpy())
    np.testing.assert_allclose(gx.numpy(), np.tensordot(v.numpy(), jx.numpy(), 2))
    np.testing.assert_allclose(gy.numpy(), np.tensordot(v.numpy(), jy.numpy(), 2))
    u = (Tensor(RNG.standard_normal((3, 4))), Tensor(RNG.standard_normal((4, 2))))
    _, t = jvp(f, (x, y), u)
    wanted = np.tensordot(jx.numpy(), u[0].numpy(), 2) + np.tensordot(jy.numpy(), u[1].numpy(), 2)
    np.testing.assert_allclose(t.numpy(), wanted)


def test_hessian_and_hvp() -> None:
    a = RNG.standard_normal((4, 4))
    matrix = Tensor(a)

    def form(x: Tensor) -> Tensor:
        return (x @ matrix @ x) * x.sum()

    x = leaf(4)
    h = hessian(form, x)
    assert h.shape == (4, 4)
    np.testing.assert_allclose(h.numpy(), h.numpy().T, atol=1e-12)
    v = Tensor(RNG.standard_normal(4))
    _, product = hvp(form, x, v)
    np.testing.assert_allclose(product.numpy(), h.numpy() @ v.numpy(), atol=1e-12)
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    theirs = torch.autograd.functional.hessian(
        lambda z: (z @ torch.tensor(a) @ z) * z.sum(), torch.tensor(x.detach().numpy())
    )
    np.testing.assert_allclose(h.numpy(), theirs.numpy(), atol=1e-10)


def test_hessian_of_several_inputs() -> None:
    x, y = leaf(2), leaf(3)
    blocks = hessian(lambda a, b: (a * a).sum() * b.sum(), (x, y))
    xs, ys = x.detach().numpy(), y.detach().numpy()
    np.testing.assert_allclose(blocks[0][0].numpy(), 2 * ys.sum() * np.eye(2), atol=1e-12)
    np.testing.assert_allclose(blocks[0][1].numpy(), np.repeat(2 * xs[:, None], 3, 1))
    np.testing.assert_allclose(blocks[1][1].numpy(), np.zeros((3, 3)))


def test_functions_work_inside_no_grad_and_leave_the_inputs_alone() -> None:
    x = leaf(3)
    with no_grad():
        _, g = vjp(quadratic, x)
        h = hessian(quadratic, x)
    np.testing.assert_allclose(g.numpy(), 3 * x.detach().numpy() ** 2)
    np.testing.assert_allclose(h.numpy(), np.diag(6 * x.detach().numpy()))
    assert x.grad is None


def test_create_graph_connects_to_the_inputs() -> None:
    x = leaf(3)
    j = jacobian(lambda z: z * z, x, create_graph=True)
    (g,) = grad(j.sum(), x)
    np.testing.assert_allclose(g.numpy(), [2.0, 2.0, 2.0])


def test_linear_and_constant_functions_have_zero_second_derivatives() -> None:
    x = leaf(3)
    np.testing.assert_array_equal(hessian(lambda z: z.sum(), x).numpy(), np.zeros((3, 3)))
    constant = Tensor(5.0, dtype=tg.float64)
    np.testing.assert_array_equal(hessian(lambda z: constant, x).numpy(), np.zeros((3, 3)))


def test_empty_outputs_and_inputs() -> None:
    x = Tensor(np.zeros((0, 2)), requires_grad=True)
    assert jacobian(lambda z: z * 2.0, x).shape == (0, 2, 0, 2)
    assert jacobian(lambda z: z[:0], leaf(3)).shape == (0, 3)


def test_shape_errors_of_v() -> None:
    x = leaf(3)
    with pytest.raises(ShapeError, match=r"vjp: v must have the shapes \[\(3,\)\]"):
        vjp(lambda z: z * 2.0, x, Tensor([1.0]))
    with pytest.raises(ShapeError, match="hessian: the function must return a single number"):
        hessian(lambda z: z, x)
