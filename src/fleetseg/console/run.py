"""`fleetseg run`: start a run, show it, and say how to resume it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

import typer
from rich.console import Console

from fleetseg import api
from fleetseg.config import Experiment
from fleetseg.console import INTERRUPTED, count, print_line, stderr_console, stdout_console
from fleetseg.console.live import Heading, Style, watching
from fleetseg.console.progress import reading
from fleetseg.console.report import end_with_page
from fleetseg.console.signals import interruptible
from fleetseg.console.summary import exit_code, show_end, show_local
from fleetseg.data.partition.manifest import Manifest
from fleetseg.data.pool import Progress
from fleetseg.errors import CheckpointError, ConfigError
from fleetseg.experiment_file import load_experiment
from fleetseg.federation.cohort import size_of
from fleetseg.federation.rounds import Watcher
from fleetseg.runs.concurrency import concurrency
from fleetseg.runs.folder import can_resume, has_run, read_experiment
from fleetseg.runs.lock import drop_if_empty, new_run_folder
from fleetseg.runs.run import Run


@dataclass(frozen=True)
class Request:
    """The parsed command line."""

    experiment: Experiment
    out: Path
    style: Style
    resume_command: str  # the command that resumes this run
    resume: bool = False
    baseline: Literal["centralised", "local"] | None = None
    chosen: bool = False  # the name of `out` was chosen automatically


def make_request(
    file: Path | None,
    overrides: Sequence[str],
    *,
    out: Path | None,
    resume: bool,
    baseline: Literal["centralised", "local"] | None,
    style: Style,
) -> Request:
    """Find the experiment and the run folder.

    Raises:
        ConfigError, CheckpointError: there is no such experiment or run.
    """
    if file is None:
        if out is None or not resume:
            raise typer.BadParameter("name an EXPERIMENT.toml, or a run with --resume --out DIR")
        file = _own_experiment(out, baseline)
    experiment = load_experiment(file, overrides)
    chosen = out is None and not resume
    if chosen:
        out = new_run_folder(experiment.name)
    if out is None:
        raise CheckpointError("--resume needs --out: the run folder to resume")
    more = ("--baseline", baseline) if baseline else ()
    command = resume_command(["run", str(file)], overrides, out, *more)
    return Request(experiment, out, style, command, resume, baseline, chosen)


def resume_command(words: Sequence[str], overrides: Sequence[str], out: Path, *more: str) -> str:
    """Write the command that resumes a run: the words that started it, and its folder."""
    settings = [word for override in overrides for word in ("--set", override)]
    return shlex.join(["fleetseg", *words, *settings, *more, "--resume", "--out", str(out)])


def _own_experiment(out: Path, baseline: str | None) -> Path:
    if not has_run(out):
        raise CheckpointError(
            "there is no run to resume",
            where=out,
            expected="a run folder with experiment.toml",
            cure="Name the EXPERIMENT.toml to start it",
        )
    if baseline is not None or read_experiment(out).baseline.kind:
        # A baseline's own experiment.toml describes its one client, not the vehicles behind it.
        raise ConfigError(
            "a baseline is resumed from the experiment it was started with",
            where=out,
            cure="fleetseg run EXPERIMENT.toml --baseline KIND --resume --out DIR",
        )
    return out / "experiment.toml"


def output_style(console: Console, *, as_json: bool, quiet: bool) -> Style:
    """Choose how to show a run."""
    if as_json:
        return "json"
    if quiet:
        return "quiet"
    return "live" if console.is_terminal else "plain"


def run_and_show(request: Request) -> int:
    """Run, show the result, and return the exit code."""
    console = stdout_console()
    with interruptible():
        try:
            runs = _run(request, console)
        except KeyboardInterrupt:
            _print_resume_command(request)
            return INTERRUPTED
        finally:
            if request.chosen:
                drop_if_empty(request.out)
    if request.baseline == "local":
        show_local(runs, request.style, console)
    else:
        show_end(runs[""], request.style, console)
        silent = request.style in ("json", "quiet")
        end_with_page([runs[""].folder], console, silent=silent)
    if any(run.reason == "interrupted" for run in runs.values()):
        _print_resume_command(request)
        return INTERRUPTED
    return exit_code(runs.values())


def _run(request: Request, console: Console) -> Mapping[str, Run]:
    experiment = request.experiment
    with shown(request.style, console, lambda: _heading(request), experiment) as watched:
        if request.baseline == "local":
            return api.run_local(experiment, out=request.out, resume=request.resume, **watched)
        run = api.run(
            experiment,
            out=request.out,
            resume=request.resume,
            baseline=request.baseline,
            **watched,
        )
        return {"": run}


class Watched(TypedDict):
    """Arguments of a run that show its progress."""

    watcher: Watcher
    progress: Progress


@contextmanager
def shown(
    style: Style, console: Console, heading: Callable[[], Heading], experiment: Experiment
) -> Iterator[Watched]:
    """Show the reading of data and then the rounds of a run within the block."""
    with (
        reading(stderr_console(), quiet=style in ("json", "quiet")) as progress,
        watching(
            style, console, heading=heading, total_rounds=experiment.federation.rounds
        ) as watcher,
    ):
        yield {"watcher": watcher, "progress": progress}


def _heading(request: Request) -> Heading:
    experiment = request.experiment
    name, model = experiment.name, experiment.model.name
    if request.baseline == "local":
        return Heading(f"{name}, local only: every vehicle alone · {model}")
    # The run folder has the manifest: it was written before the first round.
    manifest = Manifest.read(request.out / "manifest.json").taking_part()
    fleet, num_clients = fleet_words(manifest), len(manifest.clients)
    if request.baseline == "centralised":
        return Heading(f"{name}, centralised: {fleet} in one place · {model}")
    at_a_time = concurrency(experiment, num_clients)
    where = "this process" if at_a_time == 1 else f"{at_a_time} at a time"
    asked = asked_words(experiment.federation.cohort, num_clients)
    return Heading(f"{name} · {fleet} · {asked} · {model} · {where}", at_a_time)


def fleet_words(manifest: Manifest) -> str:
    """Describe the size of a fleet."""
    images = sum(len(entries) for entries in manifest.clients.values())
    return f"{count(len(manifest.clients), 'vehicle')}, {count(images, 'image')}"


def asked_words(cohort: float, fleet: int) -> str:
    """Describe how many vehicles of a fleet are asked each round.

    >>> asked_words(1, 8), asked_words(1.0, 8), asked_words(0.5, 8)
    ('asks 1 of 8 a round', 'asks all 8 a round', 'asks 4 of 8 a round')
    """
    asked = size_of(cohort, fleet)
    return f"asks {'all' if asked == fleet else f'{asked} of'} {fleet} a round"


def _print_resume_command(request: Request) -> None:
    folders = [request.out, *request.out.glob("*/")] if request.out.is_dir() else []
    if any(can_resume(folder) for folder in folders):
        print_line(stderr_console(), f"interrupted; resume with: {request.resume_command}")
    else:
        print_line(stderr_console(), "interrupted before the first round")
