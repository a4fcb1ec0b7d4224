"""Figures of merit beside the loss.

A metric is either a function ``metric(output, target)``, the mean over a batch, of which the mean
over all examples is reported; or an ``EpochMetric``, which takes in all batches before it can say
anything, as precision or the area under a curve. Formulas and conventions are those of
scikit-learn, "Metrics and scoring", which the tests compare with where it is installed.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy import ndarray

from tensorgrad import backend, dtypes
from tensorgrad.backend.base import Array
from tensorgrad.errors import ShapeError, TensorgradError
from tensorgrad.tensor import Tensor

#: ``metric(output, target)`` is the mean over the batch: a number, 0-d array or 0-d tensor; or
#: None where it says nothing of what it is given.
Metric = Callable[[Tensor, Tensor], Any]


def accuracy(output: Tensor, target: Tensor) -> Array:
    """The share of examples whose largest output is that of the right class.

    A number, or a 0-d float64 array on a GPU.

    output: [batch, ..., classes], any increasing function of the probabilities (logits will do).
        An example with NaN among them is not right.
    target: the classes, integers [batch, ...]; or their probabilities, in the shape of ``output``.

    Raises ShapeError unless the shapes are these and there are two classes or more, and
    TensorgradError for a target that is neither.
    """
    scores, wanted = output.data, target.data
    fast = type(scores) is ndarray and scores.ndim == 2 and wanted.shape == scores.shape[:1]
    fast = fast and scores.shape[1] > 1 and len(wanted) > 0 and wanted.dtype.kind in "iu"
    # The same in a third of the time; a sum of squares is NaN only where a term is.
    if fast and not math.isnan(np.vdot(scores, scores)):
        return np.count_nonzero(scores.argmax(1) == wanted) / len(wanted)
    if _has_classes(scores, wanted):
        of = backend.of(scores)
        with of.at(output.device), np.errstate(invalid="ignore"):  # bfloat16 warns of NaN
            wanted = _labels("accuracy", scores, wanted)
            best = scores.max(-1)  # NaN where one of them is
            return ((scores.argmax(-1) == wanted) & (best == best)).mean(dtype=of.xp.float64)
    raise ShapeError(
        "accuracy: the output must have shape (batch, classes), with two classes or more, and the "
        f"target (batch,) or that of the output; got {output.shape} and {target.shape}. For other "
        "tasks pass Trainer(metrics=...) your own function (output, target) -> mean, or ()"
    )


def _has_classes(scores: Array, wanted: Array) -> bool:
    """Whether the shapes are those of scores of several classes, and of labels or probabilities."""
    several = scores.ndim > 0 and scores.shape[-1] > 1
    return several and wanted.shape in (scores.shape, scores.shape[:-1])


def _labels(name: str, scores: Array, wanted: Array) -> Array:
    """The right classes [batch, ...], of labels or probabilities; see ``accuracy``."""
    if wanted.shape == scores.shape:
        if _are_probabilities(wanted):
            return wanted.argmax(-1)
        what = "numbers whose rows are no probabilities, which add up to 1"
    else:
        if wanted.dtype.kind in "iub" or bool((wanted == wanted.round()).all()):
            return wanted
        what = "numbers with a fraction"
    raise TensorgradError(
        f"{name}: the target must hold classes, as integers or as the probabilities of each; it "
        f"has {what}. For a regression take r2, mae or mse"
    )


def _are_probabilities(wanted: Array) -> bool:
    sums = wanted.sum(-1)
    return bool(((wanted >= 0).all(-1) & (sums > 0.99) & (sums < 1.01)).all())


class AccuracyOfClasses:
    """``accuracy`` where the targets of the first batch are classes, and else no figure, None."""

    __name__ = "accuracy"
    _applies: bool | None = None

    def __call__(self, output: Tensor, target: Tensor) -> Any:
        """As ``accuracy``, or None."""
        if self._applies is None:
            scores, wanted = output.data, target.data
            self._applies = _has_classes(scores, wanted) and (
                wanted.dtype.kind in "iu"
                if wanted.shape != scores.shape
                else _are_probabilities(wanted)
            )
        return accuracy(output, target) if self._applies else None


class TopK:
    """The share of examples whose class is among the ``k`` largest outputs; as ``accuracy``."""

    def __init__(self, k: int = 5) -> None:
        if k < 1:
            raise TensorgradError(f"TopK: k must be a whole number from 1; got {k}")
        self.k = k
        self.__name__ = f"top_{k}"

    def __call__(self, output: Tensor, target: Tensor) -> Any:
        """A 0-d float64 array."""
        scores, wanted = output.data, target.data
        if scores.ndim < 2 or wanted.shape != scores.shape[:-1]:
            raise ShapeError(
                "top-k accuracy: the output must have shape (batch, classes) and the target "
                f"(batch,); got {output.shape} and {target.shape}"
            )
        of = backend.of(scores)
        with of.at(output.device):
            wanted = _labels("top-k accuracy", scores, wanted).astype(np.int64)
            right = of.xp.take_along_axis(scores, wanted[..., None], -1)
            # NaN counts as larger than anything, and as no answer where it is the right class's.
            with np.errstate(invalid="ignore"):  # bfloat16 warns of NaN
                above = (~(scores <= right)).sum(-1)
            return ((above < self.k) & ~of.xp.isnan(right[..., 0])).mean(dtype=of.xp.float64)


def mae(output: Tensor, target: Tensor) -> Array:
    """The mean absolute error, a 0-d array. Both have one shape. Raises ShapeError otherwise."""
    return abs(_differences("mae", output, target)).mean()


def mse(output: Tensor, target: Tensor) -> Array:
    """The mean squared error, a 0-d array. Both have one shape. Raises ShapeError otherwise."""
    return (_differences("mse", output, target) ** 2).mean()


def _differences(name: str, output: Tensor, target: Tensor) -> Array:
    """In float32 at least: whole numbers may have no sign, and squares of 16 bits overflow."""
    _check_equal_shapes(name, output, target)
    y, t = output.data, target.data
    if y.dtype not in dtypes.WIDE_FLOATS and t.dtype not in dtypes.WIDE_FLOATS:
        wide = dtypes.float32 if {y.dtype, t.dtype} & dtypes.HALVES else dtypes.float64
        y, t = y.astype(wide), t.astype(wide)
    return y - t


def _check_equal_shapes(name: str, output: Tensor, target: Tensor) -> None:
    if output.shape != target.shape:
        raise ShapeError(
            f"{name}: output and target must have one shape; got {output.shape} and {target.shape}"
        )


# --- metrics of a whole epoch ---------------------------------------------------------------------


class EpochMetric:
    """Base of what is computed from all examples of an epoch together.

    name: the column in the history.
    """

    name = "metric"
    data: tuple[str, ...] = ()  # the attributes that hold what was taken in

    def update(self, output: Tensor, target: Tensor) -> None:
        """Take in a batch."""
        raise NotImplementedError

    def compute(self) -> float:
        """The figure for everything taken in so far; NaN where it is not defined."""
        raise NotImplementedError

    def fresh(self) -> EpochMetric:
        """One like it that has not taken in anything."""
        new = copy.copy(self)
        for name in self.data:
            vars(new).pop(name, None)
        return new

    def state_dict(self) -> dict[str, Any]:
        """What was taken in so far."""
        return {name: vars(self)[name] for name in self.data if name in vars(self)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state_dict`` gave."""
        for name in self.data:
            vars(self).pop(name, None)
        vars(self).update({name: state[name] for name in self.data if name in state})


