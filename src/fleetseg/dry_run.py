"""One step before the first round: what every client would trip over is found and named at once.

It is taken on a copy of the model, so that no bit of the run depends on it.
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
from fleetseg.data.sample import ScoredPairs
from fleetseg.errors import FleetSegError, ModelError, UpdateRejected
from fleetseg.federation.checks import validate_update
from fleetseg.federation.client import Client, Workbench, client_update, score_pairs
from fleetseg.federation.messages import Broadcast, Enrolment, Failure, taking_part
from fleetseg.federation.tensors import read_state
from fleetseg.learning.hardware import threads
from fleetseg.memory import free, is_out_of_memory, told
from fleetseg.parts import Parts

_TRIES = 5  # clients, before what they all trip over counts as everybody's
_LARGEST_STRIDE = 128  # features of larger pictures are never 1x1 because of the picture's size
_RAISE_SIZE = "Raise data.size (and training.crop, if set)"
_MORE_THAN_ONE = ("more than 1 value per channel", "more than 1 spatial element")
_OF_A_STRIDE = ("Sizes of tensors must match", "must match the size of tensor")
_TOO_SMALL = ("Kernel size can't be greater", "Output size is too small", "should be less than")


def try_one_step(parts: Parts) -> list[str]:
    """Have a client take one training step and score one image; returns notes.

    One client's trouble may be its own, so others are tried before anything is said.

    Raises:
        ModelError: the network cannot be trained, or not at this size.
        DataError: the samples of all clients that were tried cannot be used.
    """
    bench = _trial_bench(parts)
    first: FleetSegError | None = None
    with threads(parts.experiment.engine.threads):
        clients = _some(parts)
        for client in clients:
            found = _trouble(client, bench, parts)
            free(bench.hardware.device)
            if found is None:
                return _notes(clients, bench, parts)
            first = first or found
    if first is None:
        return []
    raise first


def _trial_bench(parts: Parts) -> Workbench:
    """A copy of the run's workbench that takes one step and keeps nothing."""
    training = parts.experiment.training
    one_step: dict[str, object] = {"local_steps": 1}
    if training.class_weights == "fleet":
        one_step["class_weights"] = "local"  # the fleet's are known to the server only
    experiment = parts.experiment.model_copy(
        update={"training": training.model_copy(update=one_step)}
    )
    model = copy.deepcopy(parts.bench.model)
    return replace(parts.bench, model=model, experiment=experiment, memory=None)


def _some(parts: Parts) -> list[Client]:
    """Return a few clients, the largest first and the others evenly spaced below it."""
    enrolled = taking_part(parts.study.enrolled)
    ordered = sorted(enrolled, key=lambda name: (-enrolled[name].num_images, name))
    if not ordered:
        return [_stand_in(parts)]
    step = max(1, len(ordered) // _TRIES)
    return [parts.study.clients[name] for name in ordered[::step][:_TRIES]]


def _stand_in(parts: Parts) -> Client:
    """A client with two pictures of noise, where the clients are on other machines."""
    height, width = parts.experiment.data.size
    classes = parts.study.space.num_classes
    draws = rng.generator(parts.experiment.seed, purpose="dry-run")
    pairs = [
        (
            draws.integers(0, 256, (height, width, 3), dtype=np.uint8),
            draws.integers(0, classes, (height, width), dtype=np.uint8),
        )
        for _ in range(2)
    ]
    counts = np.bincount(np.stack([label for _, label in pairs]).ravel(), minlength=classes)
    enrolment = Enrolment("dry-run", 2, 2 * height * width, tuple(counts.tolist()))
    return Client(enrolment, pairs)


def _trouble(client: Client, bench: Workbench, parts: Parts) -> FleetSegError | None:
    """Let a client take its step; return what went wrong, if it would go wrong in a run."""
    state = read_state(parts.bench.model, parts.bench.layout)
    try:
        reply = client_update(Broadcast(1, state), client, bench)
        if isinstance(reply, Failure):
            return None  # no label in this batch, or a loss scale of fp16 that is still too high
        if parts.study.clients:  # noise in a stand-in's place says nothing of magnitudes
            validate_update(
                reply,
                layout=bench.layout,
                base=state,
                round_=1,
                enrolled=client.enrolment,
                max_norm=0.0,
            )
        bench.tensors.load(state)
        score_pairs(bench, ScoredPairs([client.train[0]], ("",)))
    except UpdateRejected as rejected:
        return _unusable_update(rejected, bench, parts)
    except FleetSegError as error:
        return error
    except Exception as error:
        return _failed_step(error, bench, parts)
    return None


def _unusable_update(rejected: UpdateRejected, bench: Workbench, parts: Parts) -> ModelError:
    points = _points(bench)
    cause = "" if not points else f": {_words_on(points, parts)}"
    return ModelError(
        f"already the first training step gives an update that is refused ({rejected}){cause}",
        where=_where(parts),
        cure=_RAISE_SIZE if points else "Lower training.lr, or see that the loss is finite",
    )


def _failed_step(error: Exception, bench: Workbench, parts: Parts) -> ModelError:
    if is_out_of_memory(error):
        # Without its cause, whose frames hold on to the memory.
        bench.model.zero_grad(set_to_none=True)
        return ModelError(told(error, bench.hardware.device), where=_where(parts))
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
        f"network '{bench.model.name}' cannot take a training step",
        where=_where(parts),
        got=f"{type(error).__name__}: {text}",
        cure=cure,
    )
    failed.__cause__ = error
    return failed


def _where(parts: Parts) -> str:
    height, width = _crop_hw(parts)
    return f"a trial step of {parts.experiment.training.batch_size} x {width}x{height}"


def _crop_hw(parts: Parts) -> tuple[int, int]:
    return parts.experiment.training.crop or parts.experiment.data.size


def _notes(clients: Sequence[Client], bench: Workbench, parts: Parts) -> list[str]:
    """Tell of features that are too small, and refuse them where there is nothing else to see."""
    points = _points(bench)
    if points and clients[0].enrolment.num_images == 1:
        # An image beside itself: a variance of nearly nothing, by which gradients are divided.
        raise ModelError(
            f"{_words_on(points, parts)}, and no vehicle has more than one image",
            where=_where(parts),
            cure=_RAISE_SIZE,
        )
    return [f"{_words_on(points, parts)}. {_RAISE_SIZE}"] if points else []


def _words_on(points: Sequence[str], parts: Parts) -> str:
    height, width = _crop_hw(parts)
    return (
        f"at {width}x{height} the features of {len(points)} BatchNorm layers (the first: "
        f"{points[0]}) are 1x1, so that a batch gives them one value per image"
    )


def _points(bench: Workbench) -> list[str]:
    """Name the BatchNorm layers that see 1x1 features because of the picture's small size.

    Those that see 1x1 at any size, after global pooling, are meant to.
    """
    height, width = bench.experiment.training.crop or bench.experiment.data.size
    if max(height, width) > _LARGEST_STRIDE:
        return []
    try:
        small = _pointlike(bench, (height, width))
        if not small:
            return []
        large = set(_pointlike(bench, (4 * height, 4 * width)))
    except Exception:
        return []  # a network of one size only
    return [name for name in small if name not in large]


def _pointlike(bench: Workbench, size_hw: tuple[int, int]) -> list[str]:
    model, device = bench.model, bench.hardware.device
    with _watching_norms(model) as found, torch.no_grad(), bench.hardware.inference():
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
