"""The page as a text: one file that loads nothing, and puts nothing in as markup."""

from __future__ import annotations

import re
from pathlib import Path

from tensorgrad import playground

PAGE = Path(playground.__file__).with_name("page.html").read_text(encoding="utf-8")


def test_the_page_is_one_file_that_loads_nothing() -> None:
    assert len(re.findall(r"<script", PAGE)) == len(re.findall(r"<script>", PAGE)) == 1
    assert len(re.findall(r"<style", PAGE)) == len(re.findall(r"<style>", PAGE)) == 1
    assert set(re.findall(r"https?://[^\s\"']+", PAGE)) == {"http://www.w3.org/2000/svg"}
    assert re.findall(r"\b(?:src|href)=\"([^\"]*)\"", PAGE) == ["data:,"]
    assert "@import" not in PAGE
    assert "url(" not in PAGE


def test_nothing_that_comes_is_taken_for_markup_or_code() -> None:
    markup, script = PAGE.split("<script>")
    assert not re.findall(r"\son\w+=|\sstyle=", markup)
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(",
                "new Function", "DOMParser", "srcdoc"):  # fmt: skip
        assert way not in script


def test_functions_are_short_and_every_id_is_there_once() -> None:
    script = PAGE.split("<script>")[1].splitlines()
    starts = [k for k, line in enumerate(script) if re.match(r"(async )?function ", line)]
    assert len(starts) > 80
    for start in starts:
        length = next(k for k in range(1, 100) if script[start + k] == "}")
        assert length < 45, script[start]
    ids = re.findall(r"\sid=\"([^\"]+)\"", PAGE)
    assert len(ids) == len(set(ids))
    asked = set(re.findall(r"\$\(\"([\w-]+)\"\)", PAGE))
    assert asked <= set(ids)