class ConfusionMatrix(EpochMetric):
    """How often each class was taken for each other: ``matrix()`` [classes, classes].

    Rows are the right classes, columns the predicted ones. As a figure it gives the accuracy.
    Output: [batch, classes], or [batch] or [batch, 1] for two classes, of which the second is
    predicted above ``threshold`` (0 for logits, .5 for probabilities). Target: [batch] or
    [batch, 1] classes, or their probabilities, in the shape of the output.

    Its figures are NaN as soon as an output was.
    """

    name = "accuracy"
    data = ("_counts", "_undefined")
    _counts: Array
    _undefined: Any = 0

    def __init__(self, threshold: float = 0.0) -> None:
        self.threshold = threshold

    def update(self, output: Tensor, target: Tensor) -> None:
        """Count a batch."""
        of = backend.of(output.data)
        with of.at(output.device):
            predicted, wanted, k = _decisions(self, output.data, target.data)
            together = (wanted * k + predicted).ravel()
            counts = of.xp.bincount(together, minlength=k * k).reshape(k, k)
            old = vars(self).get("_counts")
            self._counts = counts if old is None else of.xp.asarray(old) + counts
            undefined = of.xp.isnan(output.data).sum()
            self._undefined = undefined + of.xp.asarray(self._undefined)

    def matrix(self) -> ndarray[Any, Any]:
        """The counts, int64 [classes, classes]; [0, 0] before the first batch."""
        counts = vars(self).get("_counts")
        if counts is None:
            return np.zeros((0, 0), np.int64)
        return np.asarray(backend.of(counts).to_host(counts), np.int64)

    def compute(self) -> float:
        """The share of right decisions."""
        counts = self._decided()
        return float("nan") if counts is None else float(np.trace(counts) / counts.sum())

    def _decided(self) -> ndarray[Any, Any] | None:
        """The counts, or None if there are none or an output was NaN, which decides nothing."""
        counts = self.matrix()
        return None if int(self._undefined) or not counts.any() else counts


