"""Statistics that are estimated on the clients: those of all their images, in any division."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

import fleetseg
from fleetseg import rng
from fleetseg.data.labels import LabelSpace
from fleetseg.errors import ConfigError, UpdateRejected
from fleetseg.experiment_file import make_experiment
from fleetseg.federation.checks import validate_norm_report
from fleetseg.federation.client import Client, LocalRuntime
from fleetseg.federation.messages import Broadcast, Enrolment, Failure, NormReport, Reply
from fleetseg.federation.records import RoundRecord
from fleetseg.federation.replies import read_reply, write_reply
from fleetseg.federation.rounds import Watcher
from fleetseg.federation.tasks import CLIENT_TASKS
from fleetseg.federation.tasks.norm_statistics import client_norm_statistics
from fleetseg.models.norm_statistics import NormSums
from fleetseg.runs.choices import check_choices
from fleetseg.runs.estimating import _Sums
from fleetseg.runs.option_notes import option_notes
from fleetseg.runs.rules import Facts

SPACE = LabelSpace("two", ("road", "car"), ((0, 0, 0), (9, 9, 9)), ("car",))
Pairs = list[tuple[np.ndarray, np.ndarray]]


def pairs(count: int = 12) -> Pairs:
    draw = rng.generator(0, purpose="estimating")
    images = draw.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    images = (images * np.linspace(0.2, 1, count).reshape(-1, 1, 1, 1)).astype(np.uint8)
    return [(image, (image[..., 0] > 90).astype(np.uint8)) for image in images]


def net() -> nn.Module:
    with rng.torch_default(0, purpose="estimating"):
        return nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3),
            nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2),
        )  # fmt: skip


def described(statistics: str = "estimated", **sections: Any) -> fleetseg.Experiment:
    fields: dict[str, Any] = {
        "data": {"size": [8, 8]},
        "training": {"batch_size": 4, "scale": [1.0, 1.0], "lr": 0.1},
        "federation": {"rounds": 3, "statistics": statistics},
        "engine": {"kind": "inprocess", "precision": "fp32"},
    }
    for name, section in sections.items():
        fields[name] = {**fields.get(name, {}), **section}
    return make_experiment(fields)


def run(clients: dict[str, Pairs], out: Path, **given: Any) -> fleetseg.Run:
    experiment = given.pop("experiment", None) or described()
    scored = given.pop("evaluation", {"set": pairs()[:3]})
    return fleetseg.run(
        experiment, net=net(), clients=clients, evaluation=scored, space=SPACE, out=out, **given
    )


def values(run_: fleetseg.Run) -> dict[str, torch.Tensor]:
    return run_.model_with(net()).net.state_dict()


def test_of_one_client_they_are_torch_s_update_bn_but_for_what_differs_between_batches(
    tmp_path: Path,
) -> None:
    found = values(run({"a": pairs()}, tmp_path / "run"))
    theirs = net()
    theirs.load_state_dict(found)
    theirs[3].p = 0.0
    mean, std = (
        torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    batch = torch.stack([torch.from_numpy(i).permute(2, 0, 1) / 255 for i, _ in pairs()])
    normalised = (batch - mean) / std
    update_bn(list(normalised.split(4)), theirs)
    with torch.no_grad():
        features = theirs[0](normalised).permute(1, 0, 2, 3).flatten(1)
    for layer in ("1", "5"):
        key = f"{layer}.running_mean"
        torch.testing.assert_close(found[key], theirs.state_dict()[key], rtol=1e-4, atol=1e-5)
    # Of the first layer, whose input no norm has touched, they are torch's of all values at once.
    torch.testing.assert_close(found["1.running_var"], features.var(1), rtol=1e-4, atol=1e-5)
    ours, torchs = found["1.running_var"], theirs.state_dict()["1.running_var"]
    assert (ours > 1.05 * torchs).all()


def test_all_else_is_what_it_would_be_and_each_division_gives_the_same(tmp_path: Path) -> None:
    """The first layer's do not depend on who holds which image."""
    clients = {"a": pairs()[:3], "b": pairs()[3:]}
    plain = values(run(clients, tmp_path / "plain", experiment=described("mean")))
    found = values(run(clients, tmp_path / "estimated"))
    for key, value in plain.items():
        assert torch.equal(value, found[key]) == ("running" not in key), key
    again = values(run(dict(reversed(clients.items())), tmp_path / "again"))
    assert all(torch.equal(again[key], found[key]) for key in found)


