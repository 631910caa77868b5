"""The last update of each client that counted: the client is told, and continues from there."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from fleetseg.federation.client_state import NO_STATE
from fleetseg.federation.messages import Broadcast, Counted
from fleetseg.federation.records import RoundRecord

_NONE = Counted(0)


def last_counted(records: Sequence[RoundRecord], clients: Collection[str]) -> dict[str, Counted]:
    """Return the last update of each client that counted.

    In a round without a quorum, no update counts. A client that has reported the loss of its state
    starts afresh: none of its earlier updates counts any more. The search goes back until every
    client is settled: a client may be asked again after hundreds of rounds.
    """
    counted = dict.fromkeys(clients, _NONE)
    open_ = set(clients)
    for record in reversed(records):
        if not open_:
            break
        used = open_.intersection(record.accepted if record.quorum else ())
        counted.update(dict.fromkeys(used, Counted(record.round, record.lineage)))
        bereft = {f.client_id for f in record.failures if f.reason == NO_STATE}
        open_ -= used | bereft
    return counted


def to_each(
    broadcast: Broadcast, clients: Collection[str], records: Sequence[RoundRecord]
) -> dict[str, Broadcast]:
    """Address a broadcast to clients, telling each which of its updates was the last to count."""
    counted = last_counted(records, clients)
    told = {update: replace(broadcast, counted=update) for update in set(counted.values())}
    return {client: told[update] for client, update in counted.items()}
