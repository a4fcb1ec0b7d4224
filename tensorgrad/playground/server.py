"""A small server of the standard library that shows pages to a browser on this machine alone.

Whoever has the token, which is in the address printed at the start, gets a cookie for it. Requests
under another name of the host, from pages of other origins, or without the cookie are refused.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import secrets
import socket
import sys
import threading
import time
from collections.abc import Generator
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Protocol
from urllib.parse import parse_qsl, urlsplit

from tensorgrad.errors import TensorgradError

MOST_BYTES = 4 << 20  # of a body
_MOST_CONNECTIONS = 100
_MOST_STRANGERS = 30  # of them: those that have not shown the cookie
_STRANGER_SECONDS = 5.0  # which they have to show it
_FIELDS = 20  # of an address
_READ_SECONDS, _WRITE_SECONDS = 30.0, 2.0
_REST_BYTES, _REST_SECONDS = 64 << 20, 2.0  # of a request that is refused, read all the same
_UNREAD = 1 << 18  # bytes of a stream that are under way: more would be old news

Stream = Generator[bytes, None, None]


class Reply(NamedTuple):
    """An answer: bytes and their media type; further headers."""

    kind: str
    body: bytes
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()


class Site(Protocol):
    """What is behind the server's doors."""

    def reply(self, method: str, path: str, query: dict[str, str], body: bytes) -> Reply | Stream:
        """What to answer: at once, or server-sent events as they come.

        Raises TensorgradError, whose text is sent, for what cannot be answered; KeyError for a path
        that is not there.
        """


