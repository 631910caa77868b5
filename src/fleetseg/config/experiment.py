"""An experiment: its sections, how they fit together, and the digest that identifies it."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from pydantic import field_validator, model_validator

from fleetseg.config.data import DataConfig, ModelConfig, PartitionConfig
from fleetseg.config.federation import FederationConfig
from fleetseg.config.personal import PersonalConfig
from fleetseg.config.pretrain import PretrainConfig, SafetyConfig
from fleetseg.config.running import (
    BaselineConfig,
    EngineConfig,
    EvaluationConfig,
    FleetConfig,
    StopConfig,
)
from fleetseg.config.section import Section
from fleetseg.config.tracking import TrackingConfig
from fleetseg.config.training import TrainingConfig
from fleetseg.methods import METHODS


class Experiment(Section):
    """Everything that defines a run."""

    name: str = "experiment"
    method: str = ""  # a preset of fleetseg.methods; fields set here override the preset's
    seed: int = 0
    data: DataConfig = DataConfig()
    partition: PartitionConfig = PartitionConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    federation: FederationConfig = FederationConfig()
    personal: PersonalConfig = PersonalConfig()
    pretrain: PretrainConfig = PretrainConfig()
    safety: SafetyConfig = SafetyConfig()
    stop: StopConfig = StopConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    baseline: BaselineConfig = BaselineConfig()
    engine: EngineConfig = EngineConfig()
    fleet: FleetConfig = FleetConfig()
    tracking: TrackingConfig = TrackingConfig()

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", value):
            raise ValueError("a name is letters, digits, '.', '_' and '-'")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Experiment:
        if self.federation.cohort > 1 and self.federation.cohort != int(self.federation.cohort):
            raise ValueError(
                "federation.cohort is a share of the fleet up to 1.0; above, it is a number of "
                "vehicles (1, 2, ...) and must be whole"
            )
        if self.partition.kind == "file" and not self.partition.file:
            raise ValueError("partition.kind = 'file' needs partition.file")
        if self.training.scale[0] > self.training.scale[1]:
            raise ValueError("training.scale is (smallest, largest)")
        if self.training.nesterov and self.training.momentum == 0:
            raise ValueError("training.nesterov needs training.momentum > 0")
        return self

    @model_validator(mode="after")
    def _has_its_preset(self) -> Experiment:
        """Refuse a method's name without its preset's fields, which are merged in at loading."""
        if not self.method:
            return self
        if self.method not in METHODS:
            raise ValueError(f"unknown method '{self.method}'; one of: {', '.join(METHODS)}")
        for section, fields in METHODS[self.method].fields.items():
            if not fields.keys() <= getattr(self, section).model_fields_set:
                raise ValueError(
                    f"method = '{self.method}' does nothing by itself: use load_experiment, or "
                    "fleetseg.experiment_file.make_experiment, which fill its fields in"
                )
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of what defines the result."""
        return hashlib.sha256(json.dumps(self.defining, sort_keys=True).encode()).hexdigest()

    @property
    def defining(self) -> dict[str, Any]:
        """The fields that define the result, without placement, storage, tracking and pictures."""
        fields = self.model_dump(mode="json")
        del fields["fleet"], fields["tracking"]
        del fields["method"]  # the fields that it stands for are in the digest
        for key in ("kind", "workers", "loaders"):
            del fields["engine"][key]
        for key in ("cache", "store"):
            del fields["data"][key]
        del fields["evaluation"]["pictures"]
        cohort = fields["federation"]["cohort"]
        # 4 and 4.0 are the same count; 1 and 1.0 are not the same.
        fields["federation"]["cohort"] = float(cohort) if cohort > 1 else cohort
        return fields
