"""Results on disk: a folder for each card and day, a file for each stage, written case by case."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from bench.machine import ROOT
from tensorgrad.files import write_atomically

#: the card's name in a rehearsal
STAND_IN = "stand-in"


class Results:
    """The files of one folder. What is put in is on the disk when ``put`` returns."""

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        """about: card, machine, command, date, commit; kept with each case that is put in."""
        self.folder = folder
        self._about = about
        folder.mkdir(parents=True, exist_ok=True)

    def outcome(self, stage: str, case: str) -> str | None:
        """What came of a case, if it is there."""
        found = load(self.folder / f"{stage}.json").get("cases", {}).get(case, {}).get("outcome")
        return None if found is None else str(found)

    def put(self, stage: str, case: str, result: dict[str, Any]) -> None:
        """Keep what is known of a case in place of what was known before."""
        file = self.folder / f"{stage}.json"
        content = load(file) or {"stage": stage, "runs": [], "cases": {}}
        if self._about not in content["runs"]:
            content["runs"].append(self._about)
        number = content["runs"].index(self._about)
        content["cases"][case] = {"run": number, **result}
        text = json.dumps(content, indent=1) + "\n"
        for place in (ROOT, sys.prefix):  # which say nothing to others
            text = text.replace(f"{place}/", "")
        write_atomically(file, text.encode())


def load(file: Path) -> dict[str, Any]:
    """The content of a stage's file; empty if there is none."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return dict(found)


def folder_name(card: str, date: str) -> str:
    """The folder of a card and a day."""
    words = "-".join("".join(c if c.isalnum() else " " for c in card.lower()).split())
    return f"gpu-{words}-{date[:10]}"
