"""The system's C compiler: C text becomes a library or a Python extension, kept on disk.

Nothing is believed of the compiler but that it is no enemy: it may be missing, fail, hang, write
nothing or something else than a library, and say what is no text. All of that is a CompileError,
after which a program runs by NumPy.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.machinery
import importlib.util
import itertools
import os
import select
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic
from types import ModuleType
from typing import Any

from tensorgrad.errors import CompileError
from tensorgrad.program import cache

# No flag that changes what NaN, infinities or signed zeros do. An expression may be contracted to
# fused multiply-adds, which round once instead of twice. Integers wrap around, as NumPy's do.
FLAGS = (
    "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast",
    "-fwrapv", "-fopenmp-simd", "-w",
)  # fmt: skip
SOURCES = Path(__file__).parent / "c"

#: What an error says where there is no compiler.
NONE_FOUND = (
    "the native executor needs a C compiler; install one (apt install gcc) or name it in CC, or "
    'compile(..., executor="numpy")'
)
#: Separates, in a text, the header, functions that may be compiled apart, and what calls them.
APART = "/* --- */\n"
# The characters of a part of a long text.
_PART = 1 << 16

# Seconds that one program may take, and the bytes of its text that get another second each. On an
# idle core it is 70,000 bytes a second.
LIMIT, _SPEED = 60.0, 5_000
# Seconds after which a compiler has to compile a single line as well, beside the program: on a
# machine that may be busy no limit of time tells one that hangs from one that has much to do. And
# the seconds that it has for that line, or to say which version it is.
PATIENCE, ANSWER = 5.0, 8.0
_SAID = 1 << 16  # bytes of what a compiler says that are kept
_SHOWN = 4000  # and the characters of it that an error shows
_SHARED, _LOADED = 3, 1  # ELF's numbers for shared objects (ET_DYN) and what is mapped (PT_LOAD)

#: commands that hung, and how: they are not asked again by this process
_hung: dict[tuple[str, ...], str] = {}


def compiler() -> str | None:
    """The command of the C compiler: ``$CC``, or ``cc``, ``gcc``, ``clang``; ``None`` without one.

    ``CC`` may hold options besides, as in ``CC="gcc -O2"``. It is taken as it is, whether or not
    there is such a program: nothing else is called in its place.
    """
    command = _words(os.environ.get("CC"), os.environ.get("PATH"))
    return None if command is None else shlex.join(command)


@functools.lru_cache(8)
def _words(chosen: str | None, _path: str | None) -> tuple[str, ...] | None:
    """The words of the command; ``_path``: what the search for it depends on."""
    if chosen and chosen.strip():
        if shutil.which(chosen) is not None:
            return (chosen,)  # a path with spaces in it
        try:
            return tuple(shlex.split(chosen))
        except ValueError:  # a quotation that does not end: reported as no program of that name
            return (chosen,)
    for name in ("cc", "gcc", "clang"):
        found = shutil.which(name)
        if found is not None:
            return (found,)
    return None


def _command() -> tuple[str, ...]:
    """The words of the command. Raises CompileError where it cannot be called."""
    command = _words(os.environ.get("CC"), os.environ.get("PATH"))
    if command is None:
        raise CompileError(NONE_FOUND)
    if shutil.which(command[0]) is None:
        raise CompileError(
            f"CC names the C compiler {command[0]!r}, which is no program that can be run; set CC "
            "to one that can, or unset it so that cc, gcc or clang is taken"
        )
    return command


class _HangsError(Exception):
    """A command took longer than it may; how."""


def _run(
    command: Sequence[str],
    seconds: float,
    scratch: str | None = None,
    is_alive: Callable[[], bool] | None = None,
) -> tuple[int, bytes]:
    """Run a command: its status, and the beginning of what it says.

    scratch: a folder for its temporary files. is_alive: asked once, after PATIENCE.

    Raises CompileError where it cannot be started, _HangsError where it takes longer than
    ``seconds``, or ``is_alive`` gives False.
    """
    environment = {**os.environ, "LC_ALL": "C"}
    if scratch is not None:
        environment["TMPDIR"] = scratch
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=environment, start_new_session=True,
        )  # fmt: skip
    except (OSError, ValueError) as error:
        raise CompileError(f"the C compiler {command[0]} cannot be run: {error}") from error
    assert process.stdout is not None
    said = bytearray()
    start = monotonic()
    pipe = process.stdout.fileno()
    try:
        poll = select.poll()
        poll.register(pipe, select.POLLIN)
        talks = True
        while talks or process.poll() is None:
            taken = monotonic() - start
            if taken > seconds:
                raise _HangsError(f"took longer than {seconds:g} s")
            if is_alive is not None and taken > PATIENCE:
                if not is_alive():
                    raise _HangsError(f"took longer than {PATIENCE:g} s, as does a single line")
                is_alive = None
            if not talks:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.05)
            elif poll.poll(50):
                data = os.read(pipe, _SAID)
                said += data[: _SAID - len(said)]
                talks = bool(data)
            elif process.poll() is not None:
                break  # who has ended may have left somebody behind that holds the pipe
    finally:
        if process.poll() is None:
            # The driver, and the compiler proper that it started.
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1)
        process.stdout.close()
    return process.returncode, bytes(said)


def _readable(said: bytes) -> str:
    """What a compiler said, without what terminals would obey."""
    text = said.decode("utf-8", "backslashreplace")[:_SHOWN]
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)


def _hangs(command: tuple[str, ...], how: _HangsError) -> CompileError:
    """The error for a command that hung, which is noted."""
    _hung[command] = f"the C compiler {shlex.join(command)} hangs: it {how}; it is not called again"
    return CompileError(_hung[command])


@functools.cache
def _target(command: tuple[str, ...]) -> tuple[bytes, tuple[str, ...]]:
    """What the compiler says of itself and of this processor, and flags for the latter."""
    said = b""
    for options in (["--version"], ["-march=native", "-Q", "--help=target"]):
        try:
            said += _run([*command, *options], ANSWER)[1]
        except _HangsError as error:
            raise _hangs(command, error) from None
    wide = any(line.split()[:2] == [b"-mavx512f", b"[enabled]"] for line in said.splitlines())
    return said, ("-mprefer-vector-width=512",) if wide else ()


def _answers(command: tuple[str, ...]) -> bool:
    """Whether a compiler can compile one line."""
    with tempfile.TemporaryDirectory(prefix="tensorgrad-") as scratch:
        source = os.path.join(scratch, "line.c")
        Path(source).write_text("int line;\n")
        made = os.path.join(scratch, "line.o")
        try:
            _run([*command, "-c", source, "-o", made], ANSWER, scratch)
        except _HangsError:
            return False
    return True


def _parts(text: str) -> list[str]:
    """A long text as several that can be compiled at the same time."""
    head, *units = text.split(APART)
    if len(text) < 2 * _PART or len(units) < 2:
        return [text]
    *units, rest = units
    groups = [""]
    for unit in units:
        if len(groups[-1]) + len(unit) > _PART and groups[-1]:
            groups.append("")
        groups[-1] += unit
    head = f'#define TG_UNIT __attribute__((visibility("hidden")))\n{head}'
    return [head + group for group in (*groups, rest)]


def _object(text: str, command: tuple[str, ...], flags: Sequence[str]) -> bytes:
    """The library that a text becomes. Raises CompileError."""
    if command in _hung:
        raise CompileError(_hung[command])
    parts = _parts(text)
    try:
        with tempfile.TemporaryDirectory(prefix="tensorgrad-") as scratch:
            call = functools.partial(_compiled, command, flags, scratch)
            library = ["-shared", "-fPIC", f"-I{SOURCES}"]
            if len(parts) == 1:
                made = call("program.so", library, text)
            else:
                with ThreadPoolExecutor(os.cpu_count()) as threads:
                    names = [f"part{k}.o" for k in range(len(parts))]
                    single = itertools.repeat(["-c", "-fPIC", f"-I{SOURCES}"])
                    objects = list(threads.map(call, names, single, parts))
                made = call("program.so", [*library, *objects])
            data = Path(made).read_bytes()
    except _HangsError as error:
        raise _hangs(command, error) from None
    except OSError as error:
        raise CompileError(f"there is no room to compile in: {error}") from error
    if not _is_library(data):
        shown = shlex.join(command)
        raise CompileError(f"the C compiler {shown} wrote {len(data)} bytes that are no library")
    return data


def _compiled(
    command: tuple[str, ...],
    flags: Sequence[str],
    scratch: str,
    name: str,
    options: Sequence[str],
    text: str = "",
) -> str:
    """The file of that name that the compiler makes of a text, and of files among its options.

    Raises CompileError, _HangsError and OSError.
    """
    shown = shlex.join(command)
    made = os.path.join(scratch, name)
    whole = [*command, *flags, *options]
    if text:
        source = f"{os.path.splitext(made)[0]}.c"
        Path(source).write_text(text)
        whole.append(source)
    whole += ["-o", made, "-lm", "-pthread"]
    seconds = LIMIT + len(text) / _SPEED
    status, said = _run(whole, seconds, scratch, lambda: _answers(command))
    if status:
        raise CompileError(f"the C compiler {shown} failed ({status}):\n{_readable(said)}")
    if not os.path.isfile(made):
        raise CompileError(f"the C compiler {shown} ended well, but wrote nothing")
    return made


def _is_library(data: bytes) -> bool:
    """Whether bytes are a shared object in the format of this system, and all there.

    The linker maps what the headers name without asking how long the file is: what is cut off
    crashes the process later.
    """
    if sys.platform != "linux":
        return bool(data)
    wide, order = struct.calcsize("P") == 8, "<" if sys.byteorder == "little" else ">"
    if data[:6] != b"\x7fELF" + bytes([1 + wide, 1 + (order == ">")]):
        return False
    head = order + ("16xH14xQ14xHH" if wide else "16xH10xI10xHH")
    part = order + ("I4xQ16xQ" if wide else "II8xI")
    try:
        kind, table, size, count = struct.unpack_from(head, data)
        for k in range(count):
            what, offset, length = struct.unpack_from(part, data, table + k * size)
            if what == _LOADED and offset + length > len(data):
                return False
    except (struct.error, OverflowError):
        return False
    return kind == _SHARED and count > 0


def build(text: str | Callable[[], str], symbols: Sequence[str] = (), key: str = "") -> ctypes.CDLL:
    """C text as a library that has ``symbols``, compiled or found in the cache.

    text: or a function that writes it, where ``key`` says what it would be.

    Raises CompileError with what the compiler says, if it fails, or there is none.
    """

    def opened(path: str) -> ctypes.CDLL:
        library = ctypes.CDLL(path)
        for name in symbols:
            if not hasattr(library, name):
                raise OSError(f"the library has no function {name}")
        return library

    return _loaded("program", text, (), opened, key)


def extension(name: str, text: str, options: Sequence[str] = ()) -> ModuleType:
    """C text as an extension module of Python, compiled or found in the cache.

    options: more for the compiler's command line; the text must change where they mean another
        thing.

    Raises CompileError as ``build`` does.
    """

    def opened(path: str) -> ModuleType:
        loader = importlib.machinery.ExtensionFileLoader(name, path)
        spec = importlib.util.spec_from_loader(name, loader)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        loader.exec_module(module)
        return module

    return _loaded(name, text, options, opened)


def _headers() -> bytes:
    """All headers, which a text may include."""
    return b"\0\0".join(path.read_bytes() for path in sorted(SOURCES.glob("*.h")))


def _loaded(
    label: str, text: Any, options: Sequence[str], opened: Callable[[str], Any], key: str = ""
) -> Any:
    """What ``opened`` makes of the library that a text becomes.

    The key in the cache is a hash of the text, or of what stands for it, the headers, the flags,
    the compiler, the processor and the C library.
    """
    command = _command()
    if command in _hung:
        raise CompileError(_hung[command])
    said, more = _target(command)
    flags = [*FLAGS, *more, *options]
    libc = ""
    with contextlib.suppress(ValueError, OSError):
        libc = os.confstr("CS_GNU_LIBC_VERSION") or ""
    words = "\0\0".join(["\0".join(command), "\0".join(flags), libc])
    source = b"\0\0".join([(key or text).encode(), _headers(), said, os.fsencode(words)])

    def make() -> bytes:
        return _object(text() if callable(text) else text, command, flags)

    return cache.load(label, source, make, opened)
