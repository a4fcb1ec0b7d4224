"""Optimizers, which turn gradients into new parameters."""

from typing import TYPE_CHECKING

from tensorgrad.hints import unknown_names as _unknown_names
from tensorgrad.optim import lr_scheduler
from tensorgrad.optim.adam import Adam, AdamW
from tensorgrad.optim.adam_variants import Adadelta, Adamax, Lion, NAdam, RAdam
from tensorgrad.optim.adaptive import Adagrad, RMSprop
from tensorgrad.optim.average import ExponentialMovingAverage
from tensorgrad.optim.clip import clip_grad_norm_, clip_grad_value_
from tensorgrad.optim.layerwise import LAMB, Adafactor, Muon
from tensorgrad.optim.optimizer import Optimizer
from tensorgrad.optim.scaler import GradScaler
from tensorgrad.optim.sgd import SGD
from tensorgrad.optim.sparse_adam import SparseAdam

__all__ = [
    "LAMB", "SGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax",
    "ExponentialMovingAverage", "GradScaler", "Lion", "Muon", "NAdam", "Optimizer", "RAdam",
    "RMSprop", "SparseAdam", "clip_grad_norm_", "clip_grad_value_", "lr_scheduler",
]  # fmt: skip

if not TYPE_CHECKING:
    __getattr__ = _unknown_names(__name__)
