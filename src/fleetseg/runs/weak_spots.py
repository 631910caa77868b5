"""Where a model is known to be weak, by rules on its scores: each sentence is true of them."""

from __future__ import annotations

from fleetseg.evaluation.protocol import Protocol
from fleetseg.evaluation.scored import Scored
from fleetseg.evaluation.scores import Scores
from fleetseg.text import listing

FOUND = 0.5
"""Share of a class's true pixels found, below which the class counts as missed."""
GAP = 0.05
"""mIoU deficit from which a domain, a side or a vehicle is named."""
FEW_FRAMES = 50


def weak_spots(scored: Scored | None) -> list[str]:
    """Say in one sentence each where the scores show a model to be weak, the worst first."""
    if scored is None or scored.overall is None:
        return ["Its quality is not known: it was not scored."]
    overall, spots = scored.overall, []
    spots += _missed(overall)
    spots += _sides(scored)
    spots += _worst("domain", {n: s for n, s in scored.by_domain.items()}, overall)
    spots += _worst("vehicle", {n: s for n, s in scored.by_client.items()}, overall)
    spots += _unknown(overall)
    return spots + ([] if scored.protocol is None else _scored_on(scored.protocol))


def _missed(scores: Scores) -> list[str]:
    """Name classes of which fewer than half the true pixels are found, critical ones separately."""
    named = list(zip(scores.space.classes, scores.accuracy_C.tolist(), strict=True))
    missed = sorted(((share, name) for name, share in named if share < FOUND), key=lambda m: m[0])
    spots = []
    for what, is_critical in (("safety-critical classes", True), ("classes", False)):
        some = [
            f"{name} ({100 * share:.0f} %)"
            for share, name in missed
            if (name in scores.space.critical) == is_critical
        ]
        if some:
            spots.append(
                f"It misses more than half of the pixels of these {what}; what it finds: "
                f"{', '.join(some)}."
            )
    return spots


def _sides(scored: Scored) -> list[str]:
    sides = scored.by_side
    if len(sides) < 2 or not sides["seen"].miou - sides["unseen"].miou >= GAP:
        return []
    return [
        f"It is worse on domains that it was not trained on: mIoU {sides['unseen'].miou:.3f}, "
        f"{sides['seen'].miou:.3f} on those it was trained on."
    ]


def _worst(kind: str, parts: dict[str, Scores], overall: Scores) -> list[str]:
    rated = {name: scores.miou for name, scores in parts.items() if scores.miou == scores.miou}
    if len(rated) < 2:
        return []
    name = min(rated, key=lambda one: rated[one])
    best = max(rated.values())
    if not best - rated[name] >= GAP:
        return []
    return [
        f"Its worst {kind} is {name}: mIoU {rated[name]:.3f}, where the best has {best:.3f} "
        f"(all images: {overall.miou:.3f})."
    ]


def _unknown(scores: Scores) -> list[str]:
    true = scores.conf_CC.sum(axis=1)
    absent = [name for name, n in zip(scores.space.classes, true, strict=True) if n == 0]
    if not absent:
        return []
    return [f"How well it finds {listing(absent, 8)} is not known: no scored image shows any."]


def _scored_on(protocol: Protocol) -> list[str]:
    spots = []
    frames = [one.frames for one in protocol.sets]
    if frames and all(number is not None for number in frames):
        total = sum(number or 0 for number in frames)
        if total < FEW_FRAMES:
            spots.append(f"Its scores are of {total} images only.")
    if protocol.seen and not protocol.unseen:
        spots.append(
            "It was trained on all domains that it was scored on: on other roads it may be worse."
        )
    return spots
