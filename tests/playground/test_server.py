"""The server: who is let in, what is refused, and that runs pause when nobody reads."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from tensorgrad.playground import Session, Settings
from tensorgrad.playground.runs import Run
from tensorgrad.playground.server import MOST_BYTES, Reply, Server, Site
from tensorgrad.playground.site import Playground


class Browser:
    """Sends requests as a page would, or as one that means harm."""

    def __init__(self, server: Server) -> None:
        self.server = server
        answer, _ = self.send("GET", f"/?token={server.token}", cookie=False)
        assert answer.status == 303
        assert answer.getheader("Location") == "/"
        self.set_cookie = answer.getheader("Set-Cookie") or ""

    def send(
        self, method: str, path: str, body: Any = None, cookie: bool = True, **more: str
    ) -> tuple[http.client.HTTPResponse, bytes]:
        headers = dict(more)
        connection = http.client.HTTPConnection("127.0.0.1", self.server.server_port, timeout=60)
        if cookie:
            headers.setdefault("Cookie", self.set_cookie.split(";")[0])
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer, answer.read()
        finally:
            connection.close()

    def command(self, run: str = "shared", **command: Any) -> Any:
        _, body = self.send("POST", f"/command?run={run}", json.dumps(command))
        return json.loads(body)

    @contextmanager
    def read(self, run: str) -> Iterator[Iterator[Any]]:
        """The messages of a run, until the page is closed."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.server_port, timeout=60)
        cookie = self.set_cookie.split(";")[0]
        connection.request("GET", f"/events?run={run}", headers={"Cookie": cookie})
        with closing(connection), connection.getresponse() as answer:
            lines = iter(answer.readline, b"")
            yield (json.loads(line[6:]) for line in lines if line.startswith(b"data: "))


@pytest.fixture
def site() -> Iterator[Playground]:
    found = Playground(lambda: Session(Settings(layers=())))
    yield found
    found.close()


@pytest.fixture
def browser(site: Playground) -> Iterator[Browser]:
    with serving(site) as found:
        yield found


@contextmanager
def serving(site: Site) -> Iterator[Browser]:
    server = Server(site)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield Browser(server)
    server.shutdown()
    server.server_close()


def error_of(body: bytes) -> str:
    text = json.loads(body)["error"]
    assert isinstance(text, str)
    assert "\n" not in text
    return text


def test_the_token_becomes_a_cookie_that_scripts_cannot_read(browser: Browser) -> None:
    assert "HttpOnly" in browser.set_cookie
    assert "SameSite=Strict" in browser.set_cookie
    assert browser.server.token not in browser.set_cookie
    answer, body = browser.send("GET", "/")
    assert answer.status == 200
    assert b"<html" in body
    assert browser.server.token.encode() not in body
    policy = answer.getheader("Content-Security-Policy") or ""
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy


@pytest.mark.parametrize("path", ["/", "/events", "/unit?layer=0&unit=0", "/nothing"])
def test_nothing_is_given_without_the_cookie(browser: Browser, path: str) -> None:
    tried: list[dict[str, Any]] = [{}, {"Cookie": f"{browser.server.cookie}=x"}, {"Cookie": '=;"'}]
    for headers in tried:
        answer, body = browser.send("GET", path, cookie=False, **headers)
        assert answer.status == 403
        assert "cookie" in error_of(body)
    assert browser.send("GET", "/?token=wrong", cookie=False)[0].status == 403


def test_foreign_hosts_and_origins_are_refused(browser: Browser) -> None:
    own = f"127.0.0.1:{browser.server.server_port}"
    tried: list[dict[str, Any]] = [
        {"Host": "evil.example"}, {"Host": f"evil.example:{browser.server.server_port}"},
        {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": f"https://{own}"},
    ]  # fmt: skip
    for headers in tried:
        answer, body = browser.send("POST", "/command", '{"type": "pause"}', **headers)
        assert answer.status == 403
        error_of(body)
    answer, _ = browser.send("POST", "/command", '{"type": "pause"}', Origin=f"http://{own}")
    assert answer.status == 200


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff", b"[" * 100_000, b'{"type": NaN}', b"3", b"null", b'{"type": "fly"}',
     b'{"type": "csv", "text": "' + b"1,2,3\\n" * 20_000 + b'"}'],
)  # fmt: skip
def test_malformed_commands_are_refused_in_a_line(browser: Browser, body: bytes) -> None:
    answer, said = browser.send("POST", "/command", body)
    assert answer.status == 400
    error_of(said)


