"""What lies below the network, and data of one's own, in a real browser. Needs Chromium and
selenium.
"""

from __future__ import annotations

import json
from pathlib import Path

from browser import Play, field, until


def test_tables_functions_and_more_classes(page: Play, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    rows = [f"{k % 7},{0.37 * k:.2f},{k % 3},{'abc'[k % 3]}" for k in range(60)]
    table.write_text("\n".join(["height,width,depth,kind", *rows]))
    page.open()
    page.find("#csv").send_keys(str(table))
    page.becomes("data", "csv")
    page.becomes("classes", 3)
    page.says("#map-readout", "x: height, y: width")
    page.says("#class-legend", "b")
    names = "return stage.results.map((unit) => unit.dataset.name).join()"
    until(lambda: page.js(names) == "a,b,c", "outputs with the names of their classes")
    page.choose("#column-x", "depth")
    page.says("#map-readout", "x: depth, y: width")
    page.choose("#column-y", "height")
    page.says("#map-readout", "x: depth, y: height")
    page.choose("#column-target", "width")
    until(lambda: page.state("data.task") == "regression", "a number to learn")
    table.write_text("a,b\n1,x")
    page.find("#csv").send_keys(str(table))
    page.says("#complaint", "column")
    page.click("#complaint button")

    page.open("#data=spiral&classes=4&layers=8&features=x,y,sinx,siny&optimizer=adam&rate=0.02")
    until(lambda: page.state("frame.output.channels") == 2, "a picture of classes")
    assert [one.text for one in page.all("#class-legend li")] == ["0", "1", "2", "3"]
    page.click("#play")
    until(lambda: page.state("frame.epoch") > 40, "training")
    page.click("#play")
    page.hover("#map", 0.3, 0.3)
    page.says("#map-readout", "% certain")
    page.click("[data-control=unit-1-3]")
    page.says("#editor-title", "Output of class 3")
    page.picture("classes")


def test_the_race_the_tape_and_the_source_of_a_step(page: Play) -> None:
    page.open("#layers=2")
    page.click("#tab-source")
    page.says("#source", "was not run yet")
    page.click("#tab-race")
    for box in page.all("#racers input"):
        if box.is_selected() != (box.get_attribute("value") in ("sgd", "adam")):
            box.click()
    page.click("#race-start")
    until(lambda: len(page.state("race")) == 2, "two racers")
    until(lambda: len(page.state("race[1].curve")) > 20, "a race")
    page.click("#play")
    page.says("#race-legend", "Adam ")
    page.hover("#race-chart", 0.2)
    page.says("#race-readout", "SGD ")
    page.click("#race-stop")
    until(lambda: page.state("frame.race") == [], "no race")
    page.click("#tab-tape")
    size = "return document.getElementById('tape').naturalWidth"
    until(lambda: page.js(size) > 100, "a picture of the tape")
    before = page.find("#tape").get_property("src")
    page.click("#tape-again")
    until(lambda: page.find("#tape").get_property("src") != before, "another")
    page.click("#tab-source")
    page.says("#source", "float")
    page.click("#source-copy")
    until(lambda: page.text("#source-copy") in ("Copied", "Not allowed"), "an answer")
    page.click("#tab-confusion")
    assert page.find("#panel-confusion table").is_displayed()


def test_what_is_taken_along_is_what_is_seen(page: Play, tmp_path: Path) -> None:
    page.browser.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)}
    )
    page.open("#layers=3")
    page.click("#step")
    until(lambda: page.state("frame.step") == 1, "a step")
    page.click("#tab-export")
    for kind in ("script.py", "weights.safetensors", "weights.json"):
        page.click(f"[data-export='{kind}']")
    kinds = {".py", ".safetensors", ".json"}
    until(lambda: {one.suffix for one in tmp_path.iterdir()} == kinds, "three files")
    found = {one.suffix: one.read_bytes() for one in tmp_path.iterdir()}
    weight = page.state("frame.weights[0]")
    from safetensors.numpy import load

    assert weight in [one.tolist() for one in load(found[".safetensors"]).values()]
    assert json.dumps(weight[0][0]) in found[".json"].decode()
    compile(found[".py"], "script.py", "exec")


def test_an_address_hides_parts_of_the_page(page: Play) -> None:
    page.open("#hide=noise,race,lessons")
    for selector in (field("noise"), "#tab-race", "#lessons"):
        assert not page.find(selector).is_displayed()
    page.click("#tab-export")
    page.click("summary")
    page.click("[data-part=noise]")
    until(lambda: page.find(field("noise")).is_displayed(), "the slider")
    for name in ("features", "layers", "step"):
        page.click(f"[data-part={name}]")
    page.becomes("hide", ("lessons", "step", "features", "layers", "race"))
    until(lambda: not page.find("#step").is_displayed(), "no button")
    assert not page.find("[data-control=More-0]").is_displayed()
    assert not page.find(":has(> [data-control=feature-xy])").is_displayed()
    lost = page.js("return playground.settings.choices.hide.filter((name) => !partOf(name))")
    assert set(lost) <= {"layers", "features"}  # these are hidden by the style


def test_every_button_is_clicked_by_a_test_here(page: Play) -> None:
    page.open()
    sources = "".join(one.read_text() for one in Path(__file__).parent.glob("test_browser*.py"))
    names = [one.get_attribute("id") for one in page.all("button[id], a[id]")]
    assert len(names) > 15
    assert [name for name in names if f'"#{name}"' not in sources] == []
