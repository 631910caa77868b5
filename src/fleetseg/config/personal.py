"""Personal models of the clients."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fleetseg.config.section import Section


class PersonalConfig(Section):
    """Each client's own model, scored on the client's own frames next to the global one."""

    model: str = "none"  # none, own, fine-tuned, ditto: see federation.personal
    scored: Literal["end", "always"] = "end"  # always: whenever the global model is scored
    # How that model is trained: by fine-tuned before each scoring, by ditto in each round.
    epochs: int = Field(default=1, ge=1)
    steps: int = Field(default=0, ge=0)  # > 0: exactly this many, overrides epochs
    lr: float = Field(default=0.0, ge=0)  # 0 = training.lr; fine-tuning follows no schedule
    learns: Literal["all", "body", "head"] = "all"  # fine-tuned only
    pull: float = Field(default=1.0, ge=0)  # ditto: lambda in lambda / 2 |v - w|^2
