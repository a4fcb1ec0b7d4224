"""The controls of the page, used in a real browser: what each does is seen in the page and in the
session behind it. Needs Chromium and selenium.
"""

from __future__ import annotations

from functools import partial

from browser import Play, field, until

from tensorgrad.playground import from_fragment

TYPED = {
    "rate": ("0.1", 0.1), "regularization_rate": ("0.01", 0.01), "dropout": ("0.2", 0.2),
    "batch": ("20", 20), "seed": ("5", 5), "init_seed": ("7", 7), "stop_loss": ("0.05", 0.05),
    "stop_epochs": ("30", 30), "speed": ("500", 500),
}  # fmt: skip
CHOSEN = {"optimizer": "adam", "regularization": "l2"}
TICKED = ("show_test", "discretize")
SLID = {"classes": 3, "train_share": 51, "noise": 1}  # by one step to the right


def test_every_setting_has_a_control_and_the_address_holds_them_all(page: Play) -> None:
    page.open()
    controls = {one.get_attribute("data-setting") for one in page.all("[data-setting]")}
    assert controls == {*TYPED, *CHOSEN, *TICKED, *SLID, "function"}
    for name, (text, value) in TYPED.items():
        page.type(field(name), text)
        page.becomes(name, value)
    for name, choice in CHOSEN.items():
        page.choose(field(name), choice)
        page.becomes(name, choice)
    for name in TICKED:
        page.click(field(name))
        page.becomes(name, True)
    for name, value in SLID.items():
        page.keys(field(name), "\ue014")
        page.becomes(name, value)
        assert page.text(f":has(> {field(name)}) .value").startswith(str(value))
    page.choose("#activation", "relu")
    page.becomes("activation", ("relu",))
    page.choose("#task", "regression")
    page.becomes("task", "regression")
    page.becomes("data", "plane")
    page.click("[name=dataset][value=function] ~ canvas")
    page.becomes("data", "function")
    page.type(field("function"), "x * y / 9")
    page.becomes("function", "x * y / 9")
    page.type(field("function"), "__import__('os')")
    page.says("#complaint", "a formula may have")
    until(lambda: page.find(field("function")).get_property("value") == "x * y / 9", "the old one")
    page.click("#complaint button")
    wanted = page.settings
    address = page.js("return location.hash")
    assert from_fragment(address) == wanted
    page.js("sessionStorage.clear()")
    page.open(address)
    assert page.settings == wanted
    assert page.js("return location.hash") == address


def test_layers_units_activations_and_features_are_chosen_in_the_network(page: Play) -> None:
    page.open()
    page.click("#more-layers")
    page.becomes("layers", (4, 2, 2))
    page.click("#fewer-layers")
    page.becomes("layers", (4, 2))
    page.click("[data-control=More-0]")
    page.becomes("layers", (5, 2))
    assert page.js("return document.activeElement.dataset.control") == "More-0"
    page.click("[data-control=Fewer-1]")
    page.becomes("layers", (5, 1))
    page.choose("[data-control=activation-1]", "relu")
    page.becomes("activation", ("tanh", "relu"))
    assert page.find("#activation").get_property("value") == "mixed"
    page.click(":has(> [data-control=feature-xy])")
    page.becomes("features", ("x", "y", "xy"))
    page.click(":has(> [data-control=feature-y])")
    page.becomes("features", ("x", "xy"))
    until(lambda: len(page.all("#links .seen")) == 2 * 5 + 5 * 1 + 1, "a line for each weight")
    for name in ("xor", "gauss", "spiral", "circle"):
        page.click(f"[name=dataset][value={name}] ~ canvas")
        page.becomes("data", name)
    page.choose("#task", "regression")
    for name in ("multi-gauss", "plane"):
        page.click(f"[name=dataset][value={name}] ~ canvas")
        page.becomes("data", name)


def test_a_unit_is_shown_large_and_its_weights_are_seen_and_edited(page: Play) -> None:
    page.open()
    page.hover("[data-control=unit-0-2]")
    page.says("#map-readout", "What layer 1, unit 3 gives")
    until(lambda: page.js("return playground.shown?.bytes?.length > 900"), "a finer picture")
    page.says("#tip", "bias 0.")
    page.hover("[data-control=feature-y] ~ canvas")
    page.says("#map-readout", "Feature y")
    line = page.js("""
        const path = document.querySelector("[data-link='0-3-0']");
        path.scrollIntoView({block: "center"});
        const place = path.getPointAtLength(path.getTotalLength() / 2);
        const box = document.getElementById("stage").getBoundingClientRect();
        return [box.x + place.x, box.y + place.y].map(Math.round)""")
    page.move(line)
    weight = page.state("frame.weights[0][3][0]")
    page.says("#tip", f"weight {weight:.3f}".replace("-", "−"))
    assert "x → Layer 1, unit 4" in page.text("#tip")
    page.move(line, click=True)
    page.says("#editor-title", "Layer 1, unit 4")
    page.type("#editor [data-kind=weight][data-index='0']", "1.25")
    until(lambda: page.state("frame.weights[0][3][0]") == 1.25, "the weight")
    assert page.ask(lambda session: session.learner.linears()[0].weight[3, 0].item()) == 1.25
    page.click("#editor-close")
    page.click("[data-control=unit-2-0]")
    page.says("#editor-title", "Output")
    page.type("#editor [data-kind=bias]", "-0.5")
    until(lambda: page.state("frame.biases[2][0]") == -0.5, "the output's bias")
    page.keys("#editor [data-kind=bias]", "\ue00c")
    assert not page.find("#editor").is_displayed()
    before = page.state("frame.weights[0][3][0]")
    page.click("[data-control=unit-0-3]")
    page.click("#step")
    until(lambda: page.state("frame.weights[0][3][0]") != before, "a step")
    shown = "#editor [data-index='0'][data-kind=weight]"
    now = str(page.state("frame.weights[0][3][0]"))
    until(lambda: page.find(shown).get_attribute("title") == now, "the weight in the editor")


