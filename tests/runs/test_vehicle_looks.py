"""How vehicles' images look: of images that this machine holds, and else as vehicles report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.experiments import tiny_experiment

from fleetseg.clients import FleetData, open_fleet_data
from fleetseg.errors import BadSample
from fleetseg.federation.client import Client
from fleetseg.federation.fedgau import IMAGE_GAUSSIAN
from fleetseg.federation.messages import Enrolment
from fleetseg.runs.vehicle_looks import FILE, Look, read_looks, record_looks, record_reported


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> FleetData:
    drives = {"cities": ["amber"], "conditions": ["day", "night"], "frames_per_drive": 2}
    sections = {"data": {"sources": [drives]}}
    return open_fleet_data(tiny_experiment(tmp_path_factory.mktemp("cache"), **sections))


def enrolment(name: str, mean: float | None = None, abstains: str = "") -> Enrolment:
    facts = {} if mean is None else {IMAGE_GAUSSIAN: np.array([mean, 9.0, 12.0], np.float32)}
    return Enrolment(name, 2, 9, (9,), abstains, facts=facts)


def test_of_images_that_are_here_the_mean_colour_is_known(data: FleetData, tmp_path: Path) -> None:
    record_looks(tmp_path, data, "decoded")
    looks = {look.client: look for look in read_looks(tmp_path)}
    assert set(looks) == set(data.clients)
    for name, client in data.clients.items():
        own = [client.train[k][0] / 255 for k in range(len(client.train))]
        assert looks[name].images == len(own) == 2
        assert looks[name].colour_3 == pytest.approx(np.mean(own, axis=(0, 1, 2)), abs=1e-4)
        assert looks[name].brightness == pytest.approx(np.mean(own), abs=1e-4)
    night, day = (next(v for k, v in looks.items() if s in k) for s in ("night", "day"))
    assert night.brightness < day.brightness


def test_they_are_looked_at_once(data: FleetData, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("[]")
    record_looks(tmp_path, data, "decoded")
    assert read_looks(tmp_path) == ()


def test_own_objects_and_absent_vehicles_are_left_alone(data: FleetData, tmp_path: Path) -> None:
    record_looks(tmp_path, replace(data, manifest=None), "decoded")
    assert not (tmp_path / FILE).exists()
    gone = {"gone": Client(enrolment("gone", abstains="no labels"), [])}
    record_looks(tmp_path, replace(data, clients=gone), "decoded")
    assert read_looks(tmp_path) == ()


def test_a_bad_image_costs_its_vehicle_the_look_and_nothing_else(
    data: FleetData, tmp_path: Path
) -> None:
    class Bad(list[None]):
        def __getitem__(self, index):  # type: ignore[no-untyped-def]
            raise BadSample("truncated")

    name, client = next(iter(data.clients.items()))
    clients = {**data.clients, name: replace(client, train=Bad([None]))}
    record_looks(tmp_path, replace(data, clients=clients), "decoded")
    assert {look.client for look in read_looks(tmp_path)} == set(data.clients) - {name}


def test_of_vehicles_elsewhere_what_they_report_is_known(tmp_path: Path) -> None:
    record_reported(tmp_path, {"car-1": enrolment("car-1")})
    assert not (tmp_path / FILE).exists()
    record_reported(tmp_path, {"car-1": enrolment("car-1", 51.0), "car-2": enrolment("car-2")})
    record_reported(tmp_path, {"car-1": enrolment("car-1", 99.0), "car-3": enrolment("car-3", 1e9)})
    assert read_looks(tmp_path) == (Look("car-1", 0, 0.2), Look("car-3", 0, 1.0))


def test_a_damaged_file_is_nothing(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('[{"client": "a"}]')
    assert read_looks(tmp_path) == ()
