"""FedDG-GA: clients whose data the global model fits worse than their own model count more.

Zhang et al., CVPR 2023. After each round a client's weight moves by its generalisation
gap, the global model's loss minus that of its own trained model, both on the client's samples:

    a_i <- a_i + d (1 - r/R) (G_i - mean G) / max_j |G_j - mean G|,  at least 0, then normalised.

Weights here are relative: 1 is an equal share (the paper's 1/M), so the unit includes the paper's
factor 1/M on the step. The sum of the weights that are moved stays the same, and those of absent
clients do not change. Equal gaps change nothing; the authors' code, which does not subtract the
mean gap, then pulls unequal weights together, and divides by zero if all gaps are zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from fleetseg.federation.known import RECEIVED_LOSS, TRAINED_LOSS, Known, Memory, Outcome

_SHARE = "share"  # tables: shares, and losses of the clients' trained models
MEASURED = (RECEIVED_LOSS, TRAINED_LOSS)


def gap_shares(known: Known) -> dict[str, float]:
    """Weigh clients by their shares; a new client has an equal share."""
    shares = known.memory.get(_SHARE, {})
    return {client: shares.get(client, 1.0) for client in known.enrolled}


def adjust_shares(memory: Memory, outcome: Outcome) -> Memory:
    """Move shares by the gaps of clients that have trained before.

    The loss of a client's own model is measured when it is trained; that of the resulting global
    model (or a later one) when the client receives it, with its next update. So no evaluation has
    to be requested, and a gap counts one round later than in the paper.
    """
    trained = memory.get(TRAINED_LOSS, {})
    gaps = {
        update.client_id: update.measures[RECEIVED_LOSS] - trained[update.client_id]
        for update in outcome.accepted
        if update.client_id in trained
    }
    settings = outcome.settings
    step = settings.gap.step * (1 - outcome.round / settings.rounds)
    shares = {**memory.get(_SHARE, {}), **_moved(gaps, memory.get(_SHARE, {}), step)}
    now = {update.client_id: update.measures[TRAINED_LOSS] for update in outcome.accepted}
    return {_SHARE: shares, TRAINED_LOSS: {**trained, **now}}


def _moved(gaps: Mapping[str, float], shares: Mapping[str, float], step: float) -> dict[str, float]:
    before = {client: shares.get(client, 1.0) for client in gaps}
    if not gaps:
        return before
    mean = math.fsum(gaps.values()) / len(gaps)
    largest = max(abs(gap - mean) for gap in gaps.values())
    if largest <= 1e-12 * max(1.0, abs(mean)):  # equal up to rounding
        return before
    clipped = {
        client: max(before[client] + step * (gap - mean) / largest, 0.0)
        for client, gap in gaps.items()
    }
    total = math.fsum(clipped.values())
    if total <= 0:
        return before
    scale = math.fsum(before.values()) / total
    return {client: share * scale for client, share in clipped.items()}
