"""``tensorgrad playground``: the page on which a network learns while one watches."""

from __future__ import annotations

import errno
import webbrowser

from tensorgrad.errors import TensorgradError
from tensorgrad.files import read_whole
from tensorgrad.playground import Session, Settings
from tensorgrad.playground.server import Server
from tensorgrad.playground.site import Playground
from tensorgrad.playground.tables import read_table

PORT = 8427  # the usual one, so that bookmarks hold


def playground(
    data: str | None = None,
    columns: str | None = None,
    target: str | None = None,
    port: int | None = None,
    no_browser: bool = False,
) -> None:
    """Serve the playground until Ctrl-C.

    Raises TensorgradError or OSError for a table that cannot be read, or a port that is in use.
    """
    table = None
    if data is not None:
        try:
            text = read_whole(data).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise TensorgradError(f"{data}: not a text in UTF-8; save the table as CSV") from error
        table = read_table(text, columns, target)
    settings = Settings() if table is None else Settings(data="csv")
    site = Playground(lambda: Session(settings, table))
    server = _server(site, port)
    print(f"the playground is at {server.address}\nCtrl-C ends it", flush=True)
    if not no_browser:
        webbrowser.open(server.address)
    try:
        server.serve_forever(poll_interval=0.1)
    finally:
        site.close()
        server.server_close()


def _server(site: Playground, port: int | None) -> Server:
    """At the port asked for; else at the usual one, or another if that is in use."""
    try:
        return Server(site, PORT if port is None else port)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        if port is not None:
            raise TensorgradError(f"--port {port} is in use; take another, or 0 for any") from error
        return Server(site, 0)
