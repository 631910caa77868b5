"""Data sets, how they are divided among clients, and the network."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from fleetseg.config.section import Section


class SourceConfig(Section):
    """One data set on disk, or the synthetic one."""

    kind: str = "synthetic"  # a name in fleetseg.data.sources.SOURCES
    root: str = ""  # folder; "~", "${VARIABLE}" and paths relative to the TOML file are resolved
    split: str = "train"
    # Optional filters: keep only these; empty = all.
    cities: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()
    vehicles: tuple[str, ...] = ()
    sequences: tuple[str, ...] = ()  # drives
    # Only for kind = "synthetic":
    frames_per_drive: int = Field(default=12, ge=1)  # frames of each (city, condition) drive
    seed: int = 0  # of the image generator, not of the training
    limit: int = Field(default=0, ge=0)  # keep this many samples, evenly spaced; 0 = all


class LabelSubsetConfig(Section):
    """The classes that stay in each client's training labels; all others are erased (FedSeg)."""

    classes: int = Field(default=0, ge=0)  # drawn for each client from those it has; 0 = all
    file: str = ""  # JSON {"client": ["class", ...]}; other clients keep all


class UnlabelledConfig(Section):
    """Vehicles that count as unlabelled: their labels are read only to score them."""

    clients: tuple[str, ...] = ()  # shell patterns for their names (car-*)
    share: float = Field(default=0.0, ge=0, le=1)  # of all vehicles, drawn from the seed


class PartitionConfig(Section):
    """How samples are divided among clients."""

    kind: Literal["natural", "iid", "dirichlet", "file"] = "natural"
    by: Literal["sequence", "city", "condition", "vehicle", "domain", "dataset"] = "sequence"
    clients: int = Field(default=0, ge=0)  # target number of clients; 0 = one per natural group
    piece: int = Field(default=0, ge=0)  # natural: target samples per client; 0 = whole groups
    alpha: float = Field(default=0.5, gt=0)  # dirichlet concentration; small = skewed
    min_size: int = Field(default=2, ge=1)  # dirichlet: fewest samples per client
    file: str = ""  # file: a LEAF-style JSON file or a folder of them
    holdout: float = Field(default=0.0, ge=0, lt=1)  # share of each client's drives: their ends
    holdout_gap: int = Field(default=1, ge=0)  # frames next to held-out ones, not trained on
    label_subset: LabelSubsetConfig = LabelSubsetConfig()
    unlabelled: UnlabelledConfig = UnlabelledConfig()


class DataConfig(Section):
    """The fleet's data and the sets that the server scores on."""

    # A name in fleetseg.data.labels.LABEL_SPACES (camvid11, cityscapes19, idd7, ...); "own": taken
    # from the sources' classes.toml; or the path of such a file.
    label_space: str = "camvid11"
    size: tuple[PositiveInt, PositiveInt] = (192, 256)  # working (height, width) in pixels
    sources: tuple[SourceConfig, ...] = (SourceConfig(),)
    evaluation: tuple[SourceConfig, ...] = ()  # held-out sets of the server
    cache: str = ""  # folder; empty = $FLEETSEG_CACHE or the user's cache folder
    # decoded: images are decoded once, into the cache; files: they are decoded for each use.
    store: Literal["decoded", "files"] = "decoded"  # does not affect the result
    max_bad_share: float = Field(default=0.05, ge=0, le=1)  # above it, a client abstains


class ModelConfig(Section):
    """The network and its initial weights."""

    name: str = "fast_scnn"  # bisenetv2, fast_scnn, zoo:<arch>/<encoder>
    pretrained: Literal["", "imagenet"] = ""
    # Mean and std for normalising inputs. "": those of the network or its weights. half: 0.5 and
    # 0.5, as in FedDrive and LADD; cityscapes: those of that data set, as in FedSeg.
    normalisation: Literal["", "half", "cityscapes"] = ""
    start: str = ""  # a model folder of an earlier run to start from
    # > 0: the body is frozen except its norm layers, and low-rank changes of this rank to its
    # convolutions are learnt; federation.sharing = "trained" then sends only what is trained.
    adapter_rank: int = Field(default=0, ge=0)
    norm: Literal["batch", "group"] = "batch"  # group: every batch norm becomes a GroupNorm
    norm_groups: int = Field(default=32, ge=1)  # group: most groups; each has 4 channels or more
