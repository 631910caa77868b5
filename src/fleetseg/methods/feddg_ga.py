"""FedDG-GA: weights are adjusted by the generalisation gap."""

from __future__ import annotations

from fleetseg.methods.preset import Preset

FEDDG_GA = Preset(
    authors="Zhang, Xu, Yao, Zhang, Tian, Wang",
    year=2023,
    title="Federated Domain Generalization With Generalization Adjustment",
    url="https://openaccess.thecvf.com/content/CVPR2023/html/"
    "Zhang_Federated_Domain_Generalization_With_Generalization_Adjustment_CVPR_2023_paper.html",
    new="A client counts more where the global model is worse on its data than its own model.",
    fields={"federation": {"weights": "feddg-ga", "gap": {"step": 0.2}}},
)
