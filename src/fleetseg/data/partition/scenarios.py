"""Named scenarios from publications, and synthetic ones of the same form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fleetseg.data.partition.rules import RuleSettings
from fleetseg.data.sources import idda
from fleetseg.data.synthetic.cities import CITIES
from fleetseg.data.synthetic.weather import CONDITIONS
from fleetseg.errors import unknown_name


@dataclass(frozen=True)
class Published:
    """The size of a published split, counted in its files if they are available."""

    clients: int
    images: int
    folder: str  # its place in the publication's repository; "" = no file was published


@dataclass(frozen=True)
class Scenario:
    """The data, their partition, and what is scored; `train` and `tests` are source fields."""

    about: str
    kind: str  # of the source
    rule: str  # a name in `rules.RULES`
    settings: RuleSettings
    label_space: str
    size: tuple[int, int]  # working (height, width), pixels
    train: Mapping[str, Any] = field(default_factory=dict)
    tests: tuple[Mapping[str, Any], ...] = ({"split": "val"},)
    published: Published | None = None

    @property
    def needs_root(self) -> bool:
        """Whether the scenario reads its data from disk."""
        return self.kind != "synthetic"


RULE_NAMES = {
    "uniform": "uniform",
    "heterogeneous": "heterogeneous",
    "class-imbalance": "class_imbalance",
}
"""FedDrive's three partitions: name within scenario names -> rule."""


def _cityscapes(
    about: str, rule: str, settings: RuleSettings, published: Published | None
) -> Scenario:
    return Scenario(
        about, "cityscapes", rule, settings, "cityscapes19", (512, 1024),
        train={"split": "train"}, published=published,
    )  # fmt: skip


def _feddrive_cityscapes() -> dict[str, Scenario]:
    counts = {"uniform": (146, 2975), "heterogeneous": (144, 2904), "class-imbalance": (142, 2970)}
    about = "FedDrive: Cityscapes, scored on three cities that no client trains on"
    return {
        f"feddrive-cityscapes-{name}": _cityscapes(
            about,
            RULE_NAMES[name],
            RuleSettings(clients, min_size=10),
            Published(clients, images, f"cityscapes/{RULE_NAMES[name]}"),
        )
        for name, (clients, images) in counts.items()
    }


def _feddrive_idda() -> dict[str, Scenario]:
    counts = {"country": (90, 4320), "rainy": (69, 3312), "bus": (83, 3984)}
    held_out = {"country": "one town", "rainy": "rain", "bus": "one vehicle"}
    # (option of the source, all its values, the value that no client trains on)
    parted = {
        "country": ("cities", idda.TOWNS, "T07"),
        "rainy": ("conditions", idda.WEATHERS, "HRN"),
        "bus": ("vehicles", idda.VEHICLES, "B"),
    }
    return {
        f"feddrive-idda-{setting}-{name}": Scenario(
            f"FedDrive: IDDA, trained without {held_out[setting]}",
            "idda",
            rule,
            RuleSettings(clients),
            "idda16",
            (512, 928),
            train={"split": "train", option: [value for value in values if value != unseen]},
            tests=({"split": "train", option: [unseen]},),
            published=Published(clients, images, f"idda/{rule}/{setting}"),
        )
        for setting, (clients, images) in counts.items()
        for option, values, unseen in [parted[setting]]
        for name, rule in RULE_NAMES.items()
    }


def _fedseg() -> dict[str, Scenario]:
    erased = Published(152, 2975, "")
    about = "FedSeg: Cityscapes, each client labels one of 19 classes"
    camvid = Scenario(
        "FedSeg: CamVid, each client labels one of 11 classes", "camvid", "classes",
        RuleSettings(22), "camvid11", (360, 480), train={"split": "train"},
    )  # fmt: skip
    return {
        "fedseg-cityscapes-classes": _cityscapes(about, "classes", RuleSettings(152), erased),
        "fedseg-cityscapes-iid": _cityscapes(
            "FedSeg: Cityscapes, all clients alike", "uniform", RuleSettings(144), None
        ),
        "fedseg-camvid-classes": camvid,
    }


def _embeddings() -> dict[str, Scenario]:
    about = "clients by the features of a pretrained encoder, not by labels"
    camvid = Scenario(
        about, "camvid", "embedding", RuleSettings(20, alpha=0.1), "camvid11", (360, 480),
        train={"split": "train"},
    )  # fmt: skip
    return {
        "cityscapes-embedding": _cityscapes(
            about, "embedding", RuleSettings(144, alpha=0.1, min_size=4), None
        ),
        "camvid-embedding": camvid,
    }


def _synthetic() -> dict[str, Scenario]:
    cities, conditions = list(CITIES), list(CONDITIONS)
    shapes = {
        "country": {"cities": cities[:-1], "conditions": conditions},
        "rainy": {"cities": cities, "conditions": [c for c in conditions if c != "rain"]},
    }
    missing = {"country": f"city {cities[-1]}", "rainy": "rain"}
    everything = {"cities": cities, "conditions": conditions}

    def painted(
        about: str, rule: str, settings: RuleSettings, drives: Mapping[str, Any]
    ) -> Scenario:
        return Scenario(
            about, "synthetic", rule, settings, "camvid11", (192, 256), train=drives,
            tests=({"split": "val", "frames_per_drive": 3, **everything},),
        )  # fmt: skip

    found = {
        f"synthetic-{shape}-{name}": painted(
            f"painted streets in FedDrive's shape, trained without {missing[shape]}",
            rule,
            RuleSettings(20),
            drives,
        )
        for shape, drives in shapes.items()
        for name, rule in RULE_NAMES.items()
    }
    found["synthetic-classes"] = painted(
        "painted streets in FedSeg's shape: each client labels one of 11 classes",
        "classes", RuleSettings(22), everything,
    )  # fmt: skip
    found["synthetic-embedding"] = painted(
        "painted streets, clients by the features of a pretrained encoder",
        "embedding", RuleSettings(20), everything,
    )  # fmt: skip
    return found


SCENARIOS: Mapping[str, Scenario] = {
    **_feddrive_cityscapes(),
    **_feddrive_idda(),
    **_fedseg(),
    **_embeddings(),
    **_synthetic(),
}
"""All scenarios that `fleetseg scenario` knows."""


def find_scenario(name: str) -> Scenario:
    """Look up a scenario by name.

    Raises:
        ConfigError: the name is unknown; suggests the nearest one.
    """
    if name not in SCENARIOS:
        raise unknown_name("scenario", name, SCENARIOS)
    return SCENARIOS[name]
