"""The painter: the same street for the same seed, with exact labels."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fleetseg.config import SourceConfig
from fleetseg.data.labels import CAMVID_11, IGNORE
from fleetseg.data.sources.camvid import open_camvid
from fleetseg.data.synthetic.canvas import Canvas, Style, View
from fleetseg.data.synthetic.cities import CITIES
from fleetseg.data.synthetic.render import paint_frame
from fleetseg.data.synthetic.source import SIZE_HW, open_synthetic, paint, write_dataset
from fleetseg.data.synthetic.street import Drive
from fleetseg.data.synthetic.traffic import scene
from fleetseg.data.synthetic.weather import CONDITIONS
from fleetseg.errors import BadSample, ConfigError, DataError

SMALL = (96, 128)


def _sha(array: np.ndarray) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()


def test_the_five_cities_and_conditions_are_painted_in_the_label_space() -> None:
    counts = np.zeros(256, dtype=np.int64)
    for city in CITIES:
        for condition in CONDITIONS:
            for frame in (0, 6):
                image_HWC, label_HW = paint(0, "train", city, condition, frame, SMALL)
                assert image_HWC.shape == (*SMALL, 3)
                assert image_HWC.dtype == np.uint8
                assert label_HW.shape == SMALL
                assert label_HW.dtype == np.uint8
                counts += np.bincount(label_HW.ravel(), minlength=256)
    assert (counts[:11] > 0).all()
    assert counts[11:IGNORE].sum() == 0
    share = dict(zip(CAMVID_11.classes, counts / counts.sum(), strict=False))
    assert 0.2 < share["road"] < 0.45
    for rare in CAMVID_11.critical:
        assert 0.001 < share[rare] < 0.03, rare


def test_the_traffic_mix_differs_between_cities() -> None:
    def share(city: str, name: str) -> float:
        labels = [paint(0, "train", city, "day", f, SMALL)[1] for f in range(0, 20, 2)]
        return float(np.mean(np.stack(labels) == CAMVID_11.classes.index(name)))

    assert share("birch", "bicyclist") > 3 * share("coral", "bicyclist")
    assert share("ember", "car") > 2 * share("birch", "car")
    assert share("delta", "building") > 2 * share("birch", "building")


def test_the_same_recipe_gives_the_same_bytes_in_another_process() -> None:
    image_HWC, label_HW = paint(3, "val", "ember", "rain", 2, (48, 64))
    code = (
        "import hashlib; from fleetseg.data.synthetic.source import paint\n"
        "paint(9, 'train', 'ember', 'rain', 0, (48, 64))\n"  # what was painted before is no matter
        "for a in paint(3, 'val', 'ember', 'rain', 2, (48, 64)):\n"
        "    print(hashlib.sha256(a.tobytes()).hexdigest())"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert run.stdout.split() == [_sha(image_HWC), _sha(label_HW)], run.stderr


def test_golden_labels() -> None:
    # A change here means another picture for the same recipe: raise synthetic.VERSION.
    # Labels only: they depend on Pillow's polygons and integer ids, not on the last bit of a float.
    _, label_HW = paint(0, "train", "amber", "day", 0, (48, 64))
    assert _sha(label_HW) == "99411af7f54743772bf3b1b75df7ce798c3e720f96435af0b931319cb0c5041e"


def test_splits_seeds_drives_and_frames_differ() -> None:
    base = (0, "train", "delta", "day", 0)
    others = [
        (0, "val", "delta", "day", 0),
        (0, "test", "delta", "day", 0),
        (1, "train", "delta", "day", 0),
        (0, "train", "delta", "fog", 0),
        (0, "train", "delta", "day", 1),
    ]
    labels = {_sha(paint(*recipe, SMALL)[1]) for recipe in [base, *others]}
    assert len(labels) == 6


def test_frames_of_a_drive_are_one_street() -> None:
    drive = Drive(0, "train", "amber", "day")
    still = ("house", "lamp", "round")
    near, later = (
        {t for t in scene(drive, z, z / 6.0) if t.kind in still and 60 < t.z_m < 120}
        for z in (10.0, 14.5)
    )
    assert near == later
    assert len(near) > 5
    cars = [
        {(t.length_m, t.colour): t.z_m for t in scene(drive, 10.0, time_s) if t.phase > 0 and
         t.kind == "car" and t.heading < 0}
        for time_s in (0.0, 0.5)
    ]  # fmt: skip
    both = cars[0].keys() & cars[1].keys()
    assert both
    for key in both:
        assert cars[0][key] - cars[1][key] == pytest.approx(4.0)  # 8 m/s towards the camera


def test_consecutive_frames_are_alike() -> None:
    frames = [paint(0, "train", "ember", "day", f, SMALL)[1] for f in (0, 1)]
    other = paint(0, "train", "birch", "day", 1, SMALL)[1]
    assert np.mean(frames[0] == frames[1]) > np.mean(frames[0] == other) + 0.05


def test_a_projected_panel_covers_exactly_the_pixels_geometry_says() -> None:
    # focal 100 px, camera 1.5 m up, axis at column 50, horizon at row 40: a board at 10 m,
    # 2 m right, 1 m wide, 0-1.5 m high spans columns 70-80 and rows 40-55.
    view = View((80, 100), 100.0, 50.0, 40.0, 1.5, 0.0, 0.0, 0.0, (0.0, 100.0, 0.0))
    canvas = Canvas(view, np.zeros((80, 100), dtype=np.int32))
    style = Style(8, 0, (0.5, 0.5, 0.5))
    canvas.board(2.0, 10.0, [(0, 0), (0, 1.5), (1, 1.5), (1, 0)], style)
    rows, columns = np.nonzero(canvas.ids_HW)
    assert (rows.min(), rows.max()) == (40, 55)
    assert (columns.min(), columns.max()) == (70, 80)
    assert len(rows) == 16 * 11


def test_depth_of_a_receding_wall_is_that_of_its_plane() -> None:
    # A wall 4 m to the right from 5 m to 45 m: at column 50 + 100 * 4 / z the depth is z.
    view = View((80, 200), 100.0, 50.0, 40.0, 1.5, 0.0, 0.0, 0.0, (0.0, 100.0, 0.0))
    canvas = Canvas(view, np.zeros((80, 200), dtype=np.int32))
    canvas.panel(
        (4.0, 5.0), (4.0, 45.0), [(0, 0), (0, 3), (40, 3), (40, 0)], Style(1, 0, (0, 0, 0))
    )
    a, b, p, q = canvas.rows[0][2:6]
    for z in (5.0, 8.0, 20.0, 45.0):
        column = 50.0 + 100.0 * 4.0 / z
        assert 1.0 / (a * column + b) == pytest.approx(z)
        assert (p * column + q) / (a * column + b) == pytest.approx(z - 5.0, abs=1e-9)


@pytest.mark.parametrize("condition", ["day", "night", "rain"])
def test_every_pixel_has_one_owner_and_weather_moves_no_edge(condition: str) -> None:
    drive = Drive(0, "train", "amber", condition)
    finished = paint_frame(drive, 4, SMALL)
    flat = paint_frame(drive, 4, SMALL, flat=True)
    assert np.array_equal(finished.label_HW, flat.label_HW)
    assert np.array_equal(finished.ids_HW, flat.ids_HW)
    for surface in np.unique(finished.ids_HW):
        assert len(np.unique(finished.label_HW[finished.ids_HW == surface])) == 1


def test_image_edges_lie_on_label_edges() -> None:
    """Neighbours of two labels differ more in colour than those of one, and only at lag 0."""
    inside, across = [], {-2: [], 0: [], 2: []}
    for frame in range(4):
        image_HWC, label_HW = paint(0, "train", "coral", "day", frame, SIZE_HW)
        step = np.abs(np.diff(image_HWC.astype(np.int16), axis=1)).mean(axis=2)
        edge = label_HW[:, 1:] != label_HW[:, :-1]
        inside.append(step[~edge].mean())
        for lag, found in across.items():
            found.append(step[np.roll(edge, lag, axis=1)].mean())
    means = {lag: np.mean(found) for lag, found in across.items()}
    assert means[0] > 4 * np.mean(inside)
    assert means[0] > 1.5 * means[-2]
    assert means[0] > 1.5 * means[2]


def test_only_sky_is_labelled_sky() -> None:
    flat = paint_frame(Drive(0, "train", "amber", "day"), 4, SMALL, flat=True)
    sky = flat.image_HWC[flat.label_HW == 0].astype(int)
    assert (sky[:, 2] >= sky[:, 0]).all()  # a day's sky is blue or white and nothing else


def test_fog_takes_contrast_with_depth() -> None:
    ratios = {}
    for condition in ("day", "fog"):
        near, far = [], []
        for frame in range(6):
            painting = paint_frame(Drive(0, "train", "amber", condition), frame, SMALL)
            grey = painting.image_HWC.mean(axis=2)
            things = painting.ids_HW > 3
            near.append(grey[things & (painting.depth_HW < 20)].std())
            far.append(grey[things & (painting.depth_HW > 50) & (painting.depth_HW < 160)].std())
        ratios[condition] = np.mean(far) / np.mean(near)
    assert ratios["fog"] < 0.6 * ratios["day"]


def test_night_is_darker_than_dusk_and_dusk_than_day() -> None:
    means = [
        np.mean([paint(0, "train", c, w, 3, SMALL)[0].mean() for c in CITIES])
        for w in ("day", "dusk", "night")
    ]
    assert means[0] > 1.2 * means[1] > 1.2 * 1.2 * means[2]


def test_depth_grows_towards_the_horizon() -> None:
    painting = paint_frame(Drive(0, "train", "delta", "fog"), 0, SMALL)
    ground = painting.ids_HW == 1
    column = int(np.argmax(ground.sum(axis=0)))
    depth = painting.depth_HW[ground[:, column], column]
    assert (np.diff(depth) < 0).all()


def test_open_gives_drives_in_order() -> None:
    config = SourceConfig(
        cities=("birch", "coral"), conditions=("fog",), frames_per_drive=3, seed=7
    )
    source = open_synthetic(config)
    assert source.name == "synthetic"
    assert source.space is CAMVID_11
    assert [s.id for s in source.samples[:4]] == [
        "synthetic/train/birch-fog-0000",
        "synthetic/train/birch-fog-0001",
        "synthetic/train/birch-fog-0002",
        "synthetic/train/coral-fog-0000",
    ]
    first = source.samples[0]
    assert (first.sequence, first.domain, first.city, first.condition) == (
        "birch-fog", "birch-fog", "birch", "fog",
    )  # fmt: skip
    image_HWC, label_HW = source.read(first)
    assert label_HW is not None
    assert image_HWC.shape == (192, 256, 3)
    expected = paint(7, "train", "birch", "fog", 0)
    assert np.array_equal(image_HWC, expected[0])
    assert np.array_equal(label_HW, expected[1])
    assert len(open_synthetic(SourceConfig(frames_per_drive=2)).samples) == 5 * 5 * 2


def test_digest_is_of_the_recipe() -> None:
    source = open_synthetic(SourceConfig(cities=("birch",), frames_per_drive=2))
    digests = {source.digest(sample) for sample in source.samples}
    assert len(digests) == len(source.samples)
    image, label = source.digest(source.samples[0])
    assert re.fullmatch("[0-9a-f]{64}", image)
    assert image != label
    other = open_synthetic(SourceConfig(cities=("birch",), frames_per_drive=2, split="val"))
    assert not digests & {other.digest(sample) for sample in other.samples}


@pytest.mark.parametrize(
    ("field", "value", "hint"),
    [
        ("cities", ("brich",), "Did you mean 'birch'"),
        ("conditions", ("nigth",), "Did you mean 'night'"),
        ("split", "trian", "Did you mean 'train'"),
    ],
)
def test_unknown_names_are_told(field: str, value: object, hint: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(hint)):
        open_synthetic(SourceConfig.model_validate({field: value}))


def test_bad_recipes_and_sizes_are_told() -> None:
    source = open_synthetic(SourceConfig(cities=("birch",), frames_per_drive=1))
    old = replace(source.samples[0], image=source.samples[0].image.replace("/1 ", "/0 "))
    with pytest.raises(BadSample, match="Open the synthetic source again"):
        source.read(old)
    with pytest.raises(ConfigError, match="picture too small"):
        paint(0, "train", "birch", "day", 0, (16, 64))


def test_write_dataset_round_trip(tmp_path: Path) -> None:
    config = SourceConfig(
        cities=("delta",), conditions=("day", "rain"), frames_per_drive=1, split="val"
    )
    source = open_synthetic(config)
    steps: list[tuple[int, int]] = []
    out = tmp_path / "new" / "set"
    assert write_dataset(source, out, lambda done, total: steps.append((done, total))) == 2
    assert steps == [(1, 2), (2, 2)]
    for sample in source.samples:
        image_HWC, label_HW = source.read(sample)
        assert label_HW is not None
        name = f"{sample.domain}_{sample.frame:04d}.png"
        with Image.open(out / "val" / name) as picture:
            assert np.array_equal(np.asarray(picture), image_HWC)
        with Image.open(out / "valannot" / name) as picture:
            assert picture.mode == "L"
            written = np.asarray(picture)
        assert written.max() == 11
        assert np.array_equal(written == 11, label_HW == IGNORE)
        assert np.array_equal(written[written < 11], label_HW[label_HW < 11])


def test_what_is_written_reads_as_camvid_with_its_drives(tmp_path: Path) -> None:
    config = SourceConfig(cities=("delta",), conditions=("day", "rain"), frames_per_drive=2)
    write_dataset(open_synthetic(config), tmp_path / "set")
    found = open_camvid(SourceConfig(kind="camvid", root=str(tmp_path / "set"), split="train"))
    assert [(s.sequence, s.frame) for s in found.samples] == [
        ("delta-day", 0), ("delta-day", 1), ("delta-rain", 0), ("delta-rain", 1)
    ]  # fmt: skip


def test_write_dataset_refuses_a_folder_in_use(tmp_path: Path) -> None:
    source = open_synthetic(SourceConfig(cities=("delta",), frames_per_drive=1))
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(DataError, match="not an empty folder"):
        write_dataset(source, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(DataError, match="not an empty folder"):
        write_dataset(source, tmp_path / "mine.txt")
