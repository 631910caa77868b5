"""Which classes an experiment learns: built-in ones, or own ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleetseg.config import DataConfig, SourceConfig
from fleetseg.data.labels import CAMVID_11, IDD_7, LabelSpace, projection
from fleetseg.data.sources.folder import read_space
from fleetseg.data.spaces import checked_space, is_built_in, open_space, space_toml
from fleetseg.errors import ConfigError, DataError
from fleetseg.experiment_file import load_experiment

DEPOT = 'name = "depot"\nclasses = ["floor", "person"]\ncritical = ["person"]\n'


def a_folder(path: Path, toml: str = DEPOT) -> SourceConfig:
    (path / "images").mkdir(parents=True)
    (path / "classes.toml").write_text(toml)
    return SourceConfig(kind="folder", root=str(path))


def data(
    name: str, *sources: SourceConfig, evaluation: tuple[SourceConfig, ...] = ()
) -> DataConfig:
    return DataConfig(label_space=name, sources=sources, evaluation=evaluation)


def test_a_built_in_space_by_its_name() -> None:
    assert open_space(data("idd7")) is IDD_7
    with pytest.raises(ConfigError, match=r"data.label_space: unknown label space 'depot'.*own"):
        open_space(data("depot"))


def test_own_is_what_all_folders_have_in_common(tmp_path: Path) -> None:
    train = a_folder(tmp_path / "a")
    test = a_folder(tmp_path / "b", DEPOT.replace("depot", "yard"))
    for config in (data("own", train, evaluation=(test,)), data("own", train, SourceConfig())):
        space = open_space(config)
        assert (space.name, space.classes, space.critical) == (
            "depot",
            ("floor", "person"),
            ("person",),
        )
        assert not is_built_in(space)
    built_in = a_folder(tmp_path / "c", 'space = "camvid11"\n')
    assert open_space(data("own", built_in)) is CAMVID_11


def test_own_without_common_classes_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no source has classes of its own.*classes.toml'"):
        open_space(data("own", SourceConfig()))
    one = a_folder(tmp_path / "a")
    turned = a_folder(tmp_path / "b", 'classes = ["person", "floor"]\ncritical = ["person"]\n')
    with pytest.raises(ConfigError, match=r"b: .*classes differ; got person, floor .*as .*a\."):
        open_space(data("own", one, turned))


def test_a_classes_toml_by_its_path_is_relative_to_the_experiment(tmp_path: Path) -> None:
    a_folder(tmp_path / "a")
    (tmp_path / "x.toml").write_text('[data]\nlabel_space = "a/classes.toml"\n')
    described = load_experiment(tmp_path / "x.toml")
    assert open_space(described.data) == open_space(data("own", a_folder(tmp_path / "b")))
    with pytest.raises(DataError, match=r"classes.toml is missing"):
        open_space(data(str(tmp_path / "none" / "classes.toml")))


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    space = LabelSpace('my "depot"', ("a\n", "b"), ((1, 2, 3), (4, 5, 6)), ("b",))
    (tmp_path / "classes.toml").write_text(space_toml(space))
    assert read_space(tmp_path / "classes.toml") == space


def test_the_error_of_a_mismatch_tells_how_to_learn_own_classes(tmp_path: Path) -> None:
    space = open_space(data("own", a_folder(tmp_path / "a")))
    with pytest.raises(ConfigError, match=r"'depot' to 'camvid11'.*or 'own' for the classes"):
        projection(space, CAMVID_11)
    with pytest.raises(ConfigError) as refused:
        projection(CAMVID_11, space)
    assert "'own'" not in str(refused.value)


def test_a_space_of_lists_is_one_of_tuples_and_what_does_not_fit_is_refused() -> None:
    loose = LabelSpace("x", ["a", "b"], [[1, 2, 3], [4, 5, 6]], ["b"])  # type: ignore[arg-type]
    assert checked_space(loose) == LabelSpace("x", ("a", "b"), ((1, 2, 3), (4, 5, 6)), ("b",))
    colours = ((1, 2, 3), (4, 5, 6))
    for space, words in (
        (LabelSpace("x", (), (), ()), "1 to 255 distinct"),
        (LabelSpace("x", ("a", "a"), colours, ()), "1 to 255 distinct"),
        (LabelSpace("x", ("a",), colours, ()), "got 2 colours, expected one for each of 1"),
        (
            LabelSpace("x", ("a", "b"), colours, ("c",)),
            "names that are not classes.*got .'c'.",
        ),
        ("camvid11", "takes a LabelSpace; got str"),
        (LabelSpace("x", "ab", colours, ()), "a string instead of a list of names; got ab"),  # type: ignore[arg-type]
        (LabelSpace("x", (1, 2), colours, ()), "unusable name of a class; got 1"),  # type: ignore[arg-type]
        (LabelSpace("x", ("a", " "), colours, ()), "unusable name of a class; got ' '"),
        (LabelSpace("x", ("a", "b"), ((0, 0), (1, 1)), ()), "unusable colours"),  # type: ignore[arg-type]
        (LabelSpace("x", ("a", "b"), ((0, 0, 300), (1, 1, 1)), ()), "unusable colours"),
    ):
        with pytest.raises(ConfigError, match=words):
            checked_space(space)  # type: ignore[arg-type]
