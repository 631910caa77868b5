"""FedDyn: dynamic regularisation."""

from __future__ import annotations

from fleetseg.methods.preset import Preset

FEDDYN = Preset(
    authors="Acar, Zhao, Matas, Mattina, Whatmough, Saligrama",
    year=2021,
    title="Federated Learning Based on Dynamic Regularization",
    url="https://arxiv.org/abs/2111.04263",
    new="A penalty that each client adapts makes the minima of all clients those of the fleet.",
    fields={
        "training": {"objective": "dyn", "dyn": {"alpha": 0.01}},
        "federation": {"weights": "uniform", "aggregator": "mean", "server_optimiser": "drift"},
    },
)
