"""The folder of a run: made once, written to by one process at a time."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from tensorgrad.data import write_atomically
from tensorgrad.errors import TensorgradError
from tensorgrad.files import DataFileError, read_whole

CHECKPOINT = "checkpoint.safetensors"
MODEL = "model.safetensors"
_LOCK = ".lock"


def new_folder(out: str | None, name: str) -> Path:
    """A new folder for the results: ``out``, or runs/<name>-<n> with the first n that is free.

    Raises TensorgradError if ``out`` holds something already.
    """
    if out is not None:
        folder = Path(out)
        taken = folder.is_dir() and any(entry.name != _LOCK for entry in folder.iterdir())
        if taken or (folder.exists() and not folder.is_dir()):
            go_on = f", or tensorgrad resume {folder}" if (folder / CHECKPOINT).is_file() else ""
            raise TensorgradError(f"{folder} exists already; choose another --out{go_on}")
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    number = 1
    while True:
        folder = Path("runs") / f"{name}-{number}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if not Path("runs").is_dir():
                raise
            number += 1
        else:
            return folder


@contextlib.contextmanager
def new_results(out: str | None, name: str, first: str) -> Iterator[Path]:
    """Inside, a folder as ``new_folder`` makes it, locked.

    first: the file without which there is nothing in it worth keeping. If an error or Ctrl-C comes
        before it, the folder is left as it was: gone, or empty.
    """
    there = out is not None and Path(out).is_dir()
    folder = new_folder(out, name)
    with locked(folder):
        try:
            yield folder
        except BaseException:
            if not (folder / first).exists():
                with contextlib.suppress(OSError):  # runs/ holds other runs; Windows keeps .lock
                    _clear(folder)
                    if not there:
                        folder.rmdir()
                    if out is None:
                        folder.parent.rmdir()
            raise


def _clear(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Inside, this process alone writes to ``folder``.

    The lock belongs to the process: it ends with it, however it ends. Raises TensorgradError if
    another process holds it.
    """
    with (folder / _LOCK).open("a+") as file:
        if not _taken(file):
            file.seek(0)
            raise TensorgradError(
                f"{folder} is being written to by another process ({file.read().strip() or '?'}); "
                "wait for it to end, or choose another folder"
            )
        file.truncate(0)
        file.write(f"process {os.getpid()}\n")
        file.flush()
        yield


def _taken(file: TextIO) -> bool:
    """Whether the lock could be had."""
    try:
        import fcntl
    except ImportError:  # not on this system: two runs have to keep apart by themselves
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def write_json(path: Path, content: Mapping[str, Any] | list[dict[str, Any]]) -> None:
    """Write a JSON file in one step."""
    text = json_text(content) if isinstance(content, Mapping) else json.dumps(content, indent=2)
    write_atomically(path, (text + "\n").encode())


def json_text(content: Mapping[str, Any]) -> str:
    """JSON, in which a figure that is not finite is null: JSON has no NaN."""
    finite = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in content.items()
    }
    return json.dumps(finite, indent=2, allow_nan=False)


def read_json(path: Path) -> dict[str, Any]:
    """The content of a JSON file that a run left. Raises TensorgradError if it is damaged."""
    try:
        found = json.loads(read_whole(path))
    except DataFileError:
        raise
    except (ValueError, RecursionError) as error:
        raise TensorgradError(f"{path}: damaged ({str(error)[:100]}); train again") from error
    if not isinstance(found, dict):
        raise TensorgradError(f"{path}: damaged (no object); train again")
    return found
