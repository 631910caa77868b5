"""Styles as a fact of the fleet: what leaves a client, what is refused, what the server tells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.data.styles.pictures import picture
from torch import nn

from fleetseg.config import Experiment, PretrainConfig
from fleetseg.data.styles import STYLES, measured
from fleetseg.data.styles.bank import owner_number
from fleetseg.errors import UpdateRejected
from fleetseg.experiment_file import make_experiment, make_experiment_from_text
from fleetseg.federation.fleet_facts import (
    check_reported,
    facts_of_fleet,
    reported_facts,
    told_facts,
    wanted_facts,
)
from fleetseg.federation.messages import Broadcast, Enrolment
from fleetseg.federation.style_bank import style_notes, styles_of_members
from fleetseg.federation.tensors import layout_of
from fleetseg.federation.wire import MAX_FACT, encode_broadcast, read_facts, write_facts
from fleetseg.fleet.protocol import experiment_for_vehicles

SIZE = (36, 48)


def experiment(kind: str = "lab", **style: Any) -> Experiment:
    return make_experiment({"data": {"size": SIZE}, "training": {"style": {"kind": kind, **style}}})


def vehicle(first: int = 0, count: int = 3) -> list[tuple[np.ndarray, np.ndarray]]:
    label = np.zeros(SIZE, np.uint8)
    return [(picture(first + k, *SIZE), label) for k in range(count)]


def enrolment(name: str, wanted: Experiment, first: int = 0) -> Enrolment:
    return Enrolment(name, 3, 1, (1,), facts=reported_facts(wanted, vehicle(first)))


def test_without_styles_nothing_is_told() -> None:
    assert wanted_facts(experiment("none")) == ()
    assert reported_facts(experiment("none"), vehicle()) == {}


@pytest.mark.parametrize(("kind", "count"), [("fda", 27), ("lab", 6), ("cfsi", 3 * 3 * 5)])
def test_so_many_numbers_leave_and_nothing_else(kind: str, count: int) -> None:
    told = reported_facts(experiment(kind), vehicle())
    assert list(told) == [STYLES]
    assert told[STYLES].size == count
    each = reported_facts(experiment(kind, per="image", images=2), vehicle())
    assert each[STYLES].size == 2 * count


def test_what_leaves_is_the_same_each_time_and_after_the_wire() -> None:
    wanted = experiment("fda")
    told = reported_facts(wanted, vehicle())
    assert (reported_facts(wanted, vehicle())[STYLES] == told[STYLES]).all()
    arrived = read_facts(json.loads(json.dumps(write_facts(told))))
    assert (arrived[STYLES] == told[STYLES]).all()
    check_reported(wanted, arrived)


POISONED: dict[str, tuple[str, Any]] = {
    "missing": ("lab", None),
    "none at all": ("lab", np.zeros((0, 2, 3))),
    "too many": ("lab", np.full((2, 2, 3), 5.0)),
    "one of another kind": ("lab", np.full((1, 3, 3, 3), 5.0)),
    "a larger window": ("fda", np.full((1, 3, 5, 5), 5.0)),
    "flat": ("fda", np.full(27, 5.0)),
    "a number": ("fda", np.array(5.0)),
    "brighter than white": ("fda", np.full((1, 3, 3, 3), 300.0)),
    "a negative amplitude": ("cfsi", np.full((1, 3, 3, 5), -1.0)),
    "lighter than white": ("lab", np.array([[[101, 0, 0], [1, 1, 1]]])),
    "a negative deviation": ("lab", np.array([[[50, 0, 0], [1, -1, 1]]])),
    "wider than black and white": ("lab", np.array([[[50, 0, 0], [1e30, 1, 1]]])),
    "no number": ("lab", np.array([[[50, np.nan, 0], [1, 1, 1]]])),
    "endless": ("fda", np.full((1, 3, 3, 3), np.inf)),
}


@pytest.mark.parametrize("name", POISONED)
def test_poisoned_styles_are_refused_with_a_reason(name: str) -> None:
    kind, styles = POISONED[name]
    told = {} if styles is None else {STYLES: styles.astype(np.float32)}
    with pytest.raises(UpdateRejected) as caught:
        check_reported(experiment(kind), told)
    assert caught.value.reason == "facts"


def test_a_vehicle_speaks_for_itself_alone() -> None:
    """What stands for the members of a baseline is nothing that a vehicle may send."""
    told = reported_facts(experiment(), vehicle())
    with pytest.raises(UpdateRejected, match="not those that were asked for"):
        check_reported(experiment(), {**told, f"{STYLES}/other": told[STYLES]})


def test_the_bank_is_made_of_all_and_told_to_clients() -> None:
    wanted = experiment()
    enrolled = {name: enrolment(name, wanted, k) for k, name in enumerate("cab")}
    facts = facts_of_fleet(wanted, enrolled)
    assert facts[STYLES].shape == (3, 7)
    assert told_facts(wanted, facts) is facts
    for k, name in enumerate("cab"):
        (row,) = facts[STYLES][facts[STYLES][:, 0] == owner_number(name)]
        assert (row[1:].reshape(2, 3) == measured(vehicle(k), wanted.training.style, SIZE)).all()
    assert style_notes(wanted, facts, enrolled) == []
    alone = facts_of_fleet(wanted, {"c": enrolled["c"]})
    (note,) = style_notes(wanted, alone, {"c": enrolled["c"]})
    assert "only one vehicle" in note
    idle = experiment(probability=0.0)
    assert style_notes(idle, alone, {"c": enrolled["c"]}) == []  # for clusters, or the first stage
    assert style_notes(wanted, {}, {}) == []


def test_who_stands_for_others_brings_their_styles() -> None:
    wanted = experiment()
    members = {name: enrolment(name, wanted, k) for k, name in enumerate("ab")}
    pool = Enrolment("pool", 6, 1, (1,), facts=styles_of_members(members))
    pooled = facts_of_fleet(wanted, {"pool": pool})
    assert (pooled[STYLES] == facts_of_fleet(wanted, members)[STYLES]).all()
    assert styles_of_members({"a": Enrolment("a", 1, 1, (1,))}) == {}
    assert styles_of_members({"pool": pool}).keys() == pool.facts.keys()
    one = {"pool": Enrolment("pool", 6, 1, (1,), facts=styles_of_members({"a": members["a"]}))}
    assert (
        style_notes(wanted, facts_of_fleet(wanted, one), one) == []
    )  # its images take that one on


def test_styles_that_no_vehicle_takes_on_are_told_to_none() -> None:
    """They are for the server's first stage, or for clusters; with neither nobody reports any."""
    idle = experiment("fda", probability=0.0)
    assert wanted_facts(idle) == ()
    stage = idle.model_copy(update={"pretrain": PretrainConfig(style_probability=1.0)})
    clusters = idle.federation.model_copy(update={"clustered_by": "styles"})
    for wanted in (stage, idle.model_copy(update={"federation": clusters})):
        assert wanted_facts(wanted) == (STYLES,)
        facts = facts_of_fleet(wanted, {"a": enrolment("a", wanted)})
        assert facts[STYLES].shape == (1, 28)
        assert told_facts(wanted, facts) == {}
        arrived = make_experiment_from_text(experiment_for_vehicles(wanted), where="hello")
        assert wanted_facts(arrived) == (STYLES,)


