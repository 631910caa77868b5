"""SiloBN: statistics of norm layers stay with each client."""

from __future__ import annotations

from fleetseg.methods.preset import Preset

SILOBN = Preset(
    authors="Andreux, Ogier du Terrail, Beguier, Tramel",
    year=2020,
    title="Siloed Federated Learning for Multi-Centric Histopathology Datasets",
    url="https://arxiv.org/abs/2008.07424",
    new="Running statistics of norm layers stay with each client, gains and biases are shared.",
    fields={"federation": {"sharing": "silobn"}, "evaluation": {"norms": "domain"}},
)
