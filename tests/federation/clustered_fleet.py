"""A scripted fleet of two kinds of vehicles, that want a model of three values at two places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from tests.federation.scripted_fleet import NO_COUNTERS, Fleet, MemoryLog, Reply, update
from torch import nn

from fleetseg.config import Experiment, FederationConfig
from fleetseg.federation.checkpoint import ServerState
from fleetseg.federation.cluster_parts import with_clusters
from fleetseg.federation.messages import Broadcast, Enrolment
from fleetseg.federation.plan import Plan
from fleetseg.federation.rounds import Watcher, run
from fleetseg.federation.server_optim import first_slots
from fleetseg.federation.sharing import Exchange
from fleetseg.federation.tensors import ModelState, layout_of

RIGHT, LEFT = (9, 1), (1, 9)  # counts of two classes
KINDS = {"a": RIGHT, "b": LEFT, "c": RIGHT, "d": LEFT}
WISHES = {RIGHT: [1.0, 2.0, 4.0], LEFT: [-1.0, 2.0, -4.0]}


class Net(nn.Module):
    """Two values in a body and one in a head."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(2, 1, bias=False)
        self.head = nn.Linear(1, 1, bias=False)


LAYOUT = layout_of(Net())
HEAD: dict[str, Any] = {"tensors": "stages", "stages": ["head"]}


@dataclass
class TwoKinds(Fleet):
    """Each goes half of the way from what it is sent to where its kind wants to be."""

    deltas: Mapping[str, tuple[list[float], int]] = field(default_factory=dict)
    kinds: Mapping[str, tuple[int, int]] = field(default_factory=lambda: KINDS)
    images: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.deltas = {c: ([], self.images.get(c, 1)) for c in self.kinds}
        self.scripts = {**dict.fromkeys(self.kinds, self.half_way), **self.scripts}

    def available(self) -> Mapping[str, Enrolment]:
        return {c: self.enrolment(c, self.deltas[c][1]) for c in self.kinds}

    def enrolment(self, client: str, images: int) -> Enrolment:
        first, second = self.kinds[client]
        return Enrolment(
            client, images, (first + second) * images, (first * images, second * images)
        )

    def half_way(self, client: str, broadcast: Broadcast) -> list[Reply]:
        """Move a model that was sent for this vehicle."""
        return [self.towards(client, broadcast, broadcast.state.values_F)]

    def towards(
        self, client: str, broadcast: Broadcast, values_F: torch.Tensor, **changes: Any
    ) -> Reply:
        """Answer from a model."""
        wish_F = torch.tensor(WISHES.get(self.kinds[client], WISHES[RIGHT]))
        delta = ((wish_F - values_F) / 2).tolist()
        images = self.deltas[client][1]
        pixels = sum(self.kinds[client]) * images or 0
        return update(client, broadcast.round, delta, images, num_pixels=pixels, **changes)


def plan(clusters: Mapping[str, Any] | None = None, **federation: Any) -> Plan:
    """Make a plan for clusters by class mix, unless `clustered_by` says otherwise."""
    if clusters is not None:
        federation = {"clustered_by": "class mix", "cluster_models": clusters, **federation}
    settings = FederationConfig.model_validate({"rounds": 12, **federation})
    exchange = with_clusters(Exchange.of(LAYOUT), settings)
    return Plan(Experiment(federation=settings), exchange)


def start(plan_: Plan) -> ServerState:
    slots = first_slots(plan_.experiment.federation, plan_.exchange.common)
    return ServerState(0, ModelState(torch.zeros(3), NO_COUNTERS), slots)


def go(fleet: Fleet, plan_: Plan, state: ServerState | None = None) -> MemoryLog:
    log = MemoryLog()
    run(plan_, fleet, state or start(plan_), log, Watcher())
    return log


def values(state: ModelState) -> Sequence[float]:
    return [round(value, 3) for value in state.values_F.tolist()]
