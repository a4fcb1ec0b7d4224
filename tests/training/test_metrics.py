"""Metrics: known values, scikit-learn, batches of any size, saving in the middle."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tensorgrad.data import DataLoader, TensorDataset
from tensorgrad.errors import ShapeError, TensorgradError
from tensorgrad.nn import Identity, functional
from tensorgrad.optim import SGD
from tensorgrad.tensor import Tensor
from tensorgrad.training import (
    F1,
    R2,
    ConfusionMatrix,
    EpochMetric,
    Precision,
    Recall,
    RocAuc,
    TopK,
    Trainer,
    mae,
    mse,
)
from tensorgrad.training.metrics import NAMES, Figures, resolve

RNG = np.random.default_rng(0)
SCORES = np.round(RNG.normal(size=(200, 4)), 1).astype(np.float32)  # rounded: there are ties
LABELS = RNG.integers(0, 4, 200)
BINARY = np.round(RNG.normal(size=200), 1).astype(np.float32)
FLAGS = (BINARY + RNG.normal(size=200) > 0).astype(np.int64)


def computed(metric: EpochMetric, output: Any, target: Any, size: int = 30) -> float:
    metric = metric.fresh()
    for i in range(0, len(output), size):
        metric.update(Tensor(output[i : i + size]), Tensor(target[i : i + size]))
    return metric.compute()


@pytest.mark.parametrize("average", ["macro", "binary"])
@pytest.mark.parametrize("metric", [Precision, Recall, F1])
def test_of_the_confusion_matrix_as_scikit_learn(metric: Any, average: str) -> None:
    """Also where a class is never predicted."""
    sklearn = pytest.importorskip("sklearn.metrics", reason="needs scikit-learn")
    name = {Precision: "precision_score", Recall: "recall_score", F1: "f1_score"}[metric]
    score = getattr(sklearn, name)
    if average == "binary":
        expected = score(FLAGS, BINARY > 0)
        assert computed(metric(), BINARY, FLAGS) == pytest.approx(expected)
        assert computed(metric(), BINARY[:, None], FLAGS[:, None]) == pytest.approx(expected)
        probabilities = 1 / (1 + np.exp(-BINARY))
        assert computed(metric(threshold=0.5), probabilities, FLAGS) == pytest.approx(expected)
        return
    predicted = SCORES.argmax(1)
    expected = score(LABELS, predicted, average="macro", zero_division=0)
    assert computed(metric(), SCORES, LABELS) == pytest.approx(expected)
    without = SCORES - np.array([0, 0, 0, 9], np.float32)
    expected = score(LABELS, without.argmax(1), average="macro", zero_division=0)
    assert computed(metric("macro"), without, LABELS) == pytest.approx(expected)


def test_confusion_matrix() -> None:
    """Rows are the right classes; its figure is the accuracy."""
    metric = ConfusionMatrix()
    assert metric.matrix().shape == (0, 0)
    assert math.isnan(metric.compute())
    metric.update(Tensor([[2.0, 1, 0], [0.0, 1, 0], [0.0, 1, 0]]), Tensor([0, 1, 2]))
    metric.update(Tensor([[0.0, 0, 1]]), Tensor([[0.1, 0.1, 0.9]]))
    assert metric.matrix().tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 1]]
    assert metric.compute() == 0.75


def test_area_under_the_curve() -> None:
    """Ties count half; more than two classes, each against the others."""
    sklearn = pytest.importorskip("sklearn.metrics", reason="needs scikit-learn")
    expected = sklearn.roc_auc_score(FLAGS, BINARY)
    assert computed(RocAuc(), BINARY, FLAGS) == pytest.approx(expected)
    two = np.stack([-BINARY, BINARY], 1)
    assert computed(RocAuc(), two, FLAGS) == pytest.approx(expected)
    powers = np.exp(SCORES.astype(np.float64))
    shares = powers / powers.sum(1, keepdims=True)
    expected = sklearn.roc_auc_score(LABELS, shares, multi_class="ovr")
    assert computed(RocAuc(), SCORES, LABELS) == pytest.approx(expected)
    assert math.isnan(computed(RocAuc(), BINARY, np.ones_like(FLAGS)))


def test_r2() -> None:
    """However the examples are cut into batches, and far from 0."""
    sklearn = pytest.importorskip("sklearn.metrics", reason="needs scikit-learn")
    t = (RNG.normal(size=(100, 3)) + np.array([0, 1e4, -3])).astype(np.float32)
    y = (t + RNG.normal(size=t.shape) * [0.1, 1, 2]).astype(np.float32)
    expected = sklearn.r2_score(t.astype(float), y.astype(float))
    for size in (1, 7, 100):
        assert computed(R2(), y, t, size) == pytest.approx(expected, abs=1e-9)
    assert computed(R2(), np.ones(5), np.ones(5)) == 1
    assert computed(R2(), np.ones(5) * 2, np.ones(5)) == 0
    assert math.isnan(computed(R2(), np.ones(1), np.ones(1)))


def test_means_over_batches() -> None:
    """Errors, and the share of examples whose class is among the largest k."""
    assert float(mae(Tensor([1.0, 3]), Tensor([0.0, 0]))) == 2
    assert float(mse(Tensor([1.0, 3]), Tensor([0.0, 0]))) == 5
    top = TopK(2)
    strictly = (np.take_along_axis(SCORES, LABELS[:, None], 1) < SCORES).sum(1) < 2
    assert float(top(Tensor(SCORES), Tensor(LABELS))) == pytest.approx(strictly.mean())
    assert float(TopK(4)(Tensor(SCORES), Tensor(LABELS))) == 1
    assert top.__name__ == "top_2"


@pytest.mark.parametrize("name", NAMES)
def test_every_name_in_a_trainer(name: str) -> None:
    """Figures of an epoch are those of all its examples, and survive saving in its middle."""
    regression = name in ("r2", "mae", "mse")
    if regression:
        data = TensorDataset(BINARY[:, None], BINARY[:, None] * 2 + 1)
    else:
        data = TensorDataset(SCORES, LABELS)
    loss = functional.mse_loss if regression else functional.cross_entropy
    model = Identity()
    other = Tensor(np.ones(1), requires_grad=True)
    trainer = Trainer(model, SGD([other]), loss, metrics=[name])
    found = trainer.evaluate(DataLoader(data, 30))
    assert list(found) == ["loss", name]
    whole = trainer.evaluate(DataLoader(data, "full"))
    assert found[name] == pytest.approx(whole[name], rel=1e-5)
    first, second = (Figures(resolve([name])) for _ in range(2))
    for number, (x, t) in enumerate(DataLoader(data, 30)):
        if number == 3:
            second.load_state_dict(first.state_dict())
        for figures in (first, second) if number >= 3 else (first,):
            figures.add(Tensor(0.0), x, t)
    assert first.compute() == second.compute()


def test_refused() -> None:
    """Names, shapes and options that mean nothing."""
    with pytest.raises(TensorgradError, match="unknown metric 'f2'; known are accuracy"):
        resolve(["f2"])
    with pytest.raises(ShapeError, match="f1: the output must have shape"):
        F1().update(Tensor([[1.0, 2]]), Tensor([1, 0]))
    with pytest.raises(ShapeError, match="r2: output and target"):
        R2().update(Tensor([[1.0]]), Tensor([1.0]))
    with pytest.raises(ShapeError, match="top-k"):
        TopK(1)(Tensor([1.0]), Tensor([1.0]))
    with pytest.raises(TensorgradError, match="from 1"):
        TopK(0)
    with pytest.raises(TensorgradError, match="average must be"):
        F1("micro")
