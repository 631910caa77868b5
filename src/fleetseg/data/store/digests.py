"""SHA-256 of samples, remembered by the `stat` data of their files, as in git's index."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path

from fleetseg.data.sample import Sample, Source
from fleetseg.errors import BadSample
from fleetseg.files import write_atomic

RACY_NS = 2_000_000_000
"""A file changed this shortly before it was hashed may change again within one clock tick of the
file system (2 s on FAT) undetected, so its digest is not remembered (git's "racily clean")."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


def sample_digests(source: Source, memo_path: Path) -> tuple[tuple[str, str], ...]:
    """Return digests (image, label) of a source's samples, reading only files not seen before.

    A sample whose files cannot be read gets ("", ""); reading the sample reports the error.
    """
    memo = _read(memo_path)
    fresh: dict[str, str] = {}
    digests = tuple(_digest(source, sample, memo, fresh) for sample in source.samples)
    if fresh:
        # Another process may have added entries since; for entries after that, the last wins.
        write_atomic(memo_path, json.dumps({**_read(memo_path), **fresh}))
    return digests


def known_digests(source: Source, memo_path: Path) -> tuple[tuple[str, str], ...] | None:
    """Return the result of `sample_digests` if that needs no file to be read, else None."""
    memo = _read(memo_path)
    for sample in source.samples:
        found = _keys(sample)
        if found is not None and not all(key in memo for key in found[0]):
            return None
    return tuple(_digest(source, sample, memo, {}) for sample in source.samples)


def _digest(
    source: Source, sample: Sample, memo: dict[str, str], fresh: dict[str, str]
) -> tuple[str, str]:
    now_ns = time.time_ns()  # taken before reading: a later change may go undetected
    found = _keys(sample)
    try:
        if found is None:  # a recipe or a missing file: cheap, or reported by the source
            return source.digest(sample)
        keys, changed_ns = found
        if all(key in memo for key in keys):
            return memo[keys[0]], memo[keys[1]] if len(keys) > 1 else ""
        digest = source.digest(sample)
    except (BadSample, FileNotFoundError):
        return "", ""
    if now_ns - changed_ns > RACY_NS:
        fresh.update(zip(keys, digest, strict=False))
    return digest


def _keys(sample: Sample) -> tuple[Sequence[str], int] | None:
    """Return the memo keys of image and label, and the time of the latest change to either.

    A key includes the sample's id, since a source may keep many samples in one file, and the time
    of the last status change, which copying tools cannot set, unlike the modification time.
    """
    paths = [sample.image] if sample.label is None else [sample.image, sample.label]
    keys, changed_ns = [], 0
    for path in paths:
        try:
            facts = os.stat(path)
        except (OSError, ValueError):
            return None
        seen = (os.path.abspath(path), facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
        keys.append("|".join(map(str, (sample.id, *seen))))
        changed_ns = max(changed_ns, facts.st_mtime_ns, facts.st_ctime_ns)
    return keys, changed_ns


def forget_stale(memo_path: Path, *, dry_run: bool = False) -> int:
    """Forget digests of files that are gone or have changed; return their number."""
    memo = _read(memo_path)
    fresh = {key: digest for key, digest in memo.items() if not _is_stale(key)}
    if len(fresh) < len(memo) and not dry_run:
        write_atomic(memo_path, json.dumps(fresh))
    return len(memo) - len(fresh)


def _is_stale(key: str) -> bool:
    known, *seen = key.rsplit("|", 3)
    # An id or a path may contain a bar too.
    for path in (known[bar.end() :] for bar in re.finditer(r"\|(?=/)", known)):
        try:
            facts = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError):  # cannot be determined now
            return False
        now = [str(n) for n in (facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)]
        if now == seen:
            return False
    return True


def _read(path: Path) -> dict[str, str]:
    try:
        memo = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(memo, dict):
        return {}
    return {k: v for k, v in memo.items() if isinstance(v, str) and _SHA256.fullmatch(v)}
