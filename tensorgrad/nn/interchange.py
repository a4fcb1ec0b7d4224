"""Weights to and from PyTorch: its state dicts in safetensors files.

The modules have PyTorch's names for parameters and buffers, and its layouts (a Linear's weight is
(out, in)), so what remains is what wrappers put before the names.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from tensorgrad.files import DataFileError, write_atomically
from tensorgrad.nn.arrays import file_array, host_array
from tensorgrad.nn.module import IncompatibleKeys, Module

# What DistributedDataParallel, torch.compile and AveragedModel put before every name.
_PREFIXES = ("module.", "_orig_mod.")


def save_safetensors(model: Module, path: str | os.PathLike[str]) -> None:
    """Write the parameters and buffers of ``model`` to a safetensors file, in one step.

    In PyTorch: ``model.load_state_dict(safetensors.torch.load_file(path))``, of a model made of
    the same layers under the same names. Every safetensors reader opens it.

    Raises OSError if it cannot be written, DtypeError for dtypes the format does not know.
    """
    arrays = {name: host_array(value) for name, value in model.state_dict().items()}
    write_atomically(path, save(arrays, metadata={"format": "pt"}))


def load_safetensors(
    model: Module,
    path: str | os.PathLike[str],
    strict: bool = True,
    rename: Mapping[str, str] | Callable[[str], str] | None = None,
) -> IncompatibleKeys:
    """Overwrite the weights of ``model`` with those in a safetensors file.

    path: as ``safetensors.torch.save_file(model.state_dict(), path)`` of PyTorch writes it, or
        ``save_safetensors``, or the file of a run of ``tensorgrad train``.
    strict: whether names that are missing or left over are errors.
    rename: the name here for a name in the file: a dict (others stay), or a function.

    What DataParallel and torch.compile put before every name is taken away. Values are converted
    to the dtype and device of the model. Returns the names missing and left over.

    Raises OSError if the file cannot be read, DataFileError if it is no safetensors file;
    ShapeError or ValueError, listing all that is wrong, if it does not fit the model, which then
    stays as it was.
    """
    try:
        found = deserialize(Path(path).read_bytes())  # type: ignore[no-untyped-call]
        arrays = {name: file_array(view) for name, view in found}
    except (SafetensorError, KeyError) as error:
        raise DataFileError(
            path, f"torn, or not a safetensors file ({error})",
            "in PyTorch save with safetensors.torch.save_file(model.state_dict(), path)",
        ) from error  # fmt: skip
    for prefix in _PREFIXES:
        if arrays and all(name.startswith(prefix) for name in arrays):
            arrays = {name.removeprefix(prefix): array for name, array in arrays.items()}
    if rename is not None:
        new: Any = rename if callable(rename) else lambda name: rename.get(name, name)
        arrays = {new(name): array for name, array in arrays.items()}
    return model.load_state_dict(arrays, strict)
