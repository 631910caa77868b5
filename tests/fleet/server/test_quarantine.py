"""Who ends segments for all others is left out for a time, and longer each time."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleetseg.fleet.server import quarantine as module
from fleetseg.fleet.server.quarantine import FIRST_PAUSE_S, LONGEST_PAUSE_S, STRIKES, Quarantine


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def kept(clock: Clock) -> Quarantine:
    return Quarantine(clock)


def test_a_site_is_left_out_after_three_segments_in_a_row(kept: Quarantine) -> None:
    for _ in range(STRIKES - 1):
        assert not kept.ended_through("a", "unsafe component")
        assert not kept.ended_through("b", "exception")  # others in between make nothing good
        assert kept.sites() == set()
    assert kept.ended_through("a", "unsafe component")
    assert kept.sites() == {"a"}
    (reason,) = kept.reasons().values()
    assert "failed 3 times in a row (unsafe component)" in reason
    assert "tried again in 2 min" in reason
    assert module.CURE in reason


def test_a_segment_that_it_lives_through_makes_all_good(kept: Quarantine) -> None:
    for _ in range(5):
        for _ in range(STRIKES - 1):
            kept.ended_through("a", "exception")
        kept.lived_through(["a", "stranger"])
    assert kept.sites() == set()


def test_it_is_tried_again_and_each_failure_doubles_the_pause(
    kept: Quarantine, clock: Clock
) -> None:
    for _ in range(STRIKES):
        kept.ended_through("a", "exception")
    pauses = []
    for _ in range(12):
        began_s = clock.now_s
        while "a" in kept.sites():
            clock.now_s += 60
        pauses.append(clock.now_s - began_s)
        assert kept.reasons() == {}
        assert kept.ended_through("a", "exception")  # one failure is enough from now on
    assert pauses[:4] == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S, 8 * FIRST_PAUSE_S]
    assert pauses[-1] == LONGEST_PAUSE_S
    while "a" in kept.sites():
        clock.now_s += 60
    kept.lived_through(["a"])
    assert not kept.ended_through("a", "exception")


def test_a_reason_from_elsewhere_is_made_plain(kept: Quarantine) -> None:
    for _ in range(STRIKES):
        kept.ended_through("a", "\x1b[31m" + "x" * 1000)
    (reason,) = kept.reasons().values()
    assert "\x1b" not in reason
    assert len(reason) < 500


def test_a_server_that_is_started_again_knows_who_was_left_out(
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    today_s = [1_000_000.0]
    monkeypatch.setattr(module.time, "time", lambda: today_s[0])
    file = tmp_path / "logs" / "quarantine.json"
    before = Quarantine(clock, file)
    for _ in range(STRIKES):
        before.ended_through("a", "unsafe component")
    before.ended_through("b", "exception")

    later = Clock()
    later.now_s = 5.0  # another process, on a machine that was started again
    today_s[0] += FIRST_PAUSE_S - 10
    again = Quarantine(later, file)
    assert again.sites() == {"a"}
    assert "unsafe component" in again.reasons()["a"]
    later.now_s += 9
    assert again.sites() == {"a"}
    later.now_s += 2
    assert again.sites() == set()
    # What came before counts: the next pause is twice as long, and b has two strikes left.
    assert again.ended_through("a", "unsafe component")
    later.now_s += 2 * FIRST_PAUSE_S - 1
    assert again.sites() == {"a"}
    assert not again.ended_through("b", "exception")
    assert again.ended_through("b", "exception")

    again.lived_through(["a", "b"])
    assert Quarantine(later, file).sites() == set()


def test_a_clock_that_was_wrong_leaves_nobody_out_for_longer_than_the_longest_pause(
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "quarantine.json"
    monkeypatch.setattr(module.time, "time", lambda: 4e9)
    before = Quarantine(clock, file)
    for _ in range(STRIKES):
        before.ended_through("a", "unsafe component")
    monkeypatch.setattr(module.time, "time", lambda: 1e9)
    again = Quarantine(clock, file)
    clock.now_s += LONGEST_PAUSE_S - 1
    assert again.sites() == {"a"}
    clock.now_s += 2
    assert again.sites() == set()


@pytest.mark.parametrize("text", ["", "[]", '{"a": 3}', '{"a": {"strikes": 3}}', "{", "\x00"])
def test_a_file_that_is_none_of_its_own_says_nothing(
    clock: Clock, tmp_path: Path, text: str
) -> None:
    file = tmp_path / "quarantine.json"
    file.write_text(text)
    kept = Quarantine(clock, file)
    assert kept.sites() == set()
    kept.ended_through("a", "unsafe component")  # and is written over


def test_a_folder_that_cannot_be_written_ends_nothing(clock: Clock, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    kept = Quarantine(clock, tmp_path / "file" / "quarantine.json")
    for _ in range(STRIKES):
        kept.ended_through("a", "unsafe component")
    assert kept.sites() == {"a"}
