"""One contestant at one record, in a process that has just begun.

``python -m bench.records.child`` prints one line of JSON. Before the clock runs, nothing is
imported that a record does not need.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from bench.records.clock import Clock
from bench.records.contestants import maker
from bench.records.table import RECORDS
from bench.workers import limit_threads


def main(record: str, contestant: str, folder: str, seed: str, threads: str, started: str) -> None:
    """Run it, and print what it reports, with the framework's version."""
    limit_threads(int(threads))
    clock = Clock(float(started))
    make = maker(contestant)
    found: dict[str, Any] = RECORDS[record].run(make, Path(folder), int(seed), clock)
    framework = sys.modules[contestant.partition(" ")[0]]
    print(json.dumps({**found, "version": framework.__version__}))


if __name__ == "__main__":
    main(*sys.argv[1:])
