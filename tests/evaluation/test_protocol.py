"""Protocols: back from JSON as they were, and where two of them differ."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest
from tests.records import PROTOCOL

from fleetseg.evaluation.protocol import (
    Difference,
    Protocol,
    ScoredSet,
    differences,
    protocol_lines,
)

OTHER: dict[str, Any] = {
    "size_hw": (192, 128),
    "scored_at": "working resolution",
    "space": "twin",
    "classes": ("car", "road"),
    "critical": (),
    "ignored_id": 0,
    "norms": "batch",
    "by": "city",
    "sets": (ScoredSet("test", 3, "ab" * 32),),
    "seen": None,
    "unseen": ("fog",),
    "rounds": (8, 9),
}
"""For each field, another value."""


@pytest.mark.parametrize("changes", [{}, *({name: value} for name, value in OTHER.items())])
def test_they_come_back_as_they_were(changes: dict[str, Any]) -> None:
    one = replace(PROTOCOL, **changes)
    assert Protocol.from_dict(json.loads(json.dumps(one.to_dict()))) == one


@pytest.mark.parametrize("field", [field.name for field in fields(Protocol)])
def test_a_difference_in_any_field_is_found_and_named(field: str) -> None:
    (found,) = differences(PROTOCOL, replace(PROTOCOL, **{field: OTHER[field]}))
    assert found.field == field
    assert found.one != found.other


def test_what_differs_is_shown_as_each_has_it() -> None:
    told = differences(PROTOCOL, replace(PROTOCOL, norms="batch", rounds=(1, 2, 3)))
    assert told == [
        Difference("norms", "running", "batch"),
        Difference("rounds", "one round", "the mean of 3 rounds"),
    ]


def test_other_rounds_of_the_same_number_are_the_same_protocol() -> None:
    assert differences(PROTOCOL.over((3, 4)), PROTOCOL.over((7, 9))) == []


def test_frames_of_one_name_and_number_are_told_apart_by_their_files() -> None:
    one = replace(PROTOCOL, sets=(ScoredSet("test", 2, "a" * 63 + "b"),))
    other = replace(PROTOCOL, sets=(ScoredSet("test", 2, "a" * 63 + "c"),))
    assert [d.field for d in differences(one, other)] == ["sets"]


def test_a_protocol_in_words() -> None:
    assert protocol_lines(PROTOCOL) == [
        "2 classes of two; images of 96 x 128 pixels, scored at label resolution; pixels with "
        "truth 255 are ignored; norm layers: running",
        "scored on test, 2 frames, files cdcdcdcd",
        "seen in training: day; unseen: rain",
    ]
    unknown = replace(PROTOCOL, sets=(ScoredSet("a", None, ""),), seen=None, unseen=None)
    assert protocol_lines(unknown)[1:] == ["scored on a"]


@pytest.mark.parametrize(
    ("norms", "frames", "images"),
    [
        ("running", (101, 124), 0),
        ("running", (None,), 0),
        ("batch of batches of 8", (101, 124), 225),
        ("tent (online, adam, lr 0.001, steps 1) of batches of 8", (3,), 3),
        ("adapted (N = 16) of batches of 8", (101, None), None),
        ("domain of batches of 8", (), None),
    ],
)
def test_who_looks_at_test_images_says_at_how_many(
    norms: str, frames: tuple[int | None, ...], images: int | None
) -> None:
    sets = tuple(ScoredSet(f"set {number}", n, "") for number, n in enumerate(frames))
    one = replace(PROTOCOL, norms=norms, sets=sets)
    assert one.transductive_images == one.to_dict()["transductive_images"] == images
    said = [line for line in protocol_lines(one) if line.startswith("transductive")]
    number = f"{images} " if images else ""
    told = f"transductive: norm layers looked at the {number}test images, without their labels"
    assert said == ([] if images == 0 else [told])
