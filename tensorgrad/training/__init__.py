"""Training: the Trainer, what can be hung into it, and the files it leaves."""

from tensorgrad.training.callback import Callback
from tensorgrad.training.checkpoint import (
    CheckpointError,
    LoadedCheckpoint,
    load_checkpoint,
    save_checkpoint,
)
from tensorgrad.training.checkpointing import Checkpointing
from tensorgrad.training.curves import Curves, draw_curves
from tensorgrad.training.early_stopping import EarlyStopping
from tensorgrad.training.history import History
from tensorgrad.training.metrics import accuracy
from tensorgrad.training.progress import Progress
from tensorgrad.training.regions import draw_regions
from tensorgrad.training.trainer import Trainer, TrainingError

__all__ = [
    "Callback",
    "CheckpointError",
    "Checkpointing",
    "Curves",
    "EarlyStopping",
    "History",
    "LoadedCheckpoint",
    "Progress",
    "Trainer",
    "TrainingError",
    "accuracy",
    "draw_curves",
    "draw_regions",
    "load_checkpoint",
    "save_checkpoint",
]