def test_sizes_and_names_are_limited(browser: Browser) -> None:
    lengths: list[dict[str, Any]] = [
        {"Content-Length": length} for length in (str(10**9), "-1", "x", "9" * 400)
    ]
    answer, body = browser.send("POST", "/command", None, **lengths[0])
    assert answer.status == 413
    assert f"{MOST_BYTES:,}" in error_of(body)
    for length in lengths:
        assert browser.send("POST", "/command", None, **length)[0].status in (400, 413)
    for run in ("UPPER", "a" * 17, "..", "%C3%A9", "%00"):
        answer, body = browser.send("POST", f"/command?run={run}", '{"type": "pause"}')
        assert answer.status == 400
    assert browser.send("GET", "/nothing")[0].status == 404
    answer, body = browser.send("GET", "/?" + "&".join(f"a{k}=1" for k in range(30)))
    assert answer.status == 400
    assert "an address must be" in error_of(body)


def test_a_page_is_told_settings_data_and_frames_and_a_reader_continues_the_curve(
    browser: Browser,
) -> None:
    with browser.read("own") as messages:
        first = [next(messages) for _ in range(3)]
        assert [m["type"] for m in first] == ["settings", "data", "frame"]
        assert browser.command("own", type="play") == {"ok": True}
        rows: list[Any] = first[2]["curve"]
        for frame in messages:
            rows = frame["curve"] if frame["curve_reset"] else rows + frame["curve"]
            if frame["state"] == "paused":
                break
            if frame["step"] > 200:
                assert browser.command("own", type="pause") == {"ok": True}
    run = browser.server.site.runs["own"]  # type: ignore[attr-defined]
    assert rows == [list(row) for row in run.ask(lambda session: session.learner.curve.rows)]


def test_a_run_pauses_when_nobody_reads_and_goes_on_when_somebody_does(browser: Browser) -> None:
    run = browser.server.site.runs["own"]  # type: ignore[attr-defined]
    with browser.read("own") as messages:
        next(messages)
        browser.command("own", type="play")
        next(m for m in messages if m["type"] == "frame" and m["step"])
    assert until(lambda: run._readers == 0)
    before = run.ask(lambda session: session.learner.steps)
    time.sleep(0.1)
    assert run.ask(lambda session: session.learner.steps) == before
    with browser.read("own"):
        assert until(lambda: run.ask(lambda session: session.learner.steps) > before)


def test_runs_side_by_side_learn_as_each_does_alone() -> None:
    kinds = [Settings(layers=(), seed=k, optimizer=name) for k, name in ((1, "sgd"), (2, "adam"))]
    alone = [Session(settings) for settings in kinds]
    together = [Run(lambda settings=settings: Session(settings)) for settings in kinds]  # type: ignore[misc]

    def learn(run: Run) -> None:
        for _ in range(10):
            run.ask(lambda session: session.step(20))

    threads = [threading.Thread(target=learn, args=(run,)) for run in together]
    for thread in threads:
        thread.start()
    for session in alone:
        session.step(200)
    for thread, run, session in zip(threads, together, alone):
        thread.join()
        weights = run.ask(lambda own: own.frame()["weights"])
        assert weights == session.frame()["weights"]
        run.close()


def test_own_runs_end_some_time_after_their_reader_has_gone() -> None:
    site = Playground(lambda: Session(Settings(layers=())))
    site.runs._patience = 0.0
    run = site.runs["own"]
    assert until(lambda: run.ended)
    assert site.runs["own"] is not run
    site.close()


class Broken:
    """A site with a mistake in it."""

    def reply(self, method: str, path: str, query: dict[str, str], body: bytes) -> Any:
        """See Site."""
        raise RuntimeError("a mistake\nof two lines")


