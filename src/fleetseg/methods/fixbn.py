"""FixBN: late rounds train with the global running statistics of batch norms."""

from __future__ import annotations

from fleetseg.methods.preset import Preset

FIXBN = Preset(
    authors="Zhong, Chen, Chao",
    year=2023,
    title="Making Batch Normalization Great in Federated Deep Learning",
    url="https://arxiv.org/abs/2303.06530",
    new="Half-way, batch norms stop using the statistics of each client's batches.",
    fields={"training": {"freeze_bn_after": 0.5}},
)
