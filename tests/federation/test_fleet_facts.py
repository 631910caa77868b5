"""Facts of the fleet: what is reported is checked, and made once."""

from __future__ import annotations

import numpy as np
import pytest

from fleetseg.config import Experiment, FederationConfig, TrainingConfig
from fleetseg.errors import UpdateRejected
from fleetseg.federation.fleet_facts import (
    FLEET_FACTS,
    Fact,
    check_reported,
    facts_of_fleet,
    reported_facts,
    told_facts,
    wanted_facts,
)
from fleetseg.federation.messages import Enrolment
from fleetseg.learning.losses import class_weights
from fleetseg.learning.objectives import OBJECTIVES, Objective

ASKS = Experiment(training=TrainingConfig(objective="asks"))


@pytest.fixture
def asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """An objective that takes the mean level of all images."""
    level = Fact(
        combine=lambda enrolled: np.mean([e.facts["level"] for e in enrolled.values()], axis=0),
        report=lambda train: np.array([train[0][0].mean()], np.float32),
        shape=(1,),
        why="one number of all images",
    )
    monkeypatch.setitem(FLEET_FACTS, "level", level)
    monkeypatch.setitem(OBJECTIVES, "asks", Objective(facts=("level",)))


def test_nothing_is_asked_for_that_nothing_takes() -> None:
    assert wanted_facts(Experiment()) == ()
    assert reported_facts(Experiment(), ()) == {}
    check_reported(Experiment(), {})


def test_class_weights_come_from_the_counts_of_all() -> None:
    experiment = Experiment(training=TrainingConfig(class_weights="fleet"))
    enrolled = {"b": Enrolment("b", 1, 30, (10, 20)), "a": Enrolment("a", 1, 70, (70, 0))}
    facts = facts_of_fleet(experiment, enrolled)
    assert reported_facts(experiment, ()) == {}
    assert np.array_equal(facts["class_weights"], class_weights(np.array([80, 20]), 2).numpy())


def test_what_only_the_server_takes_is_not_told_to_clients() -> None:
    """Pixels of each class of the fleet less one's own are those of the others."""
    weighed = Experiment(
        training=TrainingConfig(class_weights="fleet"),
        federation=FederationConfig(weights="inverse class frequency"),
    )
    enrolled = {"b": Enrolment("b", 1, 30, (10, 20)), "a": Enrolment("a", 1, 70, (70, 0))}
    facts = facts_of_fleet(weighed, enrolled)
    assert sorted(facts) == ["class_counts", "class_weights"]
    assert facts["class_counts"].tolist() == [80, 20]
    assert sorted(told_facts(weighed, facts)) == ["class_weights"]
    only = {"class_weights": facts["class_weights"]}
    assert told_facts(weighed, only) is only


@pytest.mark.usefixtures("asks")
def test_a_fact_is_reported_by_each_and_made_of_all() -> None:
    image_HWC = np.full((2, 2, 3), 40, np.uint8)
    told = reported_facts(ASKS, [(image_HWC, np.zeros((2, 2), np.uint8))])
    check_reported(ASKS, told)
    two = {
        "a": Enrolment("a", 1, 4, (4,), facts=told),
        "b": Enrolment("b", 1, 4, (4,), facts={"level": np.array([60], np.float32)}),
    }
    assert facts_of_fleet(ASKS, two)["level"].tolist() == [50.0]


@pytest.mark.usefixtures("asks")
@pytest.mark.parametrize(
    "told",
    [
        {},
        {"level": np.ones(2, np.float32)},
        {"level": np.array(1.0, np.float32)},
        {"level": np.ones(1, np.float32), "more": np.ones(1, np.float32)},
        {"other": np.ones(1, np.float32)},
    ],
    ids=lambda told: "+".join(told) or "none",
)
def test_a_client_that_reports_something_else_is_refused(
    told: dict[str, np.ndarray],
) -> None:
    with pytest.raises(UpdateRejected) as caught:
        check_reported(ASKS, told)
    assert caught.value.reason == "facts"
