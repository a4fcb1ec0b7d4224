"""What layers refuse is said in the words of what was called; what they lack is shown."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import nn


def ones(*shape: int) -> tg.Tensor:
    """A tensor of ones."""
    return tg.ones(shape)


WRONG: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "places outside": (
        lambda: nn.functional.max_unpool2d(ones(1, 1, 2, 2), tg.tensor([[[[99, 2], [3, 4]]]]), 2),
        IndexError, "^max_unpool2d: indices are places in the 16 elem.* index 99 .*output_size",
    ),
    "places as floats": (
        lambda: nn.functional.max_unpool1d(ones(1, 1, 2), ones(1, 1, 2), 2),
        TypeError, "^max_unpool1d: indices must be integers, .*return_indices=True.*; got float32",
    ),
    "negative classes": (
        lambda: nn.functional.one_hot(tg.tensor([-5])),
        IndexError, "^one_hot: index -5 is negative",
    ),
    "rows outside": (
        lambda: nn.Embedding(5, 3)(tg.tensor([5])),
        IndexError, "^embedding: numbers must be below 5, the rows of the weight; .*index 5",
    ),
    "rows outside, with padding": (
        lambda: nn.Embedding(5, 3, padding_idx=0)(tg.tensor([7])),
        IndexError, "^embedding: numbers must be below 5, .*index 7",
    ),
    "labels outside": (
        lambda: nn.functional.multi_margin_loss(ones(2, 3), tg.tensor([3, 1])),
        IndexError, "^multi_margin_loss: a label must lie between 0 and 2, .*index 3",
    ),
    "labels outside, of many": (
        lambda: nn.functional.multilabel_margin_loss(ones(1, 3), tg.tensor([[3, -1, 0]])),
        IndexError, "^multilabel_margin_loss: a label must lie between 0 and 2, .*index 3",
    ),
    "counts": (
        lambda: nn.functional.poisson_nll_loss(ones(2, 3), ones(2, 4)),
        ValueError, r"^poisson_nll_loss: input and target must broadcast.*\(2, 3\) and \(2, 4\)",
    ),
    "a state that is no pair": (
        lambda: nn.LSTMCell(4, 5)(ones(2, 4), ones(2, 5)),
        TypeError, r"^LSTMCell: the state must be a pair of tensors, \(h, c\); got Tensor",
    ),
    "a state of three": (
        lambda: nn.LSTMCell(4, 5)(ones(2, 4), (ones(2, 5),) * 3),
        TypeError, "^LSTMCell: the state must be a pair of tensors.*; got 3 of them",
    ),
    "a pair for a GRU": (
        lambda: nn.GRUCell(4, 5)(ones(2, 4), (ones(2, 5),) * 2),
        TypeError, "^GRUCell: the state must be a tensor; got tuple",
    ),
    "not packed": (
        lambda: nn.utils.rnn.pad_packed_sequence(ones(3, 2)),  # type: ignore[arg-type]
        TypeError, "^pad_packed_sequence: the sequences must be packed.*; got Tensor",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_refusal_names_the_function(name: str) -> None:
    """And what must hold, and what came."""
    call, kind, words = WRONG[name]
    with pytest.raises(kind, match=words):
        call()


def test_group_norm_without_a_bias() -> None:
    """A weight alone, as in the other norms."""
    norm = nn.GroupNorm(2, 4, bias=False)
    assert list(norm.state_dict()) == ["weight"]
    x = tg.Tensor(np.random.default_rng(0).standard_normal((3, 4, 5)), dtype=tg.float32)
    assert np.array_equal(norm(x).detach().numpy(), nn.GroupNorm(2, 4)(x).detach().numpy())
    assert not list(nn.GroupNorm(2, 4, affine=False, bias=True).parameters())


def test_the_rows_of_a_tensor_are_sequences() -> None:
    """As for PyTorch."""
    x = tg.Tensor(np.arange(6.0).reshape(3, 2), requires_grad=True)
    y = nn.utils.rnn.pad_sequence(x, batch_first=True)
    y.sum().backward()
    assert np.array_equal(y.detach().numpy(), x.detach().numpy())
    assert x.grad is not None


def test_integers_are_pooled_in_drawn_windows() -> None:
    """Places are drawn as floats, whatever is pooled."""
    x = tg.Tensor(np.arange(16).reshape(1, 1, 4, 4))
    tg.manual_seed(0)
    y = nn.functional.fractional_max_pool2d(x, 2, output_size=2)
    tg.manual_seed(0)
    assert y.dtype == x.dtype
    assert np.array_equal(
        y.numpy(),
        nn.functional.fractional_max_pool2d(x.astype(tg.float32), 2, output_size=2).numpy(),
    )


def test_norms_show_what_they_lack() -> None:
    """A norm without a weight or a bias does not look like one that has both."""
    assert repr(nn.LayerNorm(3)) == "LayerNorm(normalized_shape=(3,), eps=1e-05)"
    assert repr(nn.LayerNorm(3, bias=False)).endswith("eps=1e-05, bias=False)")
    bare = nn.LayerNorm(3, elementwise_affine=False)
    assert repr(bare).endswith("eps=1e-05, elementwise_affine=False)")
    assert not bare.elementwise_affine
    assert repr(nn.RMSNorm(3, elementwise_affine=False)).endswith(", elementwise_affine=False)")
    assert repr(nn.GroupNorm(2, 4)) == "GroupNorm(num_groups=2, num_channels=4, eps=1e-05)"
    assert repr(nn.GroupNorm(2, 4, affine=False)).endswith("eps=1e-05, affine=False)")
    assert repr(nn.BatchNorm2d(3, bias=False)).endswith("track_running_stats=True, bias=False)")
    assert repr(nn.InstanceNorm1d(3)).count("affine=False") == 1
