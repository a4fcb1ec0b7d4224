"""Runs the CUDA kernels on the CPU, called like CuPy's ``RawModule``.

``load(source, options)`` has g++ compile the source together with ``cuda_on_cpu.h`` and
``cuda_on_cpu.cpp``, where every thread of a block is a fiber. Launches run under a schedule:
which thread goes on at each switch. An error in synchronization shows under some of them, so tests
run a kernel under all ``SCHEDULES``. Errors are raised: barriers that not all threads reach,
launches over the limits, arguments of the wrong type, misaligned accesses, indices outside arrays
of known size, signed overflow. Accesses outside the arguments' memory need AddressSanitizer: run
the tests in a process with ``sanitizer_env()``.

What it cannot show: faults of streams, events and lifetimes; races that need more than a switch at
a barrier, a shuffle or a vote, above all between blocks; the GPU's rounding and the values of its
mathematical functions; tensor cores, inline PTX and dynamic shared memory; the total of shared
memory and registers; occupancy and speed; and what NVRTC would refuse to compile.

The compiler's flags keep arithmetic to IEEE 754, and ``-ffp-contract=off`` makes no fused
multiply-adds, so that results are the same on x86-64 and aarch64; a GPU does fuse, which makes its
results a little different. There is never ``-ffast-math``: linking with it would switch denormals
off for the whole process.

Environment: ``TENSORGRAD_EMULATOR_CACHE`` is the folder of compiled sources,
``TENSORGRAD_EMULATOR_FLAGS`` has further flags for g++. With ``-fsanitize=`` among them, the checks
built into the emulator give way to those of the sanitizers.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import re
import shlex
import shutil
import stat
import subprocess
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

#: In order and backwards, each warp by itself; in order and backwards, all threads in turn; by
#: chance, all threads; by chance, each warp by itself. Greater numbers are further seeds.
SCHEDULES = (0, 1, 2, 3, 4, 5)

#: the schedule of launches that name none; see ``scheduled``
schedule = 0

_HEADER = Path(__file__).with_name("cuda_on_cpu.h")
_RUNTIME = Path(__file__).with_name("cuda_on_cpu.cpp")
_TRAFFIC = Path(__file__).with_name("traffic.cpp")
_FLAGS = (
    "-std=c++17", "-O1", "-fPIC", "-w",
    "-ffp-contract=off",
    "-fno-strict-aliasing",  # packs of 16 bytes are read from arrays of their elements
    # Variables of templates belong to one library, even if another has some of the same name.
    "-fno-gnu-unique", "-fvisibility=hidden", "-fvisibility-inlines-hidden",
)  # fmt: skip
#: the compiler's own checks, and the emulator's stand-in for the library that they call
_CHECKS = (
    "-fsanitize=alignment,null,bounds,integer-divide-by-zero,shift-exponent,signed-integer-overflow"
)
_STAND_IN = "-DCUDA_ON_CPU_CHECKS"
#: options of NVRTC that mean nothing here
_IGNORED = re.compile(r"--?(std|gpu-architecture|arch|fmad|generate-line-info|lineinfo|w)\b")
_KERNEL = re.compile(
    r'extern\s+"C"\s+__global__\s+void(?:\s+__launch_bounds__\(([^)]*)\))?\s+(\w+)\s*\('
)

#: dtypes of the arrays for a pointer, by the type it points to
_ARRAYS: dict[str, tuple[Any, ...]] = {
    "float": (np.float32,),
    "double": (np.float64,),
    "f16": (np.float16, np.uint16),
    "bf16": (ml_dtypes.bfloat16, np.uint16),
    "bool": (np.bool_, np.uint8),
    "char": (np.int8,),
    "signed char": (np.int8,),
    "unsigned char": (np.uint8, np.bool_),
    "short": (np.int16,),
    "unsigned short": (np.uint16,),
    "int": (np.int32,),
    "unsigned int": (np.uint32,),
    "long": (np.int64,),
    "long long": (np.int64,),
    "unsigned long": (np.uint64,),
    "unsigned long long": (np.uint64,),
}


@cache
def available() -> str | None:
    """Why kernels cannot run here, or None if they can."""
    if shutil.which("g++") is None:
        return "the emulator needs g++"
    if platform.system() != "Linux":
        return "the emulator needs Linux"
    return None


@contextmanager
def scheduled(number: int) -> Iterator[None]:
    """Launches within use this schedule, unless they name another."""
    global schedule
    before, schedule = schedule, number
    try:
        yield
    finally:
        schedule = before


@dataclass
class Traffic:
    """The bytes that launches read and wrote in their arrays, by the name of the kernel.

    also: arrays that kernels reach through tables of addresses.
    """

    launches: list[tuple[str, int]] = field(default_factory=list)
    also: list[np.ndarray[Any, Any]] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """Of all launches."""
        return sum(n for _, n in self.launches)


_traffic: Traffic | None = None


@contextmanager
def counted() -> Iterator[Traffic]:
    """Count what sources that are loaded within read and write.

    An array of at most a sixteenth of the launch's largest one is taken to stay in the caches: of
    it each byte counts once, of the others each access.
    """
    global _traffic
    before, _traffic = _traffic, Traffic()
    try:
        yield _traffic
    finally:
        _traffic = before


class _Request(ctypes.Structure):
    _fields_ = (
        ("shape", ctypes.c_uint * 6),
        ("schedule", ctypes.c_int),
        ("room", ctypes.c_int),
        ("error", ctypes.c_char_p),
        ("values", ctypes.c_void_p),
    )


class _Parameter(NamedTuple):
    type: str
    dtypes: tuple[np.dtype[Any], ...]  # empty: any
    pointer: bool
    written: bool  # points to memory that the kernel may write

    @classmethod
    def of(cls, type_: str) -> _Parameter:
        """From the type as C++ spells it."""
        target, star, _ = type_.rpartition("*")
        if not star:
            if type_ in ("f16", "bf16") or type_ not in _ARRAYS:
                raise TypeError(f"a parameter of type {type_} is not emulated")
            return cls(type_, (np.dtype(_ARRAYS[type_][0]),), False, False)
        written = not target.endswith(" const")
        target = target.removesuffix(" const")
        if target.endswith("*"):
            return cls(type_, (np.dtype(np.uint64),), True, written)
        if target == "void":
            return cls(type_, (), True, written)
        if target not in _ARRAYS:
            raise TypeError(f"a parameter of type {type_} is not emulated")
        return cls(type_, tuple(map(np.dtype, _ARRAYS[target])), True, written)

    def expected(self) -> str:
        names = " or ".join(map(str, self.dtypes)) or "any dtype"
        return f"{'an array' if self.pointer else 'a scalar'} of {names}"

    def value(self, argument: Any) -> np.ndarray[Any, Any] | None:
        """One element with the bits to pass, or None if the argument is of another type."""
        if self.pointer:
            if not isinstance(argument, np.ndarray):
                return None
            if self.dtypes and argument.dtype not in self.dtypes:
                return None
            return np.array([argument.ctypes.data], np.uintp)
        # As CuPy passes numbers: Python's own in 64 bits.
        if isinstance(argument, np.generic):
            found = np.array([argument], argument.dtype)
        elif isinstance(argument, bool):
            found = np.array([argument], np.bool_)
        elif isinstance(argument, int):
            found = np.array([argument], np.int64)
        elif isinstance(argument, float):
            found = np.array([argument], np.float64)
        else:
            return None
        return found if found.dtype == self.dtypes[0] else None


def _described(argument: Any) -> str:
    if isinstance(argument, np.ndarray):
        return f"an array of {argument.dtype}"
    if isinstance(argument, np.generic):
        return f"a scalar of {argument.dtype}"
    return f"{argument!r} of type {type(argument).__name__}"


def _three(numbers: tuple[int, ...]) -> tuple[int, ...]:
    if not 1 <= len(numbers) <= 3:
        raise ValueError(f"a grid or block has one to three dimensions, not {numbers!r}")
    return (*numbers, *(1,) * (3 - len(numbers)))


#: Libraries whose stacks are kept, those used last at the end, and how many these may be: a process
#: may map 65,530 pieces of memory by default, and each library keeps up to 256 for its stacks.
_WITH_STACKS: OrderedDict[int, ctypes.CDLL] = OrderedDict()
_MOST_WITH_STACKS = 24


def _in_use(library: ctypes.CDLL) -> None:
    """Keep the stacks of this library, and give back those of the one used longest ago."""
    key = id(library)
    if key in _WITH_STACKS:
        _WITH_STACKS.move_to_end(key)
        return
    _WITH_STACKS[key] = library
    while len(_WITH_STACKS) > _MOST_WITH_STACKS:
        _WITH_STACKS.popitem(last=False)[1].cuda_on_cpu_release()


class Kernel:
    """A kernel of a compiled source, called as ``kernel(grid, block, args)``."""

    def __init__(self, library: ctypes.CDLL, name: str) -> None:
        self.name = name
        self._library = library
        self._launch = getattr(library, f"cuda_on_cpu_launch_{name}")
        self._launch.restype = None
        self._launch.argtypes = (ctypes.POINTER(_Request),)
        self._switches = library.cuda_on_cpu_switches
        self._switches.restype = ctypes.c_ulonglong
        types = getattr(library, f"cuda_on_cpu_parameters_{name}")
        types.restype = ctypes.c_char_p
        #: the parameters' types as C++ spells them
        self.types: tuple[str, ...] = tuple(types().decode().splitlines())
        self._parameters = tuple(map(_Parameter.of, self.types))

    @property
    def num_params(self) -> int:
        """How many arguments it takes."""
        return len(self.types)

    @property
    def switches(self) -> int:
        """How often the last launch of this kernel's module began or took up a thread."""
        return int(self._switches())

    def __call__(
        self,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: Sequence[Any],
        shared_mem: int = 0,
        schedule: int | None = None,
    ) -> None:
        """Runs it and waits for its end.

        Raises TypeError for an argument that is not of the parameter's type, ValueError for what
        the emulator does not do, and RuntimeError for an invalid configuration and for errors
        while it runs.
        """
        if shared_mem != 0:
            raise ValueError(f"{self.name}: dynamic shared memory is not emulated")
        values = self._values(args)
        number = globals()["schedule"] if schedule is None else schedule
        if number < 0:
            raise ValueError(f"there is no schedule {number}")
        shape = _three(grid) + _three(block)
        if not all(0 <= n < 2**32 for n in shape):
            raise RuntimeError(f"{self.name}: invalid configuration: {grid} blocks of {block}")
        pointers = (ctypes.c_void_p * len(values))(*(v.ctypes.data for v in values))
        error = ctypes.create_string_buffer(1024)
        request = _Request(
            shape=(ctypes.c_uint * 6)(*shape),
            schedule=number,
            room=len(error),
            error=ctypes.cast(error, ctypes.c_char_p),
            values=ctypes.cast(pointers, ctypes.c_void_p),
        )
        arrays = [a for a in args if isinstance(a, np.ndarray)]
        counting = self._count(arrays)
        _in_use(self._library)
        self._launch(ctypes.byref(request))
        if counting is not None:
            counting()
        if error.value:
            raise RuntimeError(error.value.decode())

    def _count(self, arrays: Sequence[np.ndarray[Any, Any]]) -> Callable[[], None] | None:
        """Begin to count, if that is asked for; what ends it and notes the bytes."""
        if _traffic is None or not hasattr(self._library, "cuda_on_cpu_count"):
            return None
        traffic = _traffic
        sizes: dict[int, int] = {}
        for a in (*arrays, *traffic.also):  # one may be given twice
            sizes[a.ctypes.data] = max(a.nbytes, sizes.get(a.ctypes.data, 0))
        begins = np.array(list(sizes), np.uintp)
        lengths = np.array(list(sizes.values()), np.uint64)
        self._library.cuda_on_cpu_count(
            ctypes.c_void_p(begins.ctypes.data), ctypes.c_void_p(lengths.ctypes.data), len(sizes)
        )

        def end() -> None:
            found = np.zeros((len(sizes), 4), np.uint64)
            self._library.cuda_on_cpu_counted(ctypes.c_void_p(found.ctypes.data))
            cached = lengths * np.uint64(16) <= lengths.max()
            moved = np.where(cached, found[:, 2:].sum(1), found[:, :2].sum(1))
            traffic.launches.append((self.name, int(moved.sum())))

        return end

    def _values(self, args: Sequence[Any]) -> list[np.ndarray[Any, Any]]:
        if len(args) != self.num_params:
            raise TypeError(f"{self.name}: takes {self.num_params} arguments, {len(args)} came")
        values = []
        for i, (parameter, argument) in enumerate(zip(self._parameters, args)):
            value = parameter.value(argument)
            if value is None:
                raise TypeError(
                    f"{self.name}: argument {i} ({parameter.type}): expected "
                    f"{parameter.expected()}, not {_described(argument)}"
                )
            if parameter.written and not argument.flags.writeable:
                raise TypeError(
                    f"{self.name}: argument {i} ({parameter.type}): the array is read-only"
                )
            values.append(value)
        return values


