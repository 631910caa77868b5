"""FedSeg: vehicles that label different classes."""

from __future__ import annotations

from fleetseg.methods.preset import Preset

FEDSEG = Preset(
    authors="Miao, Yang, Fan, Yang",
    year=2023,
    title="FedSeg: Class-Heterogeneous Federated Learning for Semantic Segmentation",
    url="https://github.com/lightas/FedSeg",
    new="What a vehicle has not labelled is one of the other classes, and pixels keep to the "
    "prototypes of their class by the received model.",
    fields={
        "training": {
            "supervision": "pixel contrast",
            "loss": "ce",
            "pixel_contrast": {
                "weight": 1.0,
                "temperature": 0.07,
                "anchors": 4096,
                "confidence": 0.8,
                "start_round": 2,
            },
        },
    },
)
