"""What vehicles see, who holds it, and which network looks at it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from fleetseg.config.section import Section


class SourceConfig(Section):
    """One data set on disk, or the synthetic one."""

    kind: str = "synthetic"  # a name in fleetseg.data.sources.SOURCES
    root: str = ""  # folder; "~", "${VARIABLE}" and paths relative to the TOML file are resolved
    split: str = "train"
    # Optional filters: only these of the source; empty = all.
    cities: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()
    vehicles: tuple[str, ...] = ()
    sequences: tuple[str, ...] = ()  # drives
    # Only for kind = "synthetic":
    frames_per_drive: int = Field(default=12, ge=1)  # frames of each (city, condition) drive
    seed: int = 0  # of the painter, not of the training
    limit: int = Field(default=0, ge=0)  # keep this many samples, evenly spaced; 0 = all


class LabelSubsetConfig(Section):
    """Which classes each client's training labels name; all others are erased (FedSeg)."""

    classes: int = Field(default=0, ge=0)  # drawn for each client of those it shows; 0 = all
    file: str = ""  # JSON {"client": ["class", ...]}; who is not named labels all


class UnlabelledConfig(Section):
    """Vehicles that are called unlabelled: no label of theirs is read, but to score them."""

    clients: tuple[str, ...] = ()  # shell patterns of their names (car-*)
    share: float = Field(default=0.0, ge=0, le=1)  # of all vehicles, drawn by the seed


class PartitionConfig(Section):
    """Who holds which sample."""

    kind: Literal["natural", "iid", "dirichlet", "file"] = "natural"
    by: Literal["sequence", "city", "condition", "vehicle", "domain", "dataset"] = "sequence"
    clients: int = Field(default=0, ge=0)  # wished number of clients; 0 = one per natural group
    piece: int = Field(default=0, ge=0)  # natural: wished samples per client; 0 = whole groups
    alpha: float = Field(default=0.5, gt=0)  # dirichlet concentration; small = skewed
    min_size: int = Field(default=2, ge=1)  # dirichlet: fewest samples per client
    file: str = ""  # file: a LEAF-style JSON file or a folder of them
    holdout: float = Field(default=0.0, ge=0, lt=1)  # share of each client's drives, their ends
    holdout_gap: int = Field(default=1, ge=0)  # frames beside held-out ones that nobody trains on
    label_subset: LabelSubsetConfig = LabelSubsetConfig()
    unlabelled: UnlabelledConfig = UnlabelledConfig()


class DataConfig(Section):
    """What the fleet sees and what the server scores on."""

    # A name in fleetseg.data.labels.LABEL_SPACES (camvid11, cityscapes19, idd7, ...); "own": as the
    # sources' classes.toml says; or such a file's path.
    label_space: str = "camvid11"
    size: tuple[PositiveInt, PositiveInt] = (192, 256)  # working (height, width) in pixels
    sources: tuple[SourceConfig, ...] = (SourceConfig(),)
    evaluation: tuple[SourceConfig, ...] = ()  # held-out sets of the server
    cache: str = ""  # folder; empty = $FLEETSEG_CACHE or the user's cache folder
    # Images are decoded once into the cache, or stay in their files and are decoded for each use.
    store: Literal["decoded", "files"] = "decoded"  # no part of the result
    max_bad_share: float = Field(default=0.05, ge=0, le=1)  # above it, a client abstains


class ModelConfig(Section):
    """Which network, and from which weights it starts."""

    name: str = "fast_scnn"  # bisenetv2, fast_scnn, zoo:<arch>/<encoder>
    pretrained: Literal["", "imagenet"] = ""
    # Mean and std of what the network sees. "": as it or its weights want. half: 0.5 and 0.5, as
    # FedDrive and LADD have it; cityscapes: of that data set, as FedSeg does.
    normalisation: Literal["", "half", "cityscapes"] = ""
    start: str = ""  # a model folder of an earlier run to start from
    # > 0: the body is frozen but for its norm layers, and changes of this rank are learnt beside
    # its convolutions; federation.sharing = "trained" then sends nothing else.
    adapter_rank: int = Field(default=0, ge=0)
    norm: Literal["batch", "group"] = "batch"  # group: every batch norm becomes a GroupNorm
    norm_groups: int = Field(default=32, ge=1)  # of group, at most; each has 4 channels or more
