"""The modules of functions with NumPy's own names and arguments, joined.

``np.f`` called on tensors is ``f`` here (``numpy_names``), which takes all that it is given.
"""

from typing import TYPE_CHECKING

from tensorgrad.ops import (
    choosing,
    complex_kinds,
    differences,
    editing,
    histograms,
    joining,
    nan_reductions,
    numpy_elementwise,
    places,
    polynomials,
    products,
    ranges,
    statistics,
    tapers,
)
from tensorgrad.ops.choosing import *
from tensorgrad.ops.complex_kinds import *
from tensorgrad.ops.differences import *
from tensorgrad.ops.editing import *
from tensorgrad.ops.histograms import *
from tensorgrad.ops.joining import *
from tensorgrad.ops.nan_reductions import *
from tensorgrad.ops.numpy_elementwise import *
from tensorgrad.ops.places import *
from tensorgrad.ops.polynomials import *
from tensorgrad.ops.products import *
from tensorgrad.ops.ranges import *
from tensorgrad.ops.statistics import *
from tensorgrad.ops.tapers import *

MODULES = (
    ranges,
    products,
    complex_kinds,
    choosing,
    differences,
    editing,
    histograms,
    joining,
    nan_reductions,
    numpy_elementwise,
    places,
    polynomials,
    statistics,
    tapers,
)

if not TYPE_CHECKING:  # mypy reads no sum of lists; it goes by the imports, which say the same
    __all__ = [name for module in MODULES for name in module.__all__]