@pytest.mark.parametrize(
    ("statistics", "publishing"), [("estimated", "last"), ("estimated", "swa"), ("pooled", "last")]
)
@pytest.mark.parametrize("kind", ["inprocess", "workers"])
def test_everywhere_and_after_a_crash_the_same_bits(
    kind: str, statistics: str, publishing: str, tmp_path: Path
) -> None:
    clients = {"a": pairs()[:3], "b": pairs()[3:5], "c": pairs()[5:]}
    federation = {"publishing": publishing, "swa": {"start": 0.0}}
    wanted = run(
        clients, tmp_path / "wanted", experiment=described(statistics, federation=federation)
    )

    def crash(record: RoundRecord) -> None:
        if record.round == 2:
            raise RuntimeError("power failure")

    engine = {"kind": kind, "workers": 2}
    given = {"experiment": described(statistics, engine=engine, federation=federation)}
    with pytest.raises(RuntimeError, match="power failure"):
        run(clients, tmp_path / "run", **given, watcher=Watcher(round_closed=crash))
    resumed = run(clients, tmp_path / "run", **given, resume=True)
    assert resumed.model_sha256 == wanted.model_sha256
    assert resumed.scores is not None
    assert wanted.scores is not None
    assert resumed.scores.to_dict() == wanted.scores.to_dict()
    assert [r.bytes_up for r in resumed.records] == [r.bytes_up for r in wanted.records]


def test_scores_are_of_the_model_that_is_saved(tmp_path: Path) -> None:
    done = run({"a": pairs()[:3], "b": pairs()[3:]}, tmp_path / "run")
    assert done.scores is not None
    again = fleetseg.evaluate(done.model_with(net()), {"set": pairs()[:3]}, precision="fp32")
    assert again.scores.conf_CC.tolist() == done.scores.to_dict()["confusion"]


def test_a_run_that_scores_nothing_saves_them_too(tmp_path: Path) -> None:
    clients = {"a": pairs()[:3], "b": pairs()[3:]}
    scored, unscored = (
        run(clients, tmp_path / name, evaluation=sets)
        for name, sets in (("scored", {"set": pairs()[:3]}), ("unscored", None))
    )
    assert unscored.scores is None
    assert unscored.model_sha256 == scored.model_sha256


def test_an_averaged_model_has_its_own_statistics(tmp_path: Path) -> None:
    """Those of no model that anybody trained: every scoring asks for them anew."""
    clients = {"a": pairs()[:3], "b": pairs()[3:]}
    swa = {"publishing": "swa", "swa": {"start": 0.0}}
    done = run(clients, tmp_path / "run", experiment=described(federation=swa))
    found, plain = (
        values(done),
        values(run(clients, tmp_path / "plain", experiment=described("mean", federation=swa))),
    )
    assert torch.equal(found["0.weight"], plain["0.weight"])
    images = torch.stack([torch.from_numpy(i).permute(2, 0, 1) / 255 for i, _ in pairs()])
    model = done.model_with(net())
    with torch.no_grad():
        seen = model.net[0]((images - model.mean) / model.std).permute(1, 0, 2, 3).flatten(1)
    for kind, of in (("mean", seen.mean(1)), ("var", seen.var(1))):
        torch.testing.assert_close(found[f"1.running_{kind}"], of, rtol=1e-4, atol=1e-4)
        assert (plain[f"1.running_{kind}"] - of).abs().max() > 0.02
    rounds = [record.miou for record in done.records]
    assert len(rounds) == 3
    assert None not in rounds
    told = "averages running statistics"
    assert not any(told in note for note in done.notes)
    noted = option_notes(Facts(described("mean", federation=swa), scored=True))
    assert any(told in note for note in noted)


