"""FedAdam: Adam on the server, on the mean change of a round."""

from __future__ import annotations

from fleetseg.methods.preset import Preset

FEDADAM = Preset(
    authors="Reddi, Charles, Zaheer, Garrett, Rush, Konečný, Kumar, McMahan",
    year=2021,
    title="Adaptive Federated Optimization",
    url="https://arxiv.org/abs/2003.00295",
    new="The server divides its momentum by the root of a running mean of squares, value by value.",
    fields={
        "federation": {
            "server_optimiser": "adam",
            "server_lr": 0.01,
            "adaptive": {"beta1": 0.9, "beta2": 0.99, "tau": 1e-3, "flavour": "paper"},
        },
    },
)
