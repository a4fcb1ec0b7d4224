"""PyTorch's table of operations as a judge of ours: its own samples, real and complex.

``python -m bench.coverage --all --second`` prints what came of each. Here two samples of each run,
and all of them with ``-m nightly``; ``nn.functional`` has a test of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("expecttest")

import torch

from bench import coverage

PARTS = 4

#: What is not here, or is here and follows from other random numbers, ...
MISSING = {"linalg.ldl_factor", "linalg.ldl_solve", "multinomial", "svd_lowrank"}
#: ... and samples of a call form that NumPy has not: windows of a number alone.
OTHER_FORMS = {"unfold"}
#: What complex samples ask of operations for real numbers: an order, or to become real by itself.
REAL = {
    "bfloat16", "bool", "byte", "char", "double", "float", "half", "int", "ldexp", "logaddexp",
    "logcumsumexp", "logsumexp", "long", "masked.logsumexp", "masked.std", "masked.var", "short",
    "sinc", "softmax with_dtype", "to",
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Where others work, PyTorch's threads wait for one another, for longer than samples take."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def chosen(part: int, dtype: Any = None) -> list[Any]:
    outside = [
        op for op in coverage.operations(everything=True)
        if not op.name.startswith(coverage.PREFIX) and op.name not in coverage.KIN
        and (dtype is None or dtype in op.dtypes)
    ]  # fmt: skip
    return outside[part::PARTS]


def check(found: list[coverage.Outcome], known: set[str]) -> None:
    bad = [
        one for one in found
        if one.status == "wrong" or (one.status != "passes" and one.key not in known)
    ]  # fmt: skip
    wrong = ["\n    ".join([f"{one.key} {one.status}", *one.reasons[:3]]) for one in bad]
    assert not wrong, "\n" + "\n".join(wrong)


@pytest.mark.parametrize("part", range(PARTS))
def test_values_and_gradients_of_two_orders(part: int) -> None:
    check([coverage.judge(op, 2, True) for op in chosen(part)], MISSING | OTHER_FORMS)


@pytest.mark.parametrize("part", range(PARTS))
def test_complex_values_and_gradients_of_two_orders(part: int) -> None:
    kind = torch.complex128
    found = [coverage.judge(op, 2, True, kind) for op in chosen(part, kind)]
    check(found, MISSING | OTHER_FORMS | REAL)


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("dtype", [None, torch.complex128], ids=["real", "complex"])
def test_all_samples(part: int, dtype: Any) -> None:
    found = [coverage.judge(op, None, True, dtype) for op in chosen(part, dtype)]
    check(found, MISSING | OTHER_FORMS | (REAL if dtype else set()))


def test_most_operations_are_judged() -> None:
    assert len({op.name for part in range(PARTS) for op in chosen(part)}) >= 440
