"""Back-off for samplers that use clients' reports: unresponsive clients are asked less often.

After k consecutive rounds in which a client was asked and none of its updates was used, it rests
for 2^(k-1) rounds, at most 32. Otherwise a client that has never answered would be asked at every
opportunity, because nothing is known about it. Resting clients are asked only if there are too few
others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fleetseg.federation.known import Known, Memory, Outcome

_MISSED, _ASKED = "missed", "asked"
_MOST_ROUNDS = 32


def without_resting(known: Known, count: int) -> Known:
    """Leave out resting clients, except those due next where fewer than `count` would remain."""
    due = {name: _due(known.memory, name) for name in known.enrolled}
    resting = sorted((n for n in due if due[n] > known.round), key=lambda name: due[name])
    left_out = set(resting[max(0, count - (len(due) - len(resting))) :])
    if not left_out:
        return known
    return replace(known, enrolled={n: e for n, e in known.enrolled.items() if n not in left_out})


def remember_missed(memory: Memory, outcome: Outcome) -> dict[str, Mapping[str, float]]:
    """Count each client's misses in a row and note the round; no tables if no client has any."""
    used = {update.client_id for update in outcome.accepted}
    missed, asked = dict(memory.get(_MISSED, {})), dict(memory.get(_ASKED, {}))
    for name in outcome.asked:
        if name in used:
            missed.pop(name, None)
            asked.pop(name, None)
        else:
            missed[name] = missed.get(name, 0.0) + 1
            asked[name] = float(outcome.round)
    return {_MISSED: missed, _ASKED: asked} if missed else {}


def _due(memory: Memory, name: str) -> float:
    """Return the first round in which a client no longer rests."""
    missed = memory.get(_MISSED, {}).get(name, 0.0)
    if not missed:
        return 0.0
    rest: float = min(2.0 ** min(missed - 1, 30), _MOST_ROUNDS)
    return memory[_ASKED][name] + rest + 1
