"""Choices that cannot work together are refused before any data are read, and say what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

import fleetseg
from fleetseg.errors import ConfigError
from fleetseg.experiment_file import make_experiment
from fleetseg.learning.supervision import SUPERVISION, Supervision
from fleetseg.runs.choices import check_choices
from fleetseg.runs.clashes import CLASHES

OTHER_OPTIMISER = ({"training": {"optimiser": "adamw"}}, r"training\.optimiser = 'sgd'")
KEPT = ({"training": {"optimiser_state": "kept"}}, r"use\s'reset'")
HEAD = ({"training": {"head_lr_factor": 10.0}}, r"head_lr_factor = 1")
CLIPPED = ({"training": {"clip_grad_norm": 1.0}}, r"clip_grad_norm = 0")
BY_IMAGES = ({"federation": {"weights": "images"}}, r"weights = 'uniform'")
OTHER_MEAN = ({"federation": {"aggregator": "extrapolated"}}, r"aggregator = 'mean'")
CODEC = ({"federation": {"uplink": "int8"}}, r"uplink = 'none'")
NO_SERVER = ({"federation": {"server_optimiser": "sgd"}}, r"server_optimiser = 'drift'")
DUAL = [BY_IMAGES, OTHER_MEAN, CODEC]
REFUSED: Mapping[str, list[tuple[dict[str, Any], str]]] = {
    "scaffold": [OTHER_OPTIMISER, KEPT, HEAD, CLIPPED, *DUAL],
    "feddc": [OTHER_OPTIMISER, KEPT, HEAD, CLIPPED, *DUAL, NO_SERVER],
    "feddyn": [*DUAL, NO_SERVER, ({"training": {"objective": "plain"}}, "would only add one")],
    "fedcm": [OTHER_OPTIMISER, KEPT, HEAD],
    "fednova": [
        OTHER_OPTIMISER,
        KEPT,
        ({"training": {"objective": "prox", "lr": 0.1, "prox": {"mu": 10.0}}}, "leaps over"),
        (
            {"training": {"objective": "prox", "lr": 0.1, "momentum": 0.99, "prox": {"mu": 5.0}}},
            "some lead back to it",
        ),
        ({"training": {"objective": "scaffold"}, "federation": {"weights": "uniform"}}, "'mean'"),
    ],
    "fedexp": [({"federation": {"uplink": "topk(10%)+int8"}}, "powersgd leave parts")],
    "fedspeed": [
        ({"federation": {"aggregator": "normalised"}}, "beyond the one that its steps"),
        ({"federation": {"weights": "feddg-ga"}}, "puts the one that it sends in its place"),
    ],
    "fedfa": [
        ({"federation": {"clustered_by": "image_gaussian"}}, "fedfa.probability = 0"),
        ({"federation": {"downlink": "int8"}}, "downlink = 'none'"),
    ],
    "qffedavg": [({"federation": {"uplink": "powersgd(2)+int8"}}, "use a codec that does not")],
}
ALLOWED: Mapping[str, list[dict[str, Any]]] = {
    "feddyn": [
        {"training": {"optimiser": "adamw"}},
        {"training": {"clip_grad_norm": 10.0, "optimiser_state": "kept"}},
        {"federation": {"publishing": "ema", "cohort": 2}},
    ],
    "fedcm": [
        {"training": {"clip_grad_norm": 10.0}},
        {"federation": {"weights": "uniform", "server_optimiser": "adam", "server_lr": 0.01}},
    ],
    "fednova": [{"training": {"objective": "prox"}}, {"federation": {"uplink": "topk(10%)"}}],
    "fedexp": [{"federation": {"uplink": "int8"}}, {"federation": {"server_momentum": 0.9}}],
    "fedfa": [
        {"training": {"mixstyle": {"probability": 0.5}, "objective": "sam"}},
        {"federation": {"aggregator": "q-fedavg", "uplink": "int8", "sharing": "body"}},
    ],
    "hyperflaw-queue": [{"training": {"objective": "prox"}}],
    "fedspeed": [{"federation": {"aggregator": "extrapolated"}}],
    "qffedavg": [{"federation": {"uplink": "int8"}}],
}


def each(cases: Mapping[str, list[Any]]) -> list[Any]:
    return [pytest.param(name, case, id=f"{name} {case}") for name in cases for case in cases[name]]


@pytest.mark.parametrize(("name", "case"), each(REFUSED))
def test_it_is_refused_with_its_cure(name: str, case: tuple[dict[str, Any], str]) -> None:
    fields, said = case
    with pytest.raises(ConfigError, match=said):
        fleetseg.run(make_experiment({"method": name, **fields}))


@pytest.mark.parametrize(("name", "fields"), each(ALLOWED))
def test_what_goes_together_is_not(name: str, fields: dict[str, Any]) -> None:
    check_choices(make_experiment({"method": name, **fields}))


def test_each_has_its_own_reason() -> None:
    reasons = [because for _, because in CLASHES]
    assert len(set(reasons)) == len(reasons)


@pytest.mark.parametrize(
    ("federation", "said"),
    [
        ({"weights": "pixels"}, "counts labelled pixels"),
        ({"weights": "inverse class frequency"}, "counts labelled pixels"),
        ({"sampler": "clusters", "cohort": 2}, "goes by the classes"),
        ({"clustered_by": "class mix"}, "go by labels"),
        ({"clustered_by": "loss", "cluster_models": {"count": 2}}, "use a fact of their images"),
    ],
)
def test_what_goes_by_labels_needs_some(
    federation: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_choices(make_experiment({"federation": federation}))
    unlabelled = Supervision(lambda inputs: lambda model, images, labels: None, needs_labels=False)
    monkeypatch.setitem(SUPERVISION, "none", unlabelled)
    with pytest.raises(ConfigError, match=said):
        check_choices(
            make_experiment({"federation": federation, "training": {"supervision": "none"}})
        )


def test_of_no_number_there_is_no_surplus() -> None:
    fields = {"sampler": "poisson", "cohort": 0.5, "over_selection": 1.2}
    with pytest.raises(ConfigError, match="has no number to ask more than"):
        check_choices(make_experiment({"federation": fields}))


PHASES = [{"learns": "head"}, {"learns": "body"}]
SETS = {"evaluation": [{"split": "val"}]}
CASES: list[tuple[dict[str, Any], str]] = [
    ({"method": "fedper", "data": SETS}, "a part that nobody has trained; hold frames"),
    ({"method": "fedrep", "data": SETS}, r"partition\.holdout"),
    ({"federation": {"sharing": "head"}, "data": SETS}, "a part of the network learns"),
    ({"training": {"phases": PHASES, "optimiser_state": "kept"}}, "an optimiser of its own"),
    ({"method": "scaffold", "training": {"phases": PHASES}}, "use one phase"),
    ({"method": "fednova", "training": {"phases": PHASES}}, "use one phase"),
    ({"method": "mimelite", "training": {"phases": PHASES}}, "mean of a round's gradients"),
    ({"method": "ditto", "personal": {"learns": "head"}}, "whole model"),
    ({"federation": {"sharing": "stages"}}, "it names none"),
    ({"federation": {"downlink_start": "int8"}}, "give federation.downlink a codec, too"),
    (
        {"federation": {"downlink": "int8", "downlink_start": "topk(5%)"}},
        "leave parts of the first model",
    ),
    ({"evaluation": {"norms": "banks"}}, "fleetseg evaluate --norms banks"),
    ({"evaluation": {"norms_on_clients": "banks"}}, "filled of a finished model"),
    ({"evaluation": {"norms": "tent"}, "model": {"norm": "group"}}, "nothing has any; use 'runn"),
    ({"evaluation": {"norms_on_clients": "cotta-like"}, "model": {"norm": "group"}}, "test batc"),
    (
        {"training": {"feature_distance": {"weight": 0.005}}, "model": {"norm": "group"}},
        "statistics of ImageNet",
    ),
    ({"federation": {"sharing": "bdy"}}, "Did you mean 'body'"),
    ({"personal": {"model": "dito"}}, r"kind of personal model 'dito'.*Did you mean 'ditto'"),
]


MIX: dict[str, Any] = {"clustered_by": "class mix"}
CLUSTERED: list[tuple[dict[str, Any], str]] = [
    ({"method": "scaffold", "federation": MIX}, "makes several models"),
    ({"method": "feddyn", "federation": MIX}, "one vector for the whole fleet"),
    ({"method": "fedcm", "federation": MIX}, "one vector for the whole fleet"),
    ({"method": "fedexp", "federation": MIX}, "aggregators other than 'mean'"),
    ({"method": "fednova", "federation": MIX}, r"use federation\.aggregator = 'mean'"),
    ({"federation": {**MIX, "downlink": "int8"}}, "one model that all vehicles hold"),
    ({"federation": {**MIX, "statistics": "estimated"}}, "look through one model"),
    ({"federation": MIX, "model": {"adapter_rank": 2}}, "are saved beside it"),
    ({"federation": {**MIX, "cluster_models": {"tensors": "stages"}}}, "and it names none"),
    ({"federation": {"clustered_by": "styles"}}, "has them tell nothing"),
    ({"pretrain": {"style_probability": 1.0}}, "has the server's images take on"),
    ({"federation": {"clustered_by": "loss"}}, r"say how many: federation\.cluster_models"),
    ({"method": "ifca", "federation": {"uplink": "topk(10%)"}}, "may be another cluster's; use a"),
    ({"method": "ifca", "training": {"optimiser_state": "kept"}}, "use 'reset'"),
    ({"method": "ifca", "training": {"objective": "moon"}}, "go by a vehicle's last model"),
    ({"federation": {"clustered_by": "class mx"}}, "Did you mean 'class mix'"),
]


@pytest.mark.parametrize(("fields", "said"), CLUSTERED, ids=[said for _, said in CLUSTERED])
def test_clusters_with_what_is_of_one_model(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_choices(make_experiment(fields))


def test_what_goes_within_clusters_is_not_refused() -> None:
    """Optimisers, ways to publish, pooled statistics, weights, codecs, and what clients keep."""
    together = {"server_optimiser": "adam", "publishing": "swa", "statistics": "pooled"}
    more = {"weights": "feddg-ga", "uplink": "topk(10%)+int8"}
    kept = {"optimiser_state": "kept", "objective": "moon"}
    check_choices(make_experiment({"federation": {**MIX, **together, **more}, "training": kept}))
    check_choices(make_experiment({"method": "ifca", "federation": {**together, "uplink": "int8"}}))
    taught = {"supervision": "self_training", "self_training": {"teacher": "ema", "distil": 1.0}}
    by_images = {**MIX, "clustered_by": "image_gaussian"}
    check_choices(make_experiment({"federation": by_images, "training": taught}))


@pytest.mark.parametrize(("fields", "said"), CASES, ids=[said for _, said in CASES])
def test_parts_and_personal_models_that_cannot_work(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_choices(make_experiment(fields))


def test_a_head_that_nobody_trains_may_be_scored_by_the_server() -> None:
    """It is the same everywhere: FedBABU's global model is one."""
    check_choices(make_experiment({"method": "fedbabu", "data": SETS}))
    one_phase = {"training": {"phases": [{"learns": "body"}], "optimiser_state": "kept"}}
    check_choices(make_experiment(one_phase))


