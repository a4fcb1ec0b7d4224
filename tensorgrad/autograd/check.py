"""Checking gradients against differences of function values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tensorgrad import dtypes
from tensorgrad.autograd.functional import Tensors, _as_tuple, _grad_or_zeros
from tensorgrad.autograd.modes import enable_grad
from tensorgrad.errors import GradientError
from tensorgrad.tensor import Tensor


def gradcheck(
    function: Callable[..., Tensors],
    inputs: Tensors,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    seed: int = 0,
    raise_exception: bool = True,
) -> bool:
    """Whether the gradients of ``function(*inputs)`` agree with central differences.

    The derivative is compared along one random direction in the space of all inputs, weighted by
    random numbers over all outputs: two evaluations whatever the size. Only after a failure each
    entry is looked at, to name the worst. Where the function has a kink on the way (the one-sided
    differences disagree), any value between the one-sided derivatives is right.

    inputs: float64 or complex128 tensors; those that require a gradient are checked, complex ones
        along their real and imaginary parts. eps: the step.
    Returns True, or raises GradientError (returns False if ``raise_exception`` is False).
    Raises ValueError for inputs of another dtype, or of which none is checked.
    """
    ins = _as_tuple("inputs", inputs)
    checked = [i for i, x in enumerate(ins) if x.requires_grad]
    if not checked:
        raise ValueError("gradcheck: no input requires a gradient, so there is nothing to check")
    for i in checked:
        if ins[i].dtype not in (dtypes.float64, dtypes.complex128):
            raise ValueError(
                f"gradcheck: input {i} is {ins[i].dtype}; differences need float64, convert it "
                "with .astype(tg.float64)"
            )
    rng = np.random.default_rng(seed)
    points = [x.detach().numpy() if x.device == "cpu" else x.detach().cpu().numpy() for x in ins]
    devices = [x.device for x in ins]

    def evaluate(shift: dict[int, np.ndarray[Any, Any]], scale: float) -> list[Any]:
        with enable_grad():  # the function may itself take gradients
            moved = [
                Tensor(
                    p + scale * shift[i] if i in shift else p, device=d, requires_grad=i in checked
                )
                for i, (p, d) in enumerate(zip(points, devices))
            ]
            outputs = _as_tuple("outputs", function(*moved))
        return [_wide(o.detach().cpu().numpy()) for o in outputs]

    with enable_grad():
        leaves = [
            Tensor(p, device=d, requires_grad=i in checked)
            for i, (p, d) in enumerate(zip(points, devices))
        ]
        outs = _as_tuple("outputs", function(*leaves))
        weights = [_normal(rng, o) for o in outs]
        gradients = _grad_or_zeros(
            outs,
            [leaves[i] for i in checked],
            [Tensor(w, dtype=o.dtype, device=o.device) for w, o in zip(weights, outs)],
            False,
        )
    analytic = {i: g.cpu().numpy() for i, g in zip(checked, gradients)}
    direction = {i: _normal(rng, points[i]) for i in checked}

    def differences(shift: dict[int, np.ndarray[Any, Any]]) -> tuple[float, float, float]:
        ahead, here, behind = evaluate(shift, eps), evaluate({}, 0.0), evaluate(shift, -eps)
        right = sum(_paired(w, a - h) for w, a, h in zip(weights, ahead, here)) / eps
        left = sum(_paired(w, h - b) for w, h, b in zip(weights, here, behind)) / eps
        return (right + left) / 2, min(left, right), max(left, right)

    def agrees(value: float, found: tuple[float, float, float]) -> bool:
        central, low, high = found
        tolerance = atol + rtol * abs(central)
        kink = high - low > tolerance
        if kink:
            return low - tolerance <= value <= high + tolerance
        return abs(value - central) <= tolerance

    total = sum(_paired(analytic[i], direction[i]) for i in checked)
    if agrees(total, differences(direction)):
        return True
    if not raise_exception:
        return False
    raise GradientError(_worst_entry(points, analytic, differences, agrees))


def _wide(a: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return a.astype(np.complex128 if a.dtype.kind == "c" else np.float64)


def _normal(rng: np.random.Generator, like: Any) -> np.ndarray[Any, Any]:
    """Random numbers of the shape of ``like``, complex ones if it is."""
    x = np.asarray(rng.standard_normal(like.shape))
    return x + 1j * rng.standard_normal(like.shape) if like.dtype.kind == "c" else x


def _paired(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    """The sum of products, in which a complex number is a pair of real ones."""
    return float(np.vdot(a, b).real)


def _worst_entry(
    points: list[Any],
    analytic: dict[int, Any],
    differences: Callable[[Any], tuple[float, float, float]],
    agrees: Callable[[float, tuple[float, float, float]], bool],
) -> str:
    worst: tuple[float, str] = (-1.0, "")
    wrong = count = 0
    for i, gradient in analytic.items():
        parts = {"": gradient}
        if gradient.dtype.kind == "c":
            parts = {", the real part": gradient.real, ", the imaginary part": gradient.imag}
        for which, slope in parts.items():
            step = 1j if which.endswith("imaginary part") else 1.0
            for place in np.ndindex(gradient.shape):
                one = np.zeros_like(points[i])
                one[place] = step
                found, given = differences({i: one}), float(slope[place])
                count += 1
                if agrees(given, found):
                    continue
                wrong += 1
                if abs(given - found[0]) > worst[0]:
                    worst = (
                        abs(given - found[0]),
                        f"worst is input {i} at {place}{which}: the gradient rule gives "
                        f"{given:.8g}, differences give {found[0]:.8g}",
                    )
    if not wrong:
        return (
            "gradcheck: along a random direction the gradient disagrees with differences, though "
            "no single entry does; the function may not be smooth or not deterministic"
        )
    return f"gradcheck: {wrong} of {count} entries disagree with differences; {worst[1]}"


def gradgradcheck(
    function: Callable[..., Tensors],
    inputs: Tensors,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    seed: int = 0,
    raise_exception: bool = True,
) -> bool:
    """``gradcheck`` of the gradient: whether second derivatives are right; same arguments."""
    ins = _as_tuple("inputs", inputs)
    checked = [i for i, x in enumerate(ins) if x.requires_grad]
    rng = np.random.default_rng(seed + 1)
    weights: list[Tensor] = []

    def gradient(*args: Tensor) -> tuple[Tensor, ...]:
        outs = _as_tuple("outputs", function(*args))
        if not weights:
            weights.extend(Tensor(_normal(rng, o), dtype=o.dtype, device=o.device) for o in outs)
        return _grad_or_zeros(outs, [args[i] for i in checked], weights, True)

    return gradcheck(
        gradient, ins, eps=eps, atol=atol, rtol=rtol, seed=seed, raise_exception=raise_exception
    )
