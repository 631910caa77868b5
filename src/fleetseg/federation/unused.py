"""Updates that did not count: which those of a client were, and that it is told of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from fleetseg.federation.messages import Broadcast
from fleetseg.federation.records import RoundRecord

_TOLD = 8  # unused rounds at most, of one client: more than the states that it keeps


def unused_rounds(
    records: Sequence[RoundRecord], clients: Collection[str] | None = None
) -> dict[str, tuple[int, ...]]:
    """Say of each client which of its updates, since the last one that counted, did not count.

    Of a round without a quorum, none did. Rounds are looked back at until it is known of all of
    `clients` (default: whoever was ever asked): one may be asked again after hundreds of rounds.
    """
    unused: dict[str, tuple[int, ...]] = {}
    open_ = {name for record in records for name in record.cohort}
    open_ &= open_ if clients is None else set(clients)
    for record in reversed(records):
        if not open_:
            break
        used = set(record.accepted) if record.quorum else set()
        for client in open_ & (set(record.cohort) - used):
            unused[client] = (record.round, *unused.get(client, ()))[-_TOLD:]
        open_ -= used
    return dict(sorted(unused.items()))


def to_each(
    broadcast: Broadcast, clients: Collection[str], records: Sequence[RoundRecord]
) -> dict[str, Broadcast]:
    """Address a broadcast to clients: who has updates that did not count is told of them."""
    unused = unused_rounds(records, clients)
    return {
        client: replace(broadcast, unused=unused[client]) if client in unused else broadcast
        for client in clients
    }
