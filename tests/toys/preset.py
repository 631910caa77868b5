"""A preset: this file, and a line in a dict."""

from __future__ import annotations

from fleetseg.methods.preset import Preset

TOY_PRESET = Preset(
    authors="Nobody",
    year=2026,
    title="A Toy",
    url="https://example.org",
    new="Nothing: it puts two of the other toys together.",
    fields={
        "training": {"objective": "toy control", "lr": 0.02},
        "federation": {"aggregator": "toy median"},
    },
)
