"""What can be hung into training: the moments at which a Trainer calls its callbacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tensorgrad.data import DataLoader
    from tensorgrad.training.trainer import Trainer


class Callback:
    """Base of the callbacks; each method may be overridden, and does nothing here.

    They are called in the order in which the Trainer was given them. What they want to know is in
    the trainer: ``epoch`` (epochs done), ``history``, ``running`` (means of the current epoch).
    """

    def on_fit_start(self, trainer: Trainer, loader: DataLoader, epochs: int) -> None:
        """Before the first batch; ``epochs`` is the number at which training will end."""

    def on_batch_end(self, trainer: Trainer, done: int) -> None:
        """After each training step; ``done`` batches of the epoch are done."""

    def on_epoch_end(self, trainer: Trainer, record: dict[str, float]) -> None:
        """After validation; ``record`` is the new last line of ``trainer.history``."""

    def on_epoch_complete(self, trainer: Trainer) -> None:
        """After every callback has seen ``on_epoch_end``: the state is that of a whole epoch."""

    def on_fit_end(self, trainer: Trainer) -> None:
        """After the last epoch, unless training was aborted."""

    def on_abort(self, trainer: Trainer, error: BaseException) -> None:
        """When ``error`` (KeyboardInterrupt, a loss that is not finite, ...) ends the training."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know of this callback."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what ``state_dict`` gave."""
