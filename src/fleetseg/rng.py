"""The only source of randomness: a pure function of (seed, round, client, purpose).

Nothing here has state, so a resumed run, another number of workers or another order of arrival
draws the same numbers, and no generator state is ever saved.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive(seed: int, round_: int = 0, client_id: str = "", purpose: str = "") -> int:
    """Return a 64-bit seed that depends on all four arguments and on nothing else.

    >>> derive(0, 1, "car-1", "shuffle") == derive(0, 1, "car-1", "shuffle")
    True
    >>> derive(0, 1, "car-1", "shuffle") == derive(0, 1, "car-1", "augment")
    False
    """
    # Lengths are part of the text, so that ("a", "bc") and ("ab", "c") cannot collide.
    text = f"{seed}|{round_}|{len(client_id)}:{client_id}|{len(purpose)}:{purpose}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def generator(
    seed: int, round_: int = 0, client_id: str = "", purpose: str = ""
) -> np.random.Generator:
    """Return a fresh numpy generator (Philox) for one purpose of one client in one round."""
    return np.random.Generator(np.random.Philox(key=derive(seed, round_, client_id, purpose)))


def torch_generator(
    seed: int, round_: int = 0, client_id: str = "", purpose: str = ""
) -> torch.Generator:
    """Return a fresh CPU torch generator for one purpose of one client in one round."""
    return torch.Generator().manual_seed(derive(seed, round_, client_id, purpose) >> 1)


@contextmanager
def torch_default(
    seed: int, round_: int = 0, client_id: str = "", purpose: str = ""
) -> Iterator[None]:
    """Seed torch's default generators on all devices within the block, and restore them after it.

    Module constructors and dropout can draw from nothing else; the caller's stream is unaffected.
    """
    key = derive(seed, round_, client_id, purpose) >> 1
    go_back = remember_torch_default()
    try:
        for generator in _default_generators():
            generator.manual_seed(key)
        if torch.backends.mps.is_available():
            torch.mps.manual_seed(key)
        yield
    finally:
        go_back()


def remember_torch_default() -> Callable[[], None]:
    """Save the state of torch's default generators on all devices; a call restores it."""
    generators = _default_generators()
    states = [generator.get_state() for generator in generators]
    mps_state = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None

    def go_back() -> None:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
        if mps_state is not None:
            torch.mps.set_rng_state(mps_state)

    return go_back


def _default_generators() -> list[torch.Generator]:
    """The CPU's generator, and those of the GPUs once CUDA is in use."""
    generators = [torch.default_generator]
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        generators += torch.cuda.default_generators
    return generators
