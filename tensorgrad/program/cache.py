"""The folder on disk where built programs are kept from one run to the next.

What lies there is loaded and run, so that whoever can write there can run anything as the user. Two
things are told apart:

- **Whose it is** gives security: the folder and each file in it must belong to the user, and nobody
  else may write to them. Both are asked on open descriptors, never by name, and files are reached
  through the descriptor of the folder: what others rename above it changes nothing.
- **What it is** finds damage (a full disk, a crash, a flipped bit): a record beside each object
  holds its hash. Records are as writable as objects and prove nothing about who wrote them.

The bytes that were hashed are what is loaded, from memory: nothing that happens to a file later
reaches a process that runs. (A copy of a large library is loaded from its file: ``load_copy``.)
Without a cache, since the folder is refused or cannot be written to, programs are built in every
process, and a warning says so.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import secrets
import shlex
import shutil
import stat
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from tensorgrad.errors import CompileError
from tensorgrad.program.forks import GATE

_RECORD = 1 << 10  # bytes; a record is shorter
_BLOCK = 1 << 20  # bytes that are copied or compared at a time
_STALE = 3600.0  # seconds after which nobody goes on writing a file

_lock = threading.RLock()
_loaded: dict[str, Any] = {}
_numbers = itertools.count()  # of what was loaded from memory
_warned: set[str] = set()


def _after_fork() -> None:
    """The thread that held the lock, if a fork did not wait for it, does not exist in the child."""
    global _lock
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_after_fork)


class _RefusedError(Exception):
    """A folder must not or cannot be used. remedy: what to type."""

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(reason)
        self.remedy = remedy


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
    with GATE, _lock:
        if name in _loaded:
            return _loaded[name]
        with contextlib.suppress(_RefusedError), Folder(cache_folder()) as folder:
            found = folder.find(name, digest)
            if found is not None:
                with contextlib.suppress(OSError, ImportError):
                    _loaded[name] = _from_memory(name, found, opened)
                    return _loaded[name]
    data = make()  # without the lock: other threads load and build meanwhile
    refused = None
    with GATE, _lock:
        if name not in _loaded:
            try:
                with Folder(cache_folder()) as folder:
                    folder.keep(name, digest, data)
            except _RefusedError as error:
                refused = error
            try:
                _loaded[name] = _from_memory(name, data, opened)
            except (OSError, ImportError) as error:
                raise CompileError(f"what was built ({label}) cannot be loaded: {error}") from error
    if refused is not None:
        _warn(refused)
    return _loaded[name]


def load_copy(label: str, path: str, opened: Callable[[str], Any]) -> Any:
    """Load a copy of a library, once per process, so that there are two instances of it.

    label: the beginning of the copy's name. opened: loads the file of that name.

    An OpenBLAS has 25 MB: to hash it takes 15 ms of every start, and from memory it would not be
    shared by processes. So the copy is loaded from its file, and what is recorded is the file's
    size, inode and ctime, which nobody but the kernel sets, and the boot of the machine. Where one
    of them differs, the copy is compared with the original, or made again, which is as quick. It
    need not be synced: what is in memory when a machine goes down is lost with the boot.

    Raises OSError where it cannot be loaded.
    """
    about = os.stat(path)
    digest = hashlib.sha256(f"{path}\0{about.st_size}\0{about.st_mtime_ns}".encode()).hexdigest()
    name = f"{label}-{digest[:32]}"
    refused = None
    with GATE, _lock:
        if name not in _loaded:
            try:
                with Folder(cache_folder()) as folder:
                    _loaded[name] = folder.load_copy(name, digest, path, opened)
            except _RefusedError as error:
                refused = error
                _loaded[name] = _from_memory(name, Path(path).read_bytes(), opened)
    if refused is not None:
        _warn(refused)
    return _loaded[name]


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

    def find(self, name: str, source: str) -> bytes | None:
        """The object of that name, if it is ours and undamaged."""
        try:
            noted, digest = self._record(name).split()
            if noted.decode() != source:
                return None
            with self._open(_file_of(name, digest.decode())) as stream:
                data: bytes = stream.read()
        except (OSError, ValueError):  # gone, not ours, or no record
            return None
        return data if hashlib.sha256(data).hexdigest() == digest.decode() else None

    def keep(self, name: str, source: str, data: bytes) -> None:
        """Put an object there, whole or not at all.

        Processes that build the same at once agree: the record is what counts, it names its object
        by content, and each is replaced in one step. Raises _RefusedError.
        """
        digest = hashlib.sha256(data).hexdigest()
        self._write(_file_of(name, digest), lambda stream: stream.write(data), sync=True)
        self._note(name, f"{source} {digest}")  # of which nothing remains if the machine goes down

    def load_copy(self, name: str, source: str, path: str, opened: Callable[[str], Any]) -> Any:
        """See the function of that name. Raises _RefusedError."""
        file = f"{name}.so"
        with open(path, "rb") as original:
            try:
                with self._open(file) as copy:
                    state = _state(os.fstat(copy.fileno()))
                    known = self._record(name) == f"{source} {state}\n".encode()
                    fits = known or _equal(copy, original)
            except OSError:
                known = fits = False
            if not fits:
                original.seek(0)
                self._write(file, lambda copy: shutil.copyfileobj(original, copy, _BLOCK))
                state = _state(os.stat(file, dir_fd=self._fd, follow_symlinks=False))
        if not known:
            with contextlib.suppress(_RefusedError):  # then it is compared again next time
                self._note(name, f"{source} {state}")
        # The name goes through the descriptor, where the system shows those: nobody else can put
        # another file in its place. Equal names are one library for the linker, which is right.
        place = f"/proc/self/fd/{self._fd}"
        try:
            return opened(os.path.join(place if os.path.isdir(place) else self._path, file))
        except OSError:  # as on a file system from which nothing may be run
            return _from_memory(name, Path(path).read_bytes(), opened)

    def _record(self, name: str) -> bytes:
        with self._open(f"{name}.sum") as stream:
            record: bytes = stream.read(_RECORD)
            return record

    def _note(self, name: str, record: str) -> None:
        self._write(f"{name}.sum", lambda stream: stream.write(f"{record}\n".encode()))

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

    def _write(self, file: str, fill: Callable[[BinaryIO], Any], sync: bool = False) -> None:
        """Write a file and give it its name when it is whole. Raises _RefusedError."""
        part = f".{secrets.token_hex(8)}.part"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        try:
            with os.fdopen(os.open(part, flags, 0o600, dir_fd=self._fd), "wb") as stream:
                fill(stream)
                stream.flush()
                if sync:
                    os.fsync(stream.fileno())
            os.replace(part, file, src_dir_fd=self._fd, dst_dir_fd=self._fd)
            self._tidy()
        except BaseException as error:
            with contextlib.suppress(OSError):
                os.unlink(part, dir_fd=self._fd)
            if isinstance(error, OSError):
                raise _RefusedError(f"cannot be written to ({error.strerror})") from error
            raise

    def _tidy(self) -> None:
        """Remove what processes that were killed left half-written."""
        with os.scandir(self._fd) as entries:
            for entry in entries:
                if entry.name.startswith(".") and entry.name.endswith(".part"):
                    with contextlib.suppress(OSError):  # another process may do the same
                        if time.time() - entry.stat(follow_symlinks=False).st_mtime > _STALE:
                            os.unlink(entry.name, dir_fd=self._fd)


def _state(about: os.stat_result) -> str:
    """What changes with a file's content, and with the machine's memory."""
    boot = ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{about.st_size} {about.st_ino} {about.st_ctime_ns} {boot or secrets.token_hex(8)}"


def _equal(one: BinaryIO, other: BinaryIO) -> bool:
    """Whether two files have the same content."""
    while (block := one.read(_BLOCK)) == other.read(_BLOCK):
        if not block:
            return True
    return False


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
