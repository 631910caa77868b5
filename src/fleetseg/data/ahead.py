"""Run jobs ahead of time in background threads and yield their results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

Result = TypeVar("Result")
Job = Callable[[], Result]


@contextmanager
def done_ahead(
    jobs: Iterable[Job[Result]],
    threads: int,
    ahead: int,
    prepare: Callable[[], None] | None = None,
) -> Iterator[Iterator[Result]]:
    """Iterate over the results of `jobs`, in order, while threads run the jobs that come next.

    At most `ahead` jobs start before their turn; jobs must not depend on each other. An exception
    raised by a job is re-raised when its result is due. When the block ends, jobs that have not
    started are cancelled and running jobs are awaited, so no thread outlives the block. With
    `threads=0`, each job runs in the caller's thread when its result is requested. `prepare` is
    called once in each thread.
    """
    if threads == 0:
        yield (job() for job in jobs)
        return
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads, "fleetseg-ahead", prepare) as pool:
        try:
            yield _in_turn((pool.submit(job) for job in jobs), waiting, max(ahead, 1))
        finally:
            for future in waiting:
                future.cancel()


def _in_turn(
    submitted: Iterator[Future[Result]], waiting: deque[Future[Result]], ahead: int
) -> Iterator[Result]:
    waiting.extend(islice(submitted, ahead))
    while waiting:
        # Do not bind the result to a name: that would keep it alive until the next one arrives.
        yield _and_one_more(waiting.popleft().result(), submitted, waiting)


def _and_one_more(
    result: Result, submitted: Iterator[Future[Result]], waiting: deque[Future[Result]]
) -> Result:
    """Submit the next job before the caller uses this result, so that no thread sits idle."""
    waiting.extend(islice(submitted, 1))
    return result
