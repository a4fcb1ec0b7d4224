"""The losses of ``nn.functional`` as modules."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

from tensorgrad.nn import functional
from tensorgrad.nn.layers import Linear
from tensorgrad.nn.module import Module, check_sizes
from tensorgrad.ops.random import Generator
from tensorgrad.tensor import Tensor

__all__ = [
    "BCELoss", "BCEWithLogitsLoss", "CTCLoss", "CosineEmbeddingLoss", "CosineSimilarity",
    "CrossEntropyLoss", "FocalLoss", "GaussianNLLLoss", "HingeEmbeddingLoss", "HuberLoss",
    "KLDivLoss", "L1Loss", "LinearCrossEntropyLoss", "MSELoss", "MarginRankingLoss",
    "MultiLabelMarginLoss",
    "MultiLabelSoftMarginLoss", "MultiMarginLoss", "NLLLoss", "PairwiseDistance",
    "PoissonNLLLoss", "SmoothL1Loss", "SoftMarginLoss", "TripletMarginLoss",
    "TripletMarginWithDistanceLoss",
]  # fmt: skip


class _Loss(Module):
    _shown: ClassVar[tuple[str, ...]] = ("reduction",)
    function: ClassVar[Callable[..., Tensor]]

    def __init__(self, reduction: str = "mean") -> None:
        self.reduction = reduction

    def forward(self, input: Any, target: Any) -> Tensor:
        """The loss of ``input`` against ``target``, with the options of the module."""
        options = {name: getattr(self, name) for name in self._shown}
        return type(self).function(input, target, **options)


class _WeightedLoss(_Loss):
    """With ``weight``, a buffer: it goes along to devices and into states."""

    weight: Tensor | None

    def __init__(self, weight: Any = None, reduction: str = "mean") -> None:
        super().__init__(reduction)
        _keep(self, "weight", weight)

    def forward(self, input: Any, target: Any) -> Tensor:
        """The loss of ``input`` against ``target``, with the options of the module."""
        options = {name: getattr(self, name) for name in self._shown}
        return type(self).function(input, target, weight=self.weight, **options)


def _keep(module: Module, name: str, weight: Any) -> None:
    """Make ``weight`` a buffer, or an attribute if it is ``None``."""
    if weight is not None:
        module.register_buffer(name, weight if isinstance(weight, Tensor) else Tensor(weight))
    else:
        setattr(module, name, None)


class LinearCrossEntropyLoss(Module):
    """``functional.linear_cross_entropy`` with a linear layer of its own, ``linear``.

    in_features: the size of the input's last axis. num_classes: C. out_features: the sizes d1, ...
        of logits (N, C, d1, ...). bias: whether the layer has one.
    reduction, weight, ignore_index, label_smoothing, rows: as there.
    device, dtype, generator: as in Linear.

    Raises ValueError for sizes that are not positive integers.
    """

    _shown = ("in_features", "num_classes", "reduction")
    weight: Tensor | None

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        out_features: tuple[int, ...] = (),
        bias: bool = False,
        device: str | None = None,
        dtype: Any = None,
        reduction: str = "mean",
        weight: Any = None,
        ignore_index: int | None = None,
        label_smoothing: float = 0.0,
        rows: int | None = None,
        generator: Generator | None = None,
    ) -> None:
        check_sizes("LinearCrossEntropyLoss", num_classes=num_classes)
        self.in_features, self.num_classes = in_features, num_classes
        self.out_features = tuple(out_features)
        outputs = num_classes * math.prod(self.out_features)
        self.linear = Linear(in_features, outputs, bias, device, dtype, generator)
        self.reduction, self.rows = reduction, rows
        self.ignore_index, self.label_smoothing = ignore_index, label_smoothing
        _keep(self, "weight", weight)

    def forward(self, input: Any, target: Any) -> Tensor:
        """The loss of the layer's logits of ``input`` against ``target``."""
        shape = (self.num_classes, *self.out_features)
        bias = self.linear.bias
        return functional.linear_cross_entropy(
            input,
            self.linear.weight.reshape((*shape, self.in_features)),
            target,
            linear_bias=None if bias is None else bias.reshape(shape),
            weight=self.weight,
            reduction=self.reduction,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            rows=self.rows,
        )


