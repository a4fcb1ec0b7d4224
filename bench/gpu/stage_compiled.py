"""Compiled steps against eager ones, with no way around the graph, and tests/test_gpu.py."""

from __future__ import annotations

from typing import Any

from bench.gpu import checks, suite
from bench.gpu.common import Say, Settings

_TESTS = "tests/test_gpu.py"


def cases(settings: Settings) -> tuple[str, ...]:
    """The names of the cases."""
    return (*checks.NETWORKS, *checks.BETWEEN, _TESTS)


def run(case: str, settings: Settings, say: Say) -> dict[str, Any]:
    """The report of the compiled step."""
    if case == _TESTS:
        others = "not test_check"  # which are cases here
        return suite.run([_TESTS], settings, say, marker="gpu", parallel=False, only=others)
    report = checks.run(case, tiny=settings.rehearse)
    print(report)
    lines = report.splitlines()
    segments = [line for line in lines if line.startswith(("segment", "call"))]
    return {"report": lines, "figure": "; ".join(segments)}
