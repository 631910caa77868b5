"""The loop: broadcast, local training, folding, server step, evaluation, checkpoint; again."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from fleetseg.config import Experiment
from fleetseg.errors import QuorumLost
from fleetseg.federation import cohort as cohorts
from fleetseg.federation.checkpoint import ServerState
from fleetseg.federation.collect import RoundCollector
from fleetseg.federation.engine import Engine
from fleetseg.federation.messages import Broadcast, Enrolment, Failure, Update, taking_part
from fleetseg.federation.server_optim import server_step
from fleetseg.federation.stopping import stop_reason
from fleetseg.federation.tensors import Layout, ModelState
from fleetseg.text import listing

Record = dict[str, Any]
"""What `rounds.jsonl` says of one round."""


UNUSED = "no-update"
"""Why a run ended whose rounds are over and in which not one update was used."""


class Log(Protocol):
    """Where rounds are committed."""

    @property
    def records(self) -> Sequence[Record]:
        """All committed rounds, oldest first."""
        ...

    def commit(self, state: ServerState, record: Record) -> None:
        """Make a round final: after this call, a crash cannot lose it."""
        ...

    def publish(self, record: Record) -> None:
        """Log the newest committed round, with its scores if it has any."""
        ...


@dataclass(frozen=True)
class Watcher:
    """What a user sees while it runs; every callback may be left out."""

    status: Callable[[str], None] = lambda what: None  # before the first round, if it takes long
    round_opened: Callable[[int, Sequence[str]], None] = lambda round_, cohort: None
    replied: Callable[[Update | Failure, Failure | None], None] = lambda reply, failure: None
    round_closed: Callable[[Record], None] = lambda record: None


@dataclass(frozen=True)
class Plan:
    """What a run needs besides clients: the experiment, the model's layout, a way to score."""

    experiment: Experiment
    layout: Layout
    # Scores of a model, or {"unscored": why}, given the clients that earlier scores were taken on.
    score: Callable[[ModelState, Collection[str]], Record] | None
    message_bytes: tuple[int, int]  # encoded size of a broadcast, of an update (at most)
    class_weights_C: tuple[float, ...] = ()
    clock: Callable[[], float] = field(default=time.monotonic)
    traffic: Callable[[], tuple[int, int]] | None = None  # bytes so far (down, up), where counted
    round_every_s: float = 0.0  # by the wall clock: rounds begin no closer than this


def run(plan: Plan, engine: Engine, state: ServerState, log: Log, watcher: Watcher) -> str:
    """Run rounds until something says stop; returns the reason.

    Raises:
        QuorumLost: after `max_failed_rounds` rounds in a row without enough usable updates; the
            last good model is committed by then.
    """
    settings = plan.experiment.federation
    fold = RoundCollector(plan.layout, settings.weights, settings.max_update_norm)
    if state.failed_rounds >= settings.max_failed_rounds:
        state = replace(state, failed_rounds=0)  # resumed with a mended fleet: new tries
    if log.records and not {"scores", "unscored"} & set(log.records[-1]):
        # It may have ended after this round was committed and before it was scored.
        late = _scores(plan, state, log)
        log.publish(log.records[-1] | late)
    due_s = time.monotonic()
    while (reason := stop_reason(plan.experiment, state.round, log.records)) is None:
        time.sleep(max(0.0, due_s - time.monotonic()))
        due_s = time.monotonic() + plan.round_every_s
        started_s, round_ = plan.clock(), state.round + 1
        enrolled = taking_part(engine.available())
        _require_quorum(state, enrolled, plan, log)
        wanted = cohorts.size_of(settings.cohort, len(enrolled))
        cohort = _cohort(enrolled, round_, plan)
        watcher.round_opened(round_, cohort)
        fold.open(round_, cohort, enrolled, state.model)
        broadcast = Broadcast(round_, state.model, plan.class_weights_C)
        before = plan.traffic() if plan.traffic else (0, 0)
        for reply in engine.train(cohort, broadcast, settings.deadline_s):
            watcher.replied(reply, fold.take(reply))
            if len(fold.taken) >= wanted < len(cohort):
                break
        fold.close(enough=len(fold.taken) >= wanted)
        state = _server_update(state, fold, min(wanted, len(cohort)), plan)
        record = _record(state, fold, cohort, plan, before)
        record["seconds"] = round(plan.clock() - started_s, 3)
        log.commit(state, record)
        try:
            if scores := _scores(plan, state, log):
                record |= {**scores, "seconds": round(plan.clock() - started_s, 3)}
        finally:
            log.publish(record)
        watcher.round_closed(record)
    unused = log.records and not any(record["quorum"] for record in log.records)
    return UNUSED if unused else reason


