"""The page in a browser: Chromium, driven by selenium. Every test also asserts silence: no message, no request.

`MINIDRAW_AXE` is the path of axe.min.js, of axe-core 4; without it the file is looked for in node_modules.
"""

import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_page import MODELS, agree, some_model

import minidraw
from minidraw import page
from minidraw.ops import filterbank
from support import digits

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium drives the browser: pip install '.[page]'")
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.actions.action_builder import ActionBuilder  # noqa: E402
from selenium.webdriver.common.actions.pointer_input import PointerInput  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
AXE = Path(os.environ.get("MINIDRAW_AXE", "node_modules/axe-core/axe.min.js"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no Chromium with its driver here (chromium-driver)"),
]
TABS = "look", "window", "dream"


@pytest.fixture(scope="module")
def chromium():
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with webdriver.Chrome(options=options, service=Service(DRIVER)) as driver:
        driver.set_script_timeout(300)  # axe-core on a busy machine
        yield driver


@pytest.fixture(scope="module")
def bundled(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page.html"
    html = page.page(minidraw.load(), minidraw.mnist().test, minidraw.images.mnist_labels("test"))
    path.write_text(html, encoding="utf-8")
    return path


class Page:
    """The page at `path`, as a hand meets it."""

    def __init__(self, driver, path):
        self.driver, self.address = driver, path.as_uri()

    def open(self, fragment="", width=1280, **features):
        """Load it anew; `features` are media features, such as prefers_color_scheme="dark"."""
        self.driver.get("about:blank")
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        features = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self.driver.get(f"{self.address}#{fragment}")
        return self

    def __getitem__(self, name):
        return self.driver.find_element("id", name)

    def js(self, code, *arguments):
        return self.driver.execute_script(code, *arguments)

    def pixels(self, selector):
        """The red channel of a canvas, in [0, 1]: (height, width)."""
        shape_and_pixels = self.js(
            "const c = document.querySelector(arguments[0]), copy = c.cloneNode();"
            "const context = copy.getContext('2d', {willReadFrequently: true});"
            "context.drawImage(c, 0, 0);"
            "const d = context.getImageData(0, 0, c.width, c.height).data;"
            "return [c.height, c.width, Array.from(d).filter((v, k) => k % 4 === 0)]",
            selector,
        )
        height, width, red = shape_and_pixels
        return np.array(red).reshape(height, width) / 255

    def fragment(self, wanted=""):
        """What the address says, once it has come to say `wanted`."""
        deadline = time.monotonic() + 120
        while True:
            said = self.js("return location.hash").lstrip("#")
            if wanted in said or time.monotonic() > deadline:
                assert wanted in said, said
                return dict(part.split("=") for part in said.split("&"))
            time.sleep(0.05)

    def press(self, element, *keys):
        self.js("arguments[0].focus()", element)
        self.driver.switch_to.active_element.send_keys(*keys)

    def drag(self, element, strokes, kind="mouse"):
        """Draw strokes, of points in [0, 1] of the width of `element`, with the mouse or a finger."""
        self.js("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element)
        area = self.js("return arguments[0].getBoundingClientRect().toJSON()", element)
        actions = ActionBuilder(self.driver, mouse=PointerInput(kind, kind), duration=4)
        for points in strokes:
            for k, (x, y) in enumerate(points):
                actions.pointer_action.move_to_location(
                    round(area["left"] + x * area["width"]), round(area["top"] + y * area["width"])
                )
                if k == 0:
                    actions.pointer_action.pointer_down()
            actions.pointer_action.pointer_up()
        actions.perform()
        self.driver.execute_async_script(  # until the page has looked at what is there now, and written its address
            "const done = arguments[0];requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 300)))"
        )


def wait(until):
    """For something to become true."""
    deadline = time.monotonic() + 120
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def silent(driver):
    """Nothing on the console, and nothing fetched but the page itself."""
    assert driver.get_log("browser") == []
    for entry in driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            url = message["params"]["request"]["url"]
            assert url.startswith(("file:", "data:", "about:")) and not url.endswith(".ico"), url


@pytest.fixture
def here(chromium, bundled):
    yield Page(chromium, bundled)
    silent(chromium)


def test_every_tab_teaches_before_it_is_touched(here):
    here.open()
    assert "Step 64 of 64" in here["look-says"].text and "nats" in here["look-says"].text
    seen, drawn = here.pixels("#seen canvas"), here.pixels("#drawn canvas")
    assert seen.shape == (28, 28) and np.abs(seen - drawn).mean() < 0.15
    assert here.js("return document.querySelectorAll('#seen rect.read, #drawn rect.write').length") == 2
    here["tab-window"].click()
    assert "strongest push" in here["window-says"].text
    assert here.js("return document.querySelectorAll('#over path.arrow').length") == 2
    here["tab-dream"].click()
    for k in (1, 12):
        assert here.pixels(f"#dreams label:nth-of-type({k}) canvas").max() > 0.5
    assert "Steps 1 to 13 are held" in here["dream-says"].text


def test_the_numbers_are_numpys(here):
    p = [0.2, -0.4, 0.5, -0.7, 0.1]
    ours = here.open().js(
        "return Array.from(minidraw.filterbank(Float64Array.from(arguments[0]), {N: 5, A: 28, B: 28}).F_x)", p
    )
    agree(ours, filterbank.on_arrays(np.array([p]), N=5, A=28, B=28)[0][0].ravel(), 1e-10)


def test_ten_digits_drawn_with_the_mouse(here):
    here.open("tab=look&seed=0")
    redrawn = []
    for digit in range(10):
        here["clear"].click()
        here.drag(here["pad"], digits.STROKES[digit])
        here.fragment("strokes=")
        redrawn.append(here.pixels("#drawn canvas").ravel())
    assert (digits.nearest(np.array(redrawn)) == np.arange(10)).sum() >= 9
    fragment, drawn = here.js("return location.hash"), here.pixels("#drawn canvas")
    here.open(fragment.lstrip("#"))  # a drawing lives in the address
    assert (here.pixels("#drawn canvas") == drawn).all()


def test_drawing_with_the_keys(here):
    here.open()
    here.press(here["pad"], Keys.SPACE, *[Keys.ARROW_DOWN] * 6, Keys.SPACE, *[Keys.ARROW_RIGHT] * 3)
    strokes = here.fragment("strokes=")["strokes"]
    assert len(strokes) >= 20 and "-" not in strokes
    assert here.pixels("#seen canvas").sum() > 20
    here.press(here["pad"], Keys.BACKSPACE)
    assert here.fragment("digit=")["digit"] == "2"


def test_drawing_and_dragging_with_a_finger(here):
    here.open(width=390)
    here.drag(here["pad"], digits.STROKES[1], "touch")
    assert here.fragment("strokes=") and here.pixels("#seen canvas").sum() > 20
    here.open("tab=window", width=390)
    here.drag(here["over"], [[[0.6, 0.4], [0.5, 0.5], [0.4, 0.6]]], "touch")
    moved = [float(v) for v in here.fragment("p=-")["p"].split(",")]
    assert moved[0] < 0.1 and moved[1] > -0.05


def test_the_address_is_restored_and_written(here):
    here.open("tab=look&digit=7&t=4&seed=3")
    assert "Step 4 of 64" in here["look-says"].text and here["t"].get_attribute("value") == "4"
    assert here.js("return document.querySelector('#digits input:checked').ariaLabel") == "test image 7, a 7"
    here.press(here["t"], Keys.ARROW_RIGHT)
    assert here.fragment("t=5") == {"tab": "look", "digit": "7", "t": "5", "seed": "3"}
    before = here.pixels("#drawn canvas")
    here["noise"].click()
    assert here.fragment("seed=4") and (here.pixels("#drawn canvas") != before).any()
    here.press(here["tab-look"], Keys.ARROW_RIGHT)
    assert here.fragment("tab=window")["digit"] == "7"
    here.js("location.hash = '#tab=dream&seed=8&k=64&t=3&dream=4&to=6&s=1'")
    assert here.fragment("s=1") and "All is held" in here["dream-says"].text
    assert here["seed"].get_attribute("value") == "8" and here["to"].get_attribute("value") == "6"
    silly = "tab=nowhere&digit=99&t=-3&seed=a&p=1,2&N=1000&strokes=zz&s=&k=1e9"
    here.open(silly)
    assert here.fragment("tab=look")["t"] == "0"


def test_downhill_and_far_away_and_the_fault(here):
    here.open("tab=window&digit=3")
    losses = [float(here["L"].text)]
    for _ in range(5):
        here["step"].click()
        losses.append(float(here["L"].text))
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]
    here["away"].click()
    assert "No push" in here["window-says"].text
    here["middle"].click()
    spot = "return Number(document.querySelector('#over circle.spot').getAttribute('cx'))"
    straight = here.js(spot)
    here["fault"].click()
    delta = 27 / 4 * np.exp(-0.9)
    assert here.js(spot) == pytest.approx(straight - delta) and here.fragment("fault=1")
    here.press(here["over"], Keys.ARROW_LEFT, "+", "b")
    p = [float(v) for v in here.fragment("p=0.28")["p"].split(",")]
    assert p == pytest.approx([0.28, -0.25, 0.1, -0.85, 0])
    here.press(here["p4"], Keys.ARROW_RIGHT)
    assert here.fragment("0.01&N")


def test_the_handles_resize_and_blur(here):
    """Each changes its own number of the five, and no other."""
    where = (
        "const h = document.querySelector('#over circle.handle.' + arguments[0]).getBoundingClientRect();"
        "const s = document.getElementById('over').getBoundingClientRect();"
        "return [h.x + h.width / 2 - s.x, h.y + h.height / 2 - s.y].map((v) => v / s.width)"
    )
    for kind, number, way in (("size", 3, 1), ("blur", 2, -1)):
        here.open("tab=window&digit=3&p=0.1,-0.1,0.2,-1,0")
        x, y = here.js(where, kind)
        here.drag(here["over"], [[[x, y], [x + 0.02 * way, y], [x + 0.06 * way, y]]])
        wait(lambda: float(here[f"p{number}"].get_attribute("value")) > (0.2, -1)[number - 2] + 0.05)  # noqa: B023
        found = [float(here[f"p{k}"].get_attribute("value")) for k in range(5)]
        kept = [k for k in range(5) if k != number]
        assert [found[k] for k in kept] == pytest.approx([(0.1, -0.1, 0.2, -1, 0)[k] for k in kept], abs=0.02)
    here.open("tab=window&digit=3&N=2&fault=1")  # the corner lies left of the middle
    x, y = here.js(where, "size")
    here.drag(here["over"], [[[x, y], [x + 0.02, y], [x + 0.05, y]]])
    assert np.isfinite([float(v) for v in here.fragment("p=")["p"].split(",")]).all()


def test_it_plays_and_speaks(here):
    here.open("tab=look&t=64", prefers_reduced_motion="reduce")
    assert here.js("return getComputedStyle(document.getElementById('play')).transitionDuration") == "0s"
    press = "const [p, says] = ['play', 'look-says'].map((id) => document.getElementById(id)); p.click();"
    press += "return [p.textContent, says.textContent.slice(0, 6)]"
    assert here.js(press) == ["Stop", "Step 0"]
    wait(lambda: "Step 0" not in here["look-says"].text)
    assert here.js(press)[0] == "Play" and here.js(press)[0] == "Stop" and here.js(press)[0] == "Play"
    wait(lambda: here["said"].get_attribute("textContent") == here["look-says"].text)


def test_dreams_by_seed_and_by_steps_held(here):
    here.open("tab=dream&seed=3&k=0")
    dream, endings = here.pixels("#dreams label canvas"), here.pixels("#anew canvas")
    here.press(here["k"], Keys.END)
    assert here.fragment("k=64") and (here.pixels("#anew canvas") == dream).all() and (endings != dream).any()
    here.press(here["s"], Keys.HOME)
    assert here.fragment("s=0") and (here.pixels("#between") == dream).all()
    here["another"].click()
    assert here.fragment("seed=4") and (here.pixels("#dreams label canvas") != dream).any()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone_width_and_both_schemes(here, scheme):
    grounds = {"light": "rgb(247, 246, 242)", "dark": "rgb(19, 21, 24)"}
    for tab in TABS:
        here.open(f"tab={tab}", width=390, prefers_color_scheme=scheme)
        assert here.js("return document.documentElement.scrollWidth") <= 390, tab
        assert here.js("return getComputedStyle(document.body).backgroundColor") == grounds[scheme]


@pytest.mark.skipif(not AXE.is_file(), reason="no axe-core 4 here: npm install axe-core, or set MINIDRAW_AXE")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(here, scheme):
    for tab in TABS:
        here.open(f"tab={tab}", prefers_color_scheme=scheme)
        here.js(AXE.read_text(encoding="utf-8"))
        found = here.driver.execute_async_script(
            "const done = arguments[0]; axe.run().then((result) => done(result.violations))"
        )
        summary = [(rule["id"], [node["html"][:90] for node in rule["nodes"]]) for rule in found]
        assert summary == [], (tab, summary)


def busy(driver):
    """Seconds of processor time that the page's thread has used for its tasks."""
    metrics = driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    return next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration")


def test_it_is_quick(here):
    """The best of some, and five times the goals, 1 s and 30 moves a second: a busy machine slows the page down."""
    here.driver.get("about:blank")
    here.driver.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
    opened, frames = [], []
    while min(opened, default=2) > 1 and len(opened) < 6:
        here.open()
        opened.append(busy(here.driver))
    here.open("tab=window")
    points = [[0.6 - 0.2 * k / 20, 0.4 + 0.1 * np.sin(k / 3)] for k in range(21)]
    while min(frames, default=1) > 1 / 30 and len(frames) < 6:
        before = busy(here.driver)
        here.drag(here["over"], [points])
        frames.append((busy(here.driver) - before) / len(points))
    here.driver.execute_cdp_cmd("Performance.disable", {})
    print(f"open {min(opened):.2f} s, drag {1000 * min(frames):.1f} ms a move")
    assert min(opened) <= 5 and min(frames) <= 5 / 30, (opened, frames)


@pytest.mark.parametrize("name", ["colour", "colour without attention", "tall", "learned start"])
def test_other_models(chromium, tmp_path, name, rng):
    config = MODELS[name] if name != "tall" else replace(MODELS[name], T=64)
    path = tmp_path / "page.html"
    path.write_text(page.page(some_model(config), rng.random((4, config.pixels)), binary=False), encoding="utf-8")
    other = Page(chromium, path)
    for tab in TABS:
        other.open(f"tab={tab}", width=390)
        assert other.js("return document.documentElement.scrollWidth") <= 390
    other.open()
    assert other.pixels("#seen canvas").shape == (config.B, config.A)
    assert other["patches"].is_displayed() == (config.read_N is not None)
    other.drag(other["pad"], [[[0.2, 0.2], [0.5, 0.5]]])
    assert other.fragment("strokes=") and other.pixels("#seen canvas").max() > 0.5
    silent(chromium)
