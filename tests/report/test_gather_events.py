"""What is marked on the curves: what the run folder records, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.records import PROTOCOL, record, scored
from tests.run_folders import run_folder, with_protocol

from fleetseg.federation.records import RoundRecord
from fleetseg.report import render
from fleetseg.report.gather import gather
from fleetseg.report.gather_events import MOST, event_figures
from fleetseg.runs.records import RunEnd
from fleetseg.runs.report import read_run
from fleetseg.runs.starts import record_resume


def folder(path: Path, rounds: Sequence[RoundRecord], end: RunEnd | None = None, **fields: Any):  # type: ignore[no-untyped-def]
    """Write a run folder with these rounds."""
    run_folder(path, [None], "", **fields)
    lines = [each.to_dict() for each in rounds]
    lines += [{"event": "end", **end.to_dict()}] if end else []
    (path / "rounds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def told(path: Path) -> list[tuple[int, str]]:
    return [(event.round, event.text) for event in event_figures(read_run(path))]


def calm(*numbers: int) -> list[RoundRecord]:
    return [record(number) for number in numbers]


def test_of_a_calm_run_nothing_is_told(tmp_path: Path) -> None:
    assert told(folder(tmp_path / "run", calm(1, 2, 3))) == []


def test_rounds_without_enough_answers_are_one_event_each_stretch(tmp_path: Path) -> None:
    rounds = [*calm(1), *(record(n, quorum=False, accepted=()) for n in (2, 3, 4)), *calm(5)]
    rounds.append(record(6, quorum=False, accepted=()))
    assert told(folder(tmp_path / "run", rounds)) == [
        (2, "too few usable answers, and the model was left unchanged, until round 4"),
        (6, "too few usable answers, and the model was left unchanged"),
    ]


def test_a_vehicle_that_moves_is_told_also_where_it_was_away(tmp_path: Path) -> None:
    rounds = [
        record(1, clusters={"a": 0, "b": 1}),
        record(2, clusters={"b": 1}),
        record(3, clusters={"a": 1, "b": 1}),
    ]
    assert told(folder(tmp_path / "run", rounds)) == [(3, "moved to another cluster: a (1 to 2)")]


def test_settings_that_change_on_the_way_are_told_once_they_are_reached(tmp_path: Path) -> None:
    fields = {
        "training": {"warmup_rounds": 1, "freeze_bn_after": 0.5},
        "federation": {"rounds": 4},
    }
    all_of_it = told(folder(tmp_path / "run", calm(1, 2, 3, 4), **fields))
    assert [number for number, _ in all_of_it] == [2, 3]
    assert "batch norms" in all_of_it[1][1]
    assert [n for n, _ in told(folder(tmp_path / "half", calm(1, 2), **fields))] == [2]


def test_a_run_that_went_on_says_after_which_round(tmp_path: Path) -> None:
    path = folder(tmp_path / "run", calm(1, 2, 3))
    record_resume(path, 2)
    record_resume(path, 3)  # and nothing came of it
    (number, text), *rest = told(path)
    assert (number, rest) == (3, [])
    assert text.startswith("the run had been stopped, and was resumed here (20")
    (path / "resumed.jsonl").write_text('{"after_round": 1, "at": ""}\n{half')
    assert told(path) == [(2, "the run had been stopped, and was resumed here")]


def test_a_model_that_was_not_published_is_told(tmp_path: Path) -> None:
    good, bad = with_protocol(scored(0.6), PROTOCOL), with_protocol(scored(0.1), PROTOCOL)
    rounds = [record(1, scored=good), record(2, scored=bad)]
    back = RunEnd("collapsed", 2, 1.0, good, 1, "f" * 64)
    assert told(folder(tmp_path / "run", rounds, back)) == [
        (1, "this model was published, because that of round 2 was unsafe"),
        (2, "the run was ended: its predictions had shrunk to few classes"),
    ]
    usual = RunEnd("rounds", 2, 1.0, bad, 2, "f" * 64)
    assert told(folder(tmp_path / "usual", rounds, usual)) == []


def test_scores_that_could_not_be_taken_are_one_event(tmp_path: Path) -> None:
    rounds = [record(n, unscored="nobody is there") for n in (1, 2)]
    assert told(folder(tmp_path / "run", rounds)) == [
        (1, "could not be scored, and one later round: nobody is there")
    ]


def test_many_events_are_cut_and_counted(tmp_path: Path) -> None:
    rounds = [record(n, clusters={"a": n % 2}) for n in range(1, 41)]
    found = told(folder(tmp_path / "run", rounds))
    assert len(found) == MOST
    assert found[-1][1].endswith("; the events of 27 later rounds are not listed")


def test_every_event_is_marked_named_and_listed(tmp_path: Path, browser: Any) -> None:
    """By keyboard: a flag is a link, its words show where the focus is."""
    scores = [0.3, 0.4, 0.5, 0.6]
    fields = {"training": {"freeze_bn_after": 0.5}, "federation": {"rounds": 4}}
    path = run_folder(tmp_path / "run", scores, **fields)
    record_resume(path, 3)
    (tmp_path / "page.html").write_text(render(gather([path])))
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    try:
        page.goto((tmp_path / "page.html").as_uri())
        flags = page.locator(".flags a")
        assert flags.count() == 2
        assert "batch norms" in flags.nth(0).inner_text()
        words = flags.nth(0).locator("span")
        assert words.evaluate("e => getComputedStyle(e).clipPath") != "none"
        flags.nth(0).focus()
        assert words.evaluate("e => getComputedStyle(e).clipPath") == "none"
        page.keyboard.press("Enter")
        assert page.locator(".events li:target").inner_text().startswith("1")
        assert page.locator(".eventline").count() == 2 * page.locator(".plot").count()
        page.locator("#round").focus()
        assert "was resumed here" in page.locator("#round-out").text_content()
    finally:
        page.close()


@pytest.mark.parametrize("width", [390])
def test_words_of_flags_stay_on_a_phone(tmp_path: Path, browser: Any, width: int) -> None:
    fields = {
        "training": {"warmup_rounds": 1, "freeze_bn_after": 0.75},
        "federation": {"rounds": 4},
    }
    path = run_folder(tmp_path / "run", [0.3, 0.4, 0.5, 0.6], **fields)
    (tmp_path / "page.html").write_text(render(gather([path])))
    page = browser.new_page(viewport={"width": width, "height": 844})
    try:
        page.goto((tmp_path / "page.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") == width
        for flag in page.locator(".flags a").all():
            flag.focus()
            box = flag.locator("span").bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width
    finally:
        page.close()
