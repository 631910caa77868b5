"""Runs of clusters: what the model of each scores, which image is given to which, what is saved."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.toys.supervision import TOY_ENTROPY
from torch import nn

import fleetseg
from fleetseg.config import Experiment
from fleetseg.data.labels import LabelSpace
from fleetseg.errors import ModelError
from fleetseg.evaluation.scored import Scored
from fleetseg.experiment_file import make_experiment
from fleetseg.federation.records import RoundRecord
from fleetseg.federation.rounds import Watcher
from fleetseg.learning.supervision import SUPERVISION
from fleetseg.rng import generator
from fleetseg.runs.cluster_scores import MEAN, NEAREST, OWN
from fleetseg.runs.image_counts import read_counts
from fleetseg.runs.kept_frames import read_frames, read_seen

TWO = LabelSpace("two", ("first", "second"), ((0, 0, 0), (255, 255, 255)), ("second",))
Pair = tuple[np.ndarray, np.ndarray]
DARK, BRIGHT = 0.25, 0.75  # shares of bright pixels: what an image is known by
STYLES = {"clustered_by": "image_gaussian", "cluster_models": {"count": 2}}
LOSS = {"clustered_by": "loss", "cluster_models": {"count": 2}}


def pair(share: float, seed: int) -> Pair:
    """An image of bright and dark pixels: in dark images bright is the second class, else dark."""
    draw = generator(seed, purpose=f"pixels {share}")
    bright_HW = draw.random((16, 16)) < share
    image_HWC = np.where(bright_HW, 200, 40)[..., None].repeat(3, axis=2).astype(np.uint8)
    return image_HWC, (bright_HW == (share == DARK)).astype(np.uint8)


def pairs(share: float, seed: int, count: int = 2) -> list[Pair]:
    return [pair(share, 10 * seed + k) for k in range(count)]


CLIENTS = {
    "a": pairs(DARK, 1), "b": pairs(BRIGHT, 2, 3), "c": pairs(DARK, 3, 4), "d": pairs(BRIGHT, 4),
}  # fmt: skip
TESTS = {"dark": pairs(DARK, 5, 3), "bright": pairs(BRIGHT, 6)}
MIXED = {"mixed": [*TESTS["dark"], *TESTS["bright"]]}


def net() -> nn.Module:
    """A linear rule of brightness: it cannot be both."""
    with fleetseg.rng.torch_default(0, purpose="linear"):
        return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


def described(federation: Mapping[str, Any] | None = None, **sections: Any) -> Experiment:
    training = {"batch_size": 2, "lr": 0.2, "local_epochs": 4, **sections.pop("training", {})}
    return make_experiment(
        {
            "data": {"size": [16, 16]},
            "training": training,
            "federation": {"rounds": 4, **(federation or {})},
            "engine": {"kind": "inprocess", "device": "cpu", "precision": "fp32"},
            "evaluation": {"every": 0},
            **sections,
        }
    )


def go(
    out: Path,
    federation: Mapping[str, Any] | None = None,
    clients: Mapping[str, list[Pair]] = CLIENTS,
    evaluation: Mapping[str, list[Pair]] | None = MIXED,
    **more: Any,
) -> fleetseg.Run:
    sections = {
        name: more.pop(name) for name in ("training", "evaluation_", "engine") if name in more
    }
    if "evaluation_" in sections:
        sections["evaluation"] = sections.pop("evaluation_")
    return fleetseg.run(
        described(federation, **sections),
        net=net(), clients=clients, evaluation=evaluation, space=TWO, out=out, **more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def styled(folder: Path) -> fleetseg.Run:
    return go(folder / "styled", STYLES)


@pytest.fixture(scope="module")
def one_model(folder: Path) -> fleetseg.Run:
    return go(folder / "one")


def scores_of(run: fleetseg.Run) -> Scored:
    assert run.scores is not None
    return run.scores


def test_each_image_is_given_to_the_model_of_the_nearest_cluster(
    styled: fleetseg.Run, one_model: fleetseg.Run
) -> None:
    clusters = scores_of(styled).clusters
    assert clusters is not None
    assert clusters.members == {"a": 0, "b": 1, "c": 0, "d": 1}
    assert (clusters.headline, clusters.routed) == (NEAREST, (3, 2))
    assert styled.miou == pytest.approx(1.0)
    assert one_model.miou is not None
    assert one_model.miou < 0.8
    # Each on all frames: right where it is at home, wrong elsewhere.
    right = [int(conf_CC.trace()) for conf_CC in clusters.conf_by_cluster]
    assert right == [3 * 256, 2 * 256]


def test_frames_are_kept_as_the_model_of_their_cluster_sees_them(styled: fleetseg.Run) -> None:
    frames, seen = read_frames(styled.folder), read_seen(styled.folder)[4]
    assert len(frames) == len(seen) == 5
    assert [each.wrong for each in seen] == [0.0] * 5
    for frame, each in zip(frames, seen, strict=True):
        assert each.by == f"the model of cluster {1 if frame.index < 3 else 2}"


def test_single_images_add_up_to_what_is_scored(styled: fleetseg.Run) -> None:
    counts, overall = read_counts(styled.folder), scores_of(styled).overall
    assert counts is not None
    assert overall is not None
    conf_CC = overall.conf_CC
    wanted = [np.diag(conf_CC), conf_CC.sum(axis=1), conf_CC.sum(axis=0)]
    assert (counts.parts_N3C.sum(axis=0) == wanted).all()
    assert (counts.parts_N3C[:, 1].sum(axis=1) == 256).all()  # each at its own place


def test_what_is_recorded_reads_back(styled: fleetseg.Run) -> None:
    scores = scores_of(styled)
    again = Scored.from_dict(scores.to_dict(), TWO)
    assert again.to_dict() == scores.to_dict()
    assert scores.to_dict()["clusters"]["routed"] == [3, 2]
    assert styled.records[-1].clusters == {"a": 0, "b": 1, "c": 0, "d": 1}
    record = styled.records[-1]
    assert RoundRecord.from_dict(record.to_dict(), TWO).clusters == record.clusters


def test_without_a_place_for_images_the_headline_is_the_mean(folder: Path) -> None:
    run = go(folder / "mean", {"clustered_by": "class mix", "cluster_models": {"count": 2}})
    clusters = scores_of(run).clusters
    assert clusters is not None
    assert (clusters.headline, clusters.routed) == (MEAN, ())
    assert len(clusters.conf_by_cluster) == 2


def test_known_clusters_of_all_tensors_are_runs_of_their_own(
    styled: fleetseg.Run, folder: Path
) -> None:
    for k, names in enumerate(("ac", "bd")):
        alone = go(folder / names, clients={name: CLIENTS[name] for name in names})
        theirs = load_file(alone.folder / "model" / "model.safetensors")
        ours = load_file(styled.folder / "model" / f"cluster-{k}.safetensors")
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize("chosen", [STYLES, LOSS], ids=["fact", "loss"])
def test_one_cluster_is_fedavg(
    chosen: dict[str, Any], folder: Path, one_model: fleetseg.Run
) -> None:
    one = {**chosen, "cluster_models": {"count": 1}}
    run = go(folder / f"one by {chosen['clustered_by']}", one)
    assert run.model_sha256 == one_model.model_sha256
    assert run.miou == one_model.miou


def test_workers_and_a_resumed_run_make_the_same(styled: fleetseg.Run, folder: Path) -> None:
    def crash(record: RoundRecord) -> None:
        if record.round == 2:
            raise RuntimeError("power failure")

    out = folder / "resumed"
    workers = {"kind": "workers", "workers": 2, "device": "cpu", "precision": "fp32"}
    with pytest.raises(RuntimeError, match="power failure"):
        go(out, STYLES, engine=workers, watcher=Watcher(round_closed=crash))
    again = go(out, STYLES, resume=True)
    assert again.model_sha256 == styled.model_sha256
    assert scores_of(again).to_dict() == scores_of(styled).to_dict()
    for k in range(2):
        name = f"model/cluster-{k}.safetensors"
        assert (again.folder / name).read_bytes() == (styled.folder / name).read_bytes()


@pytest.fixture(scope="module")
def by_loss(folder: Path) -> fleetseg.Run:
    own_frames = {"every": 0, "on_clients": True}
    federation = {**LOSS, "rounds": 6}
    return go(folder / "loss", federation, evaluation=None, evaluation_=own_frames)


def test_vehicles_that_choose_come_to_both_rules(by_loss: fleetseg.Run) -> None:
    clusters = scores_of(by_loss).clusters
    assert clusters is not None
    assert clusters.headline == OWN
    of = clusters.members
    assert of["a"] == of["c"] != of["b"] == of["d"]
    assert by_loss.records[-1].clusters == of
    for client, scores in scores_of(by_loss).by_client.items():
        assert scores.miou == pytest.approx(1.0), client


def test_bytes_down_are_those_of_all_that_is_chosen_from(
    by_loss: fleetseg.Run, one_model: fleetseg.Run, folder: Path
) -> None:
    """The values of one more model for each vehicle; up, an update is as large as ever."""
    first, alone = by_loss.records[0], one_model.records[0]
    floats = sum(p.numel() for p in net().state_dict().values() if p.is_floating_point())
    more = first.bytes_down - alone.bytes_down
    assert more >= 4 * (4 * floats + 8)
    assert more < 4 * (4 * floats + 8 + 4096)  # and their names
    assert first.bytes_up == alone.bytes_up
    styled = go(folder / "bytes", {**STYLES, "rounds": 1})
    assert styled.records[0].bytes_down == alone.bytes_down


def test_labels_of_vehicles_that_have_none_are_not_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Poisoned labels: the same clusters and the same model."""
    monkeypatch.setitem(SUPERVISION, "toy entropy", TOY_ENTROPY)
    poisoned = {
        client: [(image, generator(k, purpose=client).integers(0, 2, (16, 16), np.uint8))
                 for k, (image, _) in enumerate(own)]
        for client, own in CLIENTS.items()
    }  # fmt: skip
    runs = [
        go(folder / f"labels-{k}", STYLES, clients, training={"supervision": "toy entropy"})
        for k, clients in enumerate((CLIENTS, poisoned))
    ]
    assert runs[0].model_sha256 == runs[1].model_sha256
    assert runs[0].records[-1].clusters == runs[1].records[-1].clusters


