"""`fleetseg.export`: write a model for other programs, checked before the file gets its name."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fleetseg.data.pool import Progress
from fleetseg.data.sample import Image_HWC
from fleetseg.data.sources import evenly_spaced
from fleetseg.errors import ConfigError, unknown_name
from fleetseg.evaluation.scores import Scores
from fleetseg.export.facts import facts_of, parity_fact
from fleetseg.export.frames import Frames, given_frames, run_frames, run_of
from fleetseg.export.graph import ExportedGraph, exported_graph
from fleetseg.export.measure import images_per_s, scores_of
from fleetseg.export.onnx_graph import Runner, describe, onnx_runner, require_onnx, write_onnx
from fleetseg.export.parity import (
    MIN_AGREEMENT_INT8,
    Parity,
    parity,
    require_agreement,
    require_parity,
)
from fleetseg.export.quantise import quantise
from fleetseg.export.script import SCRIPT, TEXT
from fleetseg.export.torch_graph import eager_runner, torch_runner, write_torch_export
from fleetseg.hosts import given_path
from fleetseg.learning.hardware import threads
from fleetseg.models.folder import find_model, weights_sha256
from fleetseg.models.segmenter import Segmenter
from fleetseg.runs.inference import ReadyModel, ready_model
from fleetseg.runs.report import read_run
from fleetseg.text import listing

ONNX, INT8, PROGRAM = "model.onnx", "model_int8.onnx", "model.pt2"
FORMATS: Mapping[str, str] = {"onnx": "onnx", "torch-export": "torch_export"}
"""Format -> its default folder beside a model's weights."""

_PARITY_IMAGES = 8
_CALIBRATION_IMAGES = 100
_SCORED_IMAGES = 100


@dataclass(frozen=True)
class Exported:
    """What was written, and the result of its checks."""

    folder: Path
    bytes_of: Mapping[str, int]  # of each file
    checked_on: str  # images on which all forms were compared
    parity: Parity
    int8: Parity | None = None
    scores: Mapping[str, Scores] = field(default_factory=dict)  # of each form, if labels are known
    scored_images: int = 0
    images_per_s: Mapping[str, float] = field(default_factory=dict)  # one thread, batches of one


@dataclass(frozen=True)
class Int8:
    """How to make an 8-bit form: the caller's calibration images, and the acceptable loss."""

    calibrate: Sequence[Path]
    min_agreement: float = MIN_AGREEMENT_INT8  # share of pixels whose class stays the same


def export_model(
    model: Segmenter | str | Path,
    format: str = "onnx",
    *,
    out: Path | None = None,
    size_hw: tuple[int, int] | None = None,
    images: Sequence[Path] = (),
    int8: Int8 | None = None,
    cluster: int | None = None,
    force: bool = False,
    note: Callable[[str], None] = lambda text: None,
    progress: Progress | None = None,
) -> Exported:
    """Export a model as ONNX or torch.export program, and check that it matches the network.

    Inputs and outputs are described in `graph.ExportedGraph`.

    Args:
        model: a run folder, a model folder, or the result of `load_model`.
        format: a key of FORMATS.
        out: the output folder; default: one beside the model's weights.
        size_hw: working size; default: that of training.
        images: files and folders to compare on; default: the frames that the model's run scored.
        int8: write an 8-bit ONNX file too; its mIoU is measured if the run's labels are available.
        cluster: number of the cluster of vehicles whose model to export; None = the fleet's.
        force: replace existing files.
        note: called with a text about each step.
        progress: called while data are read.

    Raises:
        ConfigError: unknown format, files that exist already, or no images to compare on.
        MissingExtra: the ONNX packages are not installed.
        ModelError: no model, or its exported form computes something else; no file is left then.
        DataError: an image cannot be read.
    """
    names, ready = _names(format, int8), _ready(model, size_hw, cluster)
    target = _target(ready, format, out)
    _require_free(target, names, force)
    frames = _frames(ready, images, _SCORED_IMAGES if int8 else _PARITY_IMAGES, progress)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
        work = _Work(ready, exported_graph(ready.segmenter), frames, Path(scratch), note)
        with threads(1):
            done = work.onnx(int8) if format == "onnx" else work.program()
        return _moved(done, target, names)


def _ready(
    model: Segmenter | str | Path, size_hw: tuple[int, int] | None, cluster: int | None
) -> ReadyModel:
    ready = ready_model(model, "cpu", "fp32", cluster=cluster)
    return ready if size_hw is None else replace(ready, size_hw=_usable(size_hw))


def _frames(
    ready: ReadyModel, images: Sequence[Path], most: int, progress: Progress | None
) -> Frames:
    return (
        given_frames(images, ready.size_hw, most) if images else run_frames(ready, most, progress)
    )


def _moved(done: Exported, target: Path, names: Sequence[str]) -> Exported:
    """Move verified files to their destination."""
    target.mkdir(exist_ok=True)
    for name in names:
        os.replace(done.folder / name, target / name)
    sizes = {name: (target / name).stat().st_size for name in reversed(names)}
    return replace(done, folder=target, bytes_of=sizes)


