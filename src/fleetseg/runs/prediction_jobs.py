"""Find the images that the user's arguments name, and the files that will be written.

    image.png       image.png          class ids, at the image's own resolution
                    image_overlay.png  colours over the image, with a legend
                    image_confidence.png, image_entropy.png
    clip.mp4        clip/000001.png ... the same for each frame, but for
                    clip_overlay.mp4   one video of all overlays
    camera 0        camera0/, camera0_overlay.mp4

Files in a folder keep their relative paths.
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
    """What is written for each image.

    Args:
        overlays: the image with the classes' colours over it; for videos, one video.
        certain: maps of the model's certainty.
        ids: the pixel values of label maps: train ids, or the ids of the data set's own files.
    """

    overlays: bool = False
    certain: tuple[Certainty, ...] = ()
    ids: Ids = "train"


@dataclass(frozen=True)
class Request:
    """What to predict, and what to write where.

    Args:
        inputs: files, folders (all pictures and videos below them) and patterns.
        out: the folder for all output; created if it does not exist.
        wanted: what is written for each image besides its label map.
        camera: the number of a camera, whose frames come last.
        most_frames: limit for each video and the camera; None = all.
        force: existing files may be replaced, but never the input images.
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
    stem: Path  # beginning of its files' names in the output folder

    @property
    def moves(self) -> bool:
        """Whether the source is a video or a camera."""
        return isinstance(self.source, int) or is_video(self.source)

    @property
    def name(self) -> str:
        """The name shown to the user."""
        return f"camera {self.source}" if isinstance(self.source, int) else self.source.name

    def png(self, kind: str, frame: int | None) -> Path:
        """Return the file for a kind of picture ("" = class ids) of the image or of one frame."""
        base = self.stem if frame is None else self.stem / f"{frame:06d}"
        return base.with_name(f"{base.name}_{kind}.png" if kind else f"{base.name}.png")

    @property
    def video(self) -> Path:
        """The file for the overlay video."""
        return self.stem.with_name(f"{self.stem.name}_overlay.mp4")

    def outputs(self, wanted: Wanted) -> tuple[Path, ...]:
        """Return all files that will be written; for a video's frames, their folder."""
        if self.moves:
            return (self.stem, self.video) if wanted.overlays else (self.stem,)
        kinds = ("", *(["overlay"] if wanted.overlays else []), *wanted.certain)
        return tuple(self.png(kind, None) for kind in kinds)


def find_jobs(request: Request) -> list[Job]:
    """Find the images that the inputs name, and refuse to overwrite anything.

    Raises:
        DataError: no such file or folder, or no picture in it.
        ConfigError: output files exist already, two images map to one file, or an image would be
            overwritten; unusable number of frames.
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
        if holder is not None and holder.moves:  # an image among a video's frames
            raise _one_file(job.stem.parent, holder, job)
    unique = list({job.stem: job for job in jobs}.values())  # a file named twice counts once
    _require_free(unique, request)
    return unique


def _one_file(path: Path, first: Job, second: Job) -> ConfigError:
    return ConfigError(
        "two images would be written to the same file",
        where=path,
        got=f"{first.source} and {second.source}",
        cure="Name the folder above them, whose subfolders are kept, or use two calls",
    )


def _found(given: Path, out: Path) -> list[tuple[str, Path]]:
    """Return (stem relative to the argument, path) of the images that one argument names."""
    if given.is_dir():
        both = (*SUFFIXES, *VIDEO_SUFFIXES)
        found = [(stem, Path(path)) for stem, path in pictures(given, both)]
        if given.resolve() != out.resolve():  # predictions of an earlier call are not inputs
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
    """Refuse to overwrite input images, always, and other files unless `force` is set."""
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
            "files exist already",
            where=out,
            got=listing([str(path.relative_to(out)) for path in taken]),
            cure="Choose another --out, or replace them with --force",
        )


def _is_taken(path: Path) -> bool:
    return any(path.iterdir()) if path.is_dir() else path.exists()
