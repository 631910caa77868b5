"""Choices of cohorts and weights that cannot work are refused, with the reason."""

from __future__ import annotations

from typing import Any

import pytest

from fleetseg.errors import ConfigError
from fleetseg.experiment_file import make_experiment
from fleetseg.learning.supervision import SUPERVISION, Supervision
from fleetseg.runs.choices import check_choices


@pytest.mark.parametrize(
    ("federation", "said"),
    [
        ({"weights": "pixels"}, "counts labelled pixels"),
        ({"weights": "inverse class frequency"}, "counts labelled pixels"),
        ({"sampler": "clusters", "cohort": 2}, "goes by the classes"),
    ],
)
def test_what_goes_by_labels_needs_some(
    federation: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_choices(make_experiment({"federation": federation}))
    unlabelled = Supervision(lambda inputs: lambda model, images, labels: None, needs_labels=False)
    monkeypatch.setitem(SUPERVISION, "none", unlabelled)
    with pytest.raises(ConfigError, match=said):
        check_choices(
            make_experiment({"federation": federation, "training": {"supervision": "none"}})
        )


def test_of_no_number_there_is_no_surplus() -> None:
    fields = {"sampler": "poisson", "cohort": 0.5, "over_selection": 1.2}
    with pytest.raises(ConfigError, match="has no number to ask more than"):
        check_choices(make_experiment({"federation": fields}))
