"""The encoded requests of a task, as sent to vehicles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fleetseg.federation.downlink import encode_changes
from fleetseg.federation.lineage import write_counted
from fleetseg.federation.messages import Broadcast
from fleetseg.federation.wire import encode_broadcast
from fleetseg.fleet.reply_limits import REPLY_BYTES
from fleetseg.fleet.server.enrolment import RunSpec

_MAX_REPORT_BYTES = 1 << 27  # for 200 confusion matrices of 255 classes, or sums of norm layers


class Requests:
    """The encoded requests of one task; vehicles with the same broadcast share the bytes."""

    def __init__(self, task: str, spec: RunSpec, asks: Mapping[str, Broadcast]) -> None:
        most = max(spec.codec.max_bytes, _MAX_REPORT_BYTES)
        self._header = {"what": task, "run": spec.run, REPLY_BYTES: most}
        self._asks, self._payloads = asks, list[tuple[int, bytes]]()
        self.number_of: dict[str, int] = {}  # vehicle -> index of its payload
        numbers: dict[tuple[int, ...], int] = {}
        for vehicle, broadcast in asks.items():
            key = id(broadcast.state), id(broadcast.facts), id(broadcast.changes)
            if key not in numbers:
                numbers[key] = len(self._payloads)
                encode = encode_changes if broadcast.changes else encode_broadcast
                payload = encode(broadcast, spec.exchange.sent_by(task))
                self._payloads.append((broadcast.round, payload))
            self.number_of[vehicle] = numbers[key]

    def written(self, number: int, wave: Mapping[str, str]) -> tuple[dict[str, Any], bytes]:
        """Return the request to the vehicles of a wave (site -> vehicle): header and payload."""
        round_, payload = self._payloads[number]
        named = {site: vehicle for site, vehicle in wave.items() if site != vehicle}
        asked = {vehicle: self._asks[vehicle] for vehicle in wave.values()}
        counted = {vehicle: write_counted(one.counted) for vehicle, one in asked.items()}
        (lineage,) = {one.lineage for one in asked.values()}  # a round has one
        told = {"round": round_, "lineage": lineage, "counted": counted}
        return {**self._header, **told, "vehicles": named}, payload
