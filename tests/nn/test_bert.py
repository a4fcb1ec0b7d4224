"""BERT: what it promises besides PyTorch's figures in training (test_models.py)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.errors import ShapeError
from tensorgrad.nn import models


def small(**options: Any) -> models.BERT:
    """Two blocks of eight features."""
    return models.BERT(11, 8, 2, 2, 16, max_position_embeddings=6, **options).eval()


def numbers(*shape: int) -> tg.Tensor:
    return tg.tensor(np.random.default_rng(0).integers(0, 11, shape))


def test_what_is_masked_is_not_seen() -> None:
    """A text gives the same beside longer ones, whatever fills it up."""
    model = small()
    short = numbers(2, 3)
    wanted = model(short).detach().numpy()
    mask = tg.tensor([[1, 1, 1, 0, 0]] * 2)
    for filling in (0, 7):
        longer = tg.concat([short, tg.full((2, 2), filling, dtype=short.dtype)], axis=1)
        for given in (mask, mask.to(tg.bool), mask.to(tg.float32)):
            found = model(longer, given).detach().numpy()
            np.testing.assert_allclose(found[:, :3], wanted, rtol=1e-5, atol=1e-6)
    assert not np.allclose(model(longer).detach().numpy()[:, :3], wanted, atol=1e-3)


def test_kinds_of_tokens_and_places_count() -> None:
    """None stands for the first kind."""
    model = small()
    nn.init.normal_(model.embeddings.token_type_embeddings.weight)
    tokens = numbers(1, 1)
    zeros, ones = tg.zeros((1, 4), dtype=tg.int64), tg.ones((1, 4), dtype=tg.int64)
    same = tokens + zeros
    first = model(same).detach().numpy()
    np.testing.assert_allclose(model(same, None, zeros).detach().numpy(), first, atol=1e-6)
    assert not np.allclose(model(same, None, ones).detach().numpy(), first, atol=1e-3)
    assert not np.allclose(first[0, 0], first[0, 1], atol=1e-3)


def test_a_text_has_the_features_of_its_first_token() -> None:
    """Through a layer and tanh."""
    model = small()
    features = model(numbers(3, 4))
    dense = model.pooler.dense
    wanted = tg.tanh(features[:, 0] @ dense.weight.mT + dense.bias)
    np.testing.assert_allclose(model.pool(features).detach(), wanted.detach(), atol=1e-6)


def test_initial_values_and_number_of_parameters() -> None:
    """Deviation 0.02, biases 0, norms 1."""
    model = small()
    own = sum(p.size for p in model.parameters())
    width, layers, inner = 8, 2, 16
    wanted = (11 + 6 + 2 + 2) * width  # embeddings and their norm
    wanted += layers * (4 * (width + 1) * width + 2 * width * inner + inner + width + 4 * width)
    assert own == wanted + (width + 1) * width
    for name, p in small(generator=tg.Generator(0)).named_parameters():
        value = p.detach().numpy()
        if p.ndim == 2:
            assert value.std() == pytest.approx(0.02, rel=0.4)
        else:
            np.testing.assert_array_equal(value, name.endswith("LayerNorm.weight"))


def test_dropout_is_of_training_alone() -> None:
    """Everywhere."""
    model = small(dropout=0.5)
    tokens = numbers(2, 4)
    one, two = model(tokens).detach().numpy(), model(tokens).detach().numpy()
    np.testing.assert_array_equal(one, two)
    model.train()
    assert not np.allclose(model(tokens).detach().numpy(), model(tokens).detach().numpy())


def test_bert_refuses_what_it_cannot_do() -> None:
    """With what must hold."""
    model = small()
    with pytest.raises(ShapeError, match="7 tokens are more than max_position_embeddings=6"):
        model(numbers(1, 7))
    with pytest.raises(ShapeError, match=r"attention_mask must have the shape .* \(2, 4\)"):
        model(numbers(2, 4), tg.ones((4,)))
    with pytest.raises(ShapeError, match="token_type_ids must have the shape"):
        model(numbers(2, 4), None, numbers(2, 3))
    with pytest.raises(ValueError, match="must divide hidden_size, got 3 and 8"):
        models.BERT(11, 8, num_attention_heads=3)
    with pytest.raises(ValueError, match="num_hidden_layers"):
        models.BERT(11, 8, num_hidden_layers=0)
