"""The operations: one row of the table each (table.py), grouped by kind.

In the order in which to read them: complex_parts, elementwise, activations, shaping, padding,
indexing, sorting, linear_algebra, reductions, scans, creation, inspection, random.
"""

from typing import TYPE_CHECKING

from tensorgrad.ops import (
    accumulate,
    activations,
    complex_numbers,
    complex_parts,
    contractions,
    creation,
    elementwise,
    indexing,
    inspection,
    linear_algebra,
    losses,  # noqa: F401 (its rows, which have a namespace of their own)
    normalization,
    numpy_modules,
    padding,
    reductions,
    scans,
    scattering,
    set_functions,
    shaping,
    sign_bits,
    sorting,
    table,
)
from tensorgrad.ops import random as random
from tensorgrad.ops.accumulate import *
from tensorgrad.ops.activations import *
from tensorgrad.ops.complex_numbers import *
from tensorgrad.ops.complex_parts import *
from tensorgrad.ops.contractions import *
from tensorgrad.ops.creation import *
from tensorgrad.ops.elementwise import *
from tensorgrad.ops.indexing import *
from tensorgrad.ops.indexing import assign_at  # noqa: F401 (here, and not in tensorgrad itself)
from tensorgrad.ops.inspection import *
from tensorgrad.ops.linear_algebra import *
from tensorgrad.ops.normalization import *
from tensorgrad.ops.numpy_modules import *
from tensorgrad.ops.padding import *
from tensorgrad.ops.random import Generator as Generator
from tensorgrad.ops.random import bernoulli as bernoulli
from tensorgrad.ops.random import dropout as dropout
from tensorgrad.ops.reductions import *
from tensorgrad.ops.scans import *
from tensorgrad.ops.scattering import *
from tensorgrad.ops.set_functions import *
from tensorgrad.ops.shaping import *
from tensorgrad.ops.sign_bits import *
from tensorgrad.ops.sorting import *
from tensorgrad.ops.transfer import to_device  # noqa: F401 (as assign_at)

if not TYPE_CHECKING:  # mypy reads no sum of lists; it goes by the imports, which say the same
    __all__ = ["Generator", "bernoulli", "dropout", "random"]
    for _module in (
        accumulate, activations, complex_numbers, complex_parts, contractions, creation,
        elementwise, indexing, inspection, linear_algebra, normalization, numpy_modules, padding,
        reductions, scans, scattering, set_functions, shaping, sign_bits, sorting,
    ):  # fmt: skip
        __all__ += _module.__all__

    table.enter_aliases({name: globals()[name] for name in __all__})
