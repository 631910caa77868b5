"""FDA pre-training with the fleet's styles, then FedAvg with self-training."""

from __future__ import annotations

from fleetseg.methods.fedavg_selftraining import FEDAVG_SELFTRAINING
from fleetseg.methods.preset import Preset

FDA_PRETRAIN = Preset(
    authors=FEDAVG_SELFTRAINING.authors,
    year=FEDAVG_SELFTRAINING.year,
    title=FEDAVG_SELFTRAINING.title,
    url=FEDAVG_SELFTRAINING.url,
    new="The server's labelled images take on the vehicles' styles before the fleet starts: "
    "27 numbers of each vehicle.",
    fields={
        **FEDAVG_SELFTRAINING.fields,
        "pretrain": {"style_probability": 1.0},
        "training": {
            **FEDAVG_SELFTRAINING.fields["training"],
            "style": {"kind": "fda", "probability": 0.0},
        },
    },
)
