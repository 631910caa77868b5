"""The time that models take per image, compared: medians of runs that take turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from fleetseg import rng
from fleetseg.runs.inference import ReadyModel

_WARM_UP = 3


def medians_in_turns(
    works: Sequence[Callable[[], object]],
    times: int,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """Return the median milliseconds of each work; the works run in turns.

    Other load on the machine therefore affects all of them alike.
    """
    taken: list[list[float]] = [[] for _ in works]
    for number in range(_WARM_UP + times):
        for work, own in zip(works, taken, strict=True):
            start = clock()
            work()
            if number >= _WARM_UP:
                own.append(1000 * (clock() - start))
    return [statistics.median(own) for own in taken]


def latencies_ms(models: Sequence[ReadyModel], times: int) -> list[float]:
    """Time one image, from its bytes at working size to the class of each of its pixels.

    The image is noise: a network's running time does not depend on what it sees.
    """

    def work(ready: ReadyModel) -> Callable[[], object]:
        draws = rng.generator(0, purpose="release latency")
        image_NHWC = draws.integers(256, size=(1, *ready.size_hw, 3)).astype("uint8")
        return lambda: ready.predict(image_NHWC, ready.size_hw)

    with ExitStack() as stack:
        for ready in models:
            stack.enter_context(ready.on_device())
        return medians_in_turns([work(ready) for ready in models], times)
