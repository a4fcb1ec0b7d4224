"""Built programs on disk: whose they are, whether they are whole, and what compilers do."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import stat
import subprocess
import sys
import sysconfig
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from program.executors import EXECUTORS

import tensorgrad as tg
from tensorgrad import Tensor
from tensorgrad.errors import CompileError
from tensorgrad.program import blas, cache, compiler
from tensorgrad.program.executors import c_nests

ROOT = Path(__file__).parents[2]
needs_compiler = pytest.mark.skipif("native" not in EXECUTORS, reason="there is no C compiler")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
NOBODY = 65534
SOURCE, OBJECT, PLANTED = b"a source", b"an object that was built" * 100, b"something planted" * 100


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The cache of the test, in a process that has loaded nothing and warned of nothing yet."""
    path = tmp_path / "cache"
    monkeypatch.setenv("TENSORGRAD_CACHE", str(path))
    forget(monkeypatch)
    monkeypatch.setattr(cache, "_warned", set())
    return path


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a new process."""
    monkeypatch.setattr(cache, "_loaded", {})


class Loads:
    """Loads an object from the cache, each time as a new process would, and counts what is made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch
        self.made = 0
        monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # some load hundreds of times

    def __call__(self, data: bytes = OBJECT) -> bytes:
        forget(self.monkeypatch)

        def make() -> bytes:
            self.made += 1
            return data

        return bytes(cache.load("thing", SOURCE, make, lambda path: Path(path).read_bytes()))


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Loads:
    return Loads(monkeypatch)


def plant(path: Path, data: bytes = PLANTED) -> None:
    """What somebody puts there who may write there: object and record, which fit together."""
    digest = hashlib.sha256(SOURCE).hexdigest()
    with cache.Folder(path) as opened:
        opened.keep(f"thing-{digest[:32]}", digest, data)


def the_object(path: Path) -> Path:
    (found,) = path.glob("*.so")
    return found


def the_record(path: Path) -> Path:
    (found,) = path.glob("*.sum")
    return found


# --- whose it is ----------------------------------------------------------------------------------


def test_an_object_is_made_once(loads: Loads, folder: Path) -> None:
    for _ in range(3):
        assert loads() == OBJECT
    assert loads.made == 1
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(p.stat().st_mode) for p in folder.iterdir()} == {0o600}
    assert len(list(folder.iterdir())) == 2


def test_folders_are_made_for_the_user_alone(
    loads: Loads, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = os.umask(0)
    try:
        monkeypatch.setenv("TENSORGRAD_CACHE", str(folder / "below" / "further"))
        loads()
    finally:
        os.umask(before)
    for path in (folder, folder / "below", folder / "below" / "further"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_what_others_planted_fits_but_for_its_owner(loads: Loads, folder: Path) -> None:
    """The control of the tests below: nothing but ownership tells that it was planted."""
    plant(folder)
    assert loads() == PLANTED


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770, 0o720, 0o702])
def test_a_folder_that_others_may_write_to(mode: int, loads: Loads, folder: Path) -> None:
    plant(folder)
    folder.chmod(mode)
    with pytest.warns(UserWarning, match=f"by other users.* type  chmod go-w {folder}$"):
        assert loads() == OBJECT
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert loads() == OBJECT  # one warning is enough
    assert loads.made == 2
    folder.chmod(0o700)
    assert loads() == PLANTED  # it was left alone


@needs_root
def test_a_folder_of_another_user(loads: Loads, folder: Path) -> None:
    plant(folder)
    os.chown(folder, NOBODY, -1)
    with pytest.warns(UserWarning, match=f"belongs to user {NOBODY} .*type  mkdir -m 700"):
        assert loads() == OBJECT


@pytest.mark.parametrize("whose", ["the user's", "dangling"])
def test_a_symbolic_link_to_a_folder(whose: str, loads: Loads, folder: Path) -> None:
    elsewhere = folder.parent / "elsewhere"
    if whose != "dangling":
        plant(elsewhere)
    folder.symlink_to(elsewhere)
    with pytest.warns(UserWarning, match=f"symbolic link.* export TENSORGRAD_CACHE={elsewhere}$"):
        assert loads() == OBJECT


def test_a_folder_below_a_symbolic_link(loads: Loads, folder: Path) -> None:
    """A home folder may lie on another disk: what counts is the folder itself."""
    real = folder.parent / "real"
    (real / "home").mkdir(parents=True)
    folder.symlink_to(real / "home")
    os.environ["TENSORGRAD_CACHE"] = str(folder / "tensorgrad")  # monkeypatch restores it
    assert loads() == loads() == OBJECT
    assert loads.made == 1


