"""FedNova: changes are averaged per unit of local work."""

from __future__ import annotations

from fleetseg.methods.preset import Preset

FEDNOVA = Preset(
    authors="Wang, Liu, Liang, Joshi, Poor",
    year=2020,
    title="Tackling the Objective Inconsistency Problem in Heterogeneous Federated Optimization",
    url="https://arxiv.org/abs/2007.07481",
    new="Changes are averaged per unit of local work, so that more steps are not more weight.",
    fields={
        "training": {"optimiser": "sgd"},
        "federation": {
            "weights": "images",
            "aggregator": "normalised",
            "server_optimiser": "sgd",
            "server_lr": 1.0,
        },
    },
)
