"""Weights to and from PyTorch: its state dicts in safetensors files.

The modules have PyTorch's names for parameters and buffers, and its layouts (a Linear's weight is
(out, in)), so what remains is what wrappers put before the names.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from safetensors.numpy import save

from tensorgrad.errors import TensorgradError
from tensorgrad.files import write_atomically
from tensorgrad.nn.arrays import METADATA, host_array, read_safetensors
from tensorgrad.nn.module import IncompatibleKeys, Module

__all__ = ["load_safetensors", "save_safetensors"]

# The attributes in which wrappers hold a model: DataParallel, DistributedDataParallel and
# AveragedModel; torch.compile; FullyShardedDataParallel; checkpoint_wrapper; Lightning's Fabric.
_WRAPPERS = (
    "module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module",
)  # fmt: skip
_COUNT = "n_averaged"  # AveragedModel's own


def save_safetensors(model: Module, path: str | os.PathLike[str]) -> None:
    """Write the parameters and buffers of ``model`` to a safetensors file, in one step.

    In PyTorch: ``model.load_state_dict(safetensors.torch.load_file(path))``, of a model made of
    the same layers under the same names. Every safetensors reader opens it.

    Raises OSError if it cannot be written, DtypeError for dtypes the format does not know,
    TensorgradError for a parameter whose name the format keeps for itself.
    """
    arrays = {name: host_array(value) for name, value in model.state_dict().items()}
    if METADATA in arrays:
        raise TensorgradError(
            f"safetensors files keep the name {METADATA} for themselves; give the parameter or "
            "buffer another one"
        )
    write_atomically(path, save(arrays, metadata={"format": "pt"}))


def load_safetensors(
    model: Module,
    path: str | os.PathLike[str],
    strict: bool = True,
    rename: Mapping[str, str | None] | Callable[[str], str | None] | None = None,
) -> IncompatibleKeys:
    """Overwrite the weights of ``model`` with those in a safetensors file.

    path: as ``safetensors.torch.save_file(model.state_dict(), path)`` of PyTorch writes it, or
        ``save_safetensors``, or the file of a run of ``tensorgrad train``.
    strict: whether names that are missing or left over are errors.
    rename: the name here for a name in the file, ``None`` to leave it out: a dict (others stay), or
        a function.

    What wrappers put into the names is passed over, at any depth: the ``module.`` of DataParallel,
    the ``_orig_mod.`` of torch.compile, and what AveragedModel counts. Values are converted to the
    dtype and device of the model. Returns the names missing and left over.

    Raises OSError if the file cannot be read, DataFileError if it is no safetensors file or holds
    a dtype that tensors do not have; ShapeError or ValueError, listing all that is wrong, if it
    does not fit the model, which then stays as it was.
    """
    arrays, _ = read_safetensors(
        path, "in PyTorch save with safetensors.torch.save_file(model.state_dict(), path)"
    )
    own = list(model.state_dict())
    names = _unwrapped(arrays, own)
    if rename is not None:
        new: Any = rename if callable(rename) else lambda name: rename.get(name, name)
        renamed = {key: new(name) for key, name in names.items()}
        names = _matched({k: name for k, name in renamed.items() if name is not None}, own)
    keys: dict[str, str] = {}
    for key, name in names.items():
        if keys.setdefault(name, key) != key:
            raise ValueError(
                f"load_safetensors: {keys[name]} and {key} of {path} are both renamed to {name}; "
                "give each a name of its own"
            )
    return model.load_state_dict({name: arrays[key] for name, key in keys.items()}, strict)


def _unwrapped(keys: Iterable[str], own: Iterable[str]) -> dict[str, str]:
    """For each name in a file the name in the model, as far as wrappers are what differs."""
    names = {key: key for key in keys}
    for key in [key for key in names if key.rpartition(".")[2] == _COUNT and key not in own]:
        inside = key.removesuffix(_COUNT) + "module."
        if any(other.startswith(inside) for other in names):
            del names[key]
    while not set(names.values()) & set(own):
        prefixes = {name[: name.find(".") + 1] for name in names.values()}
        if len(prefixes) != 1 or prefixes.pop()[:-1] not in _WRAPPERS:
            break
        names = {key: name.partition(".")[2] for key, name in names.items()}
    return _matched(names, own)


def _matched(names: Mapping[str, str], own: Iterable[str]) -> dict[str, str]:
    """``names`` with those of the model where only the names of wrappers make the difference."""
    known = set(own)
    by_bare: dict[str, list[str]] = {}
    for name in own:
        by_bare.setdefault(_bare(name), []).append(name)
    taken = [_bare(name) for name in names.values()]
    found = {}
    for key, name in names.items():
        there = by_bare.get(_bare(name), [])
        sure = name not in known and len(there) == 1 and taken.count(_bare(name)) == 1
        found[key] = there[0] if sure else name
    return found


def _bare(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)
