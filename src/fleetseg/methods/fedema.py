"""FedEMA: vehicles receive an exponential average of the global models."""

from __future__ import annotations

from fleetseg.methods.preset import Preset

WINDOW = 3  # N; the paper's value could not be obtained
BETA = 2 / (WINDOW + 1)

FEDEMA = Preset(
    authors="Kou, Zhu, Cheng, Wang, Tang, Wu",
    year=2025,
    title="FedEMA: Federated Exponential Moving Averaging with Negative Entropy Regularizer in "
    "Autonomous Driving",
    url="https://arxiv.org/abs/2505.00318",
    new="The average of a round is mixed into that of the rounds before, which is what vehicles "
    "are sent, and their loss keeps predictions from becoming too sure.",
    # e <- beta e + (1 - beta) mean is a step of 1 - beta towards the mean.
    fields={
        "federation": {"server_optimiser": "sgd", "server_lr": 1 - BETA, "server_momentum": 0.0},
        "training": {"loss": "ce+entropy"},
    },
)
