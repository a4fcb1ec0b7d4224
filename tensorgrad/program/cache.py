"""The folder on disk where built programs are kept from one run to the next.

What lies there is loaded and run, so that whoever can write there can run anything as the user. Two
things are told apart:

- **Whose it is** gives security: the folder and each file in it must belong to the user, and nobody
  else may write to them. Both are asked on open descriptors, never by name, and files are reached
  through the descriptor of the folder: what others rename above it changes nothing.
- **What it is** finds damage (a full disk, a crash, a flipped bit): a record beside each object
  holds its hash. Records are as writable as objects and prove nothing about who wrote them.

The bytes that were hashed are what is loaded, from memory: nothing that happens to a file later
reaches a process that runs. Without a cache, since the folder is refused or cannot be written to,
programs are built in every process, and a warning says so.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import secrets
import shlex
import stat
import tempfile
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from tensorgrad.errors import CompileError

# Bytes up to which an object is read, hashed and loaded from memory: 1 MiB takes 0.7 ms. The copy
# of OpenBLAS has 25 MB: 30 ms of every start, and memory that processes would not share. Larger
# objects are loaded from their file, and hashed again only where its inode, size or ctime differ
# from when that was last done. Nobody but the kernel sets ctime: what passes unseen is a disk that
# rots, against which NumPy's own OpenBLAS has no hash either. They are synced before they are
# noted, so that a crash leaves none whose times are right and whose bytes are not.
_SMALL = 1 << 20
_RECORD = 1 << 10  # bytes; a record is shorter

_lock = threading.RLock()
_loaded: dict[str, Any] = {}
_numbers = itertools.count()  # of what was loaded from memory
_warned: set[str] = set()


def _after_fork() -> None:
    """The thread that held the lock does not exist in the child."""
    global _lock
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_after_fork)


class _RefusedError(Exception):
    """A folder must not or cannot be used. remedy: what to type."""

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(reason)
        self.remedy = remedy


class _Record(NamedTuple):
    """What is known of an object: hashes of its source and of itself, and the file's state then."""

    source: str
    object: str
    size: int
    inode: int
    changed: int

    def fits(self, about: os.stat_result) -> bool:
        """Whether the file was left alone since it was hashed."""
        return (about.st_size, about.st_ino, about.st_ctime_ns) == self[2:]


def cache_folder() -> Path:
    """Where built programs are kept: ``$TENSORGRAD_CACHE``, or the user's cache folder."""
    chosen = os.environ.get("TENSORGRAD_CACHE")
    if chosen:
        return Path(os.path.abspath(os.path.expanduser(chosen)))
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):  # as the XDG specification wants it
        base = os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "tensorgrad"


def load(
    label: str,
    source: bytes,
    make: Callable[[], bytes],
    opened: Callable[[str], Any],
) -> Any:
    """A shared object, loaded once per process: from the cache, or made and put there.

    label: the beginning of its name. source: what it is made from, all of it; its hash is the key.
    make: gives the object's bytes. opened: loads the file of that name, and raises OSError or
        ImportError where it is no such object; then it is made anew, once.

    Raises CompileError if a new object cannot be loaded either, and what ``make`` raises.
    """
    digest = hashlib.sha256(source).hexdigest()
    name = f"{label}-{digest[:32]}"
    with _lock:
        if name in _loaded:
            return _loaded[name]
        with contextlib.suppress(_RefusedError), Folder(cache_folder()) as folder:
            found = folder.find(name, digest)
            if found is not None:
                with contextlib.suppress(OSError, ImportError):
                    _loaded[name] = folder.loaded(found, opened)
                    return _loaded[name]
    data = make()  # without the lock: other threads load and build meanwhile
    refused = None
    with _lock:
        if name not in _loaded:
            try:
                _loaded[name], refused = _kept(name, digest, data, opened)
            except (OSError, ImportError) as error:
                raise CompileError(f"what was built ({label}) cannot be loaded: {error}") from error
    if refused is not None:
        _warn(refused)
    return _loaded[name]


def _kept(
    name: str, digest: str, data: bytes, opened: Callable[[str], Any]
) -> tuple[Any, _RefusedError | None]:
    """Put an object into the cache and load it; and why it could not be put there."""
    try:
        with Folder(cache_folder()) as folder:
            try:
                file = folder.keep(name, digest, data)
            except OSError as error:
                raise _RefusedError(f"cannot be written to ({error.strerror})") from error
            return folder.loaded(file if len(data) > _SMALL else data, opened), None
    except _RefusedError as error:
        return _from_memory(name, data, opened), error


def _from_memory(name: str, data: bytes, opened: Callable[[str], Any]) -> Any:
    """Load an object that has no file, or one that is gone when this ends.

    The linker takes equal names for one library, and numbers of descriptors come again. So each
    object gets a spelling of its own: its number in binary, with "./" for 1 and "/" for 0.
    """
    with contextlib.suppress(AttributeError, OSError):  # not every system has it and allows it
        descriptor = os.memfd_create(name)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            spelling = f"{next(_numbers):b}".replace("0", "/").replace("1", "./")
            return opened(f"/proc/self/fd/{spelling}{descriptor}")
    with tempfile.TemporaryDirectory(prefix="tensorgrad-") as folder:
        path = os.path.join(folder, f"{name}.so")
        Path(path).write_bytes(data)
        return opened(path)


