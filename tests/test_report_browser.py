# SPDX-License-Identifier: Apache-2.0
"""The report page in headless Chromium: the slider moves, the wipe wipes, nothing is fetched, nobody is shut out."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait
from shots import FRAMES, rendered, small_shot, write_plate

from fresco_backend.commands.report_command import report
from fresco_backend.report import plots

CHROMIUM, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
QUIET = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update")  # fmt: skip

pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium and chromedriver are not installed")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("page")
    shot = small_shot(write_plate(folder / "plate"), tiny_model, folder / "out" / "look.####.png")
    rendered(shot)
    return report([shot.delivery.sequence])[0]


@pytest.fixture(scope="module")
def browser(path: Path) -> Iterator[webdriver.Chrome]:
    options = Options()
    options.binary_location = str(CHROMIUM)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    for argument in (*QUIET, "--window-size=1200,1000"):
        options.add_argument(argument)
    chrome = webdriver.Chrome(options=options, service=Service(DRIVER))
    chrome.get(path.as_uri())
    yield chrome
    chrome.quit()


def moved(browser: webdriver.Chrome, slider: str, value: int) -> None:
    browser.execute_script(
        "const one = document.getElementById(arguments[0]);"
        "one.value = arguments[1]; one.dispatchEvent(new Event('input'))", slider, value,
    )  # fmt: skip


def value(browser: webdriver.Chrome, expression: str) -> Any:
    return browser.execute_script(f"return {expression}")


def pressed(browser: webdriver.Chrome, view: str) -> None:
    browser.find_element("css selector", f"button[data-view={view}]").click()


def test_the_slider_changes_frame_pictures_and_figures(browser: webdriver.Chrome) -> None:
    pressed(browser, "wipe")
    seen = []
    for place, number in enumerate(FRAMES):
        moved(browser, "frame", place)
        kind = "keyframe" if number % 2 else "in-between"
        assert value(browser, "document.getElementById('number').textContent") == f"{number} ({kind})"
        seen.append(value(browser, "document.getElementById('over').src"))
        assert value(browser, "document.getElementById('over').naturalWidth") == 64
    assert len(set(seen)) == len(FRAMES)
    told = value(browser, "document.getElementById('told').textContent")
    figures = json.loads(value(browser, "document.getElementById('data').textContent"))["versions"][0]["figures"][-1]
    assert f"warp error {figures['warp_error']:.2f}" in told
    cursor = float(value(browser, "document.querySelector('.cursor').style.left").rstrip("%"))
    assert cursor == pytest.approx(100 * plots.RIGHT), "the last frame is at the right end of the axes"


def test_the_wipe_uncovers_the_result(browser: webdriver.Chrome) -> None:
    pressed(browser, "wipe")
    for share in (0, 30, 100):
        moved(browser, "wipe", share)
        clip = value(browser, "getComputedStyle(document.getElementById('over')).clipPath")
        assert clip == ("inset(0px 0px 0px 0%)" if share == 0 else f"inset(0px 0px 0px {share}%)")


def test_the_seam_goes_where_the_picture_is_touched(browser: webdriver.Chrome) -> None:
    pressed(browser, "wipe")
    picture = browser.find_element("id", "stage")
    held = webdriver.ActionChains(browser).move_to_element(picture).click_and_hold()
    held.move_by_offset(round(0.3 * picture.size["width"]), 0).release().perform()
    assert float(value(browser, "document.getElementById('wipe').value")) == pytest.approx(80, abs=1)
    webdriver.ActionChains(browser).move_to_element(picture).perform()
    assert float(value(browser, "document.getElementById('wipe').value")) == pytest.approx(80, abs=1), "not held"


def test_the_frames_play_until_somebody_stops_them(browser: webdriver.Chrome) -> None:
    play = browser.find_element("id", "play")
    moved(browser, "frame", len(FRAMES) - 1)
    play.click()
    WebDriverWait(browser, 10).until(lambda _: value(browser, "Number(document.getElementById('frame').value)") == 2)
    assert (play.text, play.get_attribute("aria-pressed")) == ("Stop", "true")
    play.click()
    at = value(browser, "document.getElementById('frame').value")
    time.sleep(0.2)
    assert (play.text, value(browser, "document.getElementById('frame').value")) == ("Play", at)


def test_picture_and_sliders_stand_on_one_screen(browser: webdriver.Chrome) -> None:
    ends = value(browser, "document.getElementById('frame').getBoundingClientRect().bottom + scrollY")
    assert ends < value(browser, "window.innerHeight")


def test_every_view_shows_what_it_says(browser: webdriver.Chrome) -> None:
    moved(browser, "frame", 3)
    modes = {"wipe": "wipe", "blink": "blink", "beside": "beside", "flow": "one", "occlusion": "one"}
    sources = set()
    for view, mode in modes.items():
        pressed(browser, view)
        assert value(browser, "document.getElementById('stage').dataset.mode") == mode
        states = value(browser, "[...document.querySelectorAll('[aria-pressed=true]')].map(b => b.dataset.view)")
        assert states == [view]
        sources.add(value(browser, "document.getElementById('under').src"))
    assert len(sources) == 3, "the plate, the flow, the occlusion"
    assert value(browser, "document.querySelector('button[data-view=matte]').disabled"), "there is no matte"


def test_nothing_is_fetched_and_nothing_fails(browser: webdriver.Chrome, path: Path) -> None:
    browser.get(path.as_uri())
    asked = [json.loads(line["message"])["message"] for line in browser.get_log("performance")]  # type: ignore[no-untyped-call]
    addresses = {event["params"]["request"]["url"] for event in asked if event["method"] == "Network.requestWillBeSent"}
    assert {address for address in addresses if not address.startswith("data:")} == {path.as_uri()}
    assert browser.get_log("browser") == []  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("width", [1200, 390])
def test_nobody_is_shut_out(browser: webdriver.Chrome, width: int) -> None:
    browser.set_window_size(max(width, 500), 900)
    browser.execute_script("document.body.style.maxWidth = arguments[0] + 'px'", width)
    browser.execute_script(files("axe_core_python").joinpath("axe.min.js").read_text())
    found = browser.execute_async_script("axe.run().then(arguments[0])")
    serious = [fault for fault in found["violations"] if fault["impact"] in ("serious", "critical")]
    assert serious == [], [(fault["id"], [node["html"] for node in fault["nodes"]]) for fault in serious]
    assert value(browser, "document.documentElement.scrollWidth <= window.innerWidth"), "nothing sticks out"


def test_nothing_of_a_plot_is_cut_and_the_facts_need_no_scrolling(browser: webdriver.Chrome) -> None:
    cut = value(browser, """[...document.querySelectorAll('.chart svg text')].filter((text) => {
        const [one, all] = [text, text.ownerSVGElement].map((part) => part.getBoundingClientRect());
        return one.right > all.right || one.left < all.left || one.bottom > all.bottom || one.top < all.top;
    }).map((text) => text.textContent)""")
    assert cut == []
    assert value(browser, "document.querySelectorAll('.chart svg text').length") > 50
    heights = value(browser, "(({scrollHeight, clientHeight}) => [scrollHeight, clientHeight])"
                    "(document.querySelector('[aria-label^=\"Facts\"]'))")
    assert heights[0] == heights[1] > 448, "28rem"


def test_the_first_frame_says_why_it_has_no_warp_error(browser: webdriver.Chrome) -> None:
    moved(browser, "frame", 0)
    assert "no frame before this one" in value(browser, "document.getElementById('told').textContent")
