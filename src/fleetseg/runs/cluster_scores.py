"""Score the clusters' models on the server's sets: each on all images, and each on its own.

Where an image can be placed among the vehicles (clusters formed from reported image features), it
is given to the model of the nearest cluster, and that score is the headline. Otherwise the headline
is the model whose cluster-specific tensors are replaced by their mean over clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from fleetseg.clients import EvaluationSet
from fleetseg.data.sample import Image_HWC, Label_HW, Pairs, ScoredPairs
from fleetseg.evaluation.confusion import Conf_CC
from fleetseg.evaluation.norms import Norms
from fleetseg.evaluation.predict import OnImage
from fleetseg.evaluation.scored import ClusterScores
from fleetseg.evaluation.scores import add_up, sum_confs
from fleetseg.federation.client import LocalRuntime
from fleetseg.federation.cluster_models import ClusterModels
from fleetseg.federation.tasks.evaluate import score_pairs

MEAN = "the mean of the clusters' models, each weighted by its vehicles"
NEAREST = "the model of the nearest cluster, for each image"
OWN = "the model of its own cluster, on each vehicle"


@dataclass(frozen=True)
class OnServer:
    """Scores of clusters; where images were routed, also the headline's by set and domain."""

    scores: ClusterScores
    routed: list[dict[str, Conf_CC]] | None


def score_clusters(
    runtime: LocalRuntime,
    clusters: ClusterModels,
    sets: Sequence[EvaluationSet],
    norms: Norms,
    on_image: Sequence[OnImage],
) -> OnServer:
    """Score every cluster's model on all of the server's frames, and on those nearest to it.

    The `on_image` callback of each set receives every image as the nearest cluster's model scores
    it.
    """
    routes = [_routes(clusters, part.scored) for part in sets] if clusters.routes_images else []
    routed: list[dict[str, Conf_CC]] = []
    confs, counts = [], []
    for k in range(len(clusters.own)):
        runtime.whole.load(clusters.model(k))
        by_set = [score_pairs(runtime, part.scored, norms) for part in sets]
        confs.append(sum_confs(add_up(by_set)))
        near = [
            (_some(part.scored, chosen), partial(_passed_on, told, chosen))
            for part, told, route in zip(sets, on_image, routes, strict=False)
            for chosen in [tuple(i for i, cluster in enumerate(route) if cluster == k)]
            if chosen
        ]
        counts.append(sum(len(scored) for scored, _ in near))
        routed += [score_pairs(runtime, scored, norms, told) for scored, told in near]
    headline = NEAREST if routes else MEAN
    given = tuple(counts) if routes else ()
    scores = ClusterScores(headline, clusters.members, tuple(confs), given)
    return OnServer(scores, routed if routes else None)


def on_own_clusters(clusters: ClusterModels | None) -> ClusterScores | None:
    """Say which models the scores on vehicles were taken with, if there are clusters."""
    return None if clusters is None else ClusterScores(OWN, clusters.members)


def _routes(clusters: ClusterModels, scored: ScoredPairs) -> list[int]:
    return [clusters.cluster_of_image(scored.pairs[i][0]) for i in range(len(scored))]


def _passed_on(told: OnImage, chosen: Sequence[int], index: int, conf_CC: Conf_CC) -> None:
    told(chosen[index], conf_CC)


def _some(scored: ScoredPairs, chosen: tuple[int, ...]) -> ScoredPairs:
    """Return the pairs that are routed to a cluster."""
    return ScoredPairs(_Chosen(scored.pairs, chosen), tuple(scored.domains[i] for i in chosen))


@dataclass(frozen=True)
class _Chosen:
    """Some pairs of many, read on access."""

    pairs: Pairs
    chosen: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> tuple[Image_HWC, Label_HW]:
        return self.pairs[self.chosen[index]]
