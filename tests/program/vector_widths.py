"""C built for processors with longer and shorter vectors than this one has, to be run here."""

from __future__ import annotations

import ctypes
import platform
import shlex
import subprocess
from pathlib import Path

import pytest

from tensorgrad.program.compiler import FLAGS, SOURCES, compiler

#: Numbers of float32 in a vector -> what the compiler is told; for x86.
WIDTHS = {16: ["-mavx512f"], 8: ["-mno-avx512f"], 4: ["-mno-avx"]}


def built(text: str, width: int, folder: Path) -> ctypes.CDLL:
    """The library of a C text that may include ``vectors.h``, with vectors of ``width`` numbers.

    Skips the test where this processor has none of these.
    """
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("these are the widths of x86")
    cpu = Path("/proc/cpuinfo").read_text()
    needed = {16: " avx512f", 8: " avx2", 4: ""}[width]
    if needed not in cpu:
        pytest.skip(f"this processor has no vectors of {width} numbers")
    source, made = folder / "text.c", folder / f"width{width}.so"
    source.write_text(
        f'#include "support.h"\n#include "vectors.h"\nint width(void) {{ return TG_L; }}\n{text}'
    )
    command = [*shlex.split(compiler() or ""), *FLAGS, *WIDTHS[width], "-shared", "-fPIC"]
    subprocess.run([*command, f"-I{SOURCES}", str(source), "-o", str(made), "-lm"], check=True)
    library = ctypes.CDLL(str(made))
    assert library.width() == width
    return library
