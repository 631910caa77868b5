"""q-FedAvg: a fairer distribution of losses over the clients."""

from __future__ import annotations

from fleetseg.methods.preset import Preset

QFFEDAVG = Preset(
    authors="Li, Sanjabi, Beirami, Smith",
    year=2020,
    title="Fair Resource Allocation in Federated Learning",
    url="https://arxiv.org/abs/1905.10497",
    new="Losses to the power q + 1 are minimised, with a step that fits their curvature.",
    fields={
        "training": {"optimiser": "sgd", "momentum": 0.0, "lr": 0.05},
        "federation": {"aggregator": "q-fedavg", "qffl": {"q": 1.0, "lipschitz": 20.0}},
    },
)