class _RefusedError(Exception):
    """A request that is not answered: a status and a line."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Server(ThreadingHTTPServer):
    """Serves a site on 127.0.0.1; ``address`` is what to open.

    port: 0 takes any that is free. Raises OSError if the port is in use.
    """

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = _MOST_CONNECTIONS

    def __init__(self, site: Site, port: int = 0) -> None:
        self.site = site
        self.token, self.key = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        self._strangers: dict[Any, float] = {}  # connection -> when it ends; the eldest first
        self._lock = threading.Lock()
        self._free = threading.BoundedSemaphore(_MOST_CONNECTIONS)
        super().__init__(("127.0.0.1", port), _Handler)
        self.cookie = f"tensorgrad_{self.server_port}"

    @property
    def address(self) -> str:
        """The address with the token."""
        return f"http://127.0.0.1:{self.server_port}/?token={self.token}"

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread of its own, unless there are too many.

        A stranger takes the place of the eldest one, so that the owner, who comes as a stranger,
        gets in however many of them wait.
        """
        with self._lock:
            eldest = next(iter(self._strangers), None)
            if eldest is not None and len(self._strangers) >= _MOST_STRANGERS:
                self._end(eldest)
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        with self._lock:
            self._strangers[request] = time.monotonic() + _STRANGER_SECONDS
        try:
            super().process_request(request, client_address)
        except BaseException:
            self.know(request)
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """As the base does."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.know(request)
            self._free.release()

    def know(self, request: Any) -> None:
        """A connection is no stranger's, or has ended."""
        with self._lock:
            self._strangers.pop(request, None)

    def service_actions(self) -> None:
        """End what strangers have not brought to an end in time."""
        now = time.monotonic()
        with self._lock:
            for request in [one for one, end in self._strangers.items() if end < now]:
                self._end(request)

    def _end(self, stranger: Any) -> None:
        del self._strangers[stranger]
        with contextlib.suppress(OSError):  # it has gone
            stranger.shutdown(socket.SHUT_RDWR)  # its thread wakes, and closes it

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away is no error; anything else is said in a line."""
        error = sys.exception()
        if not isinstance(error, OSError):
            print(f"tensorgrad: {type(error).__name__}: {error}", file=sys.stderr)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "tensorgrad", ""
    timeout = _READ_SECONDS
    server: Server

    def do_GET(self) -> None:
        """Answer."""
        self._answer()

    def do_POST(self) -> None:
        """Answer."""
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: requests are many, and addresses may hold the token."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse what is no request as all else, where the base would send a page of HTML."""
        self.close_connection = True
        self.request_version = self.protocol_version  # the base takes garbage for HTTP/0.9
        reply = _said(code, (message or HTTPStatus(code).phrase)[:200])
        self._send(reply._replace(body=b"") if self.command == "HEAD" else reply)
        self._read_rest()

    def _read_rest(self) -> None:
        """Read what is still sent, within limits.

        Closing with bytes unread resets the connection, and the answer could be lost on the way.
        """
        end, left = time.monotonic() + _REST_SECONDS, _REST_BYTES
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(_REST_SECONDS)
            while left > 0 and time.monotonic() < end:
                found = self.connection.recv(1 << 16)
                if not found:
                    break
                left -= len(found)

    def _answer(self) -> None:
        try:
            reply = self._reply()
        except _RefusedError as error:
            self.close_connection = True  # a body may be unread
            reply = _said(error.status, str(error))
        except TensorgradError as error:
            reply = _said(400, str(error))
        except OSError:  # the browser is gone, or has sent less than it said for too long
            raise
        except Exception as error:
            print(f"tensorgrad: {type(error).__name__}: {error}", file=sys.stderr)
            self.close_connection = True
            reply = _said(500, f"{type(error).__name__}: {error}")
        if isinstance(reply, Reply):
            self._send(reply)
            if reply.status >= 400 and self.close_connection:
                self._read_rest()
        else:
            self._stream(reply)

    def _reply(self) -> Reply | Stream:
        own = f"127.0.0.1:{self.server.server_port}"
        names = (own, f"localhost:{self.server.server_port}")
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or hosts[0] not in names:
            raise _RefusedError(403, f"Host must be {own}; got {_short(hosts)}")
        origins = self.headers.get_all("Origin") or []
        if origins and origins != [f"http://{hosts[0]}"]:
            raise _RefusedError(403, f"Origin must be http://{hosts[0]}; got {_short(origins)}")
        try:
            address = urlsplit(self.path)
            query = dict(parse_qsl(address.query, keep_blank_values=True, max_num_fields=_FIELDS))
        except ValueError as error:
            raise _RefusedError(
                400,
                f"an address must be a path and up to {_FIELDS} fields; got {_short(self.path)}",
            ) from error
        if self.command == "GET" and address.path == "/" and "token" in query:
            return self._let_in(query["token"])
        if not self._has_cookie():
            raise _RefusedError(
                403, "a cookie must be sent; open the address that was printed at the start"
            )
        self.server.know(self.connection)
        body = self._body()
        try:
            return self.server.site.reply(self.command, address.path, query, body)
        except KeyError as error:
            raise _RefusedError(
                404, f"there is no {self.command} {_short(address.path)}"
            ) from error

    def _body(self) -> bytes:
        lengths = self.headers.get_all("Content-Length") or ["0"]
        if "Transfer-Encoding" in self.headers or len(lengths) > 1:
            raise _RefusedError(400, "a body must come with one Content-Length, and in one piece")
        if not (lengths[0].isascii() and lengths[0].isdecimal()):
            raise _RefusedError(400, f"Content-Length must be a number; got {_short(lengths[0])}")
        if len(lengths[0]) > 12 or int(lengths[0]) > MOST_BYTES:
            raise _RefusedError(
                413, f"a body may have {MOST_BYTES:,} bytes; got {_short(lengths[0])}"
            )
        body = self.rfile.read(int(lengths[0]))
        if len(body) < int(lengths[0]):
            raise _RefusedError(400, f"{lengths[0]} bytes must come; got {len(body)}")
        return body

    def _let_in(self, token: str) -> Reply:
        if not hmac.compare_digest(token.encode(), self.server.token.encode()):
            raise _RefusedError(403, "the token must be that of the address that was printed")
        self.close_connection = True  # a body may be unread
        cookie = f"{self.server.cookie}={self.server.key}; HttpOnly; SameSite=Strict; Path=/"
        return Reply("text/plain", b"", 303, (("Location", "/"), ("Set-Cookie", cookie)))

    def _has_cookie(self) -> bool:
        for header in self.headers.get_all("Cookie") or []:
            try:
                found = SimpleCookie(header).get(self.server.cookie)
            except CookieError:
                continue
            if found is not None and hmac.compare_digest(
                found.value.encode(), self.server.key.encode()
            ):
                return True
        return False

    def _send(self, reply: Reply) -> None:
        self._begin(reply.status, reply.kind, reply.headers)
        self.send_header("Content-Length", str(len(reply.body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(reply.body)

    def _stream(self, stream: Stream) -> None:
        """Send events until the browser goes away; one that takes none for two seconds is gone."""
        self.close_connection = True
        self.connection.settimeout(_WRITE_SECONDS)
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _UNREAD)
        try:
            self._begin(200, "text/event-stream", (("Connection", "close"),))
            self.end_headers()
            for event in stream:
                self.wfile.write(event)
        except OSError:
            pass
        finally:
            stream.close()

    def _begin(self, status: int, kind: str, headers: tuple[tuple[str, str], ...]) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        for name, value in (
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            *headers,
        ):
            self.send_header(name, value)


def _said(status: int, text: str) -> Reply:
    body = json.dumps({"error": " ".join(text.split())}).encode()
    return Reply("application/json", body, status)


def _short(value: Any) -> str:
    return " ".join(repr(value).split())[:80]
