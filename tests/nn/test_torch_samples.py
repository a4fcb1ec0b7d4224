"""The samples that PyTorch tests its own functions with, as judges of ``nn.functional``.

``python -m bench.coverage`` prints what came of each. Here up to 15 samples of each operation run,
spread over its list, and all of them with ``-m nightly``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("expecttest")

import torch

from bench import coverage
from tensorgrad.nn import functional

PARTS = 6


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Where others work, PyTorch's threads wait for one another, for longer than samples take."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def outcomes(part: int, most: int | None) -> list[coverage.Outcome]:
    return [coverage.judge(op, most) for op in coverage.operations()[part::PARTS]]


def check(found: list[coverage.Outcome]) -> None:
    bad = [one for one in found if one.status != "passes"]
    wrong = ["\n    ".join([f"{one.key} {one.status}", *one.reasons[:3]]) for one in bad]
    assert not wrong, "\n" + "\n".join(wrong)


@pytest.mark.parametrize("part", range(PARTS))
def test_samples_of_pytorch(part: int) -> None:
    """Values, first gradients and what is overwritten."""
    check(outcomes(part, most=15))


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_all_samples_of_pytorch(part: int) -> None:
    """As above."""
    check(outcomes(part, most=None))


def test_all_functions_are_judged() -> None:
    """104 of them, some in several variants, each in one part."""
    there = coverage.operations()
    assert len({coverage.name_of(op) for op in there}) >= 104
    assert sum(len(there[part::PARTS]) for part in range(PARTS)) == len(there)


@pytest.mark.parametrize(
    ("function", "status"),
    [
        (functional.silu, "passes"),
        (lambda x: functional.silu(x) + 1e-6, "wrong"),
        (lambda x: functional.silu(x).detach(), "wrong"),
        (lambda x: functional.silu(x) + 1e-6 * (x - x.detach()), "wrong"),
        (lambda x: (functional.silu(x),) * 2, "wrong"),
        (lambda x: functional.silu(x)[None], "wrong"),
        (lambda x: functional.silu(x.float()).double(), "wrong"),
        (lambda x: 1 // 0, "refuses"),
        (None, "missing"),
    ],
)
def test_the_judge_sees_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, function: Callable[..., Any] | None, status: str
) -> None:
    (op,) = [
        op for op in coverage.operations()
        if op.name == "nn.functional.silu" and not op.variant_test_name
    ]  # fmt: skip
    known = SimpleNamespace() if function is None else SimpleNamespace(silu=function)
    monkeypatch.setattr(coverage, "functional", known)
    outcome = coverage.judge(op, 3)
    assert outcome.status == status
    assert coverage.score([outcome]) == (int(status == "passes"), 1)


def test_the_judge_sees_wrong_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is drawn is compared with what must be made of it."""
    (op,) = [op for op in coverage.operations() if op.name == "nn.functional.dropout"]

    def unscaled(x: Any, p: float = 0.5, training: bool = True) -> Any:
        y = functional.dropout(x, p, training)
        return y * (1 - p) if training and 0 < p < 1 else y

    def nothing(x: Any, p: float = 0.5, training: bool = True) -> Any:
        return x / (1 - p) if training and 0 < p < 1 else functional.dropout(x, p, training)

    for function in (unscaled, nothing):
        monkeypatch.setattr(coverage, "functional", SimpleNamespace(dropout=function))
        assert coverage.judge(op).status == "wrong"


def test_the_command_prints_the_score(capsys: pytest.CaptureFixture[str]) -> None:
    assert coverage.main(["--name", "l1_loss", "--samples", "2"]) == 0
    printed = capsys.readouterr().out
    assert "passes       2 of    2  l1_loss" in printed
    assert "functions pass all their samples" in printed