def test_a_large_fleet_s_bank_still_fits_a_message() -> None:
    wanted = experiment("cfsi", cfsi={"share": 0.25})  # windows of 19 x 25
    numbers = 1 + 3 * 19 * 25
    told = np.full((1, 3, 19, 25), 7, np.float32)
    names = [f"car-{k}" for k in range(99)]
    enrolled = {name: Enrolment(name, 1, 1, (1,), facts={STYLES: told}) for name in names}
    bank = facts_of_fleet(wanted, enrolled)[STYLES]
    assert len(bank) == MAX_FACT // numbers == 45
    arrived = read_facts(json.loads(json.dumps(write_facts({STYLES: bank}))))
    assert arrived[STYLES].shape == bank.shape


@pytest.mark.parametrize("rows", [1, 9, 15, 16, 17, 150, 900])
def test_bytes_of_a_bank_are_counted(rows: int) -> None:
    """As many as in the message that is sent: whole blocks, where its padding has no room."""
    layout = layout_of(nn.Linear(2, 2))
    values = np.random.Generator(np.random.Philox(0)).random((rows, 28), np.float32)
    plain = Broadcast(30, layout.empty())
    told = Broadcast(30, layout.empty(), {STYLES: values})
    whole, sent = (len(encode_broadcast(one, layout)) for one in (plain, told))
    assert plain.num_bytes(whole) == whole
    assert told.num_bytes(whole) == sent


def test_bytes_are_exact_to_the_last_that_there_is_room_for() -> None:
    layout = layout_of(nn.Linear(2, 2))
    whole, counted = len(encode_broadcast(Broadcast(1, layout.empty()), layout)), set()
    for digits in range(1600, 1630):  # a number more is five characters more
        facts = {STYLES: np.full(digits, 0.5, np.float32), "b": np.zeros(1, np.float32)}
        told = Broadcast(1, layout.empty(), facts)
        assert told.num_bytes(whole) == len(encode_broadcast(told, layout))
        counted.add(told.num_bytes(whole) - whole)
    assert counted == {0, 8192}


def test_noise_is_drawn_once_where_a_vehicle_keeps_it(tmp_path: Path) -> None:
    wanted, other = experiment("lab", noise=0.02), experiment("lab", noise=0.01)
    first = reported_facts(wanted, vehicle(), tmp_path)[STYLES]
    check_reported(wanted, {STYLES: first})
    assert (reported_facts(wanted, vehicle(), tmp_path)[STYLES] == first).all()
    assert (reported_facts(wanted, vehicle(7), tmp_path)[STYLES] == first).all()  # other images
    often = experiment("lab", noise=0.02, probability=0.1)  # nothing that is told differs
    assert (reported_facts(often, vehicle(), tmp_path)[STYLES] == first).all()
    assert not (reported_facts(other, vehicle(), tmp_path)[STYLES] == first).all()
    assert not (reported_facts(wanted, vehicle())[STYLES] == first).all()  # no folder
    exact = reported_facts(experiment("lab"), vehicle(), tmp_path)[STYLES]
    assert (exact == measured(vehicle(), experiment("lab").training.style, SIZE)).all()
