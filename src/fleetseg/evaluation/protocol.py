"""The protocol of a score: what two figures must have in common to be comparable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

LABEL_RESOLUTION = "label resolution"
_INDUCTIVE = ("running", "banks")
"""Norms that use no test image except the current one: possible first words of `norms`."""


@dataclass(frozen=True)
class ScoredSet:
    """A set of scored frames: its name, their number, and their digest."""

    name: str
    frames: int | None  # None = unknown: they are on other machines
    digest: str  # SHA-256 over those of the files, in any order; "" = unknown

    def __str__(self) -> str:
        """Describe the set in one line."""
        number = "" if self.frames is None else f", {self.frames:,} frames"
        return f"{self.name}{number}" + (f", files {self.digest[:8]}" if self.digest else "")


@dataclass(frozen=True)
class Protocol:
    """How a score was computed. Figures of different protocols are different quantities."""

    size_hw: tuple[int, int]  # of the images that the network saw, pixels
    scored_at: str  # where predictions and truth are compared
    space: str  # name of the label space
    classes: tuple[str, ...]
    critical: tuple[str, ...]  # classes of the critical mIoU
    ignored_id: int  # pixels with this id in the truth are not counted
    norms: str  # statistics that norm layers use: "running" = those of training
    by: str  # what the domains of the scores are
    sets: tuple[ScoredSet, ...]
    seen: tuple[str, ...] | None  # domains of the sets that were trained on; None = unknown
    unseen: tuple[str, ...] | None
    rounds: tuple[int, ...]  # rounds of the scored models: one, or the last N for their mean

    @property
    def transductive_images(self) -> int | None:
        """Number of unlabelled test images that norm layers used; None = unknown number.

        If there are any, scores are transductive: they depend on which other images are scored.
        """
        if is_inductive(self.norms):
            return 0
        frames = [one.frames for one in self.sets]
        return sum(number or 0 for number in frames) if frames and all(frames) else None

    def over(self, rounds: tuple[int, ...]) -> Protocol:
        """Return the protocol of a mean over the models of several rounds."""
        return replace(self, rounds=rounds)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        plain = {field.name: _plain(getattr(self, field.name)) for field in fields(self)}
        plain["sets"] = [[s.name, s.frames, s.digest] for s in self.sets]
        plain["transductive_images"] = self.transductive_images  # follows from the others
        return plain

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Protocol:
        """Read what `to_dict` wrote.

        Raises:
            KeyError, TypeError, ValueError: `given` is not a protocol.
        """
        values = {field.name: _frozen(given[field.name]) for field in fields(cls)}
        values["sets"] = tuple(ScoredSet(*one) for one in given["sets"])
        return cls(**values)


@dataclass(frozen=True)
class Difference:
    """A field in which two protocols differ, with both values."""

    field: str
    one: str
    other: str


def differences(one: Protocol, other: Protocol) -> list[Difference]:
    """Return the fields in which two protocols differ.

    Only the number of rounds is compared: methods need not be scored in the same rounds.
    """
    return [
        Difference(field.name, mine, theirs)
        for field in fields(Protocol)
        if (mine := shown(one, field.name)) != (theirs := shown(other, field.name))
    ]


def protocol_lines(protocol: Protocol) -> list[str]:
    """Describe a protocol in words, for the text below a table."""
    height, width = protocol.size_hw
    lines = [
        f"{len(protocol.classes)} classes of {protocol.space}; images of {height} x {width} "
        f"pixels, scored at {protocol.scored_at}; pixels with truth "
        f"{protocol.ignored_id} are ignored; norm layers: {protocol.norms}",
        "scored on " + "; ".join(str(one) for one in protocol.sets),
    ]
    if (looked_at := protocol.transductive_images) != 0:
        lines.append(transductive_words(looked_at))
    if protocol.seen and protocol.unseen:
        lines.append(
            f"seen in training: {', '.join(protocol.seen)}; unseen: {', '.join(protocol.unseen)}"
        )
    return lines


def is_inductive(norms: str) -> bool:
    """Return whether a protocol's `norms` use no test image except the current one."""
    return norms.split(" ", 1)[0] in _INDUCTIVE


def transductive_words(images: int | None) -> str:
    """Describe transductive scores in words.

    >>> transductive_words(101)
    'transductive: norm layers looked at the 101 test images, without their labels'
    """
    number = "" if images is None else f"{images:,} "
    return f"transductive: norm layers looked at the {number}test images, without their labels"


def shown(protocol: Protocol, field: str) -> str:
    """Format a field's value for people; two values with the same text count as equal."""
    value = getattr(protocol, field)
    if field == "rounds":
        return "one round" if len(value) == 1 else f"the mean of {len(value)} rounds"
    if field == "sets":
        return "; ".join(f"{one.name} ({one.frames} frames, files {one.digest})" for one in value)
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
