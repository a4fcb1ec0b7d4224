"""The executors that are there."""

from __future__ import annotations

import pytest

from tensorgrad.program.compiler import compiler

EXECUTORS = ["numpy"]
if compiler() is not None:
    EXECUTORS.append("native")

EVERY_EXECUTOR = pytest.mark.parametrize("executor", EXECUTORS)
