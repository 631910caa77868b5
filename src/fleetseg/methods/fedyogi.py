"""FedYogi: Yogi on the server, on the mean change of a round."""

from __future__ import annotations

from fleetseg.methods.preset import Preset

FEDYOGI = Preset(
    authors="Reddi, Charles, Zaheer, Garrett, Rush, Konečný, Kumar, McMahan",
    year=2021,
    title="Adaptive Federated Optimization",
    url="https://arxiv.org/abs/2003.00295",
    new="As FedAdam, and squares that shrink are forgotten no faster than they grow.",
    fields={
        "federation": {
            "server_optimiser": "yogi",
            "server_lr": 0.01,
            "adaptive": {"beta1": 0.9, "beta2": 0.99, "tau": 1e-3, "flavour": "paper"},
        },
    },
)
