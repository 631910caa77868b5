"""Grouping by a fact that no sample has is refused, for each kind of source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fleetseg.config import PartitionConfig, SourceConfig
from fleetseg.data.partition.assign import partition
from fleetseg.data.partition.grouping import require_known
from fleetseg.data.sample import Sample
from fleetseg.data.sources import open_source
from fleetseg.errors import ConfigError

LACKS = {
    "camvid": ("vehicle",),
    "cityscapes": ("condition", "vehicle"),
    "idd_lite": ("city", "condition", "vehicle"),
    "folder": ("city", "condition", "vehicle"),
    "synthetic": ("vehicle",),
}
FILES = {
    "camvid": ("train/0001TP_1.png", "trainannot/0001TP_1.png"),
    "cityscapes": (
        "leftImg8bit/train/ulm/ulm_0_0_leftImg8bit.png",
        "gtFine/train/ulm/ulm_0_0_gtFine_labelIds.png",
    ),
    "idd_lite": ("leftImg8bit/train/1/1_image.jpg", "gtFine/train/1/1_label.png"),
    "folder": ("images/ulm/1.png", "masks/ulm/1.png"),
    "synthetic": (),
}


def samples_of(kind: str, root: Path) -> tuple[Sample, ...]:
    for name in FILES[kind]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((4, 4), dtype=np.uint8)).save(root / name)
    (root / "classes.toml").write_text('classes = ["a"]\nname = "depot"\n')
    return open_source(SourceConfig(kind=kind, root=str(root))).samples


@pytest.mark.parametrize("by", ["sequence", "domain", "city", "condition", "dataset"])
@pytest.mark.parametrize("kind", LACKS)
def test_partition_by_each_fact_of_each_kind(tmp_path: Path, kind: str, by: str) -> None:
    samples = samples_of(kind, tmp_path)
    config = PartitionConfig(by=by)  # type: ignore[arg-type]
    histograms_NC = np.ones((len(samples), 1), dtype=np.int64)
    if by not in LACKS[kind]:
        assert partition(config, samples, histograms_NC, 0)
        return
    with pytest.raises(
        ConfigError, match=rf"partition\.by: .* have no {by}; .*= 'domain'"
    ) as error:
        partition(config, samples, histograms_NC, 0)
    known = [f for f in ("sequence", "domain", "city", "condition", "dataset")
             if f not in LACKS[kind]]  # fmt: skip
    assert f"one of: {', '.join(known)}." in str(error.value)


def sample(dataset: str, city: str) -> Sample:
    return Sample("i", dataset, "train", "", None, "", city=city)


def test_each_data_set_is_looked_at_by_itself() -> None:
    with pytest.raises(ConfigError, match="samples of 'b' have no city"):
        require_known([sample("a", "ulm"), sample("b", "")], "city", key="evaluation.by")


def test_some_samples_may_lack_the_fact() -> None:
    require_known([sample("a", "ulm"), sample("a", "")], "city", key="evaluation.by")
