"""Special functions, under SciPy's names and PyTorch's: of errors, gammas, Bessel and others.

All have gradients of every order in each argument in which there is one, are computed in float64
and rounded once, and need nothing but NumPy. Loaded when ``tensorgrad.special`` is first named.
"""

from typing import TYPE_CHECKING

from tensorgrad.hints import unknown_names as _unknown_names
from tensorgrad.ops import (
    bessel_functions,
    entropies,
    error_functions,
    gamma_functions,
    incomplete_gamma,
    orthogonal_polynomials,
    table,
)
from tensorgrad.ops.activations import log_softmax as log_softmax
from tensorgrad.ops.activations import softmax as softmax
from tensorgrad.ops.bessel_functions import *
from tensorgrad.ops.elementwise import erf as erf
from tensorgrad.ops.elementwise import exp2 as exp2
from tensorgrad.ops.elementwise import expm1 as expm1
from tensorgrad.ops.elementwise import log1p as log1p
from tensorgrad.ops.elementwise import round as round
from tensorgrad.ops.elementwise import sigmoid as expit
from tensorgrad.ops.entropies import *
from tensorgrad.ops.error_functions import *
from tensorgrad.ops.gamma_functions import *
from tensorgrad.ops.incomplete_gamma import *
from tensorgrad.ops.orthogonal_polynomials import *
from tensorgrad.ops.reductions import logsumexp as logsumexp

if not TYPE_CHECKING:  # mypy reads no sum of lists; it goes by the imports, which say the same
    __getattr__ = _unknown_names(__name__)
    __all__ = ["erf", "exp2", "expit", "expm1", "log1p", "log_softmax", "logsumexp"]
    __all__ += ["round", "softmax"]
    for _module in (
        bessel_functions, entropies, error_functions, gamma_functions, incomplete_gamma,
        orthogonal_polynomials,
    ):  # fmt: skip
        __all__ += _module.__all__
        table.enter_aliases({name: globals()[name] for name in _module.__all__})
