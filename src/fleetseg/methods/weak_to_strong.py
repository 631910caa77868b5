"""Weak to strong: an averaged teacher sees plain images, the student augmented ones."""

from __future__ import annotations

from fleetseg.methods.preset import Preset

WEAK_TO_STRONG = Preset(
    authors="Hoyer, Dai, Van Gool",
    year=2022,
    title="DAFormer: Improving Network Architectures and Training Strategies for Domain-Adaptive "
    "Semantic Segmentation",
    url="https://arxiv.org/abs/2111.14887",
    new="Each image counts by how sure the teacher, an average of models, is of it; what the "
    "student sees is recoloured, blurred and mixed with other images.",
    fields={
        "partition": {"unlabelled": {"share": 1.0}},
        "training": {
            "supervision": "self_training",
            "self_training": {
                "teacher": "ema",
                "select": "quality",
                "confidence": 0.968,
                "jitter": 0.5,
                "blur": 0.5,
                "mix": "classmix",
            },
        },
        "federation": {"publishing": "swa", "statistics": "estimated"},
    },
)
