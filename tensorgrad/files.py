"""What readers and writers of files share: errors that name the file, writing in one step."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from tensorgrad.errors import TensorgradError

DEFLATE_LIMIT = 1032  # deflate never shrinks data by more than this factor
_CHUNK = 1 << 20


class DataFileError(TensorgradError, ValueError):
    """A file is not what it should be: torn, altered, empty, or of another format.

    path: the file. reason: what is wrong with it. remedy: what to do.
    """

    def __init__(self, path: str | os.PathLike[str], reason: str, remedy: str) -> None:
        super().__init__(os.fspath(path), reason, remedy)  # all three, so that it can be pickled
        self.path, self.reason, self.remedy = os.fspath(path), reason, remedy

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}; {self.remedy}"


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """The file ``path``, opened to be read. Raises OSError if it cannot be.

    Raises DataFileError for a FIFO, a device or a socket, which might never end or never begin.
    """
    try:
        mode = os.stat(path).st_mode
    except ValueError as error:
        raise DataFileError(path, f"no name of a file ({error})", "correct it") from error
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise DataFileError(
            path, "a FIFO, a device or a socket, not a file", "copy what it gives into a file"
        )
    return open(path, "rb")


def read_whole(path: str | os.PathLike[str]) -> bytes:
    """The content of a file; raises as ``open_regular``."""
    with open_regular(path) as file:
        return file.read()


def read_utf8(path: str | os.PathLike[str], remedy: str = "save it so") -> str:
    """The text in a file, without a byte order mark; raises as ``open_regular``.

    Raises DataFileError, with the remedy, for one that is not UTF-8.
    """
    try:
        return read_whole(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataFileError(path, f"not UTF-8 (byte {error.start:,})", remedy) from error


def read_at_most(file: BinaryIO, wanted: int) -> bytearray:
    """Up to ``wanted`` bytes, in pieces, so that memory grows only as the data really comes."""
    content = bytearray()
    while len(content) < wanted:
        piece = file.read(min(_CHUNK, wanted - len(content)))
        if not piece:
            break
        content += piece
    return content


def write_atomically(
    path: str | os.PathLike[str], content: bytes, before: Callable[[], None] | None = None
) -> None:
    """Make ``content`` the content of the file ``path``, all at once.

    The bytes go to a temporary file in the same folder, are forced to the disk, and only then take
    the name. Whatever interrupts this leaves the old file as it was. Where ``path`` is a symbolic
    link, it stays one, and the file it leads to is written; who may read it stays the same too.

    before: called when the bytes are on the disk, just before they take the name.

    Raises OSError (FileNotFoundError if the folder does not exist, PermissionError, a full disk, a
    device or folder of that name).
    """
    path = linked_file(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "there is no such folder", str(path.parent))
    if path.exists() and not path.is_file():  # to rename a file to /dev/null would replace it
        raise OSError(errno.EINVAL, "only a regular file can be written anew", str(path))
    # Not tempfile: its files stay readable for their owner alone after they are renamed.
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(OSError):  # there is no old file, or the disk knows no modes
            part.chmod(stat.S_IMODE(path.stat().st_mode))
        if before is not None:
            before()
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def linked_file(path: str | os.PathLike[str]) -> Path:
    """``path``, or what it leads to in the end if it is a symbolic link.

    Raises OSError for links that go in a circle.
    """
    path = Path(path)
    if not path.is_symlink():
        return path
    found = Path(os.path.realpath(path))
    if found.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    return found


def remove_parts(path: str | os.PathLike[str]) -> None:
    """Remove what processes that were killed left of ``write_atomically(path)``."""
    path = linked_file(path)
    if not path.parent.is_dir():
        return
    for entry in path.parent.iterdir():  # not glob: a name may hold its special characters
        if entry.name.startswith(f".{path.name}.") and entry.name.endswith(".part"):
            entry.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Force the new name to the disk as well, where the system can open a folder (not Windows)."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
