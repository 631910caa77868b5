"""What opening a fleet's data refuses or notes about its data, and that `data check` agrees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fleetseg.cli.app import app
from fleetseg.clients import FleetData, open_fleet_data, open_server_data
from fleetseg.errors import ConfigError, DataError, LeakError
from fleetseg.experiment_file import make_experiment

RNG = np.random.default_rng(5)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEETSEG_CACHE", str(tmp_path / "cache"))


def save(path: Path, pixels: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(path)


def noise() -> np.ndarray:
    return RNG.integers(0, 256, (8, 8, 3))


BLACK = np.zeros((8, 8, 3))
LABEL = np.arange(64).reshape(8, 8) % 7  # every class of idd7


def folder(root: Path, **images: object) -> Path:
    """A folder set of idd7: `car_0=pixels` is images/car/0.png, with a label of all classes."""
    for name, pixels in images.items():
        save(root / f"images/{name.replace('_', '/')}.png", pixels)
        save(root / f"masks/{name.replace('_', '/')}.png", LABEL)
    (root / "classes.toml").write_text('space = "idd7"\n')
    return root


def fleet_data(
    *roots: Path, scored: tuple[Path, ...] = (), kind: str = "folder", **fields: object
) -> FleetData:
    def sources(those: tuple[Path, ...], split: str) -> list[dict[str, str]]:
        return [{"kind": kind, "root": str(root), "split": split} for root in those]

    split = str(fields.pop("split", "val"))
    data = {"label_space": "idd7", "size": [8, 8], "sources": sources(roots, "train"),
            "evaluation": sources(scored, split)}  # fmt: skip
    return open_fleet_data(
        make_experiment({"data": data, **{"partition": {"by": "domain"}, **fields}})
    )


def data_check(root: Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["data", "check", str(root)])
    return result.exit_code, result.stdout


# --- equal images ----------------------------------------------------------------------------


def test_equal_images_of_two_vehicles_are_a_note_for_both(tmp_path: Path) -> None:
    root = folder(tmp_path, a_0=BLACK, a_1=noise(), b_0=BLACK, b_1=noise())
    notes = fleet_data(root).notes
    assert sum("image that vehicles share, byte for byte" in note for note in notes) == 1
    code, text = data_check(root)
    assert code == 0
    assert "same image, same label" in text


def test_equal_images_of_one_vehicle_are_a_note(tmp_path: Path) -> None:
    root = folder(tmp_path, a_0=BLACK, a_1=BLACK, b_1=noise())
    assert any("one vehicle has more than once" in note for note in fleet_data(root).notes)


def test_an_image_in_two_splits_fails_the_run_and_the_check(tmp_path: Path) -> None:
    folder(tmp_path, train_0=BLACK, train_1=noise(), val_0=BLACK, val_1=noise())
    with pytest.raises(LeakError, match="1 samples are on two sides"):
        fleet_data(tmp_path, scored=(tmp_path,))
    code, text = data_check(tmp_path)
    assert code == 1
    assert "1 images are in both" in text
    assert "is refused" in text


def test_splits_without_a_common_image_pass(tmp_path: Path) -> None:
    folder(tmp_path, train_0=noise(), val_0=noise())
    fleet_data(tmp_path, scored=(tmp_path,))
    assert data_check(tmp_path)[0] == 0


# --- nothing to score or to train on ---------------------------------------------------------


def cityscapes(root: Path, split: str, *values: int) -> None:
    for number, value in enumerate(values):
        stem = f"ulm_000000_{number:06d}"
        save(root / f"leftImg8bit/{split}/ulm/{stem}_leftImg8bit.png", noise())
        label = np.full((8, 8), value)
        save(root / f"gtFine/{split}/ulm/{stem}_gtFine_labelIds.png", label)


def test_dummy_labels_are_named_with_source_split_and_cure(tmp_path: Path) -> None:
    cityscapes(tmp_path, "train", 7, 26)
    cityscapes(tmp_path, "test", 0, 3)
    with pytest.raises(DataError) as error:
        fleet_data(tmp_path, scored=(tmp_path,), kind="cityscapes", split="test")
    text = str(error.value)
    assert text.startswith("cityscapes/test: no usable labelled sample to evaluate on")
    assert "2 of 2 samples: every pixel of the label is void" in text
    assert "split = 'val'" in text


def test_a_server_of_a_fleet_says_the_same(tmp_path: Path) -> None:
    cityscapes(tmp_path, "test", 0)
    source = {"kind": "cityscapes", "root": str(tmp_path), "split": "test"}
    experiment = make_experiment({"data": {"label_space": "idd7", "evaluation": [source]}})
    with pytest.raises(DataError, match=r"cityscapes/test: .*void.*split = 'val'"):
        open_server_data(experiment)


def test_dummy_labels_to_train_on_are_named(tmp_path: Path) -> None:
    cityscapes(tmp_path, "train", 0, 0)
    with pytest.raises(DataError, match=r"no client can take part.*label is void.*'val'"):
        fleet_data(tmp_path, kind="cityscapes")


def test_a_split_without_labels_is_named(tmp_path: Path) -> None:
    for split in ("train", "test"):
        save(tmp_path / f"leftImg8bit/{split}/1/1_image.png", noise())
    save(tmp_path / "gtFine/train/1/1_label.png", LABEL)
    with pytest.raises(DataError) as error:
        fleet_data(tmp_path, scored=(tmp_path,), kind="idd_lite", split="test")
    assert "idd_lite/test: " in str(error.value)
    assert "1 of 1 samples have no label. Use a split that has labels" in str(error.value)


def test_many_bad_files_are_counted(tmp_path: Path) -> None:
    cityscapes(tmp_path, "test", *(0 for _ in range(14)))
    code, text = data_check(tmp_path)
    assert code == 1
    assert text.count("bad: cityscapes/test/ulm") == 10
    assert "bad: 4 more samples: every pixel of the label is void" in text
    assert "14 bad samples" in text


def test_many_bad_samples_do_not_hide_other_notes(tmp_path: Path) -> None:
    root = folder(tmp_path / "set", **{f"a_{i}": noise() for i in range(15)}, b_0=BLACK, c_0=BLACK)
    for i in range(12):
        (root / f"masks/a/{i}.png").write_bytes(b"no picture")
    notes = fleet_data(root).notes
    assert "vehicles share" in notes[1]  # after the one that abstains
    assert sum(note.startswith("bad sample skipped") for note in notes[-12:]) == 12
    experiment = tmp_path / "e.toml"
    experiment.write_text(
        'data.label_space = "idd7"\ndata.size = [8, 8]\npartition.by = "domain"\n'
        f'[[data.sources]]\nkind = "folder"\nroot = "{root}"\n'
    )
    text = CliRunner().invoke(app, ["partition", str(experiment)]).stdout
    assert text.count("bad sample skipped") == 10
    assert "and 2 more bad samples: see fleetseg data check" in text


# --- facts nobody filled ---------------------------------------------------------------------


def test_scores_by_a_fact_nobody_filled_are_refused(tmp_path: Path) -> None:
    root = folder(tmp_path, train_0=noise(), val_0=noise())
    with pytest.raises(ConfigError, match=r"evaluation\.by: .* have no city; .*by = 'domain'"):
        fleet_data(root, scored=(root,), evaluation={"by": "city"})
    with pytest.raises(ConfigError, match=r"evaluation\.by: .* have no condition"):
        fleet_data(root, evaluation={"by": "condition", "on_clients": True})
    fleet_data(root, evaluation={"by": "city"})  # nothing is scored


def test_a_partition_that_makes_one_vehicle_is_noted(tmp_path: Path) -> None:
    root = folder(tmp_path, day_0=noise(), day_1=noise())
    (note,) = (n for n in fleet_data(root).notes if "one vehicle:" in n)
    assert "all 2 samples have the same domain ('day')" in note
    asked = fleet_data(root, partition={"by": "domain", "clients": 1})
    assert not any("one vehicle:" in n for n in asked.notes)


# --- classes that never occur ----------------------------------------------------------------


def test_classes_that_no_training_label_shows_are_noted(tmp_path: Path) -> None:
    root = folder(tmp_path, a_0=noise())
    assert not any("never occur" in note for note in fleet_data(root).notes)
    save(root / "masks/a/0.png", np.where(LABEL < 3, LABEL, 255))
    (note,) = (note for note in fleet_data(root).notes if "never occur" in note)
    assert note.startswith("in the training data, classes 3 vehicles, 4 roadside objects, ")
    assert "of the pixels are void" in note


def test_a_fleet_without_labels_is_told_what_it_needs(tmp_path: Path) -> None:
    save(tmp_path / "rgb_anon/train/night/GOPR0351/GOPR0351_frame_000001_rgb_anon.png", noise())
    with pytest.raises(DataError) as error:
        fleet_data(tmp_path, kind="dark_zurich")
    text = str(error.value)
    assert "no client can take part" in text
    assert "1 of 1 samples have no label" in text
    assert "Use a split that has labels, or a training.supervision that needs none" in text
