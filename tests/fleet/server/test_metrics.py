"""What Prometheus reads: by its own parser, and by the rules of its names."""

from __future__ import annotations

import re

import pytest
from tests.records import record

from fleetseg.federation.messages import Failure
from fleetseg.federation.rounds import Watcher
from fleetseg.fleet.server.metrics import ENDS, PHASES, STATES, FleetNow, Metrics

parser = pytest.importorskip("prometheus_client.parser")


def samples(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """(name, label's value) -> value, as Prometheus reads them."""
    families = parser.text_string_to_metric_families(metrics.text().decode())
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


def test_a_round_is_counted() -> None:
    now_s, seen = [100.0], []
    metrics = Metrics(lambda: now_s[0])
    watcher = metrics.watching(Watcher(round_closed=seen.append))
    told = record(
        round=7,
        cohort=("a", "b", "c"),
        accepted=("a",),
        failures=(Failure("b", "lost", "silent"), Failure("c", "late", "deadline")),
    )
    now_s[0] = 103.0
    watcher.round_opened(7, ["a", "b", "c"])
    for now_s[0] in (105.0, 110.0):
        watcher.replied(Failure("b", "lost", "silent"), None)
    now_s[0] = 110.5
    watcher.round_closed(told)
    assert seen == [told]
    read = samples(metrics)
    assert read["fleetseg_rounds_total", "quorum"] == told.quorum
    assert read["fleetseg_rounds_total", "no_quorum"] == (not told.quorum)
    kinds = [read["fleetseg_failures_total", k] for k in ("lost", "late", "refused", "abstained")]
    assert kinds == [1, 1, 0, 0]
    assert read["fleetseg_updates_total",] == 1
    assert read["fleetseg_last_round",] == 7
    assert read["fleetseg_last_round_participants", "asked"] == 3
    assert read["fleetseg_last_round_participants", "used"] == 1
    assert [read["fleetseg_phase_seconds_total", p] for p in PHASES] == [3.0, 7.0, 0.5]


def test_the_fleet_is_as_it_is_now() -> None:
    metrics = Metrics()
    before = samples(metrics)
    assert all(before["fleetseg_vehicles", state] == 0 for state in STATES)
    assert all(before["fleetseg_segments_ended_total", end] == 0 for end in ENDS)
    metrics.now = lambda: FleetNow({"idle": 2, "away": 1}, 4, {"lost": 3}, 1000, 20)
    read = samples(metrics)
    assert (read["fleetseg_vehicles", "idle"], read["fleetseg_vehicles", "away"]) == (2, 1)
    assert read["fleetseg_vehicles", "busy"] == 0
    assert read["fleetseg_segments_total",] == 4
    assert read["fleetseg_segments_ended_total", "lost"] == 3
    assert (read["fleetseg_bytes_total", "down"], read["fleetseg_bytes_total", "up"]) == (1000, 20)


def test_names_keep_to_the_rules_and_every_metric_is_explained() -> None:
    """https://prometheus.io/docs/instrumenting/exposition_formats and .../practices/naming."""
    metrics = Metrics()
    metrics.watching(Watcher()).round_closed(record())
    text = metrics.text().decode()
    assert text.endswith("\n")
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    assert kinds
    assert set(kinds) == set(re.findall(r"^# HELP (\S+) \S", text, re.MULTILINE))
    for name, kind in kinds.items():
        assert re.fullmatch(r"fleetseg_[a-z_]+", name)
        assert name.endswith("_total") == (kind == "counter")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    line = r'[a-z_]+(\{[a-z]+="[^"\\]*"\})? -?[0-9.]+(e[+-][0-9]+)?'
    assert [told for told in lines if not re.fullmatch(line, told)] == []
    assert len({told.rpartition(" ")[0] for told in lines}) == len(lines)
