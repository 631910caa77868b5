"""The loop of rounds: broadcast, local training, aggregation, server step, scoring, checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from fleetseg.config import Experiment
from fleetseg.errors import QuorumLost
from fleetseg.federation.checkpoint import ServerState
from fleetseg.federation.collect import RoundCollector, collect
from fleetseg.federation.engine import Engine, Received
from fleetseg.federation.lineage import with_lineage
from fleetseg.federation.messages import Enrolment, Failure, taking_part
from fleetseg.federation.plan import Plan
from fleetseg.federation.records import RoundRecord
from fleetseg.federation.stopping import stop_reason
from fleetseg.text import listing

_NAP_S = 5.0  # longest sleep between rounds, so that observers see that the process does not hang
UNUSED = "no-update"
"""Why a run ended that finished its rounds without using a single update."""


class Log(Protocol):
    """Where rounds are committed."""

    @property
    def records(self) -> Sequence[RoundRecord]:
        """All committed rounds, oldest first."""
        ...

    def commit(self, state: ServerState, record: RoundRecord) -> None:
        """Make a round final: after this call, a crash cannot lose it."""
        ...

    def publish(self, record: RoundRecord) -> None:
        """Log the newest committed round, with its scores if it has any."""
        ...


@dataclass(frozen=True)
class Watcher:
    """Callbacks that show a run's progress to the user; each is optional."""

    status: Callable[[str], None] = lambda what: None  # before the first round, if that takes long
    round_opened: Callable[[int, Sequence[str]], None] = lambda round_, cohort: None
    replied: Callable[[Received, Failure | None], None] = lambda reply, failure: None
    round_closed: Callable[[RoundRecord], None] = lambda record: None
    # The clients that take part, with the counts they report, each time the loop asks.
    enrolled: Callable[[Mapping[str, Enrolment]], None] = lambda enrolled: None


def run(plan: Plan, engine: Engine, state: ServerState, log: Log, watcher: Watcher) -> str:
    """Run rounds until there is a reason to stop; returns the reason.

    Raises:
        QuorumLost: after `max_failed_rounds` consecutive rounds without enough usable updates; the
            last good model has been committed by then.
    """
    settings = plan.experiment.federation
    training = plan.experiment.training
    collector = RoundCollector(plan.exchange.wire, settings, plan.scratch, training)
    replied, deadline_s = watcher.replied, settings.deadline_s
    state, pace = _mended(plan, state, log), _Pace(plan.round_every_s)
    while (reason := _reason_to_end(plan, state, log)) is None:
        pace.wait()
        before, round_ = engine.meter(), state.round + 1
        enrolled = taking_part(engine.available())
        _require_quorum(state, enrolled, plan, log)
        watcher.enrolled(enrolled)
        state = plan.with_references(plan.with_broadcast(plan.with_facts(state, enrolled)))
        cohort = plan.sample(state, enrolled)
        watcher.round_opened(round_, cohort.asked)
        asks = plan.asks(state, cohort.asked, log.records)
        plan.open(collector, state, cohort, enrolled, asks, log.records)
        collect(engine, "train", asks, collector, deadline_s=deadline_s, replied=replied)
        collector.close()
        sent = engine.meter() - before
        state = plan.server_update(state, collector, enrolled)
        good = collector.has_quorum
        lineage = state.lineage  # of what was sent
        record = RoundRecord.of(collector, round_=round_, quorum=good, sent=sent, lineage=lineage)
        state = with_lineage(state, record)
        log.commit(state, record)
        try:
            record = _scored(record, plan, state, log)
        finally:
            record = record.with_cost(engine.meter() - before)  # of scoring on clients, too
            log.publish(record)
        watcher.round_closed(record)
    unused = log.records and not any(record.quorum and record.accepted for record in log.records)
    return UNUSED if unused else reason


def _reason_to_end(plan: Plan, state: ServerState, log: Log) -> str | None:
    unsafe = plan.guard.why_stop(log.records) if plan.guard else None
    return unsafe or stop_reason(plan.experiment, state.round, log.records)


class _Pace:
    """Keeps the starts of rounds at least `every_s` seconds apart."""

    def __init__(self, every_s: float) -> None:
        self._every_s, self._due_s = every_s, time.monotonic()

    def wait(self) -> None:
        """Wait until the next round may begin."""
        while (left_s := self._due_s - time.monotonic()) > 0:
            time.sleep(min(left_s, _NAP_S))
        self._due_s = time.monotonic() + self._every_s


def _mended(plan: Plan, state: ServerState, log: Log) -> ServerState:
    """Prepare a state that was read from a checkpoint, so that the run can continue."""
    if log.records and not log.records[-1].was_scored:
        # The run may have ended between committing this round and scoring it.
        log.publish(_scored(log.records[-1], plan, state, log))
    if state.failed_rounds >= plan.experiment.federation.max_failed_rounds:
        return replace(state, failed_rounds=0)  # resumed with a repaired fleet: new tries
    return state


def why_unused(records: Sequence[RoundRecord], limit: int = 10) -> str:
    """Say why the last round had no usable update: the failures, and the first one's detail."""
    failures = records[-1].failures if records else ()
    who = listing([f"{f.client_id} ({f.kind}: {f.reason})" for f in failures], limit)
    told = next((f"; {f.client_id} says: {f.detail}" for f in failures if f.detail), "")
    return f"{who}{told}" or "no client answered"


def _scored(record: RoundRecord, plan: Plan, state: ServerState, log: Log) -> RoundRecord:
    """Score the newest round, if it is due."""
    if plan.score is None or not _evaluates_in(plan.experiment, state.round):
        return record
    model = plan.refined(state, log.records)
    scored = plan.scored(model, state, log.records)
    if isinstance(scored, str):
        return replace(record, unscored=scored)
    if plan.guard:
        plan.guard.keep(model, state.round, scored, plan.cluster_models(state))
    return replace(record, scored=scored)


def scored_before(records: Sequence[RoundRecord]) -> set[str]:
    """Return the names of the sets or clients that any score so far was taken on."""
    return {name for r in records if r.scored for name in r.scored.scored_on}


def _evaluates_in(experiment: Experiment, round_: int) -> bool:
    every = experiment.evaluation.every
    return round_ == experiment.federation.rounds or (every > 0 and round_ % every == 0)


def _require_quorum(
    state: ServerState, enrolled: Mapping[str, Enrolment], plan: Plan, log: Log
) -> None:
    limit = plan.experiment.federation.max_failed_rounds
    if enrolled and state.failed_rounds < limit:
        return
    raise QuorumLost(
        f"{state.failed_rounds} rounds in a row without a quorum" if enrolled else "no clients",
        got=why_unused(log.records) if log.records else "no client that can take part",
        expected=f"usable updates from {plan.experiment.federation.quorum:.0%} of the cohort",
        cure="The model of the last good round is kept; fix the fleet and continue with --resume",
    )
