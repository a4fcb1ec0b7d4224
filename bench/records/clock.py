"""What has passed since a process began: seconds, and seconds of processors.

Processor time counts this process, its children and what lives on in its session (a compiler at
work): who starts others to do the work pays for it too.
"""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path
from typing import NamedTuple


class Reading(NamedTuple):
    """Seconds by the clock and of processors, together over all cores."""

    seconds: float
    processor: float

    def since(self, earlier: Reading) -> Reading:
        """What has passed in between."""
        return Reading(self.seconds - earlier.seconds, self.processor - earlier.processor)


class Clock:
    """started: what ``time.monotonic()`` said when the process was asked for."""

    def __init__(self, started: float) -> None:
        self._started = started

    def read(self) -> Reading:
        """Now."""
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        processor = time.process_time() + ended.ru_utime + ended.ru_stime + _of_others()
        return Reading(time.monotonic() - self._started, processor)


def _of_others() -> float:
    """What the other living processes of this session have had, their ended children included."""
    found, own, session = 0, os.getpid(), os.getsid(0)
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == own:
            continue
        try:
            # After the name, which may have blanks and brackets: state, parent, group, session, ...
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile: it is counted with the children
            continue
        if int(fields[3]) == session:
            found += sum(map(int, fields[11:15]))
    return found / os.sysconf("SC_CLK_TCK")
