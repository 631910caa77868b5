"""A tiny network, an honest update of it, and the lists of all that a bad client may send."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fleetseg import rng
from fleetseg.federation.messages import Enrolment, Update
from fleetseg.federation.tensors import Layout, ModelState, layout_of, read_state

Mutation = Callable[[Update], Update]
Tensors = dict[str, Tensor]


class TinyNet(nn.Module):
    """A batch norm and a linear layer whose names lie about their kind."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)
        self.foo = nn.BatchNorm2d(2)
        self.bn1 = nn.Linear(2, 3)


@pytest.fixture(scope="session")
def net() -> nn.Module:
    with rng.torch_default(0, purpose="tiny-net"):
        return TinyNet()


@pytest.fixture(scope="session")
def layout(net: nn.Module) -> Layout:
    return layout_of(net)


@pytest.fixture(scope="session")
def base(net: nn.Module, layout: Layout) -> ModelState:
    return read_state(net, layout)


@pytest.fixture(scope="session")
def enrolled() -> dict[str, Enrolment]:
    """Ten cars with 10, 11, ... 19 images."""
    return {f"car-{i}": Enrolment(f"car-{i}", 10 + i, 1000 + 7 * i, (500, 500)) for i in range(10)}


@pytest.fixture(scope="session")
def honest(
    layout: Layout, base: ModelState, enrolled: dict[str, Enrolment]
) -> Callable[[str], Update]:
    """Make the honest update of one car for round 1."""

    def make(client_id: str) -> Update:
        draw = rng.torch_generator(0, 1, client_id, "test-update")
        values_F = torch.randn(layout.num_floats, generator=draw) * 0.01
        change = ModelState(values_F, base.counters_K + 3)
        source = enrolled[client_id]
        return Update(
            round=1,
            client_id=client_id,
            change=change,
            num_images=source.num_images,
            num_pixels=source.num_pixels,
            num_steps=3,
            images_seen=source.num_images,
            loss=0.5,
        )

    return make


def _poke(key: str, value: float) -> Mutation:
    """Set the last value of a tensor."""

    def mutate(update: Update) -> Update:
        change = update.change.clone()
        layout_of(TinyNet()).views(change)[key].view(-1)[-1] = value
        return replace(update, change=change)

    return mutate


def _field(name: str, value: Any) -> Mutation:
    return lambda u: replace(u, **{name: value})


def _bad_updates() -> dict[str, tuple[Mutation, str]]:
    """Name -> (what is done to an honest update, the reason it must be refused for)."""
    cases: dict[str, tuple[Mutation, str]] = {}
    values = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
    for key in ("conv.weight", "foo.running_mean", "foo.running_var", "bn1.bias"):
        for name, value in values.items():
            cases[f"{key} {name}"] = _poke(key, value), "non-finite"
        for huge in (1e38, -1e38, 20000.0):
            cases[f"{key} {huge:g}"] = _poke(key, huge), "magnitude"
    for name, value in values.items():
        cases[f"loss {name}"] = _field("loss", value), "non-finite"
    for odd in ("0.5", None, True, [0.5]):
        cases[f"loss {odd!r}"] = _field("loss", odd), "non-finite"
    cases["loss 1e38"] = _field("loss", 1e38), "magnitude"
    for name in ("num_images", "num_pixels", "num_steps", "images_seen"):
        for value in (0, -40, 10**15, math.nan, True, "5", [5], 5.0, None):
            cases[f"{name} {value!r}"] = _field(name, value), "count"
    cases["num_images 10**9"] = _field("num_images", 10**9), "count"
    cases["variance -1"] = _poke("foo.running_var", -2.0), "variance"
    cases["variance just below 0"] = _poke("foo.running_var", -1.0001), "variance"
    for count in (-1, -(2**63), 2**63 - 1, 2**40):
        cases[f"counter {count}"] = _poke("foo.num_batches_tracked", count), "count"
    for round_ in (0, 2, -1, math.nan, None, "1"):
        cases[f"round {round_!r}"] = _field("round", round_), "stale"
    return cases


def bad_tensors() -> dict[str, tuple[Callable[[Tensors], Tensors], str]]:
    """Name -> (what is done to the tensors of a message, the reason it must be refused for)."""
    cases: dict[str, tuple[Callable[[Tensors], Tensors], str]] = {}

    def one(key: str, change: Callable[[Tensor], Tensor]) -> Callable[[Tensors], Tensors]:
        return lambda named: {**named, key: change(named[key]).contiguous()}

    shapes: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
        "broadcastable": ("conv.bias", lambda t: t[:1].clone()),
        "0-d": ("conv.bias", lambda t: t[0].clone()),
        "transposed": ("bn1.weight", lambda t: t.T.clone()),
        "flattened": ("conv.weight", lambda t: t.flatten()),
        "(3, 4)": ("bn1.weight", lambda t: torch.zeros(3, 4)),
        "empty": ("bn1.bias", lambda t: t[:0].clone()),
        "counter (1,)": ("foo.num_batches_tracked", lambda t: t.view(1)),
    }
    for name, (key, change) in shapes.items():
        cases[f"shape {name}"] = one(key, change), "shape"
    for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool):
        cases[f"weight {dtype}"] = one("conv.weight", lambda t, d=dtype: t.to(d)), "dtype"
    for dtype in (torch.int32, torch.float32, torch.bool):
        key = "foo.num_batches_tracked"
        cases[f"counter {dtype}"] = one(key, lambda t, d=dtype: t.to(d)), "dtype"
    cases["missing key"] = lambda n: {k: t for k, t in n.items() if k != "foo.bias"}, "keys"
    cases["renamed key"] = (
        lambda n: {{"conv.weight": "conv.weights"}.get(k, k): t for k, t in n.items()},
        "keys",
    )
    cases["extra key"] = lambda n: {**n, "../../etc/passwd": torch.zeros(1)}, "keys"
    cases["no tensors"] = lambda n: {}, "keys"
    return cases


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test that asks for them once per bad update, or bad tensors of a message."""
    if {"mutate", "reason"} <= set(metafunc.fixturenames):
        cases = _bad_updates()
        metafunc.parametrize(("mutate", "reason"), list(cases.values()), ids=list(cases))
    if {"spoil", "reason"} <= set(metafunc.fixturenames):
        spoilt = bad_tensors()
        metafunc.parametrize(("spoil", "reason"), list(spoilt.values()), ids=list(spoilt))
