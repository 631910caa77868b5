"""Messages: checked whole, encoded to the bit, and anything else refused. Tests wire, too."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import pickle
import struct
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fleetseg.errors import UpdateRejected
from fleetseg.federation import checks
from fleetseg.federation.aggregate import MAX_VALUE
from fleetseg.federation.checks import validate_evaluation, validate_update
from fleetseg.federation.messages import Broadcast, Enrolment, Evaluation, Update
from fleetseg.federation.tensors import Layout, ModelState, layout_of
from fleetseg.federation.wire import (
    decode_broadcast,
    decode_update,
    encode_broadcast,
    encode_update,
    message_bytes,
    update_meta,
)

Honest = Callable[[str], Update]
Enrolled = dict[str, Enrolment]


@pytest.fixture(scope="session")
def check(layout: Layout, base: ModelState, enrolled: Enrolled) -> Callable[..., None]:
    """Validate an update of round 1."""

    def run(update: Update, max_norm: float = 0.0, start: ModelState = base) -> None:
        validate_update(
            update,
            layout=layout,
            base=start,
            round_=1,
            enrolled=enrolled.get(update.client_id, enrolled["car-0"]),
            max_norm=max_norm,
        )

    return run


def test_every_bad_update_is_refused_for_its_reason(
    check: Callable[..., None],
    honest: Honest,
    mutate: Callable[[Update], Update],
    reason: str,
) -> None:
    with pytest.raises(UpdateRejected) as caught:
        check(mutate(honest("car-9")))
    assert caught.value.reason == reason
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("key", ["conv.weight", "foo.running_mean", "foo.running_var", "bn1.bias"])
def test_the_text_names_the_tensor(
    check: Callable[..., None], honest: Honest, layout: Layout, key: str
) -> None:
    update = honest("car-0")
    layout.views(update.change)[key].view(-1)[-1] = math.nan
    with pytest.raises(UpdateRejected, match=f"^{key}: NaN or infinity$"):
        check(update)


def test_limits_are_inclusive(check: Callable[..., None], honest: Honest, layout: Layout) -> None:
    update = honest("car-0")
    edge = layout.views(update.change)
    edge["conv.bias"][0] = MAX_VALUE
    edge["foo.running_var"].fill_(-1.0)  # the variance becomes exactly zero
    edge["foo.num_batches_tracked"].fill_(checks.MAX_COUNTER_STEP)
    check(replace(update, loss=-checks.MAX_LOSS))
    check(replace(update, num_images=1, num_pixels=1, num_steps=1, images_seen=1, loss=0.0))


def test_norm_bound_covers_the_trainable_values_only(
    check: Callable[..., None], honest: Honest, layout: Layout
) -> None:
    update = honest("car-0")
    update.change.values_F.zero_()
    tensors = layout.views(update.change)
    tensors["conv.bias"][:] = torch.tensor([3.0, 4.0])
    tensors["foo.running_mean"].fill_(100.0)
    check(update, max_norm=5.0)
    check(update, max_norm=0.0)
    with pytest.raises(UpdateRejected, match=r"\(L2\); got 5.0, expected <= 4.99") as caught:
        check(update, max_norm=4.99)
    assert caught.value.reason == "norm"


def test_a_buffer_of_negative_integers_may_stay_as_it_is() -> None:
    net = nn.Linear(1, 1)
    net.register_buffer("table", torch.tensor([-5, 3]))
    layout = layout_of(net)
    base = ModelState(torch.zeros(2), torch.tensor([-5, 3]))
    update = Update(1, "a", base.clone(), 1, 1, 1, 1, 0.1)
    source = Enrolment("a", 1, 1, ())
    validate_update(update, layout=layout, base=base, round_=1, enrolled=source, max_norm=0)
    update.change.counters_K[0] = -6
    with pytest.raises(UpdateRejected, match="counter"):
        validate_update(update, layout=layout, base=base, round_=1, enrolled=source, max_norm=0)


# Evaluations


def test_evaluations() -> None:
    good = np.array([[5, 1], [0, 4]])
    reply = Evaluation(2, "a", {"rain": good, "sun": good})
    validate_evaluation(reply, round_=2, num_classes=2, max_pixels=20)
    huge = np.array([[2**62, 2**62], [2**62, 2**62]])  # adds up to 2**64, that is to 0
    bad: list[tuple[Any, str]] = [
        (replace(reply, round=1), "stale"),
        (replace(reply, conf_by_domain={"rain": good, "sun": good + 1}), "count"),
        (replace(reply, conf_by_domain={"rain": good - 1}), "count"),
        (replace(reply, conf_by_domain={"rain": huge}), "count"),
        (replace(reply, conf_by_domain={"rain": good[:1]}), "shape"),
        (replace(reply, conf_by_domain={"rain": good.astype(np.float64)}), "shape"),
        (replace(reply, conf_by_domain={"rain": good.astype(">i8")}), "shape"),
        (replace(reply, conf_by_domain={"rain": np.zeros((3, 3), np.int64)}), "shape"),
    ]
    for wrong, reason in bad:
        with pytest.raises(UpdateRejected) as caught:
            validate_evaluation(wrong, round_=2, num_classes=2, max_pixels=20)
        assert caught.value.reason == reason


# Encoding


def test_update_round_trip_to_the_bit(honest: Honest, layout: Layout) -> None:
    update = honest("car-4")
    layout.views(update.change)["conv.bias"].copy_(torch.tensor([-0.0, 1e-45]))
    back = decode_update(encode_update(update, layout), layout)
    assert replace(back, change=update.change) == update
    assert back.change.digest() == update.change.digest()


def test_broadcast_round_trip_to_the_bit(base: ModelState, layout: Layout) -> None:
    facts = {
        "weights": np.array([1 / math.log(1.1 + k / 19) for k in range(19)], np.float32),
        "styles": np.arange(6, dtype=np.float32).reshape(2, 3) / 7,
    }
    back = decode_broadcast(encode_broadcast(Broadcast(7, base, facts), layout), layout)
    assert back.round == 7
    assert back.facts.keys() == facts.keys()
    for name, fact in facts.items():
        assert np.array_equal(back.facts[name], fact)
        assert back.facts[name].dtype == np.float32
    assert back.state.digest() == base.digest()


names = st.text(max_size=60).filter(lambda s: s.isprintable()) | st.sampled_from(
    ["\"'\\", "käfer-1", "\N{AUTOMOBILE}" * 30, "\x00\x1f", "a" * 300]
)


@settings(max_examples=60, deadline=None)
@given(
    names,
    st.integers(1, 2**40),
    st.floats(allow_nan=False),
    st.lists(st.floats(0, 10), max_size=300),
)
def test_message_size_depends_on_the_layout_only(
    layout: Layout,
    base: ModelState,
    honest: Honest,
    name: str,
    count: int,
    loss: float,
    weights: list[float],
) -> None:
    down, up = message_bytes(layout, layout)
    update = replace(honest("car-0"), client_id=name, num_pixels=count, round=count, loss=loss)
    data = encode_update(update, layout)
    assert len(data) == up
    assert decode_update(data, layout).client_id == name
    facts = {"weights": np.array(weights, np.float32)}
    assert len(encode_broadcast(Broadcast(count, base, facts), layout)) == down
    assert up > 4 * layout.num_floats + 8 * layout.num_counters


def make_message(layout: Layout, tensors: dict[str, torch.Tensor], /, **header: Any) -> bytes:
    """A message as an attacker who knows the format would make it."""
    fields = {"kind": "update", "version": 1, "layout": layout.digest, "meta": {}, **header}
    text = fields.pop("text", json.dumps(fields))
    return bytes(safetensors.torch.save(tensors, metadata={"fleetseg": text}))


def reason_of(data: bytes, layout: Layout) -> str:
    """Why an update and a broadcast of these bytes are refused; quickly and in little memory."""
    reasons = []
    for decode in (decode_update, decode_broadcast):
        tracemalloc.start()
        started_s = time.perf_counter()
        with pytest.raises(UpdateRejected) as caught:
            decode(data, layout)
        assert time.perf_counter() - started_s < 1
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
        tracemalloc.stop()
        assert len(str(caught.value)) < 1000
        reasons.append(caught.value.reason)
    return reasons[0]


class Canary:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_pickles_are_never_opened(tmp_path: Path, layout: Layout) -> None:
    canary = Canary(tmp_path / "opened")
    as_torch, as_numpy = io.BytesIO(), io.BytesIO()
    torch.save({"x": canary}, as_torch)
    np.save(as_numpy, np.array([canary], dtype=object), allow_pickle=True)
    pickled = pickle.dumps(canary)
    framed = struct.pack("<Q", len(pickled)) + pickled
    for data in (pickled, framed, as_torch.getvalue(), as_numpy.getvalue()):
        assert reason_of(data, layout) in {"malformed", "oversize"}
    assert list(tmp_path.iterdir()) == []


def test_truncated_at_every_place(honest: Honest, layout: Layout) -> None:
    data = encode_update(honest("car-0"), layout)
    for length in [*range(0, 40), *range(40, len(data), 211), len(data) - 1]:
        assert reason_of(data[:length], layout) in {"malformed", "oversize"}


def test_bytes_after_the_end(honest: Honest, layout: Layout) -> None:
    data = encode_update(honest("car-0"), layout)
    assert reason_of(data + b"\0", layout) == "malformed"
    assert reason_of(data + b"\0" * (1 << 20), layout) == "oversize"


@pytest.mark.parametrize("declared", [1 << 60, (1 << 64) - 1, 1 << 31, 1 << 20])
def test_declared_huge_header(honest: Honest, layout: Layout, declared: int) -> None:
    data = encode_update(honest("car-0"), layout)
    assert reason_of(struct.pack("<Q", declared) + data[8:], layout) == "oversize"


def frame(header: str | bytes, payload: bytes = b"") -> bytes:
    raw = header.encode() if isinstance(header, str) else header
    return struct.pack("<Q", len(raw)) + raw + payload


def test_declared_huge_tensors(layout: Layout) -> None:
    inner = json.dumps({"kind": "update", "version": 1, "layout": layout.digest, "meta": {}})
    for shape, end in (([1 << 60], 1 << 62), ([0, 1 << 62], 0), ([0, 1 << 63], 0), ([-1], 4)):
        header = {
            "__metadata__": {"fleetseg": inner},
            "conv.weight": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]},
        }
        assert reason_of(frame(json.dumps(header)), layout) in {"malformed", "keys"}


def test_nesting_too_deep_for_the_parser(honest: Honest, layout: Layout) -> None:
    deep = "[" * 2000 + "]" * 2000
    assert reason_of(frame(deep), layout) == "malformed"
    assert reason_of(frame("[" * 8000), layout) == "malformed"
    tensors = layout.views(honest("car-0").change)
    for depth in (10, 500, 950, 990, 1000, 1100, 2000):
        deep = "[" * depth + "]" * depth
        plain = '{"kind": "update", "version": 1, "layout": "x", "meta": {}}'
        for old in ('"x"', "1", "{}", '"update"'):
            text = plain.replace(old, deep)
            reason = reason_of(make_message(layout, tensors, text=text), layout)
            assert reason in {"malformed", "version", "layout", "oversize"}


def test_headers_of_others(honest: Honest, layout: Layout, base: ModelState) -> None:
    tensors = layout.views(honest("car-0").change)
    update, broadcast = (
        encode_update(honest("car-0"), layout),
        encode_broadcast(Broadcast(1, base), layout),
    )
    with pytest.raises(UpdateRejected, match="not a message 'broadcast'"):
        decode_broadcast(update, layout)
    with pytest.raises(UpdateRejected, match="not a message 'update'"):
        decode_update(broadcast, layout)
    assert reason_of(make_message(layout, tensors, version=2), layout) == "version"
    assert reason_of(make_message(layout, tensors, version=None), layout) == "version"
    assert reason_of(make_message(layout, tensors, kind=["update"]), layout) == "version"
    assert reason_of(make_message(layout, tensors, meta=[1]), layout) == "version"
    assert reason_of(make_message(layout, tensors, layout="0" * 64), layout) == "layout"
    assert reason_of(make_message(layout, tensors, layout={"a": 1}), layout) == "layout"
    assert reason_of(make_message(layout, tensors, text="{}"), layout) == "malformed"
    assert reason_of(make_message(layout, tensors, text="[1]"), layout) == "malformed"
    assert reason_of(make_message(layout, tensors, text="!"), layout) == "malformed"
    assert reason_of(bytes(safetensors.torch.save(tensors)), layout) == "malformed"
    other = layout_of(nn.Linear(30, 30))  # not smaller, or the size alone would be refused
    with pytest.raises(UpdateRejected, match="made for another model"):
        decode_update(update, other)


def test_meta_fields_must_be_exactly_those_of_an_update(honest: Honest, layout: Layout) -> None:
    update = honest("car-0")
    meta = {n: v for n, v in vars(update).items() if n != "change"}
    tensors = layout.views(update.change)
    assert decode_update(make_message(layout, tensors, meta=meta), layout).loss == 0.5
    wrong: list[dict[str, Any]] = [
        {},
        {**meta, "change": {}},
        {**meta, "extra": 1},
        {**meta, "more_bytes": 1},
        {k: v for k, v in meta.items() if k != "loss"},
        {**meta, "client_id": 5},
        {**meta, "client_id": ["car-0"]},
        {**meta, "client_id": None},
    ]
    for fields in wrong:
        with pytest.raises(UpdateRejected) as caught:
            decode_update(make_message(layout, tensors, meta=fields), layout)
        assert caught.value.reason == "malformed"


@pytest.mark.parametrize("bad", ["x", None, [1.0], math.nan, math.inf, 1e39, {"a": 1}])
def test_facts_of_a_broadcast_must_be_numbers(
    layout: Layout, base: ModelState, bad: object
) -> None:
    meta = {"round": 1, "facts": {"weights": [1.0, bad]}}
    data = make_message(layout, layout.views(base), kind="broadcast", meta=meta)
    with pytest.raises(UpdateRejected, match="a fact is n") as caught:
        decode_broadcast(data, layout)
    assert caught.value.reason == "malformed"


def test_bad_tensors_are_refused_where_they_are_decoded(
    layout: Layout,
    honest: Honest,
    spoil: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]],
    reason: str,
) -> None:
    tensors, meta = spoil(layout.views(honest("car-9").change)), {"round": 1, "facts": {}}
    update = make_message(layout, tensors, meta=update_meta(honest("car-9")))
    with pytest.raises(UpdateRejected) as caught:
        decode_update(update, layout)
    assert caught.value.reason == reason
    with pytest.raises(UpdateRejected) as caught:
        decode_broadcast(make_message(layout, tensors, kind="broadcast", meta=meta), layout)
    assert caught.value.reason == reason


def test_a_bad_update_is_refused_after_the_wire_too(
    check: Callable[..., None],
    honest: Honest,
    layout: Layout,
    mutate: Callable[[Update], Update],
    reason: str,
) -> None:
    """What can be written to the wire at all comes out of it no less refused."""
    data = encode_update(mutate(honest("car-9")), layout)
    with pytest.raises(UpdateRejected) as caught:
        check(decode_update(data, layout))
    assert caught.value.reason == reason


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_fuzz_mutated_messages(
    check: Callable[..., None], honest: Honest, layout: Layout, data: st.DataObject
) -> None:
    message = bytearray(encode_update(honest("car-0"), layout))
    # Half of the places in the header's JSON, where most of the parsing is.
    (header_bytes,) = struct.unpack("<Q", message[:8])
    places = st.integers(0, 600) | st.integers(0, len(message) - 1)
    places |= st.integers(header_bytes - 900, len(message) - 1)
    for _ in range(data.draw(st.integers(1, 4))):
        place = min(data.draw(places), len(message) - 1)
        change = data.draw(st.sampled_from(["byte", "cut", "insert", "copy"]))
        if change == "byte":
            message[place] = data.draw(st.integers(0, 255))
        elif change == "cut":
            del message[place : place + data.draw(st.integers(1, 40))]
        elif change == "insert":
            message[place:place] = data.draw(st.binary(min_size=1, max_size=20))
        else:
            message[place:place] = message[place : place + 80]
        if len(message) < 2:
            break
    with contextlib.suppress(UpdateRejected):
        check(decode_update(bytes(message), layout))


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=600))
def test_fuzz_random_bytes(layout: Layout, data: bytes) -> None:
    assert reason_of(data, layout) in {"malformed", "oversize"}
    assert reason_of(frame(data), layout) in {"malformed", "oversize"}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(json_values, json_values, json_values, json_values)
def test_fuzz_headers_of_any_json(
    layout: Layout, honest: Honest, kind: Any, version: Any, digest: Any, meta: Any
) -> None:
    tensors = layout.views(honest("car-0").change)
    for header in (
        {"kind": kind, "version": version, "layout": digest, "meta": meta},
        {"version": version},
        {"layout": digest},
        {"meta": meta},
    ):
        assert reason_of(make_message(layout, tensors, **header), layout) in {
            "malformed",
            "version",
            "layout",
        }
