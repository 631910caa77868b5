"""What is said between server and vehicles, and that nothing else gets through."""

from __future__ import annotations

import contextlib
import json
import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fleetseg.config import (
    DataConfig,
    Experiment,
    FederationConfig,
    FleetConfig,
    ModelConfig,
    PartitionConfig,
    SourceConfig,
    TrackingConfig,
)
from fleetseg.data.labels import LABEL_SPACES, label_space
from fleetseg.errors import UpdateRejected
from fleetseg.experiment_file import make_experiment_from_text
from fleetseg.federation.messages import Enrolment
from fleetseg.fleet.protocol import (
    experiment_for_vehicles,
    for_vehicles,
    labels_digest,
    read_enrolments,
    read_normalisation,
    write_enrolments,
)

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=8,
)
COUNTS = ("num_images", "num_pixels", "histogram_C", "num_test_pixels")
FIELDS = ("client_id", *COUNTS, "abstains", "facts")
CAR = Enrolment("car-1", 4, 10, (7, 3), "", 5)


def arrived(value: Any) -> Any:
    return json.loads(json.dumps(value))


# Enrolments


def test_enrolments_arrive_as_they_were_written() -> None:
    enrolled = {"a": replace(CAR, client_id="a"), "b": Enrolment("b", 0, 0, (0, 0), "no labels")}
    assert read_enrolments(arrived(write_enrolments(enrolled)), 2) == enrolled


@given(json_values)
@example([])
@example([[]])
@example(["abcdef"])
@example({"client_id": "x"})
def test_any_list_of_enrolments_is_read_or_refused(told: Any) -> None:
    with contextlib.suppress(UpdateRejected):
        read_enrolments(told, 2)


honest = st.fixed_dictionaries(
    {
        "client_id": st.text(min_size=1, max_size=5),
        "num_images": st.integers(1, 9),
        "num_pixels": st.just(10),
        "histogram_C": st.just([7, 3]),
    },
    optional={"abstains": st.text(max_size=3), "num_test_pixels": st.integers(0, 9)},
)


@settings(max_examples=300, deadline=None)
@given(
    honest,
    st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=2),
    st.sets(st.sampled_from([*FIELDS, "x"]), max_size=1),
)
def test_an_enrolment_that_is_read_is_one(
    fields: dict[str, Any], changed: dict[str, Any], gone: set[str]
) -> None:
    told = {k: v for k, v in {**fields, **changed}.items() if k not in gone}
    with contextlib.suppress(UpdateRejected):
        ((name, enrolment),) = read_enrolments([told], 2).items()
        assert name == enrolment.client_id
        assert isinstance(name, str)
        assert 0 < len(name) <= 500
        assert len(enrolment.histogram_C) == 2
        assert sum(enrolment.histogram_C) == enrolment.num_pixels
        counts = (enrolment.num_images, enrolment.num_pixels, enrolment.num_test_pixels)
        assert all(type(n) is int and 0 <= n < 1 << 53 for n in (*counts, *enrolment.histogram_C))
        assert enrolment.abstains or enrolment.num_images


@pytest.mark.parametrize(
    "told", [None, [], {}, "car", [None], [7], ["x"], [[]], [{}], [{"histogram_C": 7}]], ids=repr
)
def test_no_enrolments(told: Any) -> None:
    with pytest.raises(UpdateRejected) as caught:
        read_enrolments(told, 2)
    assert caught.value.reason == "malformed"


def test_unknown_missing_and_too_many() -> None:
    (fields,) = write_enrolments({"car-1": CAR})
    wrong = [
        [{**fields, "path": "/data"}],
        [{k: v for k, v in fields.items() if k != "num_images"}],
        [fields] * 10_001,
    ]
    for told in wrong:
        with pytest.raises(UpdateRejected) as caught:
            read_enrolments(told, 2)
        assert caught.value.reason == "malformed"


def test_one_name_twice_is_refused() -> None:
    with pytest.raises(UpdateRejected):
        read_enrolments(write_enrolments({"a": CAR, "b": replace(CAR, num_images=9)}), 2)


# What vehicles are told


def test_who_takes_part_is_the_server_s_to_say() -> None:
    named = Experiment(federation=FederationConfig(rounds=3, only=("van-*",), exclude=("van-9",)))
    read = make_experiment_from_text(experiment_for_vehicles(named), where="a message")
    assert read.federation == FederationConfig(rounds=3)


def test_vehicles_are_told_how_to_train_and_no_path() -> None:
    secret = "/home/operator/secret"
    experiment = Experiment(
        seed=7,
        data=DataConfig(
            label_space="camvid11",
            size=(64, 96),
            cache=secret,
            sources=(SourceConfig(kind="camvid", root=secret),),
            evaluation=(SourceConfig(kind="camvid", root=secret, split="val"),),
        ),
        model=ModelConfig(name="bisenetv2", pretrained="imagenet", start=secret),
        partition=PartitionConfig(kind="file", file=secret, holdout=0.25),
        tracking=TrackingConfig(to=("wandb",), project=secret),
    )
    text = experiment_for_vehicles(experiment)
    assert secret not in text
    assert "imagenet" not in text
    read = make_experiment_from_text(text, where="a message")
    for section in ("training", "federation", "evaluation", "engine", "seed", "name"):
        assert getattr(read, section) == getattr(experiment, section)
    assert (read.data.label_space, read.data.size) == ("camvid11", (64, 96))
    assert read.data.sources == read.data.evaluation == ()
    assert read.partition == PartitionConfig(holdout=0.25)
    assert read.model == ModelConfig(name="bisenetv2")
    assert read.tracking == TrackingConfig()  # the server follows the run, and vehicles need not


