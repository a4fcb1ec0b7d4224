"""Plants bugs in the kernels and reports which of them the tests find.

``python tests/kernels/mutate.py`` applies each mutant of mutants.py to a copy of the sources and
runs the tests of its family on the emulator; one that survives without an explanation is
tried once more under AddressSanitizer and UndefinedBehaviorSanitizer. Exits with 1 if
a survivor has no explanation in mutants.py; at most 5 % of them may have one.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

from emulator import emulator  # noqa: E402
from kernels.mutants import MUTANTS, TESTS_OF  # noqa: E402
from mutation import Mutant, first_failure, judged, planted  # noqa: E402

SOURCES = TESTS.parent / "kernels"
#: A mutant that runs longer hangs, and is found by that.
LIMIT = 300.0


def tried(mutant: Mutant) -> str:
    """What killed a mutant: a test, or the sanitizers; empty if nothing did."""
    tests = [str(TESTS / "kernels" / test) for test in TESTS_OF[mutant.file]]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "kernels"
        shutil.copytree(SOURCES, folder)
        (folder / mutant.file).write_text(planted(mutant, SOURCES))
        environment = {
            **os.environ,
            "TENSORGRAD_TEST_KERNELS": str(folder),
            "TENSORGRAD_EMULATOR_CACHE": str(Path(scratch) / "built"),
            "TENSORGRAD_ALL_SCHEDULES": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        found = first_failure(tests, environment, TESTS.parent, LIMIT)
        if not found and not mutant.survives:
            environment.update(emulator.sanitizer_env())
            found = first_failure(tests, environment, TESTS.parent, LIMIT) and "sanitizers"
    return found


def part(mutants: Sequence[Mutant], number: int) -> list[Mutant]:
    """Every 20th mutant: the first, the 21st and so on (1), or others (2 to 20)."""
    return list(mutants[number - 1 :: 20])


def main() -> int:
    """Try all mutants, or those whose file or kind contains the argument."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("only", nargs="?", default="", help="part of a file name or kind")
    parser.add_argument("--part", type=int, choices=range(1, 21), help="every 20th one")
    parser.add_argument("-n", type=int, default=os.cpu_count() or 1, help="how many at once")
    options = parser.parse_args()
    some = MUTANTS if options.part is None else part(MUTANTS, options.part)
    chosen = [m for m in some if options.only in m.file or options.only in m.kind]
    reason = emulator.available()
    if reason is not None:
        print(reason)
        return 1
    return judged(chosen, tried, options.n, "{m.file:18} {m.kind:24}")


if __name__ == "__main__":
    sys.exit(main())