def _decisions(metric: Any, scores: Array, wanted: Array) -> tuple[Array, Array, int]:
    """The predicted and the right classes, [batch] integers, and the number of classes."""
    if scores.ndim == 2 and _has_classes(scores, wanted):
        wanted = _labels(metric.name, scores, wanted).astype(np.int64)
        return scores.argmax(1), _in_range(metric, wanted, scores.shape[1]), scores.shape[1]
    if scores.ndim and scores.size == len(scores) == wanted.size:
        wanted = _labels(metric.name, scores.reshape(-1, 1), wanted.reshape(-1)).astype(np.int64)
        predicted = (scores.reshape(-1) > metric.threshold).astype(np.int64)
        return predicted, _in_range(metric, wanted, 2), 2
    raise ShapeError(
        f"{metric.name}: the output must have shape (batch, classes), (batch, 1) or (batch,), and "
        f"the target (batch,); got {scores.shape} and {wanted.shape}"
    )


def _in_range(metric: Any, labels: Array, classes: int) -> Array:
    if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise TensorgradError(
            f"{metric.name}: the target must hold classes from 0 to {classes - 1}; got "
            f"{int(labels.min())} to {int(labels.max())}"
        )
    return labels


class _OfConfusion(ConfusionMatrix):
    """A figure computed from the confusion matrix, as the mean over the classes or for one.

    average: "macro", the mean over all classes that occur; "binary", the figure of class 1 of two;
        left out, "binary" for two classes and "macro" for more. A class occurs if it is predicted
        or is right somewhere; with nothing to divide by it counts as 0.
    """

    def __init__(self, average: str | None = None, threshold: float = 0.0) -> None:
        super().__init__(threshold)
        if average not in (None, "macro", "binary"):
            raise TensorgradError(
                f'{type(self).__name__}: average must be "macro" or "binary"; got {average!r}'
            )
        self.average = average

    def _figure(self, right: Array, predicted: Array, wanted: Array) -> Any:
        raise NotImplementedError

    def compute(self) -> float:
        """The mean over the classes, or the figure of class 1."""
        counts = self._decided()
        if counts is None:
            return float("nan")
        if self.average == "binary" and len(counts) > 2:
            raise TensorgradError(
                f'{self.name}: average="binary" is for two classes, and there are {len(counts)}; '
                'take "macro"'
            )
        predicted, wanted = counts.sum(0), counts.sum(1)
        figures = self._figure(np.diag(counts), predicted, wanted)
        if self.average == "binary" or (self.average is None and len(counts) == 2):
            return float(figures[1])
        return float(figures[(predicted + wanted) > 0].mean())


