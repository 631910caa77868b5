"""SCAFFOLD, option II: local steps are corrected by control variates."""

from __future__ import annotations

from fleetseg.methods.preset import Preset

SCAFFOLD = Preset(
    authors="Karimireddy, Kale, Mohri, Reddi, Stich, Suresh",
    year=2020,
    title="SCAFFOLD: Stochastic Controlled Averaging for Federated Learning",
    url="https://arxiv.org/abs/1910.06378",
    new="Control variates take a client's difference from the fleet out of each of its gradients.",
    fields={
        "training": {"objective": "scaffold", "optimiser": "sgd", "momentum": 0.0},
        "federation": {"weights": "uniform", "server_optimiser": "sgd", "server_lr": 1.0},
    },
)
