"""The operations: one row of the table each (table.py), grouped by kind."""

from tensorgrad.ops.elementwise import *
from tensorgrad.ops.activations import *
from tensorgrad.ops.reductions import *
from tensorgrad.ops.shaping import *
try:
    from tensorgrad.ops.padding import *
    from tensorgrad.ops.linear_algebra import *
    from tensorgrad.ops.indexing import *
    from tensorgrad.ops.creation import *
    from tensorgrad.ops.random import *
    from tensorgrad.ops import random
except ImportError as e: print("not yet", e)