def test_a_cluster_s_model_is_loaded_evaluated_and_predicted_with(styled: fleetseg.Run) -> None:
    for k, (right, wrong) in enumerate((("dark", "bright"), ("bright", "dark"))):
        model = fleetseg.load_model(styled.folder, net(), cluster=k)
        assert fleetseg.evaluate(model, {"own": TESTS[right]}).miou == pytest.approx(1.0)
        assert fleetseg.evaluate(model, {"other": TESTS[wrong]}).miou < 0.1
    assert len(load_file(styled.folder / "model" / "cluster-0.safetensors")) == 9
    card = (styled.folder / "model" / "README.md").read_text()
    assert "cluster=0" in card


def test_a_cluster_that_there_is_not_is_told(styled: fleetseg.Run, one_model: fleetseg.Run) -> None:
    for number in (2, -1):
        with pytest.raises(ModelError, match=r"no such cluster.*got.*expected 0\.\.1"):
            fleetseg.load_model(styled.folder, net(), cluster=number)
    with pytest.raises(ModelError, match="Leave the cluster out"):
        fleetseg.load_model(one_model.folder, net(), cluster=0)
    with pytest.raises(ModelError, match=r"load_model\(path, cluster="):
        fleetseg.evaluate(fleetseg.load_model(styled.folder, net()), TESTS, cluster=1)


def test_a_damaged_cluster_file_is_told(styled: fleetseg.Run, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "model"
    shutil.copytree(styled.folder / "model", copy)
    shutil.copy(copy / "cluster-1.safetensors", copy / "cluster-0.safetensors")
    with pytest.raises(ModelError, match="does not belong to this model"):
        fleetseg.load_model(copy, net(), cluster=0)
    (copy / "cluster-1.safetensors").unlink()
    with pytest.raises(ModelError, match="is missing"):
        fleetseg.load_model(copy, net(), cluster=1)
    fleetseg.load_model(copy, net())  # the fleet's own is whole
