"""Gradients of complex numbers: where they enter and leave, and through random expressions."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import Tensor, autograd
from tensorgrad.autograd import checkpoint, custom_operation, gradcheck, gradgradcheck
from tensorgrad.errors import DtypeError, GradientError
from tensorgrad.program.verify import Difference

try:
    import torch as _torch
except ImportError:
    _torch = None  # type: ignore[assignment]
torch: Any = _torch
WITH_PYTORCH = pytest.mark.skipif(torch is None, reason="compares with PyTorch")

Z = np.array([0.7 + 0.4j, -0.3 + 1.1j, 1.2 - 0.6j])
V = np.array([0.2 - 1.0j, 0.9 + 0.3j, -0.5 - 0.4j])
X = np.array([0.6, -1.3, 0.8])


def leaf(a: Any) -> Tensor:
    return Tensor(a, requires_grad=True)


def there(a: Any) -> Any:
    return torch.tensor(a, requires_grad=True)


def assert_same(x: Tensor | None, y: Any) -> None:
    assert x is not None
    y = y.detach().resolve_conj().resolve_neg().numpy()
    assert (x.shape, x.dtype) == (y.shape, y.dtype)
    np.testing.assert_allclose(x.detach().numpy(), y, rtol=1e-10, atol=1e-12)


# --- where gradients enter and leave --------------------------------------------------------------


def test_the_gradient_points_where_the_loss_grows() -> None:
    z = leaf(Z)
    (tg.abs(z) ** 2).sum().backward()
    assert z.grad is not None
    np.testing.assert_allclose(z.grad.numpy(), 2 * Z)


def test_gradients_of_single_numbers_are_tensors() -> None:
    z = leaf(Z[0])
    y = tg.exp(z)
    y.retain_grad()
    tg.abs(y).backward()
    for g in (z.grad, y.grad, *autograd.grad(tg.abs(z), z)):
        assert isinstance(g, Tensor)
        assert type(g.data) is np.ndarray
        assert g.dtype == tg.complex128


def test_a_complex_result_needs_a_gradient() -> None:
    z = leaf(Z[0])
    for create in (False, True):
        with pytest.raises(GradientError, match="a complex tensor needs a gradient"):
            (z * z).backward(create_graph=create)
    with pytest.raises(GradientError, match="a complex tensor needs a gradient"):
        autograd.grad(z * z, z)
    with pytest.raises(DtypeError, match="complex"):
        tg.abs(z).backward(tg.tensor(1j))


@WITH_PYTORCH
@pytest.mark.parametrize("create", [False, True])
def test_a_given_gradient_enters_as_in_pytorch(create: bool) -> None:
    for seed in (V, X.astype(complex)):
        z, t = leaf(Z), there(Z)
        (tg.exp(z) * z).backward(tg.tensor(seed), create_graph=create)
        (torch.exp(t) * t).backward(torch.tensor(seed))
        assert_same(z.grad, t.grad)
    z = leaf(Z)
    z.backward(tg.tensor(V), create_graph=create)
    assert_same(z.grad, torch.tensor(V))


@WITH_PYTORCH
def test_hooks_and_kept_gradients_see_what_pytorch_shows() -> None:
    def run(x: Any, library: Any) -> list[Any]:
        seen: list[Any] = []

        def note(g: Any) -> Any:
            seen.append(g)
            return g * (1.0 + 2.0j)

        y = library.exp(x)
        y.retain_grad()
        for of in (x, y):
            of.register_hook(note)
        z = y * y + x
        z.register_hook(seen.append)
        library.real(z * (0.5 - 2j)).sum().backward()
        return [*seen, y.grad, x.grad]

    for x, y in zip(run(leaf(Z), tg), run(there(Z), torch), strict=True):
        assert_same(x, y)


@WITH_PYTORCH
def test_gradients_of_computed_tensors() -> None:
    def run(x: Any, library: Any) -> Any:
        y = library.sin(x)
        loss = library.abs(y * x + y).sum()
        grad = tg.autograd.grad if library is tg else torch.autograd.grad
        return grad(loss, [y, x])

    for x, y in zip(run(leaf(Z), tg), run(there(Z), torch), strict=True):
        assert_same(x, y)


@WITH_PYTORCH
@pytest.mark.parametrize(
    "function",
    [
        lambda lib, z: lib.exp(z) * z,
        lambda lib, z: z * lib.conj(z) + lib.abs(z),
        lambda lib, z: lib.angle(z) * 2.0,
    ],
)
def test_products_with_jacobians(function: Callable[[Any, Any], Any]) -> None:
    functional = torch.autograd.functional
    value = function(tg, Tensor(Z))
    v = V if value.dtype == tg.complex128 else V.real.copy()
    _, found = autograd.vjp(lambda z: function(tg, z), Tensor(Z), Tensor(v))
    _, wanted = functional.vjp(lambda z: function(torch, z), torch.tensor(Z), torch.tensor(v))
    assert_same(found, wanted)
    _, found = autograd.jvp(lambda z: function(tg, z), Tensor(Z), Tensor(V))
    _, wanted = functional.jvp(lambda z: function(torch, z), torch.tensor(Z), torch.tensor(V))
    assert_same(found, wanted)
    found = autograd.jacobian(lambda z: tg.real(function(tg, z)), Tensor(Z))
    wanted = functional.jacobian(lambda z: torch.real(function(torch, z)), torch.tensor(Z))
    assert_same(found, wanted)
    with pytest.raises(DtypeError, match=r"complex.*tg.real"):
        autograd.jacobian(lambda z: z * 2, Tensor(Z))


@WITH_PYTORCH
def test_second_derivatives_as_functions() -> None:
    def loss(lib: Any, z: Any) -> Any:
        return lib.sum(lib.abs(lib.exp(z) * z) ** 2)

    _, found = autograd.hvp(lambda z: loss(tg, z), Tensor(Z), Tensor(V))
    t = there(Z)
    (g,) = torch.autograd.grad(loss(torch, t), t, create_graph=True)
    (wanted,) = torch.autograd.grad(torch.real(torch.conj(torch.tensor(V)) * g).sum(), t)
    assert_same(found, wanted)


# --- real numbers beside complex ones -------------------------------------------------------------


@WITH_PYTORCH
def test_real_leaves_get_real_gradients() -> None:
    def run(x: Any, z: Any, library: Any) -> list[Any]:
        y = library.exp(x * 1j) * z + x
        y = library.where(library.real(y) > 0, y, x * z) / (x + 2.0)
        (library.abs(y).sum() + library.sum(library.imag(y) * x)).backward()
        return [x.grad, z.grad]

    for x, y in zip(run(leaf(X), leaf(Z), tg), run(there(X), there(Z), torch), strict=True):
        assert_same(x, y)


@WITH_PYTORCH
def test_parts_are_views_whose_gradients_go_back() -> None:
    z = leaf(Z)
    assert np.shares_memory(z.real.data, z.data)
    assert np.shares_memory(z.imag.data, z.data)
    (z.real * 2 + z.imag * 3).sum().backward()
    assert z.grad is not None
    np.testing.assert_array_equal(z.grad.numpy(), [2 + 3j] * 3)
    a, b = leaf(Z.real.copy()), leaf(Z.imag.copy())
    tg.abs(tg.complex(a, b) ** 2).sum().backward()
    t = there(Z)
    torch.abs(t**2).sum().backward()
    assert_same(a.grad, t.grad.real)
    assert_same(b.grad, t.grad.imag)
    assert tg.complex(np.inf, 1.0).item() == complex(np.inf, 1.0)


def test_gradients_at_zero_are_zero() -> None:
    """Those of lengths and angles, by the house's rule for singular points."""
    functions: list[Callable[[Any], Any]] = [
        tg.abs, tg.angle, tg.norm, lambda z: tg.real(tg.sign(z)), lambda z: tg.std(z),
    ]  # fmt: skip
    for function in functions:
        z = leaf(np.zeros(2, complex))
        tg.sum(function(z)).backward()
        assert z.grad is not None
        np.testing.assert_array_equal(z.grad.numpy(), 0)


