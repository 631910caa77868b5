"""Banks in a model's folder: back as they were, and refused where they are not this model's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from tests.models_on_disk import saved_camvid_model

from fleetseg.errors import ModelError
from fleetseg.models.conditions import fit_conditions
from fleetseg.models.folder import load_model
from fleetseg.models.norm_banks import BANKS, NormBanks, load_norm_banks, save_norm_banks
from fleetseg.models.norm_statistics import batch_norms, own_statistics
from fleetseg.rng import generator


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_camvid_model(tmp_path_factory.mktemp("model"))


def banks_of(folder: Path) -> NormBanks:
    draw = generator(0)
    classifier = fit_conditions({n: list(draw.normal(0, 1, (4, 15))) for n in ("fog", "day")})
    layers = batch_norms(load_model(folder))
    own = {name: own_statistics(module) for name, module in layers.items()}
    wider = {name: (mean + 1, var * 2) for name, (mean, var) in own.items()}
    return NormBanks(classifier, {"day": own, "fog": wider}, {"day": 4, "fog": 4}, "two by hand")


def test_they_come_back_as_they_were_and_the_same_give_the_same_bytes(model: Path) -> None:
    banks = banks_of(model)
    path = save_norm_banks(banks, model)
    first = path.read_bytes()
    back = load_norm_banks(model, load_model(model))
    assert back.classifier.names == ("day", "fog")
    assert np.array_equal(back.classifier.means_KF, banks.classifier.means_KF)
    assert np.array_equal(back.classifier.precision_FF, banks.classifier.precision_FF)
    assert str(back) == str(banks) == "two by hand (day 4, fog 4)"
    for name, bank in banks.statistics.items():
        assert set(back.statistics[name]) == set(bank)
        for layer, pair in bank.items():
            found = back.statistics[name][layer]
            assert all(torch.equal(a, b) for a, b in zip(found, pair, strict=True))
    save_norm_banks(back, model)
    assert path.read_bytes() == first


def test_no_banks_and_banks_of_other_weights(tmp_path: Path) -> None:
    folder = saved_camvid_model(tmp_path / "one")
    network = load_model(folder)
    with pytest.raises(ModelError, match=r"no norm banks.*fleetseg norm-banks"):
        load_norm_banks(folder, network)
    save_norm_banks(banks_of(folder), folder)
    weights = folder / "model.safetensors"
    tensors = load(weights.read_bytes())
    tensors[next(iter(tensors))].add_(1)
    weights.write_bytes(save(tensors))
    with pytest.raises(ModelError, match="belong to other weights"):
        load_norm_banks(folder, network)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda t: t.pop("about"), "damaged or foreign"),
        (lambda t: t.update(about=torch.tensor([1, 2], dtype=torch.uint8)), "damaged or foreign"),
        (lambda t: t.update({"classifier/means": torch.zeros(3, 15)}), "damaged or foreign"),
        (lambda t: t["classifier/means"].fill_(torch.nan), "damaged or foreign"),
        (lambda t: t.pop(next(k for k in t if k.endswith("/var"))), "damaged or foreign"),
        (lambda t: t.update({"7/net/mean": torch.zeros(2), "7/net/var": torch.zeros(2)}),
         "damaged or foreign"),
        (lambda t: t.update({"0/net/mean": torch.zeros(2), "0/net/var": torch.zeros(2)}),
         "do not fit this network"),
        (lambda t: t[next(k for k in t if k.endswith("/var"))].fill_(-1.0), "not fit this network"),
        (lambda t: t[next(k for k in t if k.endswith("/mean") and k[0] == "1")].fill_(torch.inf),
         "do not fit this network"),
    ],
)  # fmt: skip
def test_damaged_banks_are_refused(model: Path, damage: object, words: str) -> None:
    path = save_norm_banks(banks_of(model), model)
    tensors = load(path.read_bytes())
    damage(tensors)  # type: ignore[operator]
    path.write_bytes(save(tensors))
    with pytest.raises(ModelError, match=words):
        load_norm_banks(model, load_model(model))
    (model / BANKS).write_bytes(b"no tensors")
    with pytest.raises(ModelError, match="damaged or foreign"):
        load_norm_banks(model, load_model(model))