class CrossEntropyLoss(_Loss):
    """``functional.cross_entropy``: logits (N, C, ...) against labels (N, ...) or probabilities.

    reduction, weight, ignore_index, label_smoothing: as there.
    """

    weight: Tensor | None

    def __init__(
        self,
        reduction: str = "mean",
        *,
        weight: Any = None,
        ignore_index: int | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(reduction)
        _keep(self, "weight", weight)
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing

    def forward(self, input: Any, target: Any) -> Tensor:
        """The loss of ``input`` against ``target``."""
        return functional.cross_entropy(
            input,
            target,
            self.reduction,
            weight=self.weight,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
        )


class NLLLoss(_WeightedLoss):
    """``functional.nll_loss``: log-probabilities (N, C, ...) against integer labels (N, ...).

    reduction, weight, ignore_index: as there.
    """

    def __init__(
        self, reduction: str = "mean", *, weight: Any = None, ignore_index: int | None = None
    ) -> None:
        super().__init__(weight, reduction)
        self.ignore_index = ignore_index

    def forward(self, input: Any, target: Any) -> Tensor:
        """The loss of ``input`` against ``target``."""
        return functional.nll_loss(
            input, target, self.reduction, weight=self.weight, ignore_index=self.ignore_index
        )


class MSELoss(_Loss):
    """``functional.mse_loss``: the squared error, with the lectures' reductions besides."""

    function = staticmethod(functional.mse_loss)


class L1Loss(_Loss):
    """``functional.l1_loss``: the absolute error."""

    function = staticmethod(functional.l1_loss)


class BCEWithLogitsLoss(_WeightedLoss):
    """``functional.binary_cross_entropy_with_logits``: logits against probabilities.

    reduction, weight, pos_weight: as there.
    """

    function = staticmethod(functional.binary_cross_entropy_with_logits)
    pos_weight: Tensor | None

    def __init__(
        self, reduction: str = "mean", *, weight: Any = None, pos_weight: Any = None
    ) -> None:
        super().__init__(weight, reduction)
        _keep(self, "pos_weight", pos_weight)

    def forward(self, input: Any, target: Any) -> Tensor:
        """The loss of ``input`` against ``target``."""
        return functional.binary_cross_entropy_with_logits(
            input, target, self.reduction, weight=self.weight, pos_weight=self.pos_weight
        )


class HuberLoss(_Loss):
    """``functional.huber_loss``: squares up to ``delta``, straight lines beyond."""

    function = staticmethod(functional.huber_loss)
    _shown = ("reduction", "delta")

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction)
        self.delta = delta


class SmoothL1Loss(_Loss):
    """``functional.smooth_l1_loss``: as HuberLoss, with slopes of 1."""

    function = staticmethod(functional.smooth_l1_loss)
    _shown = ("reduction", "beta")

    def __init__(self, reduction: str = "mean", beta: float = 1.0) -> None:
        super().__init__(reduction)
        self.beta = beta


class KLDivLoss(_Loss):
    """``functional.kl_div``: log-probabilities against probabilities, or their logarithms."""

    function = staticmethod(functional.kl_div)
    _shown = ("reduction", "log_target")

    def __init__(self, reduction: str = "mean", log_target: bool = False) -> None:
        super().__init__(reduction)
        self.log_target = log_target


