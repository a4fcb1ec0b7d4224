"""The system's C compiler: C text becomes a library, which is kept on disk."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tensorgrad.errors import CompileError
from tensorgrad.program.cache import cache_folder, writable

# No flag that changes what NaN, infinities or signed zeros do. An expression may be contracted to
# fused multiply-adds, which round once instead of twice. Integers wrap around, as NumPy's do.
FLAGS = (
    "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast",
    "-fwrapv", "-fopenmp-simd", "-w",
)  # fmt: skip
SOURCES = Path(__file__).parent / "c"


@functools.cache
def compiler() -> str | None:
    """The path of the C compiler: ``$CC``, or ``cc``, ``gcc``, ``clang``; ``None`` without one."""
    for name in (os.environ.get("CC"), "cc", "gcc", "clang"):
        found = shutil.which(name) if name else None
        if found:
            return found
    return None


@functools.cache
def _target(path: str) -> tuple[bytes, tuple[str, ...]]:
    """What the compiler says of itself and of this processor, and flags for the latter."""
    said = b""
    for options in (["--version"], ["-march=native", "-Q", "--help=target"]):
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            said += subprocess.run([path, *options], capture_output=True, timeout=30).stdout
    wide = any(line.split()[:2] == [b"-mavx512f", b"[enabled]"] for line in said.splitlines())
    return said, ("-mprefer-vector-width=512",) if wide else ()


def build(text: str) -> ctypes.CDLL:
    """C text as a library; see ``built``."""
    return ctypes.CDLL(str(built(text)))


def built(text: str, options: Sequence[str] = ()) -> Path:
    """Compile C text into a library, or find what an earlier run compiled.

    options: more for the compiler's command line; the text must change where they mean another
        thing.

    The name in the cache is a hash of the text, the support header, the flags, the compiler and the
    processor. A library is moved into place when it is whole: processes can share the cache.

    Raises CompileError with what the compiler says, if it fails or there is none.
    """
    path = compiler()
    if path is None:
        raise CompileError(
            "the native executor needs a C compiler; install one (apt install gcc) or name it in "
            'CC, or compile(..., executor="numpy")'
        )
    said, more = _target(path)
    flags = [*FLAGS, *more, *options]
    header = (SOURCES / "support.h").read_bytes()
    parts = [text.encode(), header, said, path.encode(), " ".join(flags).encode()]
    key = hashlib.sha256(b"\0".join(parts)).hexdigest()[:32]
    folder = writable(cache_folder())
    library = folder / f"{key}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            source, made = Path(scratch) / "program.c", Path(scratch) / "program.so"
            source.write_text(text)
            command = [path, *flags, "-shared", "-fPIC", f"-I{SOURCES}", str(source)]
            command += ["-o", str(made), "-lm", "-pthread"]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise CompileError(f"the C compiler {path} failed:\n{done.stderr[:4000]}")
            os.replace(made, library)
    return library
