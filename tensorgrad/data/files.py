"""Writing files so that a reader finds the old content or the new one, and never a part of it."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Make ``content`` the content of the file ``path``, all at once.

    The bytes go to a temporary file in the same folder, are forced to the disk, and only then take
    the name. Whatever interrupts this leaves the old file as it was.

    Raises OSError (FileNotFoundError if the folder does not exist, PermissionError, a full disk).
    """
    path = Path(path)
    # Not tempfile: its files stay readable for their owner alone after they are renamed.
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Force the new name to the disk as well, where the system can open a folder (not Windows)."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
