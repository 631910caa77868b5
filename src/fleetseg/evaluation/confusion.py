"""Confusion matrices: exact counts that add up over images, clients and domains.

Shapes: N images, H x W pixels, C classes; `conf_CC` has the truth in its rows and the prediction
in its columns. Every score is computed from one summed matrix (see `scores`), never averaged.

A histogram costs about one clock cycle per increment, so the speed comes from fewer increments:
label maps are mostly flat, and eight equal pixels are counted at once, as one times eight.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch

from fleetseg.data.labels import IGNORE
from fleetseg.errors import DataError

Conf_CC = npt.NDArray[np.int64]
"""Pixel counts, shape (classes, classes): rows = truth, columns = prediction."""

_Bytes = npt.NDArray[np.uint8]
_WORD = 8  # pixels counted at once, as one 64-bit word
_CHUNK = 1 << 20  # pixels per step: bounds the temporaries, hides the cost of a call
MAX_CLASSES = 254  # ids, "ignored" and "wrong" must share one byte


def confusion(
    labels_NHW: npt.NDArray[np.integer] | torch.Tensor,
    preds_NHW: npt.NDArray[np.integer] | torch.Tensor,
    num_classes: int,
    ignore: int = IGNORE,
) -> Conf_CC:
    """Count pixels by (true class, predicted class); pixels labelled `ignore` are left out.

    Both arrays may have any shape, but the same; uint8 is fastest. Matrices of several calls add.

    >>> confusion(np.array([[0, 1, 1, 255]]), np.array([[0, 1, 0, 1]]), num_classes=2)
    array([[1, 0],
           [1, 1]])

    Raises:
        DataError: shapes differ, or an id is neither a class nor (for labels) `ignore`.
    """
    if not 1 <= num_classes <= MAX_CLASSES:
        raise DataError(
            "unsupported number of classes", got=num_classes, expected=f"1 to {MAX_CLASSES}"
        )
    if tuple(labels_NHW.shape) != tuple(preds_NHW.shape):
        raise DataError(
            "labels and predictions differ in shape",
            got=f"labels {tuple(labels_NHW.shape)} and predictions {tuple(preds_NHW.shape)}",
            expected="one predicted class for each labelled pixel",
            cure="Resize the logits to the label's own size before taking the argmax.",
        )
    labels = _as_bytes(labels_NHW, "label", [*range(num_classes), ignore], num_classes)
    preds = _as_bytes(preds_NHW, "predicted", range(num_classes), num_classes)
    counts = np.zeros((num_classes + 1) * num_classes, np.int64)
    for start in range(0, labels.size, _CHUNK):
        rows = _rows_of(labels[start : start + _CHUNK], num_classes, ignore)
        columns = preds[start : start + _CHUNK]
        if columns.max() >= num_classes:
            raise _wrong_ids(columns, "predicted", range(num_classes), num_classes)
        counts += _count_flat(rows, columns, num_classes)
    return counts.reshape(num_classes + 1, num_classes)[1:].copy()


def _as_bytes(
    ids: npt.NDArray[np.integer] | torch.Tensor,
    kind: str,
    valid: Iterable[int],
    num_classes: int,
) -> _Bytes:
    """Flatten to contiguous uint8, and refuse ids that would wrap around."""
    array = ids.detach().cpu().numpy() if isinstance(ids, torch.Tensor) else np.asarray(ids)
    if not np.issubdtype(array.dtype, np.integer):
        raise DataError(f"{kind} ids have a wrong type", got=array.dtype, expected="integers")
    if array.dtype != np.uint8:
        if array.size and (array.min() < 0 or array.max() > 255):
            raise _wrong_ids(array, kind, valid, num_classes)
        array = array.astype(np.uint8)
    return np.ascontiguousarray(array).reshape(-1)


def _rows_of(labels: _Bytes, num_classes: int, ignore: int) -> _Bytes:
    """Shift label ids by one, so that row 0 collects the ignored pixels."""
    if ignore == 255:
        rows = labels + np.uint8(1)  # 255 wraps to 0
    else:
        table = np.full(256, 255, np.uint8)
        table[:num_classes] = np.arange(1, num_classes + 1)
        table[ignore] = 0
        rows = table[labels]
    if rows.max() > num_classes:
        raise _wrong_ids(labels, "label", [*range(num_classes), ignore], num_classes)
    return rows


def _count_flat(rows: _Bytes, columns: _Bytes, num_classes: int) -> Conf_CC:
    """Return the histogram of (row, column), counting words of eight equal pixels once."""
    if rows.size < _WORD:
        return _count(rows, columns, num_classes)
    whole = rows.size - rows.size % _WORD
    row_words, column_words = rows[:whole].view(np.uint64), columns[:whole].view(np.uint64)
    edges = np.empty(whole, np.bool_)
    np.not_equal(rows[1:whole], rows[: whole - 1], out=edges[1:])
    edges[1:] |= columns[1:whole] != columns[: whole - 1]
    # A word is mixed if it has an edge at any byte except the first, which is the lowest
    # (little-endian) and marks the border to the previous word.
    mixed = np.flatnonzero(edges.view(np.uint64) > 255)
    if 2 * mixed.size > row_words.size:
        return _count(rows, columns, num_classes)
    mixed_rows, mixed_columns = row_words[mixed], column_words[mixed]
    # One byte represents its word, so subtract the mixed words before multiplying by eight.
    counts = _count(row_words.astype(np.uint8), column_words.astype(np.uint8), num_classes)
    counts -= _count(mixed_rows.astype(np.uint8), mixed_columns.astype(np.uint8), num_classes)
    counts *= _WORD
    counts += _count(mixed_rows.view(np.uint8), mixed_columns.view(np.uint8), num_classes)
    if whole < rows.size:
        counts += _count(rows[whole:], columns[whole:], num_classes)
    return counts


def _count(rows: _Bytes, columns: _Bytes, num_classes: int) -> Conf_CC:
    """Return the histogram of row * C + column, with a set of bins for each lane of a 64-bit word.

    Neighbouring pixels are mostly equal; incrementing the same bin repeatedly waits for memory,
    incrementing several bins in turn does not.
    """
    bins = (num_classes + 1) * num_classes
    code_type = np.int16 if 4 * bins <= 1 << 15 else np.int32
    width = np.dtype(code_type).itemsize
    lanes = 8 // width
    codes = np.empty(-(-rows.size // lanes) * lanes, code_type)
    used = codes[: rows.size]
    np.multiply(rows, num_classes, out=used, dtype=code_type)
    np.add(used, columns, out=used)
    lane_words = codes.view(np.int64)
    lane_words += sum(lane * bins << (8 * width * lane) for lane in range(lanes))
    # torch counts 16-bit codes directly; numpy would first widen them to 64 bits.
    counts = torch.bincount(torch.from_numpy(used), minlength=bins * lanes).numpy()
    total: Conf_CC = counts.reshape(lanes, bins).sum(axis=0)
    return total


def _wrong_ids(
    ids: npt.NDArray[np.integer], kind: str, valid: Iterable[int], num_classes: int
) -> DataError:
    wrong = sorted(set(np.unique(ids).tolist()) - set(valid))
    shown = ", ".join(str(id_) for id_ in wrong[:8]) + (", ..." if len(wrong) > 8 else "")
    is_label = kind == "label"
    return DataError(
        f"{kind} ids outside the {num_classes} classes",
        got="{" + shown + "}",
        expected=f"0 to {num_classes - 1}" + (" or the ignore id" if is_label else ""),
        cure="Map raw ids to train ids with the label space of the data set."
        if is_label
        else "Check that the model has as many outputs as the label space has classes.",
    )
