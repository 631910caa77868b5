"""The last broadcasts to a site's vehicles, on disk: later broadcasts may build on them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fleetseg.errors import StateMissing
from fleetseg.federation.client import LocalRuntime
from fleetseg.federation.client_state import ClientStateStore
from fleetseg.federation.downlink import are_changes, decode_changes
from fleetseg.federation.messages import Broadcast
from fleetseg.federation.tensors import ModelState
from fleetseg.federation.wire import decode_broadcast


@dataclass(frozen=True)
class HeldBroadcasts:
    """The last few broadcasts of each vehicle, so that the base of a late one is still there."""

    store: ClientStateStore

    def read(self, task: str, payload: bytes, vehicle: str, runtime: LocalRuntime) -> Broadcast:
        """Decode a broadcast, whole or as changes; store it if later training may build on it.

        Raises:
            UpdateRejected: it is not a broadcast, or its base is not held by this vehicle.
        """
        layout, codec = runtime.exchange.sent_by(task), runtime.changes
        if codec is None or not are_changes(payload):
            broadcast = decode_broadcast(payload, layout)
        else:
            broadcast = decode_changes(
                payload, layout, lambda round_: self._of(vehicle, round_), codec
            )
        if codec is not None and task == "train":
            self._keep(vehicle, broadcast)
        return broadcast

    def _of(self, vehicle: str, round_: int) -> ModelState | None:
        try:
            kept = self.store.load(vehicle, round_ + 1)
        except StateMissing:  # damaged: treated as never received
            return None
        if not kept or int(kept["round"]) != round_:
            return None
        return ModelState(kept["values"], kept["counters"])

    def _keep(self, vehicle: str, broadcast: Broadcast) -> None:
        state, number = broadcast.state, torch.tensor(broadcast.round)
        kept = {"values": state.values_F, "counters": state.counters_K, "round": number}
        self.store.save(vehicle, broadcast.round, kept)
