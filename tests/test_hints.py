"""Errors for unknown names say what is written here."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import hints, nn
from tensorgrad.hints import UnknownNameError

X = tg.ones((2, 3))
#: What is asked of what, and what the error says to write.
ASKED = [
    # PyTorch's
    (tg, "randn", "write tg.random.normal(shape)"),
    (tg, "rand", "tg.random.uniform(shape)"),
    (tg, "randperm", "tg.random.permutation(n)"),
    (tg, "mm", "tg.matmul, or x @ y"),
    (tg, "svd", "did you mean tg.linalg.svd?"),
    (tg, "stft", "tg.signal.stft"),
    (tg, "erfc", "tg.special.erfc"),
    (tg, "conv2d", "tg.nn.functional.conv2d"),
    (tg, "save", "save_safetensors"),
    (tg.autograd, "Function", "tg.autograd.custom_operation"),
    (nn.utils, "clip_grad_norm_", "tg.optim.clip_grad_norm_"),
    (nn, "LazyLinear", "tg.nn.Linear"),
    (tg.data, "IterableDataset", "any iterable"),
    (X, "view", "x.reshape(shape)"),
    (X, "numel", "x.size"),
    (X, "expand", "x.broadcast_to(shape)"),
    (X, "masked_fill", "tg.where(mask, value, x)"),
    (X, "det", "did you mean tg.linalg.det(x)?"),
    (X, "add_", "as in x += y"),
    (X, "mul_", "as in x += y"),
    (X, "clip_", "x.copy_(x.clip(...))"),
    (X, "normal_", "tg.nn.init.normal_(x)"),
    (X, "t", "x.T"),
    # those of NumPy, JAX, Keras
    (tg, "ndarray", "tg.Tensor"),
    (tg, "nditer", "np.nditer"),
    (tg.random, "default_rng", "tg.Generator(seed)"),
    (X, "strides", "x.numpy().strides"),
    (tg, "jit", "tg.compile"),
    (tg, "value_and_grad", "tg.autograd.grad(y, x)"),
    (X, "block_until_ready", "leave it out"),
    (nn, "Dense", "tg.nn.Linear(inputs, outputs)"),
    (nn, "Conv2D", "did you mean 'Conv2d'?"),
    (nn, "GlobalAveragePooling2D", "tg.nn.AdaptiveAvgPool2d(1)"),
    (tg, "reduce_sum", "tg.sum"),
    (tg, "keras", "tg.training.Trainer to fit a model"),
    (tg, "jax", "tg.compile for jax.jit"),
    # misspelt
    (tg, "zerros", "did you mean 'zeros'?"),
    (tg.linalg, "eihg", "'eigh'"),
    (tg.fft, "ftt", "'fft'"),
    (tg.special, "digama", "'digamma'"),
    (tg.optim, "Adamw", "did you mean 'AdamW'?"),
    (tg.training, "Earlystopping", "did you mean 'EarlyStopping'?"),
    (nn, "relu", "did you mean 'ReLU' or tg.relu?"),
    (nn.functional, "crossentropy", "'cross_entropy'"),
    (nn.functional, "ReLU", "did you mean 'relu' or tg.nn.ReLU?"),
    (nn.init, "xavier_unifrom_", "'xavier_uniform_'"),
    (nn.models, "Bert", "'BERT'"),
    (X, "reshpae", "did you mean 'reshape'"),
]  # fmt: skip


@pytest.mark.parametrize(("of", "name", "hint"), ASKED, ids=lambda x: x if type(x) is str else "")
def test_what_is_written_here(of: Any, name: str, hint: str) -> None:
    """After what there is not."""
    with pytest.raises(AttributeError, match=f"has no attribute '{name}'; ") as caught:
        getattr(of, name)
    assert hint in str(caught.value)
    assert not hasattr(of, name)


def test_what_nobody_knows() -> None:
    """Has no hint; nor have names that begin with an underscore."""
    for of, name in ((tg, "qwertzuiop"), (X, "__array_struct__"), (nn, "_Linear")):
        with pytest.raises(AttributeError, match=f"has no attribute '{name}'$"):
            getattr(of, name)


def written() -> list[str]:
    """All that hints tell to write."""
    return [*hints._OF_TENSORS.values(), *hints._OF_MODULES.values()]


def test_hints_name_what_there_is() -> None:
    """Each ``tg.a.b`` and ``x.a`` of them."""
    checked = 0
    for text in written():
        for path in re.findall(r"\b(tg(?:\.\w+)+|np\.\w+|x(?:\.[a-zA-Z]\w*)+)", text):
            found: Any = {"tg": tg, "x": X, "np": np}[path.split(".")[0]]
            for part in path.split(".")[1:]:
                found = getattr(found, part)
            checked += 1
    assert checked > 100


def test_tables_hold_what_there_is_not() -> None:
    """A name that is there needs no hint, and would get none."""
    for name in hints._OF_TENSORS:
        assert not hasattr(tg.Tensor, name), name
    for name in hints._OF_MODULES:
        found = getattr(tg, name, None)
        assert found is None or isinstance(found, ModuleType), name


def test_places_are_written_as_they_are() -> None:
    """And each says of itself what is not there."""
    for module, path in hints._PLACES.items():
        found: Any = tg
        for part in path.split(".")[1:]:
            found = getattr(found, part)
        assert inspect.ismodule(found)
        assert found.__name__ == module


def test_nothing_is_looked_up_before_the_error_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking whether there is a name stays quick."""
    monkeypatch.setattr(hints, "_hint", None)
    assert not hasattr(X, "numel")
    assert getattr(tg, "randn", 3) == 3
    with pytest.raises(TypeError):
        str(UnknownNameError("tensorgrad", "randn"))


def test_errors_are_copied() -> None:
    """As processes send them to one another."""
    error = UnknownNameError(tg.Tensor, "numel")
    for other in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert str(other) == str(error) == "Tensor has no attribute 'numel'; write x.size"


def test_compiled_functions_say_the_same() -> None:
    """When what they do is found out."""
    step = tg.compile(lambda x: x.numel() * x)
    with pytest.raises(AttributeError, match=r"'numel'; write x\.size"):
        step(X)
