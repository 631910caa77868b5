"""The end of a run: its final model is scored and saved, and its log is closed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from fleetseg.evaluation.scored import Scored
from fleetseg.federation.messages import taking_part
from fleetseg.federation.plan import Plan
from fleetseg.federation.records import RoundRecord
from fleetseg.federation.tensors import ModelState
from fleetseg.learning.adapters import merge_adapters
from fleetseg.models.cluster_files import Tensors
from fleetseg.models.folder import save_model
from fleetseg.models.second_head import PREFIX, drop_second_head
from fleetseg.runs.estimating import Estimator
from fleetseg.runs.folder import RunFolder
from fleetseg.runs.model_record import model_record
from fleetseg.runs.records import RunEnd
from fleetseg.runs.safety import Guard
from fleetseg.runs.scoring import Scorer
from fleetseg.runs.setup import RunSetup
from fleetseg.text import listing


@dataclass
class Final:
    """The scores of a run's final model: the newest there are."""

    scored: Scored | None = None
    round: int = 0
    estimator: Estimator | None = None  # of the final model's statistics, if they are estimated
    guard: Guard | None = None  # decides which model may be published; None = always the last
    notes: list[str] = field(default_factory=list)  # why it is not the last model

    def take(self, records: Sequence[RoundRecord]) -> None:
        """Take the scores of the newest scored round, unless these are newer."""
        for record in records:
            if record.scored is not None and record.round > self.round:
                self.scored, self.round = record.scored, record.round


def score_final(final: Final, folder: RunFolder, scorer: Scorer, plan: Plan) -> list[str]:
    """Score the final model if its round was not scored; add the clients' own scores if wanted."""
    notes = []
    final.take(folder.records)
    model, round_ = plan.refined(folder.state, folder.records), folder.state.round
    clusters = plan.cluster_models(folder.state)
    notes += final.estimator.notes() if final.estimator else []
    if scorer.can_score and final.round != round_:
        scored = plan.scored(model, folder.state, folder.records)
        if isinstance(scored, str):
            notes.append(f"the final model has no scores: {scored}")
        else:
            final.scored, final.round = scored, round_
    if final.scored and (missing := final.scored.missing):
        notes.append(f"scored without {listing(missing)}: not comparable with the other rounds")
    of_this_model = final.scored if final.round == round_ else None
    if scorer.scores_own_models:
        if of_this_model and of_this_model.personal:
            return notes
        final.scored, refused = scorer.with_personal(
            of_this_model, model, round_, folder.records, folder.state.facts, clusters
        )
    elif plan.experiment.evaluation.on_clients:
        final.scored, refused = scorer.with_clients(
            of_this_model, model, round_, folder.records, clusters
        )
    else:
        return notes
    final.round = round_
    return notes + refused


def _rolled_back(final: Final, setup: RunSetup) -> tuple[ModelState, tuple[ModelState, ...]] | None:
    """Return an earlier model if the last may not be published; its scores become the final ones.

    A last model without known scores may not be published. The earlier model comes with its
    clusters' own tensors.
    """
    guard, last = final.guard, setup.folder.state.round
    if guard is None or last == 0:
        return None
    scored = final.scored if final.round == last else None
    if scored is not None and guard.is_safe(scored):
        return None
    round_, model, own = guard.kept(last)
    final.notes.append(guard.note(round_, last, scored))
    by_round = {record.round: record.scored for record in setup.folder.records}
    final.scored, final.round = by_round.get(round_) or guard.first, round_
    return model, own


def _record(final: Final, setup: RunSetup) -> dict[str, object]:
    there = taking_part(setup.fleet_data.enrolled)
    images = {client: enrolment.num_images for client, enrolment in there.items()}
    records = setup.folder.records
    return model_record(setup.experiment, records, final.scored, final.round, images)


def _saved(tensors: Tensors) -> Tensors:
    """Leave out tensors of a second head, which a saved model has not."""
    return {key: value for key, value in tensors.items() if not key.startswith(PREFIX)}


def save_final(final: Final, setup: RunSetup, plan: Plan, reason: str, seconds: float) -> str:
    """Save the last committed model and close the log."""
    runtime, state = setup.runtime, setup.folder.state
    final.take(setup.folder.records)
    clusters = plan.cluster_models(state)
    details: dict[str, object] = {"rounds": state.round, "experiment": setup.experiment.name}
    refined = None
    if final.estimator is not None:
        refined = final.estimator.newest(state.round)  # None: the run was interrupted before
        details["norm statistics"] = "means of updates" if refined is None else "estimated"
    model = refined or plan.published(state)
    if (earlier := _rolled_back(final, setup)) is not None:
        model, own = earlier
        clusters = clusters.rolled_back(model, own) if clusters else None
    runtime.whole.load(model)
    drop_second_head(runtime.model)
    merge_adapters(runtime.model)
    untrained = runtime.exchange.untrained(setup.experiment.training)
    sha256 = save_model(
        runtime.model,
        setup.folder.path / "model",
        space=setup.fleet_data.space,
        size_hw=setup.experiment.data.size,
        details=details,
        untrained=[key for key in untrained if not key.startswith(PREFIX)],
        clusters=[] if clusters is None else [*map(_saved, clusters.tensors())],
        record=_record(final, setup),
    )
    end = RunEnd(reason, state.round, seconds, final.scored, final.round, sha256)
    setup.folder.finish(end)
    return sha256
