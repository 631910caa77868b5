"""The command line from outside: what it prints, and what it returns."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner, Result

from fleetseg.cli.app import app
from fleetseg.experiment_file import load_experiment
from fleetseg.runs.folder import read_end, read_records

TINY = Path(__file__).resolve().parents[2] / "examples" / "tiny.toml"
SMALL = [
    "--set", "data.size=[64, 96]",
    "--set", "training.local_epochs=1",
    "--set", "federation.rounds=2",
    "--set", "evaluation.on_clients=false",
    "--set", 'data.sources=[{cities=["amber","birch"], conditions=["day"], frames_per_drive=4}]',
    "--set", 'data.evaluation=[{split="val", cities=["amber"], frames_per_drive=1}]',
]  # fmt: skip
SERIAL = [*SMALL, "--engine", "inprocess"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def at_home(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEETSEG_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def finished(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; its experiment has six rounds."""
    out = tmp_path_factory.mktemp("finished") / "run"
    words = ["run", str(TINY), *SERIAL, "--set", "federation.rounds=6", "--out", str(out)]
    result = CliRunner().invoke(app, [*words, "--json"], env={"FLEETSEG_CACHE": str(cache)})
    assert result.exit_code == 0, result.output
    (out / "stdout.txt").write_text(result.stdout)
    return out


