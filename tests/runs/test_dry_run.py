"""What every client would trip over is said before round 1, and changes no bit of the run."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import fleetseg
from fleetseg.clients import FleetData
from fleetseg.errors import ConfigError, DataError, ModelError, QuorumLost
from fleetseg.experiment_file import make_experiment
from fleetseg.federation.rounds import Watcher
from fleetseg.runs import run as run_module
from fleetseg.runs.dry_run import try_one_step
from fleetseg.runs.folder import read_end
from fleetseg.runs.setup import set_up

SPACE = fleetseg.LabelSpace("two", ("dark", "bright"), ((0, 0, 0), (255, 255, 255)), ("bright",))


def drive(seed: int, count: int = 4, size: int = 32) -> list[tuple[np.ndarray, np.ndarray]]:
    generator = np.random.Generator(np.random.Philox(seed))
    images = generator.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return [(image, (image[..., 0] > 127).astype(np.uint8)) for image in images]


def run(out: Path, net: nn.Module | None, size: int = 32, **given: Any) -> fleetseg.Run:
    fields: dict[str, Any] = {
        "data": {"size": [size, size]},
        "federation": {"rounds": 2},
        "training": {"scale": [1, 1], "colour_jitter": 0.0},
        "engine": {"kind": "inprocess", "precision": "fp32"},
    }
    clients = given.pop("clients", {"a": drive(1, size=size), "b": drive(2, size=size)})
    for section, keys in given.items():
        fields[section] = {**fields.get(section, {}), **keys}
    return fleetseg.run(
        make_experiment(fields),
        out=out,
        net=net,
        clients=clients,
        evaluation={"test": drive(3, size=size)},
        space=SPACE,
    )


class Infinite(nn.Conv2d):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images) * float("inf")


class Halving(nn.Module):
    """Joins features of half the size with its input, as a U-Net does."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(4, 3, 2, 2)
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(torch.cat([self.up(self.down(images)), images], 1))
        return logits


class ClassesWhenScored(nn.Conv2d):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = super().forward(images)
        return logits if self.training else logits.argmax(1)


class Pooled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.head = nn.Conv2d(3, 2, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        gains = self.norm(images.mean((2, 3))).sigmoid()
        logits: torch.Tensor = self.head(images * gains[:, :, None, None])
        return logits


class Tripping(nn.Conv2d):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("my own\n words")


@pytest.mark.parametrize(
    ("net", "given", "words"),
    [
        (Infinite(3, 2, 1), {}, "the very first training step .* not a finite number"),
        (nn.Conv2d(3, 2, 1), {"training": {"lr": 1e9}}, "a value is too large.*training.lr"),
        (nn.Conv2d(3, 5, 1), {}, r"wrong shape; got shape \(4, 5, 32, 32\)"),
        (ClassesWhenScored(3, 2, 1), {}, r"wrong shape; got shape \(1, 32, 32\)"),
        (Halving(), {"size": 33}, r"trial step of 8 x 33x33: .*Sizes of tensors.*stride=32\)"),
        (Pooled(), {"training": {"batch_size": 1}}, "one value per channel.*batch_size"),
        (Tripping(3, 2, 1), {}, "cannot take a training step; got RuntimeError: my own words"),
        (nn.Conv2d(3, 2, 1).double(), {}, "must be float32"),
        (nn.Conv2d, {}, r"not a network; got the class Conv2d"),
        (torch.relu, {}, "not a network; got builtin_function"),
        (fleetseg.models.build.wrap(nn.Conv2d(3, 3, 1), 3), {}, "got 3, expected 2 .two."),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_network_that_no_client_could_train_ends_before_anything_is_written(
    tmp_path: Path, net: nn.Module, given: dict[str, Any], words: str
) -> None:
    with pytest.raises(ModelError, match=words):
        run(tmp_path / "run", net, **given)
    assert not (tmp_path / "run").exists()


def test_the_step_changes_no_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 2, 1))
    before = torch.get_rng_state()
    with_step = run(tmp_path / "with", net)
    assert torch.equal(torch.get_rng_state(), before)
    monkeypatch.setattr(run_module, "try_one_step", lambda setup: [])
    assert run(tmp_path / "without", net).model_sha256 == with_step.model_sha256


def test_a_network_of_the_users_starts_every_run_and_stays_as_it_was(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)).eval()
    before = copy.deepcopy(net.state_dict())
    first, again = (run(tmp_path / name, net) for name in ("first", "again"))
    assert first.model_sha256 == again.model_sha256
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert type(net[1]) is nn.BatchNorm2d
    assert not net.training


def test_a_network_that_cannot_be_copied_is_refused(tmp_path: Path) -> None:
    net = nn.Conv2d(3, 2, 1)
    net.last = net(torch.zeros(1, 3, 2, 2))
    with pytest.raises(ModelError, match="Conv2d: the network cannot be copied"):
        run(tmp_path / "run", net)


