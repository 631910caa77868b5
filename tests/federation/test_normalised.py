"""FedNova: by hand, FedAvg where steps are equal, the weighted optimum where they are not."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from tests.experiments import tiny_experiment

import fleetseg
from fleetseg.config import FederationConfig
from fleetseg.errors import UpdateRejected
from fleetseg.experiment_file import make_experiment
from fleetseg.federation.aggregate import MAX_VALUE, FixedPointMean, Opening
from fleetseg.federation.cohort import Cohort
from fleetseg.federation.collect import RoundCollector
from fleetseg.federation.messages import Enrolment, Update
from fleetseg.federation.normalised import NormalisedMean
from fleetseg.federation.tensors import Layout, ModelState
from fleetseg.learning.travel import travel_of

Floats = npt.NDArray[np.float32]
MOMENTUM = make_experiment({"training": {"momentum": 0.9, "schedule": "constant"}}).training


def opened(weights: Mapping[str, int], steps: Mapping[str, int], **changes: Any) -> NormalisedMean:
    """Open a round of vectors with two trainable values and a statistic."""
    given = {"settings": FederationConfig(), "steps": steps, "travel": float, **changes}
    return NormalisedMean(Opening(3, 2, weights, **given))


def vector(*values: float) -> Floats:
    return np.array(values, np.float32)


def test_by_hand() -> None:
    """a = 1/4 1 + 3/4 3 = 2.5; per unit 4 and 2 of the first value, so 2.5 (1 + 1.5)."""
    mean = opened({"a": 1, "b": 3}, {"a": 1, "b": 3})
    mean.add("a", vector(4, 0, 8), 1)
    mean.add("b", vector(6, 3, 4), 3)
    assert mean.finish().tolist() == pytest.approx([6.25, 1.875, 5.0])


def test_a_round_in_which_nobody_is_asked_can_begin() -> None:
    """The sampler poisson has such rounds; nothing is added, and nothing finished."""
    opened({}, {})


def test_with_momentum_it_divides_by_the_closed_form() -> None:
    def travel(steps: int) -> float:
        return travel_of(steps, MOMENTUM, 1, 10)

    def closed(steps: int) -> float:
        return (steps - 0.9 * (1 - 0.9**steps) / 0.1) / 0.1

    mean = opened({"a": 1, "b": 1}, {"a": 2, "b": 6}, travel=travel)
    mean.add("a", vector(1, 0, 0), 2)
    mean.add("b", vector(0, 1, 0), 6)
    whole = (closed(2) + closed(6)) / 2
    expected = [whole * 0.5 / closed(2), whole * 0.5 / closed(6), 0]
    assert mean.finish().tolist() == pytest.approx(expected)
    assert closed(6) > 4 * closed(2)  # and not three times: the number of steps alone is not it


def test_with_equal_steps_it_is_fedavg_bit_by_bit() -> None:
    draw = np.random.Generator(np.random.Philox(1))
    weights = {f"car-{k}": int(draw.integers(1, 500)) for k in range(9)}
    plain = FixedPointMean(3, weights)
    normalised = opened(
        weights, dict.fromkeys(weights, 7), travel=lambda steps: travel_of(steps, MOMENTUM, 1, 10)
    )
    for client in weights:
        change = draw.standard_normal(3).astype(np.float32)
        plain.add(client, change, 7)
        normalised.add(client, change, 7)
    assert normalised.finish().tobytes() == plain.finish().tobytes()


def test_neither_the_order_nor_those_who_are_missing_change_the_bits() -> None:
    draw = np.random.Generator(np.random.Philox(2))
    weights = {"a": 3, "b": 50, "c": 7, "lost": 11}
    steps = {"a": 2, "b": 9, "c": 4, "lost": 1}
    changes = {client: draw.standard_normal(3).astype(np.float32) for client in weights}
    seen = set()
    for order in itertools.permutations("abc"):
        mean = opened(weights, steps)
        for client in order:
            mean.add(client, changes[client], steps[client])
        seen.add(mean.finish().tobytes())
    assert len(seen) == 1
    whole = (3 * 2 + 50 * 9 + 7 * 4) / 60
    exact = sum(weights[c] / 60 * changes[c].astype(float) / steps[c] for c in "abc") * whole
    assert np.frombuffer(seen.pop(), np.float32)[:2] == pytest.approx(exact[:2], rel=1e-5)


def test_the_changes_themselves_are_left_alone() -> None:
    mean, change = opened({"a": 1, "b": 1}, {"a": 1, "b": 5}), vector(1, 2, 3)
    mean.add("b", change, 5)
    assert change.tolist() == [1, 2, 3]


REFUSED: dict[str, tuple[int, Floats, str]] = {
    "more steps than its images allow": (9, vector(1, 1, 1), "count"),
    "so few that the change would leave the range": (1, vector(MAX_VALUE / 2, 0, 0), "magnitude"),
    "so few that the norm would": (1, vector(3, 0, 0), "norm"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_claim_that_cannot_be_is_refused_and_leaves_nothing(case: str) -> None:
    claimed, change, reason = REFUSED[case]
    means = []
    for cheats in (True, False):
        mean = opened(
            {"a": 1, "b": 1}, {"a": 4, "b": 8}, settings=FederationConfig(max_update_norm=10.0)
        )
        mean.add("a", vector(1, 2, 3), 4)
        if cheats:
            with pytest.raises(UpdateRejected) as refused:
                mean.add("b", change, claimed)
            assert refused.value.reason == reason
        means.append(mean.finish().tolist())
    assert means[0] == means[1]


def test_a_round_refuses_the_client_and_goes_on(
    layout: Layout, base: ModelState, enrolled: dict[str, Enrolment], honest: Any
) -> None:
    """Ten images, batches of eight: two steps, whatever it says."""
    training = make_experiment({"training": {"batch_size": 8}}).training
    collector = RoundCollector(layout, FederationConfig(aggregator="normalised"), None, training)
    collector.open(1, Cohort(("car-0", "car-9"), 2), enrolled, base)
    reply: Update = honest("car-0")
    failure = collector.add(reply)  # three steps
    assert failure is not None
    assert (failure.kind, failure.reason) == ("refused", "count")
    assert collector.add(honest("car-9")) is None
    assert [taken.client_id for taken in collector.accepted] == ["car-9"]
    change_F = honest("car-9").change.values_F.numpy()
    np.testing.assert_allclose(collector.take_mean_delta(), change_F, rtol=1e-5, atol=1e-9)


def test_unequal_steps_reach_the_weighted_optimum_that_fedavg_misses() -> None:
    """Of f_i(y) = a_i / 2 (y - b_i)^2, K_i small steps at a time: y = b + (w - b) (1 - lr a)^K."""
    curves, centres = np.array([1.0, 4.0, 0.5, 2.0]), np.array([-1.0, 1.0, 3.0, 0.0])
    weights, steps = {"a": 10, "b": 20, "c": 40, "d": 30}, {"a": 40, "b": 2, "c": 5, "d": 10}
    shares = np.array([*weights.values()]) / 100
    optimum = (shares * curves * centres).sum() / (shares * curves).sum()
    ends = {}
    for name in ("mean", "normalised"):
        w = 0.0
        for _ in range(2000):
            mean = FixedPointMean(3, weights) if name == "mean" else opened(weights, steps)
            for client, a, b in zip(weights, curves, centres, strict=True):
                y = b + (w - b) * (1 - 0.002 * a) ** steps[client]
                mean.add(client, vector(y - w, 0, 0), steps[client])
            w += float(mean.finish()[0])
        ends[name] = abs(w - optimum)
    assert ends["mean"] > 0.5
    assert ends["normalised"] < 0.02


def run(tmp_path: Path, aggregator: str, num_rounds: int, **training: object) -> fleetseg.Run:
    """Vehicles with three frames and with six: in batches of two, one step and three."""
    experiment = tiny_experiment(
        tmp_path / "cache",
        data={"sources": [
            {"conditions": ["day"], "frames_per_drive": 3, "cities": ["amber"]},
            {"conditions": ["day"], "frames_per_drive": 6, "cities": ["birch"]},
        ]},
        training=training,
        federation={"rounds": num_rounds, "aggregator": aggregator},
    )  # fmt: skip
    return fleetseg.run(experiment, out=tmp_path / f"{aggregator}-{num_rounds}")


def test_a_run_with_equal_steps_is_fedavg_s(tmp_path: Path) -> None:
    plain, normalised = (run(tmp_path, name, 2, local_steps=2) for name in ("mean", "normalised"))
    assert plain.model_sha256 == normalised.model_sha256


def test_a_round_with_unequal_steps_moves_parameters_alone(tmp_path: Path) -> None:
    plain, normalised = (run(tmp_path, name, 1) for name in ("mean", "normalised"))
    (record,) = plain.records
    assert record.steps < record.critical_path_steps * len(record.accepted), "steps are equal"
    one, other = plain.model().state_dict(), normalised.model().state_dict()
    other_keys = {key for key in one if not torch.equal(one[key], other[key])}
    assert other_keys
    assert not [key for key in other_keys if "running_" in key or "num_batches" in key]
