"""Every experiment that is shipped can be run as documents and the files themselves say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.commands import commands_in, in_document, in_example, overrides_in
from tests.tiny_cityscapes import write_cityscapes

import fleetseg
from fleetseg import rng
from fleetseg.data.labels import CITYSCAPES_19
from fleetseg.errors import ConfigError
from fleetseg.experiment_file import load_experiment, read_fields
from fleetseg.judging.policy import load_policy
from fleetseg.runs.choices import check_choices
from fleetseg.runs.option_notes import notes_before
from fleetseg.runs.sweep_file import read_sweep
from fleetseg.runs.sweep_plan import plan

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "examples").rglob("*.toml"))
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def shown() -> list[tuple[str, list[str]]]:
    """List (where, command) of all that run an example."""
    texts = [(path, in_document(path.read_text())) for path in DOCUMENTS]
    texts += [(path, in_example(path.read_text())) for path in FILES]
    return [
        (f"{path.name}: {' '.join(words)}", words)
        for path, lines in texts
        for words in commands_in(lines)
        if words[0] in ("run", "sweep") and words[1].startswith("examples/")
    ]


COMMANDS = shown()


@pytest.fixture(autouse=True)
def _data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEETSEG_DATA", "/data")


def check(path: Path, overrides: list[str]) -> None:
    """Check a file as far as that can be done without its data."""
    if "policy" in path.stem:
        assert load_policy(path)
        return
    if {"base", "run", "grid"} & read_fields(path).keys():
        assert plan(read_sweep(path, overrides))
        return
    check_choices(load_experiment(path, overrides))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_it_can_be_run(path: Path) -> None:
    check(path, [])


@pytest.mark.parametrize("words", [w for _, w in COMMANDS], ids=[where for where, _ in COMMANDS])
def test_what_is_shown_can_be_typed(words: list[str]) -> None:
    check(ROOT / words[1], overrides_in(words))


SELF_TRAINING = ROOT / "examples" / "selftraining"
SMALL = [
    "data.size=[32,64]", "model.name=fast_scnn", "federation.rounds=2", "federation.cohort=2",
    "training.local_epochs=1", "training.batch_size=2", "pretrain.rounds=1", "pretrain.epochs=1",
    "engine.kind=inprocess", "safety.collapse=0.0", "safety.max_loss=1.0",
]  # fmt: skip
"""Nothing can be learnt from four pictures, and the guard would say so."""
PAINTED = '[{{cities=["{}"],conditions=["{}"],frames_per_drive=2}}]'
TRIED = {
    "runs/selftraining-1", "runs/selftraining-2", "runs/selftraining-never",
    "runs/selftraining-heterogeneous", "runs/unlabelled", "runs/oracle",
}  # fmt: skip
RUNS = {
    words[words.index("--out") + 1]: words
    for name in ("cityscapes", "tiny")
    for words in commands_in(in_example((SELF_TRAINING / f"{name}.toml").read_text()))
    if words[0] == "run" and "--baseline" not in words and words[words.index("--out") + 1] in TRIED
}


@pytest.fixture(scope="module")
def roads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Cityscapes, and a tiny GTA5 as a folder with coloured masks."""
    root = tmp_path_factory.mktemp("roads")
    write_cityscapes(root / "cityscapes", {"aachen": 3, "ulm": 3})
    write_cityscapes(root / "cityscapes", {"frankfurt": 1}, "val")
    draw, colours = rng.generator(0, purpose="gta5"), CITYSCAPES_19.colours
    for kind in ("images", "masks"):
        (root / "gta5" / kind).mkdir(parents=True)
    for frame in range(3):
        ids_HW = np.repeat(draw.permutation(8), 8)[:, None].repeat(128, axis=1)
        mask = np.array(colours, np.uint8)[ids_HW]
        Image.fromarray(mask).save(root / "gta5" / "masks" / f"{frame:05d}.png")
        image = draw.integers(0, 256, mask.shape, np.uint8)
        Image.fromarray(image).save(root / "gta5" / "images" / f"{frame:05d}.png")
    (root / "gta5" / "classes.toml").write_text('space = "cityscapes19"')
    return root


@pytest.mark.parametrize("name", RUNS)
def test_self_training_runs_on_tiny_roads(
    name: str, roads: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Source only, and the teacher of never, of each and of every so many rounds."""
    monkeypatch.setenv("FLEETSEG_DATA", str(roads))
    words = RUNS[name]
    small = [*SMALL, f"data.cache={roads / 'cache'}"]
    if "tiny.toml" in words[1]:
        cities = {"data.sources": ("amber", "rain"), "pretrain.sources": ("coral", "day")}
        small += [f"{option}={PAINTED.format(*of)}" for option, of in cities.items()]
        small.append(f"data.evaluation={PAINTED.format('birch', 'rain')}")
        small.append("federation.cohort=1.0")
    else:
        heterogeneous = "partition.kind=natural" in words
        small.append("partition.piece=2" if heterogeneous else "partition.clients=3")
    described = load_experiment(ROOT / words[1], [*overrides_in(words), *small])
    assert notes_before(described) == ()
    finished = fleetseg.run(described, out=tmp_path / "run")
    assert finished.reason == "rounds"
    assert fleetseg.read_run(tmp_path / "run" / "pretrain").end is not None
    assert set(RUNS) == TRIED
    is_oracle = "oracle" in name
    manifest = fleetseg.read_run(tmp_path / "run").manifest
    assert manifest is not None
    assert (set(manifest.unlabelled) == set(manifest.clients)) is not is_oracle


def test_words_are_those_that_a_shell_makes() -> None:
    lines = ["A='--set seed=1'", "D='a=\"b\"'", "for x in 1 2; do", "  fleetseg run $x", "done"]
    lines += [
        "pip install it",
        "fleetseg run x.toml $A \\",
        '  --set "name={$D,c=\\"d e\\"}"  # it\'s so',
    ]
    (words,) = commands_in(lines)
    assert words == ["run", "x.toml", "--set", "seed=1", "--set", 'name={a="b",c="d e"}']
    assert overrides_in(words) == ["seed=1", 'name={a="b",c="d e"}']


def test_commands_are_found_in_documents_and_in_examples() -> None:
    places = {where.partition(":")[0] for where, _ in COMMANDS}
    assert {"README.md", "results.md", "experiments.md", "reproduce.md", "tiny.toml"} <= places
    assert any("--set" in words for _, words in COMMANDS)


def test_a_wrong_option_would_be_seen() -> None:
    with pytest.raises(ConfigError, match=r"federation\.round"):
        check(ROOT / "examples" / "tiny.toml", ["federation.round=2"])
