"""FedSpeed: a bias-corrected proximal term, and gradients at a point one step uphill."""

from __future__ import annotations

from fleetseg.methods.preset import Preset

FEDSPEED = Preset(
    authors="Sun, Shen, Huang, Ding, Tao",
    year=2023,
    title="FedSpeed: Larger Local Interval, Less Communication Round, and Higher Generalization "
    "Accuracy",
    url="https://arxiv.org/abs/2302.10429",
    new="A pull towards the received model is made good for by what it has held back so far.",
    fields={"training": {"objective": "fedspeed", "fedspeed": {"rho": 0.1, "mu": 0.1}}},
)
