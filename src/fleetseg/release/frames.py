"""The frames on which the server itself scores both models."""

from __future__ import annotations

from fleetseg.judging.counts import Row
from fleetseg.judging.measure import Frame, frames_in
from fleetseg.runs.scored_frames import ScoredFrames


def frames_of(scored: ScoredFrames) -> tuple[Frame, ...]:
    """List all frames that a model is scored on, in order."""
    names = [name for name, _, _ in scored.named_frames()]
    frames = [frame for part in scored.sets for frame in frames_in(part.scored, part.name)]
    return tuple(
        Frame(Row(name, frame.row.domain, frame.row.drive), frame.pairs, frame.number)
        for name, frame in zip(names, frames, strict=True)
    )
