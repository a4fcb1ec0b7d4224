"""The BLAS of native programs: an OpenBLAS of their own, or MKL."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import glob
import os
import sys
from time import perf_counter
from typing import Any

import numpy as np

from tensorgrad.program import cache


class Blas:
    """Matrix products, and on how many threads they run.

    title: for the report. own: whether nobody else uses it, and it has one thread.
    """

    def __init__(self, library: ctypes.CDLL, prefix: str, ending: str, title: str) -> None:
        self.sgemm = getattr(library, f"{prefix}cblas_sgemm{ending}")
        self.dgemm = getattr(library, f"{prefix}cblas_dgemm{ending}")
        self.title = title
        self.own = True
        self.set_threads: Any = None
        self.get_threads: Any = None

    def seconds(self) -> float:
        """The least time of a product of 256 x 256 matrices."""
        n = ctypes.c_int64(256)
        a, b, c = (np.ones((256, 256), np.float32) for _ in range(3))
        pa, pb, pc = (ctypes.c_void_p(x.ctypes.data) for x in (a, b, c))
        one, zero = ctypes.c_float(1), ctypes.c_float(0)
        taken = []
        for _ in range(5):
            start = perf_counter()
            self.sgemm(101, 111, 111, n, n, n, one, pa, n, pb, n, zero, pc, n)
            taken.append(perf_counter() - start)
        return min(taken)


def _instance(path: str) -> ctypes.CDLL:
    """An OpenBLAS of our own, with one thread: a program shares out the work itself.

    NumPy's instance would have to be held to one thread for as long as a program runs, for
    everybody in the process. A library is loaded once, so that a second instance needs a file of
    its own: a copy.
    """
    return cache.load_copy("openblas", path, _with_one_thread)


def _with_one_thread(path: str) -> ctypes.CDLL:
    """Load an OpenBLAS, whose threads are counted in the environment while it is loaded."""
    name = "OPENBLAS_NUM_THREADS"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        return ctypes.CDLL(path)
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _openblas() -> Blas | None:
    """NumPy's, if it is an OpenBLAS with 64-bit integers, as in its wheels."""
    here = os.path.dirname(np.__file__)
    places = (os.path.join(here, os.pardir, "numpy.libs"), os.path.join(here, ".dylibs"))
    for path in [
        p for place in places for p in sorted(glob.glob(os.path.join(place, "*openblas*")))
    ]:
        for own in (True, False):
            with contextlib.suppress(OSError):
                library = _instance(path) if own else ctypes.CDLL(path)
                for prefix in ("scipy_", ""):
                    if not hasattr(library, f"{prefix}cblas_sgemm64_"):
                        continue
                    core = getattr(library, f"{prefix}openblas_get_corename64_")
                    core.restype = ctypes.c_char_p
                    found = Blas(library, prefix, "64_", f"OpenBLAS for {core().decode()}")
                    found.own = own
                    found.set_threads = getattr(library, f"{prefix}openblas_set_num_threads64_")
                    found.get_threads = getattr(library, f"{prefix}openblas_get_num_threads64_")
                    return found
    return None


def _mkl() -> Blas | None:
    """That of the wheel ``mkl``, which puts its libraries beside Python's own."""
    for path in sorted(glob.glob(os.path.join(sys.prefix, "lib", "libmkl_rt.so*"))):
        with contextlib.suppress(OSError, AttributeError):
            library = ctypes.CDLL(path)
            library.MKL_Set_Threading_Layer(1)  # sequential
            return Blas(library, "", "_64", "MKL")
    return None


@functools.cache
def blas() -> Blas | None:
    """The BLAS of programs: ``$TENSORGRAD_BLAS`` ("openblas" or "mkl"), or the quicker one.

    OpenBLAS is an instance apart from the one that NumPy uses, if that can be had.
    Raises ValueError for another name.
    """
    chosen = os.environ.get("TENSORGRAD_BLAS")
    makers = {"openblas": _openblas, "mkl": _mkl}
    if chosen is not None and chosen not in makers:
        raise ValueError(f'TENSORGRAD_BLAS must be "openblas" or "mkl", got {chosen!r}')
    found = [made for name, make in makers.items() if chosen in (None, name) and (made := make())]
    return min(found, key=Blas.seconds) if len(found) > 1 else found[0] if found else None
