"""FedAvgM: the server keeps momentum over rounds."""

from __future__ import annotations

from fleetseg.methods.preset import Preset

FEDAVGM = Preset(
    authors="Hsu, Qi, Brown",
    year=2019,
    title="Measuring the Effects of Non-Identical Data Distribution for Federated Visual "
    "Classification",
    url="https://arxiv.org/abs/1909.06335",
    new="The mean change is a pseudo-gradient for SGD with momentum on the server.",
    fields={
        "federation": {"server_optimiser": "sgd", "server_lr": 1.0, "server_momentum": 0.9},
    },
)
