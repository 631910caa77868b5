"""MimeLite: the fleet's momentum in every local step, changed by the server only."""

from __future__ import annotations

from fleetseg.methods.preset import Preset

MIMELITE = Preset(
    authors="Karimireddy, Jaggi, Kale, Mohri, Reddi, Stich, Suresh",
    year=2020,
    title="Mime: Mimicking Centralized Stochastic Algorithms in Federated Learning",
    url="https://arxiv.org/abs/2008.03606",
    new="Local steps are those of a centralised optimiser whose statistics only the server moves.",
    fields={
        "training": {
            "objective": "mimelite",
            "optimiser": "sgd",
            "momentum": 0.0,
            "mimelite": {"beta": 0.9},
        },
    },
)
