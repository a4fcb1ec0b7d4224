"""Module.check: planted mistakes are found, named and mended by the fix it gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from nn.shape_mistakes import MISTAKES, Mistake, found, of_torch

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.nn import ModelError
from tensorgrad.ops.random import default_generator
from tensorgrad.tensor import Tensor


def test_there_are_forty() -> None:
    """All of them different."""
    assert len({mistake.what for mistake in MISTAKES}) == len(MISTAKES) == 40


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda m: m.what)
def test_planted_mistake(mistake: Mistake) -> None:
    """The path of the module, the axis and the nearest fix."""
    error = found(mistake)
    assert error is not None
    problem = error.problems[0]
    assert problem.path == mistake.path
    assert problem.axis == mistake.axis
    assert mistake.fix in problem.fix
    assert mistake.path in str(error)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda m: m.what)
def test_pytorch_finds_it_too(mistake: Mistake) -> None:
    """They are real mistakes: the same model fails there."""
    pytest.importorskip("torch")
    assert of_torch(mistake) != "(no error)"


def test_fixes_help() -> None:
    """Each fix of the message, carried out, makes the model fit."""
    bad = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.LayerNorm(6), nn.Linear(5, 2))
    with pytest.raises(ModelError) as caught:
        bad.check((3, 8))
    (problem,) = caught.value.problems
    assert problem.fix == "in_features=6 here or out_features=5 in 0, from which its input comes"
    assert nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.LayerNorm(6), nn.Linear(6, 2)).check(
        (3, 8)
    ) == (3, 2)


def test_several_at_once() -> None:
    """One call finds them all."""
    model = nn.Sequential(nn.Linear(7, 6), nn.Linear(5, 4), nn.LayerNorm(3), nn.Linear(4, 2))
    with pytest.raises(ModelError, match="3 problems") as caught:
        model.check((2, 8))
    assert [p.path for p in caught.value.problems] == ["0", "1", "2"]


def test_a_model_that_fits() -> None:
    """The shape of the output; nothing is changed by looking."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    before = {k: v.data.tobytes() for k, v in model.state_dict().items()}
    state = default_generator.state()
    assert model.check((5, 3, 4)) == (5, 4)
    assert model.training
    assert all("forward" not in vars(m) for m in model.modules())
    assert {k: v.data.tobytes() for k, v in model.state_dict().items()} == before
    assert default_generator.state() == state
    assert nn.Embedding(9, 3).check(tg.zeros((2, 5), dtype=tg.int64)) == (2, 5, 3)

    class Two(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return x, x.sum()

    assert Two().check((2, 3)) == ((2, 3), ())


def test_other_errors_go_through() -> None:
    """What is no matter of shapes is not taken for one."""

    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="the disk is full"):
        Broken().check((2, 3))


def test_it_is_a_shape_error_that_names_the_line() -> None:
    """Whoever catches ShapeError or ValueError catches it; lines of forward() are named."""

    class Mine(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + Tensor(np.ones(5))

    with pytest.raises(ValueError, match=r"test_check\.py:\d+: return x \+ Tensor"):
        Mine().check((2, 3))
