"""What may leave a vehicle that judges a model: sums of counts, written to and read from messages.

For each vehicle of a site: one confusion matrix for each of its domains, one for each corruption
and severity, three sums for each bin of confidence. No image, label map, name or score of a frame
is sent. The message may come from anybody, so reading it raises nothing but UpdateRejected.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fleetseg.errors import UpdateRejected
from fleetseg.federation.checks import MAX_IMAGE_PIXELS, MAX_NAME
from fleetseg.federation.client import Client
from fleetseg.judging.corruptions import SEVERITIES
from fleetseg.judging.counts import ONE, Measured, Row, Rows, by_domain_only
from fleetseg.judging.measure import Looking, frames_in, measure
from fleetseg.judging.policy import Policy

_COUNTS = np.dtype("<i8")
_MAX_VEHICLES = 1_000
_MAX_DOMAINS = 200
_MAX_DOMAIN_NAME = 200  # characters


@dataclass(frozen=True, eq=False)
class VehicleSums:
    """One vehicle's counts of one model, and the number of frames."""

    frames: int
    measured: Measured


def client_sums(client: Client, looking: Looking, policy: Policy) -> Measured:
    """Score a model on a client's held-out frames, and return what may leave the client."""
    own = measure(looking, frames_in(client.test, client.id), policy)
    worse = {way: by_domain_only(rows, client.id) for way, rows in own.worse.items()}
    return Measured(by_domain_only(own.clean, client.id), own.bins_3B, worse)


def same_frames(one: Measured, other: Measured) -> bool:
    """Say whether two models were scored on frames with equal truth: only then do they compare."""
    return set(one.worse) == set(other.worse) and all(
        a.rows == b.rows and bool((a.conf_RCC.sum(axis=2) == b.conf_RCC.sum(axis=2)).all())
        for a, b in [(one.clean, other.clean), *((one.worse[w], other.worse[w]) for w in one.worse)]
    )


def write_sums(by_vehicle: Mapping[str, VehicleSums]) -> tuple[dict[str, Any], bytes]:
    """Write the sums of a site's vehicles: a header, and the counts as bytes."""
    judged, parts = {}, []
    for name, sums in by_vehicle.items():
        measured = sums.measured
        worse = [rows for _, rows in sorted(measured.worse.items())]
        judged[name] = {
            "frames": sums.frames,
            "domains": [row.domain for row in measured.clean.rows],
            "worse": [row.domain for row in worse[0].rows] if worse else [],
        }
        parts += [measured.clean.conf_RCC, measured.bins_3B, *(rows.conf_RCC for rows in worse)]
    return {"judged": judged}, b"".join(part.astype(_COUNTS).tobytes() for part in parts)


def read_sums(
    header: Mapping[str, Any], payload: bytes, policy: Policy, num_classes: int, max_images: int
) -> dict[str, VehicleSums]:
    """Read what `write_sums` wrote, fully validated.

    Raises:
        UpdateRejected: it is not such a message, or no frames can give its counts.
    """
    judged = header.get("judged")
    if not isinstance(judged, dict) or not 0 < len(judged) <= _MAX_VEHICLES:
        raise UpdateRejected("malformed", "no sums of a judge")
    forms = {name: _form(name, fields, max_images) for name, fields in judged.items()}
    ways = [(kind, severity) for kind in policy.robustness.kinds for severity in SEVERITIES]
    square, bins = num_classes**2, 3 * policy.calibration.bins
    sizes = [
        square * (len(clean) + len(ways) * len(worse)) + bins for _, clean, worse in forms.values()
    ]
    if len(payload) != sum(sizes) * _COUNTS.itemsize:
        raise UpdateRejected(
            "malformed", "sums of another size", got=f"{len(payload)} bytes",
            expected=sum(sizes) * _COUNTS.itemsize,
        )  # fmt: skip
    values_V, start, read = np.frombuffer(payload, _COUNTS).astype(np.int64), 0, {}
    for (name, (frames, clean, worse)), size in zip(forms.items(), sizes, strict=True):
        part_V = values_V[start : start + size]
        start += size
        # Before anything is summed: sums below 2^53 are exact, and none can wrap around.
        if (part_V < 0).any() or part_V.astype(np.float64).sum() > (1 << 62):
            raise UpdateRejected("count", "a count is negative or too large")
        measured = _measured(name, part_V, clean, worse, sorted(ways), num_classes, bins)
        _require_counts_of_frames(measured, frames)
        read[name] = VehicleSums(frames, measured)
    return read


