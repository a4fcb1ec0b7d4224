"""Batches fetched ahead by worker threads or processes, in the order in which they are wanted.

Both are daemons: a worker that is stuck in an example keeps neither the loader's errors nor the end
of the program waiting. Each process is looked after by a thread here, which hands it tasks and
takes in what it fetched.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
import types
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from multiprocessing import spawn
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from tensorgrad.errors import TensorgradError

Fetch = Callable[..., Any]
Task = tuple[Any, ...]

_PATIENCE = 1.0  # seconds that workers have for what they are doing when the program ends
_DIED = (
    "a worker process of the DataLoader ended unexpectedly. If it was killed, memory may have run "
    "out: take fewer workers or smaller batches. If it could not start, the data set may not be "
    "importable from another process: a script that starts processes needs "
    'if __name__ == "__main__":, or take processes=False'
)


class Workers:
    """Threads or processes that call ``fetch``.

    count: how many. processes: processes, which get a copy of ``fetch`` when they start; one that
    dies is replaced when the next task comes.
    """

    def __init__(self, count: int, processes: bool, fetch: Fetch) -> None:
        self.process_id = os.getpid()  # in a fork there are no threads that would answer
        self._tasks: SimpleQueue[tuple[Future[Any], Task] | None] = SimpleQueue()
        self._stopped = threading.Event()
        calls = [_Child(fetch) if processes else fetch for _ in range(count)]
        self._threads = [
            threading.Thread(
                target=_work,
                args=(self._tasks, self._stopped, call),
                name=f"tensorgrad-loader-{number}",
                daemon=True,
            )
            for number, call in enumerate(calls)
        ]
        for thread in self._threads:
            thread.start()
        _running.add(self)

    def fetched_ahead(self, tasks: Iterable[Task], ahead: int) -> Iterator[Any]:
        """``fetch(*task)`` for each task in turn, with up to ``ahead`` of them under way.

        An error in a worker is raised where its batch would have come; one that cannot be brought
        from a process, as a TensorgradError that quotes it. Raises TensorgradError if a worker
        process dies.
        """
        under_way: deque[Future[Any]] = deque()
        try:
            for task in tasks:
                future: Future[Any] = Future()
                self._tasks.put((future, task))
                under_way.append(future)
                if len(under_way) > ahead:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:  # also if the epoch is broken off
            for future in under_way:
                future.cancel()

    def stop(self) -> None:
        """Let the workers end, each after the batch it is fetching."""
        self._stopped.set()
        for _ in self._threads:
            self._tasks.put(None)

    def join(self, deadline: float) -> None:
        """Wait for them to end, until ``time.monotonic()`` says ``deadline``."""
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))


_running: weakref.WeakSet[Workers] = weakref.WeakSet()
_children: weakref.WeakSet[_Child] = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    """At the end of the program, before multiprocessing waits for its processes."""
    own = [workers for workers in _running if workers.process_id == os.getpid()]
    for workers in own:
        workers.stop()
    deadline = time.monotonic() + _PATIENCE
    for workers in own:
        workers.join(deadline)
    for child in _children:
        child.kill()


def _work(
    tasks: SimpleQueue[tuple[Future[Any], Task] | None], stopped: threading.Event, call: Fetch
) -> None:
    """What a thread does."""
    while (item := tasks.get()) is not None and not stopped.is_set():
        _do(call, *item)
        del item  # the batch belongs to whoever asked for it
    if isinstance(call, _Child):
        call.end()


def _do(call: Fetch, future: Future[Any], task: Task) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        found = call(*task)
    except BaseException as error:  # it is the asker's, whatever it is
        future.set_exception(error)
    else:
        future.set_result(found)


# --- processes ------------------------------------------------------------------------------------


class _Child:
    """A process that fetches what the thread that looks after it is asked for."""

    def __init__(self, fetch: Fetch) -> None:
        _children.add(self)
        self._owner = os.getpid()
        self._fetch = fetch
        self._process: BaseProcess | None = None
        self._connection: Connection[Any, Any] | None = None

    def __call__(self, *task: Any) -> Any:
        if self._connection is None:
            self._connection = self._start()
        try:
            self._connection.send(task)
            answer = self._connection.recv_bytes()
        except (EOFError, OSError) as error:
            self.end()
            raise TensorgradError(_DIED) from error
        found, failure = pickle.loads(answer)
        if failure is not None:
            _raise(*failure)
        return found

    def _start(self) -> Connection[Any, Any]:
        if "again" in _script:
            raise TensorgradError(_DIED)
        # Not by fork: a copy of a process with BLAS threads may wait for locks nobody will release.
        # Nor by a fork server, which serves no process that was forked.
        context: Any = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        script: list[str] = []
        process = context.Process(
            target=_serve, args=(theirs, script, _Packed(self._fetch)), daemon=True
        )
        try:
            with _main_left_to_us(script):
                process.start()
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise TensorgradError(
                "worker processes of a DataLoader need a data set and a transform that can be "
                f"pickled: {error}. Define their classes and functions at the top of a module, or "
                "take processes=False"
            ) from error
        theirs.close()
        self._process = process
        found: Connection[Any, Any] = ours
        return found

    def end(self) -> None:
        """Let the process end, which waits for a task."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._process is not None:
            self._process.join(_PATIENCE)
            self.kill()
            self._process = None

    def kill(self) -> None:
        """End the process, whatever it does."""
        process = self._process
        if process is not None and self._owner == os.getpid() and process.is_alive():
            process.kill()


