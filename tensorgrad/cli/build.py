"""A network, its loss and its optimizer, put together from the settings; or from a finished run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tensorgrad import backend, nn, optim
from tensorgrad.cli.data import Problem, grey_of
from tensorgrad.cli.folder import CHECKPOINT, MODEL
from tensorgrad.cli.networks import build_model
from tensorgrad.cli.settings import DEFAULTS, OPTIMIZERS
from tensorgrad.errors import TensorgradError
from tensorgrad.nn import functional
from tensorgrad.ops.indexing import one_hot
from tensorgrad.optim import lr_scheduler
from tensorgrad.tensor import Tensor
from tensorgrad.training import load_checkpoint
from tensorgrad.training.metrics import Metric

Settings = Mapping[str, Any]
Loss = Callable[[Tensor, Tensor], Tensor]
Schedule = lr_scheduler.LRScheduler | lr_scheduler.ReduceLROnPlateau | None


def build_loss(problem: Problem, settings: Settings) -> Loss:
    """The loss: for classes as the settings say, for numbers the squared error."""
    if problem.classes is None:
        return _loss_of_tokens if problem.is_text else functional.mse_loss
    if settings["loss"] == "cross-entropy":
        return functional.cross_entropy
    classes = problem.outputs

    def squared_error(output: Tensor, target: Tensor) -> Tensor:
        """Against .9 for the right class and .1 for the others."""
        wanted = one_hot(target, classes).astype(output.dtype) * 0.8 + 0.1
        return functional.mse_loss(output, wanted, "half_mean")

    return squared_error


def _loss_of_tokens(output: Tensor, target: Tensor) -> Tensor:
    """The mean cross-entropy of all tokens, (N, T, tokens) against (N, T)."""
    return functional.cross_entropy(output.reshape((-1, output.shape[-1])), target.reshape((-1,)))


def build_optimizer(model: nn.Module, settings: Settings) -> optim.Optimizer:
    """The optimizer, with its own learning rate if none is set."""
    name, rate = OPTIMIZERS[settings["optimizer"]]
    options = {} if settings["momentum"] is None else {"momentum": settings["momentum"]}
    found: optim.Optimizer = getattr(optim, name)(
        model.parameters(), lr=rate if settings["lr"] is None else settings["lr"], **options
    )
    return found


def build_schedule(
    optimizer: optim.Optimizer, settings: Settings, batches: int
) -> tuple[Schedule, str]:
    """The schedule of the learning rate, or None; and when it is stepped.

    batches: of an epoch. They all end with the last epoch: "step" divides by 10 after each third,
    "exponential" and "polynomial" reach a hundredth and 0, "cosine" falls to 0 in half a wave,
    "warmup" rises over the first tenth and then falls likewise, "one-cycle" rises for 30 %.
    "plateau" divides by 10 after 5 epochs without a lower validation loss.
    """
    name, epochs = settings["schedule"], settings["epochs"]
    steps = epochs * batches
    rate = float(optimizer.param_groups[0]["lr"])
    if name == "step":
        return lr_scheduler.StepLR(optimizer, max(1, -(-epochs // 3))), "epoch"
    if name == "exponential":
        return lr_scheduler.ExponentialLR(optimizer, 0.01 ** (1 / epochs)), "epoch"
    if name == "polynomial":
        return lr_scheduler.PolynomialLR(optimizer, steps), "batch"
    if name == "cosine":
        return lr_scheduler.CosineAnnealingLR(optimizer, steps), "batch"
    if name == "warmup":
        rising = max(1, steps // 10)
        parts = [
            lr_scheduler.LinearLR(optimizer, 0.01, 1.0, rising),
            lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps - rising)),
        ]
        return lr_scheduler.SequentialLR(optimizer, parts, [rising]), "batch"
    if name == "one-cycle":
        return lr_scheduler.OneCycleLR(optimizer, rate, max(2, steps)), "batch"
    if name == "plateau":
        return lr_scheduler.ReduceLROnPlateau(optimizer, patience=5), "epoch"
    return None, "epoch"


def build_penalty(model: nn.Module, settings: Settings) -> Callable[[], Tensor] | None:
    """The regularizer: L1, L2, both, or None."""
    l1, l2 = settings["l1"], settings["l2"]
    if not l1 and not l2:
        return None
    weights = [p for p in model.parameters() if p.ndim > 1]

    def penalty() -> Tensor:
        """Of all weights."""
        if not l2:
            return functional.l1_penalty(weights, l1)
        squares = functional.l2_penalty(weights, l2)
        return squares if not l1 else squares + functional.l1_penalty(weights, l1)

    return penalty


_OF_CLASSES = ("accuracy", "top_5", "precision", "recall", "f1", "roc_auc")
_OF_NUMBERS = ("r2", "mae", "mse")
_OF_TOKENS = ("accuracy", "top_5")


def metrics_of(
    problem: Problem, settings: Settings, default: Sequence[str] | None = None
) -> list[str | Metric]:
    """The figures to report: as set, else ``default``, else what suits the task.

    Errors of predicted numbers are in the units of the data. Raises TensorgradError, before
    anything is trained, for a figure that is unknown or of the other task.
    """
    known: Sequence[str] = _OF_CLASSES if problem.classes is not None else _OF_NUMBERS
    usual = ["accuracy"] if problem.classes is not None else ["r2", "mae"]
    if problem.classes is None and problem.is_text:
        known, usual = _OF_TOKENS, []
    names = settings["metrics"] if default is None else default
    wrong = [name for name in names or () if name not in known]
    if wrong:
        what = "classes" if problem.classes is not None else "numbers"
        what = "tokens" if problem.is_text else what
        raise TensorgradError(
            f"unknown metric {wrong[0]!r}; for a target of {what} there are {', '.join(known)} "
            "(--metrics)"
        )
    if "top_5" in (names or ()) and problem.outputs <= 5:
        raise TensorgradError(
            f"top_5 is always 1 where there are {problem.outputs} classes; it needs six (--metrics)"
        )
    own: dict[str, Metric] = {}
    if problem.classes is None:
        own = {"mae": _in_units(problem, "mae", 1), "mse": _in_units(problem, "mse", 2)}
    return [own.get(name, name) for name in names or usual]


def _in_units(problem: Problem, name: str, power: int) -> Metric:
    """The mean of ``|error| ** power``, of errors in the units of the data."""
    scale = np.array(problem.target_std, np.float32)

    def error(output: Tensor, target: Tensor) -> Any:
        """Of a batch."""
        off = abs((output.data - target.data) * backend.of(output.data).xp.asarray(scale))
        return (off**power).mean()

    error.__name__ = name
    return error


class Run(NamedTuple):
    """A finished run, or an interrupted one that has a model already."""

    folder: Path
    model: nn.Sequential  # in evaluation mode
    problem: Problem
    settings: dict[str, Any]


def load_run(path: str | Path, device: str) -> Run:
    """The network that the run in the folder ``path`` has trained.

    path: the folder, or a file in it. Raises TensorgradError, saying what to do, if there is none.
    """
    folder = Path(path)
    if folder.is_file():
        folder = folder.parent
    file = folder / MODEL
    if not file.is_file():
        there = folder / CHECKPOINT
        raise TensorgradError(
            f"{folder} holds no {MODEL}; "
            + (
                f"it was interrupted: go on with tensorgrad resume {folder}"
                if there.is_file()
                else "give the folder of a run of tensorgrad train"
            )
        )
    found = load_checkpoint(file)
    config = dict(found.config)
    about = config.pop("problem", None)
    required = set(Problem._fields) - set(Problem._field_defaults)
    if not isinstance(about, dict) or not required <= set(about) <= set(Problem._fields):
        raise TensorgradError(
            f"{file} was not written by tensorgrad train; load it with training.load_checkpoint"
        )
    problem = Problem(**about)
    settings = {**DEFAULTS, "model": "mlp", **config}  # of before there were others
    settings["grey"] = grey_of(settings, problem.shape)
    model = build_model(problem, settings)
    model.load_state_dict(found.state)
    model.to(device)
    model.eval()
    return Run(folder, model, problem, settings)
