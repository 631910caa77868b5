"""Find the stages of any network's encoder by where its features shrink.

A stage of stride s ends in the features of that stride that go on to the next coarser one: the
input of the outermost module that only leads from one resolution to the next (a block, a group of
blocks, a convolution). Shapes: N images, D channels, h and w the features' resolution.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import log2

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from fleetseg.errors import ModelError
from fleetseg.models.features import evaluating
from fleetseg.models.segmenter import Segmenter

_SHRINKING = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)


@dataclass(frozen=True)
class Place:
    """Where to obtain the features of a stage: from a module's output or its input."""

    module: str
    returned: bool
    channels: int = field(default=0, compare=False)  # of the features


Stages = Mapping[int, tuple[Place, ...]]
"""Places by stride; a network with two branches has two places of one stride."""


@dataclass
class _Call:
    """One call of a module in a pass; it keeps its tensors alive, so that ids stay unique."""

    module: str
    given: Tensor | None
    parent: _Call | None
    shrinks: bool
    made: Tensor | None = field(default=None)


@contextmanager
def changed_features(
    segmenter: Segmenter, places: Sequence[Place], change: Callable[[int, Tensor], Tensor]
) -> Iterator[None]:
    """Replace features by `change(number of the place, features_NDhw)` inside the block.

    This applies in training mode only; predictions in eval mode are unaffected. Only hooks are
    added to the network, and they are removed afterwards.
    """

    def active(module: nn.Module, place: Place) -> bool:
        # A copy of a network, such as a frozen teacher, has the same hooks but must not be changed.
        return segmenter.training and module is segmenter.get_submodule(place.module)

    def hook(number: int, place: Place) -> RemovableHandle:
        def after(module: nn.Module, _: object, made: Tensor) -> Tensor:
            return change(number, made) if active(module, place) else made

        def before(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return (change(number, args[0]), *args[1:]) if active(module, place) else args

        module = segmenter.get_submodule(place.module)
        if place.returned:
            return module.register_forward_hook(after)
        return module.register_forward_pre_hook(before)

    handles = [hook(number, place) for number, place in enumerate(places)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def require_stages(
    segmenter: Segmenter, size_hw: tuple[int, int], strides: Sequence[int]
) -> list[Place]:
    """Return the places of features of these strides, by stride and then in the order of the pass.

    Raises:
        ModelError: the network has no features of one of the strides.
    """
    stages = find_stages(segmenter, size_hw)
    missing = [stride for stride in strides if stride not in stages]
    if missing:
        there = ", ".join(map(str, stages)) or "none"
        raise ModelError(
            f"network '{segmenter.name}' has no features of stride {missing[0]} that go on to a "
            "coarser resolution",
            got=f"strides {there}",
            expected=f"strides {', '.join(map(str, strides))}",
            cure="Name strides that it has" if stages else "Choose another network",
        )
    return [place for stride in sorted(set(strides)) for place in stages[stride]]


def find_stages(segmenter: Segmenter, size_hw: tuple[int, int]) -> Stages:
    """Find a network's stages by a pass on a black image; the network is left unchanged."""
    calls: list[_Call] = []
    with evaluating(segmenter), torch.no_grad(), _noting(segmenter, calls):
        device = next(segmenter.parameters(), torch.empty(0)).device
        segmenter(torch.zeros(1, 3, *size_hw, device=device))
    seen_hw = segmenter.padded_hw(size_hw)
    ends: dict[int, dict[int, _Call]] = {}  # stride -> id of a tensor -> call that receives it
    for call in calls:
        if not call.shrinks or _ratio(call) not in (2, 4):
            continue
        outer = _outermost(call)
        assert outer.given is not None
        stride = _stride(outer.given, seen_hw)
        if stride > 1:
            ends.setdefault(stride, {}).setdefault(id(outer.given), outer)
    return {stride: _places(ends[stride].values(), calls) for stride in sorted(ends)}


def _places(ends: Iterable[_Call], calls: Sequence[_Call]) -> tuple[Place, ...]:
    places = [_place(outer, calls) for outer in ends]
    returned = tuple(place for place in places if place.returned)
    # Features that no module returns may be passed to several modules: the last one, after side
    # branches, leads onwards.
    return returned or (places[-1],)


def _place(outer: _Call, calls: Sequence[_Call]) -> Place:
    """Return the module that made the features, so that all users see a change; else their user."""
    assert outer.given is not None
    times, channels = Counter(call.module for call in calls), outer.given.shape[1]
    makers = [call for call in calls if call.made is outer.given and times[call.module] == 1]
    # Take the last module to return them, since in-place modules return their input.
    if makers:
        return Place(makers[-1].module, True, channels)
    return Place(outer.module, False, channels)


def _outermost(call: _Call) -> _Call:
    """Go up from a shrinking module to the outermost one with the same input and output sizes."""
    while (parent := call.parent) is not None:
        if parent.given is None or parent.made is None or call.given is None or call.made is None:
            break
        given_alike = parent.given.shape[2:] == call.given.shape[2:]
        if not given_alike or parent.made.shape[2:] != call.made.shape[2:]:
            break
        call = parent
    return call


def _ratio(call: _Call) -> int:
    if call.given is None or call.made is None:
        return 0
    pairs = zip(call.given.shape[2:], call.made.shape[2:], strict=True)
    return max(round(large / small) for large, small in pairs)


def _stride(features: Tensor, seen_hw: tuple[int, int]) -> int:
    """Return the power of two nearest to the ratio of image size to feature-map size."""
    ratio = max(seen_hw[0] / features.shape[2], seen_hw[1] / features.shape[3])
    return int(2 ** round(log2(ratio)))


@contextmanager
def _noting(segmenter: Segmenter, calls: list[_Call]) -> Iterator[None]:
    """Record every call of a module inside the block, in the order in which calls end."""
    stack: list[_Call] = []

    def enter(name: str, module: nn.Module, args: tuple[object, ...]) -> None:
        shrinks = isinstance(module, _SHRINKING) and module.stride not in (1, (1, 1))
        given = _map(args[0]) if args else None
        stack.append(_Call(name, given, stack[-1] if stack else None, shrinks))

    def leave(made: object) -> None:
        call = stack.pop()
        call.made = _map(made)
        calls.append(call)

    handles = []
    for name, module in segmenter.net.named_modules(prefix="net"):
        handles += [
            module.register_forward_pre_hook(lambda m, args, name=name: enter(name, m, args)),
            module.register_forward_hook(lambda _, __, made: leave(made)),
        ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _map(value: object) -> Tensor | None:
    return value if isinstance(value, Tensor) and value.ndim == 4 else None