@dataclass(frozen=True)
class _Work:
    """An export in progress, in a temporary folder that is removed if it fails."""

    ready: ReadyModel
    graph: ExportedGraph
    frames: Frames
    scratch: Path
    note: Callable[[str], None]

    def onnx(self, int8: Int8 | None) -> Exported:
        """Write, check and describe model.onnx, and the 8-bit file if requested."""
        path = self.scratch / ONNX
        self._say_what()
        write_onnx(self.graph, self.ready.size_hw, path)
        torch_form, onnx_form = eager_runner(self.graph), onnx_runner(path, threads=1)
        found = self._parity(torch_form, onnx_form, ONNX)
        require_parity(found, ONNX)
        describe(path, {**self._facts(), "parity": parity_fact(found, self.frames)})
        (self.scratch / SCRIPT).write_text(TEXT)
        forms = {"torch": torch_form, "onnx": onnx_form}
        if int8 is None:
            return self._measured(forms, found, None)
        forms["onnx int8"], in_8_bits = self._quantised(int8, torch_form)
        return self._measured(forms, found, in_8_bits)

    def program(self) -> Exported:
        """Write and check model.pt2."""
        path = self.scratch / PROGRAM
        self._say_what()
        write_torch_export(self.graph, self.ready.size_hw, path, self._facts())
        torch_form, program = eager_runner(self.graph), torch_runner(path)
        found = self._parity(torch_form, program, PROGRAM)
        require_parity(found, PROGRAM)
        return self._measured({"torch": torch_form, "torch.export": program}, found, None)

    def _quantised(self, int8: Int8, torch_form: Runner) -> tuple[Runner, Parity]:
        path = self.scratch / INT8
        own = given_frames(int8.calibrate, self.ready.size_hw, _CALIBRATION_IMAGES)
        self.note(f"calibrating the 8-bit model on {len(own.images)} images of {own.name}")
        quantise(self.scratch / ONNX, path, own.images, self.scratch)
        form = onnx_runner(path, threads=1)
        found = self._parity(torch_form, form, INT8)
        require_agreement(found, int8.min_agreement, INT8)
        calibrated = {"calibrated_on": f"{len(own.images)} images"}
        parity_ = {"parity": parity_fact(found, self.frames)}
        describe(path, {**self._facts(), **parity_, **calibrated})
        return form, found

    def _parity(self, torch_form: Runner, form: Runner, name: str) -> Parity:
        some: Sequence[Image_HWC] = evenly_spaced(self.frames.images, _PARITY_IMAGES)
        self.note(f"comparing {name} with torch on {len(some)} images of {self.frames.name}")
        return parity(torch_form, form, some)

    def _measured(
        self, forms: Mapping[str, Runner], found: Parity, int8: Parity | None
    ) -> Exported:
        scores, frames = {}, self.frames
        if int8 is not None and frames.labels:
            self.note(f"scoring all forms on {len(frames.images)} images of {frames.name}")
            scores = {name: scores_of(run, frames, self.ready.space) for name, run in forms.items()}
        rates = images_per_s(forms, frames.images)
        count = len(frames.images) if scores else 0
        return Exported(self.scratch, {}, frames.name, found, int8, scores, count, rates)

    def _facts(self) -> dict[str, str]:
        ready = self.ready
        sha256 = weights_sha256(ready.segmenter)
        return facts_of(ready.segmenter, ready.space, ready.size_hw, sha256, _protocol(ready))

    def _say_what(self) -> None:
        height, width = self.ready.size_hw
        self.note(f"tracing {self.ready.segmenter.name} at {height} x {width}")


def _protocol(ready: ReadyModel) -> Mapping[str, Any] | None:
    """Return how the model was scored, from its folder or its run; None if neither says."""
    told: Mapping[str, Any] | None = ready.segmenter.record.get("protocol")
    run = None if ready.folder is None else run_of(ready.folder)
    if told or run is None:
        return told
    end = read_run(run).end
    scored = None if end is None else end.scored
    return scored.protocol.to_dict() if scored and scored.protocol else None


def _names(format: str, int8: Int8 | None) -> tuple[str, ...]:
    """Return the file names of a format, the model last, after checking that it can be written."""
    if format not in FORMATS:
        raise unknown_name("format", format, FORMATS)
    if format == "torch-export":
        if int8 is not None:
            raise ConfigError(
                "8-bit export is only available for ONNX", where="--int8", cure="Use --format onnx"
            )
        return (PROGRAM,)
    require_onnx()
    return (SCRIPT, ONNX) if int8 is None else (SCRIPT, INT8, ONNX)


def _target(ready: ReadyModel, format: str, out: Path | None) -> Path:
    if out is not None:
        return given_path(out)
    if ready.folder is None:
        raise ConfigError("a loaded model has no folder", cure="Give the output folder: out=")
    return find_model(ready.folder) / FORMATS[format]


def _require_free(folder: Path, names: Sequence[str], force: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise ConfigError("not a folder", where=folder, cure="Choose another --out")
    taken = [name for name in names if (folder / name).exists()]
    if taken and not force:
        raise ConfigError(
            "files exist already",
            where=folder,
            got=listing(taken),
            cure="Choose another --out, or replace them with --force",
        )


def _usable(size_hw: tuple[int, int]) -> tuple[int, int]:
    if min(size_hw) < 8:
        raise ConfigError("unusable size", got=size_hw, expected="8 x 8 pixels or more")
    return size_hw