def test_of_the_fleet_s_settings_a_vehicle_is_told_how_long_a_step_may_take() -> None:
    told = for_vehicles(Experiment(fleet=FleetConfig(stalled_s=10.0, max_vehicles=3)))
    assert told.fleet == FleetConfig(stalled_s=10.0)


def test_the_text_for_vehicles_is_the_same_whatever_the_server_s_folders() -> None:
    def told(root: str) -> str:
        data = DataConfig(sources=(SourceConfig(root=root),), cache=root)
        return experiment_for_vehicles(Experiment(data=data))

    assert told("/a") == told("/b")


def test_the_digest_of_labels_sees_names_order_and_what_is_critical() -> None:
    space = label_space("camvid11")
    others = [
        replace(space, name="camvid"),
        replace(space, classes=space.classes[::-1]),
        replace(space, critical=space.critical[1:]),
    ]
    digests = {labels_digest(s) for s in (space, *others)}
    assert len(digests) == 4
    assert labels_digest(replace(space)) == labels_digest(space)
    assert len({labels_digest(s) for s in LABEL_SPACES.values()}) == len(LABEL_SPACES)


# Texts that are shown to the operator


@pytest.mark.parametrize("text", ["\ud800", "\x1b[31m", "a\nb"], ids=ascii)
def test_names_that_cannot_be_printed_are_refused(text: str) -> None:
    for changed in (replace(CAR, client_id=f"car-1/{text}"), replace(CAR, abstains=text)):
        with pytest.raises(UpdateRejected):
            read_enrolments(write_enrolments({"a": changed}), 2)


# Facts and labels


def test_facts_arrive_with_the_enrolment() -> None:
    style = np.array([[0.25, 1e-3], [-7.0, 3.0]], np.float32)
    told = arrived(write_enrolments({"car-1": replace(CAR, facts={"style": style})}))
    assert np.array_equal(read_enrolments(told, 2)["car-1"].facts["style"], style)
    for bad in ({"style": ["x"]}, {"style": [[1], [2, 3]]}, [1.0], {"style": [0.0] * 70_000}):
        with pytest.raises(UpdateRejected):
            read_enrolments([{**told[0], "facts": bad}], 2)


@pytest.mark.parametrize(
    "bad",
    [
        ["x" * 400_000, *["y"] * 100_000],  # numpy would ask for 149 GiB to hold these
        [[0.0] * 300] * 300,
        [[]] * 300_000,
        [[[[[[[[[[1.0]]]]]]]]]],
        [True, False],
        [None],
        {"a": 1.0},
        "text",
        [1e400],
        [10**400],
    ],
    ids=[
        "texts",
        "too many",
        "empty lists",
        "deep",
        "flags",
        "none",
        "table",
        "text",
        "inf",
        "big",
    ],
)
def test_what_is_no_small_array_is_refused_before_memory_is_taken(bad: Any) -> None:
    told = write_enrolments({"car-1": CAR})
    tracemalloc.start()
    try:
        with pytest.raises(UpdateRejected, match="a fact is"):
            read_enrolments([{**told[0], "facts": {"style": bad}}], 2)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16e6


def test_a_single_number_is_a_fact() -> None:
    told = write_enrolments({"car-1": CAR})
    read = read_enrolments([{**told[0], "facts": {"mean": 0.5}}], 2)["car-1"].facts["mean"]
    assert (read.shape, read.item()) == ((), 0.5)


def test_who_has_no_labels_takes_part_where_none_are_needed() -> None:
    told = write_enrolments({"a": replace(CAR, num_pixels=0, histogram_C=(0, 0))})
    with pytest.raises(UpdateRejected, match="without a labelled image"):
        read_enrolments(told, 2)
    assert read_enrolments(told, 2, needs_labels=False)["car-1"].num_pixels == 0


# Inputs of the network


def test_a_normalisation_arrives_as_it_is() -> None:
    given = [[0.5, 0.4, 0.3], [0.25, 1, 0.125]]
    mean, std = read_normalisation(arrived(given))
    assert [list(mean), list(std)] == given


@given(json_values)
@example([[0.5, 0.5, 0.5], [0.5, 0.5, 0.0]])
@example([[0.5, 0.5, 0.5], [0.5, 0.5, float("nan")]])
@example([[0.5, 0.5, 0.5], [0.5, 0.5, True]])
@example([[0.5, 0.5], [0.5, 0.5]])
def test_what_is_no_normalisation_is_refused(value: Any) -> None:
    with pytest.raises(UpdateRejected):
        read_normalisation(value)