def _warn(refused: _RefusedError) -> None:
    """Say once why the cache is not used."""
    text = f"the cache folder {cache_folder()} {refused}"
    if text in _warned:
        return
    _warned.add(text)
    remedy = refused.remedy or (
        'mkdir -m 700 "$HOME/tensorgrad-cache"; export TENSORGRAD_CACHE="$HOME/tensorgrad-cache"'
    )
    warnings.warn(
        f"{text}, so programs are built anew in every process. To keep them, type  {remedy}",
        stacklevel=2,
    )


class Folder:
    """An open directory that belongs to the user and to which nobody else may write.

    Raises _RefusedError where that does not hold, or where it cannot be made.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = str(path)
        if not os.path.isabs(self._path):
            raise _RefusedError("has no place: the user has no home folder")
        quoted = shlex.quote(self._path)
        try:
            _make(self._path)
            self._fd = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError as error:
            if os.path.islink(self._path):
                whole = shlex.quote(os.path.realpath(self._path))
                raise _RefusedError(
                    "is a symbolic link", f"export TENSORGRAD_CACHE={whole}"
                ) from error
            raise _RefusedError(f"cannot be opened ({error.strerror})") from error
        try:
            about = os.fstat(self._fd)
            if about.st_uid != os.geteuid():
                raise _RefusedError(
                    f"belongs to user {about.st_uid} and not to user {os.geteuid()}, who runs this"
                )
            if about.st_mode & 0o022:
                raise _RefusedError(
                    "can be written to by other users, who could have their code run",
                    f"chmod go-w {quoted}",
                )
        except BaseException:
            os.close(self._fd)
            raise

    def __enter__(self) -> Folder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._fd)

    def loaded(self, found: bytes | str, opened: Callable[[str], Any]) -> Any:
        """Load the bytes of an object, or the file of that name.

        The file's name goes through the descriptor, where the system shows those: nobody else can
        replace it between check and loading then. There is a hash in it, so that it is right to
        take equal names for one library.
        """
        if isinstance(found, bytes):
            return _from_memory("tensorgrad", found, opened)
        place = f"/proc/self/fd/{self._fd}"
        try:
            return opened(os.path.join(place if os.path.isdir(place) else self._path, found))
        except OSError:  # as on a file system from which nothing may be run
            with self._open(found) as stream:
                return _from_memory("tensorgrad", stream.read(), opened)

    def find(self, name: str, source: str) -> bytes | str | None:
        """The object of that name, or its file if it is large; if it is ours and undamaged."""
        try:
            with self._open(f"{name}.sum") as stream:
                fields = stream.read(_RECORD).split()
            record = _Record(
                fields[0].decode("ascii"), fields[1].decode("ascii"), *map(int, fields[2:5])
            )
            if record.source != source:
                return None
            file = _file_of(name, record.object)
            with self._open(file) as stream:
                about = os.fstat(stream.fileno())
                if about.st_size != record.size:
                    return None
                if about.st_size <= _SMALL:
                    data: bytes = stream.read(_SMALL + 1)
                    return data if hashlib.sha256(data).hexdigest() == record.object else None
                if record.fits(about):
                    return file
                if hashlib.file_digest(stream, "sha256").hexdigest() != record.object:
                    return None
        except (OSError, ValueError, IndexError, TypeError):  # gone, not ours, or no record
            return None
        with contextlib.suppress(OSError):  # a full or read-only disk: hashed again next time
            self._note(name, source, record.object, about)
        return file

    def keep(self, name: str, source: str, data: bytes) -> str:
        """Put an object there, whole or not at all, and return the name of its file.

        Processes that build the same at once agree: the record is what counts, it names its object
        by content, and each is replaced in one step. Raises OSError.
        """
        digest = hashlib.sha256(data).hexdigest()
        file = _file_of(name, digest)
        self._write(file, data)
        about = os.stat(file, dir_fd=self._fd, follow_symlinks=False)
        self._note(name, source, digest, about)
        with contextlib.suppress(OSError):  # not every file system does that
            os.fsync(self._fd)
        return file

    def _note(self, name: str, source: str, digest: str, about: os.stat_result) -> None:
        record = _Record(source, digest, about.st_size, about.st_ino, about.st_ctime_ns)
        self._write(f"{name}.sum", " ".join(map(str, record)).encode() + b"\n")

    def _open(self, file: str) -> Any:
        """A file for reading. Raises OSError where it is none of the user's alone."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # a FIFO would be waited for
        stream = os.fdopen(os.open(file, flags, dir_fd=self._fd), "rb")
        about = os.fstat(stream.fileno())
        if (
            stat.S_ISREG(about.st_mode)
            and about.st_uid == os.geteuid()
            and not about.st_mode & 0o022
        ):
            return stream
        stream.close()
        raise PermissionError(f"{file} is no file of the user's alone")

    def _write(self, file: str, data: bytes) -> None:
        part = f".{secrets.token_hex(8)}.part"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        try:
            with os.fdopen(os.open(part, flags, 0o600, dir_fd=self._fd), "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(part, file, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(part, dir_fd=self._fd)
            raise


def _file_of(name: str, digest: str) -> str:
    return f"{name.rpartition('-')[0]}-{digest[:32]}.so"


def _make(path: str) -> None:
    """Make the folder and those above it, as the XDG specification wants them: 0700."""
    missing = []
    while not os.path.lexists(path):
        missing.append(path)
        path = os.path.dirname(path)
    for folder in reversed(missing):
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)
