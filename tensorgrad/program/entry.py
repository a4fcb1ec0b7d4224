"""The quick way into a small program, in C: see c/entry.c.

Here the conditions and the memory of a program are listed for it. It needs Python's headers; where
they are absent, or the program is long or of a kind that it does not know, the long way through
Python is taken, which does the same.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.machinery
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Sequence
from typing import Any

import numpy as np

from tensorgrad import backend, dtypes, tape
from tensorgrad.errors import CompileError
from tensorgrad.nn.module import changes
from tensorgrad.program import native
from tensorgrad.program.capture import Drawn, Options
from tensorgrad.program.guards import Guards
from tensorgrad.tape import MODE, Leaf
from tensorgrad.tensor import Tensor


@functools.cache
def _module() -> Any:
    """The extension, built on first use; ``None`` where it cannot be."""
    headers = sysconfig.get_paths()["include"]
    if not os.path.exists(os.path.join(headers, "Python.h")):
        return None
    text = (native._SOURCES / "entry.c").read_text()
    text += f"/* Python {sys.version}, NumPy {np.__version__} */\n"
    try:
        path = native.built(text, [f"-I{headers}", f"-I{np.get_include()}"])
        loader = importlib.machinery.ExtensionFileLoader("tensorgrad_entry", str(path))
        spec = importlib.util.spec_from_loader("tensorgrad_entry", loader)
        assert spec is not None
        found = importlib.util.module_from_spec(spec)
        loader.exec_module(found)
    except (CompileError, OSError, ImportError):
        return None
    return found


def quick_entry(
    executor: Any,
    guards: Guards,
    tensors: Sequence[Tensor],
    gradients: Sequence[tuple[Leaf, Tensor | None]],
    words: Sequence[tuple[Any, int]],
    mode: Any,
) -> Any:
    """An object that is called with the arguments, or ``None`` where there is none to be had.

    gradients: the leaves, and the tensor that each has as its gradient after a replay.
    words: generators, and how many words a replay draws from each.
    """
    if not isinstance(executor, native.Native) or not executor.is_short:
        return None
    module = _module()
    spec = None if module is None else _specification(executor, guards, tensors)
    if spec is None:
        return None
    spec["gradients"] = [_item(leaf, tensor) for leaf, tensor in gradients]
    spec["words"] = [_item(generator, n=count) for generator, count in words]
    spec["mode"] = mode
    made = module.Entry(spec)
    made.seen = guards._seen
    return made


def _item(a: Any, b: Any = None, c: Any = None, n: int = 0, address: int = 0) -> tuple[Any, ...]:
    return a, b, c, n, address


def _specification(
    executor: native.Native, guards: Guards, tensors: Sequence[Tensor]
) -> dict[str, Any] | None:
    if any(v.label == "gradient" for v in executor.program.values()):
        return None  # gradients are added to, which then lie elsewhere every time
    if any(executor.direct):
        return None  # they would have to be watched
    if any(hooks is not None for _, hooks, _ in guards._hooks):
        return None  # they may become other ones
    table = executor._table
    slots = executor._slots
    rates, draws = [], []
    for live, name, buffer, _ in executor._scalars:
        if isinstance(live, Options):
            rates.append(_item(live.group, name, n=buffer.itemsize, address=buffer.ctypes.data))
        elif isinstance(live, Drawn):
            offset = live.offset if name == "position" else 0
            draws.append(_item(live.generator, f"_{name}", None, offset, buffer.ctypes.data))
        else:
            return None
    arguments: list[Any] = [None] * len(tensors)
    for k, buffer in executor._small:
        arguments[k] = buffer.ctypes.data, buffer.nbytes, -1
    for k, storage in executor._large:
        arguments[k] = 0, 0, slots.get(storage, -1)
    results = []
    for _, array in executor._results:
        if array is None:
            return None
        results.append(_item(array))
    overwritten = []
    for array in executor._updated_arrays:
        owner = backend.of(array).memory_owner(array)
        entry = tape.OVERWRITTEN.get(id(owner))
        if entry is None:
            return None
        overwritten.append(_item(entry))
    segments = []
    for number in executor.source.steps:
        function = getattr(executor._library, f"segment{number}")
        segments.append(_item(executor, address=ctypes.cast(function, ctypes.c_void_p).value or 0))
    quiet = executor._quiet
    sizes = [_item(d, n=n) for d, n in guards._objects]
    dicts = [_item(d, k, v) for d, k, v in guards._dicts]
    options = []
    for optimizer, number, plan, group, _, values in guards._updates:
        dicts.append(_item(optimizer._plans, number, plan))
        dicts.append(_item(group, "params", plan.params))
        sizes.append(_item(plan.params, n=plan.count))
        options.append(_item(optimizer.param_groups, group, n=number))
        names = guards.names_of(optimizer)
        dicts += [_item(group, name, value) for name, value in zip(names, values, strict=True)]
    return {
        "tensor_type": Tensor,
        "leaf_type": Leaf,
        "mode_var": MODE,
        "changes": changes,
        "next_position": tape._next_position,
        "tape_dict": vars(tape),
        "defaults": vars(dtypes),
        "default_dtype": dtypes.get_default_dtype(),
        "arguments": [
            (t.data.shape, t.data.dtype.num, type(t.node), *where)
            for t, where in zip(tensors, arguments, strict=True)
        ],
        "tensors": [_item(t, array, node) for t, node, array in guards._tensors],
        "hooks": [_item(leaf) for leaf, _, _ in guards._hooks],
        "cells": [_item(cell, value) for cell, value in guards._cells],
        "dicts": dicts,
        "sizes": sizes,
        "options": options,
        "leaves": [_item(leaf, n=int(empty)) for leaf, empty in guards._gradients],
        "rates": rates,
        "draws": draws,
        "results": results,
        "overwritten": overwritten,
        "segments": segments,
        "table": ctypes.addressof(table),
        "set_threads": _address(quiet.set_threads) if quiet else 0,
        "get_threads": _address(quiet.get_threads) if quiet else 0,
    }


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0
