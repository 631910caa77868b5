"""`fleetseg tune`: learning rates and local epochs, on a part of the training drives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from fleetseg.cli import options as o
from fleetseg.console import reports_errors

N = TypeVar("N", int, float)

TuneFolder = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="DIR", help="Folder for the trials; default runs/<time>_<name>-tune.",
        show_default=False, parser=o._path,
    ),
]  # fmt: skip
Rates = Annotated[
    str,
    typer.Option(
        "--lr", metavar="A,B", help="Learning rates to try; default: 1/3, 1, 3 times the file's.",
        show_default=False,
    ),
]  # fmt: skip
Epochs = Annotated[
    str,
    typer.Option(
        "--local-epochs", metavar="A,B", show_default=False,
        help="Local epochs to try, at equal images seen; default: the file's, and twice that.",
    ),
]  # fmt: skip
Budget = Annotated[
    int,
    typer.Option(
        "--rounds", min=0, metavar="N", help="Rounds per trial; 0 = a quarter of the file's."
    ),
]
ResumeTuning = Annotated[bool, typer.Option("--resume", help="Resume the trials in --out.")]


@reports_errors
def tune(
    file: o.OptionalExperiment = None,
    overrides: o.Overrides = None,
    out: TuneFolder = None,
    rates: Rates = "",
    epochs: Epochs = "",
    rounds: Budget = 0,
    jobs: o.Jobs = 1,
    resume: ResumeTuning = False,
    debug: o.Debug = False,
) -> None:
    """Try learning rates and local epochs, and write the experiment with the best of them.

    Trials are scored on the held-out end of the vehicles' own drives, never on the experiment's
    test frames. All see equally many images. --resume runs what is missing.

    \b
    Examples:
      fleetseg tune examples/tiny.toml --out runs/tiny-tune
      fleetseg tune examples/tiny.toml --lr 1e-3,3e-3,1e-2 --local-epochs 1,2 --rounds 4 --jobs 2
      fleetseg tune --resume --out runs/tiny-tune
    """  # noqa: D301
    from fleetseg.console.tune import tune_and_show
    from fleetseg.runs.tuning import Budget as Trials

    if file is None and not (resume and out is not None):
        raise typer.BadParameter("name an EXPERIMENT.toml, or trials with --resume --out DIR")
    trials = Trials(
        rates=tuple(_numbers(rates, float, "--lr")),
        epochs=tuple(_numbers(epochs, int, "--local-epochs")),
        rounds=rounds,
    )
    code = tune_and_show(file, overrides or (), budget=trials, out=out, jobs=jobs, resume=resume)
    raise typer.Exit(code)


def _numbers(text: str, kind: Callable[[str], N], option: str) -> list[N]:
    try:
        return [kind(word) for word in text.split(",") if word.strip()]
    except ValueError:
        raise typer.BadParameter(
            f"{option} takes numbers with commas between, got {text!r}"
        ) from None
