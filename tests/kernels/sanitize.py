"""Runs the tests of the kernels under AddressSanitizer and UndefinedBehaviorSanitizer.

``python tests/kernels/sanitize.py [arguments for pytest]``: in a subprocess, since the sanitizers
have to be loaded before Python. An access out of bounds, a misaligned 16-byte access, a signed
overflow or a shift too far ends it with a report and an exit code that is not 0.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TESTS))

from emulator import emulator  # noqa: E402


def main() -> int:
    """Run pytest on this folder with the sanitizers; its exit code."""
    reason = emulator.available()
    if reason is not None:
        print(reason)
        return 1
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    # Two schedules of six: each takes ten times as long as without the sanitizers.
    given = sys.argv[1:] or [str(TESTS / "kernels"), "-k", "schedule0 or schedule3"]
    environment = {"TENSORGRAD_ALL_SCHEDULES": "1", **os.environ, **emulator.sanitizer_env()}
    return subprocess.run([*command, *given], cwd=TESTS.parent, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
