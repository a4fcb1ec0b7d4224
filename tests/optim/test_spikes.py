"""One gradient that is much too large: what the states hold, and what is said of it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sampler import host

import tensorgrad as tg
from tensorgrad import Tensor, optim

Make = Callable[[list[Tensor]], Any]
# optimizer, and the mean square after gradients of 1 and of 1e20
MEANS: dict[str, tuple[Make, str, float]] = {
    "Adam": (lambda p: optim.Adam(p, lr=0.1), "exp_avg_sq", 1e37),
    "AdamW": (lambda p: optim.AdamW(p, lr=0.1, amsgrad=True), "max_exp_avg_sq", 1e37),
    "NAdam": (lambda p: optim.NAdam(p, lr=0.1), "exp_avg_sq", 1e37),
    "RAdam": (lambda p: optim.RAdam(p, lr=0.1), "exp_avg_sq", 1e37),
    "RMSprop": (lambda p: optim.RMSprop(p, lr=0.1), "square_avg", 1e38),
    "centered": (lambda p: optim.RMSprop(p, lr=0.1, centered=True), "square_avg", 1e38),
    "Adadelta": (lambda p: optim.Adadelta(p, rho=0.99), "square_avg", 1e38),
    "LAMB": (lambda p: optim.LAMB(p, lr=0.1), "exp_avg_sq", 1e37),
}
# those whose sum of squares cannot hold it
LOST: dict[str, tuple[Make, str]] = {
    "Adam": (lambda p: optim.Adam(p, lr=0.1), "exp_avg_sq"),
    "RMSprop": (lambda p: optim.RMSprop(p, lr=0.1), "square_avg"),
    "Adagrad": (lambda p: optim.Adagrad(p, lr=0.1), "sum"),
    "LAMB": (lambda p: optim.LAMB(p, lr=0.1), "exp_avg_sq"),
}


def trained(make: Make, gradients: list[float], compiled: bool) -> tuple[Any, Tensor]:
    """An optimizer of one parameter of shape (2, 3) after these gradients, and the parameter."""
    p = Tensor(np.ones((2, 3), np.float32), requires_grad=True)
    optimizer = make([p])

    def step(g: Tensor) -> None:
        optimizer.zero_grad()
        (p * g).sum().backward()
        optimizer.step()

    run = tg.compile(step) if compiled else step
    for g in gradients:
        run(Tensor(np.full((2, 3), g, np.float32)))
    return optimizer, p


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("name", MEANS)
def test_the_square_alone_is_too_large(name: str, compiled: bool) -> None:
    make, state, mean = MEANS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer, p = trained(make, [1.0, 1e20], compiled)
        np.testing.assert_allclose(host(optimizer.state[p][state]), mean, rtol=1e-5)
        optimizer.state_dict()
    assert np.isfinite(host(p.detach())).all()


@pytest.mark.parametrize("name", LOST)
def test_what_cannot_be_held_is_said(name: str) -> None:
    make, state = LOST[name]
    with pytest.warns(RuntimeWarning, match="too large for its dtype.*clip the gradients") as found:
        optimizer, p = trained(make, [1.0, 1e30], False)
    assert found[0].filename == __file__
    assert np.isinf(host(optimizer.state[p][state])).all()
    with pytest.warns(RuntimeWarning, match=f"{name}: state {state!r} of parameter 0 is infinite"):
        optimizer.state_dict()


def test_a_compiled_step_says_it_when_it_is_saved() -> None:
    optimizer, _ = trained(LOST["Adam"][0], [1.0, 1.0, 1e30], True)
    with pytest.warns(RuntimeWarning, match="infinite in 6 of 6 places"):
        optimizer.state_dict()


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("scale", [1e25, 1e-25, 1.0])
def test_the_norm_that_gradients_are_clipped_by(scale: float, compiled: bool) -> None:
    values = [np.array([3.0, 0.0], np.float32), np.array([[0.0], [4.0]], np.float32)]
    params = [Tensor(v, requires_grad=True) for v in values]
    given = [Tensor(v * np.float32(scale)) for v in values]

    def step(a: Tensor, b: Tensor) -> Tensor:
        for p in params:
            p.grad = None
        ((params[0] * a).sum() + (params[1] * b).sum()).backward()
        return optim.clip_grad_norm_(params, scale)

    run = tg.compile(step) if compiled else step
    for _ in range(2):
        norm = run(*given)
    assert norm.item() == pytest.approx(5 * scale, rel=1e-6)
    if scale >= 1:
        for p, v in zip(params, values, strict=True):
            assert p.grad is not None
            np.testing.assert_allclose(host(p.grad), v * scale / 5, rtol=1e-5)


@pytest.mark.parametrize("norm_type", [1.5, 3.0, math.inf])
def test_other_norms_that_gradients_are_clipped_by(norm_type: float) -> None:
    p = Tensor([1.0, 1.0], requires_grad=True)
    p.grad = Tensor([3e25, -4e25])
    norm = optim.clip_grad_norm_([p], 1.0, norm_type=norm_type)
    assert norm.item() == pytest.approx(
        1e25 * float(np.linalg.norm([3.0, 4.0], norm_type)), rel=1e-5
    )


def test_muon_and_lamb_see_lengths_whose_squares_are_too_large() -> None:
    steps = []
    for scale in (1.0, 1e25):
        p = Tensor(np.eye(3, dtype=np.float32), requires_grad=True)
        p.grad = Tensor(np.diag([3.0, 2.0, 1.0]).astype(np.float32) * np.float32(scale))
        optim.Muon([p], lr=0.1).step()
        steps.append(host(p.detach()))
    np.testing.assert_allclose(steps[0], steps[1], rtol=1e-5)
