"""Low rank: exact where a tensor has it, near the best where not; nothing is lost for good."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from fleetseg import rng
from fleetseg.compression.codec import parse_codec
from fleetseg.compression.lowrank import Piece, factored, multiplied, pieces_of
from fleetseg.compression.payload import Plan, decode, encode
from fleetseg.compression.uplink import Uplink
from fleetseg.errors import ConfigError
from fleetseg.federation.messages import Update
from fleetseg.federation.tensors import Layout, ModelState, layout_of

WIDE = layout_of(nn.Sequential(nn.Conv2d(8, 40, 3), nn.BatchNorm2d(40), nn.Conv2d(40, 4, 1)))


def matrix(rank: int, rows: int = 30, columns: int = 50) -> np.ndarray:
    generator = rng.generator(1, rank, purpose="test-lowrank")
    left = generator.standard_normal((rows, rank), dtype=np.float32)
    return left @ generator.standard_normal((rank, columns), dtype=np.float32)


def sent_and_read(values: np.ndarray, rank: int) -> np.ndarray:
    pieces = (Piece(0, *values.shape, rank),)
    written = factored(values.reshape(-1), pieces, rng.generator(2, purpose="start"))
    assert written.size == rank * sum(values.shape)
    return multiplied(written, pieces, values.size).reshape(values.shape)


def test_by_hand() -> None:
    """Of rank 1: P = (3, 4) / 5 up to its sign, Q = 5 (1, 2, 2)."""
    values = np.outer([3.0, 4.0], [1.0, 2.0, 2.0]).astype(np.float32)
    piece = Piece(0, 2, 3, 1)
    written = factored(values.reshape(-1), (piece,), rng.generator(0))
    np.testing.assert_allclose(written * np.sign(written[0]), [0.6, 0.8, 5, 10, 10], rtol=1e-5)
    np.testing.assert_allclose(multiplied(written, (piece,), 6), values.reshape(-1), rtol=1e-5)


def test_a_tensor_of_that_rank_arrives_whole() -> None:
    values = matrix(3)
    np.testing.assert_allclose(sent_and_read(values, 3), values, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_the_error_is_near_that_of_the_best_of_its_rank(rank: int) -> None:
    """The singular value decomposition (numpy's) has the best."""
    generator = rng.generator(5, purpose="noise")
    noise = generator.standard_normal((30, 50), dtype=np.float32)
    values = (matrix(6) + 0.5 * noise).astype(np.float32)
    least = np.sqrt((np.linalg.svd(values, compute_uv=False)[rank:] ** 2).sum())
    error = np.linalg.norm(sent_and_read(values, rank) - values)
    assert least - 1e-3 <= error < 1.25 * least


def test_small_tensors_go_whole() -> None:
    pieces = pieces_of(WIDE, 2)
    assert [(p.rows, p.columns, p.rank) for p in pieces] == [
        (40, 72, 2), (1, 40, 0), (1, 40, 0), (1, 40, 0), (4, 40, 2), (1, 4, 0),
    ]  # fmt: skip
    assert all(piece.num_sent <= piece.size for piece in pieces_of(WIDE, 100))


@pytest.mark.parametrize("format_", ["fp32", "bf16", "fp16", "int8", "int4"])
def test_it_goes_with_every_format(format_: str) -> None:
    codec = parse_codec(f"powersgd(2)+{format_}")
    assert codec is not None
    assert codec.name == f"powersgd(2)+{format_}"
    plan = Plan.of(codec, WIDE)
    generator = rng.torch_generator(0, purpose="test-lowrank")
    change = ModelState(torch.randn(WIDE.num_floats, generator=generator), torch.tensor([3]))
    data = encode(change, plan, rng.generator(0, purpose="quantise"))
    assert len(data) == plan.num_bytes
    read, num = decode(data, plan), WIDE.num_trainable
    exact = Plan.of(parse_codec("powersgd(2)+fp32"), WIDE)  # type: ignore[arg-type]
    low = decode(encode(change, exact, rng.generator(0, purpose="quantise")), exact)
    allowed = {"fp32": 0.0, "bf16": 0.05, "fp16": 0.01, "int8": 0.2, "int4": 4.0}[format_]
    assert (read.values_F[:num] - low.values_F[:num]).abs().max() <= allowed
    assert torch.equal(read.counters_K, change.counters_K)


def test_nothing_is_lost_in_the_long_run(update: Callable[[int], Update], layout: Layout) -> None:
    codec = parse_codec("powersgd(1)+int8")
    assert codec is not None
    both, kept, num = Uplink(codec, layout, 5), None, layout.num_trainable
    sent, learned = torch.zeros(num), torch.zeros(num)
    for round_ in range(1, 7):
        learned += update(round_).change.values_F[:num]
        data, kept = both.pack(update(round_), kept)
        sent += both.unpack(data).change.values_F[:num]
    assert kept is not None
    assert kept.abs().max() > 0
    torch.testing.assert_close(sent + kept, learned, rtol=0, atol=1e-6)


def test_what_is_not_finite_arrives_as_such() -> None:
    codec = parse_codec("powersgd(2)+int8")
    assert codec is not None
    plan = Plan.of(codec, WIDE)
    change = ModelState(torch.zeros(WIDE.num_floats), torch.tensor([3]))
    change.values_F[5] = float("inf")
    with np.errstate(all="ignore"):
        read = decode(encode(change, plan, rng.generator(0)), plan)
    assert not torch.isfinite(read.values_F).all()


@pytest.mark.parametrize(
    "text",
    [
        "powersgd(0)+int8",
        "powersgd(2)+topk(1%)",
        "powersgd(x)",
        "powersgd(2)+int8(channel)",
        "int8(channel)+powersgd(2)",
    ],
)
def test_wrong_names_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="no such codec"):
        parse_codec(text)
