"""Smaller broadcasts: the changes of the model since the last one that a vehicle holds.

Vehicles are not sent the server's model w but a model r that follows it: each round moves r by the
compressed difference w - r, and what the codec leaves out is still part of the next difference
(error feedback at the server: EF21-P, Gruntkowska, Tyurin, Richtarik 2022, arXiv 2209.15218). All
vehicles train from the same r, however it reached them, so that no result depends on the way. A
vehicle that holds an earlier r is sent the changes since then; one that holds none, or for which
the changes would take as many bytes, is sent r whole. With a codec for the start, the first r is
the compressed w, sent as a change from zeros, which every vehicle holds.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from fleetseg.errors import UpdateRejected
from fleetseg.federation.messages import Broadcast, Changes
from fleetseg.federation.records import RoundRecord
from fleetseg.federation.tensors import Layout, ModelState
from fleetseg.federation.wire import MAX_FACT_ITEMS, read_facts, write_facts
from fleetseg.strict_json import BadJson, read_json

NO_BASE = "base"
"""Reason of a client that does not hold the model that a message builds on."""
Held = Mapping[str, Tensor]
"""r ("values", "counters") and the newest changes that led to it ("change-000012"), as bytes."""

_VALUES, _COUNTERS, _CHANGE = "values", "counters", "change-"
_MAGIC = b"FSDN"
_VERSION = 1
_MAX_CHANGES = 100  # messages in one broadcast
_HEADER_BYTES = 1 << 26  # limit of a header, which includes the facts


class ChangeCodec(Protocol):
    """Encodes changes of the model; their size is bounded by the model's."""

    @property
    def has_start(self) -> bool:
        """Whether the first model is encoded, too."""
        ...

    def write(self, change: ModelState, round_: int, *, start: bool = False) -> bytes:
        """Encode a change: the differences of floats, and counters as they stand."""
        ...

    def read(self, data: bytes, *, start: bool = False) -> ModelState:
        """Decode a change, or raise UpdateRejected."""
        ...


@dataclass(frozen=True)
class Downlink:
    """The server's side: pure functions of what vehicles hold."""

    codec: ChangeCodec
    whole_bytes: int  # of a whole broadcast

    def advance(self, held: Held, model: ModelState, round_: int) -> Held:
        """Move r towards the model; the first r is the model, or its compressed form."""
        start = not held
        if start and not self.codec.has_start:
            return {_VALUES: model.values_F.clone(), _COUNTERS: model.counters_K.clone()}
        before = _nothing_like(model) if start else state_of(held)
        grown = ModelState(model.values_F - before.values_F, model.counters_K)
        data = self.codec.write(grown, round_, start=start)
        moved = moved_by(before, self.codec.read(data, start=start))
        newest = {_name(round_): torch.from_numpy(np.frombuffer(data, np.uint8).copy())}
        kept = self._worth_keeping({**_changes(held), **newest})
        return {_VALUES: moved.values_F, _COUNTERS: moved.counters_K, **kept}

    def as_changes(
        self, held: Held, asks: Mapping[str, Broadcast], bases: Mapping[str, int]
    ) -> dict[str, Broadcast]:
        """Add to each broadcast of r the changes since the round whose r its client holds."""
        digest = state_of(held).digest()
        found = {
            (base, round_): self._since(held, base, round_, digest)
            for base, round_ in {(bases.get(c, 0), asked.round) for c, asked in asks.items()}
        }
        return {
            client: replace(broadcast, changes=found[bases.get(client, 0), broadcast.round])
            for client, broadcast in asks.items()
        }

    def _since(self, held: Held, base: int, round_: int, digest: str) -> Changes | None:
        names = [_name(number) for number in range(base + 1, round_ + 1)]
        if any(name not in held for name in names):
            return None
        messages = tuple(held[name].numpy().tobytes() for name in names)
        changes = Changes(base, messages, digest)
        return changes if changes.num_bytes < self.whole_bytes else None

    def _worth_keeping(self, changes: Held) -> Held:
        """Drop the oldest changes: a chain larger than a model is never sent."""
        newest_first = sorted(changes, reverse=True)[:_MAX_CHANGES]
        total, kept = 0, {}
        for name in newest_first:
            total += changes[name].numel()
            if total >= self.whole_bytes:
                break
            kept[name] = changes[name]
        return kept


def state_of(held: Held) -> ModelState:
    """Return r."""
    return ModelState(held[_VALUES], held[_COUNTERS])


