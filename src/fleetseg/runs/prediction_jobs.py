"""What is to be predicted, found from what a person names, and the files that will be written.

    image.png       image.png          class ids, at the image's own resolution
                    image_overlay.png  colours over the image, with a legend
                    image_confidence.png, image_entropy.png
    clip.mp4        clip/000001.png ... the same for each frame, but for
                    clip_overlay.mp4   one video of all overlays
    camera 0        camera0/, camera0_overlay.mp4

What lies in a folder keeps its place below it.
"""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fleetseg.data.sources.walking import SUFFIXES, pictures
from fleetseg.data.video import VIDEO_SUFFIXES, is_video
from fleetseg.errors import ConfigError, DataError
from fleetseg.evaluation.certainty import Certainty
from fleetseg.text import listing

Ids = Literal["train", "raw"]


@dataclass(frozen=True)
class Wanted:
    """What is written of each image.

    Args:
        overlays: the image with the classes' colours over it; of videos, one video.
        certain: maps of how sure the model is.
        ids: what pixels of label maps are: train ids, or those of the data set's own files.
    """

    overlays: bool = False
    certain: tuple[Certainty, ...] = ()
    ids: Ids = "train"


@dataclass(frozen=True)
class Request:
    """What is to be predicted, and what is to be written where.

    Args:
        inputs: files, folders (all pictures and videos below them) and patterns.
        out: the folder for all that is written; made if it is not there.
        wanted: what is written of each image, beside its label map.
        camera: the number of a camera, whose frames come last.
        most_frames: of each video and of the camera; None = all.
        force: files that are there may be replaced, but for the images themselves.
    """

    inputs: Sequence[Path]
    out: Path
    wanted: Wanted = field(default_factory=Wanted)
    camera: int | None = None
    most_frames: int | None = None
    force: bool = False


@dataclass(frozen=True)
class Job:
    """One image, video or camera."""

    source: Path | int  # a file, or the number of a camera
    stem: Path  # what its files' names begin with, in the output folder

    @property
    def moves(self) -> bool:
        """Whether it has frames."""
        return isinstance(self.source, int) or is_video(self.source)

    @property
    def name(self) -> str:
        """What it is called in front of people."""
        return f"camera {self.source}" if isinstance(self.source, int) else self.source.name

    def png(self, kind: str, frame: int | None) -> Path:
        """Return the file for a kind of picture, "" for class ids, of the image or of a frame."""
        base = self.stem if frame is None else self.stem / f"{frame:06d}"
        return base.with_name(f"{base.name}_{kind}.png" if kind else f"{base.name}.png")

    @property
    def video(self) -> Path:
        """The file for the video of overlays."""
        return self.stem.with_name(f"{self.stem.name}_overlay.mp4")

    def outputs(self, wanted: Wanted) -> tuple[Path, ...]:
        """Return all files that will be written; of a video's frames, the folder."""
        if self.moves:
            return (self.stem, self.video) if wanted.overlays else (self.stem,)
        kinds = ("", *(["overlay"] if wanted.overlays else []), *wanted.certain)
        return tuple(self.png(kind, None) for kind in kinds)


def find_jobs(request: Request) -> list[Job]:
    """Find what the inputs name, and refuse what would be overwritten.

    Raises:
        DataError: no such file or folder, or no picture in it.
        ConfigError: files are there already, two images want one, or one would be overwritten; no
            usable number of frames.
    """
    out = request.out
    if request.most_frames is not None and request.most_frames < 1:
        raise ConfigError(
            "unusable number of frames", got=request.most_frames, expected="1 or more"
        )
    jobs = [Job(path, out / stem) for given in request.inputs for stem, path in _found(given, out)]
    if request.camera is not None:
        jobs.append(Job(request.camera, out / f"camera{request.camera}"))
    owner: dict[Path, Job] = {}
    for job in jobs:
        for path in job.outputs(request.wanted):
            other = owner.setdefault(path, job)
            if other.source != job.source:
                raise _one_file(path, other, job)
    for job in jobs:
        holder = owner.get(job.stem.parent)
        if holder is not None and holder.moves:  # an image beside a video's frames
            raise _one_file(job.stem.parent, holder, job)
    unique = list({job.stem: job for job in jobs}.values())  # what was named twice is one
    _require_free(unique, request)
    return unique


def _one_file(path: Path, first: Job, second: Job) -> ConfigError:
    return ConfigError(
        "two images would be written to one file",
        where=path,
        got=f"{first.source} and {second.source}",
        cure="Name the folder above them, whose subfolders are kept, or call twice",
    )


def _found(given: Path, out: Path) -> list[tuple[str, Path]]:
    """Return (stem relative to what was given, path) of the images that one argument names."""
    if given.is_dir():
        both = (*SUFFIXES, *VIDEO_SUFFIXES)
        found = [(stem, Path(path)) for stem, path in pictures(given, both)]
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
    return "files that end in " + " ".join((*SUFFIXES, *VIDEO_SUFFIXES))


def _require_free(jobs: Sequence[Job], request: Request) -> None:
    """Refuse to overwrite an image ever, and other files unless that is wanted."""
    out = request.out
    if out.exists() and not out.is_dir():
        raise ConfigError("not a folder", where=out, cure="Choose another --out")
    originals = {job.source.resolve() for job in jobs if isinstance(job.source, Path)}
    taken = [path for job in jobs for path in job.outputs(request.wanted) if _is_taken(path)]
    if own := [path for path in taken if path.resolve() in originals]:
        raise ConfigError(
            "an image would be overwritten by its prediction",
            where=own[0],
            cure="Choose another --out",
        )
    if taken and not request.force:
        raise ConfigError(
            "files are there already",
            where=out,
            got=listing([str(path.relative_to(out)) for path in taken]),
            cure="Choose another --out, or replace them with --force",
        )


def _is_taken(path: Path) -> bool:
    return any(path.iterdir()) if path.is_dir() else path.exists()
