"""The configuration of an experiment: frozen, typed sections with their defaults.

Every default states its unit in its name or its comment. `Experiment.digest` identifies the
experiment in run folders and checkpoints; nothing in an experiment can name code to run. The module
`experiment_file` reads experiments from files.
"""

from __future__ import annotations

from fleetseg.config.data import (
    DataConfig,
    LabelSubsetConfig,
    ModelConfig,
    PartitionConfig,
    SourceConfig,
    UnlabelledConfig,
)
from fleetseg.config.experiment import Experiment
from fleetseg.config.federation import (
    AdaptiveConfig,
    ClusterModelsConfig,
    ClustersConfig,
    Cohort,
    EmaConfig,
    ExtrapolatedConfig,
    FaultsConfig,
    FederationConfig,
    FedgauConfig,
    GapConfig,
    OortConfig,
    PowerOfChoiceConfig,
    QfflConfig,
    QueueConfig,
    SwaConfig,
)
from fleetseg.config.habits import HabitsConfig
from fleetseg.config.personal import PersonalConfig
from fleetseg.config.pretrain import PretrainConfig, SafetyConfig
from fleetseg.config.running import (
    AdaptationConfig,
    AdaptedConfig,
    BaselineConfig,
    CottaLikeConfig,
    EngineConfig,
    EvaluationConfig,
    FleetConfig,
    StopConfig,
    TentConfig,
)
from fleetseg.config.style import CfsiConfig, FdaConfig, StyleConfig
from fleetseg.config.tracking import TrackingConfig
from fleetseg.config.training import (
    AsamConfig,
    ClientMomentumConfig,
    DiscrepancyConfig,
    DriftConfig,
    DynConfig,
    EntropyConfig,
    FeatureDistanceConfig,
    FedFAConfig,
    FedSpeedConfig,
    MimeLiteConfig,
    MixStyleConfig,
    MoonConfig,
    PhaseConfig,
    PixelContrastConfig,
    ProxConfig,
    SamConfig,
    SelfTrainingConfig,
    TrainingConfig,
    WeatherConfig,
)

__all__ = [
    "AdaptationConfig",
    "AdaptedConfig",
    "AdaptiveConfig",
    "AsamConfig",
    "BaselineConfig",
    "CfsiConfig",
    "ClientMomentumConfig",
    "ClusterModelsConfig",
    "ClustersConfig",
    "Cohort",
    "CottaLikeConfig",
    "DataConfig",
    "DiscrepancyConfig",
    "DriftConfig",
    "DynConfig",
    "EmaConfig",
    "EngineConfig",
    "EntropyConfig",
    "EvaluationConfig",
    "Experiment",
    "ExtrapolatedConfig",
    "FaultsConfig",
    "FdaConfig",
    "FeatureDistanceConfig",
    "FedFAConfig",
    "FedSpeedConfig",
    "FederationConfig",
    "FedgauConfig",
    "FleetConfig",
    "GapConfig",
    "HabitsConfig",
    "LabelSubsetConfig",
    "MimeLiteConfig",
    "MixStyleConfig",
    "ModelConfig",
    "MoonConfig",
    "OortConfig",
    "PartitionConfig",
    "PersonalConfig",
    "PhaseConfig",
    "PixelContrastConfig",
    "PowerOfChoiceConfig",
    "PretrainConfig",
    "ProxConfig",
    "QfflConfig",
    "QueueConfig",
    "SafetyConfig",
    "SamConfig",
    "SelfTrainingConfig",
    "SourceConfig",
    "StopConfig",
    "StyleConfig",
    "SwaConfig",
    "TentConfig",
    "TrackingConfig",
    "TrainingConfig",
    "UnlabelledConfig",
    "WeatherConfig",
]