def test_who_did_not_answer_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def some(broadcast: Broadcast, client: Client, runtime: LocalRuntime) -> Reply:
        answer = client_norm_statistics(broadcast, client, runtime)
        return answer if client.id == "a" else Failure(client.id, "lost", "no-answer")

    monkeypatch.setitem(CLIENT_TASKS, "norm_statistics", some)
    both = {"a": pairs()[:3], "b": pairs()[3:]}
    done = run(both, tmp_path / "run")
    assert "norm statistics are without b" in done.notes
    assert "norm statistics: estimated" in (done.folder / "model" / "README.md").read_text()


def test_an_interrupted_run_says_what_its_model_has(tmp_path: Path) -> None:
    def stop(record: RoundRecord) -> None:
        raise KeyboardInterrupt

    clients = {"a": pairs()[:3], "b": pairs()[3:]}
    rarely = described(evaluation={"every": 0})
    done = run(clients, tmp_path / "run", experiment=rarely, watcher=Watcher(round_closed=stop))
    assert done.reason == "interrupted"
    card = (done.folder / "model" / "README.md").read_text()
    assert "norm statistics: means of updates" in card
    whole = run(clients, tmp_path / "run", experiment=rarely, resume=True)
    assert whole.model_sha256 == run(clients, tmp_path / "whole").model_sha256


def test_what_is_sent_to_train_on_does_not_change(tmp_path: Path) -> None:
    """But for what is scored, the rounds are those of the mean."""
    clients = {"a": pairs()[:3], "b": pairs()[3:]}
    mean, estimated = (
        run(clients, tmp_path / name, experiment=described(name)) for name in ("mean", "estimated")
    )
    assert [r.loss for r in mean.records] == [r.loss for r in estimated.records]
    first, second = (sum(r.bytes_down for r in one.records) for one in (mean, estimated))
    assert second == 2 * first  # each model is sent once more, to be looked through
    first, second = (sum(r.bytes_up for r in one.records) for one in (mean, estimated))
    sums = 2 * 8 + 2 * (4 + 2) * 8  # a count for each layer, two sums for each channel
    assert second == first + 3 * 2 * sums


def test_features_that_are_no_numbers_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoilt(broadcast: Broadcast, client: Client, runtime: LocalRuntime) -> Reply:
        state = broadcast.state.clone()
        state.values_F.fill_(torch.nan)
        return client_norm_statistics(replace(broadcast, state=state), client, runtime)

    monkeypatch.setitem(CLIENT_TASKS, "norm_statistics", spoilt)
    rarely = described(evaluation={"every": 0}, federation={"rounds": 1})
    done = run({"a": pairs()[:3]}, tmp_path / "run", experiment=rarely)
    assert "norm statistics are without a" in done.notes
    assert all(value.isfinite().all() for value in values(done).values())


SUMS = NormSums(np.array([8, 2]), np.array([4.0, 0.0, 2.0]), np.array([2.0, 0.0, 4.5]))
CHANNELS = np.array([2, 1])


def check(**changes: Any) -> None:
    sums = replace(SUMS, **{k: v for k, v in changes.items() if k != "round"})
    reply = NormReport(changes.get("round", 1), "a", sums)
    validate_norm_report(reply, round_=1, counts_L=SUMS.counts_L, channels_L=CHANNELS)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"round": 2}, "stale"),
        ({"counts_L": np.array([8])}, "shape"),
        ({"sums_C": np.zeros(4)}, "shape"),
        ({"squares_C": np.zeros(2)}, "shape"),
        ({"counts_L": np.array([80, 2])}, "count"),
        ({"sums_C": np.array([np.nan, 0, 0])}, "non-finite"),
        ({"squares_C": np.array([np.inf, 1, 1])}, "non-finite"),
        ({"squares_C": np.array([1e300, 1, 1])}, "magnitude"),
        ({"sums_C": np.array([4.1, 0, 0])}, "variance"),
        ({"sums_C": np.array([-1e300, 0, 0])}, "variance"),
        ({"squares_C": np.array([-1.0, 0, 0]), "sums_C": np.zeros(3)}, "variance"),
    ],
)
def test_bad_sums_are_refused(changes: dict[str, Any], reason: str) -> None:
    check()
    with pytest.raises(UpdateRejected) as caught:
        check(**changes)
    assert caught.value.reason == reason