def fleetseg(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def error_of(result: Result) -> str:
    """The one line on standard error."""
    assert result.exit_code == 1, result.output
    (line,) = [line for line in result.stderr.splitlines() if not line.startswith("reading")]
    assert "Traceback" not in result.stderr
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


# The surface


def surface(command: Any, name: str = "") -> dict[str, set[str]]:
    options = {o for p in command.params for o in p.opts if o.startswith("-")} - {"--help"}
    found = {name: options}
    for word, sub in getattr(command, "commands", {}).items():
        found |= surface(sub, f"{name} {word}".strip())
    return found


def test_commands_and_options_are_these() -> None:
    """Whoever changes this list changes what people have written into scripts."""
    assert surface(typer.main.get_command(app)) == {
        "": {"--version", "--install-completion", "--show-completion"},
        "run": {
            "--set", "--out", "--resume", "--engine", "--workers", "--baseline", "--only",
            "--exclude", "--dry-run", "--track", "--json", "--quiet", "-q", "--debug",
        },
        "evaluate": {
            "--dataset", "--root", "--split", "--experiment", "--json", "--norms", "--set",
            "--cluster", "--pictures", "--debug",
        },
        "norm-banks": {"--dataset", "--root", "--split", "--by", "--debug"},
        "predict": {
            "--norms", "--cluster", "--out", "--overlay", "--confidence", "--entropy", "--ids",
            "--tiled", "--camera", "--frames", "--force", "--debug",
        },
        "init": {"--dataset", "--out", "--force", "--debug"},
        "tune": {
            "--set", "--out", "--lr", "--local-epochs", "--rounds", "--jobs", "-j", "--resume",
            "--debug",
        },
        "sweep": {"--set", "--out", "--jobs", "-j", "--resume", "--track", "--dry-run", "--debug"},
        "compare": {"--last", "--csv", "--markdown", "--latex", "--despite", "--debug"},
        "partition": {"--set", "--out", "--json", "--debug"},
        "report": {"--out", "--despite", "--debug"},
        "watch": {"--fleet", "--port", "--debug"},
        "export": {
            "--format", "--size", "--images", "--int8", "--calibrate", "--min-agreement",
            "--cluster", "--out", "--force", "--debug",
        },
        "release": {
            "--against", "--policy", "--models", "--on", "--on-clients", "--fleet", "--wait",
            "--out", "--dry-run", "--json", "--debug",
        },
        "releases": {"--models", "--debug"},
        "rollback": {"--to", "--models", "--debug"},
        "server": {
            "--fleet", "--set", "--out", "--resume", "--track", "--metrics-port", "--json",
            "--quiet", "-q", "--debug",
        },
        "client": {
            "--kit", "--dataset", "--root", "--split", "--sequences", "--split-file", "--vehicle",
            "--debug",
        },
        "fleet": set(),
        "fleet init": {"--vehicles", "--host", "--port", "--debug"},
        "fleet add": {"--fleet", "--debug"},
        "fleet revoke": {"--fleet", "--debug"},
        "fleet publish": {"--fleet", "--models", "--wait", "--json", "--debug"},
        "fleet list": {"--fleet", "--json", "--debug"},
        "fleet request": {"--kit", "--debug"},
        "fleet sign": {"--fleet", "--debug"},
        "fleet handed": {"--fleet", "--debug"},
        "fleet unrevoke": {"--fleet", "--debug"},
        "fleet rotate": {"--fleet", "--request", "--all", "--server", "--debug"},
        "fleet status": {"--fleet", "--json", "--debug"},
        "doctor": {"--debug"},
        "demo": {"--out", "--debug"},
        "data": set(),
        "data check": {"--kind", "--split", "--json", "--debug"},
        "data synth": {
            "--cities", "--conditions", "--frames", "--split", "--seed", "--size", "--debug",
        },
        "scenario": set(),
        "scenario list": {"--json", "--debug"},
        "scenario show": {"--json", "--debug"},
        "scenario make": {
            "--out", "--root", "--from", "--clients", "--seed", "--json", "--debug",
        },
        "data cache": set(),
        "data cache list": {"--json", "--debug"},
        "data cache prune": {
            "--older-than", "--keep-gb", "--all", "--dry-run", "--json", "--debug",
        },
        "audit": set(),
        "audit verify": {"--json", "--debug"},
        "config": set(),
        "config show": {"--set", "--resolved", "--debug"},
    }  # fmt: skip


@pytest.mark.parametrize(
    "command",
    [
        *("run", "evaluate", "predict", "partition", "data check", "data synth", "doctor", "demo"),
        *("config show", "server", "client", "data cache list", "data cache prune", "compare"),
        *("sweep", "init", "tune", "report", "watch", "export", "release", "releases", "rollback"),
        *("fleet init", "fleet add", "fleet revoke", "fleet status", "fleet list", "fleet request"),
        *("fleet sign", "fleet handed", "fleet unrevoke", "fleet rotate", "audit verify"),
    ],
)
def test_every_help_has_an_example(command: str) -> None:
    result = fleetseg(*command.split(), "--help")
    assert result.exit_code == 0
    assert f"fleetseg {command}" in result.stdout


def test_version() -> None:
    from fleetseg import __version__

    assert fleetseg("--version").stdout == f"fleetseg {__version__}\n"


# run


def test_json_is_rounds_and_then_the_end(finished: Path) -> None:
    *rounds, end = [json.loads(line) for line in (finished / "stdout.txt").read_text().splitlines()]
    assert [r["round"] for r in rounds] == [1, 2, 3, 4, 5, 6]
    assert end["event"] == "end"
    assert end["reason"] == "rounds"
    assert end["folder"] == str(finished)
    assert end["model_sha256"] == read_end(finished)["model_sha256"]  # type: ignore[index]


def test_plain_output_without_a_terminal(tmp_path: Path) -> None:
    result = fleetseg("run", TINY, *SERIAL, "--out", tmp_path / "r")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "tiny · 2 vehicles, 8 images · asks all 2 a round · fast_scnn · this process"
    assert lines[1].startswith("round 1/2  2 ok  loss ")
    assert "mIoU " in lines[2]
    assert any(line.startswith("pedestrian   !") for line in lines)
    assert "stopped     after 2 rounds: all rounds are done" in lines
    assert any(line.startswith("sha256      ") for line in lines)


def test_quiet_is_one_line(tmp_path: Path) -> None:
    result = fleetseg("run", TINY, *SERIAL, "--out", tmp_path / "r", "--quiet")
    (line,) = result.stdout.splitlines()
    assert result.stderr == ""
    assert line.startswith("mIoU 0.")
    assert line.endswith(read_end(tmp_path / "r")["model_sha256"])  # type: ignore[index]


def test_the_default_run_folder_has_time_and_name(tmp_path: Path) -> None:
    assert fleetseg("run", TINY, *SERIAL, "--quiet").exit_code == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.endswith("_tiny")


def test_local_only_has_a_line_per_vehicle(tmp_path: Path) -> None:
    words = ["run", TINY, *SERIAL, "--baseline", "local", "--out", tmp_path / "r"]
    result = fleetseg(*words)
    assert result.exit_code == 0, result.output
    table = [line for line in result.stdout.splitlines() if line.startswith("synthetic-")]
    assert [line.split()[0] for line in table] == ["synthetic-amber-day", "synthetic-birch-day"]
    assert result.stdout.splitlines()[-1].startswith("mIoU of 2 vehicles alone: mean 0.")


@pytest.mark.parametrize(
    "words", [("run", TINY), ("sweep", TINY.with_name("sweep-tiny.toml"), "--dry-run")]
)
def test_an_unknown_tracker_is_refused_before_anything_runs(words: tuple[Any, ...]) -> None:
    refused = fleetseg(*words, "--track", "tensorbord")
    assert refused.exit_code == 1
    assert "Did you mean 'tensorboard'" in refused.stderr
    assert not list(Path("runs").glob("*"))


def test_who_takes_part_can_be_said_by_name(tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ["run", TINY, *SERIAL, "--only", "*-amber-*", "--only", "*-bi*", "--exclude", "*birch*"]
    result = fleetseg(*words, "--out", out)
    assert result.exit_code == 0, result.output
    assert "1 vehicle, 4 images" in result.stdout
    assert {tuple(record["cohort"]) for record in read_records(out)} == {("synthetic-amber-day",)}
    kept = load_experiment(out / "experiment.toml").federation
    assert (kept.only, kept.exclude) == (("*-amber-*", "*-bi*"), ("*birch*",))
    refused = fleetseg("run", TINY, *SERIAL, "--only", 'car "7"')
    assert refused.exit_code == 1
    assert "leave out every vehicle" in error_of(refused)
    assert not list(Path("runs").glob("*"))


def test_centralised_is_one_client(tmp_path: Path) -> None:
    words = ["run", TINY, *SERIAL, "--baseline", "centralised", "--out", tmp_path / "r"]
    result = fleetseg(*words)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("tiny, centralised: 2 vehicles, 8 images in one place")
    assert read_records(tmp_path / "r")[0]["cohort"] == ["centralised"]
    again = fleetseg("run", "--resume", "--out", tmp_path / "r")
    assert "a baseline is resumed from the experiment it was started with" in error_of(again)


# Errors


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["run", "nowhere.toml"], "nowhere.toml: experiment file not found"),
        (["run", str(TINY), "--set", "federation.round=3"], "Did you mean 'rounds'?"),
        (["run", str(TINY), "--set", "model.name=fast_scn"], "Did you mean 'fast_scnn'?"),
        (["run", "--resume", "--out", "nothing"], "nothing: there is no run to resume"),
        (["run", str(TINY), "--resume"], "--resume needs --out"),
        (["evaluate", "nothing", "--dataset", "synthetic"], "nothing: no saved model here"),
        (["predict", "model", "nothing", "--out", "x"], "nothing: there is no such file or folder"),
        (["data", "check", "nothing"], "nothing: folder not found"),
        (["data", "synth", "out", "--size", "big"], "--size takes HEIGHTxWIDTH; got 'big'"),
        (["data", "synth", "out", "--cities", "ambr"], "Did you mean 'amber'?"),
        (["partition", str(TINY), "--set", "data.sources=[{kind='camvid'}]"], "camvid"),
        (["partition", str(TINY), "--set", "data.sources=[]"], "data.sources is empty: there is"),
        (["config", "show", "nowhere.toml"], "nowhere.toml: experiment file not found"),
    ],
)
def test_errors_are_one_line_with_exit_code_1(words: list[str], text: str) -> None:
    assert text in error_of(fleetseg(*words))


