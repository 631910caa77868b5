"""MOON: a contrastive loss between models."""

from __future__ import annotations

from fleetseg.methods.preset import Preset

MOON = Preset(
    authors="Li, He, Song",
    year=2021,
    title="Model-Contrastive Federated Learning",
    url="https://arxiv.org/abs/2103.16257",
    new="Features are drawn to those of the received model, away from the client's own last one.",
    fields={"training": {"objective": "moon", "moon": {"mu": 1.0, "tau": 0.5}}},
)
