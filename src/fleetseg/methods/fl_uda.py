"""FL-UDA: vehicles carry the server's labelled images and adapt to their own by MCD."""

from __future__ import annotations

from fleetseg.methods.preset import Preset

FL_UDA = Preset(
    authors="Saito, Watanabe, Ushiku, Harada",
    year=2018,
    title="Maximum Classifier Discrepancy for Unsupervised Domain Adaptation",
    url="https://arxiv.org/abs/1712.02560",
    new="Two classifiers learn labelled images that every vehicle carries and are to differ on "
    "its own, where the features then make them agree. LADD (arXiv 2210.02326) compares with it.",
    fields={
        "partition": {"unlabelled": {"share": 1.0}},
        "pretrain": {},  # the experiment says its sources, which the vehicles carry
        "training": {"supervision": "discrepancy", "discrepancy": {"extractor_steps": 4}},
    },
)
