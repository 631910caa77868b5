"""Jobs done ahead of their turn in background threads; their results come in order."""

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
    """Iterate over what `jobs` return, in their order, while threads are at work on the next ones.

    At most `ahead` jobs are begun before their turn; they must not depend on each other. What a job
    raises is raised in its turn. At the end of the block jobs that have not begun are dropped and
    those that have are waited for: no thread is left. Without threads each job is done in its turn,
    by whoever asks. `prepare` is called once in each thread.
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
        # No name is bound to the result: it would live until the next one is there.
        yield _and_one_more(waiting.popleft().result(), submitted, waiting)


def _and_one_more(
    result: Result, submitted: Iterator[Future[Result]], waiting: deque[Future[Result]]
) -> Result:
    """Submit the next job before the result is used, so that threads need not wait for that."""
    waiting.extend(islice(submitted, 1))
    return result
