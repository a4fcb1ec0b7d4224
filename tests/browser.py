"""A real browser for tests of pages: Chromium driven by selenium, or a skip without them."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from tensorgrad.playground import Session, Settings
from tensorgrad.playground.server import Server
from tensorgrad.playground.site import Playground

if TYPE_CHECKING:
    from selenium.webdriver import Chrome
    from selenium.webdriver.remote.webelement import WebElement

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
R = TypeVar("R")
_PATIENCE = 60.0  # seconds; a busy machine may compile meanwhile


@contextmanager
def chromium(width: int = 1440, height: int = 1100) -> Iterator[Chrome]:
    """A browser of its own, without a window, that asks nothing outside this machine."""
    pytest.importorskip("selenium", reason="needs selenium")
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("needs Chromium and its driver (Debian: chromium, chromium-driver)")
    from selenium.webdriver import Chrome
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = binary
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--hide-scrollbars", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--remote-debugging-pipe",
        f"--window-size={width},{height}",
    ):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = Chrome(options=options, service=Service(driver))
    try:
        yield browser
    finally:
        browser.quit()


def until(condition: Callable[[], Any], what: str) -> Any:
    """What ``condition`` gives as soon as that is true; fails if it never is, saying ``what``."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    return pytest.fail(f"never: {what}")


class Page:
    """What people do with a page, and what they see."""

    def __init__(self, browser: Chrome) -> None:
        self.browser = browser

    def js(self, script: str, *arguments: Any) -> Any:
        """What a script in the page returns."""
        return self.browser.execute_script(script, *arguments)

    def find(self, selector: str) -> WebElement:
        """The element, once it is there."""
        found: WebElement = until(lambda: self.all(selector), selector)[0]
        return found

    def all(self, selector: str) -> list[WebElement]:
        """All such elements."""
        return self.browser.find_elements("css selector", selector)

    def text(self, selector: str) -> str:
        """The text of an element, seen or not."""
        return self.js("return document.querySelector(arguments[0]).textContent", selector)

    def click(self, selector: str) -> None:
        """Click on an element, scrolled to the middle so that nothing lies over it."""
        element = self.find(selector)
        self.js("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def type(self, selector: str, text: str) -> None:
        """Replace what is in a field."""
        from selenium.webdriver.common.keys import Keys

        element = self.find(selector)
        element.send_keys(Keys.CONTROL, "a")
        element.send_keys(text, Keys.TAB)

    def keys(self, selector: str, *keys: str) -> None:
        """Press keys while an element has the focus."""
        element = self.find(selector)
        self.js("arguments[0].focus()", element)
        element.send_keys(*keys)

    def choose(self, selector: str, value: str) -> None:
        """Choose an option of a select."""
        from selenium.webdriver.support.select import Select

        self.find(f"{selector} option[value='{value}']")
        Select(self.find(selector)).select_by_value(value)

    def hover(self, selector: str, x: float = 0.0, y: float = 0.0) -> None:
        """Point at an element, off its middle by shares of its half width and half height."""
        self._pointer(selector, x, y).perform()

    def press(self, selector: str, *places: tuple[float, float]) -> None:
        """Press the mouse at the first place, draw it over the others, and let go."""
        chain = self._pointer(selector, *places[0]).click_and_hold()
        element = self.find(selector)
        for x, y in places[1:]:
            chain.move_to_element_with_offset(element, *self._offset(element, x, y))
        chain.release().perform()

    def move(self, place: tuple[int, int], click: bool = False) -> None:
        """Move the pointer to a place of the window, and click there."""
        from selenium.webdriver import ActionChains

        chain: Any = ActionChains(self.browser, duration=0)
        chain.w3c_actions.pointer_action.move_to_location(*place)
        if click:
            chain.w3c_actions.pointer_action.click()
        chain.perform()

    def _pointer(self, selector: str, x: float, y: float) -> Any:
        from selenium.webdriver import ActionChains

        element = self.find(selector)
        self.js("arguments[0].scrollIntoView({block: 'center'})", element)
        offset = self._offset(element, x, y)
        return ActionChains(self.browser, duration=0).move_to_element_with_offset(element, *offset)

    def _offset(self, element: WebElement, x: float, y: float) -> tuple[int, int]:
        return round(x * element.size["width"] / 2), round(y * element.size["height"] / 2)

    def errors(self) -> list[str]:
        """What the browser's console has complained about since this was asked last."""
        browser: Any = self.browser
        return [e["message"] for e in browser.get_log("browser") if e["level"] == "SEVERE"]


class Play(Page):
    """The page, and the server behind it."""

    def __init__(self, browser: Any, site: Playground, server: Server) -> None:
        super().__init__(browser)
        self.site = site
        self.opened: set[str] = set()  # runs
        self.base = f"http://127.0.0.1:{server.server_port}/"
        browser.get(server.address)  # lets the browser in
        self.opened.add(self.state("run"))
        self.js("sessionStorage.clear(); localStorage.clear()")
        browser.set_window_size(1440, 1100)
        self.errors()

    def open(self, fragment: str = "") -> None:
        """Open the page in a run of its own, which begins anew for an address of its own."""
        self.browser.get("about:blank")
        self.browser.get(self.base + fragment)
        until(lambda: self.js("return window.playground?.frame != null"), "a first frame")
        until(lambda: self.js("return window.playground?.data != null"), "data")
        self.opened.add(self.state("run"))

    def state(self, path: str) -> Any:
        """What the page holds, for instance ``frame.step``."""
        return self.js(f"return playground.{path}")

    def ask(self, question: Callable[[Session], R]) -> R:
        """What the session behind the page says."""
        return self.site.runs[self.state("run")].ask(question)

    @property
    def settings(self) -> Settings:
        """Those of the session."""
        return self.ask(lambda session: session.settings)

    def becomes(self, name: str, value: Any) -> None:
        """Wait until a setting has this value, in the session and in the page."""
        until(lambda: getattr(self.settings, name) == value, f"{name} = {value!r}")
        shown = json.loads(json.dumps(value))
        until(lambda: self.state(f"settings.{name}") == shown, f"{name} = {value!r} in the page")

    def says(self, selector: str, part: str) -> None:
        """Wait until an element's text has this part."""
        until(lambda: part in self.text(selector), f"{part!r} in {selector}")

    def rest(self) -> int:
        """Wait until the page shows what the session has; the steps that this took."""
        steps = self.ask(lambda session: session.learner.steps)
        until(lambda: self.state("frame.step") == steps, f"step {steps} in the page")
        return steps

    def close(self) -> None:
        """Leave the page, and end its runs: there may be only so many."""
        self.browser.get("about:blank")
        for name in self.opened - {"shared"}:
            self.site.runs[name].close()

    def picture(self, name: str) -> None:
        """Take a picture for docs/playground.md, if TENSORGRAD_PICTURES is set."""
        if "TENSORGRAD_PICTURES" in os.environ:
            from PIL import Image

            self.js("document.activeElement.blur(); scrollTo(0, 0)")
            time.sleep(0.5)  # until the browser has painted it
            shown = Image.open(BytesIO(self.browser.get_screenshot_as_png()))
            few = shown.convert("RGB").quantize(256, method=Image.Quantize.FASTOCTREE)
            few.save(PICTURES / f"playground-{name}.png", optimize=True)


def field(name: str) -> str:
    """The control of a setting."""
    return f"[data-setting={name}]"
