"""Which update of a client was the last to count, and that it is told."""

from __future__ import annotations

from tests.federation.scripted_fleet import FOUR, TWO, Fleet, Reply, go, lost, plan, update
from tests.records import record

from fleetseg.federation.counted import counted_rounds
from fleetseg.federation.messages import Broadcast


def test_the_last_update_of_each_that_counted() -> None:
    good = record(1)
    late = record(2, accepted=("a",))
    both = ("a", "b")
    assert counted_rounds([], both) == {"a": 0, "b": 0}
    assert counted_rounds([good, late], both) == {"a": 2, "b": 1}
    assert counted_rounds([good, late, record(3)], both) == {"a": 3, "b": 3}
    assert counted_rounds([late], ["b", "new"]) == {"b": 0, "new": 0}
    # Without a quorum nobody's counted.
    missed = record(2, accepted=("a",), quorum=False)
    assert counted_rounds([good, missed], both) == {"a": 1, "b": 1}


def test_who_is_asked_again_after_a_hundred_rounds_is_told_too() -> None:
    """With a cohort of one in a hundred that is the rule; so it is if it failed in all of them."""
    others = [record(r, cohort=("a",), accepted=("a",)) for r in range(3, 130)]
    assert counted_rounds([record(1), *others], ["b"]) == {"b": 1}
    failed = [record(r, accepted=("a",)) for r in range(2, 130)]
    assert counted_rounds([record(1), *failed], ["b"]) == {"b": 1}


def test_a_client_is_told_which_of_its_updates_was_the_last_to_count() -> None:
    def odd(client: str, broadcast: Broadcast) -> list[Reply]:
        return [] if broadcast.round % 2 else [update(client, broadcast.round, [1, 2, 3], 1)]

    fleet = Fleet(TWO, {"a": odd})
    go(fleet, plan(federation={"rounds": 4}))
    assert [asks["a"].counted for asks in fleet.asks] == [0, 0, 2, 2]
    assert [asks["b"].counted for asks in fleet.asks] == [0, 1, 2, 3]
    # Who is told the same is sent the same message.
    assert fleet.asks[0]["a"] is fleet.asks[0]["b"]


def test_nobody_s_update_counts_in_a_round_without_a_quorum() -> None:
    fleet = Fleet(FOUR, {"b": lost, "c": lost, "d": lost})
    go(fleet, plan(federation={"rounds": 2}))
    assert [asks["a"].counted for asks in fleet.asks] == [0, 0]
