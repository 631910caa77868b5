"""The report page of a run, made to keep itself up to date while it is open."""

from __future__ import annotations

import html
import re
import threading
from pathlib import Path

from fleetseg.errors import FleetSegError
from fleetseg.report import render
from fleetseg.report.gather import gather
from fleetseg.watching.state import RunState, state_of
from fleetseg.watching.vehicles import vehicles_html

NONCE = "{{nonce}}"
"""Placeholder for the random nonce of each response: only scripts that carry it run."""
_HERE = Path(__file__).parent
_ONCE = """let observed;
const pageScript = () => ((IntersectionObserver) => {
%s
})(class extends IntersectionObserver {
  constructor(...given) { observed?.disconnect(); super(...given); observed = this; }
});
pageScript();
"""
"""The page's own script as a function: after each swap it runs again on the new elements."""


class LivePage:
    """The page of one run, rendered again when its folder has changed; thread-safe."""

    def __init__(self, run: Path, fleet: Path | None = None) -> None:
        self._run, self._fleet = run, fleet
        self._looking, self._rendering = threading.Lock(), threading.Lock()
        self._state, self._version, self._page = RunState(), "", ""

    def state(self) -> RunState:
        """Read the state of the run."""
        with self._looking:
            self._state = state_of(self._run, self._state)
            return self._state

    def vehicles(self) -> str:
        """Return the section of the fleet's vehicles; empty without a fleet."""
        return "" if self._fleet is None else vehicles_html(self._fleet, self.state().last)

    def html(self) -> str:
        """Return the current page, or the previous one if the run cannot be read.

        Raises:
            FleetSegError: the run cannot be read, and never could.
            MissingExtra: jinja2 is not installed.
        """
        with self._rendering:
            state = self.state()
            if state.version != self._version:
                try:
                    self._page = live(render(gather([self._run])), state)
                    self._version = state.version
                except FleetSegError:
                    if not self._page:
                        raise
            return _after_header(self._page, self.vehicles())


def live(page: str, state: RunState) -> str:
    """Add to a report page the script, style and status line that keep it up to date."""
    page = _replaced(page, r"<meta http-equiv=Content-Security-Policy [^>]*>", "")
    own = re.search(r"<script>(.*)</script></body>", page, re.DOTALL)
    assert own is not None, "the page ends with its script"
    keeping = (_HERE / "live.js").read_text(encoding="utf-8")
    scripts = (_ONCE.replace("%s", own[1]), f"{{\n{keeping}}}\n")  # a block, for names of its own
    tags = "".join(f'<script nonce="{NONCE}">{script}</script>' for script in scripts)
    page = page[: own.start()] + tags + "</body>" + page[own.end() :]
    style = (_HERE / "live.css").read_text(encoding="utf-8")
    page = _replaced(page, "</style>", f"{style}</style>")
    return _replaced(page, "<main id=top>", f"<main id=top>\n{_bar(state)}")


def _bar(state: RunState) -> str:
    return (
        f'<p class=live id=live data-is={state.word.lower()} data-version="{state.version}">'
        f"<b>{state.word}</b>"
        f"<span role=status aria-live=polite>{html.escape(state.sentence)}</span></p>"
    )


def _after_header(page: str, section: str) -> str:
    return _replaced(page, "</header>", f"</header>\n{section}") if section else page


def _replaced(page: str, pattern: str, by: str) -> str:
    page, found = re.subn(pattern, lambda _: by, page, count=1)
    assert found == 1, f"the page has no {pattern}"
    return page