class Precision(_OfConfusion):
    """Of what is predicted to be a class, the share that is: TP / (TP + FP)."""

    name = "precision"

    def _figure(self, right: Array, predicted: Array, wanted: Array) -> Any:
        return right / np.maximum(predicted, 1)


class Recall(_OfConfusion):
    """Of what is of a class, the share that is predicted to be: TP / (TP + FN)."""

    name = "recall"

    def _figure(self, right: Array, predicted: Array, wanted: Array) -> Any:
        return right / np.maximum(wanted, 1)


class F1(_OfConfusion):
    """The harmonic mean of precision and recall: 2 TP / (2 TP + FP + FN)."""

    name = "f1"

    def _figure(self, right: Array, predicted: Array, wanted: Array) -> Any:
        return 2 * right / np.maximum(predicted + wanted, 1)


class RocAuc(EpochMetric):
    """The area under the receiver operating characteristic; ties count half.

    Two classes: output [batch], [batch, 1] or [batch, 2] (of which the difference ranks). More:
    [batch, classes] logits, and the mean over the classes, each against all others, of those that
    occur and are not alone. NaN if an output was. Keeps all outputs in memory.
    """

    name = "roc_auc"
    data = ("_scores", "_wanted")
    _scores: list[Array]
    _wanted: list[Array]
    threshold = 0.0

    def update(self, output: Tensor, target: Tensor) -> None:
        """Keep a batch."""
        _, wanted, _ = _decisions(self, output.data, target.data)
        own = vars(self)
        of = backend.of(output.data)
        own.setdefault("_scores", []).append(np.array(of.to_host(output.data)))
        own.setdefault("_wanted", []).append(np.array(of.to_host(wanted)))

    def compute(self) -> float:
        """Between 0 and 1; NaN if there is one class only."""
        if "_scores" not in vars(self):
            return float("nan")
        scores = np.concatenate(self._scores).astype(np.float64)
        wanted = np.concatenate(self._wanted)
        if scores.ndim == 1 or scores.shape[1] == 1:
            return _area(scores.reshape(-1), wanted == 1)
        with np.errstate(invalid="ignore"):  # of an infinity less itself, which ranks nowhere
            if scores.shape[1] == 2:
                return _area(scores[:, 1] - scores[:, 0], wanted == 1)
            powers = np.exp(scores - scores.max(1, keepdims=True))
        shares = powers / powers.sum(1, keepdims=True)
        if np.isnan(shares).any():
            return float("nan")
        areas = [_area(shares[:, k], wanted == k) for k in range(scores.shape[1])]
        return float(np.nanmean(areas)) if not np.isnan(areas).all() else float("nan")


def _area(scores: ndarray[Any, Any], positive: ndarray[Any, Any]) -> float:
    """The probability that a positive example has the higher score (Mann and Whitney, 1947)."""
    n = int(positive.sum())
    if not n or n == len(positive) or np.isnan(scores).any():
        return float("nan")
    _, which, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[which]  # ties share the mean of their ranks
    above = ranks[positive].sum() - n * (n + 1) / 2
    return float(above / (n * (len(positive) - n)))


