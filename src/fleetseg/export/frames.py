"""Images for checking an exported model, at its working size: the user's, or the run's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fleetseg.data.pool import Progress
from fleetseg.data.sample import Image_HWC, Label_HW
from fleetseg.data.sources import evenly_spaced
from fleetseg.data.sources.reading import read_image
from fleetseg.data.sources.walking import SUFFIXES, pictures
from fleetseg.data.store.decoding import resized_image
from fleetseg.errors import ConfigError, DataError
from fleetseg.runs.folder import has_run
from fleetseg.runs.inference import ReadyModel
from fleetseg.runs.scored_frames import open_scored_frames, own_experiment


@dataclass(frozen=True)
class Frames:
    """Images at the working size, with their labels if available."""

    name: str
    images: tuple[Image_HWC, ...]
    labels: tuple[Label_HW, ...] = ()  # at their own resolution; none, or one for each image


def given_frames(paths: Sequence[Path], size_hw: tuple[int, int], most: int) -> Frames:
    """Read at most `most` images from files and folders, evenly spaced if there are more.

    Raises:
        DataError: there are no images, or one cannot be read.
    """
    found = [file for path in paths for file in _files(path)]
    images = [resized_image(read_image(str(file)), size_hw) for file in evenly_spaced(found, most)]
    return Frames(", ".join(str(path) for path in paths), tuple(images))


def run_frames(ready: ReadyModel, most: int, progress: Progress | None = None) -> Frames:
    """Read at most `most` of the frames that the model's own run scored, evenly spaced.

    Raises:
        ConfigError: the model is not in a run that records what it scored.
        DataError: the data are missing, or no frame is usable.
    """
    run = None if ready.folder is None else run_of(ready.folder)
    if run is None:
        raise ConfigError(
            "no images to check the exported model on: the model is not in a run folder",
            where=ready.where,
            cure="Give images like those that it will see: --images FOLDER",
        )
    opened = open_scored_frames(own_experiment(run), ready, progress)
    chosen = evenly_spaced(list(opened.named_frames()), most)
    pairs = [part.scored.pairs[number] for _, part, number in chosen]
    return Frames(
        ", ".join(part.name for part in opened.sets),
        tuple(image_HWC for image_HWC, _ in pairs),
        tuple(label_HW for _, label_HW in pairs),
    )


def run_of(folder: Path) -> Path | None:
    """Return the run folder that `folder` is or lies in; None if there is none."""
    return next((path for path in (folder, folder.resolve().parent) if has_run(path)), None)


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        found = [Path(name) for _, name in pictures(path)]
        if not found:
            expected = "files that end in " + " ".join(SUFFIXES)
            raise DataError("no picture in this folder", where=path, expected=expected)
        return found
    if not path.is_file():
        raise DataError("there is no such file or folder", where=path)
    return [path]
