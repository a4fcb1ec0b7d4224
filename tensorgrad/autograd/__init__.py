"""Gradients beyond ``backward()``: of any order, as functions, recomputed, checked, user-made."""

from typing import TYPE_CHECKING

from tensorgrad.autograd.anomaly import detect_anomaly
from tensorgrad.autograd.check import gradcheck, gradgradcheck
from tensorgrad.autograd.checkpoint import checkpoint
from tensorgrad.autograd.custom import custom_operation
from tensorgrad.autograd.functional import grad, hessian, hvp, jacobian, jvp, vjp
from tensorgrad.autograd.modes import enable_grad, is_grad_enabled, is_recomputing, no_grad
from tensorgrad.hints import unknown_names as _unknown_names

__all__ = [
    "checkpoint", "custom_operation", "detect_anomaly", "enable_grad", "grad", "gradcheck",
    "gradgradcheck", "hessian", "hvp", "is_grad_enabled", "is_recomputing", "jacobian", "jvp",
    "no_grad", "vjp",
]  # fmt: skip

if not TYPE_CHECKING:
    __getattr__ = _unknown_names(__name__)
