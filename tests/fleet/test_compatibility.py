"""One release apart, server and vehicle serve together, or say what keeps them from it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from tests.experiments import tiny_experiment

from fleetseg.config import Experiment
from fleetseg.experiment_file import dotted, make_experiment_from_text, to_toml
from fleetseg.fleet import compatibility
from fleetseg.fleet.compatibility import at_default, speak_together, understood


@pytest.mark.parametrize(
    ("own", "own_since", "server", "since", "together"),
    [
        (6, 6, 6, 6, True),
        (6, 6, 7, 6, True),  # a newer server that goes on with older vehicles
        (6, 6, 7, 7, False),  # and one that does not
        (7, 6, 6, 6, True),  # a newer vehicle that goes on with older servers
        (7, 7, 6, 6, False),
        (7, 6, 5, 5, False),  # two apart
        (6, 6, 8, 5, True),
        (6, 6, 6, None, True),  # of before servers said so
        (6, 6, 5, None, False),
        (6, 6, 7, None, False),
        (6, 6, True, 1, False),
        (6, 6, "6", 6, False),
        (6, 6, 7, "6", False),
    ],
)  # fmt: skip
def test_who_speaks_with_whom(
    monkeypatch: pytest.MonkeyPatch,
    own: int,
    own_since: int,
    server: Any,
    since: Any,
    together: bool,
) -> None:
    monkeypatch.setattr(compatibility, "PROTOCOL", own)
    monkeypatch.setattr(compatibility, "COMPATIBLE_SINCE", own_since)
    assert speak_together(server, since) is together


def test_every_option_is_chosen_or_at_its_default(tmp_path: Path) -> None:
    experiment = tiny_experiment(tmp_path, training={"lr": 0.0123})
    defaults = at_default(experiment)
    assert "training.lr" not in defaults
    assert "federation.deadline_s" in defaults
    assert at_default(Experiment()) != []
    every = set(dotted(experiment.model_dump(mode="json")))
    assert set(defaults) < every


def test_what_both_know_is_not_touched(tmp_path: Path) -> None:
    experiment = tiny_experiment(tmp_path)
    text = to_toml(experiment)
    assert understood(text, at_default(experiment)) is text
    assert understood(text, None) is text
    assert understood("nonsense", ["a"]) == "nonsense"


def test_only_what_is_unknown_and_at_its_default_is_left_out(tmp_path: Path) -> None:
    experiment = tiny_experiment(tmp_path)
    fields = tomllib.loads(to_toml(experiment))
    fields["training"]["flavour"] = 0.5
    fields["audit"] = {"keep": True, "deep": {"er": 1}}
    from fleetseg.experiment_file import fields_to_toml

    text = fields_to_toml(fields)
    unused = ["training.flavour", "audit.keep", "audit.deep.er"]
    left = understood(text, [*unused, *at_default(experiment)])
    assert make_experiment_from_text(left, where="x") == experiment
    for used in unused:
        told = tomllib.loads(understood(text, [name for name in unused if name != used]))
        assert used in dotted(told)
        assert sorted(set(dotted(told)) & set(unused)) == [used]
