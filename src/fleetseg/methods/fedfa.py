"""FedFA: feature statistics are perturbed by how much they differ between vehicles."""

from __future__ import annotations

from fleetseg.methods.preset import Preset

FEDFA = Preset(
    authors="Zhou, Konukoglu",
    year=2023,
    title="FedFA: Federated Feature Augmentation",
    url="https://arxiv.org/abs/2301.12995",
    new="Means and deviations of early features get noise, with more of it in channels in which "
    "vehicles differ more.",
    fields={"training": {"fedfa": {"probability": 0.5}}},
)
