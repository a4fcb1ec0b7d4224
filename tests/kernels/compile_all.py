"""Compile every kernel for every dtype and architecture, without a GPU, and say what it uses.

    python tests/kernels/compile_all.py [--arch 75 ...] [--family activation ...]

Prints registers and static shared memory per kernel, as ptxas reports them, and the packed loads
and stores of its PTX. The exit status is 1 if a kernel spills registers to memory, draws a warning,
does not compile, or writes a pack of elements one by one. A stack frame without spills is no
failure: the slow path of a double-precision function may have one.

Needs CuPy and NVRTC: ``pip install -e ".[kernels]"``.
"""

from __future__ import annotations

import argparse
import os
import re
import struct
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context

from tensorgrad.backend import kernels

#: Turing, Ampere, Hopper, and the two kinds of Blackwell
ARCHITECTURES = (75, 80, 90, 100, 120)

#: what CuPy 14.2 adds to the options of every RawModule; test_compile.py checks it
CUPY_OPTIONS = ("-ftz=true", "--device-as-default-execution-space")


@dataclass(frozen=True)
class Usage:
    """What one kernel takes on one architecture, in bytes but for the registers."""

    registers: int
    shared: int
    frame: int
    spill_stores: int
    spill_loads: int

    @property
    def spills(self) -> int:
        """The bytes of all spill instructions."""
        return self.spill_stores + self.spill_loads


#: kernels that access one element at a time by design: sums of few numbers, places, and sorting
PLAIN = frozenset(
    {
        "cross_entropy_total", "max_pool_places", "root_of_sum", "sort_count", "sort_keys_32",
        "sort_keys_64", "sort_offsets", "sort_place", "sum_rows", "sum_strips", "sum_strips_of_two",
    }
)  # fmt: skip
_TILES = tuple(
    f"attention_{what}_{n}" for what in ("forward", "queries", "keys") for n in (64, 128)
)
#: those that are empty for one dtype
PLAIN_IN = frozenset(
    (name, "float64")
    for name in (
        *_TILES,
        "convolution_3x3",
        "convolution_3x3_weight",
        "layer_norm_backward_wide",
        "rms_norm_backward_wide",
    )
)
#: and those that are so on Turing, which has no tensor cores for it
PLAIN_ON_TURING = frozenset((name, "bfloat16") for name in _TILES)


@dataclass(frozen=True)
class Accesses:
    """The instructions in a kernel's PTX that access the device's memory.

    loads, stores: the packed ones. torn: stores of single elements in stretches of code that have
        packed accesses, too: what should have been one store.
    """

    loads: int
    stores: int
    torn: int


_KERNEL = re.compile(r"\.entry (\w+)\((.*?)\n\}", re.DOTALL)
_STRETCH = re.compile(r"\n\$?L\w+:|\n[^\n]*\bbra\b[^\n]*")
_ACCESS = re.compile(r"\b(ld|st)(?!\S*\.(?:param|shared|local|const)\b)((?:\.\w+)+)\s")


def accesses(ptx: str) -> dict[str, Accesses]:
    """What each kernel of a PTX text does with the device's memory."""
    found = {}
    for name, body in _KERNEL.findall(ptx):
        loads = stores = torn = 0
        for stretch in _STRETCH.split(body):
            made = [(how, ".v2." in kind or ".v4." in kind) for how, kind in
                    ((how, f"{kind}.") for how, kind in _ACCESS.findall(stretch))]  # fmt: skip
            loads += made.count(("ld", True))
            stores += made.count(("st", True))
            if any(packed for _, packed in made):
                torn += made.count(("st", False))
        found[name] = Accesses(loads, stores, torn)
    return found