@pytest.mark.parametrize("which", [the_object, the_record])
@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_to(
    which: Callable[[Path], Path], mode: int, loads: Loads, folder: Path
) -> None:
    plant(folder)
    which(folder).chmod(mode)
    assert loads() == OBJECT
    assert loads() == OBJECT
    assert loads.made == 1  # and that is what lies there now


@needs_root
@pytest.mark.parametrize("which", [the_object, the_record])
def test_a_file_of_another_user(which: Callable[[Path], Path], loads: Loads, folder: Path) -> None:
    plant(folder)
    os.chown(which(folder), NOBODY, -1)
    assert loads() == OBJECT
    assert loads() == OBJECT
    assert loads.made == 1


@pytest.mark.parametrize("which", [the_object, the_record])
@pytest.mark.parametrize("kind", ["link", "fifo"])
def test_what_is_no_file(
    which: Callable[[Path], Path], kind: str, loads: Loads, folder: Path
) -> None:
    """A symbolic link, and a FIFO, which nobody waits for."""
    plant(folder)
    path = which(folder)
    path.rename(folder.parent / "target")
    path.symlink_to(folder.parent / "target") if kind == "link" else os.mkfifo(path, 0o600)
    assert loads() == OBJECT
    assert loads() == OBJECT
    assert loads.made == 1


def test_a_folder_in_place_of_a_file(loads: Loads, folder: Path) -> None:
    plant(folder, OBJECT)
    path = the_object(folder)
    path.unlink()
    path.mkdir()
    with pytest.warns(UserWarning, match="cannot be written to .Is a directory"):
        assert loads() == OBJECT


def test_a_folder_that_is_replaced_while_it_is_read(folder: Path, tmp_path: Path) -> None:
    """Between check and loading, somebody who may write above it puts another in its place."""
    original, aside = tmp_path / "library", tmp_path / "aside"
    original.write_bytes(OBJECT)

    def opened(path: str) -> bytes:
        folder.rename(aside)
        folder.mkdir()
        (folder / the_object(aside).name).write_bytes(PLANTED)
        return Path(path).read_bytes()

    assert cache.load_copy("thing", str(original), opened) == OBJECT


@needs_compiler
def test_planted_code_does_not_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library with a constructor, under the right names, in a folder that was open to all."""
    text = "int answer(void) { return 42; }\n"
    mark = folder.parent / "mark"
    evil = (
        "#include <stdio.h>\n__attribute__((constructor)) static void go(void) "
        f'{{ fclose(fopen("{mark}", "w")); }}\nint answer(void) {{ return 666; }}\n'
    )
    assert compiler.build(text).answer() == 42
    sources: list[tuple[str, bytes]] = []
    monkeypatch.setattr(cache, "load", lambda label, source, *_: sources.append((label, source)))
    compiler.build(text)
    monkeypatch.undo()
    monkeypatch.setenv("TENSORGRAD_CACHE", str(folder))
    forget(monkeypatch)
    (label, source), digest = sources[0], hashlib.sha256(sources[0][1]).hexdigest()
    planted = compiler._object(evil, compiler._command(), compiler.FLAGS)
    with cache.Folder(folder) as opened:
        opened.keep(f"{label}-{digest[:32]}", digest, planted)
    folder.chmod(0o777)
    with pytest.warns(UserWarning, match="by other users"):
        assert compiler.build(text).answer() == 42
    assert not mark.exists()
    folder.chmod(0o700)
    forget(monkeypatch)
    assert compiler.build(text).answer() == 666  # so it would have run
    assert mark.exists()
    assert source in (sources[0][1],)


# --- what it is -----------------------------------------------------------------------------------


def test_cut_off_at_every_size(loads: Loads, folder: Path) -> None:
    loads()
    whole = len(OBJECT)
    for size in sorted({0, 1, 4, 64, *range(100, whole, 97), whole - 1}):
        os.truncate(the_object(folder), size)
        assert loads() == OBJECT
    record = the_record(folder).stat().st_size
    for size in range(record - 1):  # without the end of the last line it is whole
        os.truncate(the_record(folder), size)
        assert loads() == OBJECT
    for path in (the_object(folder), the_record(folder)):
        with path.open("ab") as stream:
            stream.write(b"more")
        assert loads() == OBJECT
    made = loads.made
    assert loads() == OBJECT
    assert loads.made == made


@pytest.mark.parametrize("which", [the_object, the_record])
def test_flipped_bits(which: Callable[[Path], Path], loads: Loads, folder: Path) -> None:
    loads()
    draw = np.random.default_rng(12)
    for _ in range(200):
        data = bytearray(which(folder).read_bytes())
        data[draw.integers(len(data))] ^= 1 << draw.integers(8)
        which(folder).write_bytes(data)
        assert loads() == OBJECT
    assert loads.made >= 150 if which is the_object else loads.made >= 2


@pytest.mark.parametrize(
    "text",
    ["", "a b", "\xff\xfe", "0 0 0 0 0", "x " * 400, "1 2 3 4 5 6 7", "a b 9999999999 x -1"],
)
def test_records_that_are_none(text: str, loads: Loads, folder: Path) -> None:
    loads()
    the_record(folder).write_bytes(text.encode("latin-1"))
    assert loads() == OBJECT
    assert loads() == OBJECT
    assert loads.made == 2


def test_the_object_of_another_source(
    loads: Loads, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record under the wrong name, as after a hasty copy."""
    loads()
    forget(monkeypatch)
    cache.load("thing", b"another", lambda: PLANTED, lambda path: Path(path).read_bytes())
    first, second = sorted(folder.glob("*.sum"))
    content = first.read_bytes(), second.read_bytes()
    first.write_bytes(content[1])
    second.write_bytes(content[0])
    assert loads() == OBJECT


