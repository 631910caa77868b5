"""Sweep files: grids, lists and both; what is wrong is named; a written one reads back equal."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest

from fleetseg.config import Experiment
from fleetseg.errors import ConfigError
from fleetseg.experiment_file import make_experiment, with_resolved_paths
from fleetseg.runs.sweep_file import Sweep, read_sweep

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "sweep-tiny.toml"


def sweep(tmp_path: Path, text: str, *overrides: str) -> Sweep:
    path = tmp_path / "many.toml"
    path.write_text(text if "base =" in text else f"base = {{}}\n{text}")
    return read_sweep(path, overrides)


def test_a_grid_is_every_combination(tmp_path: Path) -> None:
    found = sweep(tmp_path, '[grid]\nmethod = ["fedavg", "fedprox"]\n"training.lr" = [0.5, 1e-5]')
    assert {one.name: one.options for one in found.settings} == {
        "fedavg_lr-0.5": {"method": "fedavg", "training": {"lr": 0.5}},
        "fedavg_lr-1e-05": {"method": "fedavg", "training": {"lr": 1e-5}},
        "fedprox_lr-0.5": {"method": "fedprox", "training": {"lr": 0.5}},
        "fedprox_lr-1e-05": {"method": "fedprox", "training": {"lr": 1e-5}},
    }
    assert (found.name, found.seeds) == ("many", (0,))


def test_dotted_names_and_tables_are_the_same(tmp_path: Path) -> None:
    quoted = sweep(tmp_path, '[grid]\n"training.lr" = [0.5]\n"data.size" = [[8, 16]]')
    nested = sweep(tmp_path, "[grid]\ntraining.lr = [0.5]\ndata = { size = [[8, 16]] }")
    assert quoted == nested
    assert [one.name for one in quoted.settings] == ["lr-0.5_size-8x16"]


def test_options_of_one_last_name_are_named_in_full(tmp_path: Path) -> None:
    found = sweep(tmp_path, '[grid]\n"a.x" = [1]\n"b.x" = [2]\n"c.y" = [true]')
    assert [one.name for one in found.settings] == ["a.x-1_b.x-2_y-true"]


def test_a_list_and_a_grid_add_up(tmp_path: Path) -> None:
    found = sweep(
        tmp_path,
        """
        seeds = [3, 1]
        [grid]
        method = ["fedavg"]
        [[run]]
        name = "pulled"
        method = "fedprox"
        grid = { "training.prox.mu" = [0.1, 1] }
        [[run]]
        method = "fedavgm"
        federation.server_lr = 0.5
        [[run]]
        name = "pooled"
        baseline = "centralised"
        "baseline.images_share" = 2.0
        """,
    )
    assert found.seeds == (3, 1)
    assert [(one.name, one.baseline) for one in found.settings] == [
        ("fedavg", ""),
        ("pulled_mu-0.1", ""),
        ("pulled_mu-1", ""),
        ("fedavgm_server_lr-0.5", ""),
        ("pooled", "centralised"),
    ]
    assert found.settings[1].options == {"method": "fedprox", "training": {"prox": {"mu": 0.1}}}
    assert found.settings[-1].options == {"baseline": {"images_share": 2.0}}


def test_seeds_alone(tmp_path: Path) -> None:
    found = sweep(tmp_path, "seeds = [1, 2]\nbase = { seed = 4 }")
    assert [one.name for one in found.settings] == ["base"]
    assert sweep(tmp_path, "base = { seed = 4 }").seeds == (4,)


def test_overrides_win_and_may_change_the_seeds(tmp_path: Path) -> None:
    text = 'seeds = [1]\n[[run]]\nname = "a"\nfederation.rounds = 9\ntraining.lr = 0.5'
    found = sweep(tmp_path, text, "federation.rounds=2", "seeds=[7, 8]")
    assert found.seeds == (7, 8)
    assert found.settings[0].options == {"federation": {"rounds": 2}, "training": {"lr": 0.5}}


def test_what_is_written_reads_back_equal_elsewhere(tmp_path: Path) -> None:
    example = read_sweep(EXAMPLE)
    elsewhere = tmp_path / "deep" / "sweep.toml"
    elsewhere.parent.mkdir()
    elsewhere.write_text(example.to_toml())
    assert read_sweep(elsewhere) == example
    assert len(example.settings) == 5


def test_paths_are_relative_to_the_file_that_says_them(tmp_path: Path) -> None:
    (tmp_path / "bases").mkdir()
    (tmp_path / "bases" / "one.toml").write_text(
        'data.cache = "c"\npartition.label_subset.file = "l.json"\n'
        '[[data.sources]]\nkind = "camvid"\nroot = "d"'
    )
    found = sweep(tmp_path, 'base = "bases/one.toml"\n[[run]]\nname = "a"\nmodel.start = "m"')
    assert found.base["data"]["cache"] == str(tmp_path / "bases" / "c")
    assert found.base["data"]["sources"][0]["root"] == str(tmp_path / "bases" / "d")
    subset = found.base["partition"]["label_subset"]
    assert subset == {"file": str(tmp_path / "bases" / "l.json")}
    assert found.settings[0].options == {"model": {"start": str(tmp_path / "m")}}


def test_every_path_of_an_experiment_is_one_in_a_sweep(tmp_path: Path) -> None:
    """What is resolved as an experiment is read is resolved in the fields of a sweep, too."""
    fields: dict[str, Any] = Experiment().model_dump(mode="json")
    source = {"kind": "camvid", "root": "p"}
    fields["data"] |= {"cache": "p", "label_space": "p.toml"}
    fields["data"] |= {"sources": [source], "evaluation": [source]}
    fields["partition"]["file"] = fields["partition"]["label_subset"]["file"] = "p"
    fields["model"]["start"], fields["pretrain"]["sources"] = "p", [source]
    given = copy.deepcopy(fields)
    resolved = with_resolved_paths(fields, tmp_path)
    read = make_experiment(fields, base=tmp_path)
    assert make_experiment(resolved, base=None) == read
    assert not re.search(r':"p(\.toml)?"', read.model_dump_json())
    assert fields == given


def test_the_path_of_a_base_has_variables(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "one.toml").write_text("seed = 7")
    monkeypatch.setenv("HERE", str(tmp_path))
    (tmp_path / "x").mkdir()
    assert sweep(tmp_path / "x", 'base = "$HERE/one.toml"').base == {"seed": 7}


WRONG = {
    "runs = 3": "unknown key 'runs' of a sweep.*Did you mean 'run'",
    "base = 3": "a sweep needs a base",
    "seeds = [1, 1]": "seeds; got .1, 1., expected different whole numbers",
    "seeds = []": "seeds",
    "seeds = [true]": "seeds",
    "seeds = 1": "seeds",
    "run = 3": "run is not a list of tables",
    "grid = 3": "a grid is a table",
    "[grid]\ntraining.lr = 0.5": "grid: 'training.lr' has no list of values",
    "[grid]\ntraining.lr = []": "has no list of values",
    "[grid]\nseed = [1]": "'seed' is not varied",
    '[[run]]\nname = "a/b"': "invalid name of a setting; got 'a/b'",
    "[[run]]\nname = 3": "the name of a ..run..",
    "[[run]]": "invalid name of a setting; got ''",
    '[[run]]\nname = "a"\nbaseline = "local"': "this baseline is not a single run",
    '[[run]]\nname = "a"\n[[run]]\nname = "a"': "several settings with the same name; got a. Name",
    '[[run]]\nname = "a"\ntraining = 3\n"training.lr" = 3': "'training' is not a table",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=WRONG[text]):
        sweep(tmp_path, text)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="sweep file not found"):
        read_sweep(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="experiment file not found"):
        sweep(tmp_path, 'base = "none.toml"')
