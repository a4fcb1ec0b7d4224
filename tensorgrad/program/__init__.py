"""Functions that become programs."""

from tensorgrad.program.compiled import Compiled, compile
from tensorgrad.program.program import Instruction, Program, Value

__all__ = ["Compiled", "Instruction", "Program", "Value", "compile"]
