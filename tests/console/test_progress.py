"""Progress of reading data, in a terminal and elsewhere."""

from __future__ import annotations

import io

from rich.console import Console

from fleetseg.console.progress import reading


def console(*, terminal: bool) -> Console:
    return Console(file=io.StringIO(), width=80, force_terminal=terminal)


def text(of: Console) -> str:
    return of.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_a_line_per_data_set_where_there_is_no_terminal() -> None:
    out = console(terminal=False)
    with reading(out) as progress:
        for done in (0, 1, 2, 3):  # the first before anything is read
            progress("camvid/train", done, 3)
            assert text(out).count("train") == 1
        progress("camvid/val", 1, 1)
    assert text(out) == "reading camvid/train: 3 samples\nreading camvid/val: 1 sample\n"


def test_bars_in_a_terminal_leave_the_screen_free() -> None:
    out = console(terminal=True)
    with reading(out) as progress:
        progress("one", 1, 2)
        progress("one", 2, 2)
        progress("two", 1, 2)  # and it ends here, unfinished: an error or a Ctrl-C
    assert "reading one" in text(out)
    assert "reading two" in text(out)
    assert text(out).count("\x1b[?25l") == text(out).count("\x1b[?25h")  # the cursor is back


def test_quiet() -> None:
    out = console(terminal=True)
    with reading(out, quiet=True) as progress:
        progress("one", 1, 1)
    assert text(out) == ""


def test_where_nobody_knows_how_many_there_are() -> None:
    plain, bars = console(terminal=False), console(terminal=True)
    for out in (plain, bars):
        with reading(out, verb="predicting") as progress:
            for done in (1, 2, 3):
                progress("frames of camera 0", done, 0)
    assert text(plain) == "predicting frames of camera 0\n"
    assert text(bars).count("\x1b[?25l") == text(bars).count("\x1b[?25h") == 1  # one bar for all