# --- random expressions ---------------------------------------------------------------------------

ONE = [
    "exp", "sin", "tanh", "conj", "real", "imag", "abs", "angle", "square", "sqrt", "cos", "cumsum",
    "log", "sinh", "matmul", "index", "sum", "mean", "prod", "flip", "atan", "negative", "i",
]  # fmt: skip
TWO = ["add", "multiply", "subtract", "divide", "where", "outer", "pow"]


def unary(lib: Any, name: str, x: Any) -> Any:
    if name == "cumsum":
        return lib.cumsum(x, **({"axis": 0} if lib is tg else {"dim": 0}))
    if name == "matmul":
        return x @ x.T if x.ndim == 2 else x @ x
    if name == "index":
        return x[..., [1, 0, 1]] if x.ndim and x.shape[-1] > 1 else x * 2.0
    if name == "flip":
        return lib.flip(x, **({"axis": 0} if lib is tg else {"dims": (0,)}))
    if name == "i":
        return x * 0.7j + 0.2
    if name == "imag" and "complex" not in str(x.dtype):
        return x * 0.3
    if name in ("log", "sqrt"):
        return getattr(lib, name)(x * x.conj() + 1.3j + x)
    return getattr(lib, name)(x)


def binary(lib: Any, name: str, x: Any, y: Any) -> Any:
    if name == "divide":
        return x / (y * lib.conj(y) + (1.5 + 0.5j))
    if name == "where":
        return lib.where(lib.real(x) > lib.real(y), x + 0j, y * (1 + 0j))
    if name == "outer":
        return x.reshape(-1, 1)[:3] * y.reshape(1, -1)[:, :3]
    if name == "pow":
        return (x * x.conj() + 1.5 + 0.3j) ** (y * 0.2)
    return getattr(lib, name)(x, y)


