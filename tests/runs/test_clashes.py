"""What cannot work together is refused before any data are read, with the reason."""

from __future__ import annotations

from typing import Any

import pytest

from fleetseg.errors import ConfigError
from fleetseg.experiment_file import make_experiment
from fleetseg.runs.choices import check_choices

PHASES = [{"learns": "head"}, {"learns": "body"}]
SETS = {"evaluation": [{"split": "val"}]}
CASES: list[tuple[dict[str, Any], str]] = [
    ({"method": "fedper", "data": SETS}, "a part that nobody has trained; hold frames"),
    ({"method": "fedrep", "data": SETS}, "partition.holdout"),
    ({"federation": {"sharing": "head"}, "data": SETS}, "a part of the network learns"),
    ({"training": {"phases": PHASES, "optimiser_state": "kept"}}, "an optimiser of its own"),
    ({"method": "scaffold", "training": {"phases": PHASES}}, "use one phase"),
    ({"method": "ditto", "personal": {"learns": "head"}}, "whole model"),
    ({"federation": {"sharing": "stages"}}, "it names none"),
    ({"federation": {"sharing": "bdy"}}, "Did you mean 'body'"),
    ({"personal": {"model": "dito"}}, "kind of personal model 'dito'.*Did you mean 'ditto'"),
]


@pytest.mark.parametrize(("fields", "said"), CASES, ids=[said for _, said in CASES])
def test_what_cannot_work_is_refused_with_the_reason(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_choices(make_experiment(fields))


def test_a_head_that_nobody_trains_may_be_scored_by_the_server() -> None:
    """It is the same everywhere: FedBABU's global model is one."""
    check_choices(make_experiment({"method": "fedbabu", "data": SETS}))
    one_phase = {"training": {"phases": [{"learns": "body"}], "optimiser_state": "kept"}}
    check_choices(make_experiment(one_phase))
