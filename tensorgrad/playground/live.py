"""The page of ``tensorgrad train --live`` on the playground's server: it changes as it is written.

Training never waits for a reader. When it has ended, those who read are shown the last page.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tensorgrad.playground.runs import message
from tensorgrad.playground.server import Reply, Server, Stream
from tensorgrad.playground.site import page

_LOOK, _PING = 0.2, 1.0  # seconds
_LAST = 2.0  # seconds within which readers get the last page

_FRAME = b"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>training</title>
<link rel="icon" href="data:,">
<style>body { font: 15px system-ui, sans-serif; margin: 2em } td { padding: .1em 1em .1em 0 }
</style></head><body><p>waiting for the first epoch</p>
<script>
new EventSource("/events").onmessage = (event) => {
  const written = new DOMParser().parseFromString(JSON.parse(event.data).html, "text/html");
  document.body.replaceChildren(...written.body.childNodes);
};
</script></body></html>
"""


class LivePage:
    """A site of one page, the file ``path``, which somebody writes anew now and then."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ended = threading.Event()
        self._gone = threading.Semaphore(0)  # one for each reader that has ended
        self._readers = 0
        self._lock = threading.Lock()

    def reply(self, method: str, path: str, query: dict[str, str], body: bytes) -> Reply | Stream:
        """See Site."""
        if (method, path) == ("GET", "/"):
            return page(_FRAME, any_style=True)  # the curves have their own
        if (method, path) == ("GET", "/events"):
            return self._events()
        raise KeyError(path)

    def _events(self) -> Stream:
        with self._lock:
            self._readers += 1
        try:
            yield from self._changes()
        finally:
            with self._lock:
                self._readers -= 1
            self._gone.release()

    def _changes(self) -> Iterator[bytes]:
        shown, told = b"", time.monotonic()
        while True:
            ended = self._ended.is_set()  # before the file is read: the last one is not missed
            try:
                text = self.path.read_bytes()
            except OSError:  # not written yet
                text = b""
            if text and text != shown:
                shown, told = text, time.monotonic()
                yield message({"type": "page", "html": text.decode()})
            elif time.monotonic() - told >= _PING:
                told = time.monotonic()
                yield b": still here\n\n"
            if ended:
                return
            self._ended.wait(_LOOK)

    def close(self) -> None:
        """Let those who read see the page as it is now, and end; takes two seconds at most."""
        with self._lock:
            readers = self._readers
        self._ended.set()
        end = time.monotonic() + _LAST
        for _ in range(readers):
            self._gone.acquire(timeout=max(0.0, end - time.monotonic()))


@contextmanager
def served(path: Path, port: int) -> Iterator[str]:
    """Serve the file ``path`` meanwhile; gives the address. Raises OSError for a port in use."""
    site = LivePage(path)
    server = Server(site, port)
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
    thread.start()
    try:
        yield server.address
    finally:
        site.close()
        server.shutdown()
        server.server_close()