class HingeEmbeddingLoss(_Loss):
    """``functional.hinge_embedding_loss``: distances against 1 or -1."""

    function = staticmethod(functional.hinge_embedding_loss)
    _shown = ("reduction", "margin")

    def __init__(self, margin: float = 1.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.margin = margin


class MultiMarginLoss(_WeightedLoss):
    """``functional.multi_margin_loss``: scores (N, C) against labels (N,), with a margin."""

    function = staticmethod(functional.multi_margin_loss)
    _shown = ("reduction", "p", "margin")

    def __init__(
        self, p: int = 1, margin: float = 1.0, reduction: str = "mean", *, weight: Any = None
    ) -> None:
        super().__init__(weight, reduction)
        self.p, self.margin = p, margin


class CosineEmbeddingLoss(_Loss):
    """``functional.cosine_embedding_loss``: angles between vectors against 1 or -1."""

    _shown = ("reduction", "margin")

    def __init__(self, margin: float = 0.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.margin = margin

    def forward(self, input1: Any, input2: Any, target: Any) -> Tensor:  # type: ignore[override]
        """The loss of vectors (N, D) against ``target`` (N,)."""
        return functional.cosine_embedding_loss(input1, input2, target, self.margin, self.reduction)


class TripletMarginLoss(_Loss):
    """``functional.triplet_margin_loss``: an anchor, one like it and one unlike it."""

    _shown = ("reduction", "margin", "p", "swap")

    def __init__(
        self,
        margin: float = 1.0,
        p: float = 2.0,
        eps: float = 1e-6,
        swap: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction)
        self.margin, self.p, self.eps, self.swap = margin, p, eps, swap

    def forward(self, anchor: Any, positive: Any, negative: Any) -> Tensor:  # type: ignore[override]
        """The loss of three stacks of vectors (N, D)."""
        return functional.triplet_margin_loss(
            anchor, positive, negative, self.margin, self.p, self.eps, self.swap, self.reduction
        )


class FocalLoss(_Loss):
    """``functional.sigmoid_focal_loss``: logits against probabilities, what is hard counts more."""

    function = staticmethod(functional.sigmoid_focal_loss)
    _shown = ("reduction", "alpha", "gamma")

    def __init__(self, alpha: float = 0.25, gamma: float = 2.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.alpha, self.gamma = alpha, gamma


class BCELoss(_WeightedLoss):
    """``functional.binary_cross_entropy``: probabilities against probabilities."""

    function = staticmethod(functional.binary_cross_entropy)


class SoftMarginLoss(_Loss):
    """``functional.soft_margin_loss``: scores against 1 or -1."""

    function = staticmethod(functional.soft_margin_loss)


class MultiLabelMarginLoss(_Loss):
    """``functional.multilabel_margin_loss``: scores (N, C) against labels, filled up with -1."""

    function = staticmethod(functional.multilabel_margin_loss)


class MultiLabelSoftMarginLoss(_WeightedLoss):
    """``functional.multilabel_soft_margin_loss``: logits (N, C) against probabilities."""

    function = staticmethod(functional.multilabel_soft_margin_loss)


class MarginRankingLoss(_Loss):
    """``functional.margin_ranking_loss``: two scores, and which is to be the larger one."""

    _shown = ("reduction", "margin")

    def __init__(self, margin: float = 0.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.margin = margin

    def forward(self, input1: Any, input2: Any, target: Any) -> Tensor:  # type: ignore[override]
        """The loss of two scores against ``target``, 1 or -1."""
        return functional.margin_ranking_loss(input1, input2, target, self.margin, self.reduction)


class PoissonNLLLoss(_Loss):
    """``functional.poisson_nll_loss``: expected counts, or their logarithms, against counts."""

    function = staticmethod(functional.poisson_nll_loss)
    _shown = ("reduction", "log_input", "full", "eps")

    def __init__(
        self,
        log_input: bool = True,
        full: bool = False,
        eps: float = 1e-8,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction)
        self.log_input, self.full, self.eps = log_input, full, eps


class GaussianNLLLoss(_Loss):
    """``functional.gaussian_nll_loss``: expected values and variances against numbers."""

    _shown = ("reduction", "full", "eps")

    def __init__(self, *, full: bool = False, eps: float = 1e-6, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.full, self.eps = full, eps

    def forward(self, input: Any, target: Any, var: Any) -> Tensor:  # type: ignore[override]
        """The loss of expected values ``input`` with variances ``var`` against ``target``."""
        return functional.gaussian_nll_loss(input, target, var, self.full, self.eps, self.reduction)


class CTCLoss(_Loss):
    """``functional.ctc_loss``: logarithms of probabilities (T, N, C) against labels (N, S)."""

    _shown = ("reduction", "blank", "zero_infinity")

    def __init__(
        self, blank: int = 0, reduction: str = "mean", zero_infinity: bool = False
    ) -> None:
        super().__init__(reduction)
        self.blank, self.zero_infinity = blank, zero_infinity

    def forward(  # type: ignore[override]
        self, log_probs: Any, targets: Any, input_lengths: Any, target_lengths: Any
    ) -> Tensor:
        """The loss of ``log_probs`` against ``targets``, of the given lengths."""
        return functional.ctc_loss(
            log_probs, targets, input_lengths, target_lengths,
            self.blank, self.reduction, self.zero_infinity,
        )  # fmt: skip


class TripletMarginWithDistanceLoss(_Loss):
    """``functional.triplet_margin_with_distance_loss``: as TripletMarginLoss, any distance."""

    _shown = ("reduction", "margin", "swap")

    def __init__(
        self,
        *,
        distance_function: Callable[[Any, Any], Any] | None = None,
        margin: float = 1.0,
        swap: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction)
        self.distance_function = distance_function
        self.margin, self.swap = margin, swap

    def forward(self, anchor: Any, positive: Any, negative: Any) -> Tensor:  # type: ignore[override]
        """The loss of an anchor, one like it and one unlike it."""
        return functional.triplet_margin_with_distance_loss(
            anchor,
            positive,
            negative,
            distance_function=self.distance_function,
            margin=self.margin,
            swap=self.swap,
            reduction=self.reduction,
        )


class PairwiseDistance(Module):
    """``functional.pairwise_distance`` of vectors along the last axis."""

    _shown: ClassVar[tuple[str, ...]] = ("p", "eps", "keepdims")

    def __init__(self, p: float = 2.0, eps: float = 1e-6, keepdims: bool = False) -> None:
        self.p, self.eps, self.keepdims = p, eps, keepdims

    def forward(self, x1: Any, x2: Any) -> Tensor:
        """The distances of the vectors of ``x1`` from those of ``x2``."""
        return functional.pairwise_distance(x1, x2, self.p, self.eps, self.keepdims)


class CosineSimilarity(Module):
    """``functional.cosine_similarity`` of vectors along ``axis``."""

    _shown: ClassVar[tuple[str, ...]] = ("axis", "eps")

    def __init__(self, axis: int = 1, eps: float = 1e-8) -> None:
        self.axis, self.eps = axis, eps

    def forward(self, x1: Any, x2: Any) -> Tensor:
        """The cosines of the angles between vectors."""
        return functional.cosine_similarity(x1, x2, self.axis, self.eps)
