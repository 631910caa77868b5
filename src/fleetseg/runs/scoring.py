"""Scores of the global model: on the server's sets, or on the clients' own frames."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fleetseg.errors import UpdateRejected
from fleetseg.evaluation.scores import Scores, add_up, score_domains, seen_unseen, sum_confs
from fleetseg.federation.checkpoint import ServerState
from fleetseg.federation.checks import validate_evaluation
from fleetseg.federation.client import LocalRuntime, score_pairs
from fleetseg.federation.engine import Engine
from fleetseg.federation.messages import Broadcast, Evaluation, taking_part
from fleetseg.federation.tensors import ModelState
from fleetseg.clients import FleetData

Conf_CC = npt.NDArray[np.int64]
_ByClient = dict[str, dict[str, Conf_CC]]


class Scorer:
    """Scores model states of one run; confusion matrices add, ratios are taken at the end.

    Scores say what they were taken on: `scored_on` names the server's sets or the clients that
    answered, `missing` the clients whose frames an earlier score, or this one, should have had.
    Scores of different frames do not compare.
    """

    def __init__(self, fleet_data: FleetData, runtime: LocalRuntime, engine: Engine) -> None:
        self._fleet_data, self._bench, self._engine = fleet_data, runtime, engine

    @property
    def can_score(self) -> bool:
        """Whether there are test frames."""
        return bool(self._fleet_data.evaluation) or self._fleet_data.holds_out

    def score(self, state: ModelState, scored_before: Collection[str] = ()) -> dict[str, Any]:
        """Score on the server's sets; where it has none, on the clients' held-out frames.

        `scored_before` names the clients that earlier scores of the run were taken on. Returns
        {"unscored": why} if no client answered.
        """
        if not self._fleet_data.evaluation:
            return self._score_on_clients(state, scored_before)
        self._bench.tensors.load(state)
        by_set = [score_pairs(self._bench, part.scored) for part in self._fleet_data.evaluation]
        names = [part.name for part in self._fleet_data.evaluation]
        return {"scored_on": names, "missing": [], **self._summary(add_up(by_set))}

    def _score_on_clients(self, state: ModelState, before: Collection[str]) -> dict[str, Any]:
        by_client, refused = self._on_clients(state, round_=1)
        missing = sorted({*before, *self._with_test_frames()} - set(by_client))
        if not by_client:
            return {"unscored": "; ".join(refused[:3]) or "no client with test frames is there"}
        summary = self._summary(add_up(by_client.values()))
        return {"scored_on": sorted(by_client), "missing": missing, **summary}

    def by_client(self, state: ServerState) -> tuple[dict[str, Any], list[str]]:
        """Score on every client's own frames; returns what to add to scores, and what is amiss."""
        by_client, refused = self._on_clients(state.model, state.round)
        scores = {
            name: Scores.of(sum_confs(confs), self._fleet_data.space).to_dict()
            for name, confs in sorted(by_client.items())
        }
        frames = "held-out frames" if self._fleet_data.holds_out else "training frames"
        return {"by_client": scores, "by_client_on": frames}, refused

    def _with_test_frames(self) -> list[str]:
        enrolled = taking_part(self._engine.available())
        return sorted(name for name, e in enrolled.items() if e.num_test_pixels > 0)

    def _on_clients(self, state: ModelState, round_: int) -> tuple[_ByClient, list[str]]:
        enrolled = self._engine.available()
        by_client: _ByClient = {}
        refused = []
        asked = self._with_test_frames()
        for reply in self._engine.evaluate(asked, Broadcast(round_, state), 0.0):
            if not isinstance(reply, Evaluation):
                refused.append(f"no scores from {reply.client_id}: {reply.reason}")
                continue
            try:
                validate_evaluation(
                    reply,
                    round_=round_,
                    num_classes=self._bench.num_classes,
                    max_pixels=enrolled[reply.client_id].num_test_pixels,
                )
            except UpdateRejected as rejected:
                refused.append(f"scores of {reply.client_id} refused: {rejected}")
                continue
            if reply.conf_by_domain:
                by_client[reply.client_id] = dict(reply.conf_by_domain)
        return by_client, refused

    def _summary(self, conf_by_domain: Mapping[str, Conf_CC]) -> dict[str, Any]:
        space, seen = self._fleet_data.space, self._fleet_data.seen_domains
        summary = Scores.of(sum_confs(conf_by_domain), space).to_dict()
        if len(conf_by_domain) > 1:
            summary["by_domain"] = {
                domain: scores.to_dict()
                for domain, scores in score_domains(conf_by_domain, space).items()
            }
            for side, conf_CC in seen_unseen(conf_by_domain, seen).items() if seen else ():
                summary[side] = Scores.of(conf_CC, space).to_dict()["miou"]
        return summary
