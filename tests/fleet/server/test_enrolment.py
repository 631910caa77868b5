"""Who is let in: a vehicle that is called unlabelled has counted no label."""

from __future__ import annotations

import pytest
from tests.experiments import tiny_experiment
from torch import nn

from fleetseg.data.labels import CAMVID_11
from fleetseg.federation.messages import Enrolment
from fleetseg.federation.sharing import Exchange
from fleetseg.federation.tensors import layout_of
from fleetseg.federation.wire import PlainCodec
from fleetseg.fleet.protocol import write_enrolments
from fleetseg.fleet.server.enrolment import Roster, RunSpec

CLASSES = CAMVID_11.num_classes


@pytest.mark.parametrize(("pixels", "is_refused"), [(0, False), (40, True)])
def test_counted_labels_of_an_unlabelled_vehicle_are_refused(
    pixels: int, is_refused: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    experiment = tiny_experiment(
        tmp_path_factory.mktemp("cache"),
        training={"supervision": "self_training"},
        partition={"unlabelled": {"clients": ["car-*"]}},
    )
    exchange = Exchange.of(layout_of(nn.Linear(2, 2)))
    spec = RunSpec("run", experiment, exchange, CAMVID_11, PlainCodec(exchange.up))
    enrolment = Enrolment("car-1", 4, pixels, (pixels, *[0] * (CLASSES - 1)))
    roster = Roster()
    roster.register("car-1", {"enrolments": write_enrolments({"car-1": enrolment})}, spec)
    assert (set(roster.refused) == {"car-1"}) is is_refused
    assert (set(roster.enrolled) == {"car-1"}) is not is_refused