def test_a_mistake_in_the_site_is_an_answer_too(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(Broken()) as browser:
        answer, body = browser.send("GET", "/")
    assert answer.status == 500
    assert error_of(body) == "RuntimeError: a mistake of two lines"
    assert "RuntimeError" in capsys.readouterr().err


class Flood:
    """A site whose stream never ends; ``ended`` is set once it is closed."""

    def __init__(self) -> None:
        self.ended = threading.Event()

    def reply(self, method: str, path: str, query: dict[str, str], body: bytes) -> Any:
        """See Site."""
        return self._stream() if path == "/events" else Reply("text/plain", b"here")

    def _stream(self) -> Iterator[bytes]:
        try:
            while True:
                yield b"x" * (1 << 16)
        finally:
            self.ended.set()


def test_a_browser_that_takes_nothing_is_left_and_others_are_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tensorgrad.playground.server._WRITE_SECONDS", 0.3)
    site = Flood()
    with serving(site) as browser:
        connection = http.client.HTTPConnection("127.0.0.1", browser.server.server_port)
        cookie = browser.set_cookie.split(";")[0]
        connection.request("GET", "/events", headers={"Cookie": cookie})  # and never reads
        assert browser.send("GET", "/")[1] == b"here"
        assert site.ended.wait(60)
        assert browser.send("GET", "/")[1] == b"here"
        connection.close()


def idle(server: Server, n: int) -> list[socket.socket]:
    """Connections that say nothing."""
    return [socket.create_connection(("127.0.0.1", server.server_port), 60) for _ in range(n)]


def test_connections_that_say_nothing_do_not_keep_the_owner_out(browser: Browser) -> None:
    silent = idle(browser.server, 150)  # more than there may be of all kinds
    answer, _ = browser.send("POST", "/command", '{"type": "pause"}')
    assert answer.status == 200
    assert browser.send("GET", f"/?token={browser.server.token}", cookie=False)[0].status == 303
    for one in silent:
        one.close()


def test_strangers_are_left_after_a_while_however_slowly_they_speak(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In all, not for each byte; who has shown the cookie is not hurried."""
    monkeypatch.setattr("tensorgrad.playground.server._STRANGER_SECONDS", 0.2)
    known = http.client.HTTPConnection("127.0.0.1", browser.server.server_port, timeout=60)
    cookie = {"Cookie": browser.set_cookie.split(";")[0]}
    known.request("GET", "/", headers=cookie)
    known.getresponse().read()
    [slow] = idle(browser.server, 1)

    def ended() -> bool:
        try:
            slow.sendall(b"G")
            slow.settimeout(0.01)
            return slow.recv(1) == b""
        except TimeoutError:
            return False
        except OSError:
            return True

    assert until(ended)
    slow.close()
    known.request("GET", "/", headers=cookie)
    assert known.sock is not None
    assert known.getresponse().status == 200
    known.close()


def test_the_answer_to_a_body_that_is_too_large_arrives(browser: Browser) -> None:
    """Though all of it is sent first."""
    answer, body = browser.send("POST", "/command", b"x" * (MOST_BYTES + (1 << 23)))
    assert answer.status == 413
    assert f"{MOST_BYTES:,}" in error_of(body)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"PUT / HTTP/1.1\r\n\r\n", 501),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 505),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n", 431),
        (b"HEAD / HTTP/1.1\r\n\r\n", 501),
    ],
)
def test_what_is_no_request_is_refused_as_all_else(
    browser: Browser, sent: bytes, status: int
) -> None:
    [connection] = idle(browser.server, 1)
    with closing(connection):
        connection.sendall(sent)
        answer = http.client.HTTPResponse(connection, method=sent.split()[0].decode("latin-1"))
        answer.begin()
        assert answer.status == status
        assert answer.getheader("Content-Type") == "application/json"
        body = answer.read()
        if not sent.startswith(b"HEAD"):
            error_of(body)


def until(holds: Any) -> bool:
    """Whether ``holds`` becomes true within a minute."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.01)
    return False
