"""What runs a program: NumPy (always there), C, CUDA. Another one is a file and a line here."""

from tensorgrad.errors import CompileError
from tensorgrad.program.executors.base import Executor, UnavailableError
from tensorgrad.program.executors.cuda import CudaExecutor
from tensorgrad.program.executors.native import NativeExecutor
from tensorgrad.program.executors.numpy import NumpyExecutor
from tensorgrad.program.ir import Program

#: What runs every program, call by call: others are compared with it.
REFERENCE = NumpyExecutor
#: All of them by name, the best first.
EXECUTORS: dict[str, type[Executor]] = {
    kind.name: kind for kind in (CudaExecutor, NativeExecutor, REFERENCE)
}


def executor_of(program: Program, wanted: str = "auto") -> Executor:
    """The best executor for a program that can be had, from the one that is wanted on.

    wanted: a name, or "auto"; one that is not for the program's device stands for the best.

    Raises CompileError if that one cannot work on this machine at all.
    """
    names = [name for name, kind in EXECUTORS.items() if kind.fits(program.on_host)]
    if wanted in names:
        names = names[names.index(wanted) :]
    reason = ""
    for name in names:
        kind = EXECUTORS[name]
        try:
            made = kind(program)
        except kind.failures as error:
            if name == wanted and isinstance(error, UnavailableError):
                raise
            known = isinstance(error, CompileError)
            reason = str(error) if known else f"{type(error).__name__}: {error}"
            continue
        made.reason = made.reason or reason
        return made
    raise AssertionError(f"{names} run no program")
