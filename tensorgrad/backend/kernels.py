"""The CUDA sources in ``kernels/``: found, made self-contained, and compiled on first use.

A family is one file, compiled once per dtype that is in use: inside, ``T`` is the dtype of the
arrays and ``A`` the dtype of the arithmetic. Headers are put in place of their ``#include`` lines,
so that CuPy's cache on disk, whose key is the source, notices a change in any of them. Kernels that
differ in a few words come from one macro; it is put in, too, so that their names are in the text.
"""

from __future__ import annotations

import functools
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tensorgrad.dtypes import HALVES, float32

#: what ``T`` is called in the sources, by the name of the dtype
TYPES = {"float16": "f16", "bfloat16": "bf16", "float32": "float", "float64": "double"}

_INCLUDE = re.compile(r'^#include "(\w+\.cuh)"$', re.MULTILINE)
_MACRO = re.compile(r"^#define (\w+)\(([^)]*)\) *\\\n((?:.*\\\n)+.*\n)", re.MULTILINE)
_WORD = re.compile(r"\b[A-Za-z]\w*?(?=##|\b)")
_KERNEL = re.compile(r'extern "C" __global__ void(?:\s+__launch_bounds__\([^)]*\))?\s+(\w+)\s*\(')


def folder() -> Path:
    """Where the sources lie: inside this package in a wheel, beside it in the repository."""
    package = Path(__file__).parent.parent
    inside = package / "kernels"
    return inside if inside.is_dir() else package.parent / "kernels"


@cache
def families() -> tuple[str, ...]:
    """The names of the files that hold kernels, without ``.cu``."""
    return tuple(sorted(path.stem for path in folder().glob("*.cu")))


def source(family: str) -> str:
    """The text of a family with its headers in place, each once, and its macros of kernels."""
    return _without_macros(_expanded(f"{family}.cu"))


def header(name: str) -> str:
    """The text of a header with those that it includes in place, each once."""
    return _expanded(f"{name}.cuh")


@cache
def _expanded(file: str) -> str:
    seen: set[str] = set()

    def expand(name: str) -> str:
        def header(found: re.Match[str]) -> str:
            if found[1] in seen:
                return ""
            seen.add(found[1])
            return expand(found[1])

        text = (folder() / name).read_text(encoding="utf-8")
        return _INCLUDE.sub(header, text.replace("#pragma once\n", ""))

    return expand(file)


@cache
def _without_macros(text: str) -> str:
    """The text with kernels in the place of the macros that make them."""
    made = [found for found in _MACRO.finditer(text) if "__global__" in found[3]]
    for macro in made:
        uses = re.compile(rf"^{macro[1]}\((.*)\)$", re.MULTILINE)
        text = uses.sub(functools.partial(_filled, macro), text.replace(macro[0], ""))
    return text


def _filled(macro: re.Match[str], use: re.Match[str]) -> str:
    """What the preprocessor makes of a macro's use."""
    given = dict(zip(macro[2].split(", "), use[1].split(", "), strict=True))
    body = re.sub(r" *\\$", "", macro[3], flags=re.MULTILINE)
    return _WORD.sub(lambda word: given.get(word[0], word[0]), body).replace("##", "")


def kernel_names(family: str) -> tuple[str, ...]:
    """The kernels that a family defines."""
    return tuple(_KERNEL.findall(source(family)))


def options(dtype: np.dtype[Any] | str) -> tuple[str, ...]:
    """The compiler's options for a family whose arrays have this floating dtype.

    No fast mathematics: NaN and infinities are as IEEE 754 says. Contraction to fused
    multiply-adds stays on, as it only makes results more accurate. CuPy adds ``-ftz=true``, here
    as in its own kernels: on a GPU float32 numbers below 2**-126 are taken for zero.
    """
    return ("--std=c++17", f"-DTENSORGRAD_T={TYPES[str(dtype)]}")


def arithmetic(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype that kernels compute with: ``A``, and the type of their real arguments."""
    return float32 if dtype in HALVES else dtype


@cache
def get(xp: Any, family: str, name: str, dtype: np.dtype[Any]) -> Any:
    """The kernel ``name`` for arrays of ``dtype``, called as ``kernel(grid, block, args)``."""
    return _module(xp, family, dtype).get_function(name)


@cache
def _module(xp: Any, family: str, dtype: np.dtype[Any]) -> Any:
    return xp.RawModule(code=source(family), options=options(dtype), backend="nvrtc")
