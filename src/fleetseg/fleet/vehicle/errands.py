"""What a site does besides taking part in runs: install a release, and judge a model.

Neither needs an open run, or changes one. A release is kept in `kit/fleetseg/models/`; a judged
model is not kept, and only sums leave the site.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleetseg.config import Experiment
from fleetseg.data.labels import LabelSpace
from fleetseg.errors import ConfigError, FleetSegError, UpdateRejected
from fleetseg.failures import failure_header
from fleetseg.files import is_disk_full
from fleetseg.fleet.held_releases import MOST, RECORD, current_release, digest_of, drive, store
from fleetseg.fleet.parcels import Files, unpack
from fleetseg.fleet.sockets import Header
from fleetseg.fleet.vehicle.counted import counted
from fleetseg.fleet.vehicle.site_data import SiteData, open_clients
from fleetseg.judging.policy import Policy, make_policy
from fleetseg.judging.sums import VehicleSums, client_sums, write_sums
from fleetseg.learning.hardware import Hardware, hardware_of, threads
from fleetseg.models.folder import load_model
from fleetseg.models.segmenter import Segmenter

Answer = tuple[Header, bytes]
_JUDGED = "judged-"  # folders of models being judged


@dataclass(frozen=True)
class _OnDevice:
    """A model that is already on its device; see judging.measure.Looking."""

    segmenter: Segmenter
    hardware: Hardware

    def on_device(self) -> contextlib.AbstractContextManager[None]:
        """See Looking."""
        return contextlib.nullcontext()


def told_release(models: Path) -> dict[str, Any]:
    """Return the release in use here, for a reply to the server; empty if there is none."""
    held = current_release(models)
    return {} if held is None else {"drives": held.told()}


def take_release(
    header: Header, payload: bytes, models: Path, notify: Callable[[str], None]
) -> Answer:
    """Verify a release, check that it can be loaded, store it, and put it into use.

    Raises:
        UpdateRejected: the bytes are not those announced, or do not contain a model; the release
            used before stays in use.
    """
    number = header.get("release")
    if type(number) is not int or not 0 < number <= MOST:
        raise UpdateRejected("malformed", "not the number of a release", got=repr(number)[:40])
    files = unpack(header.get("files"), payload)
    if RECORD in files:
        raise UpdateRejected("malformed", f"only the vehicle may write {RECORD}")
    digests = {name: digest for name, _, digest in header["files"]}
    if digest_of(digests) != header.get("digest"):
        raise UpdateRejected("digest", "the files are not those of the release")
    before = current_release(models)
    if before is not None and before.told() == {"release": number, "digest": header["digest"]}:
        return {"drives": before.told()}, b""
    try:
        folder = store(models, number, files)
        _require_loadable(folder, models)
        held = drive(models, number)
    except OSError as error:
        words = "the disk is full" if is_disk_full(error) else error.strerror or "no such place"
        return failure_header("lost", "no-room", f"the release cannot be stored: {words}"), b""
    notify(f"release {number:04d} is driven from now on: {held.folder}")
    return {"drives": held.told()}, b""


def _require_loadable(folder: Path, models: Path) -> None:
    """Load a release before it is used; delete one that cannot be loaded, unless it is in use."""
    try:
        load_model(folder)
    except FleetSegError as error:
        before = current_release(models)
        if before is None or before.folder != folder:
            shutil.rmtree(folder, ignore_errors=True)
        raise UpdateRejected("unusable", f"the model cannot be loaded: {error.what}") from None


@dataclass(frozen=True)
class JudgingSite:
    """Where a model is judged: the data, a folder for its files, and callbacks."""

    data: SiteData
    folder: Path
    notify: Callable[[str], None]
    step: Callable[[], None]  # called for each frame read, to count progress


def judge_model(
    header: Header, payload: bytes, described: tuple[Experiment, LabelSpace], site: JudgingSite
) -> Answer:
    """Score a model on the frames held out by each vehicle of this site; returns sums.

    Raises:
        UpdateRejected: the request or the model cannot be used, or no labelled frame is held out.
        DataError: the data cannot be used.
    """
    experiment, space = described
    try:
        policy = make_policy(header.get("policy") or {}, "the server's policy")
    except ConfigError as error:
        raise UpdateRejected("policy", error.what) from None
    if experiment.partition.holdout == 0:
        raise UpdateRejected("experiment", "no frames are held out to judge on")
    files = unpack(header.get("files"), payload)
    hardware = hardware_of(experiment.engine)
    with _loaded(files, site.folder, space) as model, threads(experiment.engine.threads):
        assert model.size_hw is not None
        data = experiment.data.model_copy(update={"size": model.size_hw})
        sized = experiment.model_copy(update={"data": data})
        opened = open_clients(
            site.data,
            sized,
            progress=lambda what, done, total: site.step(),
            notify=site.notify,
            space=space,
        )
        clients = {name: counted(client, site.step) for name, client in opened.items()}
        looking = _OnDevice(model.to(hardware.device), hardware)
        sums = _sums(clients, looking, policy)
    if not sums:
        raise UpdateRejected("no-frames", "no vehicle here holds out a labelled frame")
    return write_sums(sums)


def _sums(clients: Mapping[str, Any], looking: _OnDevice, policy: Policy) -> dict[str, VehicleSums]:
    judges = {name: client for name, client in clients.items() if client.test}
    return {
        name: VehicleSums(len(client.test), client_sums(client, looking, policy))
        for name, client in judges.items()
    }


@contextlib.contextmanager
def _loaded(files: Files, folder: Path, space: LabelSpace) -> Iterator[Segmenter]:
    """Load a model from the files of a message; they are deleted when the block ends."""
    for left in folder.glob(f"{_JUDGED}*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_JUDGED, dir=folder) as place:
        try:
            for name, data in files.items():
                (Path(place) / name).write_bytes(data)
        except OSError:
            raise UpdateRejected("disk", "there is no room for the model") from None
        try:
            model = load_model(Path(place))
        except FleetSegError as error:
            raise UpdateRejected("unusable", f"the model cannot be loaded: {error.what}") from None
        if model.space is None or model.space.classes != space.classes:
            raise UpdateRejected("labels", "the model has other classes than the experiment")
        if model.untrained:
            raise UpdateRejected(
                "unusable", "the model lacks the tensors that stayed with the vehicles"
            )
        yield model
