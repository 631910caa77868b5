"""The history of rounds that a model comes from; the state a client keeps belongs to one history.

A server may go back some rounds (a damaged checkpoint, a run folder restored from a backup) and
repeat them with other vehicles. The repeated rounds have the same numbers, but the state that a
client kept from the first attempt fits a model that no longer exists. A lineage identifies all
committed rounds up to one: it is a digest of the previous lineage, the sum of the words of the
round's model, and the clients whose updates are in it. The same history has the same lineage, so
that an interrupted and resumed run has that of one which never stopped. Before the first round it
is empty.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from typing import Any

import numpy as np

from fleetseg.errors import UpdateRejected
from fleetseg.federation.checkpoint import ServerState
from fleetseg.federation.messages import Counted
from fleetseg.federation.records import RoundRecord
from fleetseg.federation.tensors import ModelState

_DIGITS = 16


def with_lineage(state: ServerState, record: RoundRecord) -> ServerState:
    """Set the lineage of the state after a round; `record` has the lineage before it."""
    used = record.accepted if record.quorum else ()
    told = json.dumps([record.lineage, record.round, _fingerprint(state.model), used])
    return replace(state, lineage=hashlib.sha256(told.encode()).hexdigest()[:_DIGITS])


def _fingerprint(model: ModelState) -> list[int]:
    """Sum the words of a model: this tells histories apart and is not meant to stop forgery.

    One pass at memory speed; a SHA-256 of each round's model takes as long as three updates.
    """
    values_F = model.values_F.numpy()
    even = values_F.size & ~1
    words, rest = values_F[:even].view(np.int64), values_F[even:].view(np.int32)
    return [int(part.sum()) for part in (words, rest, model.counters_K.numpy())]


def write_counted(counted: Counted | None) -> list[Any] | None:
    """Encode which update counted, for a header."""
    return None if counted is None else [counted.round, counted.lineage]


def read_counted(fields: Any) -> Counted | None:
    """Decode what `write_counted` wrote, or raise UpdateRejected."""
    if fields is None:
        return None
    if not isinstance(fields, list) or len(fields) != 2 or type(fields[0]) is not int:
        raise UpdateRejected("malformed", "not a round with its lineage")
    return Counted(fields[0], read_lineage(fields[1]))


def read_lineage(text: Any) -> str:
    """Check a received lineage, or raise UpdateRejected: file names are made from it."""
    if not isinstance(text, str) or not re.fullmatch(rf"(?:[0-9a-f]{{{_DIGITS}}})?", text):
        raise UpdateRejected("malformed", "not a lineage")
    return text
