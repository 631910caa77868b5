"""`fleetseg export`: the written files, what they compute, and how fast."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from fleetseg.console import count, print_line, ratio, stderr_console, stdout_console
from fleetseg.console.progress import reading
from fleetseg.errors import ConfigError
from fleetseg.export.export import Exported, Int8, export_model
from fleetseg.export.folder import export_folder


def export_and_show(
    model: Path,
    format: str,
    out: Path | None,
    *,
    size: str,
    images: Sequence[Path],
    calibrate: Sequence[Path],
    min_agreement: float,
    cluster: int | None,
    force: bool,
) -> None:
    """Export a model and print the result; progress notes go to standard error."""
    errors = stderr_console()
    with reading(errors) as progress:
        done = export_model(
            model,
            format,
            out=out,
            size_hw=_size(size),
            images=images,
            int8=Int8(calibrate, min_agreement) if calibrate else None,
            cluster=cluster,
            force=force,
            note=lambda text: print_line(errors, text),
            progress=progress,
        )
    _show(done)


def export_folder_and_show(run: Path, out: Path | None, *, force: bool) -> None:
    """Write a model folder with its card from a run."""
    if out is None:
        raise ConfigError("no folder is named", cure="Name the folder: --out DIR")
    sha256 = export_folder(run, out, force=force)
    print_line(stdout_console(), f"model folder with its card in {out}, weights {sha256[:12]}")


def _show(done: Exported) -> None:
    console = stdout_console()
    files = [f"{name} ({size / 1e6:.1f} MB)" for name, size in done.bytes_of.items()]
    print_line(console, f"{', '.join(files)} in {done.folder}")
    print_line(console, f"against torch on {done.parity}")
    if done.int8 is not None:
        print_line(console, f"in 8 bits, on {done.int8}")
    table = Table("form", "images/s", "of torch", box=None, header_style="bold")
    for column in ("mIoU", "critical mIoU") if done.scores else ():
        table.add_column(column)
    for name, rate in done.images_per_s.items():
        row = [name, f"{rate:.1f}", f"{rate / done.images_per_s['torch']:.2f} x"]
        if done.scores:
            scores = done.scores[name]
            row += [ratio(scores.miou), ratio(scores.critical_miou)]
        table.add_row(*row)
    console.print(table)
    print_line(
        console, "one image at a time, one thread of this machine, forms in turns, processor time"
    )
    if done.scores:
        print_line(console, f"scored on {count(done.scored_images, 'image')} of {done.checked_on}")
    elif done.int8 is not None:
        print_line(console, "mIoU is not measured: these images have no labels", "yellow")


def _size(text: str) -> tuple[int, int] | None:
    if not text:
        return None
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if not match:
        raise ConfigError("--size takes HEIGHTxWIDTH", got=repr(text), expected="e.g. 360x480")
    return int(match[1]), int(match[2])
