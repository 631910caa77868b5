"""Own data stand where data from disk would: at the same size, with the same counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import nn

import fleetseg
from fleetseg.clients import open_fleet_data
from fleetseg.data.spaces import open_space
from fleetseg.errors import DataError
from fleetseg.experiment_file import make_experiment
from fleetseg.own_data import fleet_data_of_pairs

COLOURS = ((1, 1, 1), (2, 2, 2), (3, 3, 3))


def drive(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    generator = np.random.Generator(np.random.Philox(count))
    images = generator.integers(0, 256, (count, 30, 44, 3), dtype=np.uint8)
    return [(image, image[..., 0] % 3) for image in images]


def test_own_data_are_what_the_same_files_would_be(tmp_path: Path) -> None:
    samples = drive(3)
    for number, (image_HWC, label_HW) in enumerate(samples):
        for name, array in (("images", image_HWC), ("masks", label_HW)):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(array).save(tmp_path / name / f"{number}.png")
    (tmp_path / "classes.toml").write_text('classes = ["a", "b", "c"]\nname = "x"\n')
    source = {"kind": "folder", "root": str(tmp_path)}
    experiment = make_experiment(
        {
            "data": {
                "label_space": "own",
                "size": [16, 20],
                "cache": str(tmp_path / "cache"),
                "sources": [source],
            },
            "evaluation": {"on_clients": True},
        }
    )
    (from_disk,) = open_fleet_data(experiment).clients.values()
    space = open_space(experiment.data)
    fleet_data = fleet_data_of_pairs(experiment, space, {from_disk.id: samples}, {"test": samples})
    (own,) = fleet_data.clients.values()
    assert own.enrolment == from_disk.enrolment
    for ours, theirs in ((own.train, from_disk.train), (own.test.pairs, from_disk.test.pairs)):
        for index in range(3):
            for one, other in zip(ours[index], theirs[index], strict=True):
                np.testing.assert_array_equal(one, other)
    (scored,) = fleet_data.evaluation
    image_HWC, label_HW = scored.scored.pairs[0]
    assert (image_HWC.shape, label_HW.shape) == ((16, 20, 3), (30, 44))
    assert any("images are resized to data.size, 20x16 from 44x30" in n for n in fleet_data.notes)


def test_own_data_report_the_facts_that_are_asked_for() -> None:
    experiment = make_experiment(
        {"data": {"size": [16, 20]}, "federation": {"weights": "fedgau"}},
    )
    space = open_space(experiment.data)
    clients = fleet_data_of_pairs(experiment, space, {"a": drive(3)}, {"t": drive(1)}).clients
    reported = clients["a"].enrolment.facts["image_gaussian"]
    values = np.stack([clients["a"].train[k][0] for k in range(3)]).astype(np.float64)
    assert reported == pytest.approx([values.mean(), values.var(ddof=1), 16 * 20 * 3], rel=1e-6)


def test_a_vehicle_without_a_labelled_pixel_abstains_and_a_hold_out_is_not_forgotten() -> None:
    experiment = make_experiment({"data": {"size": [30, 44]}, "partition": {"holdout": 0.2}})
    void = [(image, np.full_like(label, 255)) for image, label in drive(2)]
    space = open_space(experiment.data)
    fleet_data = fleet_data_of_pairs(experiment, space, {0: void, 1: drive(2)}, {})
    assert fleet_data.clients["0"].enrolment.abstains == "no usable labelled sample"
    assert [n for n in fleet_data.notes if n.startswith("client")] == [
        "client 0 abstains: no usable labelled sample"
    ]
    assert fleet_data.bad == ("vehicle '0', sample 0, 1: every pixel of the label is void",)
    assert any("partition.holdout is not for clients=" in note for note in fleet_data.notes)


def test_images_that_are_scored_and_trained_on_are_told() -> None:
    experiment = make_experiment({"data": {"size": [30, 44]}})
    train, test = drive(3), [*drive(3)[1:], *drive(2)]
    space = open_space(experiment.data)
    fleet_data = fleet_data_of_pairs(
        experiment, space, {"a": train}, {"test": test, "clean": drive(4)}
    )
    assert fleet_data.notes == (
        "evaluation set 'test': 2 of 4 images are in training, too (the first with vehicle 'a')",
    )


def run(out: Path, resume: bool = False, **changes: Any) -> fleetseg.Run:
    given = {
        "clients": {"a": drive(3), "b": drive(2)},
        "evaluation": {"test": drive(4)},
        "space": fleetseg.LabelSpace(
            "mine", ("a", "b", "c"), ((1, 1, 1), (2, 2, 2), (3, 3, 3)), ()
        ),
    }
    experiment = make_experiment({"data": {"size": [30, 44]}, "federation": {"rounds": 1}})
    net = nn.Conv2d(3, 3, 1)
    return fleetseg.run(experiment, out=out, resume=resume, net=net, **{**given, **changes})


def test_a_run_on_own_data_goes_on_with_the_same_data_and_classes_only(tmp_path: Path) -> None:
    first = run(tmp_path / "run")
    again = run(tmp_path / "run", resume=True)
    assert again.model_sha256 == first.model_sha256
    changed = drive(2)
    changed[1][1][0, 0] = 255
    space = fleetseg.LabelSpace("mine", ("a", "c", "b"), COLOURS, ())
    for changes, words in (
        ({"clients": {"a": drive(3), "b": changed}}, "the data have changed .*; got vehicle 'b'"),
        ({"clients": {"a": drive(3)}}, "the data have changed .*; got vehicle 'b'"),
        ({"evaluation": {"test": drive(2)}}, "the data have changed .*; got evaluation set 'test'"),
        ({"space": space}, r"the classes have changed .*; got a, c, b \(mine\) now"),
    ):
        with pytest.raises(DataError, match=words):
            run(tmp_path / "run", resume=True, **changes)
