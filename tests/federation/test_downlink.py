"""What vehicles are sent follows the model, and is the same whichever way it reaches them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.frames import with_header
from tests.records import record
from torch import nn

from fleetseg import rng
from fleetseg.errors import UpdateRejected
from fleetseg.federation.downlink import (
    NO_BASE,
    Downlink,
    Held,
    bases,
    decode_changes,
    encode_changes,
    state_of,
)
from fleetseg.federation.messages import Broadcast, Counted, Failure
from fleetseg.federation.tensors import ModelState, layout_of

LAYOUT = layout_of(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)))
WHOLE = 10_000


class Halves:
    """A codec that sends half of each change."""

    has_start = False

    def write(self, change: ModelState, round_: int, *, start: bool = False) -> bytes:
        return (change.values_F / 2).numpy().tobytes() + change.counters_K.numpy().tobytes()

    def read(self, data: bytes, *, start: bool = False) -> ModelState:
        floats, counters = data[: 4 * LAYOUT.num_floats], data[4 * LAYOUT.num_floats :]
        values_F = torch.frombuffer(bytearray(floats), dtype=torch.float32)
        return ModelState(values_F, torch.frombuffer(bytearray(counters), dtype=torch.int64))


class CodedFromTheStart(Halves):
    """Sends all of the first model, but in halves of units."""

    has_start = True

    def write(self, change: ModelState, round_: int, *, start: bool = False) -> bytes:
        if not start:
            return super().write(change, round_)
        rounded = ModelState((2 * change.values_F).round() / 2, change.counters_K)
        return b"first" + super().write(
            ModelState(2 * rounded.values_F, rounded.counters_K), round_
        )

    def read(self, data: bytes, *, start: bool = False) -> ModelState:
        assert start == data.startswith(b"first")
        return super().read(data.removeprefix(b"first"))


DOWNLINK = Downlink(Halves(), WHOLE)
CODED = Downlink(CodedFromTheStart(), WHOLE)


def model(value: float, counter: int = 0) -> ModelState:
    return ModelState(torch.full((LAYOUT.num_floats,), value), torch.tensor([counter]))


def random_model(round_: int) -> ModelState:
    generator = rng.torch_generator(3, round_, purpose="test-downlink")
    values_F = torch.randn(LAYOUT.num_floats, generator=generator)
    return ModelState(values_F, torch.tensor([5 * round_]))


def history(rounds: int, downlink: Downlink = DOWNLINK) -> list[Held]:
    """What is held in rounds 1, 2, ..., of a model that moves at random."""
    held: Held = {}
    past = []
    for round_ in range(1, rounds + 1):
        held = downlink.advance(held, random_model(round_), round_)
        past.append(held)
    return past


def sent(held: Held, round_: int, base: int, downlink: Downlink = DOWNLINK) -> Broadcast:
    asks = {"a": Broadcast(round_, state_of(held))}
    return downlink.as_changes(held, asks, {"a": base})["a"]


def test_what_a_codec_leaves_out_follows_by_hand() -> None:
    """Of a step from 0 to 8: 4, 6, 7, ..., as each round sends half of what is missing."""
    held = DOWNLINK.advance({}, model(0.0, 1), 1)
    assert state_of(held).values_F.tolist() == [0.0] * LAYOUT.num_floats
    for round_, wanted in ((2, 4.0), (3, 6.0), (4, 7.0), (5, 7.5)):
        held = DOWNLINK.advance(held, model(8.0, round_), round_)
        assert state_of(held).values_F.tolist() == [wanted] * LAYOUT.num_floats
        assert state_of(held).counters_K.tolist() == [round_]  # counters are never behind


def test_advancing_changes_nothing_that_was_held() -> None:
    first = DOWNLINK.advance({}, model(0.0), 1)
    before = {name: tensor.clone() for name, tensor in first.items()}
    DOWNLINK.advance(first, model(8.0), 2)
    assert before.keys() == first.keys()
    assert all(torch.equal(before[name], first[name]) for name in first)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 8), st.data())
def test_every_way_to_a_round_s_broadcast_ends_in_the_same_bits(
    last: int, data: st.DataObject
) -> None:
    past = history(last)
    base = data.draw(st.integers(1, last - 1))
    broadcast = sent(past[-1], last, base)
    assert broadcast.changes is not None
    assert len(broadcast.changes.messages) == last - base
    read = decode_changes(
        encode_changes(broadcast, LAYOUT),
        LAYOUT,
        lambda round_: state_of(past[round_ - 1]) if round_ == base else None,
        Halves(),
    )
    assert read.state.digest() == state_of(past[-1]).digest()
    assert read.round == last


def test_who_holds_nothing_is_sent_the_whole() -> None:
    broadcast = sent(history(4)[-1], 4, base=0)
    assert broadcast.changes is None
    assert broadcast.num_bytes(WHOLE) == WHOLE


def test_who_would_need_as_many_bytes_is_sent_the_whole() -> None:
    size = 4 * LAYOUT.num_floats + 8
    narrow = Downlink(Halves(), 3 * size)
    held = history(6, narrow)[-1]
    assert sent(held, 6, base=4, downlink=narrow).num_bytes(narrow.whole_bytes) == 2 * size
    for base in (3, 2, 1):
        assert sent(held, 6, base=base, downlink=narrow).changes is None
    stored = sum(t.numel() for name, t in held.items() if name.startswith("change"))
    assert stored == 2 * size  # a longer chain is not kept, either


def test_a_coded_start_is_made_good_for_by_hand() -> None:
    """Of 0.3, 0.5 arrives at first; then half of what is missing, 0.4, 0.35, ..."""
    held: Held = {}
    for round_, wanted in ((1, 0.5), (2, 0.4), (3, 0.35)):
        held = CODED.advance(held, model(0.3, round_), round_)
        assert state_of(held).values_F.tolist() == pytest.approx([wanted] * LAYOUT.num_floats)
        assert state_of(held).counters_K.tolist() == [round_]


@pytest.mark.parametrize(("round_", "base"), [(1, 0), (2, 0), (2, 1), (5, 0), (5, 1)])
def test_who_holds_nothing_is_sent_a_coded_start_and_what_followed(round_: int, base: int) -> None:
    past = history(round_, CODED)
    broadcast = sent(past[-1], round_, base, CODED)
    assert broadcast.changes is not None
    assert len(broadcast.changes.messages) == round_ - base
    read = decode_changes(
        encode_changes(broadcast, LAYOUT),
        LAYOUT,
        lambda held: state_of(past[held - 1]) if held else None,
        CodedFromTheStart(),
    )
    assert read.state.digest() == state_of(past[-1]).digest()


def test_a_chain_from_the_start_that_is_larger_than_the_model_gives_way_to_it() -> None:
    size = 4 * LAYOUT.num_floats + 8
    narrow = Downlink(CodedFromTheStart(), 3 * size)
    past = history(6, narrow)
    assert sent(past[1], 2, base=0, downlink=narrow).changes is not None
    assert sent(past[5], 6, base=0, downlink=narrow).changes is None


def test_changes_of_nothing_are_refused_where_the_first_model_is_sent_whole() -> None:
    message = encode_changes(sent(history(2, CODED)[-1], 2, 0, CODED), LAYOUT)
    with pytest.raises(UpdateRejected) as refused:
        decode_changes(message, LAYOUT, lambda held: None, Halves())
    assert refused.value.reason == NO_BASE


def test_facts_and_what_did_not_count_stay_with_a_broadcast() -> None:
    past = history(3)
    facts = {"weights": torch.tensor([1.0, 2.5]).numpy()}
    whole = Broadcast(3, state_of(past[-1]), facts, counted=Counted(2))
    written = DOWNLINK.as_changes(past[-1], {"a": whole, "b": whole}, {"a": 2})
    assert written["b"] == whole
    assert written["a"].counted == Counted(2)
    assert written["a"].state is written["b"].state
    read = decode_changes(
        encode_changes(written["a"], LAYOUT), LAYOUT, lambda _: state_of(past[1]), Halves()
    )
    assert read.facts["weights"].tolist() == [1.0, 2.5]


def test_a_client_holds_what_its_last_update_was_trained_from() -> None:
    late = Failure("b", "late", "deadline")
    lacking = Failure("c", "refused", NO_BASE)
    records = [
        record(1, cohort=("a", "b", "c"), accepted=("a", "b", "c")),
        record(2, cohort=("b", "c"), accepted=("c",), failures=(late,)),
        record(3, cohort=("a", "c"), accepted=("a",), failures=(lacking,)),
    ]
    assert bases(records, ("a", "b", "c", "new")) == {"a": 3, "b": 1, "c": 0}
    records.append(record(4, cohort=("c",), accepted=("c",)))
    assert bases(records, ("c",)) == {"c": 4}


def test_what_builds_on_something_else_is_told_apart() -> None:
    past = history(4)
    data = encode_changes(sent(past[-1], 4, base=2), LAYOUT)
    found: list[Callable[[int], ModelState | None]] = [
        lambda _: None,
        lambda _: state_of(past[0]),
    ]
    for base in found:
        with pytest.raises(UpdateRejected) as caught:
            decode_changes(data, LAYOUT, base, Halves())
        assert caught.value.reason == NO_BASE


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h.update(version=2),
        lambda h: h.update(layout="0" * 64),
        lambda h: h.update(sizes=[1]),
        lambda h: h.update(sizes=[-1, 10_000]),
        lambda h: h.update(sizes="44"),
        lambda h: h.update(base="2"),
        lambda h: h.update(round=1.5),
        lambda h: h.update(digest=7),
        lambda h: h.pop("facts"),
    ],
)
def test_a_wrong_header_is_refused(change: Callable[[dict[str, object]], object]) -> None:
    past = history(3)
    data = with_header(encode_changes(sent(past[-1], 3, base=2), LAYOUT), change)
    with pytest.raises(UpdateRejected):
        decode_changes(data, LAYOUT, lambda _: state_of(past[1]), Halves())


def test_damaged_bytes_never_lead_to_another_model() -> None:
    past = history(3)
    data = encode_changes(sent(past[-1], 3, base=2), LAYOUT)
    generator = rng.generator(4)
    for _ in range(200):
        hurt = bytearray(data)
        hurt[int(generator.integers(len(hurt)))] ^= 1 << int(generator.integers(8))
        try:
            read = decode_changes(bytes(hurt), LAYOUT, lambda _: state_of(past[1]), Halves())
        except UpdateRejected:
            continue
        assert read.state.digest() == state_of(past[-1]).digest()
