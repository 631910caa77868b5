"""Apply a policy to the counts of two models: a list of checks, each with its reason."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from fleetseg.data.labels import LabelSpace
from fleetseg.evaluation.scores import Scores
from fleetseg.judging.calibration import expected_calibration_error
from fleetseg.judging.counts import Measured, Rows
from fleetseg.judging.policy import BootstrapPolicy, Policy
from fleetseg.release.bootstrap import Difference, difference

Verdict = Literal["held", "unsure", "fallen", "not judged"]


@dataclass(frozen=True)
class Check:
    """One figure of both models, and the policy's verdict on it."""

    kind: str  # overall, class, domain, robustness, calibration, latency, least
    name: str
    verdict: Verdict
    reason: str  # one sentence, with the figures
    candidate: float | None = None
    current: float | None = None  # None if there is no current model, or it does not matter
    low: float | None = None  # of candidate minus current
    high: float | None = None
    allowed: float = 0.0  # the allowed fall, or the required minimum
    drawn: str = ""  # the resampling units of the interval: "54 images"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Sides:
    """What is judged: the candidate's counts, and the current model's if there is one."""

    space: LabelSpace
    candidate: Measured
    current: Measured | None
    latency_ms: tuple[float, ...]  # of the candidate, then of the current model
    unit: str = "image"  # what a row is: "image" or "vehicle"


def judge(sides: Sides, policy: Policy) -> tuple[Check, ...]:
    """Return all checks of a policy, in reading order."""
    return tuple([*_least(sides, policy), *_falls(sides, policy), *_costs(sides, policy)])


def enough_vehicles(judged: int, asked: int, policy: Policy) -> Check:
    """Check whether enough of the vehicles that were asked and hold frames out have judged."""
    least, share = policy.vehicles.least, judged / asked
    held = judged >= least and share >= policy.vehicles.least_share
    reason = f"{judged} of {asked} vehicles judged; at least {least} must, "
    reason += f"and {100 * policy.vehicles.least_share:g}% of those that hold out frames"
    verdict: Verdict = "held" if held else "fallen"
    allowed = policy.vehicles.least_share
    return Check("least", "vehicles that judged", verdict, reason, share, allowed=allowed)


def refuses(check: Check, policy: Policy) -> bool:
    """Say whether a check keeps the candidate out of the vehicles."""
    doubted = check.verdict == "unsure" and policy.bootstrap.when_unsure == "refuse"
    return check.verdict == "fallen" or doubted


def _least(sides: Sides, policy: Policy) -> Iterator[Check]:
    """Check the minimums, which do not depend on the current model."""
    if policy.scores.least_miou:
        miou = Scores.of(sides.candidate.clean.total_CC, sides.space).miou
        yield _reached("mIoU", miou, policy.scores.least_miou)
    if policy.scores.least_critical_iou:
        for name, iou in critical_ious(sides).items():
            yield _reached(name, iou, policy.scores.least_critical_iou)


def critical_ious(sides: Sides) -> dict[str, float]:
    """Return the candidate's IoU of each safety-critical class that occurs in the truth."""
    scores = Scores.of(sides.candidate.clean.total_CC, sides.space)
    classes = zip(sides.space.classes, scores.conf_CC.sum(axis=1), scores.iou_C, strict=True)
    critical = sides.space.critical
    return {name: float(iou) for name, true, iou in classes if true and name in critical}


def _reached(name: str, value: float, least: float) -> Check:
    held = value >= least
    reason = f"IoU of {name}" if name != "mIoU" else name
    reason += f" {value:.3f}; the minimum is {least:g}"
    return Check("least", name, "held" if held else "fallen", reason, value, allowed=least)


def _falls(sides: Sides, policy: Policy) -> Iterator[Check]:
    """Check the IoUs that may not fall, each with its interval."""
    if sides.current is None:
        return
    scores = policy.scores
    now, new = sides.current.clean, sides.candidate.clean
    yield _fall("overall", "all frames", now, new, None, scores.overall_max_fall, sides, policy)
    for name in sides.space.critical:
        class_id = sides.space.classes.index(name)
        yield _fall("class", name, now, new, class_id, scores.critical_max_fall, sides, policy)
    if len(new.domains) > 1:
        for name in new.domains:
            parts = now.of_domain(name), new.of_domain(name)
            yield _fall("domain", name, *parts, None, scores.domain_max_fall, sides, policy)
    for kind in policy.robustness.kinds:
        worse = sides.current.worse_of(kind), sides.candidate.worse_of(kind)
        yield _fall("robustness", kind, *worse, None, policy.robustness.max_fall, sides, policy)


