"""What a run is made of: what cannot be scored or trained is refused before anything is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from fleetseg.clients import EvaluationSet, FleetData
from fleetseg.data.labels import LabelSpace
from fleetseg.data.sample import ScoredPairs
from fleetseg.errors import ConfigError, ModelError
from fleetseg.experiment_file import make_experiment
from fleetseg.federation.rounds import Watcher
from fleetseg.models.build import wrap
from fleetseg.runs.setup import set_up

SPACE = LabelSpace("two", ("dark", "bright"), ((0, 0, 0), (255, 255, 255)), ("bright",))
PAIRS = [(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8))]
SETS = (EvaluationSet("test", ScoredPairs(PAIRS, ("day",))),)
SERVER = FleetData(SPACE, {}, SETS, None)


def prepared(folder: Path, data: FleetData = SERVER, heads: bool = True, **given: Any) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    prefixes = ["2."] if heads else []
    set_up(make_experiment(given), data, folder, wrap(net, 2, head_prefixes=prefixes), Watcher())


SHARED: dict[str, dict[str, Any]] = {
    "body": {"sharing": "body"},
    "head": {"sharing": "head"},
    "stages": {"sharing": "stages", "stages": ["0", "1"]},
}


@pytest.mark.parametrize("name", SHARED)
def test_a_part_that_learns_apart_is_not_scored_on_the_server(name: str, tmp_path: Path) -> None:
    """The sets may come with the call, of which the experiment says nothing."""
    with pytest.raises(ConfigError, match="with a part that nobody has trained"):
        prepared(tmp_path, federation=SHARED[name])
    prepared(tmp_path, FleetData(SPACE, {}, (), None, holds_out=True), federation=SHARED[name])


def test_a_part_that_stands_is_scored_on_the_server(tmp_path: Path) -> None:
    for shared, learns in (("body", "body"), ("stages", "body"), ("head", "head")):
        phases = {"phases": [{"learns": learns}]}
        prepared(tmp_path, federation=SHARED[shared], training=phases)


@pytest.mark.parametrize("name", SHARED)
def test_what_no_phase_trains_is_not_worth_exchanging(name: str, tmp_path: Path) -> None:
    data, other = FleetData(SPACE, {}, (), None, holds_out=True), {"head": "body"}
    phases = {"phases": [{"learns": other.get(name, "head")}]}
    with pytest.raises(ConfigError, match=rf"'{name}' exchanges what no phase trains"):
        prepared(tmp_path, data, federation=SHARED[name], training=phases)


def test_features_from_imagenet_are_not_kept_from_a_random_start(tmp_path: Path) -> None:
    """And a network of one's own has to be one for whose encoder there are weights."""
    given = make_experiment({"training": {"feature_distance": {"weight": 0.005}}})
    with pytest.raises(ConfigError, match=r"random weights. Set model.pretrained = 'imagenet'"):
        set_up(given, SERVER, tmp_path, None, Watcher())
    with pytest.raises(ConfigError, match="there are none for model 'custom'"):
        prepared(tmp_path, training={"feature_distance": {"weight": 0.005}})


def test_norm_layers_alone_that_stay_are_another_matter(tmp_path: Path) -> None:
    prepared(tmp_path, federation={"sharing": "stages", "stages": ["0", "2"]})


def test_statistics_that_are_fixed_late_are_the_fleets(tmp_path: Path) -> None:
    """A newcomer past that moment would train with a mean of 0 and a variance of 1 for ever."""
    fixed = {"freeze_bn_after": 0.5}
    own_data = FleetData(SPACE, {}, (), None, holds_out=True)
    apart = {"sharing": "stages", "stages": ["0", "2"]}
    with pytest.raises(ConfigError, match=r"'stages' leaves running statistics.*net\.1\."):
        prepared(tmp_path, own_data, federation=apart, training=fixed)
    prepared(tmp_path, own_data, federation=apart)
    prepared(tmp_path, own_data, federation={"sharing": "body"}, training=fixed)  # no norm in it
    held = {**fixed, "phases": [{"learns": "head"}]}
    prepared(tmp_path, own_data, federation=apart, training=held)  # nobody moves them


def test_a_head_to_fine_tune_has_to_be_known_before_the_first_round(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not define its head"):
        prepared(tmp_path, heads=False, training={"phases": [{"learns": "head"}]})
    with pytest.raises(ModelError, match="does not define its head"):
        prepared(tmp_path, heads=False, personal={"model": "fine-tuned", "learns": "head"})
