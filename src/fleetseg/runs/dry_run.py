"""Take one step before the first round, to find at once any error that every client would meet.

The step is taken on a copy of the model, so that no bit of the run depends on it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fleetseg import rng
from fleetseg.data.erased import without_marks
from fleetseg.data.sample import ScoredPairs
from fleetseg.errors import FleetSegError, ModelError, UpdateRejected
from fleetseg.evaluation.norms import RUNNING
from fleetseg.federation.checks import validate_update
from fleetseg.federation.client import Client, LocalRuntime
from fleetseg.federation.fleet_facts import facts_of_fleet, reported_facts
from fleetseg.federation.messages import Broadcast, Enrolment, Update, taking_part
from fleetseg.federation.tasks.evaluate import score_pairs
from fleetseg.federation.tasks.train import client_update
from fleetseg.federation.tensors import read_state
from fleetseg.learning.hardware import threads
from fleetseg.learning.inputs import Facts
from fleetseg.learning.supervision import SUPERVISION
from fleetseg.memory import free, is_out_of_memory, out_of_memory_text
from fleetseg.runs.setup import RunSetup

_TRIES = 5  # clients to try before an error that they share counts as general
_LARGEST_STRIDE = 128  # above this size, features are not 1x1 because of the picture's size
_RAISE_SIZE = "Raise data.size (and training.crop, if set)"
_MORE_THAN_ONE = ("more than 1 value per channel", "more than 1 spatial element")
_OF_A_STRIDE = ("Sizes of tensors must match", "must match the size of tensor")
_TOO_SMALL = ("Kernel size can't be greater", "Output size is too small", "should be less than")


def try_one_step(setup: RunSetup) -> list[str]:
    """Have a client take one training step and score one image; return notes.

    An error may concern one client only, so others are tried before it is raised.

    Raises:
        ModelError: the network cannot be trained, or not at this size.
        DataError: the samples of all clients that were tried cannot be used.
    """
    runtime = _trial_runtime(setup)
    first: FleetSegError | None = None
    with threads(setup.experiment.engine.threads):
        clients = _some(setup)
        for client in clients:
            found = _trouble(client, runtime, setup)
            free(runtime.hardware.device)
            if found is None:
                return _notes(clients, runtime, setup)
            first = first or found
    if first is None:
        return []
    raise first


def _trial_runtime(setup: RunSetup) -> LocalRuntime:
    """Copy the run's training setup: one step of each phase, nothing stored or compressed."""
    training = setup.experiment.training
    training = training.model_copy(update={"local_steps": max(1, len(training.phases))})
    experiment = setup.experiment.model_copy(update={"training": training})
    model = copy.deepcopy(setup.runtime.model)
    return replace(setup.runtime, model=model, experiment=experiment, memory=None, codec=None)


