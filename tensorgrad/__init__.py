"""tensorgrad: tensors with gradients over NumPy on the CPU and CuPy on NVIDIA GPUs.

``import tensorgrad as tg``. The functions follow the Python array API standard's names, with
NumPy's beside them; training (``tg.nn``, ``tg.optim``, ``backward()``) follows PyTorch's.
"""

from __future__ import annotations

import builtins
import importlib
import math
import os
from typing import TYPE_CHECKING, Any

from tensorgrad import autograd as autograd
from tensorgrad import backend, dtypes, einops_backend, ops
from tensorgrad.autograd import enable_grad as enable_grad
from tensorgrad.autograd import is_grad_enabled as is_grad_enabled
from tensorgrad.autograd import no_grad as no_grad
from tensorgrad.backend import *
from tensorgrad.dtypes import *
from tensorgrad.hints import UnknownNameError
from tensorgrad.ops import *
from tensorgrad.ops.inspection import __array_namespace_info__ as __array_namespace_info__
from tensorgrad.tensor import Tensor as Tensor

__version__ = "0.1.0"
#: of the array API standard
__array_api_version__ = "2025.12"

e = math.e
pi = math.pi
inf = math.inf
nan = math.nan
newaxis = None


def tensor(
    data: Any, dtype: Any = None, device: str | None = None, requires_grad: builtins.bool = False
) -> Tensor:
    """A new tensor with a copy of ``data``; the same as ``Tensor(...)``."""
    return Tensor(data, dtype, device, requires_grad)


array = tensor


def manual_seed(seed: int) -> None:
    """Start the default random generator anew from ``seed``, an integer from 0 to 2**64 - 1."""
    random.seed(seed)


if TYPE_CHECKING:
    from tensorgrad import amp as amp
    from tensorgrad import data as data
    from tensorgrad import fft as fft
    from tensorgrad import linalg as linalg
    from tensorgrad import nn as nn
    from tensorgrad import optim as optim
    from tensorgrad import profiler as profiler
    from tensorgrad import program as program
    from tensorgrad import signal as signal
    from tensorgrad import special as special
    from tensorgrad import training as training
    from tensorgrad import viz as viz
    from tensorgrad.amp import autocast as autocast
    from tensorgrad.profiler import profile as profile
    from tensorgrad.program import compile as compile
    from tensorgrad.program import fuse as fuse
    from tensorgrad.program import get_eager as get_eager
    from tensorgrad.program import set_eager as set_eager
else:  # mypy reads no sum of lists; it goes by the imports, which say the same
    #: Loaded when first named: importing tensorgrad stays as quick as importing NumPy.
    _MODULES = (
        "amp", "data", "fft", "linalg", "nn", "optim", "profiler", "program", "signal", "special",
        "training", "viz",
    )  # fmt: skip
    _OF = {
        "autocast": "amp",
        "compile": "program",
        "fuse": "program",
        "get_eager": "program",
        "profile": "profiler",
        "set_eager": "program",
    }

    __all__ = [
        "Tensor",
        "array",
        "autograd",
        "e",
        "enable_grad",
        "inf",
        "is_grad_enabled",
        "manual_seed",
    ]
    __all__ += ["nan", "newaxis", "no_grad", "pi", "tensor", *_MODULES, *_OF]
    __all__ += backend.__all__ + dtypes.__all__ + ops.__all__

    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            return importlib.import_module(f"tensorgrad.{name}")
        if name in _OF:
            return getattr(importlib.import_module(f"tensorgrad.{_OF[name]}"), name)
        raise UnknownNameError(__name__, name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


einops_backend.watch()
if os.environ.get("TENSORGRAD_EAGER", "numpy") != "numpy":
    importlib.import_module("tensorgrad.program.eager").set_eager(os.environ["TENSORGRAD_EAGER"])