class Module:
    """A compiled source."""

    def __init__(self, library: ctypes.CDLL, names: tuple[str, ...]) -> None:
        self.names = names
        self._library = library

    def get_function(self, name: str) -> Kernel:
        """The kernel of that name. Raises ValueError if there is none."""
        if name not in self.names:
            raise ValueError(f"no kernel {name!r}, only {', '.join(self.names) or 'none'}")
        return Kernel(self._library, name)


def load(source: str, options: Sequence[str] = ()) -> Module:
    """The compiled source; from the folder of compiled sources, if it has been compiled before.

    options: those of NVRTC. Definitions are kept; the language and the GPU mean nothing here.
        Raises ValueError for others, and RuntimeError with g++'s messages if it does not compile.
    """
    extra = os.environ.get("TENSORGRAD_EMULATOR_FLAGS", "")
    return _load(source, tuple(options), extra, _traffic is not None)


@cache
def _load(source: str, options: tuple[str, ...], extra: str, counting: bool) -> Module:
    reason = available()
    if reason is not None:
        raise RuntimeError(reason)
    kernels = [(name, bounds) for bounds, name in _KERNEL.findall(source)]
    names = tuple(name for name, _ in kernels)
    # A launch bound may have a second number, which limits nothing.
    exports = [f"CUDA_ON_CPU_KERNEL({n}, {b.partition(',')[0] or 1024})" for n, b in kernels]
    text = "\n".join([source, *exports, ""])
    more = shlex.split(extra)
    sanitized = any(flag.startswith("-fsanitize=") for flag in more)
    flags = [*_FLAGS, *more]
    # The runtime is the same for all kernels, and worth optimizing.
    runtime_flags = [*flags, "-O2", *(() if sanitized else (_STAND_IN,))]
    text_of_runtime = _RUNTIME.read_text() + (_TRAFFIC.read_text() if counting else "")
    runtime = _built(text_of_runtime, runtime_flags, ".o")
    checks = ("-fsanitize=thread", "-fno-threadsafe-statics") if counting else (_CHECKS,)
    kernel_flags = [*flags, *_definitions(options), *(() if sanitized else checks)]
    library = _built(text, kernel_flags, ".so", runtime, more)
    return Module(ctypes.CDLL(str(library)), names)