def test_trouble_of_one_client_is_its_own(tmp_path: Path) -> None:
    class Choosy(nn.Conv2d):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(images) / (images.amin(dim=(1, 2, 3), keepdim=True) < 1)

    white = [(np.full((32, 32, 3), 255, np.uint8), np.zeros((32, 32), np.uint8))] * 9
    done = run(tmp_path / "run", Choosy(3, 2, 1), clients={"white": white, "good": drive(1)})
    assert done.reason == "rounds"
    assert [record.accepted for record in done.records] == [("good",)] * 2


def test_too_small_a_picture_for_the_network_is_told_and_for_single_images_refused(
    tmp_path: Path,
) -> None:
    done = run(tmp_path / "run", None, federation={"rounds": 1})
    (note,) = done.notes
    assert note.startswith("at 32x32 the features of 18 BatchNorm layers (the first: features.")
    single = {str(number): drive(number, 1) for number in range(3)}
    with pytest.raises(ModelError, match=r"1x1.*no vehicle has more than one image. Raise data"):
        run(tmp_path / "single", None, clients=single)
    assert not any("1x1" in note for note in run(tmp_path / "c", nn.Conv2d(3, 2, 1)).notes)


class Later(nn.Conv2d):
    """Breaks once it has been trained for a while."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images) / (self.weight.abs().sum() < 1.0)


def late(bound: float) -> nn.Module:
    net = Later(3, 2, 1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    return net


def test_a_run_without_one_used_update_says_so(tmp_path: Path) -> None:
    """One step is fine and a whole round is not: nothing before round 1 can tell."""
    done = run(
        tmp_path / "run",
        late(1.0),
        training={"lr": 0.4, "local_steps": 40, "scale": [1, 1], "colour_jitter": 0.0},
    )
    assert done.reason == "no-update"
    assert "a (refused: non-finite), b (refused: non-finite); a says: " in done.notes[-1]
    end = read_end(tmp_path / "run")
    assert end is not None
    assert end["reason"] == "no-update"
    with pytest.raises(QuorumLost, match=r"non-finite\); a says: the loss is not"):
        run(
            tmp_path / "long",
            late(1.0),
            federation={"rounds": 9},
            training={"lr": 0.4, "local_steps": 40, "scale": [1, 1], "colour_jitter": 0.0},
        )


def test_nobody_to_take_part_is_one_error_wherever_the_data_come_from(tmp_path: Path) -> None:
    void = [(image, np.full_like(label, 255)) for image, label in drive(1)]
    with pytest.raises(DataError, match="no client can take part; got no usable labelled sample"):
        run(tmp_path / "run", nn.Conv2d(3, 2, 1), clients={"a": void, "b": void})
    with pytest.raises(DataError, match="no client can take part; got no client"):
        run(tmp_path / "run", nn.Conv2d(3, 2, 1), clients={})
    with pytest.raises(DataError, match="vehicle 'a': there are no samples"):
        run(tmp_path / "run", nn.Conv2d(3, 2, 1), clients={"a": [], "b": drive(1)})


def test_noise_stands_in_where_the_clients_are_elsewhere(tmp_path: Path) -> None:
    experiment = make_experiment({"data": {"size": [48, 64]}})
    fleet_data = FleetData(SPACE, {}, (), None)
    for net, words in ((Infinite(3, 2, 1), ""), (Halving(), ""), (Tripping(3, 2, 1), "my own")):
        setup = set_up(experiment, fleet_data, tmp_path, net, Watcher())
        if not words:
            assert try_one_step(setup) == []
            continue
        with pytest.raises(ModelError, match=words):
            try_one_step(setup)


def test_samples_that_are_all_bad_are_told_with_the_reason(tmp_path: Path) -> None:
    for name, array in (("images", np.zeros((8, 8, 3))), ("masks", np.full((8, 8), 9))):
        (tmp_path / name).mkdir()
        Image.fromarray(array.astype(np.uint8)).save(tmp_path / name / "1.png")
    (tmp_path / "classes.toml").write_text('classes = ["a"]\n')
    source = {"kind": "folder", "root": str(tmp_path)}
    fields = {"label_space": "own", "sources": [source], "cache": str(tmp_path / "cache")}
    with pytest.raises(
        DataError, match=r"no client can take part; got .*1 of 1 samples: label ids"
    ):
        fleetseg.run(make_experiment({"data": fields}), out=tmp_path / "run")


def test_a_fleet_takes_no_network_that_it_does_not_know_by_name(tmp_path: Path) -> None:
    painted = {"cities": ["amber"], "conditions": ["day"], "frames_per_drive": 2}
    experiment = make_experiment(
        {
            "data": {"size": [32, 48], "sources": [painted], "cache": str(tmp_path / "cache")},
            "engine": {"kind": "fleet"},
        }
    )
    with pytest.raises(ConfigError, match="build their network by its name"):
        fleetseg.run(experiment, out=tmp_path / "run", net=nn.Conv2d(3, 11, 1))
