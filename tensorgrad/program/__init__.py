"""Functions that become programs."""

from tensorgrad.program.compiled import Compiled, compile  # noqa: A004 (PyTorch's name)
from tensorgrad.program.eager import get_eager, set_eager
from tensorgrad.program.fused import Fused, fuse
from tensorgrad.program.ir import Instruction, Program, Value

__all__ = [
    "Compiled", "Fused", "Instruction", "Program", "Value", "compile", "fuse", "get_eager",
    "set_eager",
]  # fmt: skip
