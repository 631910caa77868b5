"""FedProx: FedAvg with a proximal term."""

from __future__ import annotations

from fleetseg.methods.preset import Preset

FEDPROX = Preset(
    authors="Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith",
    year=2020,
    title="Federated Optimization in Heterogeneous Networks",
    url="https://arxiv.org/abs/1812.06127",
    new="Local training is pulled towards the model that the client received.",
    fields={"training": {"objective": "prox", "prox": {"mu": 0.01}}},
)
