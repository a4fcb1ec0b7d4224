"""Training in the page, in a real browser: what is seen is what the engine does. Needs Chromium and
selenium.
"""

from __future__ import annotations

import time

import pytest
from browser import Play, field, until

from tensorgrad.playground import Session, from_fragment
from tensorgrad.playground.settings import of_lesson


def test_curves_and_weights_are_those_of_the_engine_without_a_page(page: Play) -> None:
    page.open("#data=xor&seed=3")
    page.click("#step")
    until(lambda: page.state("frame.step") == 1, "a step")
    page.type(field("speed"), "200")
    page.click("#play")
    until(lambda: page.state("frame.epoch") >= 8, "eight epochs")
    assert page.find("#play").get_attribute("aria-pressed") == "true"
    page.says("#state", "Training")
    page.click("#play")
    until(lambda: page.state("frame.state") == "paused", "a pause")
    steps = page.rest()
    page.says("#state", f"Paused at epoch {steps // 25}")
    assert page.text("#epoch") == str(steps // 25)

    alone = Session(from_fragment("data=xor&seed=3"))
    alone.step(steps)
    frame = alone.frame()
    assert page.state("frame.weights") == frame["weights"]
    assert page.state("frame.biases") == frame["biases"]
    assert page.state("frame.gradient_norms") == frame["gradient_norms"]
    assert page.state("curve") == [list(row) for row in alone.learner.curve.rows]
    assert page.state("frame.output") == frame["output"]
    assert page.state("frame.confusion") == frame["confusion"]
    assert [one.text for one in page.all("#panel-confusion td")] == [
        str(count) for row in frame["confusion"] for count in row
    ]
    assert page.text("#train-accuracy") == f"{100 * frame['accuracy']['train']:.1f} %"
    for name in ("train", "test"):
        shown = float(page.text(f"#{name}-loss").replace("−", "-"))
        assert shown == pytest.approx(frame[f"{name}_loss"], rel=0.05, abs=5e-4)
    assert "µs per step" in page.text("#speed")

    page.hover("#chart", 0.5)
    page.says("#chart-readout", "training ")
    page.keys("#chart", "\ue012")
    page.says("#chart-readout", "test ")
    page.picture("trained")


def test_keys_play_step_and_reset(page: Play) -> None:
    page.open("#layers=")
    page.keys("body", "s")
    until(lambda: page.state("frame.step") == 1, "a step")
    page.keys("body", " ")
    until(lambda: page.state("frame.step") > 100, "training")
    page.type(field("rate"), "0.3")
    page.becomes("rate", 0.3)
    until(lambda: page.ask(lambda session: session.running), "training goes on")
    page.js("document.activeElement.blur()")
    page.keys("body", " ")
    until(lambda: page.state("frame.state") == "paused", "a pause")
    page.keys("body", "r")
    until(lambda: page.state("frame.step") == 0, "a reset")
    page.keys(field("rate"), "s", "r")  # letters belong to the field
    page.keys("#step", "s")
    until(lambda: page.state("frame.step") == 1, "a step by a letter on a button")
    page.click("#reset")
    until(lambda: page.state("frame.step") == 0, "a reset")
    before = page.settings
    page.click("#new-weights")
    until(lambda: page.settings.init_seed != before.init_seed, "other weights")
    page.click("#regenerate")
    until(lambda: page.settings.seed != before.seed, "other data")
    first = page.ask(lambda session: session.data_message()["train"])
    until(lambda: page.state("data.train") == first, "other data in the page")


def test_a_run_rests_when_its_page_is_left(page: Play) -> None:
    page.open("#layers=")
    page.click("#play")
    until(lambda: page.state("frame.step") > 10, "training")
    run = page.site.runs[page.state("run")]
    page.browser.get("about:blank")

    def rests() -> bool:
        before = run.ask(lambda session: session.learner.steps)
        time.sleep(0.2)
        return run.ask(lambda session: session.learner.steps) == before

    until(rests, "rest")
    assert run.ask(lambda session: session.running)


def test_training_stops_where_asked_to_and_says_where_numbers_end(page: Play) -> None:
    page.open("#layers=&stop_epochs=3")
    page.click("#play")
    page.says("#state", "Stopped")
    assert page.state("frame.epoch") == 3
    assert page.find("#state").get_attribute("aria-live") == "polite"
    page.open("#task=regression&data=plane&layers=4,4&activation=relu&rate=1000")
    page.click("#play")
    page.says("#state", "Not a number")
    reason = page.state("frame.reason")
    assert reason in page.text("#state")
    assert reason


def test_lessons_are_opened_by_their_addresses(page: Play) -> None:
    page.open()
    assert len(page.all("#lessons a")) == 5
    for number in range(1, 6):
        page.click(f"#lessons li:nth-child({number}) a")
        page.becomes("lesson", number)
        lesson = page.state(f"settings.lessons[{number - 1}]")
        until(lambda text=lesson["text"]: page.text("#lesson-text") == text, "its text")  # type: ignore[misc]
        assert page.find("#lessons [aria-current]").text == str(number)
        assert page.settings == of_lesson(number)
    page.click("#lessons li:nth-child(1) a")
    page.becomes("lesson", 1)
    page.click("#lesson-next")
    page.becomes("lesson", 2)
    page.open("#lesson=2")
    page.becomes("layers", (4,))
    page.open("#rate=much")
    page.says("#complaint", "rate must be")


def test_a_run_that_was_lost_begins_anew_with_the_settings_of_the_page(page: Play) -> None:
    page.open("#data=xor&layers=3&noise=15")
    wanted = page.settings
    page.js("""
        window.said = [];
        const note = () => said.push(document.getElementById("state").textContent);
        new MutationObserver(note).observe(document.getElementById("state"), {childList: true});""")
    page.site.runs[page.state("run")].close()
    until(lambda: "trying again" in page.js("return said.join()"), "that it tries again")
    until(lambda: page.settings == wanted, "the same settings")
    page.says("#state", "Paused")
    assert from_fragment(page.js("return location.hash")) == wanted
    page.browser.delete_all_cookies()
    page.site.runs[page.state("run")].close()
    page.says("#state", "refuses this page")
    page.says("#complaint", "a cookie must be sent")
    page.errors()  # of 403


def test_pages_see_the_same_run_or_their_own(page: Play) -> None:
    page.open()
    page.choose("#run", "shared")
    until(lambda: page.state("run") == "shared", "the shared run")
    first = page.browser.current_window_handle
    page.browser.switch_to.new_window("tab")
    page.open()
    assert page.state("run") not in ("shared", None)
    page.choose("#run", "shared")
    page.type(field("rate"), "0.25")
    page.becomes("rate", 0.25)
    page.browser.close()
    page.browser.switch_to.window(first)
    until(lambda: page.state("settings.rate") == 0.25, "the other page's rate")
    page.choose("#run", "own")
    until(lambda: page.state("settings.rate") == 0.03, "its own rate")
