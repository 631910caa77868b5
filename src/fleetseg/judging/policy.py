"""The release policy, which a new model must satisfy: a TOML file, every key with a default."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from fleetseg.config.section import Section
from fleetseg.errors import unknown_name
from fleetseg.experiment_file import explained_fault, read_fields
from fleetseg.judging.corruptions import CORRUPTIONS


class ScoresPolicy(Section):
    """How far IoUs may fall; 0.02 is two percentage points."""

    critical_max_fall: float = Field(0.02, ge=0, le=1)  # of each safety-critical class
    domain_max_fall: float = Field(0.02, ge=0, le=1)  # of the mIoU of each domain
    overall_max_fall: float = Field(0.01, ge=0, le=1)  # of the mIoU over all frames
    # Minimum for the candidate, whatever the current model scores; 0 = none. The first release is
    # judged by these alone.
    least_miou: float = Field(0.0, ge=0, le=1)
    least_critical_iou: float = Field(0.0, ge=0, le=1)  # of the worst critical class


class BootstrapPolicy(Section):
    """How certain the gate has to be: a paired bootstrap with a percentile interval."""

    confidence: float = Field(0.95, gt=0.5, lt=1)  # of the two-sided interval
    resamples: int = Field(2000, ge=100, le=100_000)
    # The resampling unit: "image", "drive", or "auto" = drives where at least `least_drives` are
    # known, because neighbouring frames of a drive are alike; with few drives an interval means
    # little.
    by: Literal["auto", "image", "drive"] = "auto"
    least_drives: int = Field(10, ge=2)
    seed: int = Field(0, ge=0)  # of the resampling, and of noise and weather
    # The decision about a model whose fall is neither shown nor ruled out.
    when_unsure: Literal["promote", "refuse"] = "promote"


class CalibrationPolicy(Section):
    """Whether confidence is reliable: the expected calibration error (ECE) of pixels."""

    max_rise: float = Field(0.01, ge=0, le=1)
    bins: int = Field(15, ge=2, le=100)  # of equal width


class RobustnessPolicy(Section):
    """How far the mIoU may fall in weather, noise and blur, three severities of each."""

    max_fall: float = Field(0.03, ge=0, le=1)  # for each kind, all severities counted together
    kinds: tuple[str, ...] = tuple(CORRUPTIONS)  # () = not judged
    images: int = Field(48, ge=1)  # evenly spaced over all frames; on clients: per client

    @field_validator("kinds")
    @classmethod
    def _known(cls, kinds: tuple[str, ...]) -> tuple[str, ...]:
        for kind in kinds:
            if kind not in CORRUPTIONS:
                raise ValueError(str(unknown_name("kind", kind, CORRUPTIONS)))
        return tuple(dict.fromkeys(kinds))


class LatencyPolicy(Section):
    """How long one image may take on this machine; medians, with the models taking turns."""

    max_ms: float = Field(0.0, ge=0)  # 0 = any
    max_ratio: float = Field(1.2, ge=0)  # relative to the current model's; 0 = any
    images: int = Field(30, ge=3, le=10_000)


class VehiclesPolicy(Section):
    """How many vehicles must have judged, where vehicles are the judges."""

    least: int = Field(1, ge=1)
    least_share: float = Field(0.5, ge=0, le=1)  # of those that were asked and hold out frames


class Policy(Section):
    """All requirements on a candidate."""

    scores: ScoresPolicy = ScoresPolicy()
    bootstrap: BootstrapPolicy = BootstrapPolicy()
    calibration: CalibrationPolicy = CalibrationPolicy()
    robustness: RobustnessPolicy = RobustnessPolicy()
    latency: LatencyPolicy = LatencyPolicy()
    vehicles: VehiclesPolicy = VehiclesPolicy()

    @property
    def digest(self) -> str:
        """SHA-256 of all values, defaults included."""
        values = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(values.encode()).hexdigest()


def make_policy(fields: Mapping[str, Any], where: str = "policy") -> Policy:
    """Make a policy from nested fields.

    Raises:
        ConfigError: an unknown key, with the nearest valid one, or an invalid value.
    """
    try:
        return Policy.model_validate_json(json.dumps(fields, default=str), strict=True)
    except ValidationError as error:
        raise explained_fault(error, where, Policy) from None


def load_policy(path: Path | None) -> Policy:
    """Read a policy file; without one, use all defaults.

    Raises:
        ConfigError: the file does not exist, is not TOML, or has an invalid value.
    """
    if path is None:
        return Policy()
    return make_policy(read_fields(path, "policy file"), str(path))
