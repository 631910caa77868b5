"""FedFA's server: variances over vehicles are numpy's, and no vehicle can spoil them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.toys.aggregator import TOY_MEDIAN

from fleetseg.config import FederationConfig, TrainingConfig
from fleetseg.federation.aggregators import AGGREGATORS
from fleetseg.federation.checkpoint import ServerState
from fleetseg.federation.cohort import Cohort
from fleetseg.federation.collect import RoundCollector
from fleetseg.federation.feature_statistics import ADVANCE
from fleetseg.federation.messages import Enrolment, Failure, Update
from fleetseg.federation.server_optim import server_step
from fleetseg.federation.sharing import Exchange
from fleetseg.federation.tensors import Layout, ModelState
from fleetseg.federation.wire import decode_update, encode_update, message_bytes
from fleetseg.learning.fedfa import FEATURES, SPREAD

SIZES = {"0.mean": 3, "0.deviation": 3}
STYLES = {
    "car-0": [1.0, -2.0, 0.5, 1.0, 2.0, 3.0],
    "car-1": [1.5, -2.0, 0.1, 1.2, 2.0, 4.0],
    "car-2": [9.0, -2.0, 0.3, 0.7, 2.0, 0.1],
}
"""What each vehicle measures; all alike in the second channel."""
Enrolled = dict[str, Enrolment]


@pytest.fixture
def exchange(layout: Layout) -> Exchange:
    return Exchange.of(layout, features=SIZES)


@pytest.fixture
def start(exchange: Exchange, base: ModelState) -> ModelState:
    return exchange.first(base)


def update(exchange: Exchange, server: ModelState, client: str, enrolled: Enrolled) -> Update:
    """A vehicle's update: it stays where it is, and sends how its statistics differ."""
    change = exchange.up.empty()
    change.values_F.zero_()
    change.counters_K.copy_(server.counters_K)
    fleet_V = server.values_F[exchange.wire.spans[FEATURES]]
    change.values_F[exchange.up.spans[FEATURES]] = torch.tensor(STYLES[client]) - fleet_V
    images, pixels = enrolled[client].num_images, enrolled[client].num_pixels
    return Update(1, client, change, images, pixels, 1, 1, 0.5)


def collected(
    exchange: Exchange,
    server: ModelState,
    updates: list[Update],
    enrolled: Enrolled,
    *,
    aggregator: str = "mean",
    objective: str = "plain",
) -> tuple[ModelState, list[Failure]]:
    """Let the server make a round of updates; the cohort is all of them."""
    settings = FederationConfig(aggregator=aggregator)
    training = TrainingConfig(objective=objective, momentum=0.0)
    collector = RoundCollector(exchange.wire, settings, None, training)
    collector.open(1, Cohort(tuple(STYLES), len(STYLES)), enrolled, server)
    for one in updates:
        collector.add(one)
    mean_F = collector.take_mean_delta()
    new, _ = server_step(
        server, {}, mean_F, collector.counters_K, layout=exchange.wire, settings=settings,
        advance_extra=lambda name, extra_T, mean_T: (
            ADVANCE[name](extra_T, mean_T) if name in ADVANCE else mean_T
        ),
    )  # fmt: skip
    return new, collector.failures


def vectors(exchange: Exchange, server: ModelState) -> tuple[np.ndarray, np.ndarray]:
    spans = exchange.wire.spans
    return server.values_F[spans[FEATURES]].numpy(), server.values_F[spans[SPREAD]].numpy()


def over_vehicles(clients: list[str], enrolled: Enrolled) -> tuple[np.ndarray, np.ndarray]:
    rows, weights = [STYLES[c] for c in clients], [enrolled[c].num_images for c in clients]
    mean = np.average(rows, axis=0, weights=weights)
    return mean, np.average(np.square(rows - mean), axis=0, weights=weights)


@pytest.mark.parametrize("aggregator", ["mean", "extrapolated", "normalised"])
def test_variances_are_those_over_vehicles_and_the_next_round_s_replace_them(
    exchange: Exchange, start: ModelState, enrolled: Enrolled, aggregator: str
) -> None:
    server = start
    for clients in (["car-0", "car-1", "car-2"], ["car-2", "car-0"]):  # then one is absent
        updates = [update(exchange, server, client, enrolled) for client in clients]
        server, failures = collected(exchange, server, updates, enrolled, aggregator=aggregator)
        assert failures == []
        for made, wanted in zip(
            vectors(exchange, server), over_vehicles(clients, enrolled), strict=True
        ):
            np.testing.assert_allclose(made, wanted, rtol=1e-5, atol=1e-5)


