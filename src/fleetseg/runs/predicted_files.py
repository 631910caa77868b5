"""Predictions of image files, written beside each other into a folder.

For each image: a palette PNG whose pixels are class ids, at the image's own resolution; if wanted,
the image with the classes' colours blended in. What lies in a folder keeps its place below it.
"""

from __future__ import annotations

import glob
import io
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from fleetseg.data.labels import LabelSpace
from fleetseg.data.pool import Progress
from fleetseg.data.sample import Image_HWC, Label_HW
from fleetseg.data.sources.reading import read_image
from fleetseg.data.sources.walking import SUFFIXES, pictures
from fleetseg.errors import BadSample, ConfigError, DataError
from fleetseg.evaluation.norms import Norms
from fleetseg.evaluation.pictures import overlay, palette_image
from fleetseg.files import write_atomic
from fleetseg.models.segmenter import Segmenter
from fleetseg.runs.predict import predicted_pairs, ready_to_predict
from fleetseg.text import listing


@dataclass(frozen=True)
class PredictedFiles:
    """What became of the images."""

    images: int  # predicted
    bad: tuple[str, ...]  # what is wrong with each of the others


@dataclass(frozen=True)
class _Job:
    """One image and the files to write for it."""

    image: Path
    ids: Path
    overlay: Path | None

    @property
    def outputs(self) -> tuple[Path, ...]:
        return (self.ids,) if self.overlay is None else (self.ids, self.overlay)


def predict_files(
    model: Segmenter | str | Path,
    images: Sequence[Path],
    out: Path,
    *,
    overlays: bool = False,
    force: bool = False,
    norms: str = "running",
    cluster: int | None = None,
    progress: Progress | None = None,
) -> PredictedFiles:
    """Predict image files and write the maps to a folder; bad images are left out and listed.

    Args:
        model: a run folder, a model folder, or what `load_model` returns.
        images: files, folders (all pictures below them) and patterns such as `drive/*.png`.
        out: the folder; made if it is not there.
        overlays: write the blended images, too.
        force: replace files that are there.
        norms: as for `predict`.
        cluster: as for `predict`.
        progress: called after each image.

    Raises:
        ModelError: there is no model.
        DataError: no such file or folder, or no picture in it.
        ConfigError: files are there already, two images want one, or one would be overwritten.
        OutOfMemory: not even one image fits.
    """
    jobs = _jobs(images, out, overlays)
    _require_free(jobs, out, force)
    ready = ready_to_predict(model, "auto", "auto", Norms(norms), cluster)
    waiting: deque[_Job] = deque()
    bad: list[str] = []
    images_HWC = _readable(jobs, waiting, bad, progress)
    for image_HWC, map_HW in predicted_pairs(ready, images_HWC):
        _write(waiting.popleft(), image_HWC, map_HW, ready.space)
    return PredictedFiles(len(jobs) - len(bad), tuple(bad))


def _readable(
    jobs: Sequence[_Job], waiting: deque[_Job], bad: list[str], progress: Progress | None
) -> Iterator[Image_HWC]:
    """Yield the images that can be read and note their jobs; note what is wrong with the others."""
    for number, job in enumerate(jobs, start=1):
        try:
            image_HWC = read_image(str(job.image))
        except BadSample as error:
            bad.append(str(error))
        else:
            waiting.append(job)
            yield image_HWC
        if progress is not None:
            progress("images", number, len(jobs))


def _write(job: _Job, image_HWC: Image_HWC, map_HW: Label_HW, space: LabelSpace) -> None:
    job.ids.parent.mkdir(parents=True, exist_ok=True)
    _save(palette_image(map_HW, space), job.ids)
    if job.overlay is not None:
        _save(overlay(image_HWC, map_HW, space), job.overlay)


def _save(picture: Image.Image, path: Path) -> None:
    content = io.BytesIO()
    picture.save(content, format="PNG")
    write_atomic(path, content.getvalue())


def _jobs(images: Sequence[Path], out: Path, overlays: bool) -> list[_Job]:
    jobs: list[_Job] = []
    for given in images:
        for stem, image in _found(given, out):
            blended = out / f"{stem}_overlay.png" if overlays else None
            jobs.append(_Job(image, out / f"{stem}.png", blended))
    owner: dict[Path, Path] = {}
    for job in jobs:
        for path in job.outputs:
            if (other := owner.setdefault(path, job.image)) != job.image:
                raise ConfigError(
                    "two images would be written to one file",
                    where=path,
                    got=f"{other} and {job.image}",
                    cure="Name the folder above them, whose subfolders are kept, or call twice",
                )
    return list({job.ids: job for job in jobs}.values())  # an image that was named twice is one


def _found(given: Path, out: Path) -> list[tuple[str, Path]]:
    """Return (stem relative to what was given, path) of the images that one argument names."""
    if given.is_dir():
        found = [(stem, Path(path)) for stem, path in pictures(given)]
        if given.resolve() != out.resolve():  # predictions of an earlier call are no images
            found = [(s, p) for s, p in found if not p.resolve().is_relative_to(out.resolve())]
        if not found:
            raise DataError("no picture in this folder", where=given, expected=_expected())
        return found
    if given.exists():
        return [(given.stem, given)]
    if not glob.has_magic(str(given)):
        raise DataError("there is no such file or folder", where=given)
    matches = [Path(match) for match in sorted(glob.glob(str(given), recursive=True))]
    files = [path for path in matches if path.is_file()]
    if not files:
        raise DataError("no file matches this pattern", where=given, expected=_expected())
    return [(path.stem, path) for path in files]


def _expected() -> str:
    return "files that end in " + " ".join(SUFFIXES)


def _require_free(jobs: Sequence[_Job], out: Path, force: bool) -> None:
    """Refuse to overwrite an image ever, and other files unless that is wanted."""
    if out.exists() and not out.is_dir():
        raise ConfigError("not a folder", where=out, cure="Choose another --out")
    originals = {job.image.resolve() for job in jobs}
    taken = [path for job in jobs for path in job.outputs if path.exists()]
    if own := [path for path in taken if path.resolve() in originals]:
        raise ConfigError(
            "an image would be overwritten by its prediction",
            where=own[0],
            cure="Choose another --out",
        )
    if taken and not force:
        raise ConfigError(
            "files are there already",
            where=out,
            got=listing([str(path.relative_to(out)) for path in taken]),
            cure="Choose another --out, or replace them with --force",
        )
