"""Experiments: defaults, TOML, overrides, errors that name the nearest, digests."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from fleetseg.config import Experiment, SourceConfig
from fleetseg.errors import ConfigError
from fleetseg.experiment_file import load_experiment, make_experiment, to_toml


def write(folder: Path, text: str) -> Path:
    path = folder / "exp.toml"
    path.write_text(text, encoding="utf-8")
    return path


def sections(model: type[BaseModel] = Experiment, prefix: str = "") -> list[tuple[str, list[str]]]:
    """Every section as (path, keys); `data.sources` stands for its first item."""
    found = [(prefix, list(model.model_fields))]
    for name, field in model.model_fields.items():
        inner = [field.annotation, *get_args(field.annotation)]
        for kind in inner:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                found += sections(kind, f"{prefix}{name}.")
    return found


SECTIONS = sections()
KEYS = [prefix + key for prefix, keys in SECTIONS for key in keys]


LISTS = ("sources", "phases")  # of tables


def nested(path: str, value: Any) -> dict[str, Any]:
    for part in reversed(path.split(".")):
        value = {part: [value] if part in LISTS and isinstance(value, dict) else value}
    return dict(value)


def test_the_sections_are_all_found() -> None:
    prefixes = [prefix for prefix, _ in SECTIONS]
    assert "federation.faults." in prefixes
    assert "data.sources." in prefixes
    assert len(KEYS) > 60


@pytest.mark.parametrize("path", [k for k in KEYS if not k.startswith("data.evaluation.")])
def test_every_misspelt_key_is_an_error_with_its_path_and_the_nearest_key(path: str) -> None:
    section, _, key = path.rpartition(".")
    keys = dict(SECTIONS)[section + "." if section else ""]
    wrong = next(w for w in (key + "q", key + "zq") if w not in keys)
    with pytest.raises(ConfigError) as caught:
        make_experiment(nested(f"{section}.{wrong}" if section else wrong, 1), where="a.toml")
    text = str(caught.value)
    shown = re.sub(rf"\.({'|'.join(LISTS)})$", r".\1.0", section)
    assert text.startswith(f"a.toml: unknown key '{shown + '.' if shown else ''}{wrong}'")
    assert f"one of: {', '.join(sorted(keys))}" in text
    assert "Did you mean '" in text
    assert text.split("Did you mean '")[1].split("'")[0] in keys


def test_the_nearest_key_is_named() -> None:
    for path, near in (
        ("training.learning_rat", None),
        ("training.bach_size", "batch_size"),
        ("federation.faults.drop_out", "dropout"),
        ("trainning", "training"),
    ):
        with pytest.raises(ConfigError) as caught:
            make_experiment(nested(path, 1))
        assert (f"Did you mean '{near}'?" in str(caught.value)) == (near is not None)


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        ("federation.rounds", "ten", "federation.rounds: .* integer; got 'ten'"),
        ("federation.rounds", "3", "integer; got '3'"),
        ("federation.rounds", 3.0, "integer; got 3.0"),
        ("federation.rounds", 2.5, "integer"),
        ("federation.rounds", True, "integer; got True"),
        ("federation.rounds", 0, "greater than or equal to 1; got 0"),
        ("training.lr", "0.1", "number; got '0.1'"),
        ("training.lr", True, "number; got True"),
        ("training.lr", 0, "greater than 0"),
        ("training.lr", float("nan"), "number"),
        ("training.lr", float("inf"), "finite number"),
        ("stop.minutes", float("inf"), "finite number"),
        ("training.flip", "no", "boolean; got 'no'"),
        ("training.flip", 1, "boolean; got 1"),
        ("training.optimiser", "adam", "'sgd' or 'adamw'; got 'adam'"),
        ("training", 5, "training: .*; got 5"),
        ("name", 5, "name: .* string; got 5"),
        ("name", "a/b", "a name is letters, digits"),
        ("name", "", "a name is"),
        ("name", "../up", "a name is"),
        ("data.size", 192, "data.size"),
        ("data.size", [192], "data.size"),
        ("data.size", [192, 0], r"data\.size\.1: .*greater than 0; got 0"),
        ("data.size", [192, 256, 3], "data.size"),
        ("training.crop", [-1, 4], "greater than 0"),
        ("training.scale", [0.0, 1.0], "greater than 0"),
        ("training.scale", [1.5, 0.75], r"training\.scale is \(smallest, largest\)"),
        ("data.sources", "camvid", r"data\.sources"),
        ("data.sources", [5], r"data\.sources\.0"),
        ("federation.cohort", 2.5, "must be whole"),
        ("partition.kind", "file", "needs partition.file"),
        ("training", {"nesterov": True, "momentum": 0.0}, "needs training.momentum > 0"),
    ],
)
def test_wrong_values_say_where_what_and_what_was_got(path: str, value: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=text) as caught:
        make_experiment(
            nested(path, value) if path != "data.sources" else {"data": {"sources": value}}
        )
    assert str(caught.value).startswith("experiment: ")


def test_whole_numbers_are_fine_for_fractions() -> None:
    experiment = make_experiment({"training": {"lr": 1}, "federation": {"cohort": 4}})
    assert experiment.training.lr == 1.0
    assert experiment.federation.cohort == 4


def test_frozen() -> None:
    with pytest.raises(ValidationError):
        Experiment().seed = 1  # type: ignore[misc]


def test_load(tmp_path: Path) -> None:
    path = write(tmp_path, 'name = "x"\nseed = 4\n[[data.sources]]\nkind = "camvid"\nroot = "d"\n')
    experiment = load_experiment(path)
    assert (experiment.name, experiment.seed) == ("x", 4)
    assert experiment.data.sources[0].kind == "camvid"
    assert experiment.training == Experiment().training


def test_an_empty_file_is_the_default_experiment(tmp_path: Path) -> None:
    assert load_experiment(write(tmp_path, "")) == Experiment()


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no\.toml: experiment file not found"):
        load_experiment(tmp_path / "no.toml")
    with pytest.raises(ConfigError, match="a folder instead of a file; expected experiment file"):
        load_experiment(tmp_path)
    run = tmp_path / "my runs" / "a"
    run.mkdir(parents=True)
    write(run, "").rename(run / "experiment.toml")
    with pytest.raises(ConfigError, match=rf"Name {run}/experiment.toml;.* --out '{run}'"):
        load_experiment(run)
    for text in ("a = ", "a = 1\na = 2", "x = " + "9" * 5000, "x = " + "[" * 5000):
        with pytest.raises(ConfigError, match=r"exp\.toml: not valid TOML"):
            load_experiment(write(tmp_path, text))
    (tmp_path / "exp.toml").write_bytes(b"name = '\xff'")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_experiment(tmp_path / "exp.toml")


def test_dates_are_no_values(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="seed"):
        load_experiment(write(tmp_path, "seed = 1979-05-27"))


# --set


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("seed=7", "seed", 7),
        ("name=camvid-2", "name", "camvid-2"),
        ('name="quoted"', "name", "quoted"),
        (" model.name = bisenetv2", "model.name", "bisenetv2"),
        ("model.name=zoo:fpn/timm-x", "model.name", "zoo:fpn/timm-x"),
        ("training.lr=1e-3", "training.lr", 1e-3),
        ("training.flip=false", "training.flip", False),
        ("data.size=[96, 128]", "data.size", (96, 128)),
        ("federation.faults.dropout=0.25", "federation.faults.dropout", 0.25),
        ("model.pretrained=", "model.pretrained", ""),
        ("data.sources=[{kind='camvid', limit=3}]", "data.sources.0.limit", 3),
    ],
)
def test_overrides(tmp_path: Path, override: str, path: str, value: object) -> None:
    experiment: Any = load_experiment(write(tmp_path, "[training]\nlr = 0.5\n"), [override])
    for part in path.split("."):
        experiment = experiment[int(part)] if part.isdigit() else getattr(experiment, part)
    assert experiment == value
    assert type(experiment) is type(value)


def test_later_overrides_win_and_leave_the_rest(tmp_path: Path) -> None:
    path = write(tmp_path, "[training]\nlr = 0.5\nbatch_size = 3\n")
    experiment = load_experiment(path, ["training.lr=0.1", "training.lr=0.2"])
    assert (experiment.training.lr, experiment.training.batch_size) == (0.2, 3)


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("seed", "--set takes section.key=value; got 'seed'"),
        ("=5", "--set takes"),
        ("  =5", "--set takes"),
        ("seed.x=5", "'seed' is not a table"),
        ("data.sources.kind=camvid", "'sources' is not a table"),
        ("training.lrr=1", "unknown key 'training.lrr'.*Did you mean 'lr'"),
        ("trainig.lr=1", "unknown key 'trainig'.*Did you mean 'training'"),
        ("training..lr=1", "unknown key 'training.'"),
        ("federation.rounds=many", "integer; got 'many'"),
        ("federation.rounds=" + "9" * 5000, "integer"),
        ("training.lr=" + "[" * 5000, "number"),
        ("name=5", "string; got 5"),
    ],
)
def test_bad_overrides(tmp_path: Path, override: str, text: str) -> None:
    path = write(tmp_path, "seed = 1\n[[data.sources]]\nkind = 'synthetic'\n")
    with pytest.raises(ConfigError, match=text):
        load_experiment(path, [override])


# Paths


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    text = """
        [data]
        cache = "cache"
        [[data.sources]]
        root = "../data/camvid"
        [[data.evaluation]]
        root = "/abs/olute"
        [partition]
        file = "splits/a.json"
        [model]
        start = "runs/x/../y"
    """
    folder = tmp_path / "examples"
    folder.mkdir()
    experiment = load_experiment(write(folder, text))
    assert experiment.data.sources[0].root == str(tmp_path / "data" / "camvid")
    assert experiment.data.evaluation[0].root == "/abs/olute"
    assert experiment.data.cache == str(folder / "cache")
    assert experiment.partition.file == str(folder / "splits" / "a.json")
    assert experiment.model.start == str(folder / "runs" / "y")


def test_no_path_stays_no_path(tmp_path: Path) -> None:
    experiment = load_experiment(write(tmp_path, "seed = 1"))
    assert experiment.data.sources[0].root == experiment.data.cache == experiment.model.start == ""


def test_variables_and_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_DATA", str(tmp_path / "d"))
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    for text, expected in (
        ("${FLEET_DATA}/camvid", tmp_path / "d" / "camvid"),
        ("$FLEET_DATA/camvid", tmp_path / "d" / "camvid"),
        ("~/camvid", tmp_path / "me" / "camvid"),
    ):
        experiment = make_experiment({"data": {"sources": [{"root": text}]}}, base=tmp_path)
        assert experiment.data.sources[0].root == str(expected)


@pytest.mark.parametrize("text", ["${NO_SUCH_FLEET}/x", "$NO_SUCH_FLEET/x", "a/${NO_SUCH_FLEET}"])
def test_a_variable_that_is_not_set(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.delenv("NO_SUCH_FLEET", raising=False)
    with pytest.raises(
        ConfigError, match=r"variable NO_SUCH_FLEET is not set.* export NO_SUCH_FLEET="
    ):
        make_experiment({"data": {"sources": [{"root": text}]}})


# Round trip and digest

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,12}", fullmatch=True)
positive = st.floats(1e-300, 1e300)
experiments = st.builds(
    lambda name, seed, classes, kinds, lr, crop, flip, rounds, cohort: make_experiment(
        {
            "name": name,
            "seed": seed,
            "data": {
                "label_space": classes,
                "sources": [{"kind": kind, "cities": [kind, "b"]} for kind in kinds],
            },
            "training": {"lr": lr, "flip": flip, **({"crop": crop} if crop else {})},
            "federation": {"rounds": rounds, "cohort": cohort, "faults": {"slowdown": 1 + lr}},
        }
    ),
    names,
    st.integers(-(2**70), 2**70),
    texts,
    st.lists(texts, min_size=1, max_size=3),
    positive,
    st.none() | st.tuples(st.integers(1, 999), st.integers(1, 999)),
    st.booleans(),
    st.integers(1, 10**12),
    st.floats(0.001, 1) | st.integers(2, 100),
)


@settings(max_examples=200, deadline=None)
@given(experiments)
def test_toml_round_trip(experiment: Experiment) -> None:
    text = to_toml(experiment)
    back = make_experiment(tomllib.loads(text))
    assert back == experiment
    assert back.digest == experiment.digest
    assert to_toml(back) == text


def test_round_trip_of_text_that_toml_and_json_write_differently(tmp_path: Path) -> None:
    odd = '"\\\b\t\n\f\r\x00\x1f\x7f\x80 \u2028 käfer \N{AUTOMOBILE} ${'
    experiment = make_experiment({"data": {"label_space": odd}})
    assert load_experiment(write(tmp_path, to_toml(experiment))) == experiment


def test_round_trip_of_empty_and_several_sources(tmp_path: Path) -> None:
    for sources in ([], [{}], [{"kind": "a"}, {"kind": "b", "sequences": ["x", "y"]}]):
        fields = {"data": {"sources": sources, "evaluation": sources}}
        experiment = make_experiment(fields)
        assert load_experiment(write(tmp_path, to_toml(experiment))) == experiment


def test_digest_sees_all_but_where_it_runs() -> None:
    base = Experiment()

    def changed(**fields: Any) -> Experiment:
        return make_experiment(fields)

    same = [
        changed(),
        changed(engine={"kind": "workers"}),
        changed(engine={"workers": 7}),
        changed(engine={"loaders": 3}),
        changed(data={"cache": "/somewhere/else"}),
        changed(data={"store": "files"}),
        changed(tracking={"to": ["tensorboard"], "pictures": 1}),
    ]
    other = [
        changed(seed=1),
        changed(name="y"),
        changed(engine={"threads": 2}),
        changed(engine={"precision": "bf16"}),
        changed(engine={"device": "cuda"}),
        changed(training={"lr": 0.06}),
        changed(data={"size": [256, 192]}),
        changed(federation={"faults": {"dropout": 0.1}}),
        changed(data={"sources": [{"split": "val"}]}),
    ]
    assert {e.digest for e in same} == {base.digest}
    assert len({e.digest for e in [base, *other]}) == len(other) + 1


def test_digest_is_that_of_any_process() -> None:
    fields = json.loads(json.dumps(Experiment().model_dump(mode="json")))
    assert make_experiment(fields).digest == Experiment().digest


# Nothing in an experiment can name code to run.


def test_no_import_strings() -> None:
    for key in ("_target_", "_partial_", "class_path", "import", "__class__"):
        for fields in ({key: "os.system"}, {"model": {key: "os.system"}}):
            with pytest.raises(ConfigError, match="unknown key"):
                make_experiment(fields)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*KEYS, "_target_", "x"]) | st.text(max_size=5), inner)
    ),
    max_leaves=8,
)


def attempt(fields: dict[str, Any]) -> Experiment | ConfigError:
    """Only these two may come of it; any other exception fails the test."""
    try:
        return make_experiment(fields)
    except ConfigError as error:
        return error


top = st.dictionaries(st.sampled_from([*Experiment.model_fields, "_target_", "x"]), anything)


@settings(max_examples=300, deadline=None)
@given(top)
def test_fuzz_only_config_errors(fields: dict[str, Any]) -> None:
    result = attempt(fields)
    if isinstance(result, ConfigError):
        assert str(result).startswith("experiment: ") or result.where is not None
    else:
        assert make_experiment(tomllib.loads(to_toml(result))) == result


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(KEYS), anything)
def test_fuzz_one_value(path: str, value: Any) -> None:
    if path.startswith("data.evaluation."):
        return
    result = attempt(nested(path, value))
    assert isinstance(result, Experiment) or result.where is not None


def test_source_defaults_are_the_synthetic_street() -> None:
    assert Experiment().data.sources == (SourceConfig(kind="synthetic"),)


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "exp.toml").write_bytes(b'\xef\xbb\xbfname = "x"\r\n')
    assert load_experiment(tmp_path / "exp.toml").name == "x"


@pytest.mark.parametrize("encoding", ["utf-16", "cp1252"])
def test_a_file_in_another_encoding_is_told(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "exp.toml").write_bytes('name = "\u00fc"'.encode(encoding))
    with pytest.raises(ConfigError, match=r"not valid TOML \(.*save .* as UTF-8\)"):
        load_experiment(tmp_path / "exp.toml")


def test_a_method_s_name_without_its_fields_is_refused() -> None:
    with pytest.raises(ValueError, match="method = 'fixbn' does nothing by itself"):
        Experiment(method="fixbn")
    with pytest.raises(ValueError, match="unknown method 'nonsense'"):
        Experiment(method="nonsense")
    filled = make_experiment({"method": "fixbn"})
    assert filled.training.freeze_bn_after == 0.5
    assert Experiment(**filled.model_dump()) == filled
