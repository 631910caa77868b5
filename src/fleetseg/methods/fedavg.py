"""FedAvg: several local steps, then a mean weighted by numbers of images."""

from __future__ import annotations

from fleetseg.methods.preset import Preset

FEDAVG = Preset(
    authors="McMahan, Moore, Ramage, Hampson, Arcas",
    year=2017,
    title="Communication-Efficient Learning of Deep Networks from Decentralized Data",
    url="https://arxiv.org/abs/1602.05629",
    new="Clients take many steps between two exchanges, and the server averages their models.",
    fields={
        "training": {"objective": "plain"},
        "federation": {
            "weights": "images",
            "aggregator": "mean",
            "server_optimiser": "sgd",
            "server_lr": 1.0,
            "server_momentum": 0.0,
        },
    },
)
