"""How vehicles' images look, on the page: least like the mean first, and no more than is known."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from tests.run_folders import run_folder

from fleetseg.report import render
from fleetseg.report.gather import gather
from fleetseg.report.gather_looks import look_figures, looks_of
from fleetseg.runs.vehicle_looks import FILE, Look

GREY, RED, NIGHT = (0.5, 0.5, 0.5), (0.9, 0.3, 0.3), (0.1, 0.1, 0.1)


def test_the_vehicle_that_is_least_like_the_others_comes_first() -> None:
    looks = [
        Look(name, 8, sum(c) / 3, c) for name, c in zip("abc", (GREY, RED, NIGHT), strict=True)
    ]
    assert [row.name for row in look_figures(looks)] == ["c", "b", "a"]
    assert look_figures(looks)[0].colour == "#1a1a1a"


def test_brightness_alone_decides_where_a_colour_is_not_known() -> None:
    looks = [Look("a", 8, 0.5, RED), Look("b", 0, 0.1), Look("c", 0, 0.6)]
    assert [(row.name, bool(row.colour)) for row in look_figures(looks)] == [
        ("b", False), ("c", False), ("a", True)
    ]  # fmt: skip
    assert looks_of(looks) == (
        "up to 8 training images of each, which this machine holds; some vehicles reported theirs"
    )


def test_a_page_shows_what_is_known_and_says_where_nothing_is(tmp_path: Path) -> None:
    path = run_folder(tmp_path / "run", [0.5])
    assert "no picture left a vehicle" in render(gather([path]))
    (path / FILE).write_text(json.dumps([asdict(Look("car-1", 0, 0.25))]))
    page = render(gather([path]))
    assert "Mean brightness, from 0 (black) to 1, of all images, as vehicles reported" in page
    (path / FILE).write_text(json.dumps([asdict(Look("car-1", 3, 0.5, GREY))]))
    assert 'style="background:#808080"' in render(gather([path]))
