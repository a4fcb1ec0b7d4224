"""Gradients beyond ``backward()``."""
from tensorgrad.autograd.modes import enable_grad, is_grad_enabled, no_grad
