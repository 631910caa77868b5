"""The page: whole without a network, and usable in a browser by mouse, keyboard and ear."""

from __future__ import annotations

import builtins
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.records import PROTOCOL, failed, record
from tests.run_folders import run_folder

from fleetseg.data.labels import IGNORE
from fleetseg.errors import CheckpointError, ConfigError, MissingExtra
from fleetseg.report import render, write_report
from fleetseg.report.gather import gather
from fleetseg.runs.kept_frames import ids_of

CONTRAST = """
() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (colour) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = rgb(getComputedStyle(e).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255, 255];
  };
  const low = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    const box = element.getBoundingClientRect();
    if (!own || !box.width || ["SCRIPT", "STYLE"].includes(element.tagName)) continue;
    if (element.closest(".sr, .skip, svg")) continue;
    const [a, b] = [light(rgb(getComputedStyle(element).color)), light(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) low.push([element.tagName, element.textContent.slice(0, 30), ratio]);
  }
  return low;
}
"""
NAMELESS = """
() => [...document.querySelectorAll("svg, img, input, a, summary, section, nav")].filter((e) => {
  if (e.getAttribute("aria-hidden") === "true") return false;
  const labelled = e.getAttribute("aria-labelledby");
  const label = e.getAttribute("aria-label") || e.alt || e.textContent.trim()
    || (labelled && document.getElementById(labelled).textContent)
    || (e.labels && [...e.labels].map((l) => l.textContent.trim()).join(""));
  return !label;
}).map((e) => e.outerHTML.slice(0, 80))
"""


@pytest.fixture(scope="module")
def page(browser: Any, page_file: Path) -> Iterator[Any]:
    opened = browser.new_page(viewport={"width": 1440, "height": 900})
    opened.told = []
    opened.on("console", lambda message: opened.told.append(message.text))
    opened.on("pageerror", lambda error: opened.told.append(str(error)))
    opened.asked = []
    opened.on("request", lambda request: opened.asked.append(request.url.partition(":")[0]))
    opened.goto(page_file.as_uri())
    yield opened
    opened.close()


def test_nothing_is_loaded_and_nothing_is_complained_of(page: Any) -> None:
    assert page.told == []
    assert page.asked.count("file") == 1
    assert set(page.asked) <= {"file", "data"}
    policy = page.locator("meta[http-equiv]").get_attribute("content")
    assert policy.startswith("default-src 'none';")


def test_every_section_has_a_heading_and_an_entry_in_the_contents(page: Any) -> None:
    sections = page.eval_on_selector_all("section", "all => all.map(e => e.id)")
    links = page.eval_on_selector_all(".toc a", "all => all.map(e => e.hash.slice(1))")
    assert sections == links
    assert {"against", "classes", "curves", "vehicles", "mix", "pictures", "fleet"} <= set(sections)
    assert all(page.eval_on_selector_all("section h2", "all => all.map(e => e.textContent)"))


def test_the_round_slider_moves_by_keyboard(page: Any) -> None:
    slider, told = page.locator("#round"), page.locator("#round-out")
    slider.focus()
    assert told.text_content().startswith("Round 3: 2 of 2 answered")
    page.keyboard.press("ArrowLeft")
    assert told.text_content().startswith("Round 2: 2 of 2 answered")
    assert slider.get_attribute("aria-valuetext") == told.text_content()
    page.keyboard.press("Home")
    assert told.text_content().startswith("Round 1:")
    page.keyboard.press("End")


def test_views_are_chosen_by_keyboard(page: Any) -> None:
    shown = (
        "all => all.filter(e => getComputedStyle(e).visibility === 'visible').map(e => e.className)"
    )
    page.locator("#v-wrong").focus()
    assert set(page.eval_on_selector_all("#pictures .stack img", shown)) == {"is-wrong"}
    page.keyboard.press("ArrowLeft")
    assert set(page.eval_on_selector_all("#pictures .stack img", shown)) == {"is-prediction"}
    page.keyboard.press("ArrowRight")


