"""MixStyle: features of one image take on the style of another."""

from __future__ import annotations

from fleetseg.methods.preset import Preset

MIXSTYLE = Preset(
    authors="Zhou, Yang, Qiao, Xiang",
    year=2021,
    title="Domain Generalization with MixStyle",
    url="https://arxiv.org/abs/2104.02008",
    new="Means and deviations of early features are mixed between the images of a batch, so that "
    "later layers do not rely on them.",
    fields={"training": {"mixstyle": {"probability": 0.5, "alpha": 0.1}}},
)
