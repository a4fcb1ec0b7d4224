"""What is resident of a process that trains, counted by the system.

It imports nothing else, for that would be counted, too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

STATUS = Path("/proc/self/status")
#: Steps with all that is done once and the checks; and how many follow before the next check.
FIRST, FOLLOWING = 8, 7


def resident(name: str) -> float:
    """MiB of this process by Linux: "VmRSS" now, "VmHWM" the most since it began to count."""
    for line in STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"{STATUS} says nothing of {name}")


def peaks(step: Callable[[], Any]) -> dict[str, float]:
    """Train in this process. MiB at most in the first steps, in those that follow, and by how much
    it has grown in these."""
    for _ in range(FIRST):
        step()
    first, before = resident("VmHWM"), resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the count of the peak begins anew
    for _ in range(FOLLOWING):
        step()
    return {"first": first, "following": resident("VmHWM"), "growth": resident("VmRSS") - before}
