"""Check that samples have the attribute by which a partition groups them."""

from __future__ import annotations

from collections.abc import Sequence

from fleetseg.config import PartitionConfig
from fleetseg.data.sample import Sample
from fleetseg.errors import ConfigError

_FIELDS = ("sequence", "domain", "city", "condition", "vehicle", "dataset")


def require_known(samples: Sequence[Sample], by: str, *, key: str) -> None:
    """Check that samples of each data set have the attribute `by` that option `key` asks for.

    Raises:
        ConfigError: none of a data set's samples has it; lists the attributes that they have.
    """
    of_dataset: dict[str, list[Sample]] = {}
    for sample in samples:
        of_dataset.setdefault(sample.dataset, []).append(sample)
    for dataset, those in sorted(of_dataset.items()):
        if any(getattr(sample, by) for sample in those):
            continue
        known = [f for f in _FIELDS if any(getattr(sample, f) for sample in those)]
        best = "domain" if "domain" in known else known[0]
        raise ConfigError(
            f"the samples of '{dataset}' have no {by}",
            where=key,
            got=f"'{by}'",
            expected="one of: " + ", ".join(known),
            cure=f"Set {key} = '{best}', or leave the data set out",
        )


def one_group(samples: Sequence[Sample], config: PartitionConfig) -> list[str]:
    """Note when a natural partition yields one vehicle because all samples share one value."""
    by = config.by
    asked_for = config.kind != "natural" or by == "dataset" or config.clients or config.piece
    values = {str(getattr(sample, by)) for sample in samples}
    if asked_for or len(values) > 1 or len({sample.dataset for sample in samples}) > 1:
        return []
    return [
        f"there is only one vehicle: all {len(samples)} samples have the same {by} "
        f"('{values.pop()}'); choose another partition.by, or set partition.clients"
    ]
