"""Vehicles build a broadcast on one that they hold, also when their own update came to nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fleetseg.compression.changes import CompressedChanges
from fleetseg.compression.codec import parse_codec
from fleetseg.errors import UpdateRejected
from fleetseg.federation.client_state import ClientStateStore
from fleetseg.federation.downlink import Downlink, Held, encode_changes, state_of
from fleetseg.federation.messages import Broadcast
from fleetseg.federation.sharing import Exchange
from fleetseg.federation.tensors import ModelState, layout_of
from fleetseg.federation.wire import encode_broadcast
from fleetseg.fleet.vehicle.held import HeldBroadcasts

LAYOUT = layout_of(nn.Conv2d(3, 40, 3))


class Runtime:
    """The two parts of a runtime that reading a broadcast takes."""

    exchange = Exchange.of(LAYOUT)

    def __init__(self, codec: str = "topk(2%)+int8") -> None:
        parsed = parse_codec(codec)
        self.changes = None if parsed is None else CompressedChanges(parsed, LAYOUT, 0)


class Server:
    """Makes the broadcasts of a model that moves by one a round."""

    def __init__(self, runtime: Any) -> None:
        self.downlink = Downlink(runtime.changes, 4 * LAYOUT.num_floats)
        self.held: Held = {}
        self.past: list[ModelState] = []
        self.round = 0

    def next(self) -> Server:
        self.round += 1
        values_F = torch.arange(LAYOUT.num_floats) % 7 + float(self.round)
        model = ModelState(values_F, torch.empty(0, dtype=torch.int64))
        self.held = self.downlink.advance(self.held, model, self.round)
        self.past.append(state_of(self.held))
        return self

    def payload(self, base: int) -> bytes:
        broadcast = Broadcast(self.round, state_of(self.held))
        written = self.downlink.as_changes(self.held, {"a": broadcast}, {"a": base})["a"]
        if written.changes is None:
            return encode_broadcast(written, LAYOUT)
        return encode_changes(written, LAYOUT)


@pytest.fixture
def runtime() -> Any:
    return Runtime()


@pytest.fixture
def held(tmp_path: Path) -> HeldBroadcasts:
    return HeldBroadcasts(ClientStateStore(tmp_path))


def test_round_after_round(runtime: Any, held: HeldBroadcasts) -> None:
    server = Server(runtime)
    for round_ in range(1, 7):
        payload = server.next().payload(base=round_ - 1)
        assert (len(payload) < 2000) == (round_ > 1)
        read = held.read("train", payload, "a", runtime)
        assert read.state.digest() == server.past[-1].digest()


def test_after_updates_that_came_to_nothing_the_base_is_still_there(
    runtime: Any, held: HeldBroadcasts, tmp_path: Path
) -> None:
    """The server knows that the update of round 1 came, and of none that was sent later."""
    server = Server(runtime)
    for _ in range(4):
        payload = server.next().payload(base=min(server.round - 1, 1))
        again = HeldBroadcasts(ClientStateStore(tmp_path))  # the process may have been restarted
        read = again.read("train", payload, "a", runtime)
        assert read.state.digest() == server.past[-1].digest()


def test_another_vehicle_of_the_site_holds_its_own(runtime: Any, held: HeldBroadcasts) -> None:
    server = Server(runtime)
    held.read("train", server.next().payload(0), "a", runtime)
    with pytest.raises(UpdateRejected) as caught:
        held.read("train", server.next().payload(1), "b", runtime)
    assert caught.value.reason == "base"


def test_who_lost_what_it_held_says_so_and_a_whole_one_mends_it(
    runtime: Any, held: HeldBroadcasts
) -> None:
    server = Server(runtime)
    server.next().next()
    with pytest.raises(UpdateRejected) as caught:
        held.read("train", server.payload(1), "a", runtime)
    assert caught.value.reason == "base"
    held.read("train", server.payload(0), "a", runtime)
    read = held.read("train", server.next().payload(2), "a", runtime)
    assert read.state.digest() == server.past[-1].digest()


def test_a_model_to_score_is_not_built_on(runtime: Any, held: HeldBroadcasts) -> None:
    server = Server(runtime)
    held.read("evaluate", server.next().payload(0), "a", runtime)
    with pytest.raises(UpdateRejected):
        held.read("train", server.next().payload(1), "a", runtime)


def test_nothing_is_kept_where_broadcasts_are_whole(held: HeldBroadcasts, tmp_path: Path) -> None:
    state = ModelState(torch.zeros(LAYOUT.num_floats), torch.empty(0, dtype=torch.int64))
    plain: Any = Runtime("none")
    payload = encode_broadcast(Broadcast(1, state), LAYOUT)
    assert held.read("train", payload, "a", plain).state.digest() == state.digest()
    assert list(tmp_path.iterdir()) == []
