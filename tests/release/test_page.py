"""The page: one file that stands alone, says what was found, and takes no name for markup."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

from tests.release_world import PEDESTRIAN

from fleetseg.data.labels import CAMVID_11
from fleetseg.judging.policy import Policy
from fleetseg.release.page import page
from fleetseg.release.pictures import Chosen, Panels

CHECK = {
    "kind": "class", "name": "pedestrian", "verdict": "fallen", "reason": "it fell",
    "candidate": 0.2, "current": 0.3, "low": -0.15, "high": -0.05, "allowed": 0.02,
    "drawn": "54 images",
}  # fmt: skip
MODEL = {
    "model": "runs/<b>new</b>", "network": "fast_scnn", "size_hw": [48, 64], "sha256": "a" * 64,
    "iou": {"pedestrian": 0.2, "road": None}, "miou": 0.2,
}  # fmt: skip
RECORD: dict[str, Any] = {
    "decision": "refused", "reasons": ["it fell"], "notes": ["bad <script>"], "decided": "today",
    "against": "release 0001", "candidate": MODEL, "current": {**MODEL, "model": "old"},
    "checks": [CHECK, {**CHECK, "kind": "calibration", "name": "ECE", "low": None, "high": None}],
    "scored_on": [["camvid/val", 101, "f" * 64]], "label_space": "camvid11",
    "policy": Policy().model_dump(mode="json"), "policy_sha256": "b" * 64,
    "environment": {"torch": "2"},
}  # fmt: skip
PANELS = [Panels(Chosen("frame<1>", "why"), {"image": "data:image/png;base64,AA=="})]


class Tags(HTMLParser):
    """All tags with their attributes, and all text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_it_says_that_the_fleet_judged_and_who_did_not() -> None:
    vehicles = {"judged": ["car-1", "car-2"], "silent": {"car-3": "away"}, "over": "a network"}
    sets = [["car-1", 1_000, ""], ["car-2", 4, ""]]
    note = "1 of 3 vehicles did not judge: car-3 (away)"
    judged = {**RECORD, "vehicles": vehicles, "scored_on": sets, "notes": [note]}
    text = Tags(page(judged, CAMVID_11, [])).text
    assert (
        "Scored on 1,004 frames held out by 2 vehicles, over a network: the fleet is the judge, "
        "and only the sums of each vehicle are known; 1 did not judge;"
    ) in text
    assert note in text
    assert "the fleet is the judge" not in Tags(page(RECORD, CAMVID_11, [])).text


def test_it_stands_alone_and_names_are_no_markup() -> None:
    found = Tags(page(RECORD, CAMVID_11, PANELS))
    names = {tag for tag, _ in found.tags}
    assert not names & {"script", "link", "iframe", "object"}
    assert "runs/<b>new</b>" in found.text
    assert "frame<1>" in found.text
    sources = [attrs["src"] for tag, attrs in found.tags if tag == "img"]
    assert sources == ["data:image/png;base64,AA=="]
    assert all(attrs.get("alt") for tag, attrs in found.tags if tag == "img")


def test_it_says_what_was_decided_and_why() -> None:
    text = Tags(page(RECORD, CAMVID_11, PANELS)).text
    assert "The candidate is not good enough in one way" in text
    assert "The frames that decided" in text
    two = {**RECORD, "reasons": ["it fell", "it is slow"]}
    assert "not good enough in 2 ways" in Tags(page(two, CAMVID_11, PANELS)).text
    kept = {**RECORD, "decision": "promoted", "current": None, "against": "", "checks": []}
    text = Tags(page(kept, CAMVID_11, ())).text
    assert "may go into the vehicles" in text
    assert "judged without a predecessor" in text
    assert "Checks" not in text


def test_an_interval_is_drawn_to_scale_and_said_in_words() -> None:
    """The widest reaches 0.15: zero is in the middle of 240 pixels, whose ends are 8 and 232."""
    found = Tags(page(RECORD, CAMVID_11, ()))
    (chart,) = [attrs for tag, attrs in found.tags if tag == "svg"]
    assert chart["aria-label"] == "-0.100, from -0.150 to -0.050; 54 images"
    lines = {attrs["class"]: attrs for tag, attrs in found.tags if tag == "line"}
    assert lines["zero"]["x1"] == "120.0"
    assert lines["bar"]["x1"] == "8.0"
    assert lines["bar"]["x2"] == f"{(2 / 3) / 2 * 224 + 8:.1f}"
    assert lines["allowed"]["x1"] == f"{(1 - 0.02 / 0.15) / 2 * 224 + 8:.1f}"


def test_critical_classes_are_marked() -> None:
    text = page(RECORD, CAMVID_11, ())
    assert text.count("class=crit") == len(CAMVID_11.critical)
    assert f"class=crit>{CAMVID_11.classes[PEDESTRIAN]}" in text
