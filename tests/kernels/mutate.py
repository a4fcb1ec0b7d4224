"""Plants bugs in the kernels and reports which of them the tests find.

``python tests/kernels/mutate.py`` applies each mutant of mutants.py to a copy of the sources and
runs the tests of its family on the emulator; one that survives is tried once more under
AddressSanitizer and UndefinedBehaviorSanitizer. Exits with 1 if fewer than 95 % are killed, or if
a survivor has no explanation in mutants.py.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic
from typing import NamedTuple

TESTS = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

from emulator import emulator  # noqa: E402
from kernels.mutants import MUTANTS, TESTS_OF, Mutant  # noqa: E402

SOURCES = TESTS.parent / "kernels"
#: A mutant that runs longer hangs, and is found by that.
LIMIT = 300.0
WANTED = 0.95


class Verdict(NamedTuple):
    mutant: Mutant
    killed_by: str  # "" if it survived
    seconds: float


def planted(mutant: Mutant) -> str:
    """The text of the file with the bug in it. Raises ValueError unless it has one place there."""
    text = (SOURCES / mutant.file).read_text()
    if text.count(mutant.old) != 1:
        raise ValueError(
            f"{mutant.file}: {mutant.old!r} occurs {text.count(mutant.old)} times, not once"
        )
    return text.replace(mutant.old, mutant.new)


def tried(mutant: Mutant, tests: list[str]) -> Verdict:
    """The verdict of ``tests`` on one mutant."""
    begun = monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "kernels"
        shutil.copytree(SOURCES, folder)
        (folder / mutant.file).write_text(planted(mutant))
        environment = {
            **os.environ,
            "TENSORGRAD_TEST_KERNELS": str(folder),
            "TENSORGRAD_EMULATOR_CACHE": str(Path(scratch) / "built"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        found = _fails(tests, environment)
        if not found and _fails(tests, {**environment, **emulator.sanitizer_env()}):
            found = "sanitizers"
    return Verdict(mutant, found, monotonic() - begun)


def _fails(tests: list[str], environment: dict[str, str]) -> str:
    """The name of the first test that fails, or "" if none does."""
    command = [
        sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "--tb=no", "-rf",
        "-p", "no:cacheprovider", *tests,
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command, cwd=TESTS.parent, env=environment, capture_output=True, text=True,
            timeout=LIMIT,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"no end within {LIMIT:.0f} s"
    if done.returncode == 0:
        return ""
    failed = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("FAILED")]
    return failed[0].rpartition("::")[2] if failed else f"exit code {done.returncode}"


def main() -> int:
    """Try all mutants, or those whose file or kind contains the argument."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("only", nargs="?", default="", help="part of a file name or kind")
    parser.add_argument("-n", type=int, default=os.cpu_count() or 1, help="how many at once")
    options = parser.parse_args()
    chosen = [m for m in MUTANTS if options.only in m.file or options.only in m.kind]
    reason = emulator.available()
    if reason is not None:
        print(reason)
        return 1
    with ThreadPoolExecutor(options.n) as pool:
        verdicts = []
        tests = [[str(TESTS / "kernels" / t) for t in TESTS_OF[m.file]] for m in chosen]
        for verdict in pool.map(tried, chosen, tests):
            verdicts.append(verdict)
            mutant = verdict.mutant
            found = verdict.killed_by or mutant.survives
            print(
                f"{'killed' if verdict.killed_by else 'SURVIVED':8}  {mutant.file:18} "
                f"{mutant.kind:24} {verdict.seconds:4.0f} s  {found}",
                flush=True,
            )
    killed = sum(bool(v.killed_by) for v in verdicts)
    unexplained = [v for v in verdicts if not v.killed_by and not v.mutant.survives]
    for verdict in unexplained:
        print(f"no test finds: {verdict.mutant.file}: {verdict.mutant.old!r} -> "
              f"{verdict.mutant.new!r}")  # fmt: skip
    print(f"{killed} of {len(verdicts)} killed ({killed / len(verdicts):.0%})")
    return 1 if unexplained or killed < WANTED * len(verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
