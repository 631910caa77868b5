"""The self-contained page: fill in the templates, and write the file atomically."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from fleetseg import __version__
from fleetseg.errors import MissingExtra
from fleetseg.files import write_atomic
from fleetseg.report import marks, words
from fleetseg.report.figures import Interval
from fleetseg.report.gather import Gathered, gather
from fleetseg.report.views import context

FILE = "report.html"
_TEMPLATES = Path(__file__).parent / "templates"


def write_report(
    runs: Sequence[str | Path], out: Path | None = None, despite: Collection[str] = ()
) -> Path:
    """Write the page of one or several runs; return its path.

    Args:
        runs: run folders, or folders of them.
        out: the page; None = `report.html` in the first of the given folders.
        despite: fields in which protocols may differ, as in a comparison.

    Raises:
        MissingExtra: jinja2 is not installed.
        CheckpointError: a folder holds no run, or one of several runs is unfinished.
        ConfigError: scores of several runs were taken in different ways.
    """
    jinja()
    page = render(gather(runs, despite))
    path = out or Path(runs[0]) / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, page)
    return path


def render(gathered: Gathered) -> str:
    """Return the page as HTML.

    Raises:
        MissingExtra: jinja2 is not installed.
    """
    package = jinja()
    environment = package.Environment(
        loader=package.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=package.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {
        "score": words.score,
        "cell": words.cell,
        "points": words.points,
        "between": _between,
        "points_between": _points_between,
        "percent": words.percent,
        "duration": words.duration,
        "heat": marks.heat,
        "confused": marks.confused,
    }
    given = context(gathered)
    environment.globals |= {
        **given,
        "version": __version__,
        "style": (_TEMPLATES / "style.css").read_text(encoding="utf-8"),
        "script": (_TEMPLATES / "script.js").read_text(encoding="utf-8"),
    }
    return str(environment.get_template("page.html").render())


def _between(found: Interval) -> str:
    return words.between(found.low, found.high)


def _points_between(found: Interval) -> str:
    return words.points_between(found.low, found.high)


def jinja() -> Any:
    """Import jinja2, or raise MissingExtra."""
    try:
        import jinja2
    except ImportError:
        raise MissingExtra("jinja2", "report", "the report page") from None
    return jinja2
