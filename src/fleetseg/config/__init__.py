"""What an experiment can say: frozen, typed sections with their defaults.

Every default carries its unit in its name or its comment. `Experiment.digest` identifies the
experiment in run folders and checkpoints; nothing in an experiment can name code to run. How one is
read from a file is in `experiment_file`.
"""

from __future__ import annotations

from fleetseg.config.data import DataConfig, ModelConfig, PartitionConfig, SourceConfig
from fleetseg.config.experiment import Experiment
from fleetseg.config.federation import (
    AdaptiveConfig,
    Cohort,
    EmaConfig,
    FaultsConfig,
    FederationConfig,
    SwaConfig,
)
from fleetseg.config.running import (
    AdaptedConfig,
    BaselineConfig,
    EngineConfig,
    EvaluationConfig,
    FleetConfig,
    StopConfig,
)
from fleetseg.config.training import EntropyConfig, ProxConfig, TrainingConfig

__all__ = [
    "AdaptedConfig",
    "AdaptiveConfig",
    "BaselineConfig",
    "Cohort",
    "DataConfig",
    "EmaConfig",
    "EngineConfig",
    "EntropyConfig",
    "EvaluationConfig",
    "Experiment",
    "FaultsConfig",
    "FederationConfig",
    "FleetConfig",
    "ModelConfig",
    "PartitionConfig",
    "ProxConfig",
    "SourceConfig",
    "StopConfig",
    "SwaConfig",
    "TrainingConfig",
]
