"""LADD: style-based pre-training, clusters by style with own teachers and own heads or models.

Its learning rates, and the distillation weights 20, 20, 10, differ by data set; here the first.
"""

from __future__ import annotations

from typing import Any

from fleetseg.methods.preset import Preset

_SELF_TRAINING = {
    "teacher": "swa",
    "every": 5,
    "swa_start": 0.133,  # round 200 of 1500
    "select": "either",
    "confidence": 0.9,
    "top": 0.66,
    "normalise": "all",
    "jitter": 0.0,
    "blur": 0.0,
    "mix": "none",
    "distil": 20.0,
    "distil_temperature": 2.0,
}


def _ladd(tensors: str, new: str) -> Preset:
    fields: dict[str, Any] = {
        "partition": {"unlabelled": {"share": 1.0}},
        "pretrain": {"style_probability": 1.0},
        "training": {
            "supervision": "self_training",
            "self_training": _SELF_TRAINING,
            "style": {"kind": "fda", "probability": 0.0},
        },
        "federation": {"clustered_by": "styles", "cluster_models": {"tensors": tensors}},
    }
    return Preset(
        authors="Shenaj, Fanì, Toldo, Caldarola, Tavera, Michieli, Ciccone, Zanuttigh, Caputo",
        year=2023,
        title="Learning Across Domains and Devices: Style-Driven Source-Free Domain Adaptation in "
        "Clustered Federated Learning",
        url="https://arxiv.org/abs/2210.02326",
        new=new,
        fields=fields,
    )


LADD_CLS = _ladd("head", "Vehicles whose images look alike have a classifier of their own.")
LADD_ALL = _ladd("all", "Vehicles whose images look alike have a model of their own.")
