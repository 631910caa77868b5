"""FedExP: the mean change, extrapolated."""

from __future__ import annotations

from fleetseg.methods.preset import Preset

FEDEXP = Preset(
    authors="Jhunjhunwala, Wang, Joshi",
    year=2023,
    title="FedExP: Speeding Up Federated Averaging via Extrapolation",
    url="https://arxiv.org/abs/2301.09604",
    new="The less the changes of a round agree, the further the server goes along their mean.",
    fields={
        "federation": {
            "weights": "images",
            "aggregator": "extrapolated",
            "server_optimiser": "sgd",
            "server_lr": 1.0,
            "publishing": "last two",
            "extrapolated": {"eps": 1e-3, "eps_decay": 0.998**2},
        }
    },
)
