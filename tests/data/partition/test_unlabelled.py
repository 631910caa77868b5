"""Who is called unlabelled, and which labels stay closed."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleetseg.config import PartitionConfig, SourceConfig, UnlabelledConfig
from fleetseg.data.partition.unlabelled import hidden_labels, unlabelled_clients, without_labels
from fleetseg.data.synthetic.source import open_synthetic
from fleetseg.errors import ConfigError

CLIENTS = [f"car-{k}" for k in range(8)]
SOURCE = open_synthetic(
    SourceConfig(cities=("amber", "birch"), conditions=("day",), frames_per_drive=4)
)


def partition(**fields: object) -> PartitionConfig:
    return PartitionConfig.model_validate(fields)


def test_a_share_is_drawn_by_the_seed_whatever_the_order() -> None:
    rule = UnlabelledConfig(share=0.75)
    drawn = unlabelled_clients(rule, CLIENTS, 0)
    assert len(drawn) == 6
    assert drawn == unlabelled_clients(rule, CLIENTS[::-1], 0)
    assert any(drawn != unlabelled_clients(rule, CLIENTS, seed) for seed in range(1, 5))
    assert unlabelled_clients(UnlabelledConfig(share=1.0), CLIENTS, 0) == set(CLIENTS)


def test_patterns_and_a_share_are_one_too_many() -> None:
    with pytest.raises(ConfigError, match="both set"):
        unlabelled_clients(UnlabelledConfig(clients=("car-*",), share=0.5), CLIENTS, 0)


def test_nothing_is_hidden_unless_it_is_asked_for() -> None:
    hidden = hidden_labels(partition(), SOURCE.samples, 0, scores_training=False)
    assert (hidden.clients, hidden.to_train, hidden.to_score) == (set(), set(), set())


def test_labels_are_hidden_from_training_and_only_scored_ones_are_read() -> None:
    fields = {"unlabelled": {"clients": ["*birch*"]}, "holdout": 0.25, "holdout_gap": 1}
    hidden = hidden_labels(partition(**fields), SOURCE.samples, 0, scores_training=False)
    assert hidden.clients == {"synthetic-birch-day"}
    assert hidden.to_train == {4, 5, 6, 7}
    assert hidden.to_score == {4, 5, 6}  # the gap's, too
    alike = hidden_labels(
        partition(unlabelled={"clients": ["*birch*"]}), SOURCE.samples, 0, scores_training=True
    )
    assert alike.to_score == set()


def test_a_partition_by_labels_is_refused() -> None:
    fields = {"kind": "dirichlet", "clients": 2, "unlabelled": {"share": 0.5}}
    with pytest.raises(ConfigError, match="by their labels"):
        hidden_labels(partition(**fields), SOURCE.samples, 0, scores_training=False)


def test_a_sample_without_its_label_is_read_without_it(tmp_path: Path) -> None:
    """The painter, too, has no label of it, and no digest of one."""
    bare = without_labels(SOURCE, 10, {11})
    assert [sample.label is None for sample in bare.samples[:3]] == [False, True, False]
    assert bare.digest(bare.samples[1])[1] == ""
    assert bare.digest(bare.samples[1])[0] == SOURCE.digest(SOURCE.samples[1])[0]