def test_names_of_files_do_not_command_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a\x1b[31m.txt").touch()
    assert "got a folder with a?[31m.txt" in error_of(
        fleetseg("data", "check", tmp_path / "photos")
    )


@pytest.mark.parametrize(
    "words",
    [
        ["run"],
        ["run", str(TINY), "--engine", "cloud"],
        ["run", str(TINY), "--workers", "-1"],
        ["run", str(TINY), "--no-such-option"],
        ["evaluate", "model"],
        ["config", "show", "--set", "seed=1"],
    ],
)
def test_wrong_usage_has_exit_code_2(words: list[str]) -> None:
    result = fleetseg(*words)
    assert result.exit_code == 2
    assert result.stdout == ""


def test_a_run_folder_is_not_overwritten(finished: Path) -> None:
    result = fleetseg("run", TINY, *SERIAL, "--out", finished)
    assert "this folder already holds a run. Resume it with --resume" in error_of(result)


def test_what_cannot_be_gone_on_with_says_why(finished: Path, tmp_path: Path) -> None:
    other = ["--set", "training.lr=0.5", "--resume", "--out", finished]
    told = error_of(fleetseg("run", finished / "experiment.toml", *other))
    assert "the run was started with another experiment; got training.lr = 0.5, not " in told
    run = tmp_path / "run"
    shutil.copytree(finished, run, ignore=shutil.ignore_patterns("checkpoints"))
    told = error_of(fleetseg("run", "--resume", "--out", run))
    assert "no intact checkpoint; got an empty folder. Start a new run" in told


def test_debug_shows_the_traceback() -> None:
    result = fleetseg("run", "nowhere.toml", "--debug")
    assert result.exit_code == 1
    assert type(result.exception).__name__ == "ConfigError"


def test_a_bug_of_ours_is_said_to_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise KeyError("x")

    monkeypatch.setattr("fleetseg.experiment_file.to_toml", broken)
    assert "KeyError: 'x'. This looks like a bug in fleetseg" in error_of(
        fleetseg("config", "show")
    )


# The other commands


def test_evaluate(finished: Path, tmp_path: Path) -> None:
    words = ["evaluate", finished, "--dataset", "synthetic", "--split", "val"]
    # The default synthetic set has 300 frames; a small one on disk is quicker.
    streets = tmp_path / "streets"
    painted = fleetseg("data", "synth", streets, "--cities", "amber,delta", "--frames", "1")
    assert painted.exit_code == 0, painted.output
    words = ["evaluate", finished, "--dataset", "camvid", "--root", streets, "--split", "train"]
    as_json = fleetseg(*words, "--json", "--pictures", tmp_path / "looks")
    assert as_json.exit_code == 0, as_json.output
    scores = json.loads(as_json.stdout)
    assert scores["images"] == 10
    assert 0 < scores["miou"] < 1
    assert len(scores["iou"]) == 11
    assert len(list((tmp_path / "looks").glob("*.png"))) == 10
    table = fleetseg(*words)
    assert f"mIoU            {scores['miou']:.3f}  (11 classes, dataset-level" in table.stdout
    assert "10 images of camvid/train" in table.stdout


def test_evaluate_with_the_statistics_of_the_test_images(finished: Path, tmp_path: Path) -> None:
    streets = tmp_path / "streets"
    painted = fleetseg("data", "synth", streets, "--cities", "amber", "--frames", "2")
    assert painted.exit_code == 0, painted.output
    words = ["evaluate", finished, "--dataset", "camvid", "--root", streets, "--split", "train"]
    running, domain = (
        json.loads(fleetseg(*words, "--norms", name, "--json").stdout)
        for name in ("running", "domain")
    )
    assert (running["norms"], domain["norms"]) == ("running", "domain of batches of 8")
    assert running["confusion"] != domain["confusion"]
    assert (running["transductive_images"], domain["transductive_images"]) == (0, 10)
    shown = " ".join(fleetseg(*words, "--norms", "domain").stdout.split())
    assert "norm statistics: domain of batches of 8" in shown
    assert "looked at the 10 test images, without their labels" in shown
    learnt = fleetseg(*words, "--norms", "tent", "--set", "evaluation.tent.lr=0.0", "--json")
    batch = fleetseg(*words, "--norms", "batch", "--json")
    assert json.loads(learnt.stdout)["norms"].startswith("tent (online, adam, lr 0, steps 1)")
    assert json.loads(learnt.stdout)["confusion"] == json.loads(batch.stdout)["confusion"]
    told = error_of(fleetseg(*words, "--set", "federation.rounds=2"))
    assert "without an experiment, --set can only set how to score" in told
    told = error_of(fleetseg(*words, "--norms", "domian"))
    assert told.startswith("unknown norm statistics 'domian'")
    looks = ["--pictures", tmp_path / "looks"]
    told = error_of(fleetseg(*words, "--norms", "batch", *looks))
    assert "pictures are drawn one by one" in told
    told = error_of(fleetseg(*words, "--cluster", "1"))
    assert "the model has no such cluster" in told
    images = ["predict", finished, streets, "--out", tmp_path / "maps"]
    assert "Leave the cluster out" in error_of(fleetseg(*images, "--cluster", "0"))
    assert "here they are read once" in error_of(fleetseg(*images, "--norms", "domain"))
    for name in ("tent", "cotta-like"):
        assert "differently alone than after others" in error_of(fleetseg(*images, "--norms", name))
    assert fleetseg(*images, "--norms", "batch").exit_code == 0


def test_evaluate_where_an_experiment_scores(finished: Path, tmp_path: Path) -> None:
    """The held-out frames of another experiment are those that its manifest lists."""
    toml = tmp_path / "e.toml"
    toml.write_text(
        'name = "held"\n[data]\nsize = [48, 64]\n'
        '[[data.sources]]\ncities = ["amber", "delta"]\nconditions = ["day"]\n'
        "frames_per_drive = 4\n[partition]\nholdout = 0.25\n"
        '[evaluation]\nby = "city"\n'
    )
    result = fleetseg("evaluate", finished, "--experiment", toml, "--json")
    assert result.exit_code == 0, result.output
    scores = json.loads(result.stdout)
    assert scores["images"] == 2
    assert set(scores["by_domain"]) == {"amber", "delta"}
    assert (
        "2 images of the test frames of held"
        in fleetseg("evaluate", finished, "--experiment", toml).stdout
    )
    toml.write_text('name = "none"\n[[data.sources]]\nframes_per_drive = 1\n')
    assert "has no test frames" in error_of(fleetseg("evaluate", finished, "--experiment", toml))
    toml.write_text('name = "seven"\n[data]\nlabel_space = "idd7"\n')
    words = ["evaluate", finished, "--experiment", toml]
    assert "got camvid11, expected idd7" in error_of(fleetseg(*words))
    assert fleetseg("evaluate", finished).exit_code == 2
    assert fleetseg(*words, "--dataset", "camvid").exit_code == 2
    assert fleetseg(*words, "--pictures", tmp_path / "p").exit_code == 2


def test_predict(finished: Path, tmp_path: Path) -> None:
    streets, out = tmp_path / "streets", tmp_path / "out"
    painted = fleetseg("data", "synth", streets, "--cities", "amber", "--frames", "1")
    assert painted.exit_code == 0, painted.output
    done = fleetseg("predict", finished, streets / "train", "--out", out, "--overlay")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(f"5 label maps, each with its overlay, in {out} (")
    assert done.stderr == "predicting images: 5 samples\n"
    assert len(list(out.glob("*.png"))) == 10
    again = ["predict", finished, streets / "train", "--out", out]
    refused = fleetseg(*again)
    assert refused.exit_code == 1
    assert "files exist already" in refused.stderr
    (streets / "train" / "0.png").write_text("no picture")
    forced = fleetseg(*again, "--force")
    assert forced.exit_code == 1
    assert "bad image skipped: " in forced.stdout
    assert f"\n5 label maps in {out} (" in forced.stdout


def test_evaluate_needs_a_projection(finished: Path, tmp_path: Path) -> None:
    fleetseg("data", "synth", tmp_path / "s", "--cities", "amber", "--frames", "1")
    config = finished.parent / "other"
    shutil.copytree(finished / "model", config)
    described = json.loads((config / "config.json").read_text())
    described["label_space"]["classes"][0] = "ceiling"
    (config / "config.json").write_text(json.dumps(described))
    words = ["evaluate", config, "--dataset", "camvid", "--root", tmp_path / "s", "--split"]
    assert "no projection from label space 'camvid11'" in error_of(fleetseg(*words, "train"))


def test_partition_writes_a_manifest(tmp_path: Path) -> None:
    result = fleetseg("partition", TINY, *SMALL, "--out", tmp_path / "m.json", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    manifest = json.loads((tmp_path / "m.json").read_text())
    assert [c["client"] for c in told["clients"]] == sorted(manifest["clients"])
    assert [c["images"] for c in told["clients"]] == [4, 4]
    assert told["manifest_sha256"] == manifest["sha256"]
    assert "2 vehicles, 8 usable images, no leaks" in fleetseg("partition", TINY, *SMALL).stdout


def test_partition_lists_leaks() -> None:
    same = '[{cities=["amber"], conditions=["day"], frames_per_drive=1}]'
    result = fleetseg(
        "partition", TINY, "--set", f"data.sources={same}", "--set", f"data.evaluation={same}"
    )
    assert result.exit_code == 1
    assert "synthetic/train/amber-day-0000 is in" in result.stderr


def test_data_check_finds_the_bad_file(tmp_path: Path) -> None:
    streets = tmp_path / "streets"
    words = ["--cities", "amber", "--conditions", "day,fog", "--frames", "1", "--size", "64x96"]
    assert fleetseg("data", "synth", streets, *words).exit_code == 0
    good = fleetseg("data", "check", streets)
    assert good.exit_code == 0, good.output
    assert "image sizes (width x height): 96x64 2" in good.stdout
    victim = sorted((streets / "train").iterdir())[0]
    victim.write_bytes(victim.read_bytes()[:100])
    bad = fleetseg("data", "check", streets)
    assert bad.exit_code == 1
    assert str(victim) in bad.stdout
    as_json = fleetseg("data", "check", streets, "--json", "--kind", "camvid", "--split", "train")
    assert as_json.exit_code == 1
    assert [b["file"] for b in json.loads(as_json.stdout)["bad"]] == [str(victim)]


def test_config_show_reads_back(tmp_path: Path) -> None:
    result = fleetseg("config", "show", TINY, "--set", "seed=7")
    shown = tmp_path / "shown.toml"
    shown.write_text(result.stdout)
    experiment = load_experiment(shown)
    assert experiment == load_experiment(TINY, ["seed=7"])
    assert result.stdout.startswith(f"# digest {experiment.digest}\n")
    assert 'kind = "natural"' in fleetseg("config", "show").stdout


# Ctrl-C


@pytest.mark.parametrize(
    ("number", "engine"), [(signal.SIGINT, "inprocess"), (signal.SIGTERM, "workers")]
)
def test_an_interrupted_run_goes_on_to_the_same_model(
    number: signal.Signals, engine: str, finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    words = ["run", str(TINY), *SMALL, "--set", "federation.rounds=6", "--engine", engine]
    with subprocess.Popen(
        [sys.executable, "-m", "fleetseg.cli", *words, "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("round 2/"):
                process.send_signal(number)
                break
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert stderr.splitlines()[-1].startswith("interrupted; resume with: fleetseg run ")
    assert stderr.splitlines()[-1].endswith(f"--resume --out {out}")
    assert read_end(out)["reason"] == "interrupted"  # type: ignore[index]
    assert 2 <= len(read_records(out)) < 6
    assert (out / "model" / "model.safetensors").is_file()
    again = fleetseg("run", "--resume", "--out", out, "--engine", "inprocess", "--quiet")
    assert again.exit_code == 0, again.output
    assert again.stdout.split()[-1] == read_end(finished)["model_sha256"]  # type: ignore[index]
    assert [r["round"] for r in read_records(out)] == [1, 2, 3, 4, 5, 6]


def test_compare(finished: Path, tmp_path: Path) -> None:
    result = fleetseg("compare", finished, "--csv", tmp_path / "figures.csv")
    assert result.exit_code == 0, result.output
    assert "IoU of each class" in result.stdout
    assert "scored at label resolution" in result.stdout
    assert (tmp_path / "figures.csv").read_text().startswith("name,n,seeds,last_rounds,miou,")
    markdown = fleetseg("compare", finished, "--markdown", "--last", "2").stdout
    assert markdown.startswith("| scores | n | mIoU |")
    assert "last 2 scored rounds" in markdown
    assert fleetseg("compare", finished, "--latex").stdout.count(r"\toprule") == 4
    assert fleetseg("compare", finished, "--latex", "--markdown").exit_code == 2
    assert "no run here" in error_of(fleetseg("compare", tmp_path))


def test_sweep(tmp_path: Path) -> None:
    settings = [*SMALL, "--set", "engine.device=cpu", "--set", "federation.rounds=1"]
    file = tmp_path / "two.toml"
    file.write_text(f'base = "{TINY}"\n[[run]]\nname = "bad"\nmodel.start = "nowhere"\n'
                    '[[run]]\nname = "good"\n')  # fmt: skip
    out = tmp_path / "out"
    plan = fleetseg("sweep", file, *settings, "--out", out, "--dry-run")
    assert plan.stdout.splitlines() == [
        "to run    bad_seed0  (1 round)",
        "to run    good_seed0  (1 round)",
        "2 runs of two",
    ]
    assert not out.exists()
    result = fleetseg("sweep", file, *settings, "--out", out)
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[0] == "2 runs: 2 waiting"
    assert "2 runs: 1 finished, 1 failed" in lines
    assert f"comparison   {out / 'comparison.csv'}, {out / 'comparison.md'}" in lines
    (told,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert told.startswith("error: bad_seed0: ")
    assert "nowhere" in told
    plan = fleetseg("sweep", "--out", out, "--dry-run")
    assert plan.stdout.splitlines()[1] == "finished  good_seed0  (1 round)"
    assert "already holds a sweep" in error_of(fleetseg("sweep", file, *settings, "--out", out))
    assert fleetseg("sweep").exit_code == 2
    assert fleetseg("compare", out).exit_code == 0
