"""N counts whoever was there, and what is a mean over N shrinks as N grows."""

from __future__ import annotations

import pytest
import torch

from fleetseg.federation.known import Memory
from fleetseg.federation.membership import (
    size_of_fleet,
    with_extras_scaled,
    with_met,
    with_slots_scaled,
)
from fleetseg.federation.server_optim import SERVER_OPTIMISERS
from fleetseg.federation.tensors import Layout, ModelState
from fleetseg.learning.objectives import OBJECTIVES


def test_who_left_still_counts_and_who_returns_counts_once() -> None:
    memory: Memory = {}
    sizes = []
    for present in ("ab", "a", "ac", "b", "abc"):
        memory = with_met(memory, present)
        sizes.append(size_of_fleet(memory))
    assert sizes == [2, 2, 3, 3, 3]
    assert size_of_fleet({}) == 0


def test_by_hand(layout: Layout, base: ModelState) -> None:
    """Of two clients with c_i = 1 and 3 the mean is 2; of four, with two that are new, 1."""
    whole = layout.with_extras(["control"]).with_vector("features", {"0.mean": 3})
    model = ModelState(torch.full((whole.num_floats,), 2.0), base.counters_K)
    scaled = with_extras_scaled(model, whole, ["control"], 2 / 4)
    span = whole.spans["control"]
    assert set(scaled.values_F[span].tolist()) == {1.0}
    assert set(scaled.values_F[: span.start].tolist()) == {2.0}
    assert scaled.values_F[span.stop :].tolist() == [2.0] * 3
    assert set(model.values_F.tolist()) == {2.0}
    slots = {"drift": torch.tensor([2.0]), "other": torch.tensor([2.0])}
    assert with_slots_scaled(slots, ["drift"], 0.5) == {"drift": 1.0, "other": 2.0}


def test_without_a_change_nothing_is_copied(layout: Layout, base: ModelState) -> None:
    assert with_extras_scaled(base, layout, [], 0.5) is base
    slots = {"drift": torch.tensor([2.0])}
    assert with_slots_scaled(slots, ["drift"], 1.0)["drift"] is slots["drift"]


@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_momenta_of_the_fleet_are_no_means_over_all_clients(objective: str) -> None:
    assert OBJECTIVES[objective].keeps_means == (objective in ("scaffold", "drift"))


def test_slots_that_are_means() -> None:
    means = {name: optimiser.means for name, optimiser in SERVER_OPTIMISERS.items()}
    assert {name: names for name, names in means.items() if names} == {"drift": ("drift",)}
