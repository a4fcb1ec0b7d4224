"""Plants mistakes in the engine and reports which of them the tests find.

``python tests/mutate_engine.py`` applies each mutant of engine_mutants.py to a copy of the package
and runs there the tests that ought to find it; the working tree stays as it is. The same tests have
to pass on a copy without a mistake first, or they would prove nothing. Exits with 1 if they do not,
or if a survivor has no explanation; at most 5 % of the mutants may have one. With
``--without-peers`` the tests find no PyTorch and nothing else that is there for comparison only;
then 90 % are enough.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path
from time import monotonic

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
sys.path.insert(0, str(TESTS))

from engine_mutants import MUTANTS, SELECTIONS  # noqa: E402
from mutation import WANTED, Mutant, first_failure, judged, planted  # noqa: E402

#: What the tests need of the repository.
COPIED = ("tensorgrad", "tests", "kernels", "pyproject.toml")
#: A mutant that runs longer hangs, and is found by that.
LIMIT = 300.0
#: What is compared with where it is installed, beside what ``.[test]`` brings along.
PEERS = "torch,jax,autograd,scipy,sklearn,mpmath"
WANTED_WITHOUT_PEERS = 0.9


class Trials:
    """Copies of the package in ``scratch``: one without a mistake, and one for each mutant.

    hidden: the modules that the tests do not find, separated by commas.
    """

    def __init__(self, scratch: Path, hidden: str = "") -> None:
        self.scratch = scratch
        self.hidden = hidden
        self.sound = scratch / "sound"
        self.sound.mkdir()
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(
                    ROOT / name, self.sound / name, ignore=shutil.ignore_patterns("__pycache__")
                )
            else:
                shutil.copy2(ROOT / name, self.sound / name)

    def passes(self, selection: str) -> bool:
        """Whether the tests of a selection pass without a mistake; what went wrong is printed."""
        begun = monotonic()
        cache = self._cache(selection)
        cache.mkdir(mode=0o700)
        failed = self._failure(selection, self.sound, cache)
        seconds = monotonic() - begun
        if failed:
            print(f"without a mistake, {failed} fails: {SELECTIONS[selection].arguments}")
        else:
            print(f"passes    {selection:24} {seconds:4.0f} s", flush=True)
        return not failed

    def tried(self, mutant: Mutant) -> str:
        """What killed a mutant: a test, or how the run ended; empty if it survived."""
        with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            copy, cache = Path(folder) / "copy", Path(folder) / "cache"
            shutil.copytree(self.sound, copy)
            # What the sound package compiled is there: a library's name is a hash of its source.
            shutil.copytree(self._cache(mutant.tests), cache)
            (copy / mutant.file).write_text(planted(mutant, self.sound))
            return self._failure(mutant.tests, copy, cache)

    def _cache(self, selection: str) -> Path:
        return self.scratch / f"cache of {selection}"

    def _failure(self, selection: str, folder: Path, cache: Path) -> str:
        environment = {
            **os.environ,
            "TENSORGRAD_CACHE": str(cache),
            "PYTHONPATH": str(folder),
            "TENSORGRAD_TESTS_WITHOUT": self.hidden,
        }
        return first_failure(
            shlex.split(SELECTIONS[selection].arguments), environment, folder, LIMIT
        )


def part(mutants: Sequence[Mutant], number: int) -> list[Mutant]:
    """The mutants whose tests take the least time (1), more (2), and so on to the most (40)."""
    ordered = sorted(mutants, key=lambda m: SELECTIONS[m.tests].seconds)
    size = -(-len(ordered) // 40)
    return ordered[(number - 1) * size : number * size]


def main() -> int:
    """Try the mutants that the options choose."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--only", metavar="PATTERN", default="*", help="part of a file or kind, with * and ?"
    )
    parser.add_argument(
        "--part", type=int, choices=range(1, 41), help="1: those whose tests take the least time"
    )
    parser.add_argument(
        "--without-peers", action="store_true", help="hide PyTorch and the like from the tests"
    )
    parser.add_argument("--list", action="store_true", help="print them and try none")
    parser.add_argument("-n", type=int, default=2, help="how many at once")
    options = parser.parse_args()
    chosen = [
        m
        for m in (MUTANTS if options.part is None else part(MUTANTS, options.part))
        if any(fnmatch(text, f"*{options.only}*") for text in (m.file, m.kind))
    ]
    if options.list:
        for m in chosen:
            print(f"{m.file:34} {m.kind:44} {m.tests}")
        print(f"{len(chosen)} mutants")
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        trials = Trials(Path(scratch), PEERS if options.without_peers else "")
        try:
            with ThreadPoolExecutor(options.n) as pool:
                passing = list(pool.map(trials.passes, dict.fromkeys(m.tests for m in chosen)))
            if not all(passing):
                return 1
            return judged(
                chosen,
                trials.tried,
                options.n,
                "{m.file:34} {m.kind:48}",
                WANTED_WITHOUT_PEERS if options.without_peers else WANTED,
                explained=not options.without_peers,
            )
        except ValueError as error:  # in the table: no place for a mistake, or no test for it
            print(error)
            return 1


if __name__ == "__main__":
    sys.exit(main())
