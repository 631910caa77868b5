"""HyperFLAW's queue of global models, without the rest of it."""

from __future__ import annotations

from fleetseg.methods.preset import Preset

HYPERFLAW_QUEUE = Preset(
    authors="Rizzoli, Caligiuri, Shenaj, Barbato, Zanuttigh",
    year=2025,
    title="When Cars meet Drones: Hyperbolic Federated Learning for Source-Free Domain Adaptation "
    "in Adverse Weather",
    url="https://arxiv.org/abs/2403.13762",
    new="The global model is the mean of the round's and of the last five global models.",
    fields={
        "federation": {"aggregator": "mean", "server_optimiser": "queue", "queue": {"length": 5}}
    },
)
