"""The shipped experiments on real driving data, small: two rounds on a few frames."""

from __future__ import annotations

from pathlib import Path

import pytest

import fleetseg
from fleetseg.clients import open_fleet_data

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SMALL = ["model.name=fast_scnn", "model.pretrained=", "federation.rounds=2", "data.size=[90,120]",
         "training.crop=[64,64]", "engine.kind=inprocess", "engine.precision=fp32"]  # fmt: skip


@pytest.fixture(autouse=True)
def _places(real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEETSEG_DATA", str(real_data))
    monkeypatch.setenv("FLEETSEG_CACHE", str(tmp_path / "cache"))


def limited(path: Path, kinds: list[str], limit: int, extra: list[str]) -> fleetseg.Experiment:
    """An example cut down to `limit` frames of each source."""
    sources = [
        f'{{kind="{kind}",root="${{FLEETSEG_DATA}}/{kind}",split="train",limit={limit}}}'
        for kind in kinds
    ]
    return fleetseg.load_experiment(path, [*SMALL, f"data.sources=[{','.join(sources)}]", *extra])


@pytest.mark.real_data
def test_camvid_trains_from_its_example(tmp_path: Path) -> None:
    val = 'data.evaluation=[{kind="camvid",root="${FLEETSEG_DATA}/camvid",split="val",limit=4}]'
    experiment = limited(EXAMPLES / "camvid.toml", ["camvid"], 27, [val])
    run = fleetseg.run(experiment, out=tmp_path / "run")
    assert len(run.records[0].accepted) == 9
    assert any("optimistic" in note for note in run.notes)  # val shares a drive with train
    # Scores are taken at the labels' own 360 x 480, whatever the working size.
    assert 0.9 * 4 * 360 * 480 < run.scores.to_dict()["pixels"] <= 4 * 360 * 480
    assert set(run.scores.to_dict()["by_client"]) == set(run.records[0].cohort)


@pytest.mark.real_data
def test_two_countries_train_one_model(tmp_path: Path) -> None:
    experiment = limited(EXAMPLES / "two-countries.toml", ["camvid", "idd_lite"], 60, [])
    fleet_data = open_fleet_data(experiment)
    datasets = {entries[0].id.split("/")[0] for entries in fleet_data.manifest.clients.values()}
    assert datasets == {"camvid", "idd_lite"}
    run = fleetseg.run(experiment, out=tmp_path / "run")
    assert set(run.scores.to_dict()["by_domain"]) == {"camvid", "idd_lite"}
    assert "living things" in run.scores.to_dict()["iou"]
