"""Metrics: known values, scikit-learn, batches of any size, saving in the middle."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tensorgrad.data import DataLoader, TensorDataset
from tensorgrad.errors import ShapeError, TensorgradError
from tensorgrad.nn import Identity, Linear, functional
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
    accuracy,
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
    metric.update(Tensor([[0.0, 0, 1]]), Tensor([[0.1, 0.0, 0.9]]))
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


NAN = math.nan


@pytest.mark.parametrize(
    ("scores", "right"),
    [
        ([1.0, NAN, 0.0], (False, False, False)),  # the right class has NaN
        ([NAN, 2.0, 0.0], (False, False, True)),  # NaN counts as more than any number
        ([NAN, 2.0, NAN], (False, False, False)),
        ([NAN, NAN, NAN], (False, False, False)),
        ([1.0, math.inf, 0.0], (True, True, True)),
        ([3.0, 2.0, 1.0], (False, False, True)),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_nan_is_not_right(scores: list[float], right: tuple[bool, ...], dtype: str) -> None:
    """As accuracy, first, and second of three; the figures of the confusion matrix are NaN."""
    output, target = Tensor([scores, [0.0, 1.0, 0.0]], dtype=dtype), Tensor([1, 1])
    metrics: list[Any] = [accuracy, TopK(1), TopK(2)]
    for metric, wanted in zip(metrics, right, strict=True):
        assert float(metric(output, target)) == (0.5 + 0.5 * wanted)
        # several at once, in another shape
        both = Tensor(np.stack([output.numpy()] * 2, 1))
        assert float(metric(both, Tensor([[1, 1]] * 2))) == (0.5 + 0.5 * wanted)
    for make in (ConfusionMatrix, Precision, Recall, F1, RocAuc):
        figure = computed(make(), output.float().numpy(), np.array([1, 1]))
        assert math.isnan(figure) or not np.isnan(scores).any()


@pytest.mark.parametrize("make", [ConfusionMatrix, Precision, Recall, F1, RocAuc])
def test_nan_of_two_classes(make: Any) -> None:
    output = np.array([1.0, -1.0, NAN, 2.0], np.float32)
    target = np.array([1, 0, 0, 1])
    assert math.isnan(computed(make(), output, target, 2))
    metric = make().fresh()
    for i in range(0, 4, 2):
        resumed = make()
        resumed.load_state_dict(metric.state_dict())
        metric = resumed
        metric.update(Tensor(output[i : i + 2]), Tensor(target[i : i + 2]))
    assert math.isnan(metric.compute())
    assert computed(make(), output[[0, 1, 3]], target[[0, 1, 3]]) == 1


def test_area_where_scores_cannot_be_compared() -> None:
    """The difference of two infinities, and the share of one among several."""
    two = np.array([[math.inf, math.inf], [0.0, 1.0], [1.0, 0.0]])
    assert math.isnan(computed(RocAuc(), two, np.array([1, 1, 0])))
    several = np.array([[math.inf, 0.0, 1.0], [0.0, 1.0, 2.0], [1.0, 0.0, 5.0]])
    assert math.isnan(computed(RocAuc(), several, np.array([0, 1, 2])))
    one = np.array([math.inf, -math.inf, 3.0])
    assert computed(RocAuc(), one, np.array([1, 0, 0])) == 1


def test_r2_of_nan() -> None:
    t = np.array([1.0, 2.0, 4.0])
    for y, wanted in ((np.array([1.0, NAN, 4.0]), t), (t, np.array([1.0, NAN, 4.0]))):
        assert math.isnan(computed(R2(), y, wanted, 2))


REGRESSION = RNG.normal(size=(40, 3)).astype(np.float32)


@pytest.mark.parametrize(
    "name", [n for n in NAMES if n not in ("r2", "mae", "mse")] + ["confusion"]
)
@pytest.mark.parametrize(
    "target",
    [REGRESSION, np.abs(REGRESSION), (REGRESSION > 0).astype(np.int64), REGRESSION[:, 0]],
    ids=["numbers", "positive numbers", "several labels", "one number"],
)
def test_figures_of_classes_are_refused_for_other_tasks(name: str, target: Any) -> None:
    metric = ConfusionMatrix() if name == "confusion" else resolve([name])[name]
    update = metric.update if isinstance(metric, EpochMetric) else metric
    with pytest.raises((TensorgradError, ShapeError), match="classes"):
        update(Tensor(REGRESSION), Tensor(target))
    if target.ndim == 1 and isinstance(metric, EpochMetric):  # two classes, one output
        with pytest.raises(TensorgradError, match="numbers with a fraction"):
            update(Tensor(REGRESSION[:, 0]), Tensor(target))


@pytest.mark.parametrize("labels", [[0, 3], [-1, 0], [0, -100]])
def test_labels_out_of_range_are_refused(labels: list[int]) -> None:
    with pytest.raises(TensorgradError, match=r"classes from 0 to 2; got -?\d+ to \d"):
        ConfusionMatrix().update(Tensor(np.ones((2, 3))), Tensor(labels))
    with pytest.raises(TensorgradError, match="classes from 0 to 1"):
        F1().update(Tensor(np.ones(2)), Tensor(labels))


@pytest.mark.parametrize(
    ("targets", "loss", "figure"),
    [
        (REGRESSION, functional.mse_loss, False),
        (REGRESSION[:, :1], functional.mse_loss, False),
        (REGRESSION[:, 0], lambda y, t: functional.mse_loss(y[:, 0], t), False),
        ((REGRESSION > 0).astype(np.float32), functional.mse_loss, False),
        (RNG.integers(0, 3, 40), functional.cross_entropy, True),
        (np.eye(3, dtype=np.float32)[RNG.integers(0, 3, 40)], functional.cross_entropy, True),
    ],
    ids=["three numbers", "a number", "a flat number", "several labels", "classes", "one-hot"],
)
def test_accuracy_is_reported_of_classes_alone(targets: Any, loss: Any, figure: bool) -> None:
    """Without metrics being asked for."""
    width = targets.shape[1] if targets.ndim == 2 else 3
    model = Linear(3, width)
    data = DataLoader(TensorDataset(REGRESSION, targets), 10)
    trainer = Trainer(model, SGD(model.parameters(), lr=0.01), loss)
    (record,) = trainer.fit(data, data, epochs=1)
    columns = ["loss", "accuracy"] if figure else ["loss"]
    assert [n.removeprefix("train_") for n in record if n.startswith("train_")] == columns
    assert list(trainer.evaluate(data)) == columns


@pytest.mark.parametrize("metric", [Precision, Recall, F1])
def test_the_mean_over_classes_is_of_those_that_occur(metric: Any) -> None:
    """Six classes; of the last two one is never predicted nor right, the other only predicted."""
    predicted, wanted = np.array([0, 0, 1, 2, 2, 5, 3]), np.array([0, 1, 1, 2, 0, 2, 2])
    output = np.eye(6, dtype=np.float32)[predicted]
    each = {"precision": [1 / 2, 1, 1 / 2, 0, 0], "recall": [1 / 2, 1 / 2, 1 / 3, 0, 0]}
    each["f1"] = [1 / 2, 2 / 3, 2 / 5, 0, 0]
    assert computed(metric(), output, wanted, 3) == pytest.approx(np.mean(each[metric.name]))
    with pytest.raises(TensorgradError, match=r"for two classes, and there are 6; take \"macro\""):
        computed(metric("binary"), output, wanted)


@pytest.mark.parametrize("metric", [mae, mse])
def test_errors_are_not_bounded_by_the_dtype(metric: Any) -> None:
    """Whole numbers without a sign, and squares beyond the 65,504 of float16."""
    a, b = Tensor([0, 3], dtype="uint8"), Tensor([2, 1], dtype="uint8")
    assert float(metric(a, b)) == (2 if metric is mae else 4)
    a, b = Tensor([600.0, 0.0], dtype="float16"), Tensor([0.0, 0.0], dtype="float16")
    assert float(metric(a, b)) == (300 if metric is mae else 180000)
    assert float(metric(Tensor([True, False]), Tensor([False, False]))) == 0.5


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
