"""Segments that end one after another: whoever they end through is left out, or the run ends."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fleetseg.errors import EngineError
from fleetseg.fleet.server.quarantine import STRIKES, Quarantine
from fleetseg.fleet.server.segments import MOST_BARREN, Segments

ALL = ("a", "b", "c")


class World:
    """Segments of three sites, and what the dispatcher knows of them."""

    def __init__(self, folder: Path) -> None:
        self.now_s = 0.0
        self.dispatcher: Any = SimpleNamespace(segment=0, ending=False, answered=0)
        self.quarantine = Quarantine(lambda: self.now_s)
        self.log = folder / "logs" / "segments.jsonl"
        self.segments = Segments(self.dispatcher, self.quarantine, self.log)

    def segment(
        self,
        through: Mapping[str, str] = {},
        *,
        connects: bool = True,
        answers: bool = False,
        planned: bool = False,
    ) -> list[str]:
        """Run one to its end; returns its sites."""
        sites = self.segments.deployed_to(ALL, ())
        self.segments.begin(sites)
        if connects:
            self.dispatcher.segment += 1
            self.dispatcher.ending = planned
            if answers:
                self.dispatcher.answered = self.dispatcher.segment
        here = {site: why for site, why in through.items() if site in sites}
        self.segments.end("job", here, Path("console.log"), "the last words")
        return sites


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize("connects", [True, False])
def test_a_site_that_ends_every_segment_is_left_out_and_the_others_go_on(
    world: World, connects: bool
) -> None:
    for _ in range(STRIKES):
        assert world.segment({"b": "unsafe component"}, connects=connects) == ["a", "b", "c"]
    assert world.segment({"b": "unsafe component"}, answers=True, planned=True) == ["a", "c"]
    world.now_s += 1e6
    assert world.segment(answers=True) == ["a", "b", "c"]  # it is tried again, and lives
    assert world.segment({"b": "killed"}) == ["a", "b", "c"]
    assert world.segment() == ["a", "b", "c"]


def test_two_bad_sites_of_three_do_not_end_the_run(world: World) -> None:
    for _ in range(STRIKES):
        world.segment({"a": "exception"})
        world.segment({"b": "exception"})
    for _ in range(3 * MOST_BARREN):
        assert world.segment(answers=True) == ["c"]


def test_a_site_that_crashes_after_work_is_done_is_left_out_as_well(world: World) -> None:
    """Each segment has its round, and costs all of them ten seconds."""
    for _ in range(STRIKES):
        world.segment({"c": "killed"}, answers=True)
    assert world.segment(answers=True) == ["a", "b"]


@pytest.mark.parametrize("connects", [True, False])
def test_segments_that_end_through_nobody_end_the_run(world: World, connects: bool) -> None:
    for _ in range(MOST_BARREN - 1):
        world.segment(connects=connects)
    with pytest.raises(
        EngineError, match=r"console.log: .*ended 6 times.*got the last words.*--re"
    ):
        world.segment(connects=connects)


def test_sites_that_all_fail_end_the_run_with_their_names(world: World) -> None:
    through = dict.fromkeys(ALL, "unsafe component")
    for _ in range(MOST_BARREN - 1):
        world.segment(through)
    assert world.quarantine.sites() == set(ALL)  # and yet tried: there is nobody to protect
    with pytest.raises(EngineError, match=r"a: unsafe component; b: .*fleetseg doctor.*--resume"):
        world.segment(through)


def test_an_answer_starts_the_count_anew_and_a_planned_end_does_not_count(world: World) -> None:
    for _ in range(3):
        for _ in range(MOST_BARREN - 1):
            world.segment()
        for _ in range(3):
            world.segment(planned=True)
        world.segment(answers=True)


def test_nobody_is_blamed_for_a_planned_end_or_by_a_stranger_s_name(world: World) -> None:
    for _ in range(STRIKES):
        world.segment({"a": "exception"}, planned=True)
        world.segments.begin(["b", "c"])
        world.segments.end("job", {"a": "exception"}, Path("log"), "")
    assert world.quarantine.sites() == set()


def test_a_segment_that_went_with_its_server_is_not_judged(world: World) -> None:
    for _ in range(3 * MOST_BARREN):
        world.segments.begin(ALL)
        assert world.segments.is_open
        world.segments.forget()
        assert not world.segments.is_open
    world.segment()


def test_revoked_sites_are_never_deployed_to(world: World) -> None:
    assert world.segments.deployed_to(ALL, ["a"]) == ["b", "c"]
    for _ in range(STRIKES):
        world.quarantine.ended_through("b", "exception")
        world.quarantine.ended_through("c", "exception")
    assert world.segments.deployed_to(ALL, ["a"]) == ["b", "c"]
    assert world.segments.deployed_to(ALL, []) == ["a"]


def test_every_end_is_one_line(world: World) -> None:
    world.segment({"b": "killed"}, answers=True)
    world.segment(connects=False)
    lines = [json.loads(line) for line in world.log.read_text().splitlines()]
    assert [(line["segment"], line["answered"], line["through"]) for line in lines] == [
        (1, True, {"b": "killed"}),
        (None, False, {}),
    ]
