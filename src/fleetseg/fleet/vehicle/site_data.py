"""A site's data: written by `fleetseg client` next to its kit, read by its trainer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from fleetseg.config import (
    DataConfig,
    Experiment,
    PartitionConfig,
    SourceConfig,
    UnlabelledConfig,
)
from fleetseg.data.labels import LabelSpace
from fleetseg.errors import ConfigError, DataError
from fleetseg.experiment_file import load_experiment
from fleetseg.files import write_atomic

if TYPE_CHECKING:  # these load torch, which `fleetseg client` does not need
    from fleetseg.data.pool import Progress
    from fleetseg.federation.client import Client


@dataclass(frozen=True)
class SiteData:
    """The data of one site, and the vehicles that it represents."""

    site: str
    sources: tuple[SourceConfig, ...] = ()
    split_file: str = ""  # split of the sources, if they hold more than this site's data
    vehicles: tuple[str, ...] = ()  # names in the split; empty = one vehicle, named as the site
    experiment: str = ""  # instead of sources: the data and partition of this experiment (loopback)
    keeps: str = ""  # where vehicles keep their state, if not with the site (loopback)

    def write(self, path: Path) -> None:
        """Write as JSON."""
        fields = asdict(replace(self, sources=()))
        fields["sources"] = [source.model_dump(mode="json") for source in self.sources]
        write_atomic(path, json.dumps(fields, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> SiteData:
        """Read what `write` wrote."""
        fields = json.loads(path.read_text(encoding="utf-8"))
        sources = tuple(SourceConfig.model_validate(source) for source in fields.pop("sources"))
        return cls(sources=sources, **{**fields, "vehicles": tuple(fields["vehicles"])})


def open_clients(
    site_data: SiteData,
    experiment: Experiment,
    progress: Progress | None = None,
    notify: Callable[[str], None] = lambda note: None,
    space: LabelSpace | None = None,
    released: Path | None = None,
) -> Mapping[str, Client]:
    """Open the data for an experiment and give every vehicle its samples.

    Problems with samples are passed to `notify` and do not leave this site. Without a label
    `space`, the experiment's is used. Reports with noise are kept in `released`.

    Raises:
        DataError, ConfigError: the data cannot be used, or a vehicle is not in the split.
    """
    from fleetseg.clients import open_fleet_data

    fleet_data = open_fleet_data(_described(site_data, experiment), progress, space, released)
    held = fleet_data.clients
    for note in fleet_data.notes:
        notify(note)
    if not site_data.vehicles:
        if len(held) != 1 and (site_data.split_file or site_data.experiment):
            if site_data.site not in held:
                raise _not_held(site_data.site, held)
            return {site_data.site: held[site_data.site]}
        (client,) = held.values()
        enrolment = replace(client.enrolment, client_id=site_data.site)
        return {site_data.site: replace(client, enrolment=enrolment)}
    for name in site_data.vehicles:
        if name not in held:
            raise _not_held(name, held)
    return {name: held[name] for name in site_data.vehicles}


def _not_held(name: str, held: Mapping[str, Client]) -> DataError:
    some = ", ".join(sorted(held)[:10]) + (" ..." if len(held) > 10 else "")
    return DataError(
        f"no vehicle named '{name}' in the split",
        expected=f"one of: {some}",
        cure="Use --vehicle NAME",
    )


def _described(site_data: SiteData, experiment: Experiment) -> Experiment:
    """Replace the experiment's data, which are the server's, by the site's own."""
    if site_data.experiment:
        own = load_experiment(Path(site_data.experiment))
        data, partition = own.data, own.partition
    else:
        data = DataConfig(sources=site_data.sources)
        partition = _partition(site_data)
    wanted = {
        "label_space": experiment.data.label_space,
        "size": experiment.data.size,
        "store": experiment.data.store,
        "max_bad_share": experiment.data.max_bad_share,
        "evaluation": (),
    }
    known = experiment.partition
    holdout: dict[str, object] = {"holdout": known.holdout, "holdout_gap": known.holdout_gap}
    if not site_data.experiment:
        holdout["unlabelled"] = _unlabelled(site_data, known.unlabelled)
    return experiment.model_copy(
        update={
            "data": data.model_copy(update=wanted),
            "partition": partition.model_copy(update=holdout),
        }
    )


def _unlabelled(site_data: SiteData, rule: UnlabelledConfig) -> UnlabelledConfig:
    """Turn the server's name patterns into patterns for the data opened here.

    Raises:
        ConfigError: a share of all vehicles is set, which no vehicle can draw by itself.
    """
    if rule.share:
        raise ConfigError(
            "partition.unlabelled.share needs all vehicles, and this one knows only itself",
            cure="Name them on the server: partition.unlabelled.clients",
        )
    names = site_data.vehicles or (site_data.site,)
    fit = [p for p in rule.clients if any(fnmatchcase(name, p) for name in names)]
    # Such a vehicle has another name while its data is read.
    alone = not site_data.vehicles and not site_data.split_file
    return UnlabelledConfig(clients=("*",) if fit and alone else tuple(fit))


def _partition(site_data: SiteData) -> PartitionConfig:
    if site_data.split_file:
        return PartitionConfig(kind="file", file=site_data.split_file)
    if len(site_data.sources) == 1:
        return PartitionConfig(kind="natural", by="dataset")
    return PartitionConfig(kind="iid", clients=1)