class _Packed:
    """Something that is unpickled not with the arguments of a process, but when it asks for it."""

    def __init__(self, content: Any) -> None:
        self.content = content

    def __getstate__(self) -> bytes:
        return bytes(ForkingPickler.dumps(self.content))  # within start(): locks can be shared

    def __setstate__(self, state: bytes) -> None:
        self.content = state

    def unpacked(self) -> Any:
        """The content, in the process."""
        return pickle.loads(self.content)


_script: set[str] = set()  # "again" while a process runs the main script, which must start none
_starting = threading.Lock()  # multiprocessing looks after its list of processes without one


@contextlib.contextmanager
def _main_left_to_us(script: list[str]) -> Iterator[None]:
    """Inside, a process that this thread starts does not run the main script again by itself.

    ``script`` is given its path for ``_run_again``. multiprocessing gives up a process whose script
    ends with a bare ``sys.exit()``, and with it what the script defines.
    """
    own = threading.get_ident()

    def prepared(name: str) -> dict[str, Any]:
        """As Python gives it, without the main script."""
        data: dict[str, Any] = usual(name)
        if threading.get_ident() == own and "init_main_from_path" in data:
            script.append(data.pop("init_main_from_path"))
        return data

    with _starting:
        usual: Any = spawn.get_preparation_data
        spawn.get_preparation_data = prepared
        try:
            yield
        finally:
            spawn.get_preparation_data = usual


def _run_again(script: str) -> None:
    """Run the main script under another name, so that the classes it defines are found."""
    if Path(script).stem == "ipython":
        return
    module = types.ModuleType("__mp_main__")
    module.__file__ = script
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module
    _script.add("again")
    with contextlib.suppress(SystemExit):
        exec(compile(Path(script).read_bytes(), script, "exec"), module.__dict__)
    _script.clear()


def _serve(connection: Connection[Any, Any], script: list[str], packed: _Packed) -> None:
    """What a worker process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_end_with_parent, daemon=True).start()
    for path in script:
        _run_again(path)
    fetch = packed.unpacked()
    while True:
        try:
            task = connection.recv()
        except (EOFError, OSError):
            return
        try:
            answer = pickle.dumps((fetch(*task), None), pickle.HIGHEST_PROTOCOL)
        except BaseException as error:
            answer = pickle.dumps((None, _portable(error)))
        try:
            connection.send_bytes(answer)
        except OSError:
            return


def _end_with_parent() -> None:
    """A parent that is killed cannot stop its workers."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _portable(error: BaseException) -> tuple[bytes | None, str, str]:
    """An error for another process: pickled, if it comes back as it was; in words; its traceback.

    Exceptions are made again from ``args``, which those with arguments of their own do not survive.
    """
    packed = None
    try:
        packed = pickle.dumps(error)
        again = pickle.loads(packed)
        if type(again) is not type(error) or str(again) != str(error):
            packed = None
    except Exception:
        packed = None
    words = "".join(traceback.format_exception_only(error)).strip()
    return packed, words, "".join(traceback.format_exception(error))


def _raise(packed: bytes | None, words: str, trace: str) -> None:
    error: Any = None
    if packed is not None:
        try:
            error = pickle.loads(packed)
        except Exception:  # its class cannot be found here
            error = None
    if not isinstance(error, BaseException):
        error = TensorgradError(f"a worker process of the DataLoader failed: {words}")
    error.add_note(f"In a worker process:\n{trace}")
    raise error
