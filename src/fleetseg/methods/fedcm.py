"""FedCM: the fleet's momentum in each local step."""

from __future__ import annotations

from fleetseg.methods.preset import Preset

FEDCM = Preset(
    authors="Xu, Wang, Wang, Yao",
    year=2021,
    title="FedCM: Federated Learning with Client-level Momentum",
    url="https://arxiv.org/abs/2106.10874",
    new="Nine tenths of each local step go where the fleet went in its last round.",
    fields={
        "training": {
            "objective": "client momentum",
            "optimiser": "sgd",
            "momentum": 0.0,
            "client_momentum": {"alpha": 0.1},
        }
    },
)