def plan(rng: np.random.Generator) -> list[tuple[str, int, int]]:
    """Steps: what to do with which of the values so far."""
    steps = []
    for k in range(7):
        name = str(rng.choice(ONE if rng.random() < 0.55 else TWO))
        steps.append((name, int(rng.integers(0, k + 3)), int(rng.integers(0, k + 3))))
    return steps


def follow(lib: Any, steps: list[tuple[str, int, int]], values: list[Any]) -> Any:
    for name, i, j in steps:
        x, y = values[i], values[j]
        if name in ONE:
            made = unary(lib, name, x if x.ndim or name not in ("flip", "cumsum", "matmul") else y)
        else:
            made = binary(lib, name, x, y)
        values.append(made / (1.0 + lib.abs(made)))  # stays in range
    total: Any = 0.0
    for k, value in enumerate(values):
        total = total + lib.real(value * (0.5 + 0.1j * k)).sum() + lib.abs(value).sum() * 0.3
    return total


def derivatives(lib: Any, steps: list[tuple[str, int, int]], leaves: list[Any]) -> list[Any]:
    grad: Any = autograd.grad if lib is tg else torch.autograd.grad
    first = grad(follow(lib, steps, list(leaves)), leaves, create_graph=True)
    rng = np.random.default_rng(5)
    loss: Any = 0.0
    for g in first:
        v = lib.asarray(rng.uniform(-1, 1, tuple(g.shape)) + 1j * rng.uniform(-1, 1, g.shape))
        loss = loss + lib.real(lib.conj(v) * g).sum()
    return [*first, *grad(loss, leaves)]


