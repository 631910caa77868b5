"""The manifest, a record of which client held which sample, with hashes; and the leak search."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

from fleetseg.data.sample import Sample
from fleetseg.errors import DataError, LeakError
from fleetseg.files import read_json, write_atomic
from fleetseg.text import composed

FORMAT_VERSION = 1


@dataclass(frozen=True, order=True)
class Entry:
    """One sample: its id and the SHA-256 of its image and label ("" for no label)."""

    id: str
    image_sha256: str
    label_sha256: str


Side = Mapping[str, tuple[Entry, ...]]
Drive = tuple[str, str, str]  # data set, city, sequence
_Owner = tuple[str, str]  # name of the side, name of the client or evaluation set
_SIDES = {"clients": "client", "held_out": "the held-out set of", "evaluation": "evaluation set"}
_SUBSETS = "label_subsets"
_NAMES = ("left_out", "unlabelled")
_SHA256 = re.compile(r"[0-9a-f]{64}|")


@dataclass(frozen=True)
class Manifest:
    """Training samples and held-out samples per client, and the server's evaluation sets."""

    clients: Side
    held_out: Side = field(default_factory=dict)
    evaluation: Side = field(default_factory=dict)
    # Client -> names of the classes that its training labels keep; other clients keep all.
    label_subsets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()  # clients excluded by federation.only and exclude
    unlabelled: tuple[str, ...] = ()  # clients whose labels are read only to score them

    @property
    def digest(self) -> str:
        """SHA-256 of the content; equal manifests have the same digest."""
        return hashlib.sha256(self._content().encode()).hexdigest()

    def taking_part(self) -> Manifest:
        """Return the manifest without the clients that are left out."""
        gone = set(self.left_out)
        clients = {owner: rows for owner, rows in self.clients.items() if owner not in gone}
        held_out = {owner: rows for owner, rows in self.held_out.items() if owner not in gone}
        return Manifest(clients, held_out, self.evaluation)

    def write(self, path: Path) -> None:
        """Write the manifest as JSON that people can read and `diff` can compare line by line."""
        body = self._content()
        write_atomic(path, f'{{"version": {FORMAT_VERSION}, "sha256": "{self.digest}",\n{body[1:]}')

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read a manifest.

        Raises:
            DataError: it is missing or malformed, or its digest does not match its content.
        """
        try:
            fields: Any = read_json(path)
        except FileNotFoundError:
            raise DataError("manifest not found", where=path) from None
        except ValueError as error:
            raise DataError(f"not a manifest: not JSON ({error})", where=path) from None
        keys = set(fields) - {_SUBSETS, *_NAMES} if isinstance(fields, dict) else set()
        if keys != {"version", "sha256", *_SIDES}:
            got = sorted(fields) if isinstance(fields, dict) else type(fields).__name__
            expected = ", ".join(("version", "sha256", *_SIDES))
            raise DataError(
                "not a manifest: unexpected or missing keys", where=path, got=got, expected=expected
            )
        if fields["version"] != FORMAT_VERSION:
            raise DataError(
                "unsupported manifest version",
                where=path,
                got=repr(fields["version"]),
                expected=FORMAT_VERSION,
                cure="Read it with the fleetseg that wrote it, or start the run again",
            )
        sides = {name: _side(fields[name], f"{path}: {name}") for name in _SIDES}
        subsets = _subsets(fields.get(_SUBSETS, {}), f"{path}: {_SUBSETS}")
        left_out, unlabelled = (_names(fields.get(n, []), f"{path}: {n}") for n in _NAMES)
        manifest = cls(**sides, label_subsets=subsets, left_out=left_out, unlabelled=unlabelled)
        if manifest.digest != fields["sha256"]:
            raise DataError(
                "the manifest was changed after it was written: its digest differs",
                where=path,
                got=manifest.digest,
                expected=fields["sha256"],
                cure="Put the original back, or start the run again",
            )
        return manifest

    def _content(self) -> str:
        sides = {"clients": self.clients, "held_out": self.held_out, "evaluation": self.evaluation}
        blocks = [f'"{name}": {_lines(side)}' for name, side in sides.items()]
        if self.label_subsets:
            rows = [
                f" {json.dumps(client)}: {json.dumps(self.label_subsets[client])}"
                for client in sorted(self.label_subsets)
            ]
            blocks.append(f'"{_SUBSETS}": {{\n' + ",\n".join(rows) + "}")
        named = {name: getattr(self, name) for name in _NAMES}
        blocks += [f'"{name}": {json.dumps(names)}' for name, names in named.items() if names]
        return "{" + ",\n".join(blocks) + "}\n"


def _lines(side: Side) -> str:
    owners = []
    for owner in sorted(side):
        rows = ",\n  ".join(json.dumps(astuple(entry)) for entry in side[owner])
        owners.append(f" {json.dumps(owner)}: [\n  {rows}]")
    return "{\n" + ",\n".join(owners) + "}"


def _side(fields: Any, where: str) -> Side:
    if not isinstance(fields, dict):
        raise DataError(
            "not a table of owners and their samples", where=where, got=type(fields).__name__
        )
    return {owner: _entries(rows, f"{where}.{owner}") for owner, rows in fields.items()}


def _subsets(fields: Any, where: str) -> dict[str, tuple[str, ...]]:
    rows = fields.values() if isinstance(fields, dict) else [None]
    if not all(isinstance(row, list) and all(isinstance(c, str) for c in row) for row in rows):
        raise DataError(
            "not a table of clients and their classes", where=where, got=json.dumps(fields)[:200]
        )
    return {client: tuple(row) for client, row in fields.items()}


def _names(fields: Any, where: str) -> tuple[str, ...]:
    if not isinstance(fields, list) or not all(isinstance(name, str) for name in fields):
        raise DataError("not a list of names", where=where, got=type(fields).__name__)
    return tuple(fields)


def _entries(rows: Any, where: str) -> tuple[Entry, ...]:
    if not isinstance(rows, list):
        raise DataError("not a list of samples", where=where, got=type(rows).__name__)
    for row in rows:
        strings = isinstance(row, list) and len(row) == 3 and all(isinstance(v, str) for v in row)
        if not strings or not all(_SHA256.fullmatch(v) for v in row[1:]):
            raise DataError(
                "not a sample",
                where=where,
                got=json.dumps(row)[:200],
                expected='["id", "SHA-256 of the image", "SHA-256 of the label or nothing"]',
            )
    return tuple(Entry(*row) for row in rows)


def find_leaks(manifest: Manifest) -> list[str]:
    """List every sample that is on two sides, by its id or by the content of its image.

    No client may train on a sample that anyone is scored on, and no sample may belong to two
    clients. Two clients may have equal images (see `repeated_images`), and sets used only for
    scoring may overlap.
    """
    holders_of: dict[str, dict[_Owner, str]] = {}  # id or image -> owner -> its id there
    leaks: list[str] = []
    for owner, entry in _owned(manifest):
        keys = {"id": composed(entry.id), "image": entry.image_sha256}
        found: str | None = None
        for kind, key in keys.items():
            if not key:  # an unreadable file has no digest
                continue
            holders = holders_of.setdefault(f"{kind} {key}", {})
            for other, other_id in holders.items():
                if found is None and _clash(owner, other, kind):
                    where = f"in {_SIDES[other[0]]} {other[1]} and {_SIDES[owner[0]]} {owner[1]}"
                    twin = "" if kind == "id" else f", where the same image is {other_id}"
                    found = f"{entry.id} is {where}{twin}"
            holders.setdefault(owner, entry.id)
        if found is not None:
            leaks.append(found)
    return leaks


def _clash(owner: _Owner, other: _Owner, kind: str) -> bool:
    if owner == other:
        return False
    sides = {owner[0], other[0]}
    trained_and_scored = "clients" in sides and len(sides) == 2
    return trained_and_scored or (kind == "id" and sides in ({"clients"}, {"held_out"}))


def repeated_images(manifest: Manifest) -> list[str]:
    """Note how many byte-identical images the clients train on more than once; this is legal."""
    holders_of: dict[str, list[tuple[str, str]]] = {}  # image -> (client, id of the sample)
    for client in sorted(manifest.clients):
        for entry in manifest.clients[client]:
            if entry.image_sha256:
                holders_of.setdefault(entry.image_sha256, []).append((client, entry.id))
    notes = []
    within = [each for each in holders_of.values() if len(each) > len({c for c, _ in each})]
    between = [each for each in holders_of.values() if len({c for c, _ in each}) > 1]
    for found, where in ((within, "one vehicle has more than once"), (between, "vehicles share")):
        if found:
            example = " and ".join(f"{name} ({client})" for client, name in found[0][:2])
            what = "1 image" if len(found) == 1 else f"{len(found)} images"
            notes.append(f"{what} that {where}, byte for byte: {example}")
    return notes


def is_manifest(path: Path) -> bool:
    """Return whether a file looks like a manifest, not like another kind of split file."""
    if not path.is_file():
        return False
    with open(path, encoding="utf-8", errors="replace") as file:
        return '"sha256"' in file.read(200)


def match_manifest(
    manifest: Manifest, samples: Sequence[Sample], where: Path
) -> dict[str, tuple[int, ...]]:
    """Return client -> numbers of its samples, including held-out ones.

    A vehicle has only its own samples, so clients without any sample here are omitted.

    Raises:
        DataError: only some of a client's samples are here, or no sample of the manifest is.
    """
    number_of = {composed(sample.id): number for number, sample in enumerate(samples)}
    held = {}
    for client, entries in manifest.clients.items():
        ids = [composed(entry.id) for entry in (*entries, *manifest.held_out.get(client, ()))]
        here = [number_of[name] for name in ids if name in number_of]
        if here and len(here) < len(ids):
            missing = [name for name in ids if name not in number_of]
            raise DataError(
                f"samples of '{client}' are missing from the data",
                where=where,
                got=", ".join(missing[:5]),
                cure="Give the vehicle all the images that the manifest lists for it",
            )
        if here:
            held[client] = tuple(here)
    if not held:
        raise DataError("no sample of this manifest is in the data", where=where)
    return held


def require_no_leaks(manifest: Manifest) -> None:
    """Refuse a manifest in which a sample is on two sides.

    Raises:
        LeakError: with the number of leaks and the first ten.
    """
    leaks = find_leaks(manifest)
    if leaks:
        raise LeakError(
            f"{len(leaks)} samples are on two sides of the split:\n  " + "\n  ".join(leaks[:10]),
            cure="Remove the duplicates from data.sources or data.evaluation",
        )


def shared_drives(train: Sequence[Sample], test: Sequence[Sample], apart: int = 0) -> list[str]:
    """Warn of drives on both sides: legal, but scores on their frames are optimistic.

    `apart` is the number of unused frames between the two sides.
    """
    trained = {drive_of(sample) for sample in train}
    both = Counter(drive_of(sample) for sample in test if sample.sequence)
    shared = {drive: frames for drive, frames in sorted(both.items()) if drive in trained}
    gap = f", {apart} frame{'s' * (apart != 1)} apart" if apart else ""
    if len(shared) > _NAMED:
        return [
            f"{len(shared)} drives are in training and in evaluation{gap} "
            f"({sum(shared.values())} frames): scores on them are optimistic"
        ]
    return [
        f"drive {sequence} of {dataset} is in training and in evaluation{gap} ({frames} frames): "
        "scores on it are optimistic"
        for (dataset, _, sequence), frames in shared.items()
    ]


_NAMED = 5  # most drives that are listed by name


def drive_of(sample: Sample) -> Drive:
    """Return what identifies a sample's drive; the last part is empty if the drive is unknown."""
    return sample.dataset, sample.city, sample.sequence


def _owned(manifest: Manifest) -> Iterator[tuple[_Owner, Entry]]:
    for name in _SIDES:
        side: Side = getattr(manifest, name)
        for owner in sorted(side):
            yield from (((name, owner), entry) for entry in side[owner])