class R2(EpochMetric):
    """The coefficient of determination, 1 - SS_residual / SS_total, the mean over the outputs.

    Output and target: one shape, [batch] or [batch, outputs]. Computed in float64, batch by batch
    (Chan, Golub and LeVeque, 1979). NaN for less than two examples; 0 for an output whose target
    does not vary, or 1 if it is met exactly.
    """

    name = "r2"
    data = ("_count", "_mean", "_total", "_residual")
    _count: int
    _mean: Array
    _total: Array
    _residual: Array

    def update(self, output: Tensor, target: Tensor) -> None:
        """Take in a batch."""
        _check_equal_shapes("r2", output, target)
        of = backend.of(output.data)
        with of.at(output.device):
            t = target.data.astype(np.float64).reshape(len(target), -1)
            y = output.data.astype(np.float64).reshape(len(target), -1)
            n, mean = len(t), t.mean(0)
            total, residual = ((t - mean) ** 2).sum(0), ((t - y) ** 2).sum(0)
            if "_count" in vars(self):
                old = of.xp.asarray(self._mean)
                both = self._count + n
                total = total + of.xp.asarray(self._total)
                total = total + (mean - old) ** 2 * (self._count * n / both)
                mean = old + (mean - old) * (n / both)
                residual = residual + of.xp.asarray(self._residual)
                n = both
            self._count, self._mean, self._total, self._residual = n, mean, total, residual

    def compute(self) -> float:
        """At most 1; below 0 where the mean would have predicted better."""
        if vars(self).get("_count", 0) < 2:
            return float("nan")
        of = backend.of(self._total)
        total, residual = (np.asarray(of.to_host(x)) for x in (self._total, self._residual))
        with np.errstate(divide="ignore", invalid="ignore"):
            shares = np.where(total > 0, 1 - residual / total, np.where(residual > 0, 0.0, 1.0))
        return float(np.where(np.isnan(total + residual), np.nan, shares).mean())


_BY_NAME: dict[str, Callable[[], Metric | EpochMetric]] = {
    "accuracy": lambda: accuracy,
    "top_5": lambda: TopK(5),
    "precision": Precision,
    "recall": Recall,
    "f1": F1,
    "roc_auc": RocAuc,
    "r2": R2,
    "mae": lambda: mae,
    "mse": lambda: mse,
}
#: The names under which metrics can be asked for.
NAMES = tuple(_BY_NAME)


def resolve(metrics: Sequence[str | Metric | EpochMetric]) -> dict[str, Metric | EpochMetric]:
    """The metrics by name; a function goes by its own name.

    Raises TensorgradError for a name that is not known.
    """
    found: dict[str, Metric | EpochMetric] = {}
    for metric in metrics:
        if isinstance(metric, str):
            if metric not in _BY_NAME:
                raise TensorgradError(
                    f"unknown metric {metric!r}; known are {', '.join(_BY_NAME)}, or pass a "
                    "function (output, target) -> mean over the batch"
                )
            found[metric] = _BY_NAME[metric]()
        elif isinstance(metric, EpochMetric):
            found[metric.name] = metric
        else:
            found[getattr(metric, "__name__", type(metric).__name__)] = metric
    return found


# By the words of its name a figure of merit is an error, or is not.
_LESS = re.compile(
    "bce|brier|cer|cost|crossentropy|deviance|deviation|distance|divergence|eer|entropy|err|"
    "error|errors|fid|fnr|fpr|hamming|huber|kl|kld|logloss|loss|losses|mad|mae|mape|misclassification|misses|"
    "mpe|mse|msle|nll|penalty|perplexity|ppl|rae|regret|residual|risk|rmse|rmsle|rse|seconds|smape|"
    "sse|wer"
)
_MORE = re.compile(
    "acc|accuracy|agreement|ap|auc|auprc|auroc|bleu|correct|correlation|dice|f1|f2|fbeta|"
    "fscore|gain|gini|hits|iou|jaccard|kappa|likelihood|map|mcc|mrr|ndcg|pearson|pr|"
    "precision|psnr|r2|recall|return|reward|roc|rouge|score|sensitivity|silhouette|spearman|"
    "specificity|ssim|tnr|top|tpr"
)


