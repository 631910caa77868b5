"""Ditto: besides its update, each client trains a personal model, pulled towards the global one."""

from __future__ import annotations

from fleetseg.methods.preset import Preset

DITTO = Preset(
    authors="Li, Hu, Beirami, Smith",
    year=2021,
    title="Ditto: Fair and Robust Federated Learning Through Personalization",
    url="https://arxiv.org/abs/2012.04221",
    new="A personal model stays with each client and is pulled towards what the client receives.",
    fields={"personal": {"model": "ditto", "pull": 1.0}},
)
