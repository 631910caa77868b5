"""Runs in one table: pooled over seeds, never within a model, and refused where they differ."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.records import PROTOCOL, SPACE, conf
from tests.run_folders import run_folder, with_protocol

import fleetseg
from fleetseg.errors import CheckpointError, ConfigError
from fleetseg.evaluation.scored import Scored
from fleetseg.runs.figures import Spread


def near(figure: Spread | None) -> tuple[float, float | None, int]:
    assert figure is not None
    std = None if figure.std is None else round(figure.std, 5)
    return round(figure.mean, 5), std, figure.n


def scores(by_domain: dict[str, np.ndarray], **clients: np.ndarray) -> Scored:
    one = with_protocol(Scored(SPACE, by_domain, ("test",)))
    return one.with_clients(clients, "held-out frames") if clients else one


def test_seeds_are_one_row_and_other_options_another(tmp_path: Path) -> None:
    for seed, miou in enumerate((0.2, 0.4, 0.6)):
        run_folder(tmp_path / f"a{seed}", [miou], seed=seed)
    run_folder(tmp_path / "b", [0.5], name="two", training={"lr": 0.5})
    one, two = fleetseg.compare(tmp_path).rows
    assert (one.name, one.seeds, two.name, two.seeds) == ("one", (0, 1, 2), "two", (0,))
    assert near(one.miou) == (0.4, 0.2, 3)  # by hand: squares 0.04 + 0 + 0.04, over 2, rooted
    assert near(one.iou["car"]) == (0.4, 0.2, 3)
    assert near(two.miou) == (0.5, None, 1)
    assert near(one.images) == (10, 0.0, 3)
    assert near(one.mb_up) == (0.0006, 0.0, 3)


def test_within_a_model_counts_add_and_ratios_do_not(tmp_path: Path) -> None:
    easy, hard = np.array([[90, 0], [0, 10]]), np.array([[1, 1], [1, 1]])
    run_folder(tmp_path / "a", [scores({"day": easy, "rain": hard})])
    (row,) = fleetseg.compare(tmp_path / "a").rows
    assert near(row.miou) == (round((91 / 93 + 11 / 13) / 2, 5), None, 1)
    assert near(row.by_domain["day"]) == (1.0, None, 1)
    assert near(row.by_domain["rain"]) == (round(1 / 3, 5), None, 1)


def test_the_worst_are_named_by_their_mean(tmp_path: Path) -> None:
    """Else the worst of a row would be no figure that its other tables show."""
    for seed, (a, b) in enumerate([(0.2, 0.3), (0.6, 0.3)]):
        one = scores({"day": conf(0.5, 0.25)}, a=conf(a), b=conf(b))
        run_folder(tmp_path / f"{seed}", [one], seed=seed)
    (row,) = fleetseg.compare(tmp_path).rows
    assert row.worst_client is not None
    assert (row.worst_client[0], near(row.worst_client[1])) == ("b", (0.3, 0.0, 2))
    assert row.worst_critical is not None
    assert row.worst_critical[0] == "car"


def test_last_rounds(tmp_path: Path) -> None:
    """Of one seed the spread is over rounds; of several it is over seeds, whose rounds make one."""
    run_folder(tmp_path / "a", [0.1, 0.2, None, 0.4, 0.6])
    (row,) = fleetseg.compare(tmp_path / "a", last=3).rows
    assert near(row.miou) == (0.4, 0.2, 3)
    assert len(row.seeds) == 1
    run_folder(tmp_path / "b", [0.5, 0.5, 0.5], seed=1)
    (row,) = fleetseg.compare(tmp_path, last=2).rows
    assert near(row.miou) == (0.5, 0.0, 2)
    with pytest.raises(ConfigError, match=r"b: fewer scored rounds .* got 3, expected 4"):
        fleetseg.compare(tmp_path, last=4)
    report = fleetseg.read_run(tmp_path / "a")
    assert near(report.last_rounds(2)) == (0.5, round(0.02**0.5, 5), 2)
    assert report.last_rounds(9) is None


def test_what_a_fleet_and_its_baselines_are_called(tmp_path: Path) -> None:
    for kind, seed in (("", 0), ("centralised", 0), ("centralised", 1)):
        # The steps of a centralised run follow from whom the seed has asked.
        fields = {"baseline": {"kind": kind}, "training": {"local_steps": seed + 1}}
        run_folder(tmp_path / f"{kind}{seed}", [0.5], seed=seed, **(fields if kind else {}))
    run_folder(tmp_path / "local", [0.5], baseline={"kind": "local"})
    rows = {row.name: len(row.seeds) for row in fleetseg.compare(tmp_path).rows}
    assert rows == {"one": 1, "one, centralised": 2, "one, a, b alone": 1}
    assert [row.mb_up is None for row in fleetseg.compare(tmp_path).rows] == [False, True, True]


def test_rows_of_one_name_say_what_sets_them_apart(tmp_path: Path) -> None:
    for lr in (0.5, 0.25):
        run_folder(tmp_path / f"{lr}", [0.5], training={"lr": lr}, seed=3)
    names = [row.name for row in fleetseg.compare(tmp_path).rows]
    assert names == ["one (training.lr = 0.25)", "one (training.lr = 0.5)"]


def test_other_protocols_are_refused_with_run_field_and_both_values(tmp_path: Path) -> None:
    run_folder(tmp_path / "a", [0.5])
    run_folder(tmp_path / "b", [0.5], protocol=replace(PROTOCOL, by="city"), seed=1)
    with pytest.raises(ConfigError) as refused:
        fleetseg.compare([tmp_path / "a", tmp_path / "b"])
    assert str(refused.value) == (
        f"these scores do not compare: by is city in {tmp_path / 'b'}, and domain in "
        f"{tmp_path / 'a'}. Score both by the same: evaluation.by"
    )


def test_what_may_differ_is_allowed_by_name_and_noted(tmp_path: Path) -> None:
    run_folder(tmp_path / "a", [0.5])
    run_folder(tmp_path / "b", [0.5], protocol=replace(PROTOCOL, norms="batch"), name="two")
    with pytest.raises(ConfigError, match="--despite norms"):
        fleetseg.compare(tmp_path)
    found = fleetseg.compare(tmp_path, despite=["norms"])
    assert found.notes == ("norms differs: batch in b; running in the others",)
    with pytest.raises(ConfigError, match="scores that differ in 'sets' never compare"):
        fleetseg.compare(tmp_path, despite=["sets"])


def test_scores_that_do_not_say_how_they_were_taken_are_refused(tmp_path: Path) -> None:
    run_folder(tmp_path / "a", [0.5], protocol=None)
    with pytest.raises(ConfigError, match="do not say how they were taken"):
        fleetseg.compare(tmp_path)


def test_vehicles_on_training_frames_and_on_held_out_ones_do_not_compare(tmp_path: Path) -> None:
    one = scores({"day": conf(0.5)}, a=conf(0.5))
    run_folder(tmp_path / "a", [one])
    run_folder(tmp_path / "b", [replace(one, clients_on="training frames")], seed=1)
    with pytest.raises(ConfigError, match=r"vehicles are scored on held-out frames in .*a, and on"):
        fleetseg.compare(tmp_path)


def test_vehicles_with_other_norms_compare_only_if_that_is_meant(tmp_path: Path) -> None:
    """Those of the server's sets are the same, and theirs are not."""
    one = scores({"day": conf(0.5)}, a=conf(0.5))
    run_folder(tmp_path / "a", [one])
    run_folder(tmp_path / "b", [replace(one, clients_norms="batch of batches of 8")], name="two")
    with pytest.raises(ConfigError, match=r"norms on vehicles' own frames are running in .*norms$"):
        fleetseg.compare(tmp_path)
    (note,) = fleetseg.compare(tmp_path, despite=["norms"]).notes
    assert note.startswith("norms on vehicles' own frames differ: running in ")


