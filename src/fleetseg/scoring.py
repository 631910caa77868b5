"""Scores of the global model: on the server's sets, or on the clients' own frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fleetseg.errors import UpdateRejected
from fleetseg.evaluation.scores import Scores, add_up, score_domains, seen_unseen, sum_confs
from fleetseg.federation.checkpoint import ServerState
from fleetseg.federation.checks import validate_evaluation
from fleetseg.federation.client import Workbench, score_pairs
from fleetseg.federation.engine import Engine
from fleetseg.federation.messages import Broadcast, Evaluation, taking_part
from fleetseg.federation.tensors import ModelState
from fleetseg.study import Study

Conf_CC = npt.NDArray[np.int64]


class Scorer:
    """Scores model states of one run; confusion matrices add, ratios are taken at the end."""

    def __init__(self, study: Study, bench: Workbench, engine: Engine) -> None:
        self._study, self._bench, self._engine = study, bench, engine
        self._held_out = study.holds_out

    @property
    def can_score(self) -> bool:
        """Whether there is anything to score on."""
        return bool(self._study.evaluation) or self._held_out

    def score(self, state: ModelState) -> dict[str, Any]:
        """Score on the server's sets; where it has none, on the clients' held-out frames."""
        if not self._study.evaluation:
            by_client, _ = self._on_clients(state, round_=1)
            return self._summary(add_up(by_client.values()))
        self._bench.tensors.load(state)
        by_set = [
            score_pairs(self._bench, part.pairs, part.domains) for part in self._study.evaluation
        ]
        return self._summary(add_up(by_set))

    def add_clients(self, state: ServerState, scores: dict[str, Any]) -> list[str]:
        """Add every client's own scores to `scores`; returns what was refused."""
        by_client, refused = self._on_clients(state.model, state.round)
        scores["by_client"] = {
            name: Scores.of(sum_confs(confs), self._study.space).to_dict()
            for name, confs in sorted(by_client.items())
        }
        return refused

    def _on_clients(
        self, state: ModelState, round_: int
    ) -> tuple[dict[str, dict[str, Conf_CC]], list[str]]:
        enrolled = taking_part(self._engine.available())
        by_client: dict[str, dict[str, Conf_CC]] = {}
        refused = []
        for reply in self._engine.evaluate(sorted(enrolled), Broadcast(round_, state), 0.0):
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
            by_client[reply.client_id] = dict(reply.conf_by_domain)
        return by_client, refused

    def _summary(self, conf_by_domain: dict[str, Conf_CC]) -> dict[str, Any]:
        space = self._study.space
        summary = Scores.of(sum_confs(conf_by_domain), space).to_dict()
        if len(conf_by_domain) > 1:
            summary["by_domain"] = {
                domain: scores.to_dict()
                for domain, scores in score_domains(conf_by_domain, space).items()
            }
            for side, conf_CC in seen_unseen(conf_by_domain, self._study.seen_domains).items():
                summary[side] = Scores.of(conf_CC, space).to_dict()["miou"]
        return summary
