"""Replies as JSON headers with separate bytes, for workers and vehicles alike.

An update is either the bytes of a codec, or lies in memory that both sides see, and only its header
is sent. Confusion matrices and sums of norm layers are bytes, too: with many domains or a large
network they would make a large header. Input is untrusted: reading raises nothing but
UpdateRejected.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fleetseg.errors import UpdateRejected
from fleetseg.failures import MAX_DETAIL, failure_header, parse_failure
from fleetseg.federation.messages import (
    Evaluation,
    Failure,
    NormReport,
    Packed,
    Reply,
    Update,
)
from fleetseg.federation.tensors import ModelState
from fleetseg.federation.wire import UpdateCodec, checked_update_meta, unpacked, update_meta
from fleetseg.models.norm_statistics import NormSums
from fleetseg.text import plain

_MAX_DOMAINS = 200
_MAX_DOMAIN_NAME = 200  # characters
_MAX_CHANNELS = 1 << 20  # of all norm layers of a network
_COUNTS, _SUMS = np.dtype("<i8"), np.dtype("<f8")


def write_reply(reply: Reply) -> tuple[dict[str, Any], bytes]:
    """Write a reply: a header and, for a packed update, counts or sums, the bytes."""
    if isinstance(reply, Failure):
        return write_failure(reply), b""
    if isinstance(reply, Evaluation):
        confs = reply.conf_by_domain
        data = b"".join(conf_CC.astype(_COUNTS).tobytes() for conf_CC in confs.values())
        return {"confs": list(confs), "round": reply.round}, data
    if isinstance(reply, NormReport):
        return _write_norm_report(reply)
    if isinstance(reply, Packed):
        return {"update": reply.round}, reply.data
    return {"change": update_meta(reply)}, b""


def read_reply(
    client_id: str,
    header: Mapping[str, Any],
    payload: bytes,
    *,
    num_classes: int,
    codec: UpdateCodec | None,
    room: ModelState | None = None,
) -> Update | Evaluation | NormReport | Failure:
    """Read a reply; an unreadable one becomes a failure. The usual checks must follow.

    Args:
        client_id: the client that was asked.
        header: see `write_reply`.
        payload: the bytes of a packed update, counts or sums.
        num_classes: of confusion matrices.
        codec: the codec of packed updates; None = updates lie in `room`.
        room: holds the change of an update that was not packed.
    """
    if (failure := read_failure(client_id, header)) is not None:
        return failure
    try:
        if "confs" in header:
            return read_evaluation(client_id, header, payload, num_classes)
        if "norm_sums" in header:
            return read_norm_report(client_id, header, payload)
        if codec is not None:
            return unpacked(Packed(0, client_id, payload), codec)
        assert room is not None
        return Update(change=room, **checked_update_meta(header.get("change")))
    except UpdateRejected as rejected:
        return Failure.refused(client_id, rejected)


def write_failure(failure: Failure) -> dict[str, Any]:
    """Write a failure, without the client's name, which the reader knows."""
    return failure_header(failure.kind, failure.reason, failure.detail)


def read_failure(client_id: str, header: Mapping[str, Any]) -> Failure | None:
    """Return a reply's failure, if it is one; the client's text is sanitised."""
    try:
        fields = parse_failure(header)
    except ValueError:
        return Failure(client_id, "refused", "malformed", "a failure that cannot be read")
    if fields is None:
        return None
    kind, reason, detail = fields
    return Failure(client_id, kind, plain(reason, 40), plain(detail, MAX_DETAIL))


def read_evaluation(
    client_id: str, header: Mapping[str, Any], payload: bytes, num_classes: int
) -> Evaluation:
    """Read confusion matrices, or raise UpdateRejected; `validate_evaluation` must follow."""
    domains, round_ = header.get("confs"), header.get("round")
    if not isinstance(domains, list) or len(domains) > _MAX_DOMAINS or type(round_) is not int:
        raise UpdateRejected("malformed", "not confusion matrices")
    for domain in domains:
        if (
            not isinstance(domain, str)
            or len(domain) > _MAX_DOMAIN_NAME
            or not domain.isprintable()
        ):
            raise UpdateRejected("malformed", "a domain's name is too long or cannot be printed")
    if len(set(domains)) < len(domains):
        raise UpdateRejected("malformed", "two domains with the same name")
    shape = (len(domains), num_classes, num_classes)
    expected = math.prod(shape) * _COUNTS.itemsize
    if len(payload) != expected:
        raise UpdateRejected(
            "shape",
            "confusion matrices of a wrong size",
            got=f"{len(payload)} bytes",
            expected=expected,
        )
    confs_DCC = np.frombuffer(payload, _COUNTS).reshape(shape).astype(np.int64)
    if confs_DCC.size and not 0 <= confs_DCC.min() <= confs_DCC.max() < 1 << 62:
        raise UpdateRejected("count", "a count is negative or too large")
    return Evaluation(round_, client_id, dict(zip(domains, confs_DCC, strict=True)))


def has_bytes(header: Mapping[str, Any]) -> bool:
    """Return whether a reply with this header has bytes as well."""
    return any(key in header for key in ("update", "confs", "norm_sums"))


def _write_norm_report(report: NormReport) -> tuple[dict[str, Any], bytes]:
    sums = report.sums
    parts = (
        sums.counts_L.astype(_COUNTS), sums.sums_C.astype(_SUMS), sums.squares_C.astype(_SUMS),
    )  # fmt: skip
    sizes = [len(sums.counts_L), len(sums.sums_C)]
    return {"norm_sums": sizes, "round": report.round}, b"".join(part.tobytes() for part in parts)


def read_norm_report(client_id: str, header: Mapping[str, Any], payload: bytes) -> NormReport:
    """Read sums, or raise UpdateRejected; `validate_norm_report` must follow."""
    sizes, round_ = header.get("norm_sums"), header.get("round")
    if not isinstance(sizes, list) or len(sizes) != 2 or type(round_) is not int:
        raise UpdateRejected("malformed", "not sums of norm layers")
    if not all(type(size) is int and 0 < size <= _MAX_CHANNELS for size in sizes):
        raise UpdateRejected("malformed", "wrong number of layers or channels")
    layers, channels = sizes
    expected = layers * _COUNTS.itemsize + 2 * channels * _SUMS.itemsize
    if len(payload) != expected:
        raise UpdateRejected(
            "malformed", "sums of a wrong size", got=f"{len(payload)} bytes", expected=expected
        )
    counts_L = np.frombuffer(payload, _COUNTS, layers).astype(np.int64)
    both_2C = np.frombuffer(payload, _SUMS, offset=layers * _COUNTS.itemsize).astype(np.float64)
    return NormReport(round_, client_id, NormSums(counts_L, both_2C[:channels], both_2C[channels:]))
