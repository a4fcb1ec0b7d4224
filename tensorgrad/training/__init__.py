"""Training: the Trainer, what can be hung into it, and the files it leaves."""

from typing import TYPE_CHECKING

from tensorgrad.hints import unknown_names as _unknown_names
from tensorgrad.training.checkpoint import (
    CheckpointError,
    LoadedCheckpoint,
    load_checkpoint,
    load_newest,
    save_checkpoint,
)
from tensorgrad.training.checkpointing import Checkpointing
from tensorgrad.training.curves import Curves, draw_curves
from tensorgrad.training.early_stopping import EarlyStopping
from tensorgrad.training.gradient_norms import GradientNorms
from tensorgrad.training.history import History
from tensorgrad.training.live import LivePlot
from tensorgrad.training.metrics import (
    F1,
    R2,
    ConfusionMatrix,
    EpochMetric,
    Precision,
    Recall,
    RocAuc,
    TopK,
    accuracy,
    mae,
    mse,
)
from tensorgrad.training.nan_stop import NanStop
from tensorgrad.training.progress import Progress
from tensorgrad.training.regions import draw_regions
from tensorgrad.training.tensorboard import TensorBoard
from tensorgrad.training.trainer import Callback, Trainer, TrainingError

__all__ = [
    "F1", "R2", "Callback", "CheckpointError", "Checkpointing", "ConfusionMatrix", "Curves",
    "EarlyStopping", "EpochMetric", "GradientNorms", "History", "LivePlot", "LoadedCheckpoint",
    "NanStop", "Precision", "Progress", "Recall", "RocAuc", "TensorBoard", "TopK", "Trainer",
    "TrainingError", "accuracy", "draw_curves", "draw_regions", "load_checkpoint", "load_newest",
    "mae", "mse", "save_checkpoint",
]  # fmt: skip

if not TYPE_CHECKING:
    __getattr__ = _unknown_names(__name__)
