"""Which dtype every operation and every loss has inside ``autocast``, eager and in a program."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sampler import Call, draw, outputs

import tensorgrad as tg
from tensorgrad import Tensor
from tensorgrad.nn import functional as F  # noqa: N812
from tensorgrad.observers import MODE, Observer, current_mode
from tensorgrad.ops.table import OPERATIONS, Operation

#: what is documented: products, and what consists of them, in 16 bits
PRODUCTS = {
    "matmul",
    "linear",
    "linear_activation",
    "dot",
    "einsum",
    "tensordot",
    "scaled_dot_product_attention",
    "multi_head_attention_forward",
}
PRODUCTS |= {"bilinear", "rnn", "lstm", "gru"}
PRODUCTS |= {f"conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3)}
#: losses, similarities and softmax in float32; losses are those of ``nn.functional``
IN_FLOAT32 = {"softmax", "log_softmax", "softmin", "gumbel_softmax"}

ROWS = [row for row in OPERATIONS.values() if row.gradient and row.cases]
V = [[0.25, -2.0, 0.5, 1.5], [-3.0, 1.25, 4.0, 0.75], [1.0, 2.0, -0.5, 0.0]]
LABELS, SIGNS = [1, 0, 3], [1, -1, 1]
#: a call for each loss, by the tensor of numbers
LOSSES: dict[str, Any] = {
    "binary_cross_entropy": lambda v: (tg.sigmoid(v), tg.sigmoid(v)),
    "binary_cross_entropy_with_logits": lambda v: (v, tg.sigmoid(v)),
    "cdist": lambda v: (v, v + 1.0),
    "cosine_embedding_loss": lambda v: (v, v + 1.0, Tensor(SIGNS)),
    "cosine_similarity": lambda v: (v, v + 1.0),
    "cross_entropy": lambda v: (v, Tensor(LABELS)),
    "linear_cross_entropy": lambda v: (v, tg.eye(4, dtype=v.dtype), Tensor(LABELS)),
    "ctc_loss": lambda v: (v, Tensor([1, 3]), Tensor(3), Tensor(2)),
    "gaussian_nll_loss": lambda v: (v, v + 1.0, tg.abs(v) + 0.5),
    "hinge_embedding_loss": lambda v: (v, tg.sign(v)),
    "huber_loss": lambda v: (v, v + 1.0),
    "kl_div": lambda v: (v, tg.sigmoid(v)),
    "l1_loss": lambda v: (v, v + 1.0),
    "margin_ranking_loss": lambda v: (v, v[:, ::-1], tg.sign(v)),
    "mse_loss": lambda v: (v, v + 1.0),
    "multi_margin_loss": lambda v: (v, Tensor(LABELS)),
    "multilabel_margin_loss": lambda v: (v, Tensor([[1, -1, 0, 0], [0, 2, -1, 1], [3, 2, 1, 0]])),
    "multilabel_soft_margin_loss": lambda v: (v, tg.sigmoid(v)),
    "nll_loss": lambda v: (v, Tensor(LABELS)),
    "pairwise_distance": lambda v: (v, v + 1.0),
    "pdist": lambda v: (v,),
    "poisson_nll_loss": lambda v: (v, tg.abs(v)),
    "sigmoid_focal_loss": lambda v: (v, tg.sigmoid(v)),
    "smooth_l1_loss": lambda v: (v, v + 1.0),
    "soft_margin_loss": lambda v: (v, tg.sign(v)),
    "triplet_margin_loss": lambda v: (v, v + 1.0, v - 1.0),
    "triplet_margin_with_distance_loss": lambda v: (v, v + 1.0, v - 1.0),
}


def dtypes_of(result: Any) -> list[str]:
    return [str(x.dtype) for x in outputs(result) if isinstance(x, Tensor)]


class _Products(Observer):
    def __init__(self) -> None:
        self.count = 0

    def computed(self, op: Any, inputs: Any, attrs: Any, out: Tensor) -> None:
        self.count += op.autocast == "half"


def products_in(row: Operation, call: Call) -> int:
    """How many matrix products the call consists of."""
    seen = _Products()
    token = MODE.set(current_mode()._replace(observers=(seen,)))
    try:
        call.of(row.function)
    finally:
        MODE.reset(token)
    return seen.count


@pytest.mark.parametrize("given", ["float32", "float16"])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_operations(row: Operation, given: str) -> None:
    """The result as documented, and gradients with the dtype of what they are gradients of."""
    some = 0
    for number in range(len(row.cases)):
        call, leaves = draw(row, number).tensors(dtype=given, requires_grad=True)
        plain, products = dtypes_of(call.of(row.function)), products_in(row, call)
        with tg.autocast("float16"):
            result = call.of(row.function)
        found = dtypes_of(result)
        for y in outputs(result):
            if isinstance(y, Tensor) and y.requires_grad:
                y.backward(tg.ones_like(y), retain_graph=True)
        assert {str(x.grad.dtype) for x in leaves if x.grad is not None} <= {given}
        kind = given
        if products:
            kind = "float16"
        elif row.name in IN_FLOAT32 or row.name in LOSSES:
            kind = "float32"
        assert found == [kind if x == given else x for x in plain], number
        some += products
    assert (row.name in PRODUCTS) == (some > 0)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_operations_in_programs(row: Operation) -> None:
    call = draw(row, 0)
    given = [
        Tensor(a, dtype="float32" if a.dtype == np.float64 else None)
        for a in call.arrays(floats=False)
    ]

    def run(*tensors: Tensor) -> list[Tensor]:
        following = iter(tensors)
        with tg.autocast("float16"):
            result = call.map(lambda _: next(following), floats=False).of(row.function)
        return [x for x in outputs(result) if isinstance(x, Tensor)]

    compiled, wanted = tg.compile(run, executor="numpy"), run(*given)
    for _ in range(2):
        for x, y in zip(compiled(*given), wanted, strict=True):
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x.numpy(), y.numpy())


def test_all_losses_are_tried() -> None:
    ends = ("_loss", "_div", "similarity", "dist", "_distance")
    losses = {n for n in vars(F)["__all__"] if n.endswith(ends) or "cross_entropy" in n}
    assert losses == set(LOSSES)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_float32(name: str, dtype: str, compiled: bool) -> None:
    """Computed in float32 from 16-bit outputs; the gradient arrives with their dtype."""

    def loss(v: Tensor) -> Any:
        with tg.autocast(dtype):
            found = getattr(F, name)(*LOSSES[name](v)).sum()
        found.backward()
        return found

    v = Tensor(V, dtype=dtype, requires_grad=True)
    f = tg.compile(loss) if compiled else loss
    for _ in range(2 if compiled else 1):
        v.grad = None
        found = f(v)
        assert str(found.dtype) == "float32"
        assert v.grad is not None
        assert str(v.grad.dtype) == dtype
    arguments = LOSSES[name](v.detach())
    wide = [x.float().double() if x.dtype == v.dtype else x for x in arguments]
    double = getattr(F, name)(*wide).sum()
    assert float(found.item()) == pytest.approx(float(double.item()), rel=1e-5)
