"""Which history of rounds a model comes from: what clients keep is of one, and of no other.

A server may go back some rounds (a damaged checkpoint, a run folder put back from a backup) and do
them once more, with other vehicles. Such rounds have the numbers of those before, but what a client
kept of the first ones fits a model that nobody has any more. A lineage names all committed rounds
up to one: a digest of the lineage before, of the sum of the words of the round's model, and of
whose updates are in it. The same history has the same name, so that a run which was cut and resumed
has that of one which never stopped. Before the first round it is empty.
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
    """Name the history of a state that a round has led to; its record says what it began with."""
    used = record.accepted if record.quorum else ()
    told = json.dumps([record.lineage, record.round, _fingerprint(state.model), used])
    return replace(state, lineage=hashlib.sha256(told.encode()).hexdigest()[:_DIGITS])


def _fingerprint(model: ModelState) -> list[int]:
    """Sum up the words of a model: histories are told apart by it, and forgers are not meant.

    One pass at the memory's speed; a SHA-256 of each round's model takes as long as three updates.
    """
    values_F = model.values_F.numpy()
    even = values_F.size & ~1
    words, rest = values_F[:even].view(np.int64), values_F[even:].view(np.int32)
    return [int(part.sum()) for part in (words, rest, model.counters_K.numpy())]


def write_counted(counted: Counted | None) -> list[Any] | None:
    """Write which update counted, for a header."""
    return None if counted is None else [counted.round, counted.lineage]


def read_counted(fields: Any) -> Counted | None:
    """Read what `write_counted` wrote, or raise UpdateRejected."""
    if fields is None:
        return None
    if not isinstance(fields, list) or len(fields) != 2 or type(fields[0]) is not int:
        raise UpdateRejected("malformed", "no round with its lineage")
    return Counted(fields[0], read_lineage(fields[1]))


def read_lineage(text: Any) -> str:
    """Check a lineage that was sent, as files are named by it, or raise UpdateRejected."""
    if not isinstance(text, str) or not re.fullmatch(rf"(?:[0-9a-f]{{{_DIGITS}}})?", text):
        raise UpdateRejected("malformed", "no lineage")
    return text
