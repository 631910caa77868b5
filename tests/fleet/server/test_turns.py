"""How long a vehicle may take, worked out by hand."""

from __future__ import annotations

from fleetseg.fleet.server.turns import LEAST_S, TurnTimes


def test_a_first_turn_has_all_the_time_there_is() -> None:
    times = TurnTimes(first_s=3600.0)
    assert times.limit_s("train", "a") == 3600.0
    times.add("train", "b", 1.0)
    assert times.limit_s("train", "a") == 3600.0  # nobody is held to times of others
    times.add("evaluate", "a", 1.0)
    assert times.limit_s("train", "a") == 3600.0  # nor to those of other work


def test_then_it_is_five_times_the_median_of_all_or_of_its_own() -> None:
    times = TurnTimes(first_s=3600.0)
    for vehicle, seconds in (("a", 50.0), ("b", 100.0), ("c", 60.0), ("c", 400.0), ("a", 55.0)):
        times.add("train", vehicle, seconds)
    assert times.limit_s("train", "a") == 5 * 60.0  # of 50, 55, 60, 100, 400
    assert times.limit_s("train", "c") == 5 * 230.0  # of 60, 400: it holds more images


def test_short_turns_leave_room_for_a_stumble_and_long_ones_have_a_ceiling() -> None:
    times = TurnTimes(first_s=3600.0)
    times.add("train", "a", 0.5)
    assert times.limit_s("train", "a") == LEAST_S
    times.add("evaluate", "a", 3000.0)
    assert times.limit_s("evaluate", "a") == 3600.0


def test_old_turns_are_forgotten() -> None:
    times = TurnTimes(first_s=10_000.0)
    for _ in range(300):
        times.add("train", "a", 1000.0)
    for _ in range(300):
        times.add("train", "a", 100.0)
    assert times.limit_s("train", "a") == 500.0
