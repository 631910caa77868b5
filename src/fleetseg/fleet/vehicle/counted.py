"""A client whose work can be seen to go on: each sample that it reads is a step."""

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
    """What knows where its samples lie goes on knowing it."""

    step: Step = field(repr=False)

    def __getitem__(self, number: int, /) -> tuple[Image_HWC, Label_HW]:
        self.step()
        return super().__getitem__(number)


def counted(client: Client, step: Step) -> Client:
    """Have every sample that the client trains or scores on counted; all else is as it was."""
    test = client.test
    if len(test):
        test = ScoredPairs(_counted(test.pairs, step), test.domains)
    return replace(client, train=_counted(client.train, step), test=test)


def _counted(pairs: Pairs, step: Step) -> Pairs:
    if isinstance(pairs, Picked):
        return _CountedPicked(pairs.stores, pairs.places, step)
    return _Counted(pairs, step)
