"""FedAvg with self-training: no vehicle has labels."""

from __future__ import annotations

from fleetseg.methods.preset import Preset

FEDAVG_SELFTRAINING = Preset(
    authors="Shenaj, Fanì, Toldo, Caldarola, Tavera, Michieli, Ciccone, Zanuttigh, Caputo",
    year=2023,
    title="Learning Across Domains and Devices: Style-Driven Source-Free Domain Adaptation in "
    "Clustered Federated Learning",
    url="https://arxiv.org/abs/2210.02326",
    new="Vehicles without labels learn the surest predictions of a model of some rounds ago.",
    fields={
        "partition": {"unlabelled": {"share": 1.0}},
        "training": {
            "supervision": "self_training",
            "self_training": {
                "teacher": "round",
                "every": 5,
                "select": "either",
                "confidence": 0.9,
                "top": 0.66,
                "normalise": "all",
                "jitter": 0.0,
                "blur": 0.0,
                "mix": "none",
            },
        },
    },
)
