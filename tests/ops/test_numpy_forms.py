"""Functions with NumPy's names: NumPy's values in every form of call, and right gradients."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numeric import assert_slope
from ops.numpy_calls import DIFFERENTIABLE, MADE, NUMPY_ALONE, PLAIN, arguments
from sampler import LAYOUTS, Array, host, outputs

import tensorgrad as tg
import tensorgrad.ops.numpy_linalg  # (or its first use is captured once more)
from tensorgrad import Tensor
from tensorgrad.ops import numpy_modules

pytestmark = pytest.mark.filterwarnings("ignore")
ARGUMENTS = arguments()
EVERY = [*DIFFERENTIABLE, *PLAIN, *MADE]


def names_in(call: str) -> list[str]:
    """The arguments that a call has, and of which it may have gradients."""
    return [name for name in re.findall(r"\b[a-z]\b", call) if name in ARGUMENTS]


def leaves_of(call: str) -> list[str]:
    return [name for name in dict.fromkeys(names_in(call)) if ARGUMENTS[name].dtype.kind in "fc"]


def parts_of(a: Array) -> Array:
    """Complex numbers as their two parts."""
    return np.stack([a.real, a.imag]) if a.dtype.kind == "c" else a


def value(call: str, module: Any, given: dict[str, Any]) -> Any:
    """What a call gives with these arguments, of NumPy's function or one of another module."""
    with np.errstate(all="ignore"):
        return eval(call, {"np": module, "slice": slice}, dict(given))


def tensors(call: str, requires_grad: bool = False) -> dict[str, Tensor]:
    return {
        name: Tensor(ARGUMENTS[name], requires_grad=requires_grad and name in leaves_of(call))
        for name in names_in(call)
    }