def test_points_are_drawn_by_mouse_and_by_keyboard(page: Play) -> None:
    page.open()
    page.click("[name=dataset][value=points] ~ canvas")
    page.becomes("data", "points")
    page.press("#map", (-0.5, 0.5))
    until(lambda: len(page.settings.points) == 1, "a point")
    x, y, label = page.settings.points[0]
    assert (abs(x + 3) < 0.1, abs(y + 3) < 0.1, label) == (True, True, -1.0)
    page.click("[name=brush][value='1']")
    page.press("#map", (0.2, 0.2), (0.5, 0.2), (0.5, 0.6))
    until(lambda: len(page.settings.points) == 4, "a line of points")
    page.keys("#map", "1", "\ue012", "\ue013", "\ue007")
    until(lambda: page.settings.points[-1] == (-0.5, 0.5, -1.0), "a point of the keyboard's")
    page.says("#map-readout", "x −0.500, y 0.500: output")
    page.becomes("points", page.settings.points)
    assert from_fragment(page.js("return location.hash")).points == page.settings.points
    page.click("#clear")
    until(lambda: page.settings.points == (), "no points")
    page.click("[name=dataset][value=circle] ~ canvas")
    page.becomes("data", "circle")
    page.click("#draw")
    page.press("#map", (0.0, 0.0))
    until(lambda: len(page.settings.points) == 1, "a point added to the circle")


CONTRAST = """
const light = ([r, g, b]) => [r, g, b].map((value) => value / 255)
  .map((value) => value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
  .reduce((sum, value, i) => sum + value * [0.2126, 0.7152, 0.0722][i], 0);
const found = {};
for (const ground of ["ground", "panel"]) for (const ink of ["ink", "quiet", "accent", "alarm"]) {
  const [a, b] = [light(resolve(ground)), light(resolve(ink))].sort((x, y) => y - x);
  found[`${ink} on ${ground}`] = (a + 0.05) / (b + 0.05);
}
return found;"""


def test_everybody_can_use_it(page: Play) -> None:
    """Names for screen readers, contrast of texts (WCAG AA: 4.5), a narrow screen, no mouse."""
    page.open("#data=points&layers=2,2")
    controls = page.all("button, input, select, a, [tabindex]")
    nameless = [
        one.get_attribute("outerHTML")
        for one in controls
        if one.is_displayed() and not one.accessible_name.strip() and one.aria_role != "none"
    ]
    assert nameless == []
    for theme in ("light", "dark"):
        page.js("setTheme(arguments[0])", theme)
        assert {name: ratio for name, ratio in page.js(CONTRAST).items() if ratio < 4.5} == {}
    page.browser.set_window_size(500, 900)
    until(lambda: page.js("return innerWidth") < 600, "a narrow window")
    assert page.js("return document.documentElement.scrollWidth <= innerWidth")
    for width in (420, 320):  # narrower than a window can be
        screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        until(partial(page.js, f"return innerWidth === {width}"), "a narrow screen")
        for tab in page.all("[role=tab]"):
            page.js("arguments[0].click()", tab)
            assert page.js("return document.documentElement.scrollWidth") <= width
    page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    page.browser.set_window_size(1440, 1100)
    page.keys("#more-layers", "\ue007")
    page.becomes("layers", (2, 2, 2))
    page.keys("[data-control=unit-0-1]", "\ue007")
    page.says("#editor-title", "Layer 1, unit 2")
    page.keys("#editor input", "\ue00c")
    assert page.js("return document.activeElement.dataset.control") == "unit-0-1"


def test_the_address_is_copied_and_the_theme_is_switched(page: Play) -> None:
    allowed = {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    page.browser.execute_cdp_cmd("Browser.grantPermissions", allowed)
    page.open("#data=xor")
    page.click("#share")
    page.says("#share", "Copied")
    copied = page.browser.execute_async_script("navigator.clipboard.readText().then(arguments[0])")
    assert copied == page.base + "#data=xor"
    ground = "return getComputedStyle(document.body).backgroundColor"
    seen = []
    for name in ("light", "dark", "auto"):
        page.click("#theme")
        page.says("#theme", name)
        seen.append(page.js(ground))
    assert seen[0] != seen[1]
    assert seen[2] in seen[:2]
