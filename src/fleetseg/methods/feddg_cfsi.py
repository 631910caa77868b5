"""CFSI of FedDG: images' low frequencies are interpolated towards those of other clients."""

from __future__ import annotations

from fleetseg.methods.preset import Preset

FEDDG_CFSI = Preset(
    authors="Liu, Chen, Qin, Dou, Heng",
    year=2021,
    title="FedDG: Federated Domain Generalization on Medical Image Segmentation via Episodic "
    "Learning in Continuous Frequency Space",
    url="https://arxiv.org/abs/2103.06030",
    new="Amplitudes of low frequencies are interpolated with those of other clients' images.",
    fields={
        "training": {"style": {"kind": "cfsi", "probability": 0.5, "cfsi": {"share": 0.05}}},
    },
)
