"""A client whose progress can be monitored: each sample that it reads counts as a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from fleetseg.data.sample import Image_HWC, Label_HW, Pairs, ScoredPairs
from fleetseg.data.store.store import Picked
from fleetseg.federation.client import Client

Step = Callable[[], None]


@dataclass(frozen=True)
class _Counted:
    pairs: Pairs
    step: Step

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int, /) -> tuple[Image_HWC, Label_HW]:
        self.step()
        return self.pairs[index]


@dataclass(frozen=True)
class _CountedPicked(Picked):
    """Keeps the type of `Picked`, which knows where its samples lie."""

    step: Step = field(repr=False)

    def __getitem__(self, number: int, /) -> tuple[Image_HWC, Label_HW]:
        self.step()
        return super().__getitem__(number)


def counted(client: Client, step: Step) -> Client:
    """Return the client with every sample that it trains or scores on counted as a step."""
    test = client.test
    if len(test):
        test = ScoredPairs(_counted(test.pairs, step), test.domains)
    return replace(client, train=_counted(client.train, step), test=test)


def _counted(pairs: Pairs, step: Step) -> Pairs:
    if isinstance(pairs, Picked):
        return _CountedPicked(pairs.stores, pairs.places, step)
    return _Counted(pairs, step)