def test_the_picture_slider_paints_earlier_rounds_and_comes_back(page: Any, fleet: Path) -> None:
    """The browser paints what the run folder holds: as many wrong pixels, round by round."""
    first = page.locator("#pictures figure[data-frame='0']")
    newest = first.locator(".is-wrong").get_attribute("src")
    page.locator("#picture-round").focus()
    page.keyboard.press("Home")
    page.wait_for_selector("#pictures figure[data-frame='0'][data-round='1']")
    assert page.locator("#picture-out").text_content() == "round 1"
    painted = first.locator(".is-wrong").get_attribute("src")
    assert painted.startswith("data:image/png")
    frame = gather([fleet / "federated"]).figures.frames[0]
    share = frame.ids_by_round[0][2]
    assert first.locator(".share").text_content() == f"{100 * share:.1f}\u202f% of pixels wrong"
    labelled = float((ids_of(frame.truth_ids) != IGNORE).mean())
    assert page.evaluate(MARKED, painted) == pytest.approx(share * labelled, abs=1e-3)
    page.keyboard.press("End")
    page.wait_for_function(
        "old => document.querySelector('#pictures .is-wrong').src === old", arg=newest
    )


MARKED = """
async (source) => {
  const image = new Image(); image.src = source; await image.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.width, image.height];
  const context = canvas.getContext("2d"); context.drawImage(image, 0, 0);
  const { data } = context.getImageData(0, 0, image.width, image.height);
  let marked = 0, all = 0;
  for (let i = 0; i < data.length; i += 4) { all++; marked += data[i] !== data[i + 1]; }
  return marked / all;
}
"""


def test_everything_has_a_name_for_screen_readers(page: Any) -> None:
    assert page.evaluate(NAMELESS) == []
    assert page.locator("html").get_attribute("lang") == "en"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(page: Any, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(e => { e.open = true; })")
    assert page.evaluate(CONTRAST) == []
    page.emulate_media(color_scheme="light")


def test_a_phone_does_not_scroll_sideways(page: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.set_viewport_size({"width": 1440, "height": 900})


def test_it_prints_with_all_views_of_each_frame(page: Any) -> None:
    page.emulate_media(media="print")
    shown = "all => all.filter(e => getComputedStyle(e).visibility === 'visible').length"
    assert page.eval_on_selector_all("#pictures .stack img", shown) == 4 * 2
    assert not page.locator("#round").is_visible()
    page.emulate_media(media="screen")


def test_names_cannot_become_markup(tmp_path: Path) -> None:
    """Failure texts come from other machines."""
    evil = '</script><img src=x onerror="alert(1)">'
    path = run_folder(tmp_path / "run", [0.5], name="one")
    late = record(1, failures=(failed("b", "late", evil),), accepted=("a",))
    text = (path / "rounds.jsonl").read_text().splitlines()
    (path / "rounds.jsonl").write_text(json.dumps(late.to_dict()) + "\n" + text[-1] + "\n")
    page = render(gather([path]))
    assert evil not in page
    assert "onerror=&#34;" in page


@pytest.mark.parametrize(
    ("scores", "reason"),
    [([None], ""), ([None], "rounds"), ([0.5], "interrupted"), ([0.5, 0.6, 0.7, 0.7], "")],
)
def test_any_run_has_a_page(tmp_path: Path, scores: list[float | None], reason: str) -> None:
    page = render(gather([run_folder(tmp_path / "run", scores, reason)]))
    assert "</html>" in page
    assert not re.search(r"\bnan\b|\bNone\b", re.sub(r"<script.*?</script>", "", page, flags=re.S))


def test_it_lies_in_the_run_folder_by_itself(tmp_path: Path) -> None:
    path = run_folder(tmp_path / "run", [0.5])
    assert write_report([path]) == path / "report.html"
    assert (path / "report.html").read_text().startswith("<!doctype html>")


def test_runs_are_overlaid_and_compared(tmp_path: Path) -> None:
    one = run_folder(tmp_path / "a", [0.3, 0.4])
    two = run_folder(tmp_path / "b", [0.5, 0.6], name="two", training={"lr": 0.5})
    page = render(gather([one, two]))
    assert "two is highest, 20 points above one" in page
    assert 'class="line run-1"' in page
    assert re.search('class="tick run-1"[^>]*></svg>two</li>', page)
    assert "training.<wbr>lr" in page


def test_scores_of_other_protocols_are_refused(tmp_path: Path) -> None:
    one = run_folder(tmp_path / "a", [0.4])
    two = run_folder(
        tmp_path / "b", [0.5], protocol=replace(PROTOCOL, size_hw=(48, 64)), name="two"
    )
    with pytest.raises(ConfigError, match="do not compare"):
        gather([one, two])
    assert gather([one, two], despite=["size_hw"]).comparison is not None


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no run here"):
        gather([tmp_path])


def test_without_the_extra_the_error_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "jinja2":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtra, match=r"fleetseg\[report\]"):
        write_report([run_folder(tmp_path / "run", [0.5])])
