"""Options of the data and the partition that have no effect."""

from __future__ import annotations

from collections.abc import Callable

from fleetseg.runs.rules.rule import Facts, Rule


def _partition(*kinds: str) -> Callable[[Facts], bool]:
    return lambda f: not f.over_network and f.experiment.partition.kind not in kinds


DATA_RULES: tuple[Rule, ...] = (
    Rule(("partition.by", "partition.piece"), _partition("natural"), "kind is not 'natural'"),
    Rule(("partition.alpha", "partition.min_size"), _partition("dirichlet"),
         "kind is not 'dirichlet'"),
    Rule(("partition.file",), _partition("file"), "kind is not 'file'"),
    Rule(("partition.clients",), lambda f: f.experiment.partition.kind == "file",
         "the file says who the vehicles are"),
    Rule(("partition.kind", "partition.by", "partition.clients", "partition.holdout"),
         lambda f: f.own_data, "the samples come with their vehicles"),
    Rule(("partition.label_subset",), lambda f: f.own_data or f.over_network,
         "the samples come with their labels"),
    Rule(("pretrain",), lambda f: not f.experiment.pretrain.sources, "pretrain.sources is empty"),
    Rule(("partition.holdout_gap",), lambda f: f.experiment.partition.holdout == 0,
         "partition.holdout is 0"),
    Rule(("data.sources", "data.evaluation", "data.store"), lambda f: f.own_data,
         "the samples are your own"),
)  # fmt: skip
