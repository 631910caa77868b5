"""Check whether scores were taken in the same way, and report where they were not."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from fleetseg.errors import ConfigError
from fleetseg.evaluation.protocol import Protocol, differences, shown
from fleetseg.evaluation.scored import Scored
from fleetseg.text import listing

MAY_DIFFER = ("size_hw", "norms", "seen", "unseen")
"""Protocol fields that a method or a scenario may vary; all others must agree for a comparison."""
_CURES = {
    "sets": "Score both models on the same frames: fleetseg evaluate RUN --experiment FILE",
    "by": "Score both by the same: evaluation.by",
}
_CURE = "Compare them apart"
_SHOWN = 3  # differences in one message


def common_protocol(
    scored: Mapping[Path, Sequence[Scored]], despite: Collection[str] = ()
) -> tuple[Protocol | None, list[str]]:
    """Find the protocol common to all scores of some run folders; None if there are no scores.

    Returns the protocol and a note on each of the fields `despite` that differ.

    Raises:
        ConfigError: protocols differ (says in which runs and fields), or a score has no protocol.
    """
    _require_allowed(despite)
    named = [(path, _protocol(path, one)) for path, ones in scored.items() for one in ones]
    if not named:
        return None, []
    first, reference = named[0]
    refused: dict[str, None] = {}
    allowed: dict[str, dict[str, dict[str, None]]] = {}  # field -> value -> runs
    for path, protocol in named[1:]:
        for found in differences(reference, protocol):
            told = f"{found.field} is {found.other} in {path}, and {found.one} in {first}"
            if found.field in despite:
                allowed.setdefault(found.field, {}).setdefault(found.other, {})[path.name] = None
            else:
                refused[told] = None
    if refused:
        raise _refusal(list(refused))
    _require_same_frames_of_clients(scored)
    notes = [_note(field, of, reference) for field, of in allowed.items()]
    return reference, [*notes, *_other_norms_of_clients(scored, despite)]


def _note(field: str, others: Mapping[str, Collection[str]], reference: Protocol) -> str:
    told = [f"{value} in {listing(list(runs))}" for value, runs in others.items()]
    return f"{field} differs: {'; '.join(told)}; {shown(reference, field)} in the others"


def _require_allowed(despite: Collection[str]) -> None:
    for field in despite:
        if field not in MAY_DIFFER:
            raise ConfigError(
                f"scores that differ in '{field}' never compare",
                expected=f"one of: {', '.join(MAY_DIFFER)}",
            )


def _protocol(path: Path, scored: Scored) -> Protocol:
    if scored.protocol is None:
        raise ConfigError(
            "its scores do not say how they were taken: an earlier version of fleetseg made them",
            where=path,
            cure="Run it again",
        )
    return scored.protocol


def _refusal(told: Sequence[str]) -> ConfigError:
    field = told[0].partition(" ")[0]
    more = f" (and {len(told) - _SHOWN} more)" if len(told) > _SHOWN else ""
    cure = _CURES.get(field, _CURE)
    if field in MAY_DIFFER:
        cure = f"{cure}, or say that you mean it: --despite {field}"
    return ConfigError("these scores do not compare: " + "; ".join(told[:_SHOWN]) + more, cure=cure)


def _require_same_frames_of_clients(scored: Mapping[Path, Sequence[Scored]]) -> None:
    """Refuse to compare scores on training frames with scores on held-out frames."""
    frames = {one.clients_on: path for path, ones in scored.items() for one in ones}
    frames.pop("", None)
    if len(frames) > 1:
        (on, path), (other_on, other) = list(frames.items())[:2]
        raise ConfigError(
            f"these scores do not compare: vehicles are scored on {on} in {path}, and on "
            f"{other_on} in {other}",
            cure=_CURE,
        )


def _other_norms_of_clients(
    scored: Mapping[Path, Sequence[Scored]], despite: Collection[str]
) -> list[str]:
    """Compare norm statistics on vehicles' own frames, which may differ from the server's."""
    norms = {
        one.clients_norms: path for path, ones in scored.items() for one in ones if one.clients_on
    }
    if len(norms) < 2:
        return []
    told = "; ".join(f"{name} in {path}" for name, path in norms.items())
    if "norms" not in despite:
        raise _refusal([f"norms on vehicles' own frames are {told}"])
    return [f"norms on vehicles' own frames differ: {told}"]
