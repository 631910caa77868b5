"""Which update of a client was the last to count, and that it is told."""

from __future__ import annotations

from tests.federation.scripted_fleet import FOUR, TWO, Fleet, Reply, go, lost, plan, update
from tests.records import record

from fleetseg.federation.client_state import NO_STATE
from fleetseg.federation.counted import last_counted
from fleetseg.federation.messages import Broadcast, Counted, Failure


def told(fleet: Fleet, client: str) -> list[int]:
    """The rounds that a client was told of, in each of its requests."""
    counted = [asks[client].counted for asks in fleet.asks]
    return [update.round for update in counted if update is not None]


def test_the_last_update_of_each_that_counted() -> None:
    good = record(1)
    late = record(2, accepted=("a",))
    both = ("a", "b")
    assert last_counted([], both) == {"a": Counted(0), "b": Counted(0)}
    assert last_counted([good, late], both) == {"a": Counted(2), "b": Counted(1)}
    assert last_counted([good, late, record(3)], both) == {"a": Counted(3), "b": Counted(3)}
    assert last_counted([late], ["b", "new"]) == {"b": Counted(0), "new": Counted(0)}
    # Without a quorum nobody's counted.
    missed = record(2, accepted=("a",), quorum=False)
    assert last_counted([good, missed], both) == {"a": Counted(1), "b": Counted(1)}


def test_who_is_asked_again_after_a_hundred_rounds_is_told_too() -> None:
    """With a cohort of one in a hundred that is the rule; so it is if it failed in all of them."""
    others = [record(r, cohort=("a",), accepted=("a",)) for r in range(3, 130)]
    assert last_counted([record(1), *others], ["b"]) == {"b": Counted(1)}
    failed = [record(r, accepted=("a",)) for r in range(2, 130)]
    assert last_counted([record(1), *failed], ["b"]) == {"b": Counted(1)}


def test_a_client_is_told_which_of_its_updates_was_the_last_to_count() -> None:
    def odd(client: str, broadcast: Broadcast) -> list[Reply]:
        return [] if broadcast.round % 2 else [update(client, broadcast.round, [1, 2, 3], 1)]

    fleet = Fleet(TWO, {"a": odd})
    go(fleet, plan(federation={"rounds": 4}))
    assert told(fleet, "a") == [0, 0, 2, 2]
    assert told(fleet, "b") == [0, 1, 2, 3]
    # Who is told the same is sent the same message.
    assert fleet.asks[0]["a"] is fleet.asks[0]["b"]


def test_nobody_s_update_counts_in_a_round_without_a_quorum() -> None:
    fleet = Fleet(FOUR, {"b": lost, "c": lost, "d": lost})
    go(fleet, plan(federation={"rounds": 2}))
    assert told(fleet, "a") == [0, 0]


def test_an_update_is_told_with_the_lineage_that_it_was_trained_from() -> None:
    fleet = Fleet(TWO)
    _, log = go(fleet, plan(federation={"rounds": 3}))
    lineages = [record.lineage for record in log.records]
    assert lineages[0] == ""  # nothing came before
    assert lineages[1:] == [state.lineage for state in log.states[:2]]
    assert len({*lineages, log.states[2].lineage}) == 4
    assert [asks["a"].lineage for asks in fleet.asks] == lineages
    assert [asks["a"].counted for asks in fleet.asks] == [
        Counted(0), Counted(1, ""), Counted(2, lineages[1]),
    ]  # fmt: skip


def test_who_has_lost_what_it_kept_begins_anew() -> None:
    """From its next request on, until an update of it counts again; a resumed server knows, too."""
    gone = Failure("a", "lost", NO_STATE)
    lost = record(2, accepted=("b",), failures=(gone,), lineage="cd" * 8)
    again = record(3, lineage="ef" * 8)
    assert last_counted([record(1), lost], ["a"]) == {"a": Counted(0)}
    assert last_counted([record(1), lost, again], ["a"]) == {"a": Counted(3, "ef" * 8)}
    other = Failure("a", "lost", "silent")
    silent = record(2, accepted=("b",), failures=(other,))
    assert last_counted([record(1), silent], ["a"]) == {"a": Counted(1)}