def test_what_cannot_be_loaded_is_made_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is whole, but this system does not take it; then what is new is not taken either."""

    def opened(path: str) -> bytes:
        data = Path(path).read_bytes()
        if data != OBJECT:
            raise OSError("version GLIBC_9.9 not found")
        return data

    plant(folder)
    assert cache.load("thing", SOURCE, lambda: OBJECT, opened) == OBJECT
    plant(folder)
    forget(monkeypatch)
    with pytest.raises(CompileError, match=r"\(thing\) cannot be loaded: version GLIBC_9.9"):
        cache.load("thing", SOURCE, lambda: PLANTED, opened)


def test_an_object_is_synced_before_it_has_its_name(
    loads: Loads, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    replace = os.replace

    def renamed(*given: Any, **more: Any) -> None:
        done.append(f"name {Path(given[1]).suffix}")
        replace(*given, **more)

    monkeypatch.setattr(os, "fsync", lambda descriptor: done.append("sync"))
    monkeypatch.setattr(os, "replace", renamed)
    loads()
    assert done == ["sync", "name .so", "name .sum"]


def test_a_copy_is_compared_where_it_changed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = tmp_path / "library"
    original.write_bytes(OBJECT)
    compared: list[bool] = []
    real = cache._equal

    def equal(*given: Any) -> bool:
        compared.append(real(*given))
        return compared[-1]

    def loaded() -> bytes:
        forget(monkeypatch)
        compared.clear()
        data = cache.load_copy("thing", str(original), lambda path: Path(path).read_bytes())
        assert stat.S_IMODE(the_object(folder).stat().st_mode) == 0o600
        return bytes(data)

    monkeypatch.setattr(cache, "_equal", equal)
    for _ in range(2):
        assert loaded() == OBJECT
        assert compared == []
    path = the_object(folder)
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    with path.open("r+b") as stream:  # the size stays, and the times are put back
        stream.write(b"X")
    os.utime(path, ns=times)
    assert loaded() == OBJECT
    assert compared == [False]
    for size in (0, 1, len(OBJECT) - 1, len(OBJECT) + 1):
        os.truncate(the_object(folder), size)
        assert loaded() == OBJECT
        assert compared == [False]
    the_record(folder).write_text("no record")
    for expected in ([True], []):
        assert loaded() == OBJECT
        assert compared == expected
    shutil.copy(the_object(folder), tmp_path / "copy")  # as a backup that is put back
    os.replace(tmp_path / "copy", the_object(folder))
    for expected in ([True], []):
        assert loaded() == OBJECT
        assert compared == expected
    (kept, boot) = the_record(folder).read_text().rsplit(" ", 1)
    the_record(folder).write_text(f"{kept} {'0' * len(boot)}\n")  # the machine went down
    for expected in ([True], []):
        assert loaded() == OBJECT
        assert compared == expected
    the_object(folder).chmod(0o620)
    assert loaded() == OBJECT
    assert compared == []  # it is made again unseen
    folder.chmod(0o777)
    forget(monkeypatch)
    with pytest.warns(UserWarning, match="by other users"):
        read = cache.load_copy("thing", str(original), lambda path: Path(path).read_bytes())
    assert read == OBJECT
    folder.chmod(0o700)
    original.write_bytes(PLANTED)  # another version: another copy
    forget(monkeypatch)
    read = cache.load_copy("thing", str(original), lambda path: Path(path).read_bytes())
    assert read == PLANTED
    assert len(list(folder.glob("*.so"))) == 2


def test_a_copy_that_cannot_be_written_or_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = tmp_path / "library"
    original.write_bytes(OBJECT)

    def opened(path: str) -> bytes:
        if Path(path).resolve().parent == folder:
            raise OSError("failed to map segment from shared object")  # mounted with noexec
        return Path(path).read_bytes()

    assert cache.load_copy("thing", str(original), opened) == OBJECT
    forget(monkeypatch)
    the_object(folder).unlink()

    def full(*given: Any, **more: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.warns(UserWarning, match="No space left"):
        assert cache.load_copy("thing", str(original), opened) == OBJECT
    original.unlink()
    with pytest.raises(FileNotFoundError):
        cache.load_copy("thing", str(original), opened)


@needs_compiler
def test_damaged_libraries_never_reach_the_linker(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the linker would crash the process: cut off behind the headers."""
    text = "int table[100000] = {1}; int answer(void) { return 42; }\n"
    assert compiler.build(text).answer() == 42
    for size in (0, 63, 64, 4096, 100_000):
        os.truncate(the_object(folder), size)
        forget(monkeypatch)
        assert compiler.build(text).answer() == 42
        assert the_object(folder).stat().st_size > 400_000


