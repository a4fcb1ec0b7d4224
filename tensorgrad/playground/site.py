"""What the playground's server answers: the page, events, commands, and things to take along."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tensorgrad.playground import export
from tensorgrad.playground.errors import PlaygroundError, shown
from tensorgrad.playground.runs import SHARED, Run, Runs, dumped
from tensorgrad.playground.server import Reply, Stream
from tensorgrad.playground.session import Session

_PAGE = Path(__file__).with_name("page.html")
_DEEPEST = 50  # of a command's lists and objects, before it is read


class Playground:
    """The site of the playground. make: gives a new session, for each run."""

    def __init__(self, make: Callable[[], Session]) -> None:
        self.runs = Runs(make)

    def reply(self, method: str, path: str, query: dict[str, str], body: bytes) -> Reply | Stream:
        """See Site."""
        if (method, path) == ("GET", "/"):
            return page(_PAGE.read_bytes())
        if (method, path) == ("GET", "/favicon.ico"):
            return Reply("image/x-icon", b"", 204)
        run = self.runs[query.get("run", SHARED)] if (method, path) in _ROUTES else None
        return _ROUTES[method, path](run, query, body)

    def close(self) -> None:
        """End all runs."""
        self.runs.close()


def page(text: bytes, any_style: bool = False) -> Reply:
    """A page that may run the scripts that stand in it, and load nothing from elsewhere.

    any_style: styles may be those of what the page is told later, too.
    """
    scripts, styles = (_hashes(text, tag) for tag in (b"script", b"style"))
    if any_style:
        styles = "'unsafe-inline'"
    policy = (
        f"default-src 'none'; script-src {scripts}; style-src {styles}; connect-src 'self'; "
        "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return Reply("text/html; charset=utf-8", text, 200, (("Content-Security-Policy", policy),))


def _hashes(text: bytes, tag: bytes) -> str:
    """What allows the elements without attributes of a page, by their contents."""
    found = re.findall(b"<%b>(.*?)</%b>" % (tag, tag), text, re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(one).digest()).decode() for one in found]
    return " ".join(f"'sha256-{one}'" for one in hashes) or "'none'"


def _events(run: Run, query: dict[str, str], body: bytes) -> Stream:
    return run.events()


def _command(run: Run, query: dict[str, str], body: bytes) -> Reply:
    command = read_json(body)
    return _json(run.ask(lambda session: session.command(command)))


def _unit(run: Run, query: dict[str, str], body: bytes) -> Reply:
    layer, unit = query.get("layer"), query.get("unit")
    return _json(run.ask(lambda session: session.unit(layer, unit)))


def _tape(run: Run, query: dict[str, str], body: bytes) -> Reply:
    return Reply("image/svg+xml", run.ask(lambda session: session.learner.tape().svg).encode())


def _source(run: Run, query: dict[str, str], body: bytes) -> Reply:
    text = run.ask(lambda session: session.learner.trainer.source())
    return Reply("text/plain; charset=utf-8", text.encode())


def _script(run: Run, query: dict[str, str], body: bytes) -> Reply:
    return _file("text/x-python; charset=utf-8", "script.py", run.ask(export.script).encode())


def _safetensors(run: Run, query: dict[str, str], body: bytes) -> Reply:
    content = run.ask(export.weights_safetensors)
    return _file("application/octet-stream", "weights.safetensors", content)


def _weights(run: Run, query: dict[str, str], body: bytes) -> Reply:
    return _file("application/json", "weights.json", run.ask(export.weights_json).encode())


def _file(kind: str, name: str, content: bytes) -> Reply:
    disposition = f'attachment; filename="{name}"'
    return Reply(kind, content, 200, (("Content-Disposition", disposition),))


def _json(value: Any) -> Reply:
    return Reply("application/json", dumped(value))


def read_json(body: bytes) -> Any:
    """The value of a JSON text. Raises PlaygroundError for what is none, or is nested too deep."""
    if max(body.count(b"["), body.count(b"{")) > _DEEPEST and _depth(body) > _DEEPEST:
        raise PlaygroundError(f"a command may be nested {_DEEPEST} deep")
    try:
        return json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise PlaygroundError(f"a command must be JSON; got {shown(body[:80])}") from error


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def _depth(body: bytes) -> int:
    deepest = depth = 0
    for byte in body:
        if byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest


_ROUTES: dict[tuple[str, str], Callable[[Any, dict[str, str], bytes], Reply | Stream]] = {
    ("GET", "/events"): _events,
    ("POST", "/command"): _command,
    ("GET", "/unit"): _unit,
    ("GET", "/tape.svg"): _tape,
    ("GET", "/source.c"): _source,
    ("GET", "/script.py"): _script,
    ("GET", "/weights.safetensors"): _safetensors,
    ("GET", "/weights.json"): _weights,
}
