"""SiloBN with LAB: FedDrive's strongest configuration."""

from __future__ import annotations

from fleetseg.methods.preset import Preset

SILOBN_LAB = Preset(
    authors="Fantauzzo, Fanì, Caldarola, Tavera, Cermelli, Ciccone, Caputo",
    year=2022,
    title="FedDrive: Generalizing Federated Learning to Semantic Segmentation in Autonomous "
    "Driving",
    url="https://arxiv.org/abs/2202.13670",
    new="Images take on means and deviations in Lab of other vehicles', statistics stay at home.",
    fields={
        "training": {"style": {"kind": "lab", "per": "image", "probability": 0.5}},
        "federation": {"sharing": "silobn"},
        "evaluation": {"norms": "domain"},
    },
)
