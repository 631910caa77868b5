"""The loop: broadcast, local training, folding, server step, evaluation, checkpoint; again."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

from fleetseg.config import Experiment
from fleetseg.errors import QuorumLost
from fleetseg.evaluation.scored import Scored
from fleetseg.federation.checkpoint import ServerState
from fleetseg.federation.cohort import Cohort, sample_cohort
from fleetseg.federation.collect import RoundCollector, collect
from fleetseg.federation.engine import Engine, Received
from fleetseg.federation.fleet_facts import facts_of_fleet
from fleetseg.federation.messages import Broadcast, Enrolment, Failure, taking_part
from fleetseg.federation.publishing import PUBLISHING, Publication
from fleetseg.federation.records import RoundRecord
from fleetseg.federation.server_optim import server_step
from fleetseg.federation.sharing import Exchange
from fleetseg.federation.stopping import stop_reason
from fleetseg.federation.tensors import ModelState
from fleetseg.learning.objectives import OBJECTIVES
from fleetseg.text import listing

_TOLD = 8  # unused rounds at most, of one client: more than the states that it keeps
UNUSED = "no-update"
"""Why a run ended whose rounds are over and in which not one update was used."""


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
    """What a user sees while it runs; every callback may be left out."""

    status: Callable[[str], None] = lambda what: None  # before the first round, if it takes long
    round_opened: Callable[[int, Sequence[str]], None] = lambda round_, cohort: None
    replied: Callable[[Received, Failure | None], None] = lambda reply, failure: None
    round_closed: Callable[[RoundRecord], None] = lambda record: None


@dataclass(frozen=True)
class Plan:
    """What a run needs besides clients: what it is, what is exchanged, a way to score."""

    experiment: Experiment
    exchange: Exchange
    # Scores of a model, or why there are none, given the round that made it and all rounds so far.
    score: Callable[[ModelState, int, Sequence[RoundRecord]], Scored | str] | None = None
    # Makes what is scored and saved of a model, by asking the clients; with the same arguments.
    refine: Callable[[ModelState, int, Sequence[RoundRecord]], ModelState] | None = None
    scratch: Path | None = None  # a folder for what an aggregator does not keep in memory
    round_every_s: float = 0.0  # by the wall clock: rounds begin no closer than this

    def with_facts(self, state: ServerState, enrolled: Mapping[str, Enrolment]) -> ServerState:
        """Make the facts of the fleet, before the first round; they stay as they were then."""
        if state.round > 0 or state.facts:
            return state
        return replace(state, facts=facts_of_fleet(self.experiment, enrolled))

    def sample(self, enrolled: Mapping[str, Enrolment], round_: int) -> Cohort:
        """Draw who is asked in a round."""
        settings, seed = self.experiment.federation, self.experiment.seed
        return sample_cohort(enrolled, settings, seed=seed, round_=round_)

    def asks(
        self, state: ServerState, clients: Collection[str], records: Sequence[RoundRecord]
    ) -> dict[str, Broadcast]:
        """Write what each client is sent in the next round."""
        sent = self.exchange.sent(state.model)
        return to_each(Broadcast(state.round + 1, sent, state.facts), clients, records)

    def published(self, state: ServerState) -> ModelState:
        """Return the model that is scored and saved, as far as the server has it."""
        model = self.exchange.model_of(state.model)
        return self._publication.model(model, state.published, self.experiment.federation)

    def refined(self, state: ServerState, records: Sequence[RoundRecord]) -> ModelState:
        """Return the model that is scored and saved, with what clients are asked for it."""
        model = self.published(state)
        return model if self.refine is None else self.refine(model, state.round, records)

    def server_update(self, state: ServerState, collector: RoundCollector, of: int) -> ServerState:
        """Take the server's step, or leave the model as it was when the quorum was missed.

        `of` is how many clients take part in the run, asked or not.
        """
        settings, exchange = self.experiment.federation, self.exchange
        num_accepted = len(collector.accepted)
        # The allowance is for products such as 0.55 * 20 = 11.000000000000002.
        if not num_accepted or num_accepted < settings.quorum * collector.cohort.target - 1e-9:
            return replace(state, round=state.round + 1, failed_rounds=state.failed_rounds + 1)
        advance = OBJECTIVES[self.experiment.training.objective].server
        sent, slots = server_step(
            exchange.sent(state.model),
            state.slots,
            collector.take_mean_delta(),
            collector.counters_K,
            layout=exchange.wire,
            settings=settings,
            advance_extra=lambda extra_T, mean_T: advance(extra_T, mean_T, num_accepted / of),
        )
        model = exchange.received(state.model, sent)
        published = self._publication.remember(
            state.published, exchange.model_of(model), state.round + 1, settings
        )
        return ServerState(state.round + 1, model, slots, 0, state.facts, published)

    @cached_property
    def _publication(self) -> Publication:
        return PUBLISHING[self.experiment.federation.publishing]


def run(plan: Plan, engine: Engine, state: ServerState, log: Log, watcher: Watcher) -> str:
    """Run rounds until something says stop; returns the reason.

    Raises:
        QuorumLost: after `max_failed_rounds` rounds in a row without enough usable updates; the
            last good model is committed by then.
    """
    settings = plan.experiment.federation
    collector = RoundCollector(plan.exchange.wire, settings, plan.scratch)
    replied, deadline_s = watcher.replied, settings.deadline_s
    state, pace = _mended(plan, state, log), _Pace(plan.round_every_s)
    while (reason := stop_reason(plan.experiment, state.round, log.records)) is None:
        pace.wait()
        before, round_ = engine.meter(), state.round + 1
        enrolled = taking_part(engine.available())
        _require_quorum(state, enrolled, plan, log)
        state = plan.with_facts(state, enrolled)
        cohort = plan.sample(enrolled, round_)
        watcher.round_opened(round_, cohort.asked)
        asks = plan.asks(state, cohort.asked, log.records)
        collector.open(round_, cohort, enrolled, plan.exchange.sent(state.model))
        collect(engine, "train", asks, collector, deadline_s=deadline_s, replied=replied)
        collector.close()
        sent = engine.meter() - before
        state = plan.server_update(state, collector, len(enrolled))
        good = state.failed_rounds == 0
        record = RoundRecord.of(collector, round_=round_, quorum=good, sent=sent)
        log.commit(state, record)
        try:
            record = _scored(record, plan, state, log)
        finally:
            record = record.with_cost(engine.meter() - before)  # of scoring on clients, too
            log.publish(record)
        watcher.round_closed(record)
    unused = log.records and not any(record.quorum for record in log.records)
    return UNUSED if unused else reason


class _Pace:
    """Keeps rounds from beginning closer to each other than so many seconds."""

    def __init__(self, every_s: float) -> None:
        self._every_s, self._due_s = every_s, time.monotonic()

    def wait(self) -> None:
        """Wait until the next round may begin."""
        time.sleep(max(0.0, self._due_s - time.monotonic()))
        self._due_s = time.monotonic() + self._every_s


def _mended(plan: Plan, state: ServerState, log: Log) -> ServerState:
    """Make a state that was read from a checkpoint fit to go on with."""
    if log.records and not log.records[-1].was_scored:
        # The run may have ended after this round was committed and before it was scored.
        log.publish(_scored(log.records[-1], plan, state, log))
    if state.failed_rounds >= plan.experiment.federation.max_failed_rounds:
        return replace(state, failed_rounds=0)  # resumed with a mended fleet: new tries
    return state


def unused_rounds(
    records: Sequence[RoundRecord], clients: Collection[str] | None = None
) -> dict[str, tuple[int, ...]]:
    """Say of each client which of its updates, since the last one that counted, did not count.

    Of a round without a quorum, none did. Rounds are looked back at until it is known of all of
    `clients` (default: whoever was ever asked): one may be asked again after hundreds of rounds.
    """
    unused: dict[str, tuple[int, ...]] = {}
    open_ = {name for record in records for name in record.cohort}
    open_ &= open_ if clients is None else set(clients)
    for record in reversed(records):
        if not open_:
            break
        used = set(record.accepted) if record.quorum else set()
        for client in open_ & (set(record.cohort) - used):
            unused[client] = (record.round, *unused.get(client, ()))[-_TOLD:]
        open_ -= used
    return dict(sorted(unused.items()))


def to_each(
    broadcast: Broadcast, clients: Collection[str], records: Sequence[RoundRecord]
) -> dict[str, Broadcast]:
    """Address a broadcast to clients: who has updates that did not count is told of them."""
    unused = unused_rounds(records, clients)
    return {
        client: replace(broadcast, unused=unused[client]) if client in unused else broadcast
        for client in clients
    }


def why_unused(records: Sequence[RoundRecord], limit: int = 10) -> str:
    """Say why the last round had no usable update: who failed, and the first one's own words."""
    failures = records[-1].failures if records else ()
    who = listing([f"{f.client_id} ({f.kind}: {f.reason})" for f in failures], limit)
    told = next((f"; {f.client_id} says: {f.detail}" for f in failures if f.detail), "")
    return f"{who}{told}" or "no client answered"


def _scored(record: RoundRecord, plan: Plan, state: ServerState, log: Log) -> RoundRecord:
    """Score the newest round, if it is due."""
    if plan.score is None or not _evaluates_in(plan.experiment, state.round):
        return record
    scored = plan.score(plan.refined(state, log.records), state.round, log.records)
    if isinstance(scored, str):
        return replace(record, unscored=scored)
    return replace(record, scored=scored)


def scored_before(records: Sequence[RoundRecord]) -> set[str]:
    """Names of the sets or clients that any score so far was taken on."""
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
        cure="The model of the last good round is kept; mend the fleet and go on with --resume",
    )
