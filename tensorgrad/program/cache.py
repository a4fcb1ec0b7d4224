"""The folder on disk where built programs are kept from one run to the next."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
from pathlib import Path


def cache_folder() -> Path:
    """Where built programs are kept: ``$TENSORGRAD_CACHE``, or the user's cache folder."""
    chosen = os.environ.get("TENSORGRAD_CACHE")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "tensorgrad"


@functools.cache
def writable(folder: Path) -> Path:
    """The folder, or one for this process alone where that cannot be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder):
            return folder
    except OSError:
        private = tempfile.mkdtemp(prefix="tensorgrad-")
        atexit.register(shutil.rmtree, private, ignore_errors=True)
        return Path(private)
