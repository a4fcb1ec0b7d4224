"""The GPU-marked tests: of the kernels, written and generated; the lectures; all others."""

from __future__ import annotations

from typing import Any

from bench.gpu import suite
from bench.gpu.common import Say, Settings

_GENERATED = "tests/program/test_cuda_rows.py"
#: what other cases and stages run; whoever names a folder to pytest gets all that is in it
_ELSEWHERE = (
    "tests/kernels", "tests/lectures", _GENERATED, "tests/test_gpu.py", "tests/test_bench_gpu.py"
)  # fmt: skip


def cases(settings: Settings) -> tuple[str, ...]:
    """The names of the cases."""
    return ("written kernels", "generated kernels", "lectures", "rest")


def run(case: str, settings: Settings, say: Say) -> dict[str, Any]:
    """Counts, failures with their texts, and the kernels that passing tests launched."""
    if case == "written kernels":
        return suite.run(["tests/kernels"], settings, say, marker="gpu")
    if case == "generated kernels":
        return suite.run([_GENERATED], settings, say, marker="gpu")
    if case == "lectures":  # with everything on the GPU
        return suite.run(["tests/lectures"], settings, say, device="cuda")
    ignored = [f"--ignore={path}" for path in _ELSEWHERE]
    return suite.run(["tests", *ignored], settings, say, marker="gpu")
