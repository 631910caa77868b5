"""Weights with a fact, a measure and a memory: this file, and a line in a dict."""

from __future__ import annotations

from fleetseg.federation.known import Known, Memory, Outcome
from fleetseg.federation.weights import Weighting, Weights, as_integers


def _weigh(known: Known) -> Weights:
    """Count a client by the loss that it had last, and by how bright it is beside the fleet."""
    losses, mean = known.memory.get("loss", {}), known.facts["toy colour"].mean()
    colours = {c: e.facts["toy colour"].mean() for c, e in known.enrolled.items()}
    return as_integers({c: losses.get(c, 1.0) * float(colours[c] / mean) for c in known.enrolled})


def _remember(memory: Memory, outcome: Outcome) -> Memory:
    losses = {a.client_id: a.measures["received_loss"] for a in outcome.accepted}
    return {"loss": {**memory.get("loss", {}), **losses}}


TOY_LOSS = Weighting(_weigh, facts=("toy colour",), measures=("received_loss",), remember=_remember)
