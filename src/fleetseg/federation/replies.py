"""Replies as JSON headers with bytes beside them: of workers and of vehicles alike.

An update is either bytes that a codec made, or lies where both sides see it and only its header is
sent. Confusion matrices and sums of norm layers are bytes, too: those of many domains or of a large
network would be no small header. What is read here may come from anybody: it raises nothing but
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
    """Write a reply: a header and, of a packed update, of counts and of sums, the bytes."""
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
    """Read a reply; one that cannot be read is a failure, and the usual checks must follow.

    Args:
        client_id: who was asked.
        header: see `write_reply`.
        payload: of a packed update, of counts and of sums, their bytes.
        num_classes: of confusion matrices.
        codec: what an update was packed by; None = updates lie in `room`.
        room: where the change of an update lies that was not packed.
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
    """Write why a client has no other answer; who it is, is known where it is read."""
    return failure_header(failure.kind, failure.reason, failure.detail)


def read_failure(client_id: str, header: Mapping[str, Any]) -> Failure | None:
    """Read a reply's failure, if it is one; whatever a client sends becomes a plain text."""
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
        raise UpdateRejected("malformed", "no confusion matrices")
    for domain in domains:
        if (
            not isinstance(domain, str)
            or len(domain) > _MAX_DOMAIN_NAME
            or not domain.isprintable()
        ):
            raise UpdateRejected("malformed", "a domain's name is too long or cannot be printed")
    if len(set(domains)) < len(domains):
        raise UpdateRejected("malformed", "two domains of one name")
    shape = (len(domains), num_classes, num_classes)
    expected = math.prod(shape) * _COUNTS.itemsize
    if len(payload) != expected:
        raise UpdateRejected(
            "shape",
            "no matrix of the classes for each",
            got=f"{len(payload)} bytes",
            expected=expected,
        )
    confs_DCC = np.frombuffer(payload, _COUNTS).reshape(shape).astype(np.int64)
    if confs_DCC.size and not 0 <= confs_DCC.min() <= confs_DCC.max() < 1 << 62:
        raise UpdateRejected("count", "a count is negative or too large")
    return Evaluation(round_, client_id, dict(zip(domains, confs_DCC, strict=True)))


def has_bytes(header: Mapping[str, Any]) -> bool:
    """Say whether a reply's header is one with bytes beside it."""
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
        raise UpdateRejected("malformed", "no sums of norm layers")
    if not all(type(size) is int and 0 < size <= _MAX_CHANNELS for size in sizes):
        raise UpdateRejected("malformed", "not so many layers or channels")
    layers, channels = sizes
    expected = layers * _COUNTS.itemsize + 2 * channels * _SUMS.itemsize
    if len(payload) != expected:
        raise UpdateRejected(
            "malformed", "sums of another size", got=f"{len(payload)} bytes", expected=expected
        )
    counts_L = np.frombuffer(payload, _COUNTS, layers).astype(np.int64)
    both_2C = np.frombuffer(payload, _SUMS, offset=layers * _COUNTS.itemsize).astype(np.float64)
    return NormReport(round_, client_id, NormSums(counts_L, both_2C[:channels], both_2C[channels:]))
