"""What the last bits of a training step depend on beside the numbers that go into it."""

from __future__ import annotations

import ctypes
import functools
import glob
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

# Whoever counts threads asks the first of these that is set.
_VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
              "OMP_NUM_THREADS")  # fmt: skip
_NAMES = {
    "numpy": "NumPy {}", "blas": "products by {}", "threads": "products on {} threads",
}  # fmt: skip


def arithmetic() -> dict[str, Any]:
    """NumPy's version, its BLAS, and on how many threads that works: a product of matrices is cut
    up by them, and sums of parts are rounded elsewhere.
    """
    library = _openblas()
    if library is None:
        return {"numpy": np.__version__, "blas": "", "threads": _asked_for()}
    core, threads = library
    return {
        "numpy": np.__version__,
        "blas": f"OpenBLAS for {core().decode()}",
        "threads": int(threads()),
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """In words, what is another now: "products on 4 threads, now on 1"."""
    return [
        f"{text.format(before[name] or 'another library')}, now {now[name] or 'by another library'}"
        for name, text in _NAMES.items()
        if name in before and before[name] != now[name]
    ]


@functools.cache
def _openblas() -> tuple[Any, Any] | None:
    """The functions of the OpenBLAS in NumPy's wheel that name its kernels and count threads."""
    here = os.path.dirname(np.__file__)
    for place in (os.path.join(here, os.pardir, "numpy.libs"), os.path.join(here, ".dylibs")):
        for path in sorted(glob.glob(os.path.join(glob.escape(place), "*openblas*"))):
            try:
                library = ctypes.CDLL(path)  # loaded already: the one that NumPy uses
            except OSError:
                continue
            for prefix in ("scipy_", ""):
                for ending in ("64_", ""):
                    name = f"{prefix}openblas_get_{{}}{ending}"
                    if hasattr(library, name.format("num_threads")):
                        core = getattr(library, name.format("corename"))
                        core.restype = ctypes.c_char_p
                        return core, getattr(library, name.format("num_threads"))
    return None


def _asked_for() -> int:
    """How many threads a BLAS that cannot be asked would take."""
    for name in _VARIABLES:
        text = os.environ.get(name, "")
        if text.isdecimal() and int(text[:9]) > 0:
            return int(text[:9])
    return os.cpu_count() or 1
