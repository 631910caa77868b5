"""Facts of the fleet: what clients report once, and what the server computes from all reports.

A fact is a `Fact` in `FLEET_FACTS`: small arrays by name. Facts are computed when the first round
begins and kept in the server's state, so that a run resumed with other vehicles present goes on
with the same ones. Facts that an experiment does not use are neither reported nor computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fleetseg.config import Experiment
from fleetseg.data.sample import Pairs
from fleetseg.data.styles import STYLES
from fleetseg.errors import UpdateRejected
from fleetseg.federation.class_rarity import CLASS_COUNTS, class_counts
from fleetseg.federation.cohort import SAMPLERS
from fleetseg.federation.fedgau import IMAGE_GAUSSIAN, image_gaussian, pooled_gaussian
from fleetseg.federation.messages import Enrolment
from fleetseg.federation.released import kept_once
from fleetseg.federation.style_bank import (
    bank_of_fleet,
    check_styles,
    released_as,
    report_styles,
)
from fleetseg.federation.weights import WEIGHTS
from fleetseg.learning.inputs import Facts
from fleetseg.learning.losses import class_weights
from fleetseg.learning.objectives import OBJECTIVES
from fleetseg.learning.supervision import SUPERVISION

CLASS_WEIGHTS = "class_weights"
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Fact:
    """One fact: what each client reports, and what the server computes from all reports.

    Args:
        combine: enrolments of the clients that take part, in order of their names -> the fact.
        report: a client's training samples -> what it reports, once; None = the counts in its
            enrolment are enough.
        shape: of what a client reports.
        why: why a report may leave a client; completes the table in `messages`.
        report_by: as `report`, where the experiment's settings matter.
        check_by: checks a report against those settings; None = it must have `shape`.
        released_as: names a report with noise, which is drawn once for that name; empty = the
            report has no noise.
    """

    combine: Callable[[Mapping[str, Enrolment]], Floats]
    report: Callable[[Pairs], Floats] | None = None
    shape: tuple[int, ...] = ()
    why: str = ""
    report_by: Callable[[Experiment, Pairs], Floats] | None = None
    check_by: Callable[[Experiment, Floats], None] | None = None
    released_as: Callable[[Experiment], str] | None = None

    @property
    def is_reported(self) -> bool:
        """Whether clients report anything for it besides their counts."""
        return self.report is not None or self.report_by is not None

    def reported(self, experiment: Experiment, train: Pairs) -> Floats:
        """Compute what a client reports about its samples."""
        if self.report_by is not None:
            return self.report_by(experiment, train)
        assert self.report is not None
        return self.report(train)


def _class_weights(enrolled: Mapping[str, Enrolment]) -> Floats:
    """Weigh classes by their rarity in the fleet; see learning.losses.class_weights."""
    counts_NC = np.array([e.histogram_C for e in enrolled.values()], dtype=np.int64)
    weights_C: Floats = class_weights(counts_NC.sum(axis=0), counts_NC.shape[1]).numpy()
    return weights_C


FLEET_FACTS: dict[str, Fact] = {
    CLASS_WEIGHTS: Fact(_class_weights),
    CLASS_COUNTS: Fact(class_counts),
    IMAGE_GAUSSIAN: Fact(
        pooled_gaussian,
        image_gaussian,
        shape=(3,),
        why="mean and variance over every value of every image, and the images' size",
    ),
    STYLES: Fact(
        bank_of_fleet,
        report_by=report_styles,
        check_by=check_styles,
        released_as=released_as,
        why="amplitudes of the lowest frequencies, or means and deviations of colours, of all of "
        "a vehicle's images together, or of each",
    ),
}


def wanted_facts(experiment: Experiment) -> tuple[str, ...]:
    """Return the names of the facts that an experiment uses, sorted."""
    federation = experiment.federation
    server = {*SAMPLERS[federation.sampler].facts, *WEIGHTS[federation.weights].facts}
    if federation.clustered_by in FLEET_FACTS:
        server.add(federation.clustered_by)
    style = experiment.training.style
    if style.kind != "none" and experiment.pretrain.style_probability > 0:
        server.add(STYLES)
    return tuple(sorted(server | _clients_take(experiment)))


def told_facts(experiment: Experiment, facts: Facts) -> Facts:
    """Return the facts that clients use; facts that only the server uses are not sent."""
    names = _clients_take(experiment)
    if facts.keys() <= names:
        return facts
    return {name: fact for name, fact in facts.items() if name in names}


def _clients_take(experiment: Experiment) -> set[str]:
    training = experiment.training
    names = {*OBJECTIVES[training.objective].facts, *SUPERVISION[training.supervision].facts}
    names |= {CLASS_WEIGHTS} if training.class_weights == "fleet" else set()
    takes_styles = training.style.kind != "none" and training.style.probability > 0
    return names | ({STYLES} if takes_styles else set())


def reported_facts(experiment: Experiment, train: Pairs, released: Path | None = None) -> Facts:
    """Compute what a client must report about its samples.

    `released` is a folder where the client keeps reports with noise, over all runs.
    """
    reports = {}
    for name in wanted_facts(experiment):
        fact = FLEET_FACTS[name]
        if not fact.is_reported:
            continue
        make = partial(fact.reported, experiment, train)
        once = fact.released_as(experiment) if fact.released_as else ""
        reports[name] = kept_once(released, f"{name}: {once}", make) if once else make()
    return reports


def check_reported(experiment: Experiment, reported: Facts) -> None:
    """Check that a client reports what an experiment uses, and nothing else.

    Raises:
        UpdateRejected: a fact is missing, was not asked for, or has another shape.
    """
    facts = {name: FLEET_FACTS[name] for name in wanted_facts(experiment)}
    wanted = {name for name, fact in facts.items() if fact.is_reported}
    if reported.keys() != wanted:
        raise UpdateRejected(
            "facts",
            "the facts are not those that were asked for",
            got=sorted(reported),
            expected=sorted(wanted),
        )
    for name, array in reported.items():
        check = facts[name].check_by
        if check is not None:
            check(experiment, array)
        elif array.shape != facts[name].shape:
            raise UpdateRejected(
                "facts", f"'{name}' has another shape", got=array.shape, expected=facts[name].shape
            )


def facts_of_fleet(experiment: Experiment, enrolled: Mapping[str, Enrolment]) -> Facts:
    """Compute all facts that an experiment uses, from the clients that take part."""
    ordered = {name: enrolled[name] for name in sorted(enrolled)}
    facts = {name: FLEET_FACTS[name].combine(ordered) for name in wanted_facts(experiment)}
    # In the form in which they arrive elsewhere: the same bits in this process as over a network.
    whole = {name: np.ascontiguousarray(fact, dtype=np.float32) for name, fact in facts.items()}
    assert all(np.isfinite(fact).all() for fact in whole.values())
    return whole