STYLES: list[tuple[dict[str, Any], str]] = [
    ({"kind": "lab", "noise": 1.0, "per": "image"}, "use 'client'"),
    ({"kind": "cfsi", "noise": 1.0}, "use 'fda' or 'lab'"),
    ({"kind": "fda", "fda": {"window": 24}}, "images of data.size have not"),
    ({"kind": "cfsi", "cfsi": {"share": 0.25}, "per": "image"}, "give more"),
    ({"kind": "fda", "per": "image", "images": 4096}, "give more"),
]


@pytest.mark.parametrize(("style", "said"), STYLES, ids=[said for _, said in STYLES])
def test_styles_that_cannot_be_told(style: dict[str, Any], said: str) -> None:
    described = make_experiment({"data": {"size": [48, 64]}, "training": {"style": style}})
    with pytest.raises(ConfigError, match=said):
        check_choices(described)


def test_styles_that_can() -> None:
    for style in (
        {"kind": "none", "noise": 1.0, "per": "image"},
        {"kind": "lab", "per": "image", "images": 4096},
        {"kind": "lab", "noise": 1.0},
        {"kind": "fda", "fda": {"window": 23}},
        {"kind": "cfsi"},
    ):
        check_choices(make_experiment({"data": {"size": [48, 64]}, "training": {"style": style}}))


