"""The whole gate on model folders: what it decides, what it writes, and what it puts where."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.models_on_disk import TWO
from tests.release_world import SIZE_HW, World

from fleetseg.errors import ConfigError, ModelError
from fleetseg.experiment_file import load_experiment
from fleetseg.judging.policy import make_policy
from fleetseg.models.build import build_model
from fleetseg.models.folder import save_model
from fleetseg.release.gate import Decision, Question, decide
from fleetseg.release.registry import current_number, releases, sha256_of

POLICY = make_policy(
    {
        "bootstrap": {"resamples": 200},
        "robustness": {"kinds": ["jpeg"], "images": 2},
        "latency": {"images": 3, "max_ratio": 100},
    }
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gate")


@pytest.fixture(scope="module")
def ask(world: World, home: Path) -> Question:
    """Judge the current model against nothing."""
    return Question(
        candidate=world.current,
        models=home / "models",
        policy=POLICY,
        on=load_experiment(world.experiment),
        out=home / "first",
        device="cpu",
        precision="fp32",
    )


@pytest.fixture(scope="module")
def first(ask: Question) -> Decision:
    return decide(ask)


@pytest.fixture(scope="module")
def refused(ask: Question, first: Decision, world: World) -> Decision:
    """The blind one, beside the first release."""
    return decide(replace(ask, candidate=world.blind, out=first.out.parent / "refused"))


def record_of(decision: Decision) -> dict[str, Any]:
    fields = json.loads((decision.out / "release.json").read_text())
    assert isinstance(fields, dict)
    return fields


def test_the_first_release_has_nothing_to_fall_behind(first: Decision) -> None:
    assert first.promoted
    assert first.reasons == ("the first release: there is no current model to compare it with",)
    assert any("nothing was required of this model" in note for note in first.notes)
    assert first.release is not None
    assert (first.release.number, first.release.is_current) == (1, True)
    assert record_of(first)["current"] is None
    assert "without a predecessor" in (first.out / "release.html").read_text()


def test_a_planted_fall_of_pedestrians_is_refused(refused: Decision, ask: Question) -> None:
    assert not refused.promoted
    assert refused.release is None
    assert refused.against == "release 0001"
    note = "no minimum for safety-critical classes (scores.least_critical_iou); the candidate's "
    assert any(f"{note}weakest is pedestrian, with an IoU of 0.000" in n for n in refused.notes)
    assert current_number(ask.models) == 1
    found = {(check.kind, check.name): check for check in refused.checks}
    fallen = found["class", "pedestrian"]
    assert (fallen.current, fallen.candidate, fallen.verdict) == (1.0, 0.0, "fallen")
    assert fallen.reason in refused.reasons
    assert {key[1] for key in found if key[0] == "domain"} == {"0001TP", "0016E5"}


def test_what_is_written_says_what_was_judged(
    refused: Decision, ask: Question, world: World
) -> None:
    record, page = record_of(refused), (refused.out / "release.html").read_text()
    assert record["decision"] == "refused"
    assert record["reasons"] == list(refused.reasons)
    assert record["candidate"]["sha256"] == sha256_of(world.blind / "model.safetensors")
    assert record["current"]["iou"]["pedestrian"] == 1.0
    assert record["policy_sha256"] == POLICY.digest
    assert len(record["scored_on"][0][2]) == 64
    assert "more wrong pedestrian pixels than the current model" in page
    assert page.count("<img ") == 5 * page.count("<figure>") > 0


def test_a_decision_is_the_same_again(refused: Decision, ask: Question, world: World) -> None:
    """All but the time of day and how long images took; and a dry run leaves the registry alone."""
    told: list[str] = []
    again = decide(
        replace(
            ask, candidate=world.blind, against=world.current, models=ask.models / "none",
            dry_run=True, out=refused.out.parent / "again",
        ),
        scoring=lambda what, done, of: told.append(f"{what} {done}/{of}"),
    )  # fmt: skip
    assert again.checks[:-1] == refused.checks[:-1]
    assert again.checks[-1].kind == "latency"
    assert told[-1] == "frames with the current model 18/18"
    assert not (ask.models / "none").exists()


def test_the_same_model_again_is_promoted_and_says_so(
    first: Decision, ask: Question, tmp_path: Path
) -> None:
    models = shutil.copytree(ask.models, tmp_path / "models")
    done = decide(replace(ask, models=models, out=tmp_path / "out"))
    assert done.promoted
    assert done.release is not None
    assert (done.release.number, done.release.replaced) == (2, 1)
    assert "the candidate has the weights of the current model, byte for byte" in done.notes
    assert [one.damage for one in releases(models)] == ["", ""]
    listed = json.loads((done.release.folder / "release.json").read_text())
    assert listed["number"] == 2
    assert listed["checks"] == record_of(done)["checks"]


def test_the_fleet_judges_as_one_would(ask: Question, world: World, tmp_path: Path) -> None:
    done = decide(
        replace(
            ask, candidate=world.blind, against=world.current, on_clients=True, out=tmp_path / "out"
        )
    )
    assert not done.promoted
    found = {check.name: check for check in done.checks}
    assert found["pedestrian"].drawn == "3 vehicles"
    assert found["pedestrian"].verdict == "fallen"
    record = record_of(done)
    assert record["judges"] == "vehicles, of which only sums are known"
    page = (done.out / "release.html").read_text()
    assert "<img" not in page
    assert "0001TP_0000" not in page + json.dumps(record)  # no name of a frame


def test_what_cannot_be_judged(ask: Question, world: World, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"the candidate is not a run folder.*--on EXPERIMENT.toml"
    ):
        decide(replace(ask, on=None))
    with pytest.raises(ModelError, match=r"no saved model here"):
        decide(replace(ask, against=tmp_path))
    two = build_model("fast_scnn", 2)
    save_model(two, tmp_path / "two", space=TWO, size_hw=SIZE_HW, details={})
    with pytest.raises(ModelError, match=r"other classes than the candidate.*--models DIR"):
        decide(replace(ask, against=tmp_path / "two"))


def test_a_current_release_that_was_changed_is_no_measure(
    first: Decision, ask: Question, tmp_path: Path
) -> None:
    ask = replace(ask, models=shutil.copytree(ask.models, tmp_path / "models"))
    shutil.copy(ask.candidate / "config.json", ask.models / "0001" / "README.md")
    with pytest.raises(ModelError, match=r"release 0001 cannot be used: README.md has"):
        decide(ask)