def _fall(
    kind: str,
    name: str,
    now: Rows,
    new: Rows,
    class_id: int | None,
    allowed: float,
    sides: Sides,
    policy: Policy,
) -> Check:
    bootstrap = policy.bootstrap
    units, unit = _units(new, sides.unit, bootstrap)
    found = difference(
        now.conf_RCC,
        new.conf_RCC,
        units,
        class_id=class_id,
        confidence=bootstrap.confidence,
        resamples=bootstrap.resamples,
        seed=bootstrap.seed,
    )
    what = {
        "class": f"IoU of {name}",
        "overall": "mIoU over all frames",
        "robustness": f"mIoU in {name}",
    }.get(kind, f"mIoU of {name}")
    if found is None:
        return Check(kind, name, "not judged", f"{what}: no such pixel in the truth")
    drawn = f"{found.units} {unit}" + ("" if found.units == 1 else "s")
    verdict = verdict_of(found, allowed)
    reason = f"{what} {_words(found, bootstrap.confidence, drawn)}; {_allowed_words(allowed)}"
    return Check(
        kind, name, verdict, reason, found.candidate, found.current, found.low, found.high,
        allowed, drawn,
    )  # fmt: skip


def verdict_of(found: Difference, allowed: float) -> Verdict:
    """Classify a difference.

    "fallen": a fall by more than is allowed, and the whole interval is negative; "held": the
    interval excludes a fall by more than is allowed; "unsure": neither, or there is no interval.
    """
    if found.low is None or found.high is None:
        return "fallen" if found.change < -allowed else "unsure"
    if found.change < -allowed and found.high < 0:
        return "fallen"
    return "held" if found.low >= -allowed else "unsure"


def _units(rows: Rows, unit: str, bootstrap: BootstrapPolicy) -> tuple[list[str], str]:
    """Assign each row to a resampling unit, and name the kind of unit."""
    drives = {row.drive for row in rows.rows}
    known = unit == "image" and "" not in drives
    wanted = {"image": False, "drive": len(drives) > 1}.get(
        bootstrap.by, len(drives) >= bootstrap.least_drives
    )
    if known and wanted:
        return [row.drive for row in rows.rows], "drive"
    return [row.name for row in rows.rows], unit


def _words(found: Difference, confidence: float, drawn: str) -> str:
    figures = f"from {found.current:.3f} to {found.candidate:.3f} ({signed(found.change)}; "
    if found.low is None or found.high is None:
        return f"{figures}no interval: {drawn} only)"
    interval = f"{signed(found.low)} to {signed(found.high)}"
    return f"{figures}{100 * confidence:g}%: {interval}, {drawn})"


def signed(value: float, digits: int = 3) -> str:
    """Format a change with its sign; zero is +0.

    >>> signed(0.0314), signed(-0.00001), signed(-3.14, 1)
    ('+0.031', '+0.000', '-3.1')
    """
    return f"{round(value, digits) + 0.0:+.{digits}f}"


def _allowed_words(allowed: float) -> str:
    return f"a fall of {allowed:g} is allowed" if allowed else "no fall is allowed"


def _costs(sides: Sides, policy: Policy) -> Iterator[Check]:
    """Check calibration and latency: figures of all frames and this machine, without intervals."""
    new = expected_calibration_error(sides.candidate.bins_3B)
    if sides.current is not None:
        now, most = expected_calibration_error(sides.current.bins_3B), policy.calibration.max_rise
        verdict: Verdict = "not judged" if math.isnan(new - now) else "held"
        if new - now > most:
            verdict = "fallen"
        reason = (
            f"ECE from {now:.4f} to {new:.4f} ({signed(new - now, 4)}); "
            f"a rise of {most:g} is allowed"
        )
        yield Check("calibration", "ECE", verdict, reason, new, now, allowed=most)
    yield from _latency(sides, policy)


def _latency(sides: Sides, policy: Policy) -> Iterator[Check]:
    new, *rest = sides.latency_ms
    if most := policy.latency.max_ms:
        verdict: Verdict = "fallen" if new > most else "held"
        reason = f"{new:.1f} ms per image; at most {most:g} ms are allowed"
        yield Check("latency", "ms per image at most", verdict, reason, new, allowed=most)
    if rest and (ratio := policy.latency.max_ratio):
        verdict = "fallen" if new > ratio * rest[0] else "held"
        reason = f"from {rest[0]:.1f} to {new:.1f} ms per image, {new / rest[0]:.2f} times"
        reason += f"; at most {ratio:g} times is allowed"
        yield Check("latency", "ms per image", verdict, reason, new, rest[0], allowed=ratio)
