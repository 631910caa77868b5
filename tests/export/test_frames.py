"""Which images an exported model is held against: the user's own, or those of its run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.experiments import tiny_experiment
from tests.export.conftest import SIZE
from tests.models_on_disk import saved_camvid_model

from fleetseg.errors import BadSample, ConfigError, DataError
from fleetseg.experiment_file import to_toml
from fleetseg.export.frames import given_frames, run_frames, run_of
from fleetseg.runs.inference import ready_model


def test_given_images_come_at_the_working_size_evenly_spaced(pictures_folder: Path) -> None:
    frames = given_frames([pictures_folder], SIZE, 3)
    assert [image_HWC.shape for image_HWC in frames.images] == [(*SIZE, 3)] * 3
    assert frames.labels == ()
    first = Image.open(pictures_folder / "0.png").resize(SIZE[::-1], Image.Resampling.BILINEAR)
    assert np.array_equal(frames.images[0], np.asarray(first))
    one = given_frames([pictures_folder / "5.png", pictures_folder / "0.png"], SIZE, 8)
    assert len(one.images) == 2


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        given_frames([tmp_path / "none"], SIZE, 3)
    with pytest.raises(DataError, match="no picture in this folder"):
        given_frames([tmp_path], SIZE, 3)
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(BadSample, match=r"a\.png"):
        given_frames([tmp_path], SIZE, 3)


def test_a_run_gives_the_frames_that_it_scored_on_with_their_labels(tmp_path: Path) -> None:
    run = tmp_path / "run"
    saved_camvid_model(run / "model", (48, 64))
    with pytest.raises(ConfigError, match=r"not in a run folder.*--images FOLDER"):
        run_frames(ready_model(run / "model", "cpu", "fp32"), 8)
    (run / "experiment.toml").write_text(to_toml(tiny_experiment(tmp_path / "cache")))
    assert run_of(run) == run_of(run / "model") == run
    for path in (run, run / "model"):
        frames = run_frames(ready_model(path, "cpu", "fp32"), 2)
        assert frames.name == "synthetic/val"
        assert [image_HWC.shape for image_HWC in frames.images] == [(48, 64, 3)] * 2
        assert len(frames.labels) == 2
