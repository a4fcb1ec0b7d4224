"""How many bytes each memory-bound kernel moves, against the fewest that it must.

    python tests/kernels/traffic.py [--dtype float32 ...] [--arch 90] [part of a case's name]

The cases are those whose bandwidth ``python -m bench.gpu`` measures. They run on the emulator,
which counts the bytes that kernels read and write, on arrays and grids that are smaller by the same
factor, so that partial sums, of which each block leaves some, weigh as much. Beside that stand the
registers and spills of the case's kernels and the packed loads and stores of their PTX, where NVRTC
is there.

What CuPy does besides (a sort, zeros) is not counted, nor is what another pass reads again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

TESTS = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

from emulator import emulator  # noqa: E402
from standin import cupy_standin  # noqa: E402

from bench.gpu import stage_bandwidth  # noqa: E402
from kernels import compile_all  # noqa: E402
from tensorgrad.backend import kernels  # noqa: E402
from tensorgrad.backend.launch import common, normalization, rows  # noqa: E402

#: elements, and by which factor that is less than on a GPU
N = 1 << 18
SCALE = stage_bandwidth.ELEMENTS // N
#: beginnings of names. A part of these is done by CuPy or by products; pools read neighbours again,
#: from the cache; rows that no block holds are read twice by design; of float32
#: heads with many features a block has fewer queries than there are
OTHERS = (
    "permutation", "linear", "lstm", "gru", "max_pool", "avg_pool", "layer_norm 16384",
    "rms_norm 16384", "softmax of", "log_softmax of", "attention 128", "conv2d",
)  # fmt: skip
NAMES = tuple(name for name in stage_bandwidth.NAMES if not name.startswith(OTHERS))


@dataclass(frozen=True)
class Moved:
    """What a case moves: bytes for each element, the fewest, and by which kernels."""

    name: str
    dtype: str
    bytes: float
    fewest: float
    kernels: tuple[str, ...]

    @property
    def ratio(self) -> float:
        """By how much more it moves than it must."""
        return self.bytes / self.fewest


@contextmanager
def counting() -> Iterator[emulator.Traffic]:
    """Kernels on the emulator that are counted, with grids as much smaller as the arrays."""
    with ExitStack() as stack:
        traffic = stack.enter_context(emulator.counted())
        stack.enter_context(cupy_standin.installed())
        threads = normalization._PERSISTENT_THREADS // SCALE
        for module, limit, value in (
            (common, "MOST_BLOCKS", 1024 // SCALE), (normalization, "_PERSISTENT_THREADS", threads),
            (rows, "_ENOUGH_ROWS", 1),
        ):  # fmt: skip
            stack.enter_context(mock.patch.object(module, limit, value))

        def forget() -> None:
            common.forget_plans()
            kernels.get.cache_clear()
            kernels._module.cache_clear()

        forget()
        stack.callback(forget)
        yield traffic


def moved(traffic: emulator.Traffic, name: str, dtype: str) -> Moved:
    """Run a case once."""
    case = stage_bandwidth.case(name, N, dtype, parameters=8)
    case.run()  # tables and states are made
    traffic.launches.clear()
    traffic.also[:] = reached(case) if name in stage_bandwidth.UPDATES else []
    case.run()
    names = tuple(dict.fromkeys(kernel for kernel, _ in traffic.launches))
    return Moved(name, dtype, traffic.bytes / N, case.moved / N, names)


def reached(case: stage_bandwidth.Case) -> list[Any]:
    """The parameters and gradients of an optimizer, which its kernels reach through addresses."""
    owner = getattr(case.run, "__self__", None)
    if owner is not None:
        parameters = [p for group in owner.param_groups for p in group["params"]]
    else:
        parameters = next(
            cell.cell_contents
            for cell in case.run.__closure__ or ()
            if isinstance(cell.cell_contents, list)
        )
    arrays: list[Any] = [a for p in parameters for a in (p.data, p.grad.data)]
    return [a._a.reshape(-1) for a in arrays]


def table(found: Sequence[Moved], arch: int) -> str:
    """A line for each case."""
    used: dict[tuple[str, str], tuple[compile_all.Usage, compile_all.Accesses]] = {}
    if compile_all.missing() is None:
        wanted = {(m.dtype, k) for m in found for k in m.kernels}
        for family in kernels.families():
            for dtype in {d for d, k in wanted if k in kernels.kernel_names(family)}:
                result = compile_all.compile_family((family, dtype, arch))
                for name, use in result.usage.items():
                    if name in result.accesses:
                        used[name, dtype] = use, result.accesses[name]
    lines = [
        "bytes an element, fewest, ratio; kernels with registers, spills, packed loads + stores"
    ]
    for m in found:
        about = []
        for k in m.kernels:
            if (k, m.dtype) in used:
                use, made = used[k, m.dtype]
                about.append(f"{k} {use.registers}, {use.spills}, {made.loads}+{made.stores}")
            else:
                about.append(k)
        lines.append(
            f"{m.name:32} {m.dtype:9} {m.bytes:6.2f} {m.fewest:6.2f} {m.ratio:5.2f}  "
            + "; ".join(about)
        )
    return "\n".join(lines)


def main() -> int:
    """Print the table; 1 if a case moves more than 1.1 times what it must."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("only", nargs="?", default="", help="part of a case's name")
    parser.add_argument("--dtype", nargs="+", default=("float32",), choices=tuple(kernels.TYPES))
    parser.add_argument("--arch", type=int, default=90)
    options = parser.parse_args()
    with counting() as traffic:
        found = [
            moved(traffic, name, dtype)
            for dtype in options.dtype
            for name in NAMES
            if options.only in name
        ]
    print(table(found, options.arch))
    return max(m.ratio for m in found) > 1.1


if __name__ == "__main__":
    sys.exit(main())