def test_a_vehicle_counts_for_as_many_images_as_are_believed() -> None:
    """With its own means and squares: four of eight images weigh half as much."""
    said = {name: Enrolment(name, images, 1, (1, 0)) for name, images in (("a", 8), ("b", 2))}
    believed = {**said, "a": replace(said["a"], num_images=4)}
    one_image = NormSums(np.array([3]), np.zeros(1), np.zeros(1))
    sums = _Sums(said, believed, 1, one_image, np.array([1]))
    for name, mean in (("a", 2.0), ("b", 1.0)):
        count = 3 * said[name].num_images
        of_it = NormSums(np.array([count]), np.array([count * mean]), np.array([count * mean**2]))
        assert sums.add(NormReport(1, name, of_it)) is None
    total = sums.total
    assert total.counts_L.tolist() == [3 * (4 + 2)]
    assert total.sums_C.tolist() == [3 * (4 * 2.0 + 2 * 1.0)]
    assert total.squares_C.tolist() == [3 * (4 * 4.0 + 2 * 1.0)]


def test_sums_come_back_from_the_wire_as_they_were() -> None:
    exact = replace(SUMS, sums_C=np.array([1 / 3, 1e-300, -2e15]))
    header, payload = write_reply(NormReport(3, "a", exact))
    back = read_reply("a", header, payload, num_classes=2, codec=None)
    assert isinstance(back, NormReport)
    assert (back.round, back.client_id) == (3, "a")
    for name, values_ in vars(exact).items():
        assert getattr(back.sums, name).tobytes() == values_.tobytes()


@pytest.mark.parametrize(
    ("sizes", "num_bytes"),
    [
        (None, 64), ([], 64), ({}, 64), ([2], 64), ([2, 3, 4], 64), ([2, 3], 63), ([2, 3], 65),
        ([2, 3], 0), ([2, 4], 64), ([0, 0], 0), ([8, 0], 64), ([0, 4], 64), ([-2, 5], 64),
        ([2.0, 3], 64), ([True, 3], 56), (["2", 3], 64), ([2, 1 << 40], 64), ([2**70, 3], 64),
        ([2, 1 + (1 << 20)], 32 + (1 << 24)),
    ],
)  # fmt: skip
def test_what_is_no_sums_is_refused(sizes: Any, num_bytes: int) -> None:
    header, payload = write_reply(NormReport(1, "a", SUMS))
    assert (header["norm_sums"], len(payload)) == ([2, 3], 64)
    told, sent = {"norm_sums": sizes, "round": 1}, b"\1" * num_bytes
    reply = read_reply("a", told, sent, num_classes=2, codec=None)
    assert isinstance(reply, Failure)
    assert (reply.kind, reply.reason) == ("refused", "malformed")


def test_sums_of_a_large_network_are_no_larger_than_a_message_may_be() -> None:
    """As text they were: 100,000 channels took 4 MB of a header, and vehicles were refused."""
    draw = rng.generator(0, purpose="estimating")
    values_C = draw.standard_normal(100_000)
    report = NormReport(1, "a", NormSums(np.full(500, 7), values_C, values_C**2))
    header, payload = write_reply(report)
    assert len(json.dumps(header)) < 100
    assert len(payload) == report.num_bytes == 8 * 200_500


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"federation": {"sharing": "silobn"}}, "federation.sharing leaves a part"),
        ({"federation": {"sharing": "fedbn"}}, "federation.sharing leaves a part"),
        ({"training": {"freeze_bn_after": 0.5}}, "would put others in their place"),
    ],
)
def test_what_they_do_not_go_with(sections: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        check_choices(described(**sections))
