"""The live page is the report page, with scripts that may run and nothing else that may."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.run_folders import run_folder

from fleetseg.errors import FleetSegError
from fleetseg.report import render
from fleetseg.report.gather import gather
from fleetseg.watching.page import NONCE, LivePage, live
from fleetseg.watching.state import RunState


def test_scripts_are_named_and_the_page_s_own_policy_gives_way(tmp_path: Path) -> None:
    page = render(gather([run_folder(tmp_path / "one", [0.25])]))
    state = RunState("v1", "Round 1 of 5 & more", is_over=False)
    made = live(page, state)
    assert "http-equiv" not in made  # the policy of the answer is stricter, but for 'self'
    scripts = re.findall(r"<script([^>]*)>", made)
    assert scripts == [" type=application/json id=page-data", *[f' nonce="{NONCE}"'] * 2]
    assert 'data-version="v1"' in made
    assert "Round 1 of 5 &amp; more</span>" in made
    assert made.count("aria-live=polite>Round 1") == 1


def test_a_page_is_made_anew_when_its_run_has_changed(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "one", [0.25], reason="")
    page = LivePage(folder)
    first = page.html()
    assert page.html() is first
    log = folder / "rounds.jsonl"
    log.write_text(log.read_text() + log.read_text().replace('"round": 1', '"round": 2'))
    assert page.html() != first


def test_a_run_that_cannot_be_read_for_a_while_stays_as_it_was(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "one", [0.25])
    page = LivePage(folder)
    first = page.html()
    (folder / "experiment.toml").rename(folder / "elsewhere")
    assert page.html() == first
    with pytest.raises(FleetSegError):
        LivePage(folder).html()