def _some(setup: RunSetup) -> list[Client]:
    """Return a few clients: the largest, and others evenly spaced below it."""
    enrolled = taking_part(setup.fleet_data.enrolled)
    ordered = sorted(enrolled, key=lambda name: (-enrolled[name].num_images, name))
    if not ordered:
        return [_stand_in(setup)]
    step = max(1, len(ordered) // _TRIES)
    return [setup.fleet_data.clients[name] for name in ordered[::step][:_TRIES]]


def _stand_in(setup: RunSetup) -> Client:
    """Make a client with two noise images, where the clients are on other machines."""
    height, width = setup.experiment.data.size
    classes = setup.fleet_data.space.num_classes
    generator = rng.generator(setup.experiment.seed, purpose="dry-run")
    pairs = [
        (
            generator.integers(0, 256, (height, width, 3), dtype=np.uint8),
            generator.integers(0, classes, (height, width), dtype=np.uint8),
        )
        for _ in range(2)
    ]
    counts = np.bincount(np.stack([label for _, label in pairs]).ravel(), minlength=classes)
    facts = reported_facts(setup.experiment, pairs)
    if SUPERVISION[setup.experiment.training.supervision].self_taught:
        counts = np.zeros_like(counts)  # the stricter case is tried: without labels
    pixels = int(counts.sum())
    enrolment = Enrolment("dry-run", 2, pixels, tuple(counts.tolist()), facts=facts)
    return Client(enrolment, pairs)


def _trouble(client: Client, runtime: LocalRuntime, setup: RunSetup) -> FleetSegError | None:
    """Let a client take its step; return the error, if it would also occur in a run."""
    exchange = runtime.exchange
    model = read_state(setup.runtime.model, exchange.model)
    state = exchange.to_try(model)
    try:
        reply = client_update(Broadcast(1, state, _facts(client, runtime)), client, runtime)
        if not isinstance(reply, Update):
            return None  # no label in this batch, or a loss scale of fp16 that is still too high
        if setup.fleet_data.clients:  # a stand-in's noise says nothing about magnitudes
            validate_update(
                reply,
                layout=exchange.up,
                base=exchange.up_of(state),
                round_=1,
                enrolled=client.enrolment,
                max_norm=0.0,
            )
        runtime.whole.load(model)
        image_HWC, label_HW = client.train[0]
        score_pairs(runtime, ScoredPairs([(image_HWC, without_marks(label_HW))], ("",)), RUNNING)
    except UpdateRejected as rejected:
        return _unusable_update(rejected, runtime, setup)
    except FleetSegError as error:
        return error
    except Exception as error:
        return _failed_step(error, runtime, setup)
    return None


def _facts(client: Client, runtime: LocalRuntime) -> Facts:
    """Make the fleet's facts as if this client were the whole fleet."""
    return facts_of_fleet(runtime.experiment, {client.id: client.enrolment})


def _unusable_update(
    rejected: UpdateRejected, runtime: LocalRuntime, setup: RunSetup
) -> ModelError:
    points = _points(runtime)
    cause = "" if not points else f": {_words_on(points, setup)}"
    return ModelError(
        f"the update of the very first training step is refused ({rejected}){cause}",
        where=_where(setup),
        cure=_RAISE_SIZE if points else "Lower training.lr, or make sure that the loss is finite",
    )


def _failed_step(error: Exception, runtime: LocalRuntime, setup: RunSetup) -> ModelError:
    if is_out_of_memory(error):
        # Without `__cause__`, whose frames would keep the memory allocated.
        runtime.model.zero_grad(set_to_none=True)
        return ModelError(out_of_memory_text(error, runtime.hardware.device), where=_where(setup))
    text = " ".join(str(error).split())[:400]
    cure = None
    if any(part in text for part in _MORE_THAN_ONE):
        cure = f"A norm layer sees one value per channel. {_RAISE_SIZE}, or training.batch_size"
    elif any(part in text for part in _OF_A_STRIDE):
        cure = (
            "If the network wants sizes of a multiple of 32, say so: "
            "net=fleetseg.models.build.wrap(net, num_classes, stride=32)"
        )
    elif any(part in text for part in _TOO_SMALL):
        cure = _RAISE_SIZE
    failed = ModelError(
        f"network '{runtime.model.name}' cannot take a training step",
        where=_where(setup),
        got=f"{type(error).__name__}: {text}",
        cure=cure,
    )
    failed.__cause__ = error
    return failed


def _where(setup: RunSetup) -> str:
    height, width = _crop_hw(setup)
    return f"a trial step of {setup.experiment.training.batch_size} x {width}x{height}"


def _crop_hw(setup: RunSetup) -> tuple[int, int]:
    return setup.experiment.training.crop or setup.experiment.data.size


def _notes(clients: Sequence[Client], runtime: LocalRuntime, setup: RunSetup) -> list[str]:
    """Note features that are too small, and refuse them if no client has more than one image."""
    points = _points(runtime)
    if points and clients[0].enrolment.num_images == 1:
        # A batch of copies of one image has a variance near zero, by which gradients are divided.
        raise ModelError(
            f"{_words_on(points, setup)}, and no vehicle has more than one image",
            where=_where(setup),
            cure=_RAISE_SIZE,
        )
    return [f"{_words_on(points, setup)}. {_RAISE_SIZE}"] if points else []


def _words_on(points: Sequence[str], setup: RunSetup) -> str:
    height, width = _crop_hw(setup)
    return (
        f"at {width}x{height} the features of {len(points)} BatchNorm layers (the first: "
        f"{points[0]}) are 1x1, so that a batch gives them one value per image"
    )


def _points(runtime: LocalRuntime) -> list[str]:
    """Name the BatchNorm layers that see 1x1 features because of the picture's small size.

    Layers that see 1x1 features at any size, after global pooling, are left out: they are meant to.
    """
    height, width = runtime.experiment.training.crop or runtime.experiment.data.size
    if max(height, width) > _LARGEST_STRIDE:
        return []
    try:
        small = _pointlike(runtime, (height, width))
        if not small:
            return []
        large = set(_pointlike(runtime, (4 * height, 4 * width)))
    except Exception:
        return []  # a network that takes one size only
    return [name for name in small if name not in large]


def _pointlike(runtime: LocalRuntime, size_hw: tuple[int, int]) -> list[str]:
    model, device = runtime.model, runtime.hardware.device
    with _watching_norms(model) as found, torch.no_grad(), runtime.hardware.inference():
        model.eval()(torch.zeros(1, 3, *size_hw, device=device))
    return found


@contextmanager
def _watching_norms(model: nn.Module) -> Iterator[list[str]]:
    """Collect the names of batch norms, in order, whose input is 1x1."""
    found: list[str] = []

    def watch(name: str, features: torch.Tensor) -> None:
        if features.ndim == 4 and features.shape[2:] == (1, 1):
            found.append(name.removeprefix("net."))

    hooks = [
        module.register_forward_pre_hook(lambda _, args, name=name: watch(name, args[0]))
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm)
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
