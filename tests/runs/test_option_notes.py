"""Options without effect get a note, those that cannot work are refused, others are left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import fleetseg
from fleetseg.config import Experiment
from fleetseg.errors import ConfigError
from fleetseg.experiment_file import load_experiment, make_experiment
from fleetseg.runs.option_notes import option_notes, require_workable
from fleetseg.runs.rules import Facts

EXAMPLES = Path(__file__).parents[2] / "examples"
OTHERS = ("sweep", "release-policy")  # no experiments
EXPERIMENTS = [p for p in sorted(EXAMPLES.glob("*.toml")) if not p.stem.startswith(OTHERS)]
TEST_SET = {"evaluation": [{"split": "val"}]}


def notes(fields: dict[str, Any], **facts: bool) -> tuple[str, ...]:
    return option_notes(Facts(make_experiment(fields), **{"scored": True, **facts}))


def test_sources_say_only_what_their_kind_reads() -> None:
    sources = [{"kind": "camvid", "root": "x", "frames_per_drive": 3}, {"root": "y"}]
    told = notes({"data": {"sources": sources}})
    assert told == (
        "source 1: frames_per_drive count for kind = 'synthetic' only",
        "source 2: root has no effect: the synthetic drives are painted",
    )


def test_painted_pictures_have_no_files_to_stay_in() -> None:
    fields = {"data": {"store": "files", "sources": [{"kind": "camvid", "root": "x"}, {}]}}
    (told,) = notes(fields)
    assert told.startswith("source 2: there are no files")
    assert notes(fields, over_network=True) == ()


def test_held_out_frames_that_nothing_scores() -> None:
    fields = {"data": TEST_SET, "partition": {"holdout": 0.2}}
    assert "nothing scores" in notes(fields)[0]
    assert notes({**fields, "evaluation": {"on_clients": True}}) == ()


@pytest.mark.parametrize("every", [0, 11])
def test_stopping_by_scores_that_come_at_the_end_only(every: int) -> None:
    fields = {"data": TEST_SET, "stop": {"target_miou": 0.5}, "evaluation": {"every": every}}
    assert any("stop.target_miou cannot end the run early" in n for n in notes(fields))


def test_patience_beyond_the_end() -> None:
    (told,) = notes({"data": TEST_SET, "stop": {"patience": 5}, "evaluation": {"every": 2}})
    assert "stop.patience = 5 cannot end the run early: it has 5 evaluations" in told


@pytest.mark.parametrize("stop", [{"target_miou": 0.5}, {"patience": 2}])
def test_stopping_by_scores_that_never_come_is_refused(stop: dict[str, Any]) -> None:
    facts = Facts(Experiment(stop=stop), scored=False)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"stop\..*never stop.*data.evaluation.*holdout"):
        require_workable(facts)
    require_workable(Facts(facts.experiment, scored=True))
    require_workable(Facts(Experiment(stop={"minutes": 3}), scored=False))  # type: ignore[arg-type]


def test_styles_that_vehicles_elsewhere_tell_too_late_are_refused() -> None:
    stage = {"sources": [{"cities": ["amber"]}], "style_probability": 1.0}
    described = make_experiment({"pretrain": stage, "training": {"style": {"kind": "fda"}}})
    with pytest.raises(ConfigError, match="when they enrol, which is after it"):
        require_workable(Facts(described, scored=True, over_network=True))
    require_workable(Facts(described, scored=True))


def test_vehicles_elsewhere_carry_nothing_of_the_server() -> None:
    described = make_experiment({"method": "fl-uda", "pretrain": {"sources": [{}]}})
    with pytest.raises(ConfigError, match="over a network vehicles have only their own"):
        require_workable(Facts(described, scored=True, over_network=True))
    require_workable(Facts(described, scored=True))


def test_it_is_refused_before_anything_is_read_or_written(tmp_path: Path) -> None:
    experiment = make_experiment(
        {"data": {"sources": [{"kind": "camvid", "root": "none"}]}, "stop": {"patience": 2}}
    )
    with pytest.raises(ConfigError, match=r"stop\.patience"):
        fleetseg.run(experiment, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_losing_everybody_is_told() -> None:
    (told,) = notes({"federation": {"faults": {"dropout": 1.0}}})
    assert told == "federation.faults.dropout = 1 loses every vehicle in every round"


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda p: p.stem)
def test_our_own_examples_have_no_idle_options(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEETSEG_DATA", "/data")
    facts = Facts(load_experiment(path), scored=True, over_network=path.stem == "fleet")
    assert option_notes(facts) == ()


def test_the_rate_that_q_fedavg_makes_gradients_by_is_that_of_training() -> None:
    """Else a sweep over training.lr would compare steps of other lengths unnoticed."""
    (note,) = option_notes(
        Facts(make_experiment({"method": "qffedavg", "training": {"lr": 0.01}}), scored=True)
    )
    assert "lipschitz = 20.0 is not 1 / training.lr = 100, by which" in note
    fitting = {"training": {"lr": 0.01}, "federation": {"qffl": {"lipschitz": 100.0}}}
    assert (
        option_notes(Facts(make_experiment({"method": "qffedavg", **fitting}), scored=True)) == ()
    )
