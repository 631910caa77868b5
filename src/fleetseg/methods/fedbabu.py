"""FedBABU: only the body is trained; the head stays fixed until the end."""

from __future__ import annotations

from fleetseg.methods.preset import Preset

FEDBABU = Preset(
    authors="Oh, Kim, Yun",
    year=2022,
    title="FedBABU: Towards Enhanced Representation for Federated Image Classification",
    url="https://arxiv.org/abs/2106.06042",
    new="Clients share and train the body under a fixed head; after it each fine-tunes its model.",
    fields={
        "training": {"phases": [{"learns": "body"}]},
        "federation": {"sharing": "body"},
        "personal": {"model": "fine-tuned", "epochs": 5},
    },
)
