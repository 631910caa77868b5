"""FedPer: the body is shared, and each client keeps its own head."""

from __future__ import annotations

from fleetseg.methods.preset import Preset

FEDPER = Preset(
    authors="Arivazhagan, Aggarwal, Singh, Choudhary",
    year=2019,
    title="Federated Learning with Personalization Layers",
    url="https://arxiv.org/abs/1912.00818",
    new="The last layers stay with each client, which trains them together with the shared ones.",
    fields={
        "federation": {"sharing": "body"},
        "personal": {"model": "own"},
    },
)
