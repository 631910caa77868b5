"""Reference models, sent with the global one: the teachers of vehicles without labels.

The server computes them as pure functions of the models of earlier rounds, so that a vehicle that
was away has the same teacher as all others, and a resumed run goes on with the same one. "first" is
the model that training started from; `training.self_training.teacher` defines "teacher". A teacher
that is the broadcast model itself is not sent: see learning.self_training.references_of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fleetseg.config import SelfTrainingConfig
from fleetseg.learning.schedules import first_round_after

References = Mapping[str, Tensor]
"""Floats of the shared part of each model (suffix F), by name, and the count behind "swa"."""

FIRST, TEACHER, _AVERAGE, _AVERAGED = "first", "teacher", "swa", "averaged"


def advance_references(
    before: References,
    names: Sequence[str],
    sent_F: Tensor,
    round_: int,
    settings: SelfTrainingConfig,
    total_rounds: int,
) -> References:
    """Return the reference models of a round.

    Args:
        before: those of the round before; empty before the first.
        names: the models to send: FIRST, TEACHER or both.
        sent_F: the global model as sent in this round.
        round_: 1-based.
        settings: how the teacher is made.
        total_rounds: of the run.
    """
    after: dict[str, Tensor] = {}
    if FIRST in names:
        after[FIRST] = before.get(FIRST, sent_F.clone())
    if TEACHER in names:
        after |= _advance_teacher(before, sent_F, round_, settings, total_rounds)
    return after


def _advance_teacher(
    before: References,
    sent_F: Tensor,
    round_: int,
    settings: SelfTrainingConfig,
    total_rounds: int,
) -> dict[str, Tensor]:
    if TEACHER not in before:
        return {TEACHER: sent_F.clone()}
    teacher_F = before[TEACHER]
    if settings.teacher == "ema":
        return {TEACHER: torch.lerp(sent_F, teacher_F, settings.ema)}
    is_due = (round_ - 1) % settings.every == 0
    start = first_round_after(settings.swa_start, total_rounds)
    if settings.teacher == "round" or round_ < start:
        return {TEACHER: sent_F.clone() if is_due else teacher_F}
    # Computed as x + (y - x) / n, so that the average of equal models is that model.
    count = before.get(_AVERAGED, torch.zeros(1)) + 1
    mean_F = before.get(_AVERAGE, sent_F)
    mean_F = mean_F + (sent_F - mean_F) / count
    return {TEACHER: mean_F if is_due else teacher_F, _AVERAGE: mean_F, _AVERAGED: count}
