"""Random numbers as a pure function of seed, round, client and purpose."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fleetseg import rng

ids = st.text(st.characters(codec="utf-8"), max_size=12)
arguments = st.tuples(st.integers(0, 2**63), st.integers(0, 10**6), ids, ids)


def draw_numpy(*args: Any) -> list[float]:
    return rng.generator(*args).random(4).tolist()


def draw_torch(*args: Any) -> list[float]:
    return torch.rand(4, generator=rng.torch_generator(*args)).tolist()


def draw_default(*args: Any) -> list[float]:
    with rng.torch_default(*args):
        return torch.rand(4).tolist()


ALL = pytest.mark.parametrize("draw", [draw_numpy, draw_torch, draw_default, rng.derive])


@ALL
def test_a_pure_function_that_no_global_generator_reaches(draw: Callable[..., Any]) -> None:
    first = draw(3, 5, "car-1", "shuffle")
    for seed in (0, 1):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        torch.rand(3)
        assert draw(3, 5, "car-1", "shuffle") == first


@ALL
def test_each_argument_matters(draw: Callable[..., Any]) -> None:
    base = (3, 5, "car-1", "shuffle")
    others = [(4, *base[1:]), (3, 6, *base[2:]), (3, 5, "car-2", "shuffle"), (*base[:3], "augment")]
    results = [str(draw(*args)) for args in (base, *others)]
    assert len(set(results)) == 5


@ALL
def test_no_global_generator_is_touched(draw: Callable[..., Any]) -> None:
    before = random.getstate(), np.random.get_state()[1].copy(), torch.random.get_rng_state()  # noqa: NPY002
    draw(3, 5, "car-1", "shuffle")
    assert random.getstate() == before[0]
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert torch.equal(torch.random.get_rng_state(), before[2])


@given(arguments, arguments)
def test_different_arguments_never_give_the_same_seed(a: Any, b: Any) -> None:
    assert (rng.derive(*a) == rng.derive(*b)) == (a == b)
    assert 0 <= rng.derive(*a) < 2**64


def test_texts_cannot_run_into_each_other() -> None:
    cases = [("a", "bc"), ("ab", "c"), ("", "abc"), ("abc", ""), ("a|0:", "c"), ("a", "|0:c")]
    assert len({rng.derive(0, 0, client, purpose) for client, purpose in cases}) == len(cases)
    assert rng.derive(1, 11) != rng.derive(11, 1) != rng.derive(1, 1)


def test_the_same_in_another_process_with_another_hash_seed() -> None:
    code = "from fleetseg import rng; print(rng.derive(7, 2, 'käfer', 'x'))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "1"},
        capture_output=True,
        check=True,
        text=True,
    )
    assert done.stdout.strip() == str(rng.derive(7, 2, "käfer", "x"))


def test_known_answers() -> None:
    """Published models depend on these: a change of them is a change of every result."""
    assert rng.derive(0) == 17736223350484228040
    assert rng.derive(1, 2, "car-3", "shuffle") == 14715672903811243416
    assert rng.generator(0).integers(0, 1000, 4).tolist() == [857, 15, 304, 28]


def test_torch_default_puts_the_outer_stream_back() -> None:
    torch.manual_seed(11)
    expected = torch.rand(6)
    torch.manual_seed(11)
    first = torch.rand(3)
    with rng.torch_default(1):
        torch.rand(1000)
        with rng.torch_default(2):
            torch.rand(5)
    assert torch.equal(torch.cat([first, torch.rand(3)]), expected)


def test_torch_default_puts_it_back_after_an_error() -> None:
    before = torch.random.get_rng_state()

    def draw_and_break() -> None:
        with rng.torch_default(1):
            torch.rand(2)
            raise KeyError

    with pytest.raises(KeyError):
        draw_and_break()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_torch_default_makes_modules_reproducible() -> None:
    weights = []
    for _ in range(2):
        torch.rand(7)
        with rng.torch_default(5, purpose="model"):
            weights.append(torch.nn.Linear(3, 3).weight.detach())
    assert torch.equal(*weights)


class Accelerator:
    """A stand-in for a GPU's generator: torch's own kind, of which a machine has one per GPU."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
        self.generators = [torch.Generator().manual_seed(40 + i) for i in range(2)]
        (first, *_) = self.generators
        if kind == "cuda":
            monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
            monkeypatch.setattr(torch.cuda, "default_generators", tuple(self.generators))
        else:
            self.generators = [first]
            monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
            monkeypatch.setattr(torch.mps, "get_rng_state", first.get_state)
            monkeypatch.setattr(torch.mps, "set_rng_state", first.set_state)
            monkeypatch.setattr(torch.mps, "manual_seed", first.manual_seed)

    def draw(self) -> list[list[float]]:
        """What dropout on each GPU would see."""
        return [torch.rand(3, generator=g).tolist() for g in self.generators]


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_torch_default_seeds_every_gpu_and_puts_it_back(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = Accelerator(monkeypatch, kind)

    def draw(*args: Any) -> list[list[float]]:
        with rng.torch_default(*args):
            return gpu.draw()

    states = [g.get_state() for g in gpu.generators]
    first = draw(3, 5, "car-1", "dropout")
    assert draw(3, 5, "car-1", "dropout") == first
    assert draw(3, 6, "car-1", "dropout") != first
    assert draw(3, 5, "car-2", "dropout") != first
    assert all(torch.equal(g.get_state(), s) for g, s in zip(gpu.generators, states, strict=True))
    gpu.draw()
    assert draw(3, 5, "car-1", "dropout") == first

    def draw_and_break() -> None:
        with rng.torch_default(1):
            gpu.draw()
            raise KeyError

    states = [g.get_state() for g in gpu.generators]
    with pytest.raises(KeyError):
        draw_and_break()
    assert all(torch.equal(g.get_state(), s) for g, s in zip(gpu.generators, states, strict=True))