@WITH_PYTORCH
@pytest.mark.parametrize("seed", range(40))
def test_random_expressions_have_the_gradients_of_pytorch(seed: int) -> None:
    """Of complex and real leaves, to the second order."""
    rng = np.random.default_rng(seed)
    a = rng.uniform(0.3, 1, (3, 3)) * np.exp(1j * rng.uniform(-3, 3, (3, 3)))
    b, c = rng.uniform(0.3, 1, (3,)) + 0.4j, rng.uniform(0.3, 1.0, (3,))
    steps = plan(rng)
    try:
        wanted = derivatives(torch, steps, [there(x) for x in (a, b, c)])
    except (RuntimeError, NotImplementedError, TypeError, IndexError) as error:
        pytest.skip(f"not in PyTorch: {error}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = derivatives(tg, steps, [leaf(x) for x in (a, b, c)])
    for x, y in zip(found, wanted, strict=True):
        y = (y.detach() + torch.zeros(y.shape)).resolve_conj().resolve_neg().numpy()
        scale = max(1.0, float(np.abs(y).max()))
        np.testing.assert_allclose(x.detach().numpy(), y, rtol=1e-7, atol=1e-9 * scale)


# --- checks, custom operations, checkpoints -------------------------------------------------------


def test_gradcheck_looks_along_real_and_imaginary_parts() -> None:
    assert gradcheck(lambda z, x: tg.sin(z) * tg.conj(z) * x, [leaf(Z), leaf(X)])
    assert gradgradcheck(lambda z: tg.abs(tg.exp(z)) * z, leaf(Z))
    wrong = custom_operation(lambda x: x.conj(), x=lambda g: g)
    assert not gradcheck(wrong, leaf(Z), raise_exception=False)
    with pytest.raises(GradientError, match="imaginary part"):
        gradcheck(wrong, leaf(Z))
    with pytest.raises(ValueError, match="complex64"):
        gradcheck(tg.exp, leaf(Z.astype(np.complex64)))


def test_custom_operations() -> None:
    cube = custom_operation(lambda x, w: x**3 * w, x=lambda g, x, w: g * 3 * x**2 * w,
                            w=lambda g, x: g * x**3)  # fmt: skip
    assert gradcheck(cube, [leaf(Z), leaf(V)])
    assert gradgradcheck(cube, [leaf(Z), leaf(X)])
    turned = custom_operation(lambda x: x * 1j, x=lambda g: g * 1j)
    assert gradcheck(turned, leaf(X))
    length = custom_operation(lambda x: abs(x), x=lambda g, x: g * tg.conj(x) / tg.abs(x))
    assert gradcheck(length, leaf(Z))
    assert length(leaf(X)).requires_grad
    z = leaf(Z.astype(np.complex64))
    tg.sum(tg.abs(cube(z, leaf(X.astype(np.float32))))).backward()
    assert z.grad is not None
    assert z.grad.dtype == tg.complex64


def test_checkpoints_recompute_complex_parts() -> None:
    def function(z: Tensor) -> Tensor:
        return tg.exp(z) * tg.conj(z)

    z, w = leaf(Z), leaf(Z)
    tg.abs(checkpoint(function, z)).sum().backward()
    tg.abs(function(w)).sum().backward()
    assert z.grad is not None
    assert w.grad is not None
    np.testing.assert_array_equal(z.grad.numpy(), w.grad.numpy())


@WITH_PYTORCH
def test_slices_and_assignments() -> None:
    def run(z: Any, x: Any, library: Any) -> list[Any]:
        y = z * 1.0
        y[1] = x[0] * 1j
        y[[0, 2]] = y[[2, 0]] * x[1:]
        (
            library.abs(y[:2]).sum() + library.angle(y[2]) + library.real(y[[0, 0, 1]]).sum()
        ).backward()
        return [z.grad, x.grad]

    for x, y in zip(run(leaf(Z), leaf(X), tg), run(there(Z), there(X), torch), strict=True):
        assert_same(x, y)
    z = leaf(Z)
    twin = copy.deepcopy(z)
    assert twin.requires_grad
    real = Tensor(X)
    with pytest.raises(DtypeError, match="complex"):
        real[0] = 1j


@pytest.mark.parametrize("executor", ["native", "numpy"])
def test_compiled_steps_call_what_is_complex(executor: str) -> None:
    w, r = leaf(Z), leaf(X)
    options = {"shift": 0.5j}

    def step(x: Tensor) -> tuple[Tensor | None, ...]:
        w.grad = r.grad = None
        z = tg.complex(x, x * 2) * 1j + options["shift"]
        z = z**2 / (w.real + 1j) + tg.fft.fft(z) * w + r
        z[0] = z[1] * 2j
        y = tg.where(z.imag > 0, z, tg.conj(z))
        y = tg.concat([y, y * x])[[0, 2, 1]]
        loss = tg.abs(y).sum() + tg.angle(y[0]) + tg.norm(z) + tg.sum(tg.real(y) * r)
        loss.backward()
        return loss.detach(), y.detach(), w.grad, r.grad

    compiled = tg.compile(step, executor=executor)
    for k in range(6):
        if k == 4:
            options["shift"] = 1.0 - 0.25j
        x = Tensor(X * (k + 1))
        found = [t.numpy().copy() for t in compiled(x) if t is not None]
        wanted = [t.numpy() for t in step(x) if t is not None]
        assert len(found) == 4
        for a, b in zip(found, wanted, strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)
    report = compiled.report()
    assert "something else" not in report
    assert report.startswith(f"executor {executor}")
    assert executor == "numpy" or "call abs: of its element type" in report


def test_a_program_that_differs_in_complex_numbers_is_found() -> None:
    for wanted in (Z, Z.astype(np.complex64), Z.reshape(1, 3)[:, ::2]):
        bound = 1e-9 if wanted.dtype == np.complex128 else 1e-4
        for off, text in ((0.1 * bound, ""), (100 * bound, "differs"), (np.nan, "differs")):
            found = wanted.copy()
            found.reshape(-1)[1] += 1j * off
            difference = Difference(wanted)
            difference.compare(found)
            assert (text in difference.text()) is True
            assert bool(difference.text()) == bool(text)
            assert not difference.is_rounding
