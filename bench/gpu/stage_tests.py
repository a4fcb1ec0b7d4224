"""The GPU-marked tests: of the kernels, then all others, then the lectures with all on the GPU."""

from __future__ import annotations

from typing import Any

from bench.gpu import suite
from bench.gpu.common import Say, Settings

#: what other cases and stages run; whoever names a folder to pytest gets all that is in it
_ELSEWHERE = ("tests/kernels", "tests/lectures", "tests/test_gpu.py", "tests/test_bench_gpu.py")


def cases(settings: Settings) -> tuple[str, ...]:
    """The names of the cases."""
    return ("kernels", "rest", "lectures")


def run(case: str, settings: Settings, say: Say) -> dict[str, Any]:
    """Counts, failures with their texts, and the kernels that passing tests launched."""
    if case == "kernels":
        return suite.run(["tests/kernels"], settings, say, marker="gpu")
    if case == "lectures":
        return suite.run(["tests/lectures"], settings, say, device="cuda")
    ignored = [f"--ignore={path}" for path in _ELSEWHERE]
    return suite.run(["tests", *ignored], settings, say, marker="gpu")