def moved_by(state: ModelState, change: ModelState) -> ModelState:
    """Add a change, with the one order of operations that both sides must share."""
    return ModelState(state.values_F + change.values_F, change.counters_K)


def bases(records: Sequence[RoundRecord], clients: Collection[str]) -> dict[str, int]:
    """Return the round whose broadcast each client surely holds: that of its last update.

    A client that has reported not to hold it counts as holding none until its next update.
    """
    found: dict[str, int] = {}
    open_ = set(clients)
    for record in reversed(records):
        if not open_:
            break
        lacking = {f.client_id for f in record.failures if f.reason == NO_BASE} & open_
        arrived = set(record.accepted) & open_
        found.update(dict.fromkeys(lacking, 0) | dict.fromkeys(arrived, record.round))
        open_ -= lacking | arrived
    return found


def encode_changes(broadcast: Broadcast, layout: Layout) -> bytes:
    """Encode a broadcast whose model is sent as changes.

    Format: "FSDN", header length (uint32, little endian), header (JSON), then the messages.
    """
    changes = broadcast.changes
    assert changes is not None
    fields = {
        "version": _VERSION,
        "layout": layout.digest,
        "round": broadcast.round,
        "facts": write_facts(broadcast.facts),
        "base": changes.base,
        "sizes": [len(message) for message in changes.messages],
        "digest": changes.digest,
    }
    header = json.dumps(fields).encode()
    return b"".join((_MAGIC, struct.pack("<I", len(header)), header, *changes.messages))


def are_changes(data: bytes) -> bool:
    """Return whether an encoded broadcast has its model as changes."""
    return data[:4] == _MAGIC


def decode_changes(
    data: bytes, layout: Layout, base: Callable[[int], ModelState | None], codec: ChangeCodec
) -> Broadcast:
    """Decode what `encode_changes` wrote; `base` returns the held model of a round, if any.

    Raises:
        UpdateRejected: not such a message; with reason `NO_BASE` if its base is not held.
    """
    fields, messages = _opened(data, layout)
    start = fields["base"] == 0 and codec.has_start
    state = _nothing(layout) if start else base(fields["base"])
    if state is None:
        raise UpdateRejected(NO_BASE, "builds on a broadcast that is not held", got=fields["base"])
    for number, message in enumerate(messages):
        state = moved_by(state, codec.read(message, start=start and number == 0))
    if state.digest() != fields["digest"]:
        raise UpdateRejected(NO_BASE, "leads to another model than the server's")
    return Broadcast(fields["round"], state, read_facts(fields["facts"]))


def _opened(data: bytes, layout: Layout) -> tuple[dict[str, Any], list[bytes]]:
    if len(data) < 8 or not are_changes(data):
        raise UpdateRejected("malformed", "not the changes of a model")
    (length,) = struct.unpack("<I", data[4:8])
    if length > _HEADER_BYTES:
        raise UpdateRejected("oversize", "header too large", got=f"{length} bytes")
    try:
        fields = read_json(data[8 : 8 + length], max_bytes=_HEADER_BYTES, max_items=MAX_FACT_ITEMS)
        numbers = [fields["version"], fields["round"], fields["base"], *fields["sizes"]]
        fits = all(type(number) is int and number >= 0 for number in numbers)
        fits = fits and isinstance(fields["digest"], str) and "facts" in fields
    except (BadJson, KeyError, TypeError):
        fits = False
    if not fits or sum(fields["sizes"]) != len(data) - 8 - length:
        raise UpdateRejected("malformed", "the message header cannot be read")
    if fields["version"] != _VERSION or fields["layout"] != layout.digest:
        raise UpdateRejected("layout", "made for another model or version")
    messages, start = [], 8 + length
    for size in fields["sizes"]:
        messages.append(data[start : start + size])
        start += size
    return fields, messages


def _nothing(layout: Layout) -> ModelState:
    """Return what every vehicle holds before the first broadcast: zeros."""
    counters_K = torch.zeros(layout.num_counters, dtype=torch.int64)
    return ModelState(torch.zeros(layout.num_floats), counters_K)


def _nothing_like(model: ModelState) -> ModelState:
    return ModelState(torch.zeros_like(model.values_F), torch.zeros_like(model.counters_K))


def _changes(held: Held) -> dict[str, Tensor]:
    return {name: data for name, data in held.items() if name.startswith(_CHANGE)}


def _name(round_: int) -> str:
    return f"{_CHANGE}{round_:06d}"
