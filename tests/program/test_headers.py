"""The headers of routines are in one text, where a program has routines of several."""

from __future__ import annotations

import itertools

from tensorgrad.program.compiler import SOURCES, build


def test_headers_go_together_in_any_order() -> None:
    names = sorted(path.name for path in SOURCES.glob("*.h") if path.name != "support.h")
    assert len(names) > 3
    for order in (names, names[::-1], *itertools.pairwise(names)):
        lines = [f'#include "{name}"' for name in ("support.h", *order)]
        build("\n".join([*lines, "int nothing(void) { return 0; }"]) + "\n")
