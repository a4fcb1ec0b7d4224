"""Mutation testing: mistakes planted in a copy of the sources, which the tests have to find.

``tests/mutate_engine.py`` and ``tests/kernels/mutate.py`` say what is copied and which tests run;
what a mutant is, how tests are run on it and what is reported is the same for both.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic
from typing import NamedTuple

#: The share of mutants that the tests have to kill, of those that no explanation excuses.
WANTED = 0.95


class Mutant(NamedTuple):
    """A mistake: in ``file``, ``old``, which occurs there once, becomes ``new``.

    tests: the name of the selection of tests that ought to find it; where it is empty, the file
        says which tests.
    survives: why no test can find it, where that is so.
    """

    kind: str
    file: str
    old: str
    new: str
    tests: str = ""
    survives: str = ""


class Selection(NamedTuple):
    """Tests that run together: arguments for pytest, and about how many seconds they take."""

    arguments: str
    seconds: float


def planted(mutant: Mutant, sources: Path) -> str:
    """The text of its file in ``sources`` with the mistake in it.

    Raises ValueError unless there is one place for it.
    """
    text = (sources / mutant.file).read_text()
    if text.count(mutant.old) != 1:
        raise ValueError(
            f"{mutant.file}: {mutant.old!r} must occur once, but occurs {text.count(mutant.old)} "
            "times; quote the line as it is now, with enough around it"
        )
    if mutant.old == mutant.new:
        raise ValueError(f"{mutant.file}: {mutant.old!r} is replaced by itself")
    return text.replace(mutant.old, mutant.new)


def first_failure(
    tests: Sequence[str], environment: Mapping[str, str], folder: Path, limit: float
) -> str:
    """What failed when pytest ran ``tests`` in ``folder``: the first test, or how the run ended.

    Empty if nothing failed. A run of more than ``limit`` seconds hangs, and is ended with all its
    processes. Raises ValueError if the arguments select no test, which would prove nothing.
    """
    command = [
        sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "--tb=no", "-rfE",
        "-p", "no:cacheprovider", *tests,
    ]  # fmt: skip
    # In a session of its own, so that processes which a hanging test started end with it.
    running = subprocess.Popen(
        command, cwd=folder, env=environment, text=True, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        said, _ = running.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        return f"no end within {limit:.0f} s"
    finally:
        if running.returncode is None:
            os.killpg(running.pid, signal.SIGKILL)
            running.communicate()
    if running.returncode in (4, 5):  # pytest's codes for a wrong command line and for no test
        raise ValueError(f"pytest {' '.join(tests)} runs no test:\n{said[-1000:]}")
    if not running.returncode:
        return ""
    lines = [line.partition(" ") for line in said.splitlines()]
    failed = [rest.partition(" - ")[0] for word, _, rest in lines if word in ("FAILED", "ERROR")]
    return failed[0].rpartition("::")[2] if failed else f"exit code {running.returncode}"


def judged(
    mutants: Sequence[Mutant],
    trial: Callable[[Mutant], str],
    at_once: int,
    describe: str,
    wanted: float = WANTED,
    explained: bool = True,
) -> int:
    """Try every mutant, report, and give the exit code.

    trial: what killed a mutant; empty if it survived.
    at_once: how many are tried at the same time.
    describe: a format for one line of the report, of the mutant ``m``.
    wanted: the share of them that has to be killed.
    explained: whether a survivor needs an explanation.

    The code is 1 if fewer are killed or an explanation is missing. A survivor that has one is
    reported but does not count: one of them in a small part of the mutants would be more than the
    share leaves. How many of all may have one is bounded instead (too_many_explained).
    """

    def timed(mutant: Mutant) -> tuple[str, float]:
        begun = monotonic()
        return trial(mutant), monotonic() - begun

    if not mutants:
        print("there is no such mutant")
        return 1
    killed, excused, unexplained = 0, 0, []
    with ThreadPoolExecutor(at_once) as pool:
        for mutant, (found, seconds) in zip(mutants, pool.map(timed, mutants)):
            killed += bool(found)
            excused += bool(not found and mutant.survives)
            if not found and not mutant.survives:
                unexplained.append(mutant)
            print(
                f"{'killed' if found else 'SURVIVED':8}  {describe.format(m=mutant)} "
                f"{seconds:4.0f} s  {found or mutant.survives}",
                flush=True,
            )
    for mutant in unexplained:
        print(f"no test finds: {mutant.file}: {mutant.old!r} -> {mutant.new!r}")
    share = (killed + excused) / len(mutants)
    print(f"{killed} of {len(mutants)} killed, {excused} survived as explained")
    return 1 if (explained and unexplained) or share < wanted else 0


def too_many_explained(mutants: Sequence[Mutant], wanted: float = WANTED) -> bool:
    """Whether explanations leave fewer than ``wanted`` of all mutants to be killed."""
    return sum(bool(mutant.survives) for mutant in mutants) > (1 - wanted) * len(mutants)
