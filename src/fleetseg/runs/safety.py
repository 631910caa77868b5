"""Guard training without labels: models are compared with the first on the server's labels.

A model may learn from its own mistakes until it predicts one class everywhere. A run whose
predictions shrink to few classes is ended, and the published model has lost no more than the policy
allows. The sets are those of `[[data.evaluation]]`: they decide which model is published.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fleetseg.clients import FleetData
from fleetseg.config import Experiment, SafetyConfig
from fleetseg.errors import ConfigError
from fleetseg.evaluation.confusion import Conf_CC
from fleetseg.evaluation.scored import Scored
from fleetseg.evaluation.scores import sum_confs
from fleetseg.federation.checkpoint import (
    ServerState,
    list_checkpoints,
    load_newest,
    save_checkpoint,
)
from fleetseg.federation.cluster_models import ClusterModels
from fleetseg.federation.cluster_state import own_states, with_own
from fleetseg.federation.records import RoundRecord
from fleetseg.federation.tensors import ModelState
from fleetseg.learning.supervision import SUPERVISION

FOLDER = "safe"
"""Folder in a run folder: the newest models that may be published."""
COLLAPSED = "collapsed"
UNGUARDED = (
    "nothing watches over training without labels, as the server has no labelled set of its own "
    "([[data.evaluation]]): a model that has collapsed would be published"
)


def learns_without_labels(experiment: Experiment, fleet_data: FleetData) -> bool:
    """Say whether some vehicle learns, or may learn, from images without their labels."""
    supervision = SUPERVISION[experiment.training.supervision]
    there = [e for e in fleet_data.enrolled.values() if not e.abstains]
    may = not supervision.self_taught or not there or any(e.num_pixels == 0 for e in there)
    return supervision.guarded and may


def require_start(experiment: Experiment, *, own_net: bool, self_taught: bool) -> None:
    """Refuse to train a randomly initialised model on its own predictions.

    Raises:
        ConfigError: it has neither start weights nor a first stage.
    """
    has_start = bool(own_net or experiment.model.start or experiment.pretrain.sources)
    if has_start or not self_taught or experiment.training.self_training.from_scratch:
        return
    raise ConfigError(
        "training.supervision = 'self_training' learns from what a model predicts, and this one "
        "begins with random weights",
        cure="Add [[pretrain.sources]] or model.start, or set "
        "training.self_training.from_scratch = true if that is what you want to see",
    )


@dataclass(frozen=True)
class Guard:
    """Compares models with the first one, and keeps the newest that may be published."""

    settings: SafetyConfig
    first: Scored
    first_model: ModelState
    folder: Path
    layout: str  # digest of the model's layout

    def is_safe(self, scored: Scored) -> bool:
        """Say whether a model may be published."""
        lost = (self.first.miou or 0.0) - (scored.miou or 0.0)
        return lost <= self.settings.max_loss and not self.has_collapsed(scored)

    def has_collapsed(self, scored: Scored) -> bool:
        """Say whether predictions have shrunk to few classes."""
        before, now = (class_entropy(s.conf_by_domain) for s in (self.first, scored))
        return now < self.settings.collapse * before

    def why_stop(self, records: Sequence[RoundRecord]) -> str | None:
        """Return the reason to end the run, if there is one; a function of its records alone."""
        newest = next((r.scored for r in reversed(records) if r.scored is not None), None)
        return COLLAPSED if newest is not None and self.has_collapsed(newest) else None

    def keep(
        self,
        model: ModelState,
        round_: int,
        scored: Scored,
        clusters: ClusterModels | None = None,
    ) -> None:
        """Keep a model if it may be published, with its clusters' own tensors."""
        if not self.is_safe(scored):
            return
        state = ServerState(round_, model)
        if clusters is not None:
            state = with_own(state, dict(enumerate(clusters.own)))
        self.folder.mkdir(parents=True, exist_ok=True)
        save_checkpoint(self.folder, state, {}, experiment="", layout=self.layout)

    def kept(self, up_to: int) -> tuple[int, ModelState, tuple[ModelState, ...]]:
        """Return the newest publishable round no later than `up_to`, with its model.

        The third value holds its clusters' own tensors; the first model has none.
        """
        for path in list_checkpoints(self.folder):
            if int(path.stem.removeprefix("round-")) > up_to:
                path.unlink()  # from rounds that a resumed run has rolled back
        if not list_checkpoints(self.folder):
            return 0, self.first_model, ()
        state, _, _ = load_newest(self.folder, experiment="", layout=self.layout)
        return state.round, state.model, own_states(state)

    def note(self, kept: int, last: int, scored: Scored | None) -> str:
        """Say why a model other than the last is published."""
        whose = f"of round {kept}" if kept else "that training started from"
        told = f"the model {whose} is published, not that of round {last}: "
        if scored is None:
            return told + "the latter has not been scored"
        if self.has_collapsed(scored):
            return told + "its predictions have shrunk to few classes (safety.collapse)"
        before, now = self.first.miou or 0.0, scored.miou or 0.0
        return told + f"mIoU {now:.3f}, and {before:.3f} before training (safety.max_loss)"


def class_entropy(confs: Mapping[str, Conf_CC]) -> float:
    """Entropy, in nats, of the predicted class shares over all given confusion matrices.

    >>> round(class_entropy({"rain": np.array([[2, 2], [1, 1]])}), 6)  # log 2
    0.693147
    """
    predicted_C = sum_confs(confs).sum(axis=0).astype(np.float64)
    shares_C = predicted_C[predicted_C > 0] / max(predicted_C.sum(), 1.0)
    return float(-(shares_C * np.log(shares_C)).sum())
