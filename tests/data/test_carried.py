"""What vehicles carry: the labelled samples of the first stage's sources, and no bad one."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.experiments import tiny_experiment

from fleetseg.config import Experiment, SourceConfig
from fleetseg.data.carried import open_carried
from fleetseg.data.spaces import open_space
from fleetseg.data.synthetic.source import open_synthetic, write_dataset
from fleetseg.errors import DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    config = SourceConfig(cities=("amber",), conditions=("day",), frames_per_drive=3)
    write_dataset(open_synthetic(config, size_hw=(48, 64)), tmp_path / "data")
    return tmp_path / "data"


def experiment(root: Path, tmp_path: Path) -> Experiment:
    painted = {"cities": ["birch"], "conditions": ["day"], "frames_per_drive": 2}
    sources = [{"kind": "camvid", "root": str(root)}, painted]
    return tiny_experiment(tmp_path / "cache", pretrain={"sources": sources})


def test_all_sources_without_what_is_bad(root: Path, tmp_path: Path) -> None:
    label, *_ = sorted((root / "trainannot").iterdir())
    label.write_bytes(b"no picture")
    described = experiment(root, tmp_path)
    carried = open_carried(described, open_space(described.data))
    assert [sample.dataset for sample in carried.samples] == ["camvid"] * 2 + ["synthetic"] * 2
    image_HWC, label_HW = carried[0]
    assert image_HWC.shape[:2] == label_HW.shape == (48, 64)


def test_a_source_that_teaches_nothing_is_refused(root: Path, tmp_path: Path) -> None:
    for label in (root / "trainannot").iterdir():
        label.write_bytes(b"no picture")
    described = experiment(root, tmp_path)
    with pytest.raises(DataError, match="no usable labelled sample to learn from"):
        open_carried(described, open_space(described.data))
