"""Which Python code is not followed: the engine, whose reads are guarded by other means."""

from __future__ import annotations

import functools
import types
from typing import Any

from tensorgrad.program.bytecode.opcodes import words

_ENGINE = (
    "tensorgrad.tape", "tensorgrad.backward", "tensorgrad.tensor", "tensorgrad.ops",
    "tensorgrad.observers", "tensorgrad.versions", "tensorgrad.turns", "tensorgrad.backend",
    "tensorgrad.dtypes", "tensorgrad.autograd", "tensorgrad.nn", "tensorgrad.program",
    "tensorgrad.errors", "tensorgrad.files", "tensorgrad.hints", "tensorgrad.optim.optimizer",
    "tensorgrad.optim.update", "tensorgrad.optim.sgd", "tensorgrad.optim.adam",
    "tensorgrad.optim.adaptive", "tensorgrad.optim.adam_variants", "tensorgrad.optim.layerwise",
    "tensorgrad.optim.clip", "tensorgrad.optim.average", "tensorgrad.profiler",
    "tensorgrad.optim.sparse_adam", "tensorgrad.sparse",
)  # fmt: skip
#: Packages whose Python code is not followed: what they do to a step is known, or nothing.
_SKIPPED = frozenset(
    words(
        "numpy ml_dtypes cupy cupyx importlib _frozen_importlib _frozen_importlib_external "
        "logging warnings linecache traceback re sre_compile sre_parse sre_constants tokenize "
        "codecs encodings"
    )
)


@functools.lru_cache(4096)
def is_engine(name: str) -> bool:
    """Whether the code of a module of this name is not followed.

    Of this package that is the engine: what it reads is guarded by ``guards.py``. Schedules, data
    and the trainer are code like any other.
    """
    top = name.partition(".")[0]
    if top == "tensorgrad":
        return name == top or any(name == e or name.startswith(e + ".") for e in _ENGINE)
    return top in _SKIPPED


def ours(thing: Any) -> bool:
    """Whether a function or a class belongs to the engine, or to what is not followed like it.

    A function belongs where its globals do: ``functools.wraps`` copies the name of a module.
    """
    if isinstance(thing, types.FunctionType):
        return is_engine(str(thing.__globals__.get("__name__", "")))
    return is_engine(str(getattr(thing, "__module__", "")))


def is_of_ours(thing: Any) -> bool:
    """Whether an object is of a class of the engine's, or of one derived from it."""
    return any(ours(base) for base in type(thing).__mro__)
