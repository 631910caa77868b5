"""Which settings the page calls different."""

from fleetseg.config import Experiment, SourceConfig
from fleetseg.report.gather_settings import setting_figures


def test_a_source_differs_by_what_it_sets_and_not_by_its_defaults() -> None:
    sources = (SourceConfig(kind="camvid", root="a"), SourceConfig(kind="camvid", root="b"))
    experiment = Experiment(data={"sources": sources})

    changed, unchanged = setting_figures([experiment])

    assert [row.name for row in changed] == [
        "data.sources[0].kind",
        "data.sources[0].root",
        "data.sources[1].kind",
        "data.sources[1].root",
    ]
    assert "data.sources[1].limit" in {row.name for row in unchanged}


def test_between_runs_what_they_have_in_common_does_not_differ() -> None:
    runs = [Experiment(name="a", training={"lr": lr}) for lr in (0.1, 0.2)]

    changed, _ = setting_figures(runs)

    assert [(row.name, row.values) for row in changed] == [("training.lr", ("0.1", "0.2"))]
