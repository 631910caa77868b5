"""Time in which a process stood still is nobody's silence."""

from __future__ import annotations

import time

from tests.fleet.job import until

from fleetseg.fleet.awake import MOST_S, AwakeClock, running


class Source:
    now_s = 50.0

    def __call__(self) -> float:
        return self.now_s


def test_time_passes_as_it_does_elsewhere() -> None:
    source = Source()
    clock = AwakeClock(source)
    for step in range(1, 100):
        source.now_s = 50.0 + 0.25 * step
        assert clock() == source.now_s


def test_a_pause_counts_as_one_step() -> None:
    source = Source()
    clock = AwakeClock(source)
    source.now_s += 3600
    assert clock() == 50.0 + MOST_S
    source.now_s += 0.5
    assert clock() == 50.0 + MOST_S + 0.5
    source.now_s -= 100  # a source that goes back
    assert clock() == 50.0 + MOST_S + 0.5


def test_a_clock_that_is_kept_running_misses_nothing() -> None:
    source = Source()
    clock = AwakeClock(source)
    with running(clock):
        for _ in range(2):
            source.now_s += 0.9 * MOST_S
            until(lambda: clock._seen_s == source.now_s, "somebody reads it")
    assert clock() == source.now_s


def test_a_real_clock() -> None:
    clock = AwakeClock()
    began_s = clock()
    time.sleep(0.02)
    assert 0.02 <= clock() - began_s < MOST_S
