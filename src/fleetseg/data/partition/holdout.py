"""Hold out the end of each of a client's drives, with a gap before it.

Neighbouring frames of a drive are near-duplicates. Held-out frames are therefore contiguous within
a drive, and no client trains on a frame within `gap` frames of a held-out one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fleetseg.config import PartitionConfig
from fleetseg.data.partition.manifest import Drive, Manifest, drive_of, is_manifest
from fleetseg.data.sample import Sample
from fleetseg.text import composed


@dataclass(frozen=True)
class Split:
    """Sample numbers of one client: for training, for scoring, and in the gap between."""

    train: tuple[int, ...]
    test: tuple[int, ...] = ()
    gap: tuple[int, ...] = ()


def hold_out(
    held: Mapping[str, Sequence[int]], samples: Sequence[Sample], config: PartitionConfig
) -> dict[str, Split]:
    """Split every client's samples: a share `config.holdout` of each of its drives is for scoring.

    A client with two or more samples holds out at least one and trains on at least one. If the
    partition comes from a manifest that lists held-out samples, the manifest decides instead.

    Args:
        held: client -> numbers of its samples, in order of drive and frame.
        samples: all samples, by number.
        config: the share, the gap, and the manifest if the partition comes from one.
    """
    if config.kind == "file" and is_manifest(path := Path(config.file)):
        manifest = Manifest.read(path)
        if manifest.held_out:
            return {client: _as_listed(client, held[client], samples, manifest) for client in held}
    tests = {client: _ends(held[client], samples, config.holdout) for client in held}
    beside = _beside({n for test in tests.values() for n in test}, samples, config.holdout_gap)
    return {client: _split(held[client], tests[client], beside) for client in held}


def _as_listed(
    client: str, numbers: Sequence[int], samples: Sequence[Sample], manifest: Manifest
) -> Split:
    test_ids = {composed(entry.id) for entry in manifest.held_out.get(client, ())}
    train = tuple(n for n in numbers if samples[n].id not in test_ids)
    return Split(train, tuple(n for n in numbers if samples[n].id in test_ids))


def _ends(numbers: Sequence[int], samples: Sequence[Sample], share: float) -> tuple[int, ...]:
    """Take the last frames of each drive; rounding errors carry over from drive to drive."""
    if share <= 0 or len(numbers) < 2:
        return ()
    wanted = min(max(1, round(share * len(numbers))), len(numbers) - 1)
    drives: dict[Drive, list[int]] = {}
    for number in numbers:
        drives.setdefault(drive_of(samples[number]), []).append(number)
    test: list[int] = []
    passed = 0
    for frames in drives.values():
        passed += len(frames)
        count = (2 * wanted * passed + len(numbers)) // (2 * len(numbers)) - len(test)
        test += frames[len(frames) - count :]
    return tuple(test)


def _beside(test: set[int], samples: Sequence[Sample], gap: int) -> set[int]:
    """Return the samples within `gap` places of a held-out one, counted along the whole drive."""
    if not test or gap == 0:
        return set()
    drives: dict[Drive, list[int]] = {}
    for number in sorted(range(len(samples)), key=lambda n: (samples[n].frame, samples[n].id)):
        drives.setdefault(drive_of(samples[number]), []).append(number)
    return {
        near
        for frames in drives.values()
        for place, number in enumerate(frames)
        if number in test
        for near in frames[max(0, place - gap) : place + gap + 1]
    }


def _split(numbers: Sequence[int], test: tuple[int, ...], beside: set[int]) -> Split:
    held_out = set(test)
    left = [n for n in numbers if n not in held_out]
    train = [n for n in left if n not in beside] or left[:1]
    trained = set(train)
    return Split(tuple(train), test, tuple(n for n in left if n not in trained))
