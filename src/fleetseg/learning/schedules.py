"""Learning-rate schedules over global rounds, the same for every client of a round."""

from __future__ import annotations

import math
from collections.abc import Callable

from fleetseg.errors import unknown_name

POLY_POWER = 0.9
"""As in DeepLab and BiSeNet: (1 - t) ** 0.9."""

WARMUP_START = 0.01
"""Factor at the first step of a warm-up, the start_factor of torch's LinearLR."""


def _constant(done: float) -> float:
    return 1.0


def _poly(done: float) -> float:
    return float((1.0 - done) ** POLY_POWER)


def _cosine(done: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * done))


def _step_fedseg(done: float) -> float:
    """Drop to a tenth after two thirds: round 1000 of 1500."""
    return 1.0 if done < 2 / 3 else 0.1


SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": _constant,
    "poly": _poly,
    "cosine": _cosine,
    # FedDrive's "poly" restarts in each round and is scaled to 10,000 times the steps of a round,
    # so it stays within 0.9999 .. 1.
    "poly_feddrive": _constant,
    "step_fedseg": _step_fedseg,
}


def first_round_after(share: float, total_rounds: int) -> int:
    """Return the first round after a share of all rounds.

    >>> [first_round_after(share, 50) for share in (0.0, 0.5, 0.58, 1.0)]
    [1, 26, 30, 51]
    """
    # The tolerance is for products such as 0.58 * 50 = 28.999999999999996.
    return int(share * total_rounds + 1e-9) + 1


def lr_factor(
    schedule: str, round_: int, progress: float, total_rounds: int, warmup_rounds: int = 0
) -> float:
    """Return the factor on the peak learning rate at a moment of a run.

    `round_` is 1-based and global; `progress` in [0, 1) is the share of the round's local work
    done, so the factor is a smooth function of (round_ - 1 + progress) / total_rounds however a run
    is divided into rounds. Warm-up rises linearly from WARMUP_START, not from 0 (a round at
    learning rate 0 would waste a vehicle's battery); the schedule spans the rounds after it.

    >>> lr_factor("cosine", 6, 0.0, total_rounds=10)
    0.5
    """
    if schedule not in SCHEDULES:
        raise unknown_name("schedule", schedule, SCHEDULES)
    passed = round_ - 1 + progress
    if passed < warmup_rounds:
        return WARMUP_START + (1.0 - WARMUP_START) * passed / warmup_rounds
    span = max(total_rounds - warmup_rounds, 1)
    return SCHEDULES[schedule](min(max((passed - warmup_rounds) / span, 0.0), 1.0))
