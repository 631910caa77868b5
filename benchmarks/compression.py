"""Codecs: bytes and speed of an update, beside the plain message of the same run.

    python benchmarks/compression.py

An update of 3.6 M parameters is packed and unpacked on one thread; MB/s is its uncompressed float32
bytes, counted once, over the time of both. Values are drawn with a scale of their own per tensor,
like the changes of real training.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

from fleetseg import rng
from fleetseg.compression.codec import parse_codec
from fleetseg.compression.uplink import Uplink
from fleetseg.federation.messages import Update
from fleetseg.federation.tensors import Layout, ModelState, layout_of
from fleetseg.federation.wire import decode_update, encode_update
from fleetseg.models.bisenetv2 import BiSeNetV2
from fleetseg.models.build import wrap

CODECS = ("fp32", "bf16", "fp16", "int8", "int4", "topk(10%)+int8", "topk(1%)+int8")
REPEATS = 5


def make_update(layout: Layout) -> Update:
    """Draw a random change for each tensor, with a scale of its own."""
    generator = rng.torch_generator(0, purpose="codec-benchmark")
    state = ModelState(torch.empty(layout.num_floats), torch.ones(layout.num_counters).long())
    for entry in layout.floats:
        scale = 10 ** (-2 - 2 * float(torch.rand((), generator=generator)))
        part = torch.randn(entry.size, generator=generator) * scale
        state.values_F[entry.start : entry.stop] = part
    return Update(1, "car", state, 10, 100, 1, 10, 0.5)


def seconds_of(work: Callable[[], object]) -> float:
    """Median seconds of a few runs, after one that warms up."""
    work()
    seconds = []
    for _ in range(REPEATS):
        started_s = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started_s)
    return statistics.median(seconds)


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    layout = layout_of(wrap(BiSeNetV2(19), 19))
    update = make_update(layout)
    plain = encode_update(update, layout)
    megabytes = 4 * layout.num_floats / 1e6
    plain_s = seconds_of(lambda: encode_update(update, layout))
    plain_s += seconds_of(lambda: decode_update(plain, layout))
    print(f"{layout.num_floats:,} floats, plain message {len(plain) / 1e6:.2f} MB, 1 thread")
    print("codec             MB   times smaller   pack ms   unpack ms   MB/s   time / plain")
    print(f"{'none':15s} {len(plain) / 1e6:6.3f}                   {plain_s * 1e3:24.1f} (both)")
    for text in CODECS:
        codec = parse_codec(text)
        assert codec is not None
        uplink = Uplink(codec, layout, 0)
        data, left_T = uplink.pack(update, None)
        # Of the second round: top-k then has a residual to add.
        again = partial(uplink.pack, replace(update, round=2), left_T)
        pack_s, unpack_s = seconds_of(again), seconds_of(partial(uplink.unpack, data))
        both_s = pack_s + unpack_s
        print(
            f"{text:15s} {len(data) / 1e6:6.3f} {len(plain) / len(data):15.1f}"
            f" {pack_s * 1e3:9.1f} {unpack_s * 1e3:11.1f} {megabytes / both_s:6.0f}"
            f" {both_s / plain_s:17.2f}"
        )


if __name__ == "__main__":
    main()