def test_nothing_cancels_where_statistics_are_large_and_vehicles_alike(
    exchange: Exchange, start: ModelState, enrolled: Enrolled, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Means of 100 that differ by 0.01: their squares in float32 tell nothing of that."""
    for number, client in enumerate(STYLES):
        monkeypatch.setitem(STYLES, client, [100 + 0.01 * number] * 6)
    server = start
    for _ in range(2):
        updates = [update(exchange, server, client, enrolled) for client in STYLES]
        server, _ = collected(exchange, server, updates, enrolled)
    wanted = over_vehicles(list(STYLES), enrolled)[1]
    np.testing.assert_allclose(vectors(exchange, server)[1], wanted, rtol=2e-3)


def test_of_one_vehicle_there_is_no_variance(
    exchange: Exchange, start: ModelState, enrolled: Enrolled
) -> None:
    server, _ = collected(exchange, start, [update(exchange, start, "car-2", enrolled)], enrolled)
    mean, spread = vectors(exchange, server)
    np.testing.assert_allclose(mean, STYLES["car-2"], rtol=1e-6)
    np.testing.assert_allclose(spread, 0, atol=1e-5)


@pytest.mark.parametrize("value", [128.5, -3000.0, float("nan"), float("inf"), 1e30])
def test_a_vehicle_that_lies_is_refused_and_moves_nothing(
    exchange: Exchange, start: ModelState, enrolled: Enrolled, value: float
) -> None:
    honest = [update(exchange, start, client, enrolled) for client in ("car-0", "car-1")]
    false = update(exchange, start, "car-2", enrolled)
    false.change.values_F[exchange.up.spans[FEATURES].start] = value
    server, failures = collected(exchange, start, [*honest, false], enrolled)
    assert [failure.client_id for failure in failures] == ["car-2"]
    assert failures[0].reason in ("magnitude", "non-finite")
    alone, _ = collected(exchange, start, honest, enrolled)
    assert server.digest() == alone.digest()


def test_no_aggregator_makes_a_variance_negative(
    exchange: Exchange, start: ModelState, enrolled: Enrolled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(AGGREGATORS, "toy median", TOY_MEDIAN)
    updates = [update(exchange, start, client, enrolled) for client in STYLES]
    server, _ = collected(exchange, start, updates, enrolled, aggregator="toy median")
    assert vectors(exchange, server)[1].min() >= 0


def test_beside_what_an_objective_sends(
    layout: Layout, base: ModelState, enrolled: Enrolled
) -> None:
    """What goes both ways comes first, and what is only told last."""
    exchange = Exchange.of(layout, told=("momentum",), features=SIZES)
    assert [*exchange.wire.spans] == [FEATURES, "momentum", SPREAD]
    assert [*exchange.up.spans] == [FEATURES]
    server = exchange.first(base)
    updates = [update(exchange, server, client, enrolled) for client in STYLES]
    server, failures = collected(exchange, server, updates, enrolled, objective="client momentum")
    assert failures == []
    wanted = over_vehicles(list(STYLES), enrolled)[1]
    np.testing.assert_allclose(vectors(exchange, server)[1], wanted, rtol=1e-5, atol=1e-5)
    assert server.values_F[exchange.wire.spans["momentum"]].abs().max() == 0


def test_only_its_bytes_are_added_and_only_where_it_is_on(
    layout: Layout, start: ModelState
) -> None:
    plain, exchange = Exchange.of(layout), Exchange.of(layout, features=SIZES)
    assert (plain.wire.digest, plain.up.digest) == (layout.digest, layout.digest)
    assert exchange.up.num_floats == layout.num_floats + 6
    assert exchange.wire.num_floats == layout.num_floats + 12
    assert start.values_F[layout.num_floats :].tolist() == [0.0] * 12
    down, up = message_bytes(exchange.down, exchange.up)
    before = message_bytes(plain.down, plain.up)
    assert down - before[0] >= 4 * 12
    assert up - before[1] >= 4 * 6


def test_an_update_crosses_the_wire_unchanged(
    exchange: Exchange, start: ModelState, enrolled: Enrolled
) -> None:
    sent = update(exchange, start, "car-1", enrolled)
    arrived = decode_update(encode_update(sent, exchange.up), exchange.up)
    assert arrived.change.digest() == sent.change.digest()
    assert replace(arrived, change=sent.change) == sent
    assert ServerState(0, start).model.values_F.numel() == exchange.server.num_floats
