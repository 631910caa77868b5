"""Who took part and what they hold, by their own account: also of a fleet over a network."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
from tests.experiments import tiny_experiment

from fleetseg.clients import open_fleet_data, open_server_data
from fleetseg.engines.inprocess import InProcessEngine
from fleetseg.federation import rounds
from fleetseg.federation.messages import Enrolment
from fleetseg.runs.enrolled import FILE, Enrolled, read_enrolled, record_enrolled
from fleetseg.runs.run import run_experiment


def test_the_loop_writes_down_whom_it_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server of a fleet knows nobody before that, and the engine is asked once a round."""
    experiment = tiny_experiment(tmp_path / "cache", federation={"rounds": 1})
    clients, asked, seen = open_fleet_data(experiment).clients, [], []
    available = InProcessEngine.available

    def counted(engine: InProcessEngine) -> object:
        asked.append(engine)
        return available(engine)

    monkeypatch.setattr(InProcessEngine, "available", counted)
    run = run_experiment(
        experiment,
        open_server_data(experiment),
        tmp_path / "run",
        open_engine=lambda setup: nullcontext(InProcessEngine(clients, setup.runtime)),
        watcher=rounds.Watcher(enrolled=lambda there: seen.append(set(there))),
    )
    told = {each.client: each for each in read_enrolled(run.folder)}
    assert set(told) == set(clients)
    for name, client in clients.items():
        assert told[name].histogram_C == tuple(client.enrolment.histogram_C)
        assert told[name].images == client.enrolment.num_images
    assert seen == [set(clients)] * len(run.records)
    assert len(asked) == len(run.records)


def test_who_is_away_is_kept_and_nothing_is_written_again(tmp_path: Path) -> None:
    both = {name: Enrolment(name, 2, 3, (1, 2)) for name in ("car-1", "car-2")}
    record_enrolled(tmp_path, both)
    before = (tmp_path / FILE).stat().st_mtime_ns
    record_enrolled(tmp_path, {"car-2": both["car-2"]})
    assert (tmp_path / FILE).stat().st_mtime_ns == before
    record_enrolled(tmp_path, {"car-3": Enrolment("car-3", 0, 0, (0, 0), abstains="no image")})
    assert read_enrolled(tmp_path) == tuple(Enrolled(n, 2, 3, (1, 2)) for n in sorted(both))