@dataclass(frozen=True)
class Result:
    """The outcome of one compilation: a family for one dtype and one architecture."""

    family: str
    expected: tuple[str, ...]  # the kernels that must be in the cubin
    dtype: str
    arch: int
    usage: dict[str, Usage]
    warnings: tuple[str, ...]
    error: str | None
    cubin: bytes
    seconds: float
    accesses: dict[str, Accesses]

    @property
    def title(self) -> str:
        """Which compilation this is, for messages."""
        return f"{self.family}.cu, {self.dtype}, sm_{self.arch}"

    def failures(self) -> list[str]:
        """Why this compilation must not pass; empty if it may."""
        if self.error is not None:
            return [f"does not compile:\n{self.error}"]
        code = machine_code(self.cubin)
        found = list(self.warnings)
        found += [
            f"{name} has no code in the result"
            for name in self.expected
            if name not in self.usage or not code.get(name)
        ]
        found += [
            f"{name} spills registers: {use.spill_stores} bytes of stores, "
            f"{use.spill_loads} bytes of loads, with {use.registers} registers"
            for name, use in self.usage.items()
            if use.spills
        ]
        found += [
            f"{name} writes packs of elements by {made.torn} single stores"
            for name, made in self.accesses.items()
            if made.torn
        ]
        if self.family in kernels.families():
            found += [
                f"{name} has no packed access; if that is meant, say so in PLAIN"
                for name, made in self.accesses.items()
                if not (made.loads or made.stores or name in PLAIN)
                and (name, self.dtype) not in PLAIN_IN
                and not (self.arch < 80 and (name, self.dtype) in PLAIN_ON_TURING)
            ]
        return found

    def notes(self) -> list[str]:
        """What is worth knowing but no failure."""
        return [
            f"{name} has a stack frame of {use.frame} bytes"
            for name, use in self.usage.items()
            if use.frame and not use.spills
        ]


_ENTRY = re.compile(r"Compiling entry function '(\w+)'")
_FUNCTION = re.compile(r"Function properties for (\w+)")
_STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")
_WARNING = re.compile(r"^.*\bwarning\b.*$", re.MULTILINE | re.IGNORECASE)


def parse(log: str) -> dict[str, Usage]:
    """What ptxas says of each function in a log written with ``--ptxas-options=-v``.

    Registers and shared memory are stated of kernels alone. A function that is called, as the slow
    paths of sin and pow in double precision are, uses those of its kernel and has 0 here.

    Raises ValueError if the log is not of the expected form: numbers that went unread must not
    pass for zeros.
    """
    found: dict[str, Usage] = {}
    entries = set(_ENTRY.findall(log))
    name = ""
    for line in log.splitlines():
        if function := _FUNCTION.search(line):
            name = function[1]
        elif stack := _STACK.search(line):
            if not name:
                raise ValueError(f"a stack frame of no known function in the log: {line!r}")
            found[name] = Usage(0, 0, *(int(n) for n in stack.groups()))
        elif used := _USED.search(line):
            if name not in found or name not in entries:
                raise ValueError(f"registers of no known kernel in the log: {line!r}")
            shared = _SHARED.search(line)
            registers, smem = int(used[1]), int(shared[1]) if shared else 0
            found[name] = replace(found[name], registers=registers, shared=smem)
            name = ""
    for name in entries:
        if name not in found or found[name].registers == 0:
            raise ValueError(f"the log does not say how many registers {name} uses")
    return found


def warnings(log: str) -> tuple[str, ...]:
    """The warnings of the compiler and of ptxas in a log."""
    return tuple(
        line.strip() for line in _WARNING.findall(log) if "warnings can be suppressed" not in line
    )


def machine_code(cubin: bytes) -> dict[str, bytes]:
    """The instructions of each kernel in a cubin: the sections ``.text.name`` of the ELF file."""
    table, entry, count, strings = struct.unpack_from("<Q10xHHH", cubin, 40)
    headers = [struct.unpack_from("<I20xQQ", cubin, table + i * entry) for i in range(count)]
    names = headers[strings][1]
    found = {}
    for name_at, offset, size in headers:
        begin = names + name_at
        name = cubin[begin : cubin.index(0, begin)].decode()
        if name.startswith(".text."):
            found[name.removeprefix(".text.")] = cubin[offset : offset + size]
    return found


def build(source: str, options: Iterable[str]) -> tuple[bytes, str, str, bool]:
    """Compile ``source`` with NVRTC: cubin and PTX (empty if there are none), the log, success."""
    from cupy.cuda import nvrtc

    program = nvrtc.createProgram(source, "kernel.cu", (), ())
    try:
        try:
            nvrtc.compileProgram(program, tuple(options))
        except nvrtc.NVRTCError as error:
            return b"", "", f"{nvrtc.getProgramLog(program).strip()}\n{error}", False
        ptx = nvrtc.getPTX(program)
        ptx = ptx.decode() if isinstance(ptx, bytes) else ptx
        return nvrtc.getCUBIN(program), ptx, nvrtc.getProgramLog(program), True
    finally:
        nvrtc.destroyProgram(program)


