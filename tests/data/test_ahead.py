"""Jobs done ahead: order, errors in their place, a bound on what is begun, no thread left."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetseg.data.ahead import done_ahead

THREADS = [0, 1, 3]


def ours() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("fleetseg-ahead")]


def failing(number: int, bad: frozenset[int]) -> int:
    if number in bad:
        raise ValueError(number)
    return number


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(0, 30),
    threads=st.integers(0, 4),
    ahead=st.integers(0, 9),
    bad=st.frozensets(st.integers(0, 29), max_size=2),
)
def test_results_come_in_order_up_to_the_first_error(
    count: int, threads: int, ahead: int, bad: frozenset[int]
) -> None:
    expected = min([*(n for n in bad if n < count), count])
    got: list[int] = []
    with done_ahead((partial(failing, n, bad) for n in range(count)), threads, ahead) as results:
        if expected < count:
            with pytest.raises(ValueError, match=f"^{expected}$"):
                got.extend(results)
        else:
            got.extend(results)
    assert got == list(range(expected))
    assert ours() == []


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_no_more_is_begun_than_was_allowed(threads: int, ahead: int) -> None:
    drawn: list[int] = []

    def jobs() -> Iterator[partial[int]]:
        for number in range(20):
            drawn.append(number)
            yield partial(int, number)

    with done_ahead(jobs(), threads, ahead) as results:
        for taken, _ in enumerate(results, 1):
            assert len(drawn) <= taken + (ahead if threads else 0)
    assert drawn == list(range(20))


def test_jobs_run_while_the_first_result_is_in_use() -> None:
    """With two threads two jobs are at work at once, and neither is the caller's thread."""
    meet = threading.Barrier(2, timeout=60)
    names: set[str] = set()

    def job() -> None:
        names.add(threading.current_thread().name)
        meet.wait()

    with done_ahead([job] * 4, 2, 4) as results:
        assert len(list(results)) == 4
    assert len(names) == 2
    assert threading.current_thread().name not in names


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError, None])
def test_leaving_early_drops_what_has_not_begun(
    threads: int, stop: type[BaseException] | None
) -> None:
    begun: list[int] = []

    def leave() -> None:
        with done_ahead((partial(begun.append, n) for n in range(1000)), threads, 7) as results:
            next(results)
            if stop is not None:
                raise stop

    if stop is None:
        leave()
    else:
        with pytest.raises(stop):
            leave()
    assert ours() == []
    assert len(begun) <= 8


def test_every_thread_is_prepared_before_its_first_job() -> None:
    ready = threading.local()

    def prepare() -> None:
        ready.yes = True

    with done_ahead([lambda: bool(ready.yes)] * 9, 3, 9, prepare) as results:
        assert all(results)


def test_a_result_is_not_kept_once_it_was_used() -> None:
    import weakref

    class Batch:
        pass

    with done_ahead([Batch] * 3, 1, 1) as results:
        first = weakref.ref(next(results))
        assert first() is None
        assert next(results) is not None