def test_vehicles_that_are_scored_without_their_own_parts_are_told_of(tmp_path: Path) -> None:
    """Else the worst vehicle of FedPer seems to have a head that nobody has trained."""
    one = scores({"day": conf(0.5)}, a=conf(0.1))
    own = one.with_personal({"a": conf(0.6)}, "own")
    run_folder(tmp_path / "a", [one])
    run_folder(tmp_path / "b", [own], name="ditto")
    assert fleetseg.compare(tmp_path).notes == ()
    run_folder(tmp_path / "c", [own], name="fedper", federation={"sharing": "body"})
    (note,) = fleetseg.compare(tmp_path).notes
    assert note.startswith("single vehicles of c are scored with a newcomer's model")


def test_one_run_counts_once(tmp_path: Path) -> None:
    run_folder(tmp_path / "a", [0.5])
    run_folder(tmp_path / "b", [0.5])
    assert len(fleetseg.compare([tmp_path / "a", tmp_path / "a"]).rows) == 1
    with pytest.raises(ConfigError, match="the same experiment with the same seed is given twice"):
        fleetseg.compare(tmp_path)


def test_a_run_that_is_not_over(tmp_path: Path) -> None:
    """By its name it is refused; in a folder it is left out, and that is told."""
    run_folder(tmp_path / "sweep" / "a", [0.5])
    run_folder(tmp_path / "sweep" / "b", [0.5, 0.5], seed=1, reason="")
    run_folder(tmp_path / "sweep" / "c", [0.5, 0.5], seed=2, reason="interrupted")
    found = fleetseg.compare(tmp_path / "sweep")
    assert [row.seeds for row in found.rows] == [(0,)]
    assert [note.rpartition(": ")[2] for note in found.notes] == [
        "2 of 10 rounds",
        "2 of 10 rounds (interrupted)",
    ]
    with pytest.raises(CheckpointError, match="this run is not finished; got 2 of 10 rounds"):
        fleetseg.compare(tmp_path / "sweep" / "b")
    run_folder(tmp_path / "my run", [0.5], reason="")
    with pytest.raises(CheckpointError, match=r"--resume --out '.*/my run'"):
        fleetseg.compare(tmp_path / "my run")


def test_where_there_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no run here"):
        fleetseg.compare(tmp_path)
    run_folder(tmp_path / "a", [0.5], reason="")
    with pytest.raises(CheckpointError, match="no run is finished"):
        fleetseg.compare(tmp_path)


def test_runs_without_scores_have_their_cost(tmp_path: Path) -> None:
    run_folder(tmp_path / "a", [None])
    found = fleetseg.compare(tmp_path)
    assert (found.protocol, found.rows[0].miou, found.rows[0].steps.mean) == (None, None, 4)
