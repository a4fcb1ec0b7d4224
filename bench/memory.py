"""How much memory the training of a wide network takes at most: the whole process, in MiB.

Each contestant trains in a fresh interpreter that imports nothing else. There the system counts
what is resident. The peak of the first steps includes the capture of a compiled step and its checks
(the calls 2, 4 and 8); then the count begins anew, for the steps after them, which are replays.
"""

from __future__ import annotations

from bench.contest import Contest
from bench.costs import printed
from bench.report import Row
from bench.resident import STATUS

NAME = "memory"
TITLE = "the most memory of a process that trains, by the network"
UNIT = "MiB"
WHO = ("tensorgrad", "tensorgrad compiled", "torch", "torch fused")
NETWORK, SMALL, OPTIMIZER = "1024-2048-2048-1000", "784-512-512-10", "Adam"
#: MiB of all steps, compiled; of replays, as a multiple of the peak of eager steps; and MiB by
#: which they may grow, which is what single pages make.
PEAK, REPLAYS, GROWTH = 350.0, 1.1, 1.0
_TRAINING = """
import json
from bench.resident import peaks
from bench.training.networks import NETWORKS
from bench.training.{module} import training_step
step = training_step(NETWORKS[{network!r}], {optimizer!r}, {options})
print(json.dumps(peaks(step)))
"""
_STEPS = {
    "tensorgrad": ("with_tensorgrad", ""),
    "tensorgrad compiled": ("with_tensorgrad", "compiled='auto'"),
    "torch": ("with_torch", ""),
    "torch fused": ("with_torch", "fused=True"),
}


def measured(contestant: str, network: str) -> dict[str, float]:
    """``peaks`` of a contestant in a process of its own."""
    module, options = _STEPS[contestant]
    found: dict[str, float] = printed(
        _TRAINING.format(module=module, network=network, optimizer=OPTIMIZER, options=options)
    )
    return found


def run(contest: Contest) -> None:
    """One after the other: nothing here depends on time."""
    if not STATUS.exists():
        contest.report.skip("all: Linux alone counts as is needed here")
        return
    network = SMALL if contest.settings.quick else NETWORK
    found = {}
    for name in contest.taking_part(*WHO):
        found[name] = measured(name, network)
        for case, key in (("all steps", "first"), ("replays", "following")):
            mib = found[name][key]
            contest.report.rows.append(Row(f"{network} {OPTIMIZER}, {case}", name, mib, mib))
    compiled, eager = found.get("tensorgrad compiled"), found.get("tensorgrad")
    if compiled is None or contest.settings.quick:
        return
    judge = contest.report.judge
    judge("compiled, capture and checks included, MiB", PEAK, compiled["first"])
    judge("compiled, growth in replays, MiB", GROWTH, compiled["growth"])
    if eager is not None:
        ratio = compiled["following"] / eager["first"]
        judge("compiled, replays to the peak of eager steps", REPLAYS, ratio)