def why_unused(records: Sequence[Record], limit: int = 10) -> str:
    """Say why the last round had no usable update: who failed, and the first one's own words."""
    failures = records[-1]["failures"] if records else []
    who = listing([f"{f['client']} ({f['kind']}: {f['reason']})" for f in failures], limit)
    told = next((f"; {f['client']} says: {f['detail']}" for f in failures if f["detail"]), "")
    return f"{who}{told}" or "no client answered"


def _scores(plan: Plan, state: ServerState, log: Log) -> Record:
    """Score the newest round, if it is due."""
    if plan.score is None or not _evaluates_in(plan.experiment, state.round):
        return {}
    scores = plan.score(state.model, scored_before(log.records))
    return scores if "unscored" in scores else {"scores": scores, "miou": scores["miou"]}


def scored_before(records: Sequence[Record]) -> set[str]:
    """Names of the sets or clients that any score so far was taken on."""
    return {name for r in records for name in r.get("scores", {}).get("scored_on", ())}


def _cohort(enrolled: Mapping[str, Enrolment], round_: int, plan: Plan) -> tuple[str, ...]:
    """Draw who is asked, the largest first."""
    settings, seed = plan.experiment.federation, plan.experiment.seed
    chosen = cohorts.choose(
        enrolled,
        settings.cohort,
        seed=seed,
        round_=round_,
        over=settings.over_selection,
        sampler=settings.sampler,
    )
    return cohorts.longest_first(chosen, enrolled)


def _server_update(state: ServerState, fold: RoundCollector, asked: int, plan: Plan) -> ServerState:
    """Take the server's step, or leave the model as it was when the quorum was missed."""
    settings = plan.experiment.federation
    # The allowance is for products such as 0.55 * 20 = 11.000000000000002.
    if not fold.taken or len(fold.taken) < settings.quorum * asked - 1e-9:
        return ServerState(state.round + 1, state.model, state.slots, state.failed_rounds + 1)
    model, slots = server_step(
        state.model,
        state.slots,
        fold.take_mean_delta(),
        fold.counters_K,
        layout=plan.layout,
        settings=settings,
    )
    return ServerState(state.round + 1, model, slots)


def _bytes(
    fold: RoundCollector, asked: int, plan: Plan, before: tuple[int, int]
) -> tuple[int, int]:
    """Bytes (down, up) of a round: counted where they were sent, or else by what was sent."""
    if plan.traffic is not None:
        down, up = plan.traffic()
        return down - before[0], up - before[1]
    down, up = plan.message_bytes
    unread = fold.failed("refused") + fold.failed("late")
    return down * asked, up * unread + sum(t.wire_bytes or up for t in fold.taken)


def _record(
    state: ServerState,
    fold: RoundCollector,
    cohort: Sequence[str],
    plan: Plan,
    before: tuple[int, int],
) -> Record:
    down, up = _bytes(fold, len(cohort), plan, before)
    return {
        "round": state.round,
        "cohort": sorted(cohort),
        "ok": sorted(t.client_id for t in fold.taken),
        "failures": [
            {"client": f.client_id, "kind": f.kind, "reason": f.reason, "detail": f.detail}
            for f in sorted(fold.failures, key=lambda f: f.client_id)
        ],
        "quorum": state.failed_rounds == 0,
        "loss": fold.mean_loss(),
        "steps": sum(t.num_steps for t in fold.taken),
        "critical_path_steps": max((t.num_steps for t in fold.taken), default=0),
        "images_seen": sum(t.images_seen for t in fold.taken),
        "bytes_down": down,
        "bytes_up": up,
    }


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