def same(found: Any, right: Any) -> None:
    """NumPy's numbers, shapes and kinds; tensors for its arrays and numbers."""
    if isinstance(right, list | tuple):
        assert isinstance(found, list if type(right) is list else tuple)
        assert len(found) == len(right)
        for a, b in zip(found, right, strict=True):
            same(a, b)
        return
    if right is None or type(right) in (int, str):
        assert found == right
        return
    right = np.asarray(right)
    assert isinstance(found, Tensor)
    assert found.shape == right.shape
    assert found.dtype.kind == right.dtype.kind, found.dtype
    np.testing.assert_allclose(host(found), right, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("call", MADE)
def test_what_is_made_of_numbers(call: str) -> None:
    found = value(call.replace("dtype=float", "dtype='float32'"), tg, {})
    right = value(call, np, {})
    for a, b in zip(outputs(found), outputs(right), strict=True):
        assert a.dtype == (tg.float32 if b.dtype.kind == "f" else tg.int64)
        assert a.shape == b.shape
        np.testing.assert_allclose(host(a), b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("call", [*DIFFERENTIABLE, *PLAIN])
def test_value(call: str) -> None:
    """Through NumPy's protocol, and by the function of ours."""
    right = value(call, np, ARGUMENTS)
    given = tensors(call)
    before = {name: host(x).copy() for name, x in given.items()}
    same(value(call, np, given), right)
    if call not in NUMPY_ALONE:
        same(value(call, tg, given), right)
    for name, x in given.items():
        np.testing.assert_array_equal(host(x), before[name], err_msg="the input was modified")
        x.data = LAYOUTS[len(call) % len(LAYOUTS)].tensor(before[name], "cpu").data
    same(value(call, np, given), right)


def floats(result: Any) -> list[Tensor]:
    found = []
    for y in outputs(result):
        if isinstance(y, Tensor) and y.dtype.kind in "fc":
            found += [tg.real(y), tg.imag(y)] if y.dtype.kind == "c" else [y]
    return found


def loss_of(call: str, given: dict[str, Tensor]) -> Tensor:
    """The sum of all elements that are numbers, each times a weight of its own."""
    loss = Tensor(0.0, dtype=tg.float64)
    for y in floats(value(call, np, given)):
        weights = 1.0 + np.cos(np.arange(y.size)).reshape(y.shape)
        kept = tg.where(tg.isfinite(y), y, 0.0)
        loss = loss + tg.sum(kept * Tensor(weights) + tg.square(kept) * 0.3)
    return loss


@pytest.mark.parametrize("call", DIFFERENTIABLE)
def test_gradients(call: str, rng: np.random.Generator) -> None:
    """First and second ones, against differences."""
    names = leaves_of(call)
    at = [parts_of(ARGUMENTS[name]) for name in names]
    numbers = [np.isfinite(a) for a in at]
    v = [rng.uniform(0.5, 1.5, a.shape) * keep for a, keep in zip(at, numbers, strict=True)]

    def loss(leaves: Sequence[Tensor]) -> Tensor:
        given = tensors(call)
        for name, x in zip(names, leaves, strict=True):
            given[name] = tg.complex(x[0], x[1]) if ARGUMENTS[name].dtype.kind == "c" else x
        return loss_of(call, given)

    def gradients(arrays: Sequence[Array], again: bool) -> list[Tensor]:
        leaves = [Tensor(a, requires_grad=True) for a in arrays]
        found = loss(leaves)
        assert found.requires_grad
        firsts = tg.autograd.grad(found, leaves, create_graph=again)
        return [*firsts, *leaves] if again else [*firsts]

    def first(arrays: Sequence[Array]) -> float:
        return loss([Tensor(a) for a in arrays]).item()

    def second(arrays: Sequence[Array]) -> float:
        found = gradients(arrays, False)
        return float(sum((host(g) * d).sum() for g, d in zip(found, v, strict=True)))

    found = gradients(at, True)
    firsts, leaves = found[: len(names)], found[len(names) :]
    clean = [np.where(keep, host(g), 0.0) for g, keep in zip(firsts, numbers, strict=True)]
    for g, keep in zip(firsts, numbers, strict=True):
        assert not host(g)[~keep].any()

    def along(direction: Sequence[Array]) -> list[Array]:
        return [d * keep for d, keep in zip(direction, numbers, strict=True)]

    assert_slope(first, at, clean, rng, tries=1, move=along)
    again = Tensor(0.0, dtype=tg.float64)
    for g, d in zip(firsts, v, strict=True):
        again = again + tg.sum(g * Tensor(d))
    seconds = tg.autograd.grad(again, leaves) if again.requires_grad else None
    zeros = [np.zeros(a.shape) for a in at]
    assert_slope(
        second, at, zeros if seconds is None else [host(g) for g in seconds], rng, tries=1,
        move=along,
    )  # fmt: skip


@pytest.mark.parametrize("call", PLAIN)
def test_what_has_no_gradient_records_nothing(call: str) -> None:
    for y in outputs(value(call, np, tensors(call, True))):
        assert not (isinstance(y, Tensor) and y.requires_grad and y.size and host(y).any())


FORMS = [
    (module, name)
    for module in numpy_modules.MODULES
    for name in vars(module)["__all__"]
    if callable(getattr(module, name))
]


#: One of each module, whose results have a size that does not depend on numbers.
IN_PROGRAMS = [
    "np.quantile(x, [0.1, 0.9], axis=1)",
    "np.nanmedian(n, axis=1)",
    "np.cov(x, aweights=p[:4])",
    "np.nanvar(n, axis=1)",
    "np.block([[x, m], [m, x]])",
    "np.nan_to_num(n)",
    "np.maximum.accumulate(x, axis=1)",
    "np.sum(x, where=x > 0, initial=1.5)",
    "np.interp(x, np.cumsum(p) - 2, v)",
    "np.convolve(v, p[:4], 'same')",
    "np.polyval(v, x)",
    "np.histogram(v, 3, weights=p)[0]",
    "np.select([u], [x], default=s)",
    "np.insert(v, 2, s)",
    "np.einsum(x, [0, 1], x, [0, 1])",
    "np.geomspace(p, 5.0, 4)",
]


@pytest.mark.parametrize("call", IN_PROGRAMS)
def test_programs_follow(call: str) -> None:
    """What these functions do, with their gradients, and other numbers in replays."""
    names = leaves_of(call)
    given: dict[str, Any] = dict(tensors(call))

    def step(*leaves: Tensor) -> Tensor:
        for x in leaves:
            x.grad = None
        y = value(call, np, {**given, **dict(zip(names, leaves, strict=True))})
        loss = tg.sum(tg.square(y) + y)
        loss.backward()
        return loss.detach()

    compiled = tg.compile(step, executor="numpy")
    leaves = [Tensor(ARGUMENTS[name], requires_grad=True) for name in names]
    for factor in (1.0, 1.001, 1.002):
        again = [Tensor(ARGUMENTS[name] * factor, requires_grad=True) for name in names]
        for x, other in zip(leaves, again, strict=True):
            x.data = other.data.copy()
        np.testing.assert_allclose(host(compiled(*leaves)), host(step(*again)), rtol=1e-10)
        for x, other in zip(leaves, again, strict=True):
            assert (x.grad is None) == (other.grad is None)
            if x.grad is not None and other.grad is not None:
                np.testing.assert_allclose(host(x.grad), host(other.grad), rtol=1e-9, atol=1e-12)
    assert compiled.captures == 1


@pytest.mark.parametrize(
    "call",
    [
        "np.r_[v, w]",
        "np.r_[v, 0, 1.5, w]",
        "np.r_['0,2', v, w]",
        "np.r_['-1', x, x]",
        "np.r_['1,2,0', v, w]",
        "np.r_['0,3,1', m, m]",
        "np.r_[0:3, v]",
        "np.r_[-1:1:6j, v]",
        "np.c_[v, w]",
        "np.c_[x, x]",
    ],
)
def test_brackets_join(call: str) -> None:
    """NumPy's own ask no tensor."""
    given = tensors(call, True)
    found = value(call, tg, given)
    same(found, value(call, np, ARGUMENTS))
    assert found.requires_grad


@pytest.mark.parametrize(("module", "name"), FORMS, ids=[name for _, name in FORMS])
def test_arguments_are_numpys(module: types.ModuleType, name: str) -> None:
    """Those of which NumPy tells, in its order; what is left out is a layout or a copy."""
    ours = inspect.signature(getattr(module, name)).parameters
    assert inspect.getdoc(getattr(module, name)), "a function needs a sentence"
    assert any(f"np.{name}(" in call for call in EVERY), "no call of it is in the table"
    theirs = getattr(np, name, None)
    if theirs is None or isinstance(theirs, np.ufunc):
        return
    try:
        known = list(inspect.signature(theirs).parameters)
    except ValueError:  # of older versions these are not told
        return
    ours_alone = {"dtype", "device"} if any(f"np.{name}(" in call for call in MADE) else set()
    assert [k for k in ours if k not in ours_alone - {*known}] == [k for k in known if k in ours]
    assert set(known) - set(ours) <= {"order", "subok", "copy", "like", "device"}
