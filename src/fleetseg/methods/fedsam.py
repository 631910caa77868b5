"""FedSAM: clients look for flat minima."""

from __future__ import annotations

from fleetseg.methods.preset import Preset

FEDSAM = Preset(
    authors="Caldarola, Caputo, Ciccone; Qu, Li, Duan, Liu, Tang, Lu",
    year=2022,
    title="Improving Generalization in Federated Learning by Seeking Flat Minima; "
    "Generalized Federated Learning via Sharpness Aware Minimization",
    url="https://arxiv.org/abs/2203.11834",
    new="Clients train with SAM, so that they meet in regions where the loss is low all around.",
    fields={"training": {"objective": "sam", "sam": {"rho": 0.1}}},
)
