"""FedRep: each round trains the head on a frozen body, then the body under that head."""

from __future__ import annotations

from fleetseg.methods.preset import Preset

FEDREP = Preset(
    authors="Collins, Hassani, Mokhtari, Shakkottai",
    year=2021,
    title="Exploiting Shared Representations for Personalized Federated Learning",
    url="https://arxiv.org/abs/2102.07078",
    new="Many local steps find a client's best head for the shared body, and few change the body.",
    fields={
        "training": {
            "local_epochs": 11,
            "phases": [{"learns": "head", "share": 10}, {"learns": "body", "share": 1}],
        },
        "federation": {"sharing": "body"},
        "personal": {"model": "own"},
    },
)