def mode_of(column: str) -> str | None:
    """ "min" for a column of the history in which less is better, "max" if more is, by its name.

    None if the name does not say.
    """
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", column).lower()
    words = {word for part in re.split(r"[^a-z0-9]+", text) for word in (part, part.rstrip("s"))}
    less, more = (any(map(kind.fullmatch, words)) for kind in (_LESS, _MORE))
    if words & {"neg", "negative"}:
        less, more = more and not less, less
    return "min" if less else "max" if more else None


def chosen_mode(name: str, column: str, mode: str | None) -> str:
    """``mode``, or what the column's name says. Raises TensorgradError for another, or neither."""
    if mode not in (None, "min", "max"):
        raise TensorgradError(f'{name}: mode must be "min" or "max"; got {mode!r}')
    found = mode or mode_of(column)
    if found is None:
        raise TensorgradError(
            f"{name}: whether less or more of {column!r} is better does not follow from its name; "
            'say mode="min" or mode="max"'
        )
    return found


class Figures:
    """The loss and the metrics over the examples of an epoch so far.

    Means may still be on their way on a GPU; they are read in groups, so that it need not be
    waited for after each batch.
    """

    _GROUP = 256

    def __init__(self, metrics: Mapping[str, Metric | EpochMetric] | None = None) -> None:
        metrics = metrics or {}
        self._means = {n: m for n, m in metrics.items() if not isinstance(m, EpochMetric)}
        self._whole = {n: m.fresh() for n, m in metrics.items() if isinstance(m, EpochMetric)}
        self._order = ("loss", *metrics)
        self._sums: dict[str, float] = {}
        self._count = 0
        self._pending: list[tuple[dict[str, Any], int]] = []

    def add(self, loss: Tensor, output: Tensor, target: Tensor) -> None:
        """Take in a batch and its mean loss."""
        for whole in self._whole.values():
            whole.update(output, target)
        examples = len(target.data)
        if type(loss.data) is ndarray:  # nothing to wait for
            sums = self._sums
            sums["loss"] = sums.get("loss", 0.0) + float(loss.data) * examples
            for name, metric in self._means.items():
                value = metric(output, target)
                if value is not None:
                    sums[name] = sums.get(name, 0.0) + float(value) * examples
            self._count += examples
            return
        values: dict[str, Any] = {"loss": loss.data}
        for name, metric in self._means.items():
            value = metric(output, target)
            if value is not None:
                values[name] = value.data if isinstance(value, Tensor) else value
        self._pending.append((values, examples))
        if len(self._pending) >= self._GROUP:
            self._read()

    def compute(self) -> dict[str, float]:
        """Each figure over all examples so far; empty if there were none."""
        self._read()
        if not self._count:
            return {}
        found = {name: total / self._count for name, total in self._sums.items()}
        found.update({name: metric.compute() for name, metric in self._whole.items()})
        return {name: found[name] for name in self._order if name in found}

    def metric(self, name: str) -> EpochMetric:
        """The metric of a whole epoch of this name, with what it has taken in."""
        return self._whole[name]

    def _read(self) -> None:
        for values, examples in self._pending:
            for name, value in values.items():
                self._sums[name] = self._sums.get(name, 0.0) + float(value) * examples
            self._count += examples
        self._pending.clear()

    def state_dict(self) -> dict[str, Any]:
        """What was taken in so far."""
        self._read()
        whole = {name: metric.state_dict() for name, metric in self._whole.items()}
        return {"sums": dict(self._sums), "count": self._count, "whole": whole}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state_dict`` gave; a metric it does not know starts afresh."""
        self._sums, self._count = dict(state["sums"]), state["count"]
        for name, metric in self._whole.items():
            metric.load_state_dict(state["whole"].get(name, {}))
        self._pending.clear()
