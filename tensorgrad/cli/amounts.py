"""How long a network learns, and what holds it back, where nobody says: as its data is large."""

from __future__ import annotations

from typing import Any

from tensorgrad.cli.settings import BY_NAME
from tensorgrad.errors import TensorgradError

_STEPS, _PATIENCE = 4000, 600  # of a run at most, and without an improvement
_EPOCHS, _WAITED = 20, 5  # at least: where an epoch is thousands of steps
_FEW = 500  # examples: below, a half of the units is left out
_REFITTED = 2000  # examples up to which it is worth some time to make most of them
_AVERAGE = 0.98  # of the weights: the mean of about 50 steps
_FEW_UNITS = 32  # in a layer: each of them is needed
_PENALTY = 0.01  # on the squares of the weights, where examples are few


def settle_amounts(settings: dict[str, Any], examples: int, kind: str) -> None:
    """Set what is left open (None) of batch size, epochs, patience, dropout, l2, average and refit.

    An epoch of a small table is a few steps, so that the length of training and the patience are
    told in steps. Where an example is a row of numbers, the weights are averaged; and if there are
    few, large ones cost something, and they are trained on once more together with those put aside
    to validate with. Of few images the weights are averaged too. A schedule that watches the
    validation loss leaves out both.

    examples: to train on. kind: of an example, "row", "image" or "text".

    Raises TensorgradError for refitting with a schedule that watches the validation loss.
    """
    few, row = examples < _FEW, kind == "row"
    if settings["batch_size"] is None:
        settings["batch_size"] = 16 if few else 32
    batch = examples if settings["batch_size"] == "full" else settings["batch_size"]
    batches = -(-examples // batch)
    if settings["epochs"] is None:
        settings["epochs"] = max(_EPOCHS, -(-_STEPS // batches))
    if settings["patience"] is None:
        settings["patience"] = max(_WAITED, -(-_PATIENCE // batches))
    if settings["dropout"] is None:
        narrow = min(settings["hidden"] or (), default=0) < _FEW_UNITS
        share = 0.2 if not row else 0.5 if few else 0.1
        settings["dropout"] = 0.0 if narrow else share
    if settings["l2"] is None:
        settings["l2"] = _PENALTY if row and few else 0.0
    watching = settings["schedule"] == "plateau"  # of an average a rate that is too high shows late
    averaged = row or (kind == "image" and examples <= _REFITTED)
    if settings["average"] is None and averaged and not watching:
        settings["average"] = _AVERAGE
    if settings["refit"] is None:
        settings["refit"] = row and examples <= _REFITTED and not watching
    elif settings["refit"] and watching:
        raise TensorgradError(
            f"{BY_NAME['refit'].flag} trains on the validation part too, whose loss --schedule "
            "plateau watches; take another schedule"
        )
