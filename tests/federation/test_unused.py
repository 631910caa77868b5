"""Which updates of a client did not count, since the last one that did."""

from __future__ import annotations

from tests.federation.scripted_fleet import FOUR, TWO, Fleet, Reply, go, lost, plan, update
from tests.records import record

from fleetseg.federation.messages import Broadcast
from fleetseg.federation.unused import unused_rounds


def test_updates_that_did_not_count_since_the_last_that_did() -> None:
    good = record(1)
    late = record(2, accepted=("a",))
    assert unused_rounds([good, late]) == {"b": (2,)}
    assert unused_rounds([good, late, record(3, accepted=("a",))]) == {"b": (2, 3)}
    assert unused_rounds([good, late, record(3)]) == {}
    # Without a quorum nobody's counted; who was not asked has nothing to take back.
    missed = record(2, accepted=("a",), quorum=False)
    assert unused_rounds([good, missed]) == {"a": (2,), "b": (2,)}
    assert unused_rounds([good, record(2, cohort=("b",), accepted=())]) == {"b": (2,)}


def test_who_is_asked_again_after_a_hundred_rounds_is_told_too() -> None:
    """With a cohort of one in a hundred that is the rule."""
    others = [record(r, cohort=("a",), accepted=("a",)) for r in range(3, 130)]
    records = [record(1), record(2, accepted=("a",)), *others]
    assert unused_rounds(records) == {"b": (2,)}
    assert unused_rounds(records, ["b", "new"]) == {"b": (2,)}
    assert unused_rounds(records, ["a"]) == {}


def test_of_many_rounds_that_did_not_count_the_newest_are_told() -> None:
    records = [record(r, accepted=("a",)) for r in range(1, 30)]
    assert unused_rounds(records) == {"b": tuple(range(22, 30))}


def test_a_client_is_told_which_of_its_updates_did_not_count() -> None:
    def odd(client: str, broadcast: Broadcast) -> list[Reply]:
        return [] if broadcast.round % 2 else [update(client, broadcast.round, [1, 2, 3], 1)]

    fleet = Fleet(TWO, {"a": odd})
    go(fleet, plan(federation={"rounds": 4}))
    assert [asks["a"].unused for asks in fleet.asks] == [(), (1,), (), (3,)]
    assert [asks["b"].unused for asks in fleet.asks] == [()] * 4
    # Who is told nothing special is sent the same message.
    assert fleet.asks[0]["a"] is fleet.asks[0]["b"]


def test_nobody_s_update_counts_in_a_round_without_a_quorum() -> None:
    fleet = Fleet(FOUR, {"b": lost, "c": lost, "d": lost})
    go(fleet, plan(federation={"rounds": 2}))
    assert [asks["a"].unused for asks in fleet.asks] == [(), (1,)]
