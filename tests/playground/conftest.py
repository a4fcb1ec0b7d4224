"""A browser and a server for all tests of the page, and the page anew for each."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from browser import Play, chromium

from tensorgrad.playground import Session
from tensorgrad.playground.server import Server
from tensorgrad.playground.site import Playground


@pytest.fixture(scope="session")
def chrome() -> Iterator[Any]:
    """Chromium; the test is skipped where it is absent."""
    with chromium() as found:
        yield found


@pytest.fixture(scope="session")
def playing() -> Iterator[tuple[Playground, Server]]:
    """A playground that is served."""
    site = Playground(Session)
    server = Server(site)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield site, server
    server.shutdown()
    thread.join()
    site.close()
    server.server_close()


@pytest.fixture
def page(chrome: Any, playing: tuple[Playground, Server]) -> Iterator[Play]:
    """The page, not opened yet; in the end the browser has nothing to complain about."""
    play = Play(chrome, *playing)
    yield play
    errors = [one for one in play.errors() if "status of 400" not in one]  # refused, and shown
    play.close()
    assert errors == []
