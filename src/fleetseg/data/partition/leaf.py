"""Client splits as published: the LEAF-style JSON of FedDrive and LADD.

    {"users": [...], "num_samples": [...], "user_data": {user: {"x": [paths], "y": [paths]}}}

LEAF: Caldas et al. 2018, arXiv 1812.01097. A split may lie in several files of one folder.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from fleetseg.data.sample import Sample
from fleetseg.data.sources.walking import SUFFIXES, is_foreign
from fleetseg.errors import DataError
from fleetseg.files import read_json
from fleetseg.text import composed, listing

Users = dict[str, list[tuple[str, str | None]]]
"""Client -> (path of the image, path of the label or None), as the split names them."""

_FORMAT = '{"users": [...], "num_samples": [...], "user_data": {user: {"x": [...], "y": [...]}}}'
_LISTED = 10
_SAME = {".jpeg": ".jpg", ".tiff": ".tif"}


def read_leaf(path: Path) -> Users:
    """Read a split file, or a folder of files that form one split.

    Labels are None where the split names none (LADD's CrossCity clients have no labels).

    Raises:
        DataError: a missing or malformed file, or a user listed in two files.
    """
    files = sorted(filter(_is_split_file, path.iterdir())) if path.is_dir() else [path]
    if not files:
        raise DataError("no split files (*.json) in this folder", where=path)
    users: Users = {}
    seen_in: dict[str, Path] = {}
    for file in files:
        for user, pairs in _read_file(file).items():
            if user in users:
                raise DataError(
                    f"user '{user}' is listed in two split files",
                    where=file,
                    got=f"also in {seen_in[user].name}",
                    cure="Keep the files of one split in a folder of their own",
                )
            users[user], seen_in[user] = pairs, file
    return users


def leaf_text(users: Users) -> str:
    """Format a split for `read_leaf`, one client per line; labels only if all images have one."""
    rows = []
    for user, pairs in users.items():
        data: dict[str, list[str]] = {"x": [image for image, _ in pairs]}
        labels = [label for _, label in pairs if label is not None]
        if len(labels) == len(pairs):
            data["y"] = labels
        rows.append(f" {json.dumps(user)}: {json.dumps(data)}")
    names, counts = json.dumps(list(users)), json.dumps([len(pairs) for pairs in users.values()])
    body = ",\n".join(rows)
    return f'{{"users": {names},\n"num_samples": {counts},\n"user_data": {{\n{body}}}}}\n'


def _is_split_file(path: Path) -> bool:
    return path.suffix.lower() == ".json" and not is_foreign(path.name) and path.is_file()


def _read_file(path: Path) -> Users:
    try:
        fields: Any = read_json(path)
    except FileNotFoundError:
        raise DataError("split file not found", where=path, cure="Check partition.file") from None
    except ValueError as error:
        raise DataError(f"not JSON ({error})", where=path, expected=_FORMAT) from None
    data = fields.get("user_data") if isinstance(fields, dict) else None
    if not isinstance(data, dict):
        raise DataError("not a LEAF-style split file", where=path, expected=_FORMAT)
    names = fields.get("users", list(data))
    if not isinstance(names, list) or sorted(map(str, names)) != sorted(data):
        raise DataError("users and the keys of user_data differ", where=path, expected=_FORMAT)
    names = [str(name) for name in names]
    if unusable := [name for name in names if not name.strip() or not name.isprintable()]:
        got = repr(unusable[0])
        raise DataError("unusable name of a client", where=path, got=got, expected="printable text")
    if len({composed(name) for name in names}) < len(names):
        raise DataError("two users have the same name in different Unicode forms", where=path)
    users = {user: _pairs(user, data[user], path) for user in names}
    counts = fields.get("num_samples", [len(pairs) for pairs in users.values()])
    # Compare as multisets: LADD's Mapillary split lists counts in another order than its users,
    # and writes a bare number for a single user.
    stated = Counter(map(str, counts if isinstance(counts, list) else [counts]))
    if stated != Counter(str(len(pairs)) for pairs in users.values()):
        raise DataError(
            "num_samples disagrees with user_data",
            where=path,
            cure="Was the file cut or edited? Copy it again",
        )
    return users


def _pairs(user: str, data: Any, path: Path) -> list[tuple[str, str | None]]:
    images: Any = data.get("x") if isinstance(data, dict) else None
    labels: Any = data.get("y") if isinstance(data, dict) else None
    if not _paths(images) or not (labels is None or _paths(labels)):
        raise DataError(f"malformed entry of user '{user}'", where=path, expected=_FORMAT)
    if labels is None:
        return [(image, None) for image in images]
    if len(labels) != len(images):
        raise DataError(
            f"user '{user}' has {len(images)} images and {len(labels)} labels", where=path
        )
    return list(zip(images, labels, strict=True))


def _paths(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) and each for each in value)


def match_samples(
    users: Users, samples: Sequence[Sample], where: Path
) -> dict[str, tuple[int, ...]]:
    """Find the sample of each named image: the sample's path must end in the image's path.

    The Unicode form of names is ignored, and so is whether a suffix is .JPG, .jpg or .jpeg.

    Raises:
        DataError: images match no sample, match several, or are named twice; lists them.
    """
    by_name: dict[str, list[int]] = {}
    for number, sample in enumerate(samples):
        by_name.setdefault(_parts(sample.image)[-1], []).append(number)
    held: dict[str, list[int]] = {user: [] for user in users}
    owner: dict[int, str] = {}
    missing: list[str] = []
    ambiguous: list[str] = []
    shared: list[str] = []
    for user, image in _images(users):
        wanted = _parts(image)
        found = [
            number
            for number in by_name.get(wanted[-1], ())
            if _parts(samples[number].image)[-len(wanted) :] == wanted
        ]
        if len(found) != 1:
            (ambiguous if found else missing).append(image)
        elif owner.setdefault(found[0], user) != user or found[0] in held[user]:
            shared.append(f"{image} ({owner[found[0]]} and {user})")
        else:
            held[user].append(found[0])
    _refuse(missing, "of the split are in no data set", where, "Check root, split and limit")
    _refuse(
        ambiguous, "of the split match several samples", where, "Open only one of the data sets"
    )
    _refuse(shared, "of the split are named twice", where, "Correct the split file")
    return {user: tuple(numbers) for user, numbers in held.items()}


def _images(users: Users) -> Iterator[tuple[str, str]]:
    for user, pairs in users.items():
        for image, _ in pairs:
            yield user, image


def _parts(path: str) -> tuple[str, ...]:
    whole = PurePosixPath(composed(path).replace("\\", "/"))
    suffix = whole.suffix.lower()
    if suffix in SUFFIXES:
        whole = whole.with_suffix(_SAME.get(suffix, suffix))
    return tuple(part for part in whole.parts if part not in ("/", ".")) or (path,)


def _refuse(images: Sequence[str], what: str, where: Path, cure: str) -> None:
    if images:
        listed = listing(images, _LISTED)
        raise DataError(f"{len(images)} images {what}", where=where, got=listed, cure=cure)