UNLABELLED = {"method": "fedavg-selftraining"}
WITHOUT_LABELS: list[tuple[dict[str, Any], str]] = [
    ({"federation": {"weights": "pixels"}}, "counts labelled pixels"),
    ({"federation": {"weights": "inverse class frequency"}}, "counts labelled pixels"),
    ({"federation": {"weights": "feddg-ga"}}, "losses of pseudo-labels"),
    ({"federation": {"aggregator": "q-fedavg"}}, "losses of pseudo-labels"),
    ({"federation": {"sampler": "oort"}}, "losses of pseudo-labels"),
    ({"federation": {"sampler": "power of choice"}}, "losses of pseudo-labels"),
    ({"federation": {"sampler": "clusters"}}, "goes by the classes"),
    ({"federation": {"downlink": "int8"}}, "teachers beside it"),
    ({"partition": {"kind": "dirichlet", "clients": 2}}, "by their labels"),
    ({"training": {"class_weights": "fleet"}}, "come from labels"),
    ({"training": {"class_weights": "local"}}, "come from labels"),
    ({"training": {"calibration": "fedlc"}}, "by how many pixels"),
    ({"training": {"objective": "moon"}}, "pixels of a class"),
]


@pytest.mark.parametrize(("fields", "said"), WITHOUT_LABELS)
def test_what_goes_by_labels_or_losses_is_refused_without_labels(
    fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        check_choices(make_experiment({**UNLABELLED, **fields}))


def test_a_teacher_that_is_the_broadcast_goes_with_any_downlink() -> None:
    every = {"training": {"self_training": {"every": 1}}, "federation": {"downlink": "int8"}}
    check_choices(make_experiment({**UNLABELLED, **every}))


CARRIED: dict[str, Any] = {"method": "fl-uda", "pretrain": {"sources": [{"cities": ["amber"]}]}}
TWO_HEADS: list[tuple[dict[str, Any], str]] = [
    ({"pretrain": {}}, r"pretrain\.sources names none"),
    ({"engine": {"kind": "fleet"}}, "have only their own"),
    ({"training": {"objective": "scaffold"}, "federation": {"weights": "uniform"}}, "three kinds"),
    ({"training": {"objective": "sam"}}, "three kinds of steps"),
    ({"training": {"phases": [{"learns": "body"}]}}, r"leave training\.phases out"),
    ({"federation": {"aggregator": "normalised"}}, "moves in some of them only"),
    ({"personal": {"model": "ditto"}}, "for the server's images as well"),
    ({"personal": {"model": "fine-tuned"}}, "for the server's images as well"),
    ({"federation": {"weights": "feddg-ga"}}, "how far two heads differ"),
    ({"federation": {"sampler": "oort"}}, "how far two heads differ"),
    ({"federation": {"weights": "pixels"}}, "counts labelled pixels"),
    ({"federation": {"clustered_by": "class mix"}}, "go by labels"),
    ({"partition": {"kind": "dirichlet", "clients": 2}}, "by their labels"),
    ({"training": {"class_weights": "fleet"}}, "come from labels"),
    ({"training": {"calibration": "fedlc"}}, "by how many pixels"),
    ({"training": {"objective": "moon"}}, "pixels of a class"),
    ({"training": {"feature_distance": {"weight": 0.005}}}, "on parts of it"),
    ({"training": {"fedfa": {"probability": 0.5}}}, "the server's images as well"),
]


@pytest.mark.parametrize(("fields", "said"), TWO_HEADS)
def test_what_does_not_go_with_three_kinds_of_steps(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_choices(make_experiment({**CARRIED, **fields}))


def test_what_goes_with_them() -> None:
    training = {"objective": "prox", "optimiser": "adamw", "optimiser_state": "kept"}
    federation = {"sharing": "silobn", "uplink": "topk(10%)+int8", "server_optimiser": "adam"}
    check_choices(make_experiment({**CARRIED, "training": training, "federation": federation}))
