"""Linear algebra: the array API standard's extension, NumPy's functions, and some of SciPy's.

The functions take matrices and stacks of them, and give named tuples where NumPy's do.
"""

from typing import TYPE_CHECKING

from tensorgrad.errors import LinAlgError as LinAlgError
from tensorgrad.hints import unknown_names as _unknown_names
from tensorgrad.ops import (
    determinants,
    eigenvalues,
    factorizations,
    least_squares,
    linear_systems,
    low_rank,
    matrix_functions,
    spectra,
)
from tensorgrad.ops.determinants import *
from tensorgrad.ops.eigenvalues import *
from tensorgrad.ops.factorizations import *
from tensorgrad.ops.least_squares import *
from tensorgrad.ops.linear_algebra import kron as kron
from tensorgrad.ops.linear_algebra import matmul as matmul
from tensorgrad.ops.linear_algebra import tensordot as tensordot
from tensorgrad.ops.linear_algebra import vecdot as vecdot
from tensorgrad.ops.linear_systems import *
from tensorgrad.ops.low_rank import *
from tensorgrad.ops.matrix_functions import *
from tensorgrad.ops.shaping import matrix_transpose as matrix_transpose
from tensorgrad.ops.spectra import *

if not TYPE_CHECKING:  # mypy reads no sum of lists; it goes by the imports, which say the same
    __getattr__ = _unknown_names(__name__)
    __all__ = ["LinAlgError", "kron", "matmul", "matrix_transpose", "tensordot", "vecdot"]
    for _module in (
        determinants, eigenvalues, factorizations, least_squares, linear_systems, low_rank,
        matrix_functions, spectra,
    ):  # fmt: skip
        __all__ += _module.__all__
