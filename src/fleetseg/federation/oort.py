"""Oort: ask clients whose data still teach the model something, and who answer in time.

Lai, Zhu, Madhyastha, Chowdhury, OSDI 2021, arXiv 2010.06081, Algorithm 1. A client that took part
has the utility n |loss|, n its images; the paper's is n sqrt(mean of its samples' squared losses),
but samples' losses do not leave a client here. Utilities are clipped and brought between 0 and 1,
gain sqrt(0.1 ln R / L) in round R for a client last used in round L, and are multiplied by
(T / t)^alpha for one that takes t > T. Of those near the top, most of the cohort is drawn by
utility; the rest, less from round to round, are clients that never took part.

T is a share of the clients' times, where these are known: simulated ones are, real ones would make
the result depend on the day. It grows while the utility of what was used falls.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from fleetseg.config import OortConfig
from fleetseg.federation.back_off import remember_missed, without_resting
from fleetseg.federation.known import Known, Memory, Outcome

_LOSS, _LAST, _UTILITY, _PACE = "loss", "last", "utility", "pace"
_FLEET = ""  # in tables that are not of clients
_LEAST_CHANCE = 1e-6  # of a client whose score is zero: draws need some for each


def oort(known: Known, count: int, generator: np.random.Generator) -> Sequence[str]:
    """Draw by utility, and explore, among those that do not rest."""
    known = without_resting(known, count)
    settings = known.settings.oort
    losses = known.memory.get(_LOSS, {})
    tried = [name for name in known.enrolled if name in losses]
    untried = [name for name in known.enrolled if name not in losses]
    number = num_exploited(count, known.round, len(tried), len(untried), settings)
    seconds = known.seconds()
    scores = _scores(known, tried, seconds)
    exploited = _draw(_pool(scores, number, settings.cut_off), number, generator)
    # Unknown clients by their speed, where that is known.
    speeds = {name: 1 / max(seconds[name], 1e-6) if seconds else 1.0 for name in untried}
    return [*exploited, *_draw(speeds, count - number, generator)]


def exploration(round_: int, settings: OortConfig) -> float:
    """Return the share of a round's cohort that is explored.

    >>> [round(exploration(r, OortConfig()), 4) for r in (1, 2, 3, 500)]
    [0.9, 0.882, 0.8644, 0.2]
    """
    return max(settings.explore * settings.explore_decay ** (round_ - 1), settings.explore_least)


def num_exploited(count: int, round_: int, tried: int, untried: int, settings: OortConfig) -> int:
    """Say how many of a cohort took part before: as many as are wished for, and there are."""
    wished = int((1 - exploration(round_, settings)) * count + 1e-9)
    return min(tried, max(wished, count - untried))


def remember_utilities(memory: Memory, outcome: Outcome) -> Memory:
    """Note losses, who was used when, and how much the round was worth; see to the pace."""
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
    """Whether the last rounds of a window were worth less than those of the window before."""
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
    """Keep those that have at least `cut_off` times the score of the last one that has a place."""
    if number == 0:
        return {}
    least = cut_off * sorted(scores.values(), reverse=True)[number - 1]
    return {name: score for name, score in scores.items() if score >= least}


def _draw(
    chances: Mapping[str, float], number: int, generator: np.random.Generator
) -> Sequence[str]:
    """Draw one after another, by the chances of those that are left."""
    if number == 0:
        return []
    names, of_N = list(chances), np.maximum(list(chances.values()), _LEAST_CHANCE)
    drawn = generator.choice(len(names), size=number, replace=False, p=of_N / of_N.sum())
    return [names[k] for k in drawn]