def _definitions(options: tuple[str, ...]) -> list[str]:
    for option in options:
        if not option.startswith("-D") and not _IGNORED.match(option):
            raise ValueError(f"the emulator does not know the option {option!r}")
    return [option for option in options if option.startswith("-D")]


@cache
def _version() -> str:
    return subprocess.run(["g++", "--version"], capture_output=True, text=True, check=True).stdout


def _folder() -> Path:
    named = os.environ.get("TENSORGRAD_EMULATOR_CACHE")
    user = os.getuid()
    path = Path(named or Path(tempfile.gettempdir()) / f"tensorgrad-emulator-{user}")
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    about = path.lstat()
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != user or about.st_mode & 0o022:
        # What lies there is loaded into this process.
        raise RuntimeError(
            f"{path} must be a folder of the user's, to which nobody else may write: type  "
            f"chmod go-w {path}  or set TENSORGRAD_EMULATOR_CACHE to another one"
        )
    return path


def _built(
    text: str,
    flags: list[str],
    suffix: str,
    runtime: Path | None = None,
    linked: Sequence[str] = (),
) -> Path:
    """What a C++ text is compiled to, or linked with ``runtime``; compiled unless it is there.

    Several processes may do so at a time.
    """
    parts = (text, _HEADER.read_text(), _version(), str(runtime and runtime.name), *flags)
    folder, key = _folder(), hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]
    target = folder / f"{key}{suffix}"
    if target.exists():
        return target
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        cpp, built = Path(scratch, "kernels.cpp"), Path(scratch, "kernels.o")
        cpp.write_text(text)
        header = (f"-I{_HEADER.parent}", "-include", str(_HEADER))
        _gcc(*flags, *header, "-c", str(cpp), "-o", str(built))
        if runtime is not None:
            # Not with _CHECKS, which would link the library that the runtime stands in for.
            library = Path(scratch, "kernels.so")
            _gcc("-shared", *linked, "-o", str(library), str(built), str(runtime))
            built = library
        os.replace(built, target)
    return target


def _gcc(*arguments: str) -> None:
    done = subprocess.run(["g++", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"g++ failed:\n{done.stderr}")


def sanitizer_env() -> dict[str, str]:
    """The environment in which a process runs kernels under the sanitizers.

    It is this process's with additions. The sanitizers must be loaded first, before Python itself.
    """
    found = []
    for name in ("libasan.so", "libubsan.so"):
        run = subprocess.run(
            ["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True
        )
        path = Path(run.stdout.strip())
        if not path.is_absolute():
            raise RuntimeError(f"g++ has no {name}")
        found.append(str(path.resolve()))
    return os.environ | {
        "LD_PRELOAD": " ".join(found),
        # Python leaves memory to the system at its end. Fibers do not get along with fake stacks.
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
        "TENSORGRAD_EMULATOR_FLAGS": (
            "-fsanitize=address,undefined -fno-sanitize-recover=undefined -g"
        ),
    }
