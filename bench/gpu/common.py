"""What the stages share: settings, and how a case says that it was left out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

#: What a case hands out while it runs: figures that stay even if it is killed.
Say = Callable[[Mapping[str, Any]], None]


class Skipped(Exception):  # noqa: N818, it is no error
    """A case cannot run here; its text says what is missing."""


@dataclass(frozen=True)
class Settings:
    """What all stages are told.

    rehearse: on the stand-in for CuPy, with tiny sizes. rounds: of measurements; None for each
    stage's own number. workers: processes for tests. tests: as pytest's -k. silence: seconds
    without a word after which tests are given up. plants: the faults planted in this stage.
    """

    rehearse: bool = False
    rounds: int | None = None
    workers: int = 8
    tests: str = ""
    silence: float = 60.0
    plants: tuple[str, ...] = ()

    def sized(self, real: int, tiny: int) -> int:
        """A size on a card, or in a rehearsal."""
        return tiny if self.rehearse else real

    def turns(self, real: int) -> int:
        """How many rounds."""
        return self.rounds or self.sized(real, 1)

    def dumps(self) -> str:
        """As an argument of a process."""
        return json.dumps(asdict(self))

    @classmethod
    def loads(cls, text: str) -> Settings:
        """From an argument of a process."""
        found = json.loads(text)
        return cls(**{**found, "plants": tuple(found["plants"])})


def first_line(error: BaseException) -> str:
    """An error in a line."""
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