def test_the_blas_has_its_own_instance_from_any_cache(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = blas._openblas()
    if found is None:
        pytest.skip("there is no OpenBLAS")
    assert found.own
    forget(monkeypatch)
    # A new file, not the one that is mapped here: nobody can do anything about that.
    damaged = folder.parent / "damaged"
    damaged.write_bytes(the_object(folder).read_bytes()[: 1 << 20])
    os.replace(damaged, the_object(folder))
    again = blas._openblas()
    assert again is not None
    assert again.own
    assert again.seconds() > 0
    forget(monkeypatch)
    folder.chmod(0o777)
    with pytest.warns(UserWarning, match="by other users"):
        private = blas._openblas()
    assert private is not None
    assert private.own
    assert private.get_threads() == 1
    assert private.seconds() > 0


# --- places that do not serve ---------------------------------------------------------------------


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_disk_that_is_full_or_read_only(
    code: int, loads: Loads, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: Any, **more: Any) -> None:
        raise OSError(code, os.strerror(code))

    plant(folder)
    monkeypatch.setattr(os, "replace", fail)
    assert loads() == PLANTED  # what is there serves
    the_object(folder).unlink()
    with pytest.warns(UserWarning, match=os.strerror(code)):
        assert loads() == OBJECT


def test_nothing_is_left_behind(
    loads: Loads, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither in a cache whose disk is full half-way, nor where temporary folders are."""
    temporary = folder.parent / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    folder.mkdir(0o700)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.warns(UserWarning, match="No space left"):
            assert loads() == OBJECT
    assert list(folder.iterdir()) == []
    monkeypatch.delattr(os, "memfd_create")
    assert loads() == OBJECT
    assert loads() == OBJECT
    assert list(temporary.iterdir()) == []


def test_what_killed_processes_left_is_removed(loads: Loads, folder: Path) -> None:
    loads()
    old, new, other = (folder / name for name in (".0.part", ".1.part", ".2.other"))
    for path in (old, new, other):
        path.write_text("half of")
    for path in (old, other):
        os.utime(path, (time.time() - 4000,) * 2)
    the_record(folder).unlink()
    loads()
    assert [path.exists() for path in (old, new, other)] == [False, True, True]


@pytest.mark.parametrize("chosen", ["file", "file/below"])
def test_no_folder_can_be_made(
    chosen: str, loads: Loads, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder.parent / "file").write_text("")
    monkeypatch.setenv("TENSORGRAD_CACHE", str(folder.parent / chosen))
    with pytest.warns(UserWarning, match="Not a directory.*export TENSORGRAD_CACHE="):
        assert loads() == OBJECT


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TENSORGRAD_CACHE", "~/mine")
    assert cache.cache_folder() == tmp_path / "mine"
    monkeypatch.setenv("TENSORGRAD_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache.cache_folder() == tmp_path / ".cache" / "tensorgrad"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.cache_folder() == tmp_path / "xdg" / "tensorgrad"


def test_without_a_home(loads: Loads, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No folder of that name appears wherever the process happens to be."""
    monkeypatch.delenv("TENSORGRAD_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.chdir(tmp_path)
    with pytest.warns(UserWarning, match="no home folder"):
        assert loads() == OBJECT
    assert list(tmp_path.iterdir()) == []


@needs_compiler
def test_a_program_without_a_cache(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)
    call = tg.compile(lambda x: x * 5.0, executor="native")
    with pytest.warns(UserWarning, match="programs are built anew"):
        np.testing.assert_array_equal(call(Tensor(np.ones(3))).numpy(), 5.0)
    np.testing.assert_array_equal(call(Tensor(np.ones(3))).numpy(), 5.0)
    assert "executor native" in call.report()
    assert list(folder.iterdir()) == []


# --- several processes ----------------------------------------------------------------------------


def python(code: str, folder: Path, seconds: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a program that has a cache."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, text=True, timeout=seconds,
        env={**os.environ, "TENSORGRAD_CACHE": str(folder)}, capture_output=True,
    )  # fmt: skip


@needs_compiler
def test_processes_that_build_at_once(folder: Path) -> None:
    """Four processes build the same program; each gets the right result."""
    code = (
        "import numpy as np, tensorgrad as tg\n"
        "f = tg.compile(lambda x: (x @ x).exp().sum(), executor='native')\n"
        "x = tg.Tensor(np.eye(5, dtype=np.float32))\n"
        "a, b = f(x).item(), f(x).item()\n"
        "assert a == b and abs(a - (20 + 5 * np.e)) < 1e-4, (a, b)\n"
        "assert 'executor native' in f.report()\n"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT,
            env={**os.environ, "TENSORGRAD_CACHE": str(folder)},
        )
        for _ in range(4)
    ]  # fmt: skip
    assert [p.wait(60) for p in running] == [0, 0, 0, 0]
    kept = {p.name: p.stat().st_ino for p in folder.glob("*.so")}
    assert {p.suffix for p in folder.iterdir()} == {".so", ".sum"}
    done = python(code, folder)
    assert done.returncode == 0, done.stderr
    assert {p.name: p.stat().st_ino for p in folder.glob("*.so")} == kept  # none was built again


_FORKS = """
import os, signal, threading
import numpy as np, tensorgrad as tg
from tensorgrad.program import cache

rng = np.random.default_rng(0)
x = rng.standard_normal((130, 130)).astype(np.float32)
def program(executor, function=lambda x: tg.tanh(x) @ x):
    f = tg.compile(function, executor=executor)
    f(tg.Tensor(x))
    found = f._last().executor
    assert found.name == executor, f.report()
    return found.run
tiles = lambda x: tg.exp(tg.tanh(tg.concat([x] * 16)) * 2.0) + 1.0
mine = [program("native"), program("numpy")]
theirs = [program("native"), program("native"), program("numpy"), program("numpy", tiles)]
alone = program("numpy", tiles)
wanted = [run([x])[0][0].copy() for run in mine]
def same():
    return all(np.array_equal(run([x])[0][0], y) for run, y in zip(mine, wanted))
stop = []
def replay(run):
    while not stop:
        run([x])
def build():  # holds the cache's lock, now and then
    k = 0
    while not stop:
        k += 1
        cache.load("thing", str(k % 50).encode(), lambda: b"x" * 1000, len)
        cache._loaded.clear()
running = [threading.Thread(target=replay, args=(run,)) for run in theirs]
running += [threading.Thread(target=build)]
for t in running:
    t.start()
bad = forks = 0
while forks < 12 and not bad:
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        ok = same()
        if not forks:
            alone([x])
        cache._loaded.clear()
        ok &= cache.load("thing", b"1", lambda: b"x" * 1000, len) > 0
        grandchild = os.fork()
        if grandchild == 0:
            os._exit(not same())
        os._exit(0 if ok and os.waitpid(grandchild, 0)[1] == 0 else 1)
    bad += os.waitpid(child, 0)[1] != 0
    forks += 1
stop.append(1)
for t in running:
    t.join(10)
print(bad, forks)
ok = not bad and not any(t.is_alive() for t in running) and same()
os._exit(not ok)
"""


@needs_compiler
def test_forks_while_other_threads_replay(folder: Path) -> None:
    """By both executors, and while one builds: children replay and load, and their children."""
    done = python(_FORKS, folder)
    assert done.returncode == 0, (done.stdout, done.stderr)


_FORK_WAITS = """
import os, signal, threading, time
from tensorgrad.program import forks

state, limit = 0, 0.4
def work():
    global state
    with forks.GATE, forks.GATE:
        state = 1
        time.sleep(limit)
        state = 2
def child_of():
    global state
    child = os.fork()
    if child == 0:
        signal.alarm(5)
        was = state
        forks.LIMIT = 5.0
        work()  # the gate is open, and nobody is inside
        grandchild = os.fork()
        os._exit(was if grandchild and not os.waitpid(grandchild, 0)[1] else 0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
thread = threading.Thread(target=work)
thread.start()
while state != 1:
    time.sleep(0.001)
assert child_of() == 2  # it waited until the work was done
thread.join()
forks.LIMIT, state = 0.1, 0
thread = threading.Thread(target=work)
thread.start()
while state != 1:
    time.sleep(0.001)
assert child_of() == 1  # but not for ever
thread.join()
with forks.GATE:
    start = time.monotonic()
    forks.LIMIT = 5.0
    limit, state = 0.0, 3
    assert child_of() == 3  # nor for itself
    assert time.monotonic() - start < 4
os._exit(0)
"""


@needs_compiler
def test_a_fork_waits_for_replays(folder: Path) -> None:
    """Of other threads, for a while; not for its own."""
    done = python(_FORK_WAITS, folder)
    assert done.returncode == 0, done.stderr


_SMALL_STACKS = """
import threading
import numpy as np, tensorgrad as tg

draw = np.random.default_rng(0)
def tensor(*shape, dtype=np.float32):
    return tg.Tensor(draw.standard_normal(shape).astype(dtype))
def keeps_many_rows(x):
    a, b, c, d = tg.tanh(x), tg.exp(-x * x), tg.sin(x), tg.log1p(x * x)
    s, t = (a + b).mean(axis=-1, keepdims=True), (c * d).mean(axis=-1, keepdims=True)
    return (a * s + b * t) * tg.cos(c * s) + d * tg.exp(-s * s) + (c * t) / (1 + d * d)
cases = {
    "rows": (keeps_many_rows, tensor(9, 4096)),
    "rows of float64": (keeps_many_rows, tensor(9, 4096, dtype=np.float64)),
    "a small product that is packed": (lambda x: x @ x.T[:, :17], tensor(17, 500)),
    "a product by BLAS": (lambda x: tg.tanh(x) @ x, tensor(300, 300)),
}
def in_thread(call, x, size):
    found = []
    threading.stack_size(size)
    thread = threading.Thread(target=lambda: found.append(call(x)))
    thread.start()
    thread.join()
    return found[0].numpy()
for name, (function, x) in cases.items():
    wanted = function(x).numpy()
    for executor in ("native", "numpy") if name == "rows" else ("native",):
        call = tg.compile(function, executor=executor)
        for size in (1 << 16, 1 << 16, 1 << 16, 1 << 18):
            found = in_thread(call, x, size)
            np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())
        assert f"executor {executor}" in call.report(), call.report()
        print(name, executor, flush=True)
"""


@needs_compiler
def test_threads_with_small_stacks(folder: Path) -> None:
    """Of 64 and 256 KiB: the first call, a checked one, and replays."""
    done = python(_SMALL_STACKS, folder)
    assert done.returncode == 0, (done.stdout, done.stderr)


@needs_compiler
@pytest.mark.parametrize("room", [0, 8500, 1 << 14, 1 << 17])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_and_blocks_where_there_is_room(
    room: int, dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What finds no room in a thread's own memory goes to the program's."""
    monkeypatch.setattr(c_nests.NestWriter, "room", room)
    monkeypatch.setattr(c_nests, "_STREAMED", 1 << 14)
    draw = np.random.default_rng(0)
    x = Tensor(draw.standard_normal((9, 777)).astype(dtype))
    y = Tensor(draw.standard_normal(5000).astype(dtype))

    def step(x: Tensor, y: Tensor) -> list[Tensor]:
        a, b, c = tg.tanh(x), tg.exp(-x * x), tg.sin(x)
        s, t = (a + b).mean(axis=-1, keepdims=True), (a * c).mean(axis=-1, keepdims=True)
        flat = [tg.cos(y), y * 2.0 + 1.0, tg.abs(y), tg.exp(y)]
        return [(a * s + b * t) * c, *flat]

    call = tg.compile(step, executor="native")
    for _ in range(3):
        for found, wanted in zip(call(x, y), step(x, y), strict=True):
            np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=2e-5, atol=2e-6)
    text = call._last().executor.text
    assert ("tg_rows(0)" in text) == (room > 0)
    assert ("tg_stream" in text) == (room > 0)


# --- compilers ------------------------------------------------------------------------------------


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Makes a shell script the compiler; where a real one is needed, it is ``$REAL``."""
    monkeypatch.setattr(compiler, "_hung", {})
    monkeypatch.setattr(compiler, "PATIENCE", 0.5)
    monkeypatch.setattr(compiler, "ANSWER", 0.5)
    real = shutil.which("cc") or shutil.which("gcc") or ""
    monkeypatch.setenv("REAL", real)

    def write(text: str) -> Path:
        if "$REAL" in text and not any(word in text for word in ("sleep", "while")):
            # A real one may take long beside other work.
            monkeypatch.setattr(compiler, "PATIENCE", 60.0)
            monkeypatch.setattr(compiler, "ANSWER", 60.0)
        path = tmp_path / "compiler"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        monkeypatch.setenv("CC", str(path))
        return path

    yield write
    compiler._target.cache_clear()


def reason_for_numpy() -> str:
    """Compile something: it runs by NumPy, and the report says why."""
    call = tg.compile(lambda x: x * 3.0 + 2.0)
    for _ in range(2):
        np.testing.assert_array_equal(call(Tensor(np.ones(3))).numpy(), 5.0)
    assert "executor numpy" in call.report()
    return str(call.report())


# The last argument but some is where the result is to go.
_TO = 'while [ "$1" != -o ]; do shift; done; to=$2'
_ASKED = 'case "$*" in *--version*|*--help*) exec "$REAL" "$@";; esac'
_MISTAKES = {
    "exit 0": "ended well, but wrote nothing",
    f'{_ASKED}; {_TO}; echo hi > "$to"': "3 bytes that are no library",
    f'{_ASKED}; {_TO}; : > "$to"': "0 bytes that are no library",
    f'{_ASKED}; {_TO}; mkdir "$to"': "ended well, but wrote nothing",
    f"{_ASKED}; printf '\\377\\033[31m' >&2; exit 1": r"failed \(1\):\n\\xff\?\[31m",
    f"{_ASKED}; echo no such thing; exit 3": r"failed \(3\):\nno such thing",
    "kill -9 $$": "failed|wrote nothing",
    "yes nothing but words; exit 1": "took longer than",
    f'{_ASKED}; "$REAL" "$@"; {_TO}; head -c 5000 "$to" > "$to.x"; mv "$to.x" "$to"': (
        "5000 bytes that are no library"
    ),
    f'{_ASKED}; {_TO}; cp "$REAL" "$to"': "no library|cannot be loaded",
    f'{_ASKED}; {_TO}; echo \'int other;\' | "$REAL" -shared -x c - -o "$to"': (
        "the library has no function tg_"
    ),
}


@needs_compiler
@pytest.mark.parametrize("script", _MISTAKES)
def test_compilers_that_misbehave(script: str, written: Callable[[str], Path]) -> None:
    written(script)
    says(_MISTAKES[script], reason_for_numpy())


_HANGS = {
    f"{_ASKED}; exec sleep 30": "as does a single line",
    f"{_ASKED}; sleep 30; exit 0": "as does a single line",  # as a child, which holds the pipe
    f"{_ASKED}; exec >&- 2>&-; sleep 30": "as does a single line",
    f"{_ASKED}; while :; do :; done": "as does a single line",
    f"{_ASKED}; trap '' TERM INT HUP; while :; do sleep 1; done": "as does a single line",
    "exec sleep 30": "took longer than 0.5 s",
    f'{_ASKED}; case "$*" in *-shared*) exec sleep 30;; esac': "took longer than 1",
}


@needs_compiler
@pytest.mark.parametrize("script", _HANGS)
def test_compilers_that_hang(
    script: str, written: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The last one answers for a single line, but never ends with a program: the limit holds."""
    monkeypatch.setattr(compiler, "LIMIT", 1.0)
    count = tmp_path / "calls"
    written(f"echo >> {count}; {script}")
    start = time.monotonic()
    reason = reason_for_numpy()
    says(_HANGS[script], reason)
    says("it is not called again", reason)
    calls = count.read_text()
    for _ in range(3):
        says("it is not called again", reason_for_numpy())
    assert count.read_text() == calls
    assert time.monotonic() - start < 10


@needs_compiler
def test_a_slow_compiler_is_waited_for(
    written: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it answers for a single line meanwhile; a child that stays behind is not waited for."""
    monkeypatch.setattr(compiler, "ANSWER", 10.0)
    written(f'{_ASKED}; case "$*" in *-shared*) sleep 0.8; sleep 20 & ;; esac; exec "$REAL" "$@"')
    start = time.monotonic()
    call = tg.compile(lambda x: x * 3.5)
    call(Tensor(np.ones(3)))
    assert "executor native" in call.report()
    assert 0.8 < time.monotonic() - start < 15


@needs_compiler
def test_a_compiler_with_options(
    written: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = written(f'echo "$1" "$2" >> {tmp_path / "words"}; shift 2; exec "$REAL" "$@"')
    monkeypatch.setenv("CC", f"{path} -O2 'two words'")
    assert compiler.compiler() == f"{path} -O2 'two words'"
    call = tg.compile(lambda x: x * 4.5)
    call(Tensor(np.ones(3)))
    assert "executor native" in call.report()
    assert set((tmp_path / "words").read_text().splitlines()) == {"-O2 two words"}


@needs_compiler
def test_a_compiler_with_spaces_in_its_path(
    written: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = written('exec "$REAL" "$@"').rename(tmp_path / "my compiler")
    monkeypatch.setenv("CC", str(path))
    assert compiler.build("int answer(void) { return 43; }\n").answer() == 43


@pytest.mark.parametrize("cc", ["no-such-compiler", "/no/such/gcc -O2", "gcc 'unfinished", "{tmp}"])
def test_a_compiler_that_is_not_there(
    cc: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is named, and not replaced by another one."""
    monkeypatch.setenv("CC", cc.format(tmp=tmp_path))
    assert compiler.compiler() is not None
    says("CC names the C compiler .*no program that can be run", reason_for_numpy())
    with pytest.raises(CompileError, match="unset it so that cc, gcc or clang is taken"):
        compiler.build("int answer;\n")


@pytest.mark.parametrize("content", [b"", b"\x7fELF\2\1\1 no program", b"no script"])
def test_a_compiler_that_is_no_program(
    content: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "cc"
    path.write_bytes(content)
    path.chmod(0o755)
    monkeypatch.setenv("CC", str(path))
    says(f"the C compiler {path} cannot be run", reason_for_numpy())


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert compiler.compiler() is None
    call = tg.compile(lambda x: x + 1.0)
    call(Tensor(np.ones(3)))
    assert "executor numpy" in call.report()
    with pytest.raises(CompileError, match="needs a C compiler"):
        compiler.build("int answer;\n")


@needs_compiler
def test_flags_that_it_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "FLAGS", ("--no-such-flag",))
    says(r"the C compiler .* failed \(1\)", reason_for_numpy())


@needs_compiler
def test_what_is_a_library() -> None:
    """Everything that is cut off before its last segment is none, nor are other ELF files."""
    whole = compiler._object("int answer = 1;\n", compiler._command(), compiler.FLAGS)
    assert compiler._is_library(whole)
    if sys.platform == "linux":
        assert not any(compiler._is_library(whole[:size]) for size in range(0, 4096, 7))
        assert not compiler._is_library(b"\0" + whole[1:])
        assert not compiler._is_library(whole[:16] + b"\1" + whole[17:])  # ET_REL
        assert not compiler._is_library(whole[:5] + bytes([3 - whole[5]]) + whole[6:])
        assert not compiler._is_library(whole[:32] + b"\xff" * 8 + whole[40:])


@needs_compiler
def test_an_extension_is_loaded_from_the_cache(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = sysconfig.get_paths()["include"]
    if not os.path.exists(os.path.join(headers, "Python.h")):
        pytest.skip("Python's headers are not installed")
    text = (
        "#include <Python.h>\nstatic struct PyModuleDef about = {PyModuleDef_HEAD_INIT, "
        '"thing", "of a test", -1, NULL};\n'
        "PyMODINIT_FUNC PyInit_thing(void) { return PyModule_Create(&about); }\n"
    )
    for damage in (None, 0, 5000):
        if damage is not None:
            os.truncate(the_object(folder), damage)
            forget(monkeypatch)
        assert compiler.extension("thing", text, [f"-I{headers}"]).__doc__ == "of a test"
    with pytest.raises(CompileError, match="cannot be loaded"):
        compiler.extension("other", text, [f"-I{headers}"])


def says(pattern: str, text: str) -> None:
    """Something of that pattern."""
    assert re.search(pattern, text), text
