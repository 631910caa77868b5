"""Pooled statistics of a split are the statistics of the whole."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from fleetseg import rng
from fleetseg.config import FederationConfig
from fleetseg.errors import ConfigError
from fleetseg.experiment_file import make_experiment
from fleetseg.federation.aggregators import AGGREGATORS
from fleetseg.federation.cohort import Cohort
from fleetseg.federation.collect import RoundCollector
from fleetseg.federation.messages import Enrolment, Failure, Update
from fleetseg.federation.server_optim import server_step
from fleetseg.federation.sharing import Exchange
from fleetseg.federation.tensors import ModelState, layout_of, read_state
from fleetseg.runs.choices import check_choices

COUNTS = {"a": 40, "b": 7, "c": 100}


def net() -> nn.Module:
    with rng.torch_default(0, purpose="pooled"):
        return nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.BatchNorm2d(1))


LAYOUT = layout_of(net())
BASE = read_state(net(), LAYOUT)


def samples(far: float = 0.0) -> dict[str, np.ndarray]:
    """Values of two channels at each client, of another mean and spread."""
    draw = rng.generator(0, purpose="samples")
    return {
        name: far + place + spread * draw.normal(size=(count, 2))
        for (name, count), place, spread in zip(
            COUNTS.items(), (-3.0, 5.0, 1.0), (1.0, 0.1, 2.0), strict=True
        )
    }


def update(name: str, values: np.ndarray, base: ModelState = BASE) -> Update:
    """An update of a client whose batch norm keeps just these values' statistics."""
    model = base.clone()
    views = LAYOUT.views(model)
    views["1.running_mean"].copy_(torch.from_numpy(values.mean(0)))
    views["1.running_var"].copy_(torch.from_numpy(values.var(0)))
    change = ModelState(model.values_F - base.values_F, model.counters_K)
    return Update(1, name, change, COUNTS[name], COUNTS[name], 1, 1, 0.0)


def aggregated(
    updates: list[Update], rule: str, base: ModelState = BASE
) -> tuple[ModelState, list[Failure]]:
    settings = FederationConfig(statistics=rule)
    collector = RoundCollector(LAYOUT, settings)
    enrolled = {name: Enrolment(name, n, n, (n,)) for name, n in COUNTS.items()}
    collector.open(1, Cohort(tuple(COUNTS), len(COUNTS)), enrolled, base)
    for one in updates:
        collector.add(one)
    mean_F, counters_K = collector.take_mean_delta(), collector.counters_K
    state, _ = server_step(base, {}, mean_F, counters_K, layout=LAYOUT, settings=settings)
    return state, collector.failures


def statistics(state: ModelState) -> tuple[np.ndarray, np.ndarray]:
    views = LAYOUT.views(state)
    return views["1.running_mean"].numpy(), views["1.running_var"].numpy()


@pytest.mark.parametrize("far", [0.0, 100.0])
def test_pooled_statistics_of_a_split_are_those_of_the_whole(far: float) -> None:
    given = samples(far)
    whole = np.concatenate(list(given.values()))
    base = BASE.clone()
    LAYOUT.views(base)["1.running_mean"] += far + 0.5  # as the round before has left it
    state, failures = aggregated([update(n, v, base) for n, v in given.items()], "pooled", base)
    mean, var = statistics(state)
    assert failures == []
    np.testing.assert_allclose(mean, whole.mean(0), rtol=1e-5)
    np.testing.assert_allclose(var, whole.var(0), rtol=1e-4)
    _, low = statistics(aggregated([update(n, v) for n, v in given.items()], "mean")[0])
    assert (low < 0.5 * var).all()  # what differs between clients is left out


def test_by_hand() -> None:
    """Two clients of weight 1 and 3: means 0 and 4, variances 1 and 2. Mean 3, 7/4 + 3."""
    values = {
        "a": np.array([[-1.0, -1.0], [1.0, 1.0]]),
        "b": np.sqrt(2.0) * np.array([[-1.0], [1.0]]),
    }
    updates = [update("a", values["a"]), update("b", values["b"] + np.full((1, 2), 4.0))]
    enrolled = {"a": 1, "b": 3}
    settings = FederationConfig(statistics="pooled")
    collector = RoundCollector(LAYOUT, settings)
    collector.open(
        1, Cohort(("a", "b"), 2), {n: Enrolment(n, k, k, (k,)) for n, k in enrolled.items()}, BASE
    )
    for one in updates:
        images = enrolled[one.client_id]
        assert collector.add(replace(one, num_images=images, num_pixels=images)) is None
    mean_F, counters_K = collector.take_mean_delta(), collector.counters_K
    state, _ = server_step(BASE, {}, mean_F, counters_K, layout=LAYOUT, settings=settings)
    mean, var = statistics(state)
    np.testing.assert_allclose(mean, 3.0, rtol=1e-6)
    np.testing.assert_allclose(var, 4.75, rtol=1e-6)


def test_in_any_order_the_same_bits_and_all_else_as_by_the_mean() -> None:
    updates = [update(n, v) for n, v in samples().items()]
    before = [one.change.digest() for one in updates]
    states = [aggregated(order, "pooled")[0] for order in (updates, updates[::-1])]
    assert states[0].digest() == states[1].digest()
    assert [one.change.digest() for one in updates] == before
    plain, _ = aggregated(updates, "mean")
    same = torch.ones(LAYOUT.num_floats, dtype=torch.bool)
    same[LAYOUT.variances_V] = False
    assert torch.equal(plain.values_F[same], states[0].values_F[same])


def test_one_client_s_statistics_are_its_own() -> None:
    """But for rounding: pooling adds nothing where nobody differs."""
    (pooled, _), (plain, _) = (
        aggregated([update("a", samples()["a"])], r) for r in ("pooled", "mean")
    )
    torch.testing.assert_close(pooled.values_F, plain.values_F)


def test_a_mean_whose_square_is_out_of_bounds_is_refused_and_nothing_of_it_used() -> None:
    good, bad = update("a", samples()["a"]), update("b", samples()["b"])
    leap = bad.change.clone()
    LAYOUT.views(leap)["1.running_mean"][0] = 200.0
    state, failures = aggregated([good, replace(bad, change=leap)], "pooled")
    assert [(f.client_id, f.reason) for f in failures] == [("b", "magnitude")]
    assert state.digest() == aggregated([good], "pooled")[0].digest()


def test_pooling_is_a_mean() -> None:
    AGGREGATORS["other"] = AGGREGATORS["mean"]
    try:
        described = make_experiment({"federation": {"statistics": "pooled", "aggregator": "other"}})
        with pytest.raises(ConfigError, match="mean of second moments"):
            check_choices(described)
    finally:
        del AGGREGATORS["other"]


def test_positions_of_means_go_with_those_of_variances() -> None:
    keys = [e.key for e in LAYOUT.floats for _ in range(e.size)]
    means, variances = ([keys[k] for k in at] for at in (LAYOUT.means_V, LAYOUT.variances_V))
    assert means == ["1.running_mean", "1.running_mean", "2.running_mean"]
    assert [k.replace("var", "mean") for k in variances] == means
    silobn = Exchange.of(LAYOUT, FederationConfig(sharing="silobn")).wire
    assert len(silobn.means_V) == len(silobn.variances_V) == 0
