"""Latencies: medians of works that take turns, by a clock that a test turns."""

from __future__ import annotations

import pytest
from tests.models_on_disk import brightness_model

from fleetseg.release.latency import latencies_ms, medians_in_turns
from fleetseg.runs.inference import ready_model


def test_medians_of_works_in_turns() -> None:
    now, order = [0.0], []

    def work(name: str, seconds: list[float]) -> object:
        def do() -> None:
            order.append(name)
            now[0] += seconds[order.count(name) - 1]

        return do

    warm = [9.0, 9.0, 9.0]  # does not count
    slow, quick = work("a", [*warm, 0.3, 0.1, 0.2]), work("b", [*warm, 0.1, 5.0, 0.1])
    assert medians_in_turns([slow, quick], 3, lambda: now[0]) == [
        pytest.approx(200), pytest.approx(100)
    ]  # fmt: skip
    assert order == ["a", "b"] * 6


def test_a_model_takes_some_time() -> None:
    ready = ready_model(brightness_model(), "cpu", "fp32")
    assert all(0 < ms < 1000 for ms in latencies_ms([ready, ready], 3))
