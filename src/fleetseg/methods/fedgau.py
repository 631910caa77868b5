"""FedGau: clients are weighted by the Gaussian of their images."""

from __future__ import annotations

from fleetseg.methods.preset import Preset

FEDGAU = Preset(
    authors="Kou, Lin, Tang, Ye, Wang, Zhu, Wu",
    year=2024,
    title="Fast-Convergent and Communication-Alleviated Heterogeneous Hierarchical Federated "
    "Learning in Autonomous Driving",
    url="https://arxiv.org/abs/2409.19560",
    new="A client counts by how near the Gaussian of its images is to that of all images.",
    fields={"federation": {"weights": "fedgau", "fedgau": {"epsilon": 0.01}}},
)
