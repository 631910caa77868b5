"""FedBN: norm layers stay with each client."""

from __future__ import annotations

from fleetseg.methods.preset import Preset

FEDBN = Preset(
    authors="Li, Jiang, Zhang, Kamp, Dou",
    year=2021,
    title="FedBN: Federated Learning on Non-IID Features via Local Batch Normalization",
    url="https://arxiv.org/abs/2102.07623",
    new="Norm layers stay with each client, gains and biases included.",
    fields={"federation": {"sharing": "fedbn"}},
)
