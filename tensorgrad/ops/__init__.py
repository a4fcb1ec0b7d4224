"""The operations: one row of the table each (table.py), grouped by kind."""

from tensorgrad.ops import elementwise as _e, activations as _a
from tensorgrad.ops.elementwise import *
from tensorgrad.ops.activations import *
from tensorgrad.ops.reductions import *
from tensorgrad.ops.shaping import *
