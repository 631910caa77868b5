"""IFCA: one model per cluster; each client chooses the model that fits its data best."""

from __future__ import annotations

from fleetseg.methods.preset import Preset

IFCA = Preset(
    authors="Ghosh, Chung, Yin, Ramchandran",
    year=2020,
    title="An Efficient Framework for Clustered Federated Learning",
    url="https://arxiv.org/abs/2006.04088",
    new="Each client trains, of the models of all clusters, the one of lowest loss on its images.",
    fields={
        "federation": {
            "clustered_by": "loss",
            "cluster_models": {"count": 2, "tensors": "all"},
        }
    },
)
