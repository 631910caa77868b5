"""Oort: prefer clients whose data is still useful to the model and that answer in time.

Lai, Zhu, Madhyastha, Chowdhury, OSDI 2021, arXiv 2010.06081, Algorithm 1. A client that has taken
part has the utility n |loss|, with n its images; the paper's is n sqrt(mean of its samples' squared
losses), but losses of single samples do not leave a client here. Utilities are clipped and scaled
to 0..1, raised by sqrt(0.1 ln R / L) in round R for a client last used in round L, and multiplied
by (T / t)^alpha for a client that takes t > T. Most of the cohort is drawn by utility from the
clients near the top; the rest, a share that shrinks from round to round, from clients that have
never taken part.

T is a quantile of the clients' times, if these are known: simulated times are; real ones would make
results irreproducible. T grows while the utility of the updates used falls.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from fleetseg.config import OortConfig
from fleetseg.federation.back_off import remember_missed, without_resting
from fleetseg.federation.known import Known, Memory, Outcome

_LOSS, _LAST, _UTILITY, _PACE = "loss", "last", "utility", "pace"
_FLEET = ""  # the key in tables that are not by client
_LEAST_CHANCE = 1e-6  # of a client whose score is zero: each needs some to be drawn


def oort(known: Known, count: int, generator: np.random.Generator) -> Sequence[str]:
    """Draw by utility and explore, among clients that are not resting."""
    known = without_resting(known, count)
    settings = known.settings.oort
    losses = known.memory.get(_LOSS, {})
    tried = [name for name in known.enrolled if name in losses]
    untried = [name for name in known.enrolled if name not in losses]
    number = num_exploited(count, known.round, len(tried), len(untried), settings)
    seconds = known.seconds()
    scores = _scores(known, tried, seconds)
    exploited = _draw(_pool(scores, number, settings.cut_off), number, generator)
    # Draw untried clients by speed, if that is known.
    speeds = {name: 1 / max(seconds[name], 1e-6) if seconds else 1.0 for name in untried}
    return [*exploited, *_draw(speeds, count - number, generator)]


def exploration(round_: int, settings: OortConfig) -> float:
    """Return the share of a round's cohort that is for exploration.

    >>> [round(exploration(r, OortConfig()), 4) for r in (1, 2, 3, 500)]
    [0.9, 0.882, 0.8644, 0.2]
    """
    return max(settings.explore * settings.explore_decay ** (round_ - 1), settings.explore_least)


def num_exploited(count: int, round_: int, tried: int, untried: int, settings: OortConfig) -> int:
    """Return how many of a cohort have taken part before: as planned, or as many as there are."""
    wished = int((1 - exploration(round_, settings)) * count + 1e-9)
    return min(tried, max(wished, count - untried))


def remember_utilities(memory: Memory, outcome: Outcome) -> Memory:
    """Note losses, when clients were last used and the round's utility; adjust the pace."""
    settings = outcome.settings.oort
    losses = {update.client_id: max(0.0, update.loss) for update in outcome.accepted}
    last = dict.fromkeys(losses, float(outcome.round))
    worth = sum(max(0.0, update.loss) * update.images_seen for update in outcome.accepted)
    kept = {str(r) for r in range(outcome.round - 2 * settings.window + 1, outcome.round)}
    before = {r: u for r, u in memory.get(_UTILITY, {}).items() if r in kept}
    worths = {**before, str(outcome.round): worth}
    pace = memory.get(_PACE, {}).get(_FLEET, settings.pace)
    if outcome.round % settings.window == 0 and outcome.round >= 2 * settings.window:
        pace = min(1.0, pace + settings.pace_step * _fell(worths, outcome.round, settings.window))
    return {
        _LOSS: {**memory.get(_LOSS, {}), **losses},
        _LAST: {**memory.get(_LAST, {}), **last},
        _UTILITY: worths,
        _PACE: {_FLEET: pace},
        **remember_missed(memory, outcome),
    }


def _fell(worths: Mapping[str, float], round_: int, window: int) -> bool:
    """Return whether the last window of rounds had less utility than the window before."""
    ages = {round_ - int(r): worth for r, worth in worths.items()}
    now = math.fsum(worth for age, worth in ages.items() if age < window)
    return math.fsum(worth for age, worth in ages.items() if age >= window) > now


def _scores(known: Known, tried: Collection[str], seconds: Mapping[str, float]) -> dict[str, float]:
    settings, losses = known.settings.oort, known.memory.get(_LOSS, {})
    utilities = {name: known.enrolled[name].num_images * losses[name] for name in tried}
    ordered = sorted(utilities.values())
    if not ordered:
        return {}
    least, most = ordered[0], ordered[min(int(settings.clip * len(ordered)), len(ordered) - 1)]
    last, log_round = known.memory.get(_LAST, {}), math.log(known.round)
    times = sorted(seconds.values())
    pace = known.memory.get(_PACE, {}).get(_FLEET, settings.pace)
    limit_s = times[min(int(pace * len(times)), len(times) - 1)] if times else math.inf
    scores = {}
    for name, utility in utilities.items():
        score = (min(utility, most) - least) / (most - least) if most > least else 0.0
        score += math.sqrt(0.1 * log_round / last[name])
        if seconds and seconds[name] > limit_s:
            score *= (limit_s / seconds[name]) ** settings.slow_penalty
        scores[name] = score
    return scores


def _pool(scores: Mapping[str, float], number: int, cut_off: float) -> dict[str, float]:
    """Keep clients with at least `cut_off` times the score of the last one that has a place."""
    if number == 0:
        return {}
    least = cut_off * sorted(scores.values(), reverse=True)[number - 1]
    return {name: score for name, score in scores.items() if score >= least}


def _draw(
    chances: Mapping[str, float], number: int, generator: np.random.Generator
) -> Sequence[str]:
    """Draw without replacement, with probabilities in proportion to `chances`."""
    if number == 0:
        return []
    names, of_N = list(chances), np.maximum(list(chances.values()), _LEAST_CHANCE)
    drawn = generator.choice(len(names), size=number, replace=False, p=of_N / of_N.sum())
    return [names[k] for k in drawn]
