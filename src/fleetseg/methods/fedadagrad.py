"""FedAdagrad: Adagrad on the server, on the mean change of a round."""

from __future__ import annotations

from fleetseg.methods.preset import Preset

FEDADAGRAD = Preset(
    authors="Reddi, Charles, Zaheer, Garrett, Rush, Konečný, Kumar, McMahan",
    year=2021,
    title="Adaptive Federated Optimization",
    url="https://arxiv.org/abs/2003.00295",
    new="The server divides the mean change by the root of the sum of all squares so far.",
    fields={
        "federation": {
            "server_optimiser": "adagrad",
            "server_lr": 0.01,
            "adaptive": {"beta1": 0.0, "beta2": 0.99, "tau": 1e-3, "flavour": "paper"},
        },
    },
)