def _form(name: str, fields: Any, max_images: int) -> tuple[int, list[str], list[str]]:
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise UpdateRejected("malformed", "a vehicle's name is too long or cannot be printed")
    if not isinstance(fields, dict):
        raise UpdateRejected("malformed", "no sums of a vehicle")
    frames = fields.get("frames")
    if type(frames) is not int or not 0 < frames <= max_images:
        raise UpdateRejected(
            "count", "the number of frames is not in its range", got=repr(frames)[:40],
            expected=f"1..{max_images}",
        )  # fmt: skip
    clean, worse = _domains(fields.get("domains")), _domains(fields.get("worse"))
    if not clean or not set(worse) <= set(clean):
        raise UpdateRejected("malformed", "no domains, or others in bad weather")
    return frames, clean, worse


def _domains(names: Any) -> list[str]:
    if not isinstance(names, list) or len(names) > _MAX_DOMAINS:
        raise UpdateRejected("malformed", "no list of domains")
    texts = [n for n in names if isinstance(n, str) and len(n) <= _MAX_DOMAIN_NAME]
    if len(set(texts)) != len(names) or not all(text.isprintable() for text in texts):
        raise UpdateRejected("malformed", "a domain's name cannot be read, or appears twice")
    return texts


def _measured(
    name: str,
    part_V: npt.NDArray[np.int64],
    clean: list[str],
    worse: list[str],
    ways: list[tuple[str, int]],
    num_classes: int,
    bins: int,
) -> Measured:
    square, at = num_classes**2, 0

    def rows(domains: list[str]) -> Rows:
        nonlocal at
        shape = (len(domains), num_classes, num_classes)
        conf_RCC = part_V[at : at + len(domains) * square].reshape(shape)
        at += len(domains) * square
        return Rows(tuple(Row(name, domain) for domain in domains), conf_RCC)

    own = rows(clean)
    bins_3B = part_V[at : at + bins].reshape(3, -1)
    at += bins
    return Measured(own, bins_3B, {way: rows(worse) for way in ways})


def _require_counts_of_frames(measured: Measured, frames: int) -> None:
    """Refuse counts that no frames can give: pixels without a bin, another truth in fog."""
    clean, (pixels_B, right_B, units_B) = measured.clean, measured.bins_3B
    total = int(clean.conf_RCC.sum())
    if not 0 < total <= frames * MAX_IMAGE_PIXELS:
        raise UpdateRejected("count", "no pixel, or more than so many frames can have")
    right = int(np.trace(clean.total_CC))
    if int(pixels_B.sum()) != total or int(right_B.sum()) != right:
        raise UpdateRejected("count", "bins of confidence do not add up to the pixels")
    if (right_B > pixels_B).any() or (units_B > pixels_B * ONE).any():
        raise UpdateRejected("count", "a bin has more than its pixels")
    truth_DC = clean.conf_RCC.sum(axis=2)
    place = {row.domain: number for number, row in enumerate(clean.rows)}
    first = next(iter(measured.worse.values()), None)
    for rows in measured.worse.values():
        assert first is not None
        own_DC = rows.conf_RCC.sum(axis=2)
        whole_DC = truth_DC[[place[row.domain] for row in rows.rows]]
        if not (own_DC == first.conf_RCC.sum(axis=2)).all() or (own_DC > whole_DC).any():
            raise UpdateRejected("count", "frames made worse have another truth")
