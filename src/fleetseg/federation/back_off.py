"""Samplers that go by what clients have told: who does not answer is asked less and less often.

After k rounds in a row in which a client was asked and no update of it was used, it rests for
2^(k-1) rounds, 32 at most. Without that, a client that has never answered would be asked whenever
it can be, because nothing is known of it. Who rests is asked only where there are too few others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fleetseg.federation.known import Known, Memory, Outcome

_MISSED, _ASKED = "missed", "asked"
_MOST_ROUNDS = 32


def without_resting(known: Known, count: int) -> Known:
    """Leave out who rests, but for those that are needed to have `count`: the next to be due."""
    due = {name: _due(known.memory, name) for name in known.enrolled}
    resting = sorted((n for n in due if due[n] > known.round), key=lambda name: due[name])
    left_out = set(resting[max(0, count - (len(due) - len(resting))) :])
    if not left_out:
        return known
    return replace(known, enrolled={n: e for n, e in known.enrolled.items() if n not in left_out})


def remember_missed(memory: Memory, outcome: Outcome) -> dict[str, Mapping[str, float]]:
    """Count who was asked in vain, and note when; no table where all have answered."""
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
