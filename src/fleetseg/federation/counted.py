"""Which update of a client was the last to count: it goes on from there, and is told."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from fleetseg.federation.messages import Broadcast
from fleetseg.federation.records import RoundRecord


def counted_rounds(records: Sequence[RoundRecord], clients: Collection[str]) -> dict[str, int]:
    """Say of each client in which round it had its last update that counted; 0 = in none.

    In a round without a quorum, none did. Rounds are looked back at until it is known of all
    clients: one may be asked again after hundreds of rounds.
    """
    counted = dict.fromkeys(clients, 0)
    open_ = set(clients)
    for record in reversed(records):
        if not open_:
            break
        used = open_.intersection(record.accepted if record.quorum else ())
        counted.update(dict.fromkeys(used, record.round))
        open_ -= used
    return counted


def to_each(
    broadcast: Broadcast, clients: Collection[str], records: Sequence[RoundRecord]
) -> dict[str, Broadcast]:
    """Address a broadcast to clients: each is told which of its updates was the last to count."""
    counted = counted_rounds(records, clients)
    told = {round_: replace(broadcast, counted=round_) for round_ in set(counted.values())}
    return {client: told[round_] for client, round_ in counted.items()}
