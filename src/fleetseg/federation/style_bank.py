"""The fleet's bank of styles: what clients report, and what the server makes from it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from fleetseg.config import Experiment
from fleetseg.data.sample import Pairs
from fleetseg.data.styles import KINDS, STYLES, bank_of, measured, noised, num_owners, shape_of
from fleetseg.errors import UpdateRejected
from fleetseg.federation.messages import Enrolment
from fleetseg.federation.wire import MAX_FACT
from fleetseg.learning.inputs import Facts

Floats = npt.NDArray[np.float32]

MEMBER = f"{STYLES}/"
"""Prefix of a member's name, for its styles among the facts of a client that represents it."""


def report_styles(experiment: Experiment, train: Pairs) -> Floats:
    """Measure the styles that a client reports, with noise if the experiment sets it."""
    config = experiment.training.style
    with_noise = config.noise > 0
    styles = measured(train, config, experiment.data.size, clipped=with_noise)
    return noised(styles, config, len(train)) if with_noise else styles


def released_as(experiment: Experiment) -> str:
    """Return the name of a style that is released once, with noise; empty if there is no noise."""
    config = experiment.training.style
    if config.noise == 0:
        return ""
    height, width = experiment.data.size
    return f"{config.model_dump_json(exclude={'probability'})} of {height}x{width}"


def check_styles(experiment: Experiment, styles: Floats) -> None:
    """Check the styles that a client reports.

    Raises:
        UpdateRejected: too many styles or none, a wrong shape, or numbers that no image can have.
    """
    config = experiment.training.style
    shape = shape_of(config, experiment.data.size)
    most = config.images if config.per == "image" else 1
    if styles.shape[1:] != shape or not 1 <= len(styles) <= most:
        expected = f"1 to {most} of {shape}"
        raise UpdateRejected(
            "facts", "styles of another shape or number", got=styles.shape, expected=expected
        )
    low, high = KINDS[config.kind].limits(shape)
    slack = 0.01  # for rounding
    if not ((styles >= low - slack) & (styles <= high + slack)).all():
        raise UpdateRejected(
            "facts",
            f"a style that no image can have: {config.kind}",
            got=f"numbers from {styles.min():g} to {styles.max():g}",
            expected=f"each within its range, {low.min():g} to {high.max():g} at most",
        )


def bank_of_fleet(enrolled: Mapping[str, Enrolment]) -> Floats:
    """Collect the styles of all clients, and of the members that they represent."""
    return bank_of(_styles_by_name(enrolled), MAX_FACT)


def _styles_by_name(enrolled: Mapping[str, Enrolment]) -> dict[str, Floats]:
    styles_of = {}
    for name, enrolment in enrolled.items():
        for fact, styles in enrolment.facts.items():
            if fact == STYLES:
                styles_of[name] = styles
            elif fact.startswith(MEMBER):
                styles_of[fact.removeprefix(MEMBER)] = styles
    return styles_of


def styles_of_members(members: Mapping[str, Enrolment]) -> Facts:
    """Return the facts of a client that represents others: each member's styles."""
    return {MEMBER + name: styles for name, styles in _styles_by_name(members).items()}


def style_notes(
    experiment: Experiment, facts: Facts, enrolled: Mapping[str, Enrolment]
) -> list[str]:
    """Return a note if images should take on styles but the fleet has none to share.

    With a client that represents others, images take on the styles of any member.
    """
    never = experiment.training.style.probability == 0
    if STYLES not in facts or never or num_owners(facts[STYLES]) > 1:
        return []
    if any(fact.startswith(MEMBER) for e in enrolled.values() for fact in e.facts):
        return []
    return ["training.style has no effect: there is only one vehicle's style, which it has already"]
