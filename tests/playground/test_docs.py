"""docs/playground.md names what there is."""

from __future__ import annotations

import re
from pathlib import Path

from tensorgrad.playground import lesson, session, site

TEXT = (Path(__file__).parents[2] / "docs" / "playground.md").read_text()


def test_every_command_request_field_and_lesson_is_named() -> None:
    commands = [
        name
        for row in re.findall(
            r"^\| ((?:`[a-z]+`(?:, )?)+) \|", TEXT.split("Commands, each")[1], re.M
        )
        for name in re.findall("`([a-z]+)`", row)
    ]
    assert sorted(commands) == sorted(session._COMMANDS)
    for _, path in site._ROUTES:
        assert f"{path}" in TEXT
    own = session.Session()
    for message in (own.frame(), own.data_message()):
        assert [name for name in message if name != "type" and f"`{name}`" not in TEXT] == []
    assert re.findall(r"^\| `#lesson=(\d)`", TEXT, re.M) == [
        str(k) for k in range(1, len(lesson.STEPS) + 1)
    ]


def test_the_example_runs() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    names: dict[str, object] = {}
    exec(code, names)
    own = names["session"]
    assert isinstance(own, session.Session)
    assert own.frame()["accuracy"]["train"] > 0.9
