"""The parts of a run: the model, the clients' training setup, the folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from fleetseg.clients import FleetData
from fleetseg.config import Experiment
from fleetseg.data.carried import open_carried
from fleetseg.engines.runtime import local_runtime
from fleetseg.errors import ConfigError, ModelError
from fleetseg.federation import rounds
from fleetseg.federation.client import LocalRuntime
from fleetseg.federation.client_state import ClientStateStore
from fleetseg.learning.hardware import hardware_of
from fleetseg.learning.parts import require_part
from fleetseg.learning.supervision import SUPERVISION
from fleetseg.models.build import build_model, normalise_inputs, wrap
from fleetseg.models.folder import load_model
from fleetseg.models.group_norm import use_group_norms, wished_groups
from fleetseg.models.norm_statistics import statistic_keys
from fleetseg.models.segmenter import Segmenter
from fleetseg.models.wrapping import copied_net, materialise
from fleetseg.runs.clashes.parts import LEARNS_APART
from fleetseg.runs.folder import RunFolder
from fleetseg.text import listing


@dataclass(frozen=True)
class RunSetup:
    """The parts of one run, built once."""

    experiment: Experiment
    fleet_data: FleetData
    runtime: LocalRuntime
    folder: RunFolder
    watcher: rounds.Watcher


def set_up(
    experiment: Experiment,
    fleet_data: FleetData,
    out: Path,
    net: nn.Module | None,
    watcher: rounds.Watcher,
    start: Path | None = None,
) -> RunSetup:
    """Build all that a run needs except its engine; `start` is the folder of a first stage.

    Raises:
        ConfigError, ModelError, MissingExtra: the experiment asks for something unavailable.
        DataError: the samples that vehicles carry are unusable.
    """
    hardware = hardware_of(experiment.engine)
    _require_features_to_keep(experiment, own_net=net is not None)
    model = _model(experiment, fleet_data, net)
    if start is not None:
        model.load_state_dict(load_model(start, net).state_dict())
    model = model.to(hardware.device)
    model = model.to(memory_format=hardware.memory_format)
    runtime = local_runtime(
        experiment, model, hardware, fleet_data.space, ClientStateStore(out / "clients")
    )
    if SUPERVISION[experiment.training.supervision].carries_source:
        runtime = replace(runtime, source=open_carried(experiment, fleet_data.space))
    require_part(model, experiment.personal.learns)
    _require_something_learnt(runtime)
    if fleet_data.evaluation and runtime.exchange.learns_apart(experiment.training):
        raise ConfigError(LEARNS_APART)
    _require_fleet_statistics(runtime)
    return RunSetup(
        experiment=experiment,
        fleet_data=fleet_data,
        runtime=runtime,
        folder=RunFolder(out, experiment, runtime.exchange.server.digest, fleet_data.space),
        watcher=watcher,
    )


def _require_features_to_keep(experiment: Experiment, *, own_net: bool) -> None:
    """Refuse to keep a randomly initialised encoder near features that it has never had.

    Raises:
        ConfigError: the feature distance is used, without start weights.
    """
    has_start = bool(own_net or experiment.model.pretrained or experiment.model.start)
    if has_start or experiment.training.feature_distance.weight == 0:
        return
    raise ConfigError(
        "training.feature_distance keeps an encoder near its features from ImageNet, and this one "
        "begins with random weights",
        cure="Set model.pretrained = 'imagenet' or model.start",
    )


def _require_something_learnt(runtime: LocalRuntime) -> None:
    """Refuse to exchange what stands: every update would be of zeros.

    Raises:
        ConfigError: no phase trains any of what is exchanged.
        ModelError: the network does not say what its head is, and a phase goes by it.
    """
    training, sharing = runtime.experiment.training, runtime.experiment.federation.sharing
    for phase in training.phases:
        require_part(runtime.model, phase.learns)
    if runtime.exchange.learns_together(training):
        return
    raise ConfigError(
        f"federation.sharing = '{sharing}' exchanges what no phase trains, so that the vehicles "
        "would send zeros",
        where="training.phases",
        got=", ".join(f"learns = '{phase.learns}'" for phase in training.phases) or "none",
        cure="Have a phase train what is exchanged, or exchange what is trained",
    )


def _require_fleet_statistics(runtime: LocalRuntime) -> None:
    """Refuse to freeze norm statistics of which a newcomer has only initial values.

    Raises:
        ConfigError: running statistics stay with the clients, and late rounds train with them.
    """
    training, exchange = runtime.experiment.training, runtime.exchange
    own = statistic_keys(runtime.model).intersection(exchange.untrained(training))
    if training.freeze_bn_after < 1 and own:
        raise ConfigError(
            f"federation.sharing = '{runtime.experiment.federation.sharing}' leaves running "
            f"statistics of norm layers with each vehicle ({listing(sorted(own), 2)}), and one "
            "that is first asked past training.freeze_bn_after would train with start values",
            got=training.freeze_bn_after,
            expected="1.0",
        )


def _model(experiment: Experiment, fleet_data: FleetData, net: nn.Module | None) -> Segmenter:
    classes = fleet_data.space.num_classes
    if net is not None:
        return _own_model(experiment, fleet_data, net)
    model = build_model(
        experiment.model.name,
        classes,
        pretrained=experiment.model.pretrained,
        seed=experiment.seed,
        norm_groups=wished_groups(experiment.model),
    )
    normalise_inputs(model, experiment.model)
    if not experiment.model.start:
        return model
    start = load_model(Path(experiment.model.start))
    if (start.name, start.num_classes) != (model.name, classes):
        raise ModelError(
            "the start model is a different network",
            where=experiment.model.start,
            got=f"{start.name} with {start.num_classes} classes",
            expected=f"{model.name} with {classes}",
        )
    normalise_inputs(start, experiment.model)
    if start.norm_groups not in (0, model.norm_groups):
        raise ModelError(
            "the start model has other norm layers",
            where=experiment.model.start,
            got=f"model.norm = 'group', model.norm_groups = {start.norm_groups}",
            cure="Set both to these values",
        )
    if model.norm_groups and not start.norm_groups:
        use_group_norms(start, model.norm_groups)
    return start


def _own_model(experiment: Experiment, fleet_data: FleetData, net: nn.Module) -> Segmenter:
    """Wrap a copy of the user's network, whose original may start another run."""
    classes = fleet_data.space.num_classes
    try:
        copied = copied_net(net) if isinstance(net, nn.Module) else net  # wrap refuses others
    except Exception as error:
        raise ModelError(
            f"the network cannot be copied ({type(error).__name__}: {error})",
            where=type(net).__name__,
            cure="Do not store results of a forward pass, locks or open files in its attributes",
        ) from error
    model = copied if isinstance(copied, Segmenter) else wrap(copied, classes)
    if model.num_classes != classes:
        raise ModelError(
            "the network and the label space have different numbers of classes",
            got=model.num_classes,
            expected=f"{classes} ({fleet_data.space.name})",
        )
    materialise(model, experiment.training.crop or experiment.data.size, seed=experiment.seed)
    if groups := wished_groups(experiment.model):
        use_group_norms(model, groups)
    return model
