"""FedDC: clients' known drift is removed from the mean."""

from __future__ import annotations

from fleetseg.methods.preset import Preset

FEDDC = Preset(
    authors="Gao, Fu, Li, Chen, Xu, Xu",
    year=2022,
    title="FedDC: Federated Learning with Non-IID Data via Local Drift Decoupling and Correction",
    url="https://arxiv.org/abs/2203.11751",
    new="Each client learns how far it drifts, and what it sends is corrected by that.",
    fields={
        "training": {
            "objective": "drift",
            "optimiser": "sgd",
            "momentum": 0.0,
            "drift": {"alpha": 0.01},
        },
        "federation": {"weights": "uniform", "aggregator": "mean", "server_optimiser": "drift"},
    },
)