def compile_source(
    source: str,
    dtype: str,
    arch: int,
    extra: Sequence[str] = (),
    *,
    family: str = "",
    expected: tuple[str, ...] = (),
) -> Result:
    """Compile a source text as CuPy would on a GPU of this architecture.

    extra: options beside those that a family is always compiled with.
    family, expected: what the result is called, and the kernels that it must have.
    """
    options = (*kernels.options(dtype), *CUPY_OPTIONS, f"-arch=sm_{arch}")
    begin = time.perf_counter()
    cubin, ptx, log, ok = build(source, (*options, "--ptxas-options=-v", *extra))
    seconds = time.perf_counter() - begin
    usage: dict[str, Usage] = {}
    error = None if ok else log
    if ok:
        try:
            usage = parse(log)
        except ValueError as unread:
            error = f"{unread}\n{log}"
    noted = warnings(log) if ok else ()
    return Result(family, expected, dtype, arch, usage, noted, error, cubin, seconds, accesses(ptx))


def compile_family(job: tuple[str, str, int]) -> Result:
    """Compile one family for one dtype and architecture."""
    family, dtype, arch = job
    names = kernels.kernel_names(family)
    return compile_source(kernels.source(family), dtype, arch, family=family, expected=names)


def missing() -> str | None:
    """Why nothing can be compiled here, with the remedy; ``None`` if it can."""
    try:
        from cupy.cuda import nvrtc

        nvrtc.getVersion()
    except Exception as error:  # ImportError, or whatever the search for the library raises
        first = str(error).partition("\n")[0]
        return f'CuPy or NVRTC is not installed ({first}); pip install -e ".[kernels]"'
    return None


def table(results: Sequence[Result]) -> str:
    """Registers / bytes of shared memory and packed loads + stores per kernel, dtype and
    architecture; on how many of these it spills, and on how many it tears packs apart."""
    archs = sorted({r.arch for r in results})
    cells: dict[tuple[str, str], dict[int, tuple[Usage, Accesses]]] = {}
    for result in results:
        for name in result.expected:
            row = cells.setdefault((name, result.dtype), {})
            if name in result.usage and name in result.accesses:
                row[result.arch] = result.usage[name], result.accesses[name]
    rows = [["kernel", "dtype", *(f"sm_{a}" for a in archs), "spills", "torn"]]
    for (name, dtype), row in cells.items():
        numbers = [
            f"{row[a][0].registers}/{row[a][0].shared} {row[a][1].loads}+{row[a][1].stores}"
            if a in row else "-" for a in archs
        ]  # fmt: skip
        spilling = sum(use.spills > 0 for use, _ in row.values())
        tearing = sum(made.torn > 0 for _, made in row.values())
        rows.append([name, dtype, *numbers, str(spilling), str(tearing)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(t.ljust(w) if i < 2 else t.rjust(w) for i, (t, w) in enumerate(zip(row, widths)))
        for row in rows
    )


def once(messages: Iterable[tuple[str, str]]) -> list[str]:
    """Pairs of a place and a text as lines, each text once, behind the places that it holds for."""
    places: dict[str, list[str]] = {}
    for place, text in messages:
        places.setdefault(text, []).append(place)
    return [f"{'; '.join(where)}: {text}" for text, where in places.items()]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as a script; the exit status."""
    parser = argparse.ArgumentParser(description="Compile all CUDA kernels, without a GPU.")
    parser.add_argument("--arch", type=int, nargs="+", default=ARCHITECTURES, metavar="N")
    parser.add_argument("--family", nargs="+", choices=kernels.families(), metavar="NAME")
    parser.add_argument("--dtype", nargs="+", choices=tuple(kernels.TYPES), metavar="NAME")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N")
    wanted = parser.parse_args(arguments)
    reason = missing()
    if reason is not None:
        print(reason, file=sys.stderr)
        return 2
    jobs = [
        (family, dtype, arch)
        for family in wanted.family or kernels.families()
        for dtype in wanted.dtype or kernels.TYPES
        for arch in wanted.arch
    ]
    begin = time.perf_counter()
    # A fresh interpreter per process: NVRTC's state must not be shared by forking.
    with ProcessPoolExecutor(min(wanted.jobs, len(jobs)), get_context("spawn")) as pool:
        results = list(pool.map(compile_family, jobs))
    seconds = time.perf_counter() - begin
    print("registers / bytes of static shared memory, packed loads + packed stores")
    print(table(results))
    print(
        f"{len(results)} compilations in {seconds:.1f} s, "
        f"{sum(r.seconds for r in results):.1f} s of them in NVRTC"
    )
    for note in once((r.title, text) for r in results for text in r.notes()):
        print(f"note: {note}")
    failures = once((r.title, text) for r in results for text in r.failures())
    for text in failures:
        print(f"FAILED: {text}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
